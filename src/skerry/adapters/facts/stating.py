"""Facts that a person states in place of detected ones: `--fact NAME=VALUE`.

Rules: a value is read by the type that the table of facts gives the name; nothing after `=` takes the fact away, and
`gpu.*=` all that begin so; what the table does not know is refused, but for `custom.`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from skerry.adapters.facts.custom import parse_word
from skerry.adapters.facts.findings import NUMBER_LIMIT, tidy_value
from skerry.kit.errors import Rejected
from skerry.kit.quantities import parse_size
from skerry.spec.fact_names import FACT_NAMES, FactKind, find_fact_name
from skerry.spec.facts import Fact, FactValue, HostFacts

_short = {"memory": "memory_bytes", "disk": "disk.free_bytes"}
_group_re = re.compile(r"[a-z][a-z0-9_.-]*\.\*")


def override_facts(facts: HostFacts, overrides: Mapping[str, str]) -> HostFacts:
    """Return the facts with some stated by a person, marked so; sizes are written as `512MiB`.

    Raises:
        Rejected: an unknown fact or a value that is none (`facts.unknown`, `facts.malformed`).
    """
    result = dict(facts)
    for name, text in overrides.items():
        name = _short.get(name, name)
        if _group_re.fullmatch(name) and not text.strip():
            result = {held: fact for held, fact in result.items() if not held.startswith(name[:-1])}
            continue
        known = find_fact_name(name)
        if known is None:
            hint = f"known: {', '.join(entry.name for entry in FACT_NAMES)}"
            raise Rejected("facts.unknown", f"unknown fact {name!r}", hint=hint)
        if not text.strip():
            result.pop(name, None)
            continue
        try:
            value = tidy_value(parse_value(known.kind, text.strip(), custom=name.startswith("custom.")))
        except ValueError as error:
            raise Rejected("facts.malformed", f"fact {name}: {error}") from error
        if value is None:
            raise Rejected("facts.malformed", f"fact {name}: nothing is left of {text!r}")
        result[name] = Fact(value=value, source="override")
    return dict(sorted(result.items()))


def parse_value(kind: FactKind, text: str, *, custom: bool = False) -> FactValue:
    """Return a value of a type of the table; ValueError when it is none."""
    match kind:
        case "size":
            value = int(text) if re.fullmatch("[0-9]{1,18}", text) else parse_size(text)
            return _bounded(value, text)
        case "number":
            if not re.fullmatch(r"-?[0-9]{1,18}", text):
                raise ValueError(f"{text!r} is no whole number")
            return _bounded(int(text), text)
        case "flag":
            if text not in ("true", "false"):
                raise ValueError(f"{text!r} is neither true nor false")
            return text == "true"
        case "list":
            items = [item.strip() for item in text.split(",")]
            return tuple(dict.fromkeys(item for item in items if item))
        case "text":
            return parse_word(text) if custom else text


def _bounded(value: int, text: str) -> int:
    if abs(value) >= NUMBER_LIMIT:
        raise ValueError(f"{text!r} is too large")
    return value
