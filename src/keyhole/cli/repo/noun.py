"""``repo``: secrets in a git repository, encrypted with age for exactly those who may read them, without a server."""

from __future__ import annotations

from keyhole.cli.base import group


@group(
    "repo",
    examples="""
    keyhole repo init
    keyhole repo set stripe/api-key < key.txt
    keyhole repo add-agent coder && keyhole repo grant coder stripe
    keyhole repo get stripe/api-key --key ~/.agent-vault/agents/coder.key
    """,
)
def repo() -> None:
    """Secrets in git, encrypted with age for exactly those who may read them, without a server.

    The vault lies in .agent-vault of the repository, and its members and files are signed. A change is one commit.
    """
