"""A TUF client as a command, for suites that test clients: it drives `skerry.trust.metadata` over plain HTTP.

Its options are those that https://github.com/theupdateframework/tuf-conformance documents in CLIENT-CLI.md. What was
verified lies in the metadata folder by role; the roots since the first one, as a host keeps them, in `roots` there.

Rules: every answer has a bound and a time; redirections are not followed; a file is the old one or the new one,
though a power cut may bring the old one back: that is the host's matter.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import urllib3

from skerry.kit.durable import write_file
from skerry.kit.errors import Missing, SkerryError, Unavailable, Untrusted
from skerry.trust.metadata import Keep, Local, Step, TargetFound, Trusted, find_target, refresh, run_steps

SILENCE_S = 5.0
ANSWER_S = 20.0
MAX_TARGET_BYTES = 64 << 20
_CHUNK_BYTES = 64 << 10


class Carrier:
    """Fetches files below an address; `answer_s` is how long one may take in all."""

    def __init__(self, base: str, *, silence_s: float = SILENCE_S, answer_s: float = ANSWER_S) -> None:
        self._base = base.rstrip("/") + "/"
        self._answer_s = answer_s
        timeout = urllib3.Timeout(connect=silence_s, read=silence_s)
        self._pool = urllib3.PoolManager(timeout=timeout, retries=False)

    def fetch(self, name: str, max_bytes: int) -> bytes | None:
        """Return a file, None where there is none.

        Raises:
            Unavailable: no answer, or not in time.
            Untrusted: it is longer than it may be (`metadata.too_long`).
        """
        ends = time.monotonic() + self._answer_s
        try:
            answer = self._pool.request("GET", self._base + name, preload_content=False, redirect=False)
            try:
                if answer.status in (403, 404):
                    return None
                if answer.status != 200:
                    raise Unavailable("upstream.refused", f"{name}: status {answer.status}")
                return self._read(answer, name, max_bytes, ends)
            finally:
                answer.close()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable("upstream.unreachable", f"{name}: {type(error).__name__}") from error

    def close(self) -> None:
        """End all connections."""
        self._pool.clear()

    def _read(self, answer: urllib3.BaseHTTPResponse, name: str, max_bytes: int, ends: float) -> bytes:
        content = bytearray()
        while chunk := answer.read1(_CHUNK_BYTES, decode_content=False):
            content += chunk
            if len(content) > max_bytes:
                raise Untrusted("metadata.too_long", f"{name} is longer than {max_bytes} bytes")
            if time.monotonic() > ends:
                raise Unavailable("upstream.slow", f"{name} takes too long")
        return bytes(content)


class Client:
    """The trusted metadata in a folder, and the way to newer."""

    def __init__(self, folder: Path, carrier: Carrier) -> None:
        self._folder = folder
        self._carrier = carrier

    def refresh(self, now: datetime) -> Trusted:
        """Bring the top level up to date.

        Raises:
            Untrusted, Unavailable: see `skerry.trust.metadata.refresh` and `Carrier.fetch`.
        """
        pinned = (self._folder / "roots" / "first").read_bytes()
        return run_steps(refresh(pinned, now=now), self._answer)

    def find(self, trusted: Trusted, path: str) -> TargetFound | None:
        """Look a target up."""
        return run_steps(find_target(trusted, path), self._answer)

    def _answer(self, step: Step) -> bytes | None:
        if isinstance(step, Local):
            file = self._file(step.name)
            return file.read_bytes() if file.exists() else None
        if isinstance(step, Keep):
            write_file(self._file(step.name), step.content, sync=False)
            if step.name.endswith(".root.json"):
                write_file(self._folder / "root.json", step.content, sync=False)
            return None
        return self._carrier.fetch(step.name, step.max_bytes)

    def _file(self, name: str) -> Path:
        return self._folder / "roots" / name if name.endswith(".root.json") else self._folder / name


def init(folder: Path, trusted_root: Path) -> None:
    """Take a root as the one to begin with."""
    (folder / "roots").mkdir(parents=True, exist_ok=True)
    for name in ("roots/first", "root.json"):
        write_file(folder / name, trusted_root.read_bytes(), sync=False)


def download(found: TargetFound, carrier: Carrier, folder: Path, *, prefixed: bool) -> Path:
    """Fetch a target into a folder, unless it is there already; return its file.

    Raises:
        Missing, Untrusted, Unavailable: upstream has it not, has something else, or does not answer.
    """
    file = folder / hashlib.sha256(found.path.encode()).hexdigest()
    if file.exists() and hashlib.sha256(file.read_bytes()).hexdigest() == found.sha256:
        return file
    place, slash, name = found.path.rpartition("/")
    remote = f"{place}{slash}{found.sha256}.{name}" if prefixed else found.path
    content = carrier.fetch(remote, min(found.length, MAX_TARGET_BYTES))
    if content is None:
        raise Missing("target.missing", f"{found.path} is not there")
    if len(content) != found.length or hashlib.sha256(content).hexdigest() != found.sha256:
        raise Untrusted("target.mismatch", f"{found.path} is not what was signed")
    folder.mkdir(parents=True, exist_ok=True)
    write_file(file, content, sync=False)
    return file


def run(arguments: Sequence[str], now: datetime) -> None:
    """Do what a command line asks for.

    Raises:
        SkerryError, OSError: it could not be done.
    """
    options = _parse(arguments)
    if options.command == "init":
        init(options.metadata_dir, options.trusted_root)
        return
    carrier = Carrier(options.metadata_url, silence_s=options.silence, answer_s=options.answer)
    try:
        client = Client(options.metadata_dir, carrier)
        trusted = client.refresh(now)
        if options.command == "download":
            found = client.find(trusted, options.target_name)
            if found is None:
                raise Missing("target.unknown", f"nobody vouches for {options.target_name}")
            targets = Carrier(options.target_base_url, silence_s=options.silence, answer_s=options.answer)
            try:
                prefixed = bool(trusted.root.consistent_snapshot)
                download(found, targets, options.target_dir, prefixed=prefixed)
            finally:
                targets.close()
    finally:
        carrier.close()


def main(arguments: Sequence[str]) -> int:
    """Run as a command; return 0, or 1 when it could not be done."""
    try:
        run(arguments, datetime.now(UTC))
    except SkerryError as error:
        sys.stderr.write(f"{error.code}: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--metadata-url")
    parser.add_argument("--target-name")
    parser.add_argument("--target-dir", type=Path)
    parser.add_argument("--target-base-url")
    parser.add_argument("--silence", type=float, default=SILENCE_S, help="seconds without a byte")
    parser.add_argument("--answer", type=float, default=ANSWER_S, help="seconds for one whole file")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("trusted_root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
