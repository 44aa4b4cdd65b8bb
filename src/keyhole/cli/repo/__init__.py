"""``repo``: the noun with all of its verbs."""

from __future__ import annotations

from keyhole.cli.repo import (
    adopting,
    checking,
    clone,
    diff_driver,
    environments,
    guarding,
    history,
    into_keychain,
    keys,
    members,
    mounting,
    moving,
    reads,
    remotes,
    reviewing,
    secrets,
    sync,
    teams,
    vaults,
)
from keyhole.cli.repo.noun import repo

__all__ = [
    "adopting",
    "checking",
    "clone",
    "diff_driver",
    "environments",
    "guarding",
    "history",
    "into_keychain",
    "keys",
    "members",
    "mounting",
    "moving",
    "reads",
    "remotes",
    "repo",
    "reviewing",
    "secrets",
    "sync",
    "teams",
    "vaults",
]
