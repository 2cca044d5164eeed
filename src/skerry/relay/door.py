"""The relay's port: opened once the hub has issued a certificate for its key, which is exchanged while it serves."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

import structlog
import uvicorn
from starlette.types import ASGIApp

from skerry.carrier.connections import patient_protocol
from skerry.kit.durable import write_file
from skerry.kit.errors import SkerryError, Unavailable
from skerry.spec.relay import RelayState

_log = structlog.get_logger()

# Longer than an agent's pause between two exchanges, so that the TLS session is used again.
KEEP_ALIVE_S = 90
SHUTDOWN_S = 5


class Certificate:
    """The files of the port's key and certificate. `there` is set once there is one that fits the key.

    `context` is given the newest when it serves.
    """

    def __init__(self, data: Path) -> None:
        self.key, self.file = data / "tls" / "server.key", data / "tls" / "server.pem"
        self.context: ssl.SSLContext | None = None
        self.trouble = ""
        self.there = asyncio.Event()
        if self.file.exists() and self._fits(self.file):
            self.there.set()

    def follow(self, state: RelayState) -> None:
        """Use the certificate of a newer state; one that is not of this relay's key is left alone. Blocking."""
        if not state.certificate_pem:
            return
        content = state.certificate_pem.encode()
        try:
            if self.file.exists() and self.file.read_bytes() == content:
                return
            beside = self.file.with_name("next.pem")
            write_file(beside, content)
            if not self._fits(beside):
                self.trouble = "the hub's certificate is not for this relay's key"
                _log.error("certificate.wrong_key")
                return
            write_file(self.file, content)
        except (OSError, Unavailable) as error:
            self.trouble = f"cannot keep the certificate: {error}"
            return
        self.trouble = ""
        self.there.set()
        if self.context is not None:
            self.context.load_cert_chain(self.file, self.key)
            _log.info("certificate.renewed")

    def _fits(self, file: Path) -> bool:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(file, self.key)
        except (ssl.SSLError, OSError):
            return False
        return True


def new_server(app: ASGIApp, certificate: Certificate) -> uvicorn.Server:
    """Return a server of an app, as a hub's is."""
    config = uvicorn.Config(
        app,
        http=patient_protocol(),
        ws="none",
        ssl_keyfile=str(certificate.key),
        ssl_certfile=str(certificate.file),
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_S,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        backlog=1024,
    )
    config.load()
    assert config.ssl is not None
    config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    certificate.context = config.ssl
    return uvicorn.Server(config)


def keep_cuts_out_of_the_log() -> None:
    """Let uvicorn not tell of every reader whose blob did not come whole: that is said once, where it is known.

    Nor urllib3 of each connection beyond those that it keeps.
    """
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    logging.getLogger("uvicorn.error").addFilter(_is_no_cut)


def _is_no_cut(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    while error is not None:
        if isinstance(error, SkerryError):
            return False
        error = error.__cause__ or error.__context__
    return True
