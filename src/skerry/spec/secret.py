"""Secrets: where a value holds, how one is made, and how it travels to the host that opens it.

A value in clear is in none of these.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from skerry.spec.metadata import Name, Part

MAX_VALUE_BYTES = 16 << 10
MAX_VERSION = 1 << 31
MIN_ROTATE_S = 60
MAX_ROTATE_S = 10 * 366 * 86400

SecretVersion = Annotated[int, Meta(ge=1, le=MAX_VERSION)]
SecretId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$", description="32 hexadecimal digits")]
SecretKind = Literal["set", "random", "keypair"]
ScopeKind = Literal["all", "selector", "site"]


class Scope(Part, frozen=True, kw_only=True):
    """Where a value holds: at `all` sites, at those of the label selector `of`, or at the site `of`."""

    kind: ScopeKind = "all"
    of: Annotated[str, Meta(max_length=1024)] = ""


class Making(Part, frozen=True, kw_only=True):
    """How a value is made that nobody chooses: `random` text, or a `keypair`, whose private key applications get.

    Text of the alphabet `base64url` is made of `length` random bytes; of any other it is `length` characters, each
    drawn from it. A pair of keys is of the `algorithm`, and its private key is PKCS#8 PEM.
    """

    kind: Literal["random", "keypair"]
    length: Annotated[int, Meta(ge=16, le=1024)] = 32
    alphabet: Literal["base64url", "alphanumeric", "hex", "digits"] = "base64url"
    algorithm: Literal["ed25519", "p256"] = "ed25519"


class SecretOrder(Part, frozen=True, kw_only=True):
    """One version of a secret that a host makes for itself, and that never leaves it; each host has another value.

    `id`, `name` and `version` are as of any version. With `rotate_every_s` the host makes the next value by itself,
    again and again; without it there is one value.
    """

    id: SecretId
    name: Name
    version: SecretVersion
    making: Making
    rotate_every_s: Annotated[int, Meta(ge=MIN_ROTATE_S, le=MAX_ROTATE_S)] | None = None
    not_before: datetime | None = None
    expires_at: datetime | None = None


class SealedSecret(Part, frozen=True, kw_only=True):
    """One version of a secret, sealed to one host.

    `id` is drawn at random for each version of each secret; `key` is the id of the sealing key that opens it. It opens
    only as what it says it is: host, name, version and id are bound into it. A host uses the highest version of a
    name whose `not_before` has come.
    """

    id: SecretId
    name: Name
    version: SecretVersion
    key: Annotated[str, Meta(max_length=64)]
    sealed: Annotated[str, Meta(max_length=2 * MAX_VALUE_BYTES)]
    not_before: datetime | None = None
    expires_at: datetime | None = None
