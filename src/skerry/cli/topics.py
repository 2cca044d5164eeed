"""`skerry topics`: the messages that applications send to the hub."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable
from typing import Any, BinaryIO

import click
import msgspec

from skerry.cli.options import DURATION
from skerry.cli.output import Column, format_data, output_option, print_views
from skerry.cli.session import connect
from skerry.cli.text import age, clean, examples, local_time, now, plural, until
from skerry.kit.canonical import UNREADABLE
from skerry.kit.errors import Unavailable
from skerry.spec.api_topics import SendRequest, SentView, TopicMessageView, TopicSourceView
from skerry.spec.downlink import MAX_DOWNLINK_BYTES

WAIT_S = 10.0
AWAY_S = 2.0


@click.group(
    epilog=examples(
        "skerry topics tail 'plant/#' --since 1h",
        "skerry topics tail plant/+/alarm -l region=north -f",
        "skerry topics sources",
        "skerry topics send plant/line1/speed --app rules --site zurich --json 900",
    )
)
def topics() -> None:
    """Read the messages that applications send to the hub (uplink), and send some to them (downlink)."""


@topics.command(
    epilog=examples(
        "skerry topics tail",
        "skerry topics tail 'plant/line1/#' --site zurich --since 2h",
        "skerry topics tail plant/+/alarm -f -o json",
    )
)
@click.argument("pattern", default="#")
@click.option("--site", default="", help="Of this site alone.")
@click.option("-l", "--selector", default="*", metavar="SELECTOR", help="Of these sites alone.")
@click.option("--since", default=None, type=DURATION, help="What came since then, such as 30m or 2d.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until interrupted.")
@output_option("table", "json")
def tail(pattern: str, site: str, selector: str, since: float | None, *, follow: bool, output: str) -> None:
    """Print messages whose topic matches PATTERN, in the order in which they came to the hub.

    In a pattern + is one level, and # at the end all below; # alone is every topic. Without --since they are the last
    twenty. With -o json each message is a line of its own.
    """
    chosen = _selected(site, selector)
    start = f"since:{int(since)}" if since else "newest:20"
    with connect() as client:
        page = client.topic_messages(pattern, selector=chosen, start=start)
        _print(page.messages, output)
        # What is after the first answer is the rest of the time that was asked for, or what comes from now on.
        while follow or since:
            before, wait_s = page.cursor, WAIT_S if follow else 0.0
            try:
                page = client.topic_messages(pattern, selector=chosen, start=f"after:{before}", wait_s=wait_s)
            except Unavailable as error:
                if not follow:
                    raise
                click.echo(f"the hub does not answer: {error.message}", err=True)
                time.sleep(AWAY_S)
                continue
            _print(page.messages, output)
            if not follow and page.cursor == before:
                return


@topics.command(epilog=examples("skerry topics sources", "skerry topics sources -l region=north -o json"))
@click.option("-l", "--selector", default="*", metavar="SELECTOR", help="Of these sites alone.")
@output_option("table", "json", "yaml", "name")
def sources(selector: str, output: str) -> None:
    """Say of each host how much of its messages came, what it had left, and what it did not keep."""
    with connect() as client:
        views = client.topic_sources(selector)
    at = now()
    columns = [
        Column[TopicSourceView]("HOST", lambda view: view.host),
        Column[TopicSourceView]("SITE", lambda view: view.site),
        Column[TopicSourceView]("AS OF", lambda view: age(view.received_at, at)),
        Column[TopicSourceView]("WAITING", lambda view: str(view.waiting)),
        Column[TopicSourceView]("DROPPED", _dropped),
        Column[TopicSourceView]("LOST BATCHES", lambda view: str(view.missing_batches), 1),
    ]
    print_views(views, columns, output, name=lambda view: view.host, empty="no host has sent anything")


@topics.command(
    epilog=examples(
        "skerry topics send plant/line1/speed --app rules --site zurich --json '{\"rpm\": 900}'",
        "skerry topics send plant/orders --app rules -l region=north --file order.json --expires 10m --dry-run",
    )
)
@click.argument("topic")
@click.option("--app", required=True, help="The application that takes it (topics.downlink).")
@click.option("--site", default="", help="To this site.")
@click.option("-l", "--selector", default="", metavar="SELECTOR", help="To these sites; * is all.")
@click.option("--json", "text", default=None, help="The message, which must be JSON.")
@click.option("--file", "file", type=click.File("rb"), default=None, help="The message; - is standard input.")
@click.option("--expires", default="1h", show_default=True, type=DURATION, help="Not after this long.")
@click.option("--dry-run", is_flag=True, help="Say who would get it.")
@output_option("table", "json", "yaml")
def send(topic: str, app: str, output: str, *, dry_run: bool, **said: Any) -> None:
    """Send a message to an application at sites, signed; each host that runs it publishes it once on its bus.

    All sites that are selected must take it, or none gets it.
    """
    selector = _selected(said["site"], said["selector"])
    if not selector:
        raise click.UsageError("say to whom: --site SITE or -l SELECTOR")
    request = SendRequest(
        application=app,
        topic=topic,
        payload=base64.b64encode(_payload(said["text"], said["file"])).decode(),
        selector=selector,
        expires_s=max(1, int(said["expires"])),
        dry_run=dry_run,
    )
    with connect() as client:
        answer = client.send_topic_message(request)
    if output != "table":
        click.echo(format_data(answer, output))
        return
    for site, why in sorted(answer.refused.items()):
        click.echo(clean(f"{site}: refused: {why}"))
    sites = f"{plural(len(answer.sites), 'site')}: {', '.join(answer.sites) or 'none'}"
    click.echo(f"would be sent to {sites}" if dry_run else f"sent {answer.id} to {sites}")


@topics.command(epilog=examples("skerry topics sent", "skerry topics sent --site zurich -o json"))
@click.option("--site", default="", help="To this site alone.")
@click.option("-l", "--selector", default="", metavar="SELECTOR", help="To these sites alone.")
@output_option("table", "json", "yaml", "name")
def sent(site: str, selector: str, output: str) -> None:
    """List messages that were sent to sites, and what each host said of them."""
    with connect() as client:
        views = client.sent_topic_messages(_selected(site, selector) or "*")
    at = now()
    columns = [
        Column[SentView]("ID", lambda view: view.id),
        Column[SentView]("SITE", lambda view: view.site),
        Column[SentView]("APP", lambda view: view.application),
        Column[SentView]("TOPIC", lambda view: view.topic),
        Column[SentView]("EXPIRES", lambda view: "expired" if view.expired else until(view.expires_at, at)),
        Column[SentView](
            "HOSTS", lambda view: ", ".join(f"{host}: {state}" for host, state in sorted(view.hosts.items()))
        ),
    ]
    print_views(views, columns, output, name=lambda view: view.id, empty="nothing was sent")


def _payload(text: str | None, file: BinaryIO | None) -> bytes:
    if (text is None) == (file is None):
        raise click.UsageError("give the message by --json or --file")
    if text is None:
        assert file is not None
        return file.read(MAX_DOWNLINK_BYTES + 1)
    try:
        msgspec.json.decode(text)
    except UNREADABLE as error:
        raise click.UsageError(f"--json: not JSON: {error}") from error
    return text.encode()


def _selected(site: str, selector: str) -> str:
    """Return the selector of what was said of sites; empty when nothing was."""
    terms = [*([selector] if selector and selector != "*" else []), *([f"name={site}"] if site else [])]
    return ",".join(terms) or selector


def _dropped(view: TopicSourceView) -> str:
    total = sum(one.count for one in view.dropped)
    worst = f" (most: {view.dropped[0].topic}, {view.dropped[0].why})" if view.dropped else ""
    return f"{total}{worst}"


def _print(messages: Iterable[TopicMessageView], output: str) -> None:
    for one in messages:
        if output == "json":
            click.echo(msgspec.json.encode(one).decode())
            continue
        text = one.text if one.text is not None else f"(base64) {one.base64}"
        stands = f" (stands for {one.count})" if one.count > 1 else ""
        line = f"{local_time(one.at)} {one.site}/{one.host} {one.application} {one.topic}{stands}: {text}"
        click.echo(clean(line.replace("\n", " ")))
