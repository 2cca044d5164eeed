"""Gives a hub new online keys: after somebody else may have had the old ones, or now and then.

New keys are made beside those in use (`keys/next/`), a root that names them is made and signed offline, and with that
root they take the place of the old ones. The hub does not serve meanwhile. Rules: keys and root change together; a
power cut in between is finished by the next start; hosts follow the root by themselves.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
from tuf.api.metadata import Root

from skerry.hub.keeping import open_keys
from skerry.hub.repository import Repository
from skerry.kit.durable import sync_directory, write_file
from skerry.kit.errors import Missing, Untrusted
from skerry.ports.clock import Clock
from skerry.ports.hub_store import Audit, HubStore
from skerry.spec.publishing import HubKeysFile
from skerry.trust.keys import SigningKey
from skerry.trust.metadata import desired_keys
from skerry.trust.repository import read_as

NEXT = Path("keys") / "next"
_FILES = ("hub.pem", "metadata.pem")


def make_next_keys(data: Path) -> HubKeysFile:
    """Return the public halves of the next keys, made at the first call and then kept until they are in use."""
    folder = data / NEXT
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in _FILES:
        if not (folder / name).exists():
            write_file(folder / name, SigningKey.generate().to_pem())
    hub, online = _read(folder)
    return HubKeysFile(
        online=online.key_id,
        desired=(hub.key_id,),
        keys={key.key_id: key.verifier.to_dict() for key in (hub, online)},
    )


def install_root(data: Path, store: HubStore, clock: Clock, content: bytes) -> int:
    """Take a root that names the next keys, and let them take the place of those in use; return its version.

    Raises:
        Missing: there are no next keys (`hub.no_next_keys`).
        Rejected, Conflict, Untrusted: see `skerry.trust.acceptance.check_root`; nothing has changed then.
    """
    if not (data / NEXT / _FILES[-1]).exists():
        hint = "skerry hub keys new makes them"
        raise Missing("hub.no_next_keys", "there are no new keys to take into use", hint=hint)
    keys = open_keys(data, clock.now())
    hub, online = _read(data / NEXT)
    later = msgspec.structs.replace(keys, key=hub, online=online)
    audit = Audit(at=clock.now(), who="console", action="hub.rekey", subject="hub")
    Repository(store, later, clock).publish({"root": content}, audit)
    _promote(data)
    version: int = read_as(content, Root).signed.version
    return version


def finish_rekeying(data: Path, store: HubStore) -> bool:
    """Take the next keys into use if the newest root names them already: the last attempt was cut off. Tell whether."""
    content = store.metadata("root")
    if content is None or not (data / NEXT / _FILES[0]).exists():
        return False
    with contextlib.suppress(Untrusted):
        named = {key.keyid for key in desired_keys(read_as(content, Root).signed)}
        if SigningKey.from_pem((data / NEXT / _FILES[0]).read_bytes()).key_id in named:
            _promote(data)
            return True
    return False


def _promote(data: Path) -> None:
    """Move the next keys into place; the one that tells that it is to be done goes last."""
    for name in reversed(_FILES):
        if (data / NEXT / name).exists():
            (data / NEXT / name).replace(data / "keys" / name)
    sync_directory(data / "keys")
    (data / NEXT).rmdir()


def _read(folder: Path) -> tuple[SigningKey, SigningKey]:
    hub, online = (SigningKey.from_pem((folder / name).read_bytes()) for name in _FILES)
    return hub, online
