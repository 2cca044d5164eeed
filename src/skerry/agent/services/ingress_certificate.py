"""The certificate of a host's ingress, read from where the site's are issued."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from skerry.agent.site_ca import CertificateFiles, LocalCertificates, Wanted
from skerry.ports.proxy import Certificate

SERVER = "ingress"


class ServerCertificate:
    """One certificate for all names of the host's routes: a server's, and whom its clients' are checked against."""

    def __init__(self, local: LocalCertificates) -> None:
        self._local = local
        self._read: tuple[str, Certificate] | None = None

    def get(self, names: Sequence[str]) -> Certificate | None:
        """Return the certificate for these names, issued or renewed now if need be; None while there is none."""
        files = self._local.ask(Wanted(SERVER, dns=tuple(names), client=False))
        if files is None:
            return None
        if self._read is None or self._read[0] != files.mark:
            self._read = (files.mark, _read(files))
        return self._read[1]


def _read(files: CertificateFiles) -> Certificate:
    # All four are replaced at once, and by this process alone.
    chain, key, trust = (path.read_bytes() for path in (files.cert, files.key, files.bundle))
    return Certificate(chain, key, trust, _content(files.crl))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
