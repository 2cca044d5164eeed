"""`skerry agent upstreams`, and the options that say how a host goes up: which upstreams, by which proxy."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from skerry.cli.agent_options import data_option
from skerry.cli.leaving_out import DECORATION, left_out
from skerry.cli.options import DURATION, Command
from skerry.cli.text import examples
from skerry.kit.errors import Rejected

_OPTIONS = (
    click.option(
        "--proxy",
        default="",
        metavar="URL|none",
        help="HTTP proxy, as http://HOST:PORT; none dials straight. If not given, what https_proxy says counts.",
    ),
    click.option(
        "--proxy-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="File with the proxy's URL, where that has a name and password.",
    ),
    click.option(
        "--ca-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Certificates (PEM) of those who look into connections on the way.",
    ),
    click.option("--connect-timeout", type=DURATION, help="How long a connection may take.  [default: 10s]"),
    click.option("--answer-timeout", type=DURATION, help="How long an answer may take.  [default: 30s]"),
)
_upstream = click.option(
    "--upstream",
    "upstreams",
    multiple=True,
    metavar="URL",
    help="Hub or relay to go by; several in the order of preference. The token's if not given.",
)


def way_options(*, upstreams: bool = True) -> Callable[[Command], Command]:
    """Return the options of the way up, handed over together as the parameter `way`."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def together(*arguments: Any, **named: Any) -> Any:
            names = ("proxy", "proxy_file", "ca_file", "connect_timeout", "answer_timeout")
            given = {name: named.pop(name) for name in names}
            return command(*arguments, way=_stated(named.pop("upstreams"), **given), **named)

        made: Any = together
        for option in reversed((*((_upstream,) if upstreams else ()), *_OPTIONS)):
            made = option(made)
        return made  # type: ignore[no-any-return]

    return decorate


@click.group()
def upstreams() -> None:
    """Change by which hubs or relays this host goes up."""


@upstreams.command(
    "set",
    epilog=examples(
        "skerry agent upstreams set https://relay-a.plant.example:8443 https://relay-b.plant.example:8443",
        "skerry agent upstreams set --proxy-file /etc/skerry/proxy",
    ),
)
@click.argument("upstreams", nargs=-1, metavar="[URL]...")
@data_option()
@way_options(upstreams=False)
def set_(data: Path, way: Any) -> None:
    """Go up by these, the first that answers; an agent that runs does so within seconds.

    What is not given stays as it is. Needs no hub: whether they answer is said by skerry agent status.
    """
    from skerry.agent.ways_up import set_way
    from skerry.carrier.dialling import shown_proxy

    found = set_way(data.absolute(), way)
    for url in found.upstreams:
        click.echo(url)
    if found.dialling.proxy:
        click.echo(f"proxy: {shown_proxy(found.dialling.proxy)}")


def upstream_in_use(found: dict[str, Any]) -> str:
    """Return the upstream that is in use, as the agent last wrote it; the first one if it wrote nothing."""
    views: list[dict[str, Any]] = found.get("upstreams") or []
    return next((str(view["url"]) for view in views if view.get("in_use")), str(found["upstream"]))


def upstream_lines(found: dict[str, Any]) -> list[str]:
    """Return what `skerry agent status` says of the upstreams: which one is in use, and why."""
    views: list[dict[str, Any]] = found.get("upstreams") or []
    lines: list[str] = []
    for view in views if len(views) > 1 or any(view.get("trouble") for view in views) else []:
        use = "in use" if view.get("in_use") else "not in use"
        trouble = f": since {view.get('since')} {view['trouble']}" if view.get("trouble") else ""
        lines.append(f"  {view['url']}: {use}{trouble}")
    return lines


def _stated(
    upstreams: tuple[str, ...],
    *,
    proxy: str,
    proxy_file: Path | None,
    ca_file: Path | None,
    connect_timeout: float | None,
    answer_timeout: float | None,
) -> Any:
    """Return what was stated; a proxy's password is taken from a file, for arguments are seen by all.

    Raises:
        Rejected: there is a password among the arguments (`proxy.password_in_argument`), or a file is none.
    """
    with left_out(*DECORATION):  # an agent may run in this process from here on
        from skerry.carrier.dialling import has_password
        from skerry.carrier.ways_up import StatedDialling, StatedWay

    if has_password(proxy):
        hint = "write the address into a file that you alone can read, and name it with --proxy-file"
        raise Rejected("proxy.password_in_argument", "others can read a command's arguments", hint=hint)
    if proxy and proxy_file is not None:
        raise click.UsageError("--proxy and --proxy-file exclude each other")
    if proxy_file is not None:
        proxy = _text(proxy_file).strip()
    dialling = StatedDialling(
        proxy=proxy or None,
        ca_pem=_text(ca_file) if ca_file is not None else None,
        connect_s=connect_timeout,
        answer_s=answer_timeout,
    )
    return StatedWay(upstreams, dialling)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Rejected("file.unreadable", f"cannot read {path}") from error
