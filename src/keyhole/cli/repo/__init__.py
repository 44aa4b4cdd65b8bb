"""``repo``: the noun with all of its verbs."""

from __future__ import annotations

from keyhole.cli.repo import adopting, checking, members, mounting, secrets, sync, vaults
from keyhole.cli.repo.noun import repo

__all__ = ["adopting", "checking", "members", "mounting", "repo", "secrets", "sync", "vaults"]
