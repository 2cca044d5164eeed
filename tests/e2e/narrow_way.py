"""A way over TCP whose width a test sets: it forwards bytes unread, no faster than it may, counts them, and can be cut.

Bytes count once the receiving side has them; those of TLS are among them, those of TCP and IP are not.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Self

_CHUNK_BYTES = 16 << 10
_SEND_BUFFER = 16 << 10


class NarrowWay:
    """Listens on a free port of this machine and forwards each connection to one port of it.

    `rate` is in bytes per second, for the way down of all connections together; None for as fast as they go.
    """

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._door = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._cut = False
        self._free_at = 0.0
        self.port = int(self._door.getsockname()[1])
        self.url = f"https://127.0.0.1:{self.port}"
        self.rate: float | None = None
        self.bytes_down = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        with contextlib.suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()

    def cut(self) -> None:
        """End all connections, and each that comes until `heal`."""
        with self._lock:
            self._cut = True
            sockets = list(self._sockets)
        for one in sockets:
            _end(one)

    def heal(self) -> None:
        """Let connections through again."""
        self._cut = False

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._door.accept()
            except OSError:
                return
            threading.Thread(target=self._forward, args=(near,), daemon=True).start()

    def _forward(self, near: socket.socket) -> None:
        """Carry one connection both ways until either side has ended it."""
        # Little is under way and counted that nobody has read, when the reader is killed.
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        with near, contextlib.suppress(OSError), socket.create_connection(self._target) as far:
            with self._lock:
                if self._cut:
                    return
                self._sockets |= {near, far}
            up = threading.Thread(target=self._pump, args=(near, far), daemon=True)
            up.start()
            self._pump(far, near, down=True)
            up.join()
            with self._lock:
                self._sockets -= {near, far}

    def _pump(self, source: socket.socket, sink: socket.socket, *, down: bool = False) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(_CHUNK_BYTES):
                if down:
                    self._wait(len(chunk))
                sink.sendall(chunk)
                if down:
                    with self._lock:
                        self.bytes_down += len(chunk)
        _end(source)
        _end(sink)

    def _wait(self, size: int) -> None:
        """Wait until so many bytes more may have gone."""
        if self.rate is None:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(now, self._free_at) + size / self.rate
            wait_s = self._free_at - now
        time.sleep(wait_s)


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
