"""Writes the reference from the code before Sphinx reads the pages: documents' fields, JSON Schema, commands.

Rules: nothing here repeats what the code says elsewhere; what was written is left alone when it has not changed,
so that a second build is quick.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
from sphinx.application import Sphinx

from skerry import __version__
from skerry.rollout.states import LEGAL_STEPS
from skerry.spec.documents import KINDS
from skerry.spec.schema import json_schema


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("builder-inited", _write_reference)
    return {"version": __version__, "parallel_read_safe": True, "parallel_write_safe": True}


def _write_reference(app: Sphinx) -> None:
    folder = Path(app.srcdir) / "reference" / "generated"
    folder.mkdir(exist_ok=True)
    _write(folder / "skerry.schema.json", json.dumps(json_schema(), indent=2) + "\n")
    _write(folder / "documents.md", "\n".join(_render_documents()) + "\n")
    _write(folder / "cli.md", "\n".join(_render_cli()) + "\n")
    _write(folder / "rollout-states.md", "\n".join(_render_states()) + "\n")


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


# ── documents ────────────────────────────────────────────────────────────────────────────────────────


def _render_documents() -> Iterator[str]:
    yield "# Documents\n"
    yield "What `skerry apply`, `skerry release push` and `skerry rollout` read: YAML or JSON, several documents"
    yield "per file. Unknown fields are refused. Editors complete and check documents when they are given the JSON"
    yield "Schema, which `skerry schema` prints as well: {download}`skerry.schema.json <skerry.schema.json>`.\n"
    pending: list[type] = []
    for name, kind in KINDS.items():
        yield from _render_struct(kind, name, 2, pending)
    yield "## Parts\n"
    yield "What the kinds are made of.\n"
    for part in pending:
        # The list grows while parts name further parts.
        yield from _render_struct(part, part.__name__, 3, pending)


def _render_struct(kind: type, title: str, level: int, pending: list[type]) -> Iterator[str]:
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    yield f"({_target(kind)})=\n"
    yield f"{'#' * level} {title}\n"
    yield inspect.getdoc(kind) or ""
    yield ""
    yield "| field | what | default |"
    yield "|---|---|---|"
    if info.tag_field:
        yield f"| `{info.tag_field}` | `{info.tag}` | required |"
    for field in info.fields:
        yield f"| `{field.encode_name}` | {_describe(field.type, pending)} | {_default(field)} |"
    yield ""


def _render_states() -> Iterator[str]:
    yield "# Steps of a rollout's sites\n"
    yield "Which state of a site may follow which in one step; one decision may take two.\n"
    yield "| from \\ to | " + " | ".join(f"`{state}`" for state in LEGAL_STEPS) + " |"
    yield "|---|" + "---|" * len(LEGAL_STEPS)
    for state, following in LEGAL_STEPS.items():
        marks = " | ".join("x" if other in following else "" for other in LEGAL_STEPS)
        yield f"| `{state}` | {marks} |"


def _target(kind: type) -> str:
    return f"document-{kind.__name__.lower()}"


def _describe(kind: msgspec.inspect.Type, pending: list[type]) -> str:
    """Return a type in words, with its limits; structs become links and are rendered later."""
    match kind:
        case msgspec.inspect.Metadata(type=inner, extra_json_schema=extra):
            words = (extra or {}).get("description")
            return f"{_describe(inner, pending)}: {words}" if words else _describe(inner, pending)
        case msgspec.inspect.StructType(cls=cls):
            if cls not in pending:
                pending.append(cls)
            return f"[{cls.__name__}](#{_target(cls)})"
        case msgspec.inspect.DictType(key_type=key, value_type=value):
            return f"map of {_describe(key, pending)} to {_describe(value, pending)}{_limits(kind)}"
        case msgspec.inspect.VarTupleType(item_type=item) | msgspec.inspect.ListType(item_type=item):
            return f"list of {_describe(item, pending)}{_limits(kind)}"
        case msgspec.inspect.UnionType(types=types):
            inner = [t for t in types if not isinstance(t, msgspec.inspect.NoneType)]
            return " or ".join(_describe(t, pending) for t in inner)
        case msgspec.inspect.LiteralType(values=values):
            return "one of " + ", ".join(f"`{value}`" for value in values)
        case _:
            name = type(kind).__name__.removesuffix("Type").lower()
            return {"str": "text", "int": "integer", "bool": "true or false"}.get(name, name) + _limits(kind)


def _limits(kind: msgspec.inspect.Type) -> str:
    labels = {
        "min_length": "at least {} long",
        "max_length": "at most {} long",
        "ge": "{} or more",
        "le": "{} or less",
        "gt": "more than {}",
        "lt": "less than {}",
    }
    found = [
        words.format(value)
        for name, words in labels.items()
        if (value := getattr(kind, name, None)) is not None
    ]
    return f" ({', '.join(found)})" if found else ""


def _default(field: msgspec.inspect.Field) -> str:
    if field.required:
        return "required"
    if field.default_factory is not msgspec.NODEFAULT:
        return "empty" if field.default_factory in (dict, list) else "its defaults"
    match field.default:
        case None:
            return "none"
        case "" | () | []:
            return "empty"
        case msgspec.Struct():
            return "its defaults"
        case value:
            return f"`{value}`"


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────


def _render_cli() -> Iterator[str]:
    from skerry.cli.main import cli

    yield "# Commands\n"
    yield "What each command says of itself with `--help`.\n"
    for path, command, context in walk_commands(cli, "skerry"):
        yield f"{'#' * min(3, path.count(' ') + 2)} {path}\n"
        help_text = re.sub(r"[ \t]+$", "", command.get_help(context), flags=re.MULTILINE)
        yield f"```text\n{help_text}\n```\n"


def walk_commands(
    command: click.Command, name: str, parent: click.Context | None = None
) -> Iterator[tuple[str, click.Command, click.Context]]:
    """Yield every command with its full name and a context to render its help in."""
    settings = dict(command.context_settings)
    settings.update(terminal_width=100, max_content_width=100)
    context = click.Context(command, parent=parent, info_name=name, **settings)
    yield context.command_path, command, context
    if isinstance(command, click.Group):
        for child_name in command.list_commands(context):
            child = command.get_command(context, child_name)
            if child is not None and not child.hidden:
                yield from walk_commands(child, child_name, context)
