"""Worlds for the contract of proxies: backends that say who they are, certificates, and clients."""

from __future__ import annotations

import http.client
import http.server
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from skerry.adapters.comparing_control import INSTANCE as COMPARING
from skerry.adapters.envoy_proxy import INSTANCE, EnvoyProxy
from skerry.adapters.process_runtime import ProcessRuntime
from skerry.adapters.system_clock import SystemClock
from skerry.ports.proxy import Backend, Certificate, Proxy, ProxyPorts
from skerry.testing.memory_proxy import MemoryProxy, ProxyAnswer, ProxyRequest
from skerry.trust.certificates import issue_server, make_ca

NAMES = ("reader.site.internal", "press.site.internal")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ProxyWorld(Protocol):
    """One adapter, what answers behind it, and who asks it."""

    proxy: Proxy
    ports: ProxyPorts
    certificate: Certificate

    def backend(self, key: str) -> Backend: ...
    def ask(self, request: ProxyRequest) -> ProxyAnswer: ...
    async def kill(self) -> None: ...
    def again(self) -> Proxy: ...
    async def close(self) -> None: ...


class MemoryWorld:
    """The double."""

    def __init__(self) -> None:
        self._proxy = MemoryProxy()
        self.proxy: Proxy = self._proxy
        self.ports = ProxyPorts(443, 80)
        self.certificate = Certificate(b"", b"", b"")

    def backend(self, key: str) -> Backend:
        return Backend(key, 4000 + sum(key.encode()))

    def ask(self, request: ProxyRequest) -> ProxyAnswer:
        return self._proxy.ask(request)

    async def kill(self) -> None:
        self._proxy.kill()

    def again(self) -> Proxy:
        return self._proxy

    async def close(self) -> None:
        pass


class EnvoyWorld:
    """Envoy, with HTTP servers behind it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._servers: list[http.server.ThreadingHTTPServer] = []
        self.runtime = ProcessRuntime(folder / "instances")
        self.proxy: Proxy = self.again()
        self.ports = ProxyPorts(free_port(), free_port())
        now = datetime.now(UTC)
        self._ca_key, self._ca = make_ca("a site's", now)
        key, cert = issue_server(self._ca_key, self._ca, NAMES, now)
        self.certificate = Certificate(cert, key, self._ca)

    def again(self) -> Proxy:
        return EnvoyProxy(self._folder / "run", self.runtime, SystemClock(), in_memory=True)

    def backend(self, key: str) -> Backend:
        return Backend(key, self.serve(lambda _: key.encode()))

    def serve(self, answer: Callable[[str], bytes]) -> int:
        """Start a server that answers each path with what a function says; return its port."""

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 64 << 10  # head and body in one packet
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", "0")))
                content = answer(self.path)
                self.send_response(200)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_GET  # noqa: N815  the name that the library calls

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = _Server(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self._servers.append(server)
        return server.server_port

    def ask(self, request: ProxyRequest) -> ProxyAnswer:
        connection = self._connection(request)
        headers = {"Host": request.name} | (
            {"Authorization": f"Bearer {request.token}"} if request.token else {}
        )
        try:
            method = "POST" if request.body else "GET"
            connection.request(method, request.path, body=request.body or None, headers=headers)
            answer = connection.getresponse()
            content = answer.read().decode()
        except ConnectionRefusedError:
            return ProxyAnswer(0)
        finally:
            connection.close()
        return ProxyAnswer(answer.status, content if answer.status == 200 else "")

    def client_files(self, spiffe: str) -> tuple[str, str]:
        """Return the files of certificate and key of a client of the site with a SPIFFE id."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer_key = load_pem_private_key(self._ca_key, password=None)
        assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
        now = datetime.now(UTC)
        cert = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "client")]))
            .issuer_name(x509.load_pem_x509_certificate(self._ca).subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe)]), critical=False
            )
            .sign(issuer_key, hashes.SHA256())
        )
        files = self._folder / "client.pem", self._folder / "client.key"
        files[0].write_bytes(cert.public_bytes(Encoding.PEM))
        files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return str(files[0]), str(files[1])

    async def kill(self) -> None:
        os.kill((await self.runtime.instances())[INSTANCE].pid, signal.SIGKILL)

    async def close(self) -> None:
        for instance in (INSTANCE, COMPARING):
            await self.runtime.remove(instance)
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def _connection(self, request: ProxyRequest) -> http.client.HTTPConnection:
        if not request.tls:
            return http.client.HTTPConnection("127.0.0.1", self.ports.http, timeout=10)
        context = ssl.create_default_context(cadata=self._ca.decode())
        if request.client:
            context.load_cert_chain(*self.client_files(request.client))
        return _NamedConnection(request.name, self.ports.https, context)


class _Server(http.server.ThreadingHTTPServer):
    """Says nothing of clients that leave: tests kill some of them."""

    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        pass


class _NamedConnection(http.client.HTTPSConnection):
    """HTTPS with a name that no DNS knows: this machine."""

    def __init__(self, name: str, port: int, context: ssl.SSLContext) -> None:
        super().__init__("127.0.0.1", port, timeout=10, context=context)
        self._name, self._own_context = name, context

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        # Whoever asks for a name that the certificate is not for is no subject here.
        name = self._name if self._name in NAMES else NAMES[0]
        self.sock = self._own_context.wrap_socket(self.sock, server_hostname=name)
