"""Which bindings of a site an application gets on a host, and why.

Rules: a binding fits a need when it is of its type and has all its labels; one that is attached to another host does
not. Each need of an application gets a binding of its own. What is attached to the host goes before what all hosts
reach, then the site's order decides; an earlier need gives way only where a later one would get nothing. The hub and
the host ask the same function, so that what is previewed is what happens. Whether a device is there at the moment
does not count: it comes back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from skerry.spec.binding import BindingNeed, BindingSpec


class BindingChoice(msgspec.Struct, frozen=True):
    """The binding of each need, and one line per need and binding of its type that was looked at."""

    bindings: Mapping[str, BindingSpec] = {}
    why: tuple[str, ...] = ()


class NoBinding(msgspec.Struct, frozen=True):
    """A need has no binding; one line of reason per need that has none."""

    reasons: tuple[str, ...]


def match_bindings(
    needs: Sequence[BindingNeed], offered: Sequence[BindingSpec], *, host: str | None
) -> BindingChoice | NoBinding:
    """Return which bindings an application gets on a host; None is any host, as before a site has one."""
    order = sorted(range(len(offered)), key=lambda n: (offered[n].host is None, n))
    options = [[n for n in order if not lack_of(need, offered[n], host)] for need in needs]
    given = _assign(options)
    missing = [n for n in range(len(needs)) if n not in given]
    if missing:
        return NoBinding(tuple(_reason(needs[n], offered, host, taken=bool(options[n])) for n in missing))
    bindings = {need.name: offered[given[n]] for n, need in enumerate(needs)}
    why = [
        f"{need.name}: {_told(need, one, bindings, host)}"
        for need in needs
        for one in offered
        if one.type == need.type
    ]
    return BindingChoice(bindings, tuple(why))


def site_lacks(needs: Sequence[BindingNeed], offered: Sequence[BindingSpec], hosts: Sequence[str]) -> str:
    """Say why none of a site's hosts gets what an application needs; empty where one does, or nothing is needed."""
    if not needs:
        return ""
    answers = [match_bindings(needs, offered, host=host) for host in (hosts or (None,))]
    lacks = [answer.reasons for answer in answers if isinstance(answer, NoBinding)]
    return "; ".join(lacks[0]) if len(lacks) == len(answers) else ""


def held_alone(
    needs: Sequence[BindingNeed], offered: Sequence[BindingSpec], hosts: Sequence[str]
) -> frozenset[str]:
    """Return the names of the exclusive bindings that an application gets on some of these hosts; none named is any."""
    if not needs or not any(one.exclusive for one in offered):
        return frozenset()
    answers = [match_bindings(needs, offered, host=host) for host in (hosts or (None,))]
    joined = [
        one for answer in answers if isinstance(answer, BindingChoice) for one in answer.bindings.values()
    ]
    return frozenset(one.name for one in joined if one.exclusive)


def describe_holder(binding: str, application: str) -> str:
    """Say that an exclusive binding is another's."""
    return f"binding {binding} is exclusive, and {application} has it"


def secrets_joined(
    needs: Sequence[BindingNeed], offered: Sequence[BindingSpec], *, host: str | None
) -> frozenset[str]:
    """Return the names of the secrets of the bindings that an application gets on a host."""
    joined = match_bindings(needs, offered, host=host)
    if isinstance(joined, NoBinding):
        return frozenset()
    return frozenset(name for one in joined.bindings.values() for name in one.secrets.values())


def lack_of(need: BindingNeed, binding: BindingSpec, host: str | None) -> str:
    """Say why a binding does not fit a need on a host; empty where it does."""
    if binding.type != need.type:
        return f"is a {binding.type}"
    wrong = [
        f"{key}={value}" for key, value in sorted(need.labels.items()) if binding.labels.get(key) != value
    ]
    if wrong:
        return f"is not {', '.join(wrong)}"
    if host is not None and binding.host is not None and binding.host != host:
        return f"is attached to {binding.host}"
    return ""


def describe_need(need: BindingNeed) -> str:
    """Return a need in words."""
    labels = ", ".join(f"{key}={value}" for key, value in sorted(need.labels.items()))
    return f"{need.name} ({need.type}{' with ' + labels if labels else ''})"


def _assign(options: Sequence[Sequence[int]]) -> dict[int, int]:
    """Return an option for as many as can have one, each its own: augmenting paths (Kuhn, 1955), in order."""
    holder: dict[int, int] = {}

    def seat(need: int, tried: set[int]) -> bool:
        for option in options[need]:
            if option not in tried:
                tried.add(option)
                if option not in holder or seat(holder[option], tried):
                    holder[option] = need
                    return True
        return False

    for need in range(len(options)):
        free = next((option for option in options[need] if option not in holder), None)
        if free is not None:
            holder[free] = need
        else:
            seat(need, set())
    return {need: option for option, need in holder.items()}


def _reason(need: BindingNeed, offered: Sequence[BindingSpec], host: str | None, *, taken: bool) -> str:
    asked = f"needs a binding for {describe_need(need)}"
    alike = [one for one in offered if one.type == need.type]
    if taken:
        return f"{asked}: the site has not one for each of its needs"
    if not alike:
        return f"{asked}: the site offers no {need.type}"
    return f"{asked}: " + "; ".join(f"{one.name} {lack_of(need, one, host)}" for one in alike)


def _told(need: BindingNeed, one: BindingSpec, chosen: Mapping[str, BindingSpec], host: str | None) -> str:
    if chosen[need.name] is one:
        labels = ", ".join(f"{key}={value}" for key, value in sorted(need.labels.items()))
        place = f", attached to {one.host}" if one.host else ""
        return f"{one.name} fits ({labels or 'any ' + need.type}{place})"
    if lack := lack_of(need, one, host):
        return f"{one.name} {lack}"
    other = next((name for name, got in chosen.items() if got is one), "")
    return (
        f"{one.name} fits, and is for {other}"
        if other
        else f"{one.name} fits, and comes later in the site's order"
    )
