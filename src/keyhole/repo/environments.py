"""Projects and environments: a group whose name is ``project.environment``. By names only; nothing is opened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.repo.names import group_of, parse_part
from keyhole.repo.opened import Opened


@dataclass(slots=True)
class Coverage:
    """Which key is there in which environment of a project.

    Attributes:
        project: its name.
        environments: all of them, sorted.
        keys: name of a key to the environments that have it.
    """

    project: str
    environments: list[str] = field(default_factory=list)
    keys: dict[str, set[str]] = field(default_factory=dict)

    @property
    def missing(self) -> dict[str, list[str]]:
        """Key to the environments that lack it, of keys that are not everywhere."""
        found = {key: [each for each in self.environments if each not in has] for key, has in self.keys.items()}
        return {key: lacks for key, lacks in found.items() if lacks}


@dataclass(frozen=True, slots=True)
class Compared:
    """Two environments of a project, by the names of their keys."""

    only_from: tuple[str, ...]
    only_to: tuple[str, ...]
    both: tuple[str, ...]


def group_name(project: str, environment: str) -> str:
    """``project.environment``. Raises ``InvalidRequest`` for what is none."""
    if "." in environment:
        raise InvalidRequest(f"{environment[:40]!r} is no environment", "its name has no dot; that of a project may")
    return parse_part(f"{parse_part(project, 'project')}.{parse_part(environment, 'environment')}", "group")


def coverage(opened: Opened, project: str = "") -> list[Coverage]:
    """Of one project, or of all.

    Raises:
        NotFound: there is no such project.
        PolicyDenied: names are hidden here, and this key reads none.
    """
    if opened.opaque:
        opened.require_book()
    found: dict[str, Coverage] = {}
    for group in sorted(_groups(opened)):
        name, dot, environment = group.rpartition(".")
        if dot and environment:
            each = found.setdefault(name, Coverage(name))
            each.environments.append(environment)
    for secret in sorted(map(opened.shown, opened.names())):
        name, dot, environment = group_of(secret).rpartition(".")
        if dot and name in found:
            found[name].keys.setdefault(secret.partition("/")[2], set()).add(environment)
    if project and project not in found:
        known = ", ".join(found) or "none"
        raise NotFound(f"there is no project {project!r}", f"a group PROJECT.ENVIRONMENT makes one; there are: {known}")
    return [found[project]] if project else list(found.values())


def compare(opened: Opened, project: str, one: str, other: str) -> Compared:
    """Which keys two environments have. Raises ``NotFound`` where one of them is not there."""
    [found] = coverage(opened, project)
    for each in (one, other):
        if each not in found.environments:
            raise NotFound(f"{project} has no environment {each!r}", f"there are: {', '.join(found.environments)}")
    left, right = ({key for key, has in found.keys.items() if each in has} for each in (one, other))
    return Compared(tuple(sorted(left - right)), tuple(sorted(right - left)), tuple(sorted(left & right)))


def _groups(opened: Opened) -> Iterable[str]:
    """Of secrets, and those that are granted before they have any."""
    found = {group_of(name) for name in opened.names()}
    if opened.members is not None:
        found |= {group for member in opened.members.members.values() for group in member.groups}
    return set(map(opened.shown, found))
