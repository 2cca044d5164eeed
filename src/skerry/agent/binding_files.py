"""What a component is told of its bindings: variables, values of references, and one file of JSON.

`SKERRY_BINDING_<NEED>_<FIELD>` is there for every field of the type, empty where the binding says nothing, and
`SKERRY_BINDING_<NEED>_<SECRET>_FILE` for each secret. `SKERRY_BINDINGS` names the file, which has all of that and the
maps of nodes, registers and topics, and is replaced as a whole. No secret is in any of them, only where it is.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import msgspec

from skerry.kit.durable import write_file
from skerry.kit.errors import Unavailable
from skerry.spec.binding import BindingSpec, DeviceState, values_of
from skerry.spec.checks_bindings import SECRETS_FOLDER

FILE = "bindings.json"


class Joined(msgspec.Struct, frozen=True):
    """A binding that a component is joined to, and how its device stands."""

    binding: BindingSpec
    state: DeviceState = "unknown"

    @property
    def mark(self) -> str:
        """What tells it from another, or from itself after a change."""
        return msgspec.json.encode(self.binding, order="sorted").decode()


def variables_of(joined: Mapping[str, Joined], *, secrets: str) -> dict[str, str]:
    """Return the variables of the bindings by need; `secrets` is where the component finds its secrets."""
    env: dict[str, str] = {}
    for need, one in joined.items():
        for field, value in values_of(one.binding).items():
            env[f"SKERRY_BINDING_{_word(need)}_{_word(field)}"] = value
        for key, path in _secret_paths(need, one.binding, secrets).items():
            env[f"SKERRY_BINDING_{_word(need)}_{_word(key)}_FILE"] = path
    return env


def references_of(joined: Mapping[str, Joined]) -> dict[str, str]:
    """Return the values of `${binding.NEED.FIELD}`."""
    return {
        f"binding.{need}.{field}": value
        for need, one in joined.items()
        for field, value in values_of(one.binding).items()
    }


def content_of(joined: Mapping[str, Joined], *, secrets: str) -> bytes:
    """Return the file of the bindings, by need."""
    found: dict[str, Any] = {}
    for need, one in sorted(joined.items()):
        binding = one.binding
        address: dict[str, Any] = msgspec.to_builtins(_whole(binding))
        found[need] = {
            **address,
            **values_of(binding),
            "labels": binding.labels,
            "state": one.state,
            "secrets": _secret_paths(need, binding, secrets),
        }
    return msgspec.json.format(msgspec.json.encode({"bindings": found}), indent=1) + b"\n"


class BindingFiles:
    """The files of a host's components, one directory for each, which containers see as they are."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._placed: dict[str, bytes] = {}

    def folder(self, place: str) -> Path:
        """Return where the file of a place is."""
        return self._root / place

    def has(self, place: str) -> bool:
        """Tell whether a place has its file."""
        return (self._root / place / FILE).is_file()

    def put(self, place: str, content: bytes) -> None:
        """Make a place's file be this, as it was or as it shall be at every moment.

        Raises:
            Unavailable: it cannot be written; what was there is still there.
        """
        if self._placed.get(place) == content and self.has(place):
            return
        folder = self._root / place
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Whatever the agent's umask is: a container's user has to get through, and nothing here is secret.
            self._root.chmod(0o755)
            folder.chmod(0o755)
            beside = folder / f".{FILE}"
            write_file(beside, content, mode=0o644)
            beside.chmod(0o644)
            beside.replace(folder / FILE)
        except OSError as error:
            raise Unavailable("disk.unwritable", f"cannot write below {folder}: {error.strerror}") from error
        self._placed[place] = content

    def forget(self, keep: AbstractSet[str]) -> None:
        """Remove the files of all other places."""
        if not self._root.is_dir():
            return
        for found in self._root.iterdir():
            if found.name not in keep:
                shutil.rmtree(found, ignore_errors=True)
                self._placed.pop(found.name, None)


def _whole(binding: BindingSpec) -> object:
    return getattr(binding, binding.type)


def _secret_paths(need: str, binding: BindingSpec, secrets: str) -> dict[str, str]:
    return {key: f"{secrets}/{SECRETS_FOLDER}/{need}/{key}" for key in sorted(binding.secrets)}


def _word(name: str) -> str:
    return name.upper().replace("-", "_")
