"""A value of a Compose file with its path and line, read as the type that is wanted, problems and notes kept.

Rules: a scalar is the text that was written, because YAML reads `22:22` as a number and `no` as false; a value
of the wrong kind is a problem and reads as nothing, so that reading goes on to the next.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec

from skerry.client.compose.keys import find_key, known_keys
from skerry.client.compose.variables import Unfilled, Variables
from skerry.spec.problems import Problem
from skerry.spec.wording import closest, shown
from skerry.spec.yaml_tree import MAX_TEXT_BYTES, PathPart, Place, format_path

_truths = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class Note(msgspec.Struct, frozen=True):
    """What became of something that has no counterpart; `component` is empty where the whole file is meant."""

    path: str
    text: str
    component: str = ""
    line: int = 0


class Reading:
    """One Compose file being read: its variables, and what was found on the way."""

    def __init__(self, file: str, variables: Variables) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.notes: list[Note] = []
        self.component = ""
        self._variables = variables
        self._budget = MAX_TEXT_BYTES

    def fill(self, text: str, *, references: bool) -> str:
        """Return a text with its variables filled in; all texts together are bounded.

        Raises:
            Unfilled: see `Variables.fill`.
        """
        filled = self._variables.fill(text, references=references)
        self._budget -= len(filled)
        if self._budget < 0:
            raise Unfilled("too much text when variables and aliases are filled in", "split the file")
        return filled


class Node(msgspec.Struct, frozen=True):
    """A value, where it was written, and the reading it belongs to."""

    value: Any
    place: Place
    path: tuple[PathPart, ...]
    reading: Reading

    @property
    def is_nothing(self) -> bool:
        """Tell whether nothing is said by it: null, false, an empty text, list or mapping."""
        return self.value is None or self.value is False or self.value in ("", [], {})

    @property
    def where(self) -> str:
        """Return the path as people say it."""
        return format_path(self.path)

    def problem(self, message: str, hint: str = "") -> None:
        """Keep a problem of this value."""
        found = Problem(self.where, message, hint, self.reading.file, self.place.line)
        if found not in self.reading.problems:
            self.reading.problems.append(found)

    def note(self, text: str) -> None:
        """Keep a note about this value, for the component that is being read."""
        found = Note(self.where, text, self.reading.component, self.place.line)
        if found not in self.reading.notes:
            self.reading.notes.append(found)

    def child(self, key: PathPart) -> Node:
        """Return the value under a key or index that is there."""
        return Node(self.value[key], self.place.children[key], (*self.path, key), self.reading)

    def is_mapping(self) -> bool:
        """Tell whether it is a mapping."""
        return isinstance(self.value, dict)

    def is_list(self) -> bool:
        """Tell whether it is a list."""
        return isinstance(self.value, list)

    def entries(self) -> list[tuple[str, Node]]:
        """Return the entries of a mapping in the order of their lines; none for null."""
        if self.value is None:
            return []
        if not isinstance(self.value, dict):
            self.problem(f"expected a mapping, got {shown(self.value)}")
            return []
        found = [(key, self.child(key)) for key in cast("dict[str, object]", self.value)]
        # Keys that were merged from elsewhere come in no order of their own.
        return sorted(found, key=lambda entry: (entry[1].place.line, entry[0]))

    def items(self) -> list[Node]:
        """Return the entries of a list; none for null, and a single value as a list of it."""
        if self.value is None:
            return []
        if isinstance(self.value, list):
            return [self.child(index) for index in range(len(cast("list[object]", self.value)))]
        if isinstance(self.value, dict):
            self.problem("expected a list, got a mapping")
            return []
        return [self]

    def text(self, *, references: bool = False) -> str:
        """Return a scalar as it was written, variables filled in; empty, and a problem, for anything else."""
        if self.is_mapping() or self.is_list():
            self.problem(f"expected text, got {shown(self.value)}")
            return ""
        if self.value is None:
            return ""
        written = self.value if isinstance(self.value, str) else self.place.text
        try:
            return self.reading.fill(written, references=references)
        except Unfilled as error:
            self.problem(str(error), error.hint)
            return ""

    def truth(self) -> bool:
        """Return a switch; false, and a problem, for anything that is none."""
        if isinstance(self.value, bool):
            return self.value
        text = self.text()
        if text.lower() not in _truths:
            if text:
                self.problem(f"expected true or false, got {shown(text)}")
            return False
        return _truths[text.lower()]

    def mapped(self, table: str) -> dict[str, Node]:
        """Return the entries whose keys the table maps; the others are noted, ignored or refused as it says."""
        found: dict[str, Node] = {}
        for name, node in self.entries():
            key = find_key(table, name)
            if key is None:
                if not name.startswith("x-"):
                    hint = closest(name, known_keys(table))
                    node.problem("is not known here", hint if hint.startswith("did") else "")
            elif key.fate == "mapped":
                found[name] = node
            elif key.fate == "refused" and not node.is_nothing:
                node.problem("has no counterpart in an Application", key.becomes)
            elif key.fate == "noted" and not node.is_nothing:
                node.note(key.becomes)
        return found
