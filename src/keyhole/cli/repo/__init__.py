"""``repo``: the noun. Each of its verbs is imported when it is named."""

from __future__ import annotations

from keyhole.cli.repo.noun import repo

__all__ = ["repo"]
