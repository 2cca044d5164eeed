"""Editions: a release together with the configuration that goes with it, as names and as identities.

People and rollouts name an edition `application@version#revision`, where the revision is that of all configurations of
the application; without one it is the release's plain name. A host tells editions apart by `DIGEST+HEX`: the digest of
the release, and the hexadecimal digest of what its configuration came to there; without one it is the plain digest.
"""

from __future__ import annotations

from skerry.kit.digests import hex_of

REVISION_DIGITS = 12


def edition_name(release: str, revision: str) -> str:
    """Return the name of a release at a revision of its configurations; an empty revision adds nothing."""
    return f"{release}#{revision}" if revision else release


def plain_release(name: str) -> str:
    """Return the release that an edition's name names."""
    return name.partition("#")[0]


def revision_of(name: str) -> str:
    """Return the revision in an edition's name; empty without one."""
    return name.partition("#")[2]


def edition_of(release: str, configuration: str) -> str:
    """Return the identity of a release, by digest, with a configuration, by digest; an empty one adds nothing."""
    return f"{release}+{hex_of(configuration)}" if configuration else release


def release_in(edition: str) -> str:
    """Return the digest of an edition's release."""
    return edition.partition("+")[0]


def configuration_in(edition: str) -> str:
    """Return the digest of an edition's configuration; empty without one."""
    configuration = edition.partition("+")[2]
    return f"sha256:{configuration}" if configuration else ""
