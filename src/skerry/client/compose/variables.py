"""The variables of a Compose file: where their values come from, and how a text is filled with them.

Syntax: Compose specification, "Interpolation" and "Env file". Rules: a name without a value is never
an empty text but is told; what is filled in is not looked at again; text is bounded, so that no chain of
variables can make it grow without end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import msgspec

MAX_TEXT = 64 << 10
_MAX_DEPTH = 8
_MARK = "\0"

_name_re = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_operator_re = re.compile(r":?[-?+]")
_line_re = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_.-]*)\s*(?:[=:]\s*(.*))?", re.DOTALL)
_site_name_re = re.compile(r"[a-z][a-z0-9_]*")
_escapes = {"n": "\n", "r": "\r", "t": "\t"}


class Unfilled(Exception):
    """A text that cannot be filled; `str` says why, `hint` what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class Variables(msgspec.Struct):
    """Values by name, and the names that every site gives a value of its own; those need no default."""

    values: Mapping[str, str] = {}
    of_site: frozenset[str] = frozenset()

    def fill(self, text: str, *, references: bool) -> str:
        """Return the text with its variables filled in.

        With `references` the text may name site variables, and a `${` of its own cannot be kept apart from them.

        Raises:
            Unfilled: a variable has no value, the syntax is wrong, or the text grows too long.
        """
        if "$" not in text:
            return text
        filled = expand(text, lambda name: self._value(name, references=references))
        if references and "${" in filled:
            hint = "a shell reads $NAME as well as ${NAME}"
            raise Unfilled("${ would stand in the text itself, where Skerry has its own references", hint)
        return re.sub(f"{_MARK}([^{_MARK}]*){_MARK}", r"${site.\1}", filled)

    def _value(self, name: str, *, references: bool) -> str | None:
        if name not in self.of_site:
            return self.values.get(name)
        if not references:
            hint = "sites fill commands, arguments and environments only"
            raise Unfilled(f"the site variable {name} cannot stand here", hint)
        return f"{_MARK}{site_name(name)}{_MARK}"


def site_name(variable: str) -> str:
    """Return the name that a site gives to a variable; ValueError when there is none."""
    name = variable.lower()
    if not _site_name_re.fullmatch(name):
        raise ValueError(f"{variable} cannot name a site variable: letters, digits and _, a letter first")
    return name


def expand(text: str, value_of: Callable[[str], str | None], depth: int = 0) -> str:
    """Return the text with `$NAME`, `${NAME}` and the forms with `:-`, `-`, `:?`, `?`, `:+` and `+` filled.

    Raises:
        Unfilled: as `Variables.fill`.
    """
    if depth > _MAX_DEPTH:
        raise Unfilled("variables nested too deeply", "write the value itself")
    parts: list[str] = []
    length = at = 0
    while at < len(text):
        dollar = text.find("$", at)
        if dollar < 0:
            dollar = len(text)
        parts.append(text[at:dollar])
        if dollar < len(text):
            part, at = _expand_one(text, dollar + 1, value_of, depth)
            parts.append(part)
        else:
            at = dollar
        length += sum(map(len, parts[-2:]))
        if length > MAX_TEXT:
            raise Unfilled(f"longer than {MAX_TEXT} characters when filled", "shorten the variables' values")
    return "".join(parts)


def _expand_one(text: str, at: int, value_of: Callable[[str], str | None], depth: int) -> tuple[str, int]:
    """Return what the reference after a `$` gives, and where the text goes on."""
    if text[at : at + 1] == "$":
        return "$", at + 1
    if name := _name_re.match(text, at):
        return _required(name[0], value_of(name[0])), name.end()
    if text[at : at + 1] != "{" or not (name := _name_re.match(text, at + 1)):
        raise Unfilled("a $ that begins no variable", "write $$ for a dollar sign")
    end = _closing(text, at + 1)
    operator = _operator_re.match(text, name.end())
    if operator is None:
        if name.end() != end:
            raise Unfilled(f"cannot read ${{{text[at + 1 : end][:40]}}}", "write ${NAME} or ${NAME:-DEFAULT}")
        return _required(name[0], value_of(name[0])), end + 1
    word, value = text[operator.end() : end], value_of(name[0])
    there = bool(value) if operator[0].startswith(":") else value is not None
    if operator[0].endswith("+"):
        return (expand(word, value_of, depth + 1) if there else ""), end + 1
    if there:
        return value or "", end + 1
    if operator[0].endswith("?"):
        raise Unfilled(f"the variable {name[0]} has no value: {word[:200]}", _hint(name[0]))
    return expand(word, value_of, depth + 1), end + 1


def _closing(text: str, at: int) -> int:
    """Return where the brace ends that was opened before `at`."""
    open_braces = 1
    for found in re.compile(r"\$\{|\}").finditer(text, at):
        open_braces += -1 if found[0] == "}" else 1
        if not open_braces:
            return found.start()
    raise Unfilled("a ${ that nothing ends", "write $$ for a dollar sign")


def _required(name: str, value: str | None) -> str:
    if value is None:
        raise Unfilled(f"the variable {name} has no value", _hint(name))
    return value


def _hint(name: str) -> str:
    return f"give it in an environment file, or let each site give it: --site-variable {name}"


def parse_env_file(text: str, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables of an environment file.

    Values may be quoted; in single quotes nothing is filled, elsewhere variables of lines above and of `known` are.

    Raises:
        ValueError: with the line that cannot be read, never with its value.
    """
    found: dict[str, str] = {}
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _line_re.fullmatch(line)
        if match is None or _MARK in line:
            raise ValueError(f"line {number} is not NAME=VALUE")
        if match[2] is None:
            continue
        try:
            found[match[1]] = _env_value(match[2].strip(), {**(known or {}), **found})
        except Unfilled as error:
            raise ValueError(f"line {number}: {error}") from None
    return found


def _env_value(text: str, known: Mapping[str, str]) -> str:
    if text[:1] == "'":
        end = text.find("'", 1)
        if end < 0:
            raise Unfilled("a quote that nothing ends", "")
        return text[1:end]
    if text[:1] == '"':
        match = re.match(r'"((?:[^"\\]|\\.)*)"', text)
        if match is None:
            raise Unfilled("a quote that nothing ends", "")
        plain = re.sub(r"\\(.)", lambda m: _escapes.get(m[1], m[0] if m[1] == "$" else m[1]), match[1])
        return expand(plain.replace("\\$", "$$"), known.get)
    return expand(re.sub(r"\s+#.*$", "", text), known.get)
