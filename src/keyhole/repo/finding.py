"""Which vault is meant by a folder: the one in it, or in a folder above it that nobody else could have put there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from keyhole.core.errors import PolicyDenied
from keyhole.repo.tree import VAULT, Tree


def find_vault(start: Path) -> Path | None:
    """The folder with a vault, at ``start`` or above it; ``None`` for none."""
    return next((folder for folder in (start, *start.parents) if Tree(folder).exists()), None)


def require_own(start: Path, found: Path, environ: Mapping[str, str]) -> None:
    """See that a vault above the folder that was named is of this user: anybody can put one into ``/tmp``.

    Raises:
        PolicyDenied: it belongs to somebody else, who would be given what is stored in it.
    """
    own = {os.geteuid(), 0}
    if os.geteuid() == 0 and environ.get("SUDO_UID", "").isdecimal():
        own.add(int(environ["SUDO_UID"]))
    if found != start and (found / VAULT).stat().st_uid not in own:
        raise PolicyDenied(
            f"the vault in {found}, above {start}, belongs to another user", "if it is meant, name its folder"
        )
