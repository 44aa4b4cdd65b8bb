"""``repo``: the noun with all of its verbs."""

from __future__ import annotations

from keyhole.cli.repo import adopting, checking, history, members, mounting, reads, secrets, sync, vaults
from keyhole.cli.repo.noun import repo

__all__ = ["adopting", "checking", "history", "members", "mounting", "reads", "repo", "secrets", "sync", "vaults"]
