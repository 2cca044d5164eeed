"""Errors as a shell shows them: what is wrong, what to do about it, and every problem of a document."""

from __future__ import annotations

import click
import msgspec

from skerry.cli.text import clean, colour
from skerry.kit.errors import Bug, Rejected, SkerryError
from skerry.spec.problems import DocumentRejected, Problem


def unexpected(error: Exception) -> SkerryError:
    """Return the error to show for an exception that nobody expected: a bug, or an install without a library."""
    if isinstance(error, ModuleNotFoundError) and not (error.name or "skerry").startswith("skerry"):
        hint = "install what operators and hubs need: pip install 'skerry[hub]'"
        return Rejected("cli.library_missing", f"this needs {error.name}, which is not installed", hint=hint)
    hint = "run it again as `skerry --debug ...` to see the traceback, and report it"
    return Bug("cli.unexpected", f"this is a bug in skerry: {type(error).__name__}: {error}", hint=hint)


def print_error(error: SkerryError, *, as_json: bool) -> None:
    """Print an error to standard error, for people or as one JSON object."""
    click.echo(error_json(error) if as_json else error_text(error), err=True)


def error_text(error: SkerryError) -> str:
    """Return the lines for people."""
    problems = error.problems if isinstance(error, DocumentRejected) else ()
    message = _count(problems) if problems else clean(error.message)
    lines = [f"{colour('error:', 'red', err=True)} {message}"]
    for problem in problems:
        lines.append(f"  {clean(str(msgspec.structs.replace(problem, hint='')))}")
        if problem.hint:
            lines.append(f"      {clean(problem.hint)}")
    hint = error.hint
    if isinstance(error, Bug) and not hint:
        hint = "the hub's log says more, under this error's code: " + error.code
    if hint:
        lines.append(f"{colour('hint:', 'cyan', err=True)} {clean(hint)}")
    return "\n".join(lines)


def error_json(error: SkerryError) -> str:
    """Return one JSON object for programs."""
    problems = error.problems if isinstance(error, DocumentRejected) else ()
    return msgspec.json.encode(
        {
            "error": error.code,
            "family": error.family,
            "message": error.message,
            "hint": error.hint,
            "retryable": error.retryable,
            "exit_code": error.exit_code,
            "problems": problems,
            "facts": dict(error.facts),
        }
    ).decode()


def _count(problems: tuple[Problem, ...]) -> str:
    return f"{len(problems)} problem{'s' if len(problems) > 1 else ''} in the documents"
