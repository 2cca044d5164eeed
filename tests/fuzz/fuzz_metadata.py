"""Metadata of releases: whatever arrives in the place of a role, a host and a hub take it rightly or refuse it.

Each input is taken as a role's file, and as the part of one that is rightly signed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from random import Random
from typing import Any, cast

from securesystemslib import formats

from skerry.kit.errors import SkerryError, Untrusted
from skerry.trust.acceptance import accept
from skerry.trust.keys import SigningKey
from skerry.trust.metadata import TargetFound
from tests.fuzz.target import Broken, Target
from tests.unit.trust_world import KEYS, NOW, FollowingHost, World

_RELEASE = "app@1.0.0"


def _make_world() -> World:
    world = World()
    for publisher, key in (("acme", KEYS[6]), ("bins", KEYS[7])):
        world.add_publisher(publisher, [key])
    world.fill("bins", [_RELEASE], bits=1)
    world.push("acme", _RELEASE)
    return world


_WORLD = _make_world()
_BIN = _WORLD.shelf("bins").role_for(f"releases/bins/{_RELEASE}.json")
_SIGNERS: dict[str, list[SigningKey]] = {
    "root": _WORLD.root_keys,
    "timestamp": [_WORLD.online],
    "snapshot": [_WORLD.online],
    "targets": _WORLD.targets_keys,
    "publisher-acme": _WORLD.holders["acme"],
    "publisher-bins": _WORLD.holders["bins"],
    _BIN: _WORLD.holders["bins"],
}
_ROLES_OF = {
    "root": ("root",),
    "timestamp": ("timestamp",),
    "snapshot": ("snapshot",),
    "targets": ("targets", "publisher-acme", "publisher-bins", _BIN),
}
_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2, 32, 10**18, 10**400, 1.5, "", "1", "*", "\ud800", "..", [], {}, [[]], {"": None},
)  # fmt: skip


def _file_of(role: str) -> str:
    """Return under which name a host asks for a role."""
    if role == "timestamp":
        return "timestamp.json"
    if role == "root":
        return "2.root.json"
    version = json.loads(_WORLD.files["timestamp.json"])["signed"]["meta"]["snapshot.json"]["version"]
    return f"{version if role == 'snapshot' else _WORLD.versions[role]}.{role}.json"


_FILES = {role: _file_of(role) for role in _SIGNERS}


def _find(served: Mapping[str, bytes | None]) -> list[TargetFound | None] | None:
    """Return what a host finds with some files altered, None when it refuses."""
    host = FollowingHost(_WORLD)
    host.served = dict(served)
    try:
        trusted = host.refresh(NOW)
        found = [host.find(publisher, _RELEASE, trusted) for publisher in ("acme", "bins")]
    except Untrusted as refused:
        if not refused.code.startswith("metadata."):
            raise Broken(f"refused as {refused.code}") from refused
        found = None
    for name, content in host.kept.items():
        if name.endswith("root.json") and content not in served.values():
            raise Broken(f"{name} was kept and never served")
    return found


_RIGHT = _find({})


def run(data: bytes) -> None:
    """Take an input in the place of each role that it may be, as it is and rightly signed."""
    signed = _parsed(data)
    roles = _ROLES_OF.get(str(signed.get("_type")), ("timestamp", "root"))
    whole = {"signatures": _whole(data).get("signatures")}
    for role in roles:
        if whole["signatures"] is not None or not signed:
            if _find({_FILES[role]: data}) not in (None, _RIGHT) and role != "root":
                raise Broken("what nobody signed was believed")
            _offer(role, data)
        if (content := _signed(signed, role)) is not None and len(content) < _bound(role):
            _find({_FILES[role]: content})
            _offer(role, content)


def _bound(role: str) -> int:
    return 16 << 10 if role == "timestamp" else 512 << 10


def _offer(role: str, content: bytes) -> None:
    try:
        accept(_WORLD.roles.get, {role: content}, _WORLD.own, NOW)
    except SkerryError as refused:
        if refused.family == "bug":
            raise


def _whole(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def _parsed(data: bytes) -> dict[str, Any]:
    """Return the signed part of an input, or the input itself where it is one."""
    value = _whole(data)
    signed = value.get("signed", value)
    return cast(dict[str, Any], signed) if isinstance(signed, dict) else {}


def _signed(signed: dict[str, Any], role: str) -> bytes | None:
    try:
        message = cast(Any, formats).encode_canonical(signed).encode()
        signatures = [{"keyid": key.key_id, "sig": key.sign_raw(message).hex()} for key in _SIGNERS[role]]
        return json.dumps({"signed": signed, "signatures": signatures}).encode()
    except Exception:  # the library's canonical form has exceptions of many kinds; then nobody can sign it
        return None


def reshape(data: bytes, random: Random) -> bytes:
    """Change, drop or double something anywhere in the document."""
    value = _parsed(data)
    if not value:
        return data
    places: list[tuple[Any, Any]] = []
    _collect(value, places)
    for _ in range(random.randint(1, 3)):
        owner, key = random.choice(places)
        _change(owner, key, random)
    return json.dumps(value).encode()


def _change(owner: Any, key: Any, random: Random) -> None:
    try:
        match random.randrange(5):
            case 0:
                del owner[key]
            case 1 if hasattr(owner, "append"):
                owner.append(owner[key])
            case 1:
                owner[random.choice(("root", "targets", "..", "bin-acme-0", "2.root"))] = owner[key]
            case 2 if isinstance(owner[key], int):
                owner[key] += random.choice((-1, 1, 1000, 1 << 63))
            case _:
                owner[key] = random.choice(_VALUES)
    except (KeyError, IndexError):
        pass  # an earlier change took it away


def _collect(value: Any, places: list[tuple[Any, Any]]) -> None:
    inside: Any = value.items() if hasattr(value, "items") else enumerate(value)
    for key, one in inside:
        places.append((value, key))
        if hasattr(one, "clear"):  # a list or a dict
            _collect(one, places)


def seeds() -> list[bytes]:
    """Return the file of every role, the next of some, and the signed parts alone."""
    following = [
        *_WORLD.signed_release("acme", "app@1.0.1").values(),
        *_WORLD.signed_release("bins", "app@1.0.1").values(),
        _next_root(),
    ]
    files = [_WORLD.files[name] for role, name in _FILES.items() if role != "root"]
    parts = [json.dumps(json.loads(content)["signed"]).encode() for content in (*files, *following)]
    return [*files, *following, *parts, b"{}", b"[]"]


def _next_root() -> bytes:
    metadata: Any = _WORLD.next_root(2)
    for key in _WORLD.root_keys:
        metadata.sign(key.signer, append=True)
    content: bytes = metadata.to_bytes()
    return content


TARGET = Target(
    run,
    seeds,
    reshape,
    tokens=(
        b'"signed"',
        b'"signatures"',
        b'"_type"',
        b'"version"',
        b'"expires"',
        b'"keyids"',
        b'"threshold"',
        b'"delegations"',
        b'"succinct_roles"',
        b'"bit_length"',
        b'"paths"',
        b'"path_hash_prefixes"',
        b'"meta"',
        b'"targets"',
        b'"custom"',
        b'"x-skerry"',
        b"null",
        b"true",
        b"1e9",
        b"[]",
        b"{}",
    ),
)
