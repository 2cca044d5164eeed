"""Secrets as applications find them: files in memory, replaced from one moment to the next, and wiped when unused.

`<root>/<place>/` holds a component's files and `<place>.env/` its variables, one file each; both are below a directory
that nobody else may enter. Nothing here is ever on a disk: without a file system in memory there are no files.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

import msgspec

from skerry.kit.durable import write_file
from skerry.kit.errors import Unavailable


class Owner(msgspec.Struct, frozen=True):
    """Who may read a component's files. In a container whose user this host cannot name, whoever is in it may."""

    container: bool = False
    user: int | None = None


class SecretFiles:
    """The files of one host's secrets. `root` is None where nothing is in memory.

    Where they were put is written into `note`: another process may be told of another place in memory.
    """

    def __init__(self, root: Path | None, note: Path | None = None) -> None:
        self.root = root
        self._note = note
        self._placed: dict[str, object] = {}

    def folder(self, place: str) -> Path:
        """Return where the files of a place are.

        Raises:
            Unavailable: nothing is in memory here (`secret.no_memory`).
        """
        if self.root is None:
            hint = "mount a tmpfs, and name it with SKERRY_RUN_DIR"
            raise Unavailable("secret.no_memory", "this host has no file system in memory", hint=hint)
        return self.root / place

    def has(self, place: str) -> bool:
        """Tell whether there are files in a place."""
        return self.root is not None and (self.root / place).is_dir()

    def put(self, place: str, files: Mapping[str, bytes], owner: Owner, *, mark: object) -> None:
        """Make a place hold exactly these files, each as it was or as it shall be at every moment.

        What has the `mark` that it had before is left alone.

        Raises:
            Unavailable: no room, or nothing is in memory here; what was there is still there.
        """
        folder = self.folder(place)
        if self._placed.get(place) == mark and all((folder / name).exists() for name in files):
            return
        try:
            self.open(folder)
            for name, content in files.items():
                for parent in reversed((folder / name).relative_to(folder).parents[:-1]):
                    # Whatever the agent's umask is: a container's user has to get through.
                    (folder / parent).mkdir(exist_ok=True)
                    (folder / parent).chmod(0o755)
                self._replace(folder / name, content, owner)
            for found in sorted(folder.rglob("*"), reverse=True):
                relative = str(found.relative_to(folder))
                if found.is_dir():
                    if not any(name.startswith(f"{relative}/") for name in files):
                        found.rmdir()
                elif relative not in files:
                    found.unlink()
        except OSError as error:
            raise Unavailable(
                "secret.unplaced", f"cannot write below {self.root}: {error.strerror}"
            ) from error
        self._placed[place] = mark

    def forget(self, keep: AbstractSet[str]) -> list[str]:
        """Remove all other places, and return which they were."""
        if self.root is None or not self.root.is_dir():
            return []
        gone = [found.name for found in self.root.iterdir() if found.name not in keep]
        for name in gone:
            shutil.rmtree(self.root / name, ignore_errors=True)
            self._placed.pop(name, None)
        return sorted(gone)

    def wipe(self) -> bool:
        """Remove all files, here and where they were last put, and tell whether there were any."""
        there = [root for root in {self.root, self._noted()} if root is not None and _is_ours(root)]
        for root in there:
            shutil.rmtree(root, ignore_errors=True)
        self._placed.clear()
        return bool(there)

    def _noted(self) -> Path | None:
        if self._note is None or not self._note.is_file():
            return None
        return Path(os.fsdecode(self._note.read_bytes()))

    def open(self, folder: Path) -> None:
        """Make a place's directory, closed to everybody but us from above.

        Raises:
            Unavailable: where it is to be belongs to somebody else (`secret.unplaced`).
        """
        assert self.root is not None
        if self._note is not None and self._noted() != self.root:
            self._note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_file(self._note, os.fsencode(self.root))
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(self.root):
            raise Unavailable(
                "secret.unplaced", f"{self.root} is somebody else's", hint="name another: SKERRY_RUN_DIR"
            )
        self.root.chmod(0o700)
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)

    def _replace(self, path: Path, content: bytes, owner: Owner) -> None:
        write_for(path, content, owner)


def write_for(path: Path, content: bytes, owner: Owner) -> None:
    """Have a file in memory hold this, as it was or as it shall be at every moment, for those who may read it."""
    if path.is_file() and path.read_bytes() == content:
        return
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    # In memory: there is nothing to be made durable, only to be whole. Never readable by more than it will be.
    write_file(beside, content, mode=0o400, sync=False)
    if owner.container and owner.user is not None and os.geteuid() == 0:
        os.chown(beside, owner.user, -1)
    elif owner.container:
        beside.chmod(0o444)
    beside.replace(path)


def _is_ours(root: Path) -> bool:
    """Tell whether a directory is this user's: others may write where it is, as in /dev/shm."""
    try:
        found = root.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
