"""`skerry agent`: join a site, run, and look at how things stand at the host."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import click

from skerry.cli.agent_bundle import export_reports, import_
from skerry.cli.agent_facts import facts
from skerry.cli.agent_hold import hold, release_hold
from skerry.cli.agent_measure import measure
from skerry.cli.agent_options import data_option, parse_stated, stated_option
from skerry.cli.agent_ways import upstream_in_use, upstream_lines, upstreams, way_options
from skerry.cli.leaving_out import DECORATION, left_out
from skerry.cli.options import DURATION
from skerry.cli.text import clean, download, examples
from skerry.kit.errors import Rejected
from skerry.spec.hold import Hold, hold_text

_data = data_option()
KeyChoice = Literal["auto", "tpm", "file"]
_keys = click.option(
    "--keys",
    type=click.Choice(["auto", "tpm", "file"]),
    default="auto",
    show_default=True,
    help="Where private keys are kept: sealed by the TPM, or as files; auto is the TPM if it can be used.",
)


@click.group()
def agent() -> None:
    """Run a host's agent."""


agent.add_command(facts)
agent.add_command(measure)
agent.add_command(upstreams)
agent.add_command(hold)
agent.add_command(release_hold)
agent.add_command(import_)
agent.add_command(export_reports)


@agent.command(
    epilog=examples("skerry site token harbour | ssh edge-1 skerry agent join - --data /var/lib/skerry-agent")
)
@click.argument("token", default="-")
@_data
@click.option("--name", default="", help="The host's name; its host name if not given.")
@_keys
@way_options()
def join(token: str, data: Path, name: str, keys: KeyChoice, way: Any) -> None:
    """Make this host part of a site. TOKEN is what skerry site token printed; - reads it from standard input."""
    from skerry.agent.commands import join_site

    text = sys.stdin.read() if token == "-" else token  # noqa: S105
    place = join_site(data.absolute(), text, host=name, keys=keys, stated=way)
    click.echo(f"joined site {place.site} as {place.host}; now run: skerry agent run --data {data}")


@agent.command(epilog=examples("skerry agent run --data /var/lib/skerry-agent --fact memory=512MiB"))
@_data
@stated_option
@click.option(
    "--lan-address",
    default="",
    metavar="HOST[:PORT]",
    help="Where the site's other hosts reach this one; found by itself if not given.",
)
@click.option(
    "--share",
    default="auto",
    show_default=True,
    metavar="auto|off|PORT",
    help="Whether this host shares what it fetches with the others of its site, and at which TCP port.",
)
@click.option("--discover", is_flag=True, help="Look for the site's other hosts by multicast DNS as well.")
@click.option(
    "--ingress-https",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="PORT",
    help="Where routes with TLS are; 443 if not given, 8443 for an agent that is not root.",
)
@click.option(
    "--ingress-http",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="PORT",
    help="Where routes without TLS are; 80 if not given, 8080 for an agent that is not root.",
)
@click.option(
    "--dns",
    multiple=True,
    metavar="ADDRESS[:PORT]",
    help="Answer for the site's names at this address; may be given several times. Port 53 if not given, 8053 for an "
    "agent that is not root.",
)
@click.option(
    "--dns-upstream",
    multiple=True,
    metavar="ADDRESS[:PORT]",
    help="Whom to ask for all other names; those of /etc/resolv.conf if not given.",
)
@click.option("--announce", is_flag=True, help="Announce routes to the network by multicast DNS.")
@click.option("--log-json", is_flag=True, help="Write the log as JSON lines.")
@way_options()
def run(data: Path, stated: tuple[str, ...], *, log_json: bool, way: Any, **near: Any) -> None:
    """Run the agent. Applications it started outlive it and are found again.

    What is said here of the way up counts for this run; skerry agent upstreams set changes it for good.
    """
    with left_out(*DECORATION):
        from skerry.agent.own_log import OwnLog
        from skerry.agent.wiring.running import Stated, run_agent
        from skerry.cli.logs import configure_logs

    overrides = parse_stated(stated)
    own = OwnLog()
    configure_logs(json=log_json, also=own.take)
    run_agent(data.absolute(), Stated(overrides, way=way, **near), own)


@agent.command(epilog=examples("skerry agent status --data /var/lib/skerry-agent"))
@_data
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="How to print.")
def status(data: Path, output: str) -> None:
    """Say how things stand at this host; needs no hub."""
    import json

    from skerry.agent.commands import read_status

    found = read_status(data.absolute())
    if output == "json":
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(f"host {found['host']} at site {found['site']}, upstream {upstream_in_use(found)}")
    click.echo("".join(f"{line}\n" for line in upstream_lines(found)), nl=False)
    click.echo(f"agent: {'running' if found['agent_running'] else 'NOT running'}")
    click.echo(f"last contact: {found.get('last_contact') or 'never'}")
    pending = ", new ones wait for the hub" if found["keys_pending"] else ""
    click.echo(f"keys: {found['keys']}{pending}; machine {found['machine']}")
    observed: dict[str, Any] = found.get("observed") or {}
    held: dict[str, Any] = observed.get("metadata") or {}
    if held.get("expires_at"):
        click.echo(
            f"signed metadata: root {held.get('root')}, snapshot {held.get('snapshot')}, until {held['expires_at']}"
        )
    if held.get("trouble"):
        click.echo(f"newer signed metadata could not be had: {held['trouble']}")
    click.echo(f"desired state: generation {observed.get('generation', 0)}")
    holds: list[dict[str, Any]] = found["holds"]
    for one in holds:
        click.echo(clean(f"{one.get('application') or 'this host'}: {_hold_text(one)}"))
    applications: dict[str, dict[str, Any]] = observed.get("applications") or {}
    for name, view in applications.items():
        _print_application(name, view)
    ahead: dict[str, str] = observed.get("ahead") or {}
    for release, how in ahead.items():
        click.echo(f"{release}, which comes later: {how}")


def _hold_text(hold: dict[str, Any]) -> str:
    import msgspec

    return hold_text(msgspec.convert(hold, type=Hold))


def _print_application(name: str, view: dict[str, Any]) -> None:
    why = f" ({view['why']})" if view.get("why") else ""
    candidate = f", trying {view['candidate']}" if view.get("candidate") else ""
    click.echo(f"{name}: {view.get('phase')} {view.get('release') or '-'}{candidate}{why}")
    if view.get("fetch"):
        click.echo(f"  {download(view['fetch'])}")
    components: dict[str, dict[str, Any]] = view.get("components") or {}
    for component, seen in components.items():
        endpoints: dict[str, str] = seen.get("endpoints") or {}
        places = ", ".join(f"{port} at {place}" for port, place in endpoints.items())
        click.echo(f"  {component}: {seen.get('state')}{', ' + places if places else ''}")


@agent.command("rotate-keys", epilog=examples("skerry agent rotate-keys --data /var/lib/skerry-agent"))
@_data
@_keys
@click.option(
    "--timeout", type=DURATION, default="60s", show_default=True, help="How long to wait for the hub."
)
def rotate_keys(data: Path, keys: KeyChoice, timeout: float) -> None:
    """Give this host new keys; the hub refuses the old ones from then on.

    The old ones hold until the hub has confirmed the new ones, whatever is cut in between. --keys counts where no agent
    runs; a running one takes the TPM if there is one.
    """
    from skerry.agent.commands import rotate_keys as change

    click.echo(
        f"the host has new keys; its signing key is {change(data.absolute(), timeout_s=timeout, keys=keys)}"
    )


@agent.command(
    epilog=examples("systemctl stop skerry-agent && skerry agent down --data /var/lib/skerry-agent")
)
@_data
def down(data: Path) -> None:
    """End all applications on this host, for maintenance. The agent must be stopped; they begin again with it."""
    from skerry.agent.commands import stop_applications

    ended = stop_applications(data.absolute())
    click.echo("\n".join(f"ended {instance}" for instance in ended) or "nothing was running")


@agent.command(
    epilog=examples(
        "systemctl stop skerry-agent && skerry agent down",
        "skerry agent wipe meter-reader --data /var/lib/skerry-agent",
    )
)
@click.argument("application")
@_data
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def wipe(application: str, data: Path, yes: bool) -> None:
    """Empty all volumes of APPLICATION on this host, for good; needs no hub.

    The agent must be stopped and nothing of the application running. It begins again, empty, with the agent.
    """
    from skerry.agent.commands import wipe_volumes

    def confirm(places: Sequence[str]) -> None:
        if yes:
            return
        if not sys.stdin.isatty():
            raise Rejected("volume.unconfirmed", "no terminal to ask on", hint="use --yes to go on unasked")
        for place in places:
            click.echo(f"  {place}", err=True)
        click.confirm("Empty these on this host?", abort=True, err=True)

    emptied = wipe_volumes(data.absolute(), application, confirm=confirm)
    click.echo("\n".join(f"emptied {place}" for place in emptied) or "emptied")


@agent.command(epilog=examples("skerry agent logs meter-reader --data /var/lib/skerry-agent"))
@click.argument("application")
@click.argument("component", default="")
@_data
@click.option(
    "--tail", default=16384, show_default=True, type=click.IntRange(1, 1 << 24), help="Bytes to show."
)
def logs(application: str, component: str, data: Path, tail: int) -> None:
    """Show the last output of an application's components; needs no hub."""
    from skerry.agent.commands import read_logs

    found = read_logs(data.absolute(), application, component, tail_bytes=tail)
    for instance, content in found.items():
        if len(found) > 1:
            click.echo(f"== {instance} ==")
        click.echo(content.decode(errors="replace"), nl=not content.endswith(b"\n"))
