"""A root of certificates that is kept away from the hub: a directory with its key, and what it signs, as files.

`root.key` (0600) and `root.pem`. Nothing here speaks to a hub: requests and what is made of them are carried by hand.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from skerry.client.ceremony import read_bytes
from skerry.kit.durable import write_file
from skerry.kit.errors import Conflict, Missing
from skerry.trust.authorities import (
    Inspected,
    Issuing,
    inspect_authority,
    issue_issuer,
    key_hash,
    make_crl,
    make_root,
)


def make_root_files(folder: Path, name: str, now: datetime) -> Inspected:
    """Make a root in a directory.

    Raises:
        Conflict: there is one already (`pki.root_exists`).
        Unavailable: it cannot be written.
    """
    key, cert = folder / "root.key", folder / "root.pem"
    if key.exists() or cert.exists():
        raise Conflict(
            "pki.root_exists", f"there is a root in {folder} already", hint="choose another directory"
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    root = make_root(name, now)
    write_file(key, root.key)
    write_file(cert, root.chain, mode=0o644)
    return inspect_authority(root.chain.decode())


def sign_request(folder: Path, request: str, domain: str, now: datetime) -> str:
    """Return what a hub imports: the certificate for its request, the root, and the root's list of the revoked, PEM.

    Raises:
        Missing: there is no root in the directory (`pki.no_root`).
        Untrusted: the request is none, or not signed by its own key (`pki.request_refused`).
    """
    try:
        root = Issuing((folder / "root.key").read_bytes(), (folder / "root.pem").read_bytes())
    except FileNotFoundError as error:
        hint = "skerry pki root makes one"
        raise Missing("pki.no_root", f"there is no root in {folder}", hint=hint) from error
    key_hash(root.key)
    return issue_issuer(root, request, domain, now) + root.chain.decode() + make_crl(root, (), now)


def read_request(file: Path) -> str:
    """Return the text of a file that was carried here; raises as `read_bytes`."""
    return read_bytes(file).decode(errors="replace")
