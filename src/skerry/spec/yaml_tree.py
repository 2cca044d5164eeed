"""YAML text to plain values, each with the line it was written on, within limits that no text can break.

Rules: keys are text whatever they look like; two equal keys are a problem and never the last one wins in
silence; instants stay text; only tags that JSON knows are built. Limits on size, depth and nodes are checked
before anything is built, and aliases count as often as they are used.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import yaml
from yaml.constructor import SafeConstructor

from skerry.spec.problems import DocumentRejected, Problem

MAX_TEXT_BYTES = 4 << 20
MAX_DEPTH = 64
MAX_NODES = 250_000
_MAX_INTEGER = 2**63

_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"

PathPart = str | int


class Place(msgspec.Struct):
    """Where a value was written: its line from 1, its text as written if it is a scalar, and its parts."""

    line: int
    text: str = ""
    children: dict[PathPart, Place] = {}

    def find(self, path: str) -> Place:
        """Return the place of `spec.components[0].name`, or of the nearest parent that was written.

        Keys may contain dots themselves, so the longest key that fits is taken.
        """
        if match := re.match(r"\[(\d+)\]", path):
            child = self.children.get(int(match[1]))
            return child.find(path[match.end() :]) if child else self
        rest = path.removeprefix(".")
        fitting = [
            key
            for key in self.children
            if isinstance(key, str)
            and rest.startswith(key)
            and rest[len(key) : len(key) + 1] in ("", ".", "[")
        ]
        if not rest or not fitting:
            return self
        key = max(fitting, key=len)
        return self.children[key].find(rest[len(key) :])


class Tree(msgspec.Struct):
    """One document of a text: its value as JSON knows it, where everything was written, and what is wrong."""

    value: Any
    place: Place
    problems: list[Problem]


class _Loader(yaml.CSafeLoader):
    """The safe loader without instants: they stay text, as in JSON."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _TAG + "timestamp"]
        for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }


def format_path(parts: tuple[PathPart, ...]) -> str:
    """Return a path as people say it: `spec.components[0].ports[1].port`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return text.removeprefix(".")


def read_trees(text: str, *, file: str = "") -> list[Tree]:
    """Return the documents of a text, in order, empty ones left out.

    Raises:
        DocumentRejected: the text is not YAML, or it breaks a limit; such a text is not looked at further.
    """
    try:
        _check_limits(text, file)
        nodes = list(yaml.compose_all(text, Loader=_Loader))
    except UnicodeEncodeError:
        raise DocumentRejected([Problem("", "not UTF-8 text", "save the file as UTF-8", file)]) from None
    except yaml.YAMLError as error:
        raise DocumentRejected([_syntax_problem(error, text, file)]) from None
    builder = _Builder(file)
    return [tree for node in nodes if (tree := builder.tree(node)).value is not None or tree.problems]


def _check_limits(text: str, file: str) -> None:
    size_bytes = len(text.encode())
    if size_bytes > MAX_TEXT_BYTES:
        message = f"{size_bytes} bytes are more than the {MAX_TEXT_BYTES} a text may have"
        raise DocumentRejected([Problem("", message, "split it into several files", file)])
    depth = nodes = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.NodeEvent):
            nodes += 1
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH or nodes > MAX_NODES:
            raise _limit_broken(_line(event), file, deep=depth > MAX_DEPTH)


def _limit_broken(line: int, file: str, *, deep: bool) -> DocumentRejected:
    if deep:
        problem = Problem("", f"nested deeper than {MAX_DEPTH} levels", "flatten it", file, line)
    else:
        hint = "split it into several files, and use aliases sparingly"
        problem = Problem(
            "", f"more than {MAX_NODES} values, aliases counted as often as used", hint, file, line
        )
    return DocumentRejected([problem])


def _syntax_problem(error: yaml.YAMLError, text: str, file: str) -> Problem:
    line, what = 0, str(error)
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.context, error.problem) if part) or what
        if mark:
            line, what = mark.line + 1, f"{what}, column {mark.column + 1}"
    elif isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        what = f"{error.reason} (character {error.character!r})"
    hint = "indent with spaces, not tabs" if "cannot start any token" in what else ""
    return Problem("", f"not YAML: {what}", hint, file, line)


class _Builder:
    """Builds values from nodes; one per text, because its aliases share one budget."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._nodes = 0
        self._problems: list[Problem] = []
        scalars = SafeConstructor()
        self._scalars: dict[str, Callable[[yaml.ScalarNode], object]] = {
            _TAG + "str": lambda node: node.value,
            _TAG + "null": lambda _: None,
            _TAG + "bool": scalars.construct_yaml_bool,
            _TAG + "int": scalars.construct_yaml_int,
            _TAG + "float": scalars.construct_yaml_float,
        }

    def tree(self, node: yaml.Node) -> Tree:
        self._problems = []
        value, place = self._build(node, ())
        return Tree(value, place, self._problems)

    def _build(self, node: yaml.Node, path: tuple[PathPart, ...]) -> tuple[Any, Place]:
        self._nodes += 1
        # Depth is checked again: an alias can put a deep value into a deep place, or a value into itself.
        if len(path) > MAX_DEPTH or self._nodes > MAX_NODES:
            raise _limit_broken(_line(node), self._file, deep=len(path) > MAX_DEPTH)
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            built = [self._build(item, (*path, index)) for index, item in enumerate(node.value)]
            children: dict[PathPart, Place] = {index: place for index, (_, place) in enumerate(built)}
            return [value for value, _ in built], Place(_line(node), children=children)
        return self._scalar(node, path), Place(_line(node), node.value if isinstance(node.value, str) else "")

    def _scalar(self, node: yaml.Node, path: tuple[PathPart, ...]) -> object:
        construct = self._scalars.get(node.tag) if isinstance(node, yaml.ScalarNode) else None
        if construct is None or not isinstance(node, yaml.ScalarNode):
            self._problem(
                node, path, f"unknown tag {node.tag.removeprefix(_TAG)!r}", "write plain text instead"
            )
            return None
        try:
            value = construct(node)
        except (ValueError, KeyError, IndexError, OverflowError):
            value = math.nan
        if isinstance(value, float) and not math.isfinite(value):
            self._problem(
                node, path, f"not a number that can be kept: {node.value[:40]!r}", "quote it if it is text"
            )
            return None
        if isinstance(value, int) and abs(value) >= _MAX_INTEGER:
            self._problem(node, path, "a number of more than 64 bits", "quote it if it is text")
            return None
        return value

    def _mapping(self, node: yaml.MappingNode, path: tuple[PathPart, ...]) -> tuple[dict[str, Any], Place]:
        value: dict[str, Any] = {}
        own: dict[PathPart, Place] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                merged.append(value_node)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem(key_node, path, "a key that is not text", "write a plain word")
                continue
            key = str(key_node.value)
            if key in own:
                hint = f"it is on line {own[key].line} already"
                self._problem(key_node, (*path, key), "the key is there twice", hint)
                continue
            value[key], own[key] = self._build(value_node, (*path, key))
            # The key's line is where people look, even when its value begins below it.
            own[key].line = _line(key_node)
        for source, place in self._merge_sources(merged, path):
            for key in source.keys() - own.keys():
                value[key], own[key] = source[key], place.children[key]
        return value, Place(_line(node), children=own)

    def _merge_sources(
        self, nodes: list[yaml.Node], path: tuple[PathPart, ...]
    ) -> Iterator[tuple[dict[str, Any], Place]]:
        """Yield what `<<: *alias` and `<<: [*a, *b]` name, the first one having precedence."""
        for node in nodes:
            for item in node.value if isinstance(node, yaml.SequenceNode) else [node]:
                value, place = self._build(item, (*path, "<<"))
                if isinstance(value, dict):
                    yield value, place
                else:
                    self._problem(
                        item, (*path, "<<"), "not a mapping", "<<: takes a mapping or a list of them"
                    )

    def _problem(self, node: yaml.Node, path: tuple[PathPart, ...], message: str, hint: str) -> None:
        self._problems.append(Problem(format_path(path), message, hint, self._file, _line(node)))


def _line(found: yaml.Node | yaml.Event) -> int:
    # The C parser always sets the mark; the types do not know it.
    return found.start_mark.line + 1 if found.start_mark else 0
