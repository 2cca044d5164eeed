"""`skerry completion`: the script that makes a shell complete skerry's commands."""

from __future__ import annotations

import click

from skerry.cli.text import examples
from skerry.kit.errors import Bug


@click.command(
    epilog=examples(
        'eval "$(skerry completion bash)"',
        "skerry completion zsh > ~/.zfunc/_skerry",
        "skerry completion fish > ~/.config/fish/completions/skerry.fish",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise Bug("completion.unknown_shell", f"no completion for {shell}")
    click.echo(kind(context.find_root().command, {}, "skerry", "_SKERRY_COMPLETE").source())
