"""A proxy of the tests' own: carries connections (CONNECT), and looks into them or alters them if it is told to."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from skerry.trust.certificates import issue_server, make_ca

Alter = Callable[[bytes], bytes]


class ConnectProxy:
    """Counts what it is asked for. With a `folder` for its certificates it looks into what it carries."""

    def __init__(self, folder: Path | None = None, *, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[str] = []
        self.authorizations: list[str] = []
        self.seen = bytearray()
        self.alter: Alter = lambda chunk: chunk
        self.ca_pem = ""
        self._tls = tls
        self._inside: ssl.SSLContext | None = None
        if folder is not None:
            now = datetime.now(UTC)
            ca_key, ca_cert = make_ca("who looks into everything", now)
            key, cert = issue_server(ca_key, ca_cert, ["127.0.0.1", "::1"], now)
            self.ca_pem = ca_cert.decode()
            (folder / "proxy.pem").write_bytes(cert + key)
            self._inside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._inside.load_cert_chain(folder / "proxy.pem")
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._door = socket.create_server(("127.0.0.1", 0))

    @property
    def port(self) -> int:
        """Where it listens at 127.0.0.1."""
        return int(self._door.getsockname()[1])

    @contextmanager
    def running(self) -> Generator[ConnectProxy]:
        """Serve until the end of the `with`."""
        self._start(self._accept)
        try:
            yield self
        finally:
            for one in (self._door, *self._open):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
            for thread in self._threads:
                thread.join(20)

    def _start(self, work: Callable[..., None], *arguments: socket.socket) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._door.accept()
            except OSError:
                return
            self._open.append(near)
            self._start(self._serve, near)

    def _serve(self, near: socket.socket) -> None:
        far: socket.socket | None = None
        try:
            if self._tls is not None:
                near = self._tls.wrap_socket(near, server_side=True)
            head = b""
            while b"\r\n\r\n" not in head:
                head += near.recv(65536) or b"\r\n\r\n"
            lines = head.decode().split("\r\n")
            place = lines[0].split()[1]
            self.asked.append(place)
            self.authorizations += [line for line in lines if line.lower().startswith("proxy-authorization")]
            host, _, port = place.rpartition(":")
            far = socket.create_connection((host.strip("[]"), int(port)), 20)
            near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            if self._inside is not None:
                near = self._inside.wrap_socket(near, server_side=True)
                blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
                far = blind.wrap_socket(far)
            self._open += [near, far]
            self._carry(near, far)
        except (OSError, IndexError, ValueError):
            pass
        finally:
            near.close()
            if far is not None:
                far.close()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        """Carry both ways until one side ends. One thread: a TLS connection may not be read and written at once."""
        ways: dict[socket.socket, tuple[socket.socket, Alter]] = {
            near: (far, lambda chunk: chunk),
            far: (near, self._altered),
        }
        while True:
            held = [one for one in ways if isinstance(one, ssl.SSLSocket) and one.pending()]
            for source in held or select.select(list(ways), [], [])[0]:
                sink, change = ways[source]
                source.settimeout(0)
                try:
                    chunk = source.recv(65536)
                except (ssl.SSLWantReadError, BlockingIOError):
                    continue  # only a part of a record, or a session ticket
                if not chunk:
                    return
                self.seen += chunk
                sink.settimeout(20)
                sink.sendall(change(chunk))

    def _altered(self, chunk: bytes) -> bytes:
        return self.alter(chunk)
