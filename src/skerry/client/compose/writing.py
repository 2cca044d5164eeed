"""An Application as text for people: every note is a comment at the component that it is about.

Rules: fields stand in the order of the document given; a comment is one line whatever its note says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from skerry.client.compose.nodes import Note

_FIRST = "From {file} by skerry init. The comments below say what is not as it was there."
_WIDE = 1 << 20


def write_application(document: dict[str, Any], notes: Sequence[Note], *, file: str) -> str:
    """Return the YAML of an Application with its notes."""
    spec = document["spec"]
    head = {**document, "spec": {key: value for key, value in spec.items() if key != "components"}}
    lines = [_comment(_FIRST.format(file=file))]
    lines += [_comment(f"{note.path}: {note.text}") for note in notes if not note.component]
    lines += _dump(head).splitlines()
    lines.append("  components:")
    for component in spec["components"]:
        lines += [f"    {_comment(line)}" for line in _remarks(component, notes)]
        body = _dump([component]).splitlines()
        lines += [f"    {line}" if line else "" for line in body]
    return "\n".join(lines) + "\n"


def _remarks(component: dict[str, Any], notes: Sequence[Note]) -> list[str]:
    found = [f"{note.path}: {note.text}" for note in notes if note.component == component["name"]]
    container = component.get("container", {})
    if container.get("read_only") is False:
        found.append("container.read_only: the root file system is writable, as in Compose; true is safer")
    if not container.get("capabilities"):
        hint = "name in container.capabilities what it needs, such as CHOWN, SETUID and SETGID to change its user"
        found.append(f"container.capabilities: none is kept, where Compose keeps fourteen; {hint}")
    return found


def _comment(text: str) -> str:
    # A break of any kind would end the comment, and what follows would be read as YAML.
    return "# " + "".join(letter if letter.isprintable() else " " for letter in text)[:400]


class _Dumper(yaml.SafeDumper):
    """Lists inside mappings are indented, as the documentation writes them."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: FBT001, FBT002 - PyYAML's
        super().increase_indent(flow, indentless=False)

    def ignore_aliases(self, data: object) -> bool:
        return True


def _dump(value: object) -> str:
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDE)
    return text
