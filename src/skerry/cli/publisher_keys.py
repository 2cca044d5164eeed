"""Which keys a publisher gets: those named, or a pair made here; and who of them can sign on this machine."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
from securesystemslib.signer import SSlibKey

from skerry.client.delegating import holders_of
from skerry.client.hub_files import HubFiles
from skerry.client.key_files import PUBLIC_SUFFIX, make_key_pair, public_path, read_public
from skerry.client.publishing import check_signers
from skerry.client.signing import AskSecret, RoleSigner, open_signers
from skerry.kit.errors import Unavailable
from skerry.trust.publishers import Holders


@contextmanager
def noting(files: HubFiles, name: str, signers: Sequence[str]) -> Generator[None]:
    """Note who signs for a publisher while that is put into force; not, if it is refused.

    When no answer comes, it may be in force: then the key must be known here, or it would be lost.
    """
    before = files.publishers().get(name, ())
    files.set_publisher(name, signers)
    try:
        yield
    except Unavailable:
        raise
    except BaseException:
        files.set_publisher(name, before)
        raise


class PublisherKeys(msgspec.Struct, frozen=True):
    """What was said of a publisher's keys; `rotating`: others are in force, and none of them may come again."""

    name: str
    public: Sequence[Path]
    threshold: int
    own: Sequence[str]
    rotating: bool = False

    @classmethod
    def of(cls, name: str, options: Mapping[str, Any], *, rotating: bool = False) -> PublisherKeys:
        """Return what the options `--key`, `--threshold` and `--publisher-signer` say."""
        keys = cast(Sequence[Path], options["keys"])
        return cls(name, keys, int(options["threshold"]), tuple(options["own"]), rotating)


class ChosenKeys(msgspec.Struct, frozen=True):
    """The publisher's keys; and those who sign here, opened and by name. Too few to sign are none."""

    holders: Holders
    signers: Sequence[RoleSigner]
    names: Sequence[str]


def choose_keys(files: HubFiles, choice: PublisherKeys, passphrase: str, ask: AskSecret) -> ChosenKeys:
    """Return a publisher's keys, a pair of which is made if none is named.

    Raises:
        Rejected: a key cannot be read, the threshold does not fit, or a signer is none of the keys.
    """
    whose = f"publisher {choice.name}"
    if not choice.public:
        path, made = _made(files, choice, passphrase)
        holders = holders_of([made], choice.threshold, whose)
        names = tuple(choice.own) or (str(path),)
    else:
        holders = holders_of([read_public(path) for path in choice.public], choice.threshold, whose)
        names = tuple(choice.own) or _at_hand(choice.public)
    if not choice.own and len(names) < holders.threshold:
        return ChosenKeys(holders, (), ())
    signers = open_signers(names, ask)
    check_signers(signers, holders, whose)
    absolute = [str(Path(name).resolve()) if Path(name).exists() else name for name in names]
    return ChosenKeys(holders, signers, absolute)


def _at_hand(public: Sequence[Path]) -> tuple[str, ...]:
    """Return the private keys that lie beside their public halves."""
    beside = [path.with_name(path.name.removesuffix(PUBLIC_SUFFIX)) for path in public]
    return tuple(
        str(private)
        for path, private in zip(public, beside, strict=True)
        if private != path and private.exists()
    )


def _made(files: HubFiles, choice: PublisherKeys, passphrase: str) -> tuple[Path, SSlibKey]:
    """Return a fresh key pair of this machine; for a new publisher, also one left by an attempt that failed."""
    folder = files.keys_folder()
    number = 1
    while True:
        suffix = "" if number == 1 else f"-{number}"
        path = folder / f"publisher-{choice.name}{suffix}.pem"
        if not path.exists() and not public_path(path).exists():
            return path, make_key_pair(path, passphrase=passphrase)
        if not choice.rotating and path.exists() and public_path(path).exists():
            return path, read_public(public_path(path))
        number += 1
