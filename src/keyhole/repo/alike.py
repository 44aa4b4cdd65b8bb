"""Names that differ only in capitals are one file on many disks, so the second of two is not made. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from keyhole.core.errors import Conflict
from keyhole.repo.members import Members
from keyhole.repo.names import group_of
from keyhole.repo.opened import Opened
from keyhole.repo.sidecar import Sidecar


def require_unlike(kind: str, new: Iterable[str], there: Iterable[str]) -> None:
    """Raises ``Conflict`` where a new name is that of something else but for capitals."""
    known: dict[str, set[str]] = {}
    for name in there:
        known.setdefault(name.casefold(), set()).add(name)
    for name in new:
        others = known.setdefault(name.casefold(), set())
        if others and name not in others:
            raise Conflict(
                f"the {kind} {name} would be the file of {min(others)} on a disk that does not tell capitals apart",
                f"use {min(others)}, or another name",
            )
        others.add(name)


def require_unlike_secrets(opened: Opened, changed: Mapping[str, Sidecar]) -> None:
    """Look at secrets that are made, and at their groups. Where names are hidden, the files have others."""
    if opened.opaque:
        return
    groups = [group for name, each in changed.items() for group in (group_of(name), *each.groups)]
    require_unlike("group", groups, groups_of(opened))
    require_unlike("secret", changed, opened.secrets)


def require_unlike_member(opened: Opened, after: Members, name: str) -> None:
    """Look at a member that is made, and at the groups that come with it."""
    if opened.opaque:
        return
    require_unlike("member", [name], opened.require_members().members)
    require_unlike("group", after.members[name].groups, groups_of(opened))


def groups_of(opened: Opened) -> set[str]:
    """All groups: in the names of secrets, of secrets, and of members."""
    found = {group for name, (_, each) in opened.secrets.items() for group in (group_of(name), *each.groups)}
    return found | {group for member in opened.require_members().members.values() for group in member.groups}
