"""`skerry logs`: asks hosts for lines of their logs, says who has answered, and shows what hosts told unasked."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import click
import msgspec

from skerry.cli.logs_display import crash_lines, line_text, summary_lines
from skerry.cli.options import DURATION
from skerry.cli.output import Column, format_data, output_option, print_views
from skerry.cli.session import connect
from skerry.cli.text import age, examples, now
from skerry.client.client import Client
from skerry.spec.api_logs import MAX_FOLLOW_S, LogLine, LogsAnswer, LogsRequest, QuestionView
from skerry.spec.logs import LEVELS

PATIENCE_S = 20.0
"""How long is waited for hosts that seem to be there, where nobody asked to wait."""
SHORT_PATIENCE_S = 3.0
"""How long until what has come is shown, where somebody waits for the rest."""
POLL_S = 10.0


@click.command(
    epilog=examples(
        "skerry logs label-reader --site harbour --since 2h --grep 'timeout|refused'",
        "skerry logs label-reader -l region=north --level error --wait 24h",
        "skerry logs label-reader -f",
        "skerry logs --agent --site harbour --since 1d",
        "skerry logs label-reader --crashes --since 7d",
        "skerry logs --open",
    )
)
@click.argument("application", default="")
@click.option(
    "--site", "sites", multiple=True, metavar="SITE", help="Of this site; may be given more than once."
)
@click.option(
    "--host", "hosts", multiple=True, metavar="HOST", help="Of this host; may be given more than once."
)
@click.option("-l", "--selector", default="*", metavar="SELECTOR", help="Of these sites.")
@click.option("--agent", is_flag=True, help="The agents' own logs.")
@click.option("--component", default="", metavar="NAME", help="Of this component alone.")
@click.option(
    "--since", default="1h", show_default=True, type=DURATION, help="How far back, such as 2h or 7d."
)
@click.option("--grep", default="", metavar="RE", help="Lines that match this regular expression (RE2).")
@click.option("--level", default="", type=click.Choice(["", *LEVELS]), help="Lines of this level or above.")
@click.option(
    "--tail", default=500, show_default=True, type=click.IntRange(1, 5000), help="Lines of each host at most."
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written, until Ctrl-C.")
@click.option("--wait", type=DURATION, help="Let hosts that are away answer for so long, such as 24h.")
@click.option("--crashes", is_flag=True, help="What hosts told unasked: crashes and errors. Asks nobody.")
@click.option("--read", "read", default="", metavar="ID", help="Read the answers to an earlier question.")
@click.option("--end", "end", default="", metavar="ID", help="Let no host answer a question any more.")
@click.option("--open", "open_", is_flag=True, help="List the questions whose answers can be read.")
@output_option("table", "json")
def logs(
    application: str, *, read: str, end: str, open_: bool, crashes: bool, output: str, **asked: Any
) -> None:
    """Ask the hosts that run APPLICATION for lines of its log.

    Logs stay at the sites. Hosts that are there answer within a second or so; the last lines say who has answered, who
    not, and since when it is silent.
    """
    with connect() as client:
        if open_:
            _list(client, output)
        elif end:
            client.end_logs(end)
            click.echo(f"{end} ended")
        elif crashes:
            _crashes(client, application, asked, output)
        elif read:
            _read(client, client.logs(read).question, output, wait=False)
        else:
            _ask(client, application, asked, output)


def _ask(client: Client, application: str, asked: dict[str, Any], output: str) -> None:
    agent, since, tail, wait = (asked.pop(name) for name in ("agent", "since", "tail", "wait"))
    if bool(application) == agent:
        raise click.UsageError("name an application, or give --agent")
    if asked["follow"] and (wait or output == "json"):
        raise click.UsageError("--follow goes neither with --wait nor with -o json")
    named: dict[str, Any] = {name: tuple(asked.pop(name)) for name in ("sites", "hosts")}
    wait_s = MAX_FOLLOW_S if asked["follow"] else wait or 60.0
    request = LogsRequest(application=application, since_s=since, limit=tail, wait_s=wait_s, **named, **asked)
    question = client.ask_logs(request)
    if request.follow:
        _follow(client, question)
        return
    _read(client, question, output, wait=wait is not None)


def _read(client: Client, question: QuestionView, output: str, *, wait: bool) -> None:
    """Print what has been answered once everybody who is there has, and go on if asked to wait."""
    deadline = time.monotonic() + (SHORT_PATIENCE_S if wait else PATIENCE_S)
    lines, cursor, shown = list[LogLine](), 0, False
    try:
        while True:
            answer = client.logs(question.id, after=cursor, wait_s=POLL_S if shown else 1.0)
            lines += answer.lines
            cursor = answer.cursor
            if answer.unread:
                continue
            here = all(view.state in ("answered", "silent") for view in answer.hosts)
            enough = answer.done or here or time.monotonic() >= deadline
            if enough and output != "json" and (lines or not shown):
                _print(lines)
                _summarise(answer)
                lines, shown = [], True
            if answer.done or (enough and not wait):
                break
    except KeyboardInterrupt:
        click.echo(f"read on with: skerry logs --read {question.id}", err=True)
        raise
    if output == "json":
        whole = msgspec.structs.replace(answer, lines=tuple(sorted(lines, key=_order)))
        click.echo(format_data(whole, output))
    if not answer.done and question.open:
        client.end_logs(question.id)


def _follow(client: Client, question: QuestionView) -> None:
    cursor, summed = 0, False
    try:
        while True:
            answer = client.logs(question.id, after=cursor, wait_s=POLL_S)
            cursor = answer.cursor
            _print(answer.lines)
            if not summed and not any(view.state == "waiting" for view in answer.hosts):
                _summarise(answer)
                summed = True
            if answer.done:
                click.echo("followed for long enough; ask again to go on", err=True)
                return
    finally:
        client.end_logs(question.id)


def _print(lines: Iterable[LogLine]) -> None:
    for line in sorted(lines, key=_order):
        click.echo(line_text(line))


def _order(line: LogLine) -> Any:
    return line.record.at


def _summarise(answer: LogsAnswer) -> None:
    for text in summary_lines(answer, now()):
        click.echo(text, err=True)


def _list(client: Client, output: str) -> None:
    at = now()
    columns = [
        Column[QuestionView]("ID", lambda view: view.id),
        Column[QuestionView]("APPLICATION", lambda view: view.application or "(agents)"),
        Column[QuestionView]("ANSWERED", lambda view: f"{view.answered} of {view.hosts}"),
        Column[QuestionView]("STATE", lambda view: "open" if view.open else "closed"),
        Column[QuestionView]("ASKED", lambda view: age(view.asked_at, at)),
        Column[QuestionView]("BY", lambda view: view.asked_by),
    ]
    print_views(client.questions(), columns, output, name=lambda view: view.id, empty="no questions")


def _crashes(client: Client, application: str, asked: dict[str, Any], output: str) -> None:
    found = client.crashes(application, since_s=asked["since"], selector=asked["selector"])
    found = [one for one in found if not asked["sites"] or one.site in asked["sites"]]
    found = [one for one in found if not asked["hosts"] or one.host in asked["hosts"]]
    if output == "json":
        click.echo(format_data(found, output))
        return
    for crash in reversed(found):
        for text in crash_lines(crash):
            click.echo(text)
    if not found:
        click.echo("no crashes", err=True)
