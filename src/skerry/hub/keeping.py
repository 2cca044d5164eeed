"""The hub's keys and root of trust, as files of its data directory; made at the first start, then kept.

`keys/hub.pem` signs desired state, `keys/metadata.pem` snapshot and timestamp; `tls/` holds the CA and the certificate
of the port; `trust-root.json` is what join tokens pin, with the newest root. Private keys have mode 0600.
`offline-keys/` is made for a quick start and read then only: whoever has these keys decides who may publish, so they
belong elsewhere.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from skerry.kit.canonical import UNREADABLE
from skerry.kit.durable import write_file
from skerry.kit.errors import Rejected
from skerry.spec.carrier import TrustRoot
from skerry.trust.keys import SigningKey
from skerry.trust.repository import RootKeys, make_root, sign

OFFLINE = "offline-keys"


class HubKeys(msgspec.Struct, frozen=True):
    """The hub's keys and root of trust. `key` signs desired state, `online` the snapshot and the timestamp."""

    data: Path
    key: SigningKey
    online: SigningKey
    trust_root: TrustRoot

    @property
    def offline(self) -> Path:
        """Where a first start puts the keys that belong elsewhere."""
        return self.data / OFFLINE

    def save_trust_root(self, content: bytes) -> None:
        """Write the trust root with the newest root."""
        file = self.data / "trust-root.json"
        if file.read_bytes() != content:
            write_file(file, content)

    def targets_key(self) -> SigningKey:
        """Return the offline key that signs the first top-level targets.

        Raises:
            Rejected: it is not there any more, and the database has lost what it once signed (`hub.no_targets`).
        """
        try:
            return SigningKey.from_pem((self.offline / "targets.pem").read_bytes())
        except FileNotFoundError as error:
            hint = "restore the hub from a backup, or put the key back for one start"
            raise Rejected("hub.no_targets", "the database holds no signed metadata", hint=hint) from error


def open_keys(data: Path, now: datetime) -> HubKeys:
    """Return the hub's keys, made at the first call.

    Raises:
        Rejected: some files are there and others are not (`hub.keys_incomplete`); nothing is made anew then,
            because that would cut off every host.
    """
    paths = [
        data / "keys" / "hub.pem",
        data / "keys" / "metadata.pem",
        data / "tls" / "ca.key",
        data / "tls" / "ca.pem",
        data / "trust-root.json",
    ]
    there = [path.exists() for path in paths]
    if not paths[-1].exists():
        # The trust root is written last: without it a first start was cut off, and no host has seen these keys.
        _make_keys(data, now)
    elif not all(there):
        missing = ", ".join(str(path) for path, exists in zip(paths, there, strict=True) if not exists)
        raise Rejected("hub.keys_incomplete", f"missing: {missing}", hint="restore them from a backup")
    try:
        trust_root = msgspec.json.decode(paths[-1].read_bytes(), type=TrustRoot)
    except UNREADABLE as error:
        message = f"{paths[-1]} is damaged, or of a hub of an earlier version"
        raise Rejected("hub.trust_root_unreadable", message, hint="restore it from a backup") from error
    hub, online = (SigningKey.from_pem(path.read_bytes()) for path in paths[:2])
    return HubKeys(data, hub, online, trust_root)


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


def relay_certificate(data: Path, tls_key: str, names: Sequence[str], now: datetime, *, held: str) -> str:
    """Return the certificate, as PEM, of a relay's port for these names: `held` while it is good, else a new one.

    Raises:
        Rejected: the key is none (`tls_key.malformed`).
    """
    from skerry.trust.certificates import is_of_key, is_server_good, issue_server_for, port_key

    key = port_key(tls_key)
    if held and is_of_key(held.encode(), key) and is_server_good(held.encode(), names, now):
        return held
    ca = data / "tls"
    ca_key, ca_cert = (ca / "ca.key").read_bytes(), (ca / "ca.pem").read_bytes()
    return issue_server_for(key, ca_key, ca_cert, names, now).decode()


def check_port_key(tls_key: str) -> None:
    """Raise unless a text is the public key of a port.

    Raises:
        Rejected: it is not (`tls_key.malformed`).
    """
    from skerry.trust.certificates import port_key

    port_key(tls_key)


def _make_keys(data: Path, now: datetime) -> None:
    from skerry.trust.certificates import make_ca

    for folder in (data, data / "keys", data / "tls", data / OFFLINE):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    hub_id = secrets.token_hex(8)
    key, online = SigningKey.generate(), SigningKey.generate()
    root_key, targets_key = SigningKey.generate(), SigningKey.generate()
    ca_key, ca_cert = make_ca(f"Skerry hub {hub_id}", now)
    write_file(data / "keys" / "hub.pem", key.to_pem())
    write_file(data / "tls" / "ca.key", ca_key)
    write_file(data / "tls" / "ca.pem", ca_cert)
    write_file(data / "keys" / "metadata.pem", online.to_pem())
    write_file(data / OFFLINE / "root.pem", root_key.to_pem())
    write_file(data / OFFLINE / "targets.pem", targets_key.to_pem())
    keys = RootKeys(
        root=[root_key.verifier],
        targets=[targets_key.verifier],
        online=online.verifier,
        desired=[key.verifier],
    )
    root = sign(make_root(hub_id, keys, version=1, now=now), [root_key.signer])
    trust_root = TrustRoot(hub=hub_id, ca_pem=ca_cert.decode(), root=msgspec.json.decode(root))
    write_file(data / "trust-root.json", msgspec.json.encode(trust_root))
