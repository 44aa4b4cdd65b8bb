"""Mounts as aliases name them: by an accessor, which stays when the mount moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyhole.vault.mounts import AUTH, Mount

if TYPE_CHECKING:
    from keyhole.vault.compiled import OrgState

AGENTS = "agents/"


@dataclass(frozen=True, slots=True)
class Place:
    """A mount as an alias names it."""

    accessor: str
    path: str
    type: str


def place_of(mount: Mount) -> Place:
    """A mount of an org."""
    return Place(mount.accessor, mount.path, mount.type)


def places(state: OrgState) -> Mapping[str, Place]:
    """All mounts of the org where somebody can have an alias, by accessor."""
    return {mount.accessor: place_of(mount) for mount in state.mounts if mount.path.startswith((AUTH, AGENTS))}
