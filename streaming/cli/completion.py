"""The command that makes shells complete flagstream's commands and options."""

from __future__ import annotations

from typing import Annotated, Literal

import typer


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="The shell: bash, zsh or fish.")],
) -> None:
    """Print the script by which a shell completes commands, options and names of shipped specs.

    `eval "$(flagstream completion bash)"` tries it in the current shell.

    Examples: `flagstream completion bash > ~/.local/share/bash-completion/completions/flagstream`,
    `flagstream completion zsh > ~/.zfunc/_flagstream`,
    `flagstream completion fish > ~/.config/fish/completions/flagstream.fish`
    """
    from typer.completion import shell_complete

    from streaming.cli.root import program

    raise typer.Exit(shell_complete(program(), {}, "flagstream", "_FLAGSTREAM_COMPLETE", f"source_{shell}"))
