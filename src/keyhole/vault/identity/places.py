"""Mounts as aliases name them: by an accessor, which stays when the mount moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from keyhole.vault.mounts import Mount

if TYPE_CHECKING:
    from keyhole.vault.compiled import OrgState
    from keyhole.vault.vault import Vault


@dataclass(frozen=True, slots=True)
class Place:
    """A mount as an alias names it."""

    accessor: str
    path: str
    type: str


def place_of(state: OrgState, mount: Mount) -> Place:
    """A mount of the org."""
    kind = mount.engine.type
    prefix = "auth_" if mount.path.startswith("auth/") else ""
    digest = sha256(f"{state.org.id}/{mount.id}".encode()).hexdigest()[:8]
    return Place(f"{prefix}{kind}_{digest}", mount.path, kind)


def places(vault: Vault, state: OrgState) -> Mapping[str, Place]:
    """All mounts of the org where somebody can have an alias, by accessor."""
    found = (place_of(state, mount) for mount in vault.mounts if mount.path.startswith(("auth/", "agents/")))
    return {place.accessor: place for place in found}
