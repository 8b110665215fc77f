"""``valska completion``: shell completion."""

from __future__ import annotations

import click

from valska.cli.output import result


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), metavar="bash|zsh|fish")
def command(shell: str) -> None:
    """Print the code that completes valska's commands in a shell.

    \b
      bash    echo 'eval "$(valska completion bash)"' >> ~/.bashrc
      zsh     echo 'eval "$(valska completion zsh)"' >> ~/.zshrc
      fish    valska completion fish > ~/.config/fish/completions/valska.fish
    """  # noqa: D301
    from click.shell_completion import get_completion_class

    from valska.cli import main

    complete = get_completion_class(shell)
    if complete is None:
        raise click.UsageError(f"no completion for {shell}")
    result(complete(main, {}, "valska", "_VALSKA_COMPLETE").source().strip())
