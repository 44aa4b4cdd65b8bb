"""``repo``: secrets in a git repository, encrypted with age for exactly those who may read them, without a server."""

from __future__ import annotations

import importlib

import click

from keyhole.cli.base import Group

# A verb -> the module that makes it.
_VERBS = {
    "add-agent": "members",
    "add-member": "members",
    "adopt": "adopting",
    "check": "checking",
    "clone": "clone",
    "compare": "environments",
    "coverage": "environments",
    "diff": "sync",
    "diff-driver": "diff_driver",
    "export": "moving",
    "get": "secrets",
    "grant": "members",
    "guard": "guarding",
    "history": "history",
    "hosts": "teams",
    "import": "moving",
    "init": "vaults",
    "into-keychain": "into_keychain",
    "key": "keys",
    "list": "secrets",
    "list-agents": "members",
    "members": "teams",
    "mount": "mounting",
    "my-key": "members",
    "project": "environments",
    "pull": "sync",
    "push": "sync",
    "reads": "reads",
    "recover-agent": "members",
    "remote": "remotes",
    "remove-agent": "members",
    "restore-agent": "members",
    "review": "reviewing",
    "revoke": "members",
    "rm": "secrets",
    "role": "teams",
    "rollback": "history",
    "set": "secrets",
    "status": "vaults",
}


class _Repo(Group):
    """All verbs, each loaded when it is named: most of them need little of what the others do."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in order."""
        del ctx
        return sorted(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one verb, which adds it here; of all for a mistyped one, to say which is near."""
        for module in {_VERBS[cmd_name]} if cmd_name in _VERBS else set(_VERBS.values()):
            importlib.import_module(f"keyhole.cli.repo.{module}")
        return super().get_command(ctx, cmd_name)


@click.group(
    "repo",
    cls=_Repo,
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
