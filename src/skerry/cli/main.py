"""`skerry`: the commands by name, and what happens when one of them fails.

Rules: help imports nothing but click; every expected error ends in `error:` and a hint on standard error,
with the exit code of its family; a traceback is shown only with `--debug`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

import click

from skerry import __version__
from skerry.cli.invocation import Invocation
from skerry.cli.lazy import LazyCommand, LazyGroup
from skerry.kit.errors import SkerryError

EXIT_INTERRUPTED = 130


def _commands(**helps: str) -> dict[str, LazyCommand]:
    return {name: LazyCommand(f"skerry.cli.{name}", text) for name, text in helps.items()}


SECTIONS: Mapping[str, Mapping[str, LazyCommand]] = {
    "Start": _commands(
        login="Log in to a hub.",
        site="Create sites and the tokens with which hosts join them.",
        init="Turn a Compose file into an Application.",
        release="Push releases to the hub, show them, and follow who vouches for them.",
        rollout="Bring a release to sites, and follow it there.",
        host="Let a host go on that is in quarantine, or revoke it.",
        bundle="Carry releases to sites without a link, on a stick.",
    ),
    "Look": {
        **_commands(
            get="List what there is: sites, hosts, relays, apps, models, releases, rollouts, policies, sinks, events.",
            describe="Show one thing with everything that is known about it.",
            events="Show what happened at hosts and at the hub, and follow it.",
            health="Say how sites are, in one word each, with the reasons.",
            metrics="Ask what hosts and applications measured, with coverage and ages.",
            topics="Read the messages that applications send to the hub, and send some to them.",
            top="Show which sites or applications take most, and which models predict most.",
            simulate="Run a rollout on virtual time, over a described fleet or as a forecast of the hub's.",
            explain="Say in sentences why a variant or a host was chosen, or a rollout stands where it does.",
        ),
        "logs": LazyCommand("skerry.cli.logs_command", "Ask hosts for lines of their logs, and see crashes."),
    },
    "Write": {
        **_commands(
            apply="Store documents on the hub, all or none.",
            diff="Show what applying documents would change.",
            delete="Delete sites, hosts, releases, policies, relays, sinks, configurations or ended rollouts.",
            model="Make what a model's predictions are compared with.",
            pki="Show certificates, and have them issued below a root kept elsewhere.",
            volume="List the volumes of applications, and empty them.",
            config="See what applications are told at sites, and where each value comes from.",
            secret="Set, rotate and revoke secrets, and see which holds where.",  # noqa: S106 - a help text
        ),
        "schema": LazyCommand("skerry.cli.schema_command", "Print the JSON Schema of the documents."),
    },
    "Run": _commands(
        hub="Run a hub.",
        agent="Join a site as a host, and run the agent.",
        relay="Make tokens for relays, join as one, and serve.",
        audit="See who did what, and check that nobody has changed what is written of it.",
        token="Create, list and revoke API tokens.",  # noqa: S106 - a help text
        publisher="Say who may sign releases, and with which keys.",
        root="Look after the root of trust: offline keys, and the keys the hub signs with.",
        completion="Print the completion script of a shell.",
    ),
}


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Example: skerry get sites -l region=north. Every command has its own --help, with an example.",
)
@click.version_option(__version__, prog_name="skerry", message="%(prog)s %(version)s")
@click.option("--context", metavar="NAME", help="Use this login instead of the current one.")
@click.option("--debug", is_flag=True, envvar="SKERRY_DEBUG", help="Show the traceback of an error.")
@click.pass_obj
def cli(invocation: Invocation, context: str | None, debug: bool) -> None:
    """Carry applications and models to edge sites, keep them running, update them in stages."""
    invocation.context = context or ""
    invocation.debug = debug


assert isinstance(cli, LazyGroup)
cli.sections = SECTIONS


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (the process's own when None) and return its exit code; errors are printed."""
    invocation = Invocation()
    try:
        result = cli.main(
            args=list(arguments) if arguments is not None else None,
            prog_name="skerry",
            standalone_mode=False,
            obj=invocation,
        )
    except click.Abort as abort:
        return _aborted(abort)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except SkerryError as error:
        from skerry.cli.failures import print_error

        _print_traceback(invocation)
        print_error(error, as_json=invocation.output == "json")
        return error.exit_code
    except Exception as error:
        from skerry.cli.failures import print_error, unexpected

        _print_traceback(invocation)
        found = unexpected(error)
        print_error(found, as_json=invocation.output == "json")
        return found.exit_code
    return result if isinstance(result, int) else 0


def main() -> NoReturn:
    """Run the process's command line and end the process with its exit code."""
    sys.exit(run())


def _aborted(abort: click.Abort) -> int:
    """Ctrl-C and a refused confirmation arrive alike; only the first one is an interruption."""
    if isinstance(abort.__cause__ or abort.__context__, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    click.echo("Aborted.", err=True)
    return 1


def _print_traceback(invocation: Invocation) -> None:
    if invocation.debug:
        import traceback

        traceback.print_exc()
