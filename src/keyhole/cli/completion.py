"""``completion``: for your shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from keyhole.cli.base import PROG, Session, command, pass_session
from keyhole.core.errors import InvalidRequest


@command(
    "completion",
    examples="""
    keyhole completion bash > ~/.local/share/bash-completion/completions/keyhole
    keyhole completion zsh > "${fpath[1]}/_keyhole"
    keyhole completion fish > ~/.config/fish/completions/keyhole.fish
    """,
)
@click.argument("shell", metavar="bash|zsh|fish", type=click.Choice(["bash", "zsh", "fish"]))
@pass_session
def completion_command(session: Session, /, *, shell: str) -> None:
    """Print what makes your shell complete commands and options."""
    from keyhole.cli.root import root  # noqa: PLC0415  # the table names this file

    found = get_completion_class(shell)
    if found is None:
        raise InvalidRequest(f"no completion for {shell}")
    source = found(root, {}, PROG, "_KEYHOLE_COMPLETE").source()
    session.out.result({"shell": shell, "script": source}, source)
