"""`skerry site`: sites, the tokens with which hosts join them, and sites that are ahead of a restored hub."""

from __future__ import annotations

import click

from skerry.cli.apply import print_changes
from skerry.cli.listing import show_list
from skerry.cli.options import DURATION, parse_pairs
from skerry.cli.output import output_option, print_view
from skerry.cli.resources import Query
from skerry.cli.session import connect
from skerry.cli.text import clean, examples, local_time, plural
from skerry.kit.errors import Conflict
from skerry.spec.api import JoinTokenRequest
from skerry.spec.api_recovery import ReleasedView
from skerry.spec.metadata import API_VERSION
from skerry.spec.parsing import parse_raw


@click.group(epilog=examples("skerry site create zurich --label region=north", "skerry site token zurich"))
def site() -> None:
    """Create sites and the tokens with which hosts join them."""


@site.command(epilog=examples("skerry site create zurich --label region=north --time-zone Europe/Zurich"))
@click.argument("name")
@click.option(
    "--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label that selectors match; repeatable."
)
@click.option("--time-zone", default="UTC", show_default=True, help="The site's time zone.")
@output_option("table", "json", "yaml")
def create(name: str, labels: tuple[str, ...], time_zone: str, output: str) -> None:
    """Create a site. For everything else a site can say, write a document and apply it."""
    document = {
        "apiVersion": API_VERSION,
        "kind": "Site",
        "metadata": {"name": name, "labels": parse_pairs(labels, "--label")},
        "spec": {"time_zone": time_zone},
    }
    parse_raw(document)
    with connect() as client:
        # Creating must not take away what somebody has written about a site of this name.
        if any(change.action == "update" for change in client.apply([document], dry_run=True).changes):
            hint = f"look at it with `skerry describe site {name}`, change it with `skerry apply`"
            raise Conflict("site.exists", f"there is a site {name} already, and it differs", hint=hint)
        print_changes(client.apply([document]), output)


@site.command(
    epilog=examples(
        "skerry site token zurich --ttl 2h --uses 10",
        "skerry site token zurich --replace press-1",
        "skerry site token zurich --via plant-l3",
    )
)
@click.argument("name")
@click.option("--ttl", type=DURATION, default="24h", show_default=True, help="How long it can be used.")
@click.option(
    "--uses", type=click.IntRange(1, 10000), default=1, show_default=True, help="How many hosts may use it."
)
@click.option(
    "--replace",
    default="",
    metavar="HOST",
    help="For one machine that takes the place of this host, with new keys.",
)
@click.option(
    "--via", default="", metavar="RELAY|URL", help="Where it shall ask to join; the hub if not given."
)
@output_option("table", "json", "yaml")
def token(name: str, ttl: float, *, uses: int, replace: str, via: str, output: str) -> None:
    """Print a token with which hosts join a site: `skerry agent join TOKEN`.

    The token alone is printed to standard output; it is shown this once. Once a host was replaced, the keys it had are
    refused.
    """
    with connect() as client:
        request = JoinTokenRequest(ttl_s=ttl, uses=uses, replaces=replace, via=via)
        answer = client.join_token(name, request)
    print_view(answer, [answer.token], output)
    if output == "table":
        who = f"the machine that replaces host {replace}" if replace else plural(answer.uses, "host")
        note = f"for {who} of {answer.site}, until {local_time(answer.expires_at)}"
        click.echo(clean(note), err=True)


@site.command("list", epilog=examples("skerry site list -l region=north"))
@click.option("-l", "--selector", default="", help="Only sites with these labels.")
@output_option("table", "json", "yaml", "name")
def list_sites(selector: str, output: str) -> None:
    """List the sites."""
    show_list("sites", Query(selector=selector), output)


@site.command(epilog=examples("skerry site adopt zurich"))
@click.argument("name")
@output_option("table", "json", "yaml")
def adopt(name: str, output: str) -> None:
    """Take over what the hosts of a held site run: it becomes what is assigned to the site.

    A site is held when its hosts know more than the hub, as after restoring an older backup.
    """
    with connect() as client:
        _print_released(client.adopt_site(name), output)


@site.command(epilog=examples("skerry site reissue zurich"))
@click.argument("name")
@output_option("table", "json", "yaml")
def reissue(name: str, output: str) -> None:
    """Issue to a held site what the hub says, whatever its hosts run now.

    This may take them back to older releases.
    """
    with connect() as client:
        _print_released(client.reissue_site(name), output)


def _print_released(view: ReleasedView, output: str) -> None:
    lines = [f"site {view.site} goes on with generation {view.generation}"]
    lines += [f"  {release}" for _, release in sorted(view.assignments.items())]
    lines += [f"rollout {name} leaves this site alone now" for name in view.left_rollouts]
    print_view(view, [clean(line) for line in lines], output)
