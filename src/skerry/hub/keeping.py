"""The hub's keys and root of trust, as files of its data directory; made at the first start, then kept.

`keys/hub.pem` signs desired state; `tls/` holds the CA and the certificate of the port; `trust-root.json` is
what join tokens pin and is never changed. Private keys have mode 0600.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from skerry.kit.digests import digest_of
from skerry.kit.durable import write_file
from skerry.kit.errors import Rejected
from skerry.spec.carrier import TrustRoot
from skerry.trust.keys import SigningKey


class HubKeys(msgspec.Struct, frozen=True):
    """The hub's signing key and root of trust."""

    key: SigningKey
    trust_root: TrustRoot
    trust_root_bytes: bytes

    @property
    def root_digest(self) -> str:
        """The digest that join tokens and `skerry login` pin."""
        return digest_of(self.trust_root_bytes)


def open_keys(data: Path, now: datetime) -> HubKeys:
    """Return the hub's keys, made at the first call.

    Raises:
        Rejected: some files are there and others are not (`hub.keys_incomplete`); nothing is made anew then,
            because that would cut off every host.
    """
    paths = [
        data / "keys" / "hub.pem",
        data / "tls" / "ca.key",
        data / "tls" / "ca.pem",
        data / "trust-root.json",
    ]
    there = [path.exists() for path in paths]
    if not paths[3].exists():
        # The trust root is written last: without it a first start was cut off, and no host has seen these keys.
        _make_keys(data, now)
    elif not all(there):
        missing = ", ".join(str(path) for path, exists in zip(paths, there, strict=True) if not exists)
        raise Rejected("hub.keys_incomplete", f"missing: {missing}", hint="restore them from a backup")
    raw = paths[3].read_bytes()
    return HubKeys(SigningKey.from_pem(paths[0].read_bytes()), msgspec.json.decode(raw, type=TrustRoot), raw)


def open_server_certificate(data: Path, names: Sequence[str], now: datetime) -> tuple[Path, Path, bool]:
    """Return (key file, certificate file, whether they are new) for these names, renewed when it is time."""
    from skerry.trust.certificates import is_server_good, issue_server

    tls = data / "tls"
    key, cert = tls / "server.key", tls / "server.pem"
    if key.exists() and cert.exists() and is_server_good(cert.read_bytes(), names, now):
        return key, cert, False
    key_pem, cert_pem = issue_server((tls / "ca.key").read_bytes(), (tls / "ca.pem").read_bytes(), names, now)
    write_file(key, key_pem)
    write_file(cert, cert_pem)
    return key, cert, True


def _make_keys(data: Path, now: datetime) -> None:
    from skerry.trust.certificates import make_ca

    for folder in (data, data / "keys", data / "tls"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    hub_id = secrets.token_hex(8)
    key = SigningKey.generate()
    ca_key, ca_cert = make_ca(f"Skerry hub {hub_id}", now)
    write_file(data / "keys" / "hub.pem", key.to_pem())
    write_file(data / "tls" / "ca.key", ca_key)
    write_file(data / "tls" / "ca.pem", ca_cert)
    root = TrustRoot(hub=hub_id, ca_pem=ca_cert.decode(), hub_keys={key.key_id: key.public})
    write_file(data / "trust-root.json", msgspec.json.encode(root))
