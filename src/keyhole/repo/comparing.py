"""How two states of a vault differ, without a value: members, roles, groups, hosts, and what is signed of secrets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from keyhole.repo.members import Member, Members
from keyhole.repo.opened import Opened
from keyhole.repo.sidecar import Sidecar


@dataclass(frozen=True, slots=True)
class Line:
    """One difference.

    Attributes:
        what: ``member``, ``group``, ``vault`` or ``secret``.
        name: of it.
        sign: ``+`` for new, ``-`` for gone, ``~`` for changed.
        said: what changed, in words.
    """

    what: str
    name: str
    sign: str
    said: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """In one line."""
        return f"{self.sign} {self.what} {self.name}" + (f": {', '.join(self.said)}" if self.said else "")


@dataclass(slots=True)
class Difference:
    """All differences.

    Attributes:
        members: of members and of what concerns them.
        secrets: of secrets.
    """

    members: list[Line] = field(default_factory=list)
    secrets: list[Line] = field(default_factory=list)

    @property
    def lines(self) -> list[Line]:
        """The members first."""
        return [*self.members, *self.secrets]

    @property
    def data(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            part: [{"what": e.what, "name": e.name, "sign": e.sign, "said": list(e.said)} for e in lines]
            for part, lines in (("members", self.members), ("secrets", self.secrets))
        }


def compare_states(before: Opened | None, after: Opened) -> Difference:
    """How a vault has changed; ``None`` is where there was none."""
    old = None if before is None else before.members
    found = Difference()
    if after.members is not None:
        found.members = compare_members(old, after.members)
    lists = [each for each in (old, after.members) if each is not None]
    names = sorted({*_names(before), *_names(after)})
    for name in names:
        left = _sidecar(before, name)
        right = _sidecar(after, name)
        if after.members is None:
            if (name in _names(before)) != (name in _names(after)):
                found.secrets.append(Line("secret", name, "+" if name in _names(after) else "-"))
            continue
        line = compare_secrets(name, left, right, lists)
        if line is not None:
            found.secrets.append(line)
    return found


def compare_members(before: Members | None, after: Members) -> list[Line]:
    """How the list of members has changed."""
    old: Mapping[str, Member] = {} if before is None else before.members
    found: list[Line] = []
    for name in sorted({*old, *after.members}):
        left, right = old.get(name), after.members.get(name)
        if left is None and right is not None:
            said = [right.role.value, f"groups {' '.join(sorted(right.groups)) or 'none'}", right.recipient.text]
            found.append(Line("member", name, "+", tuple(said)))
        elif right is None:
            found.append(Line("member", name, "-"))
        elif left is not None and left != right and (differs := _member(left, right)):
            found.append(Line("member", name, "~", differs))
    hosts = {} if before is None else before.hosts
    for group in sorted({*hosts, *after.hosts}):
        changed = _sets(hosts.get(group, ()), after.hosts.get(group, ()))
        if changed or (group in hosts) != (group in after.hosts):
            word = "may go anywhere a service says" if group not in after.hosts else "hosts"
            found.append(Line("group", group, "~", (f"{word} {changed}".strip(),)))
    if before is not None and before.opaque != after.opaque:
        found.append(Line("vault", "names", "~", ("hidden" if after.opaque else "in clear",)))
    return found


def compare_secrets(name: str, before: Sidecar | None, after: Sidecar | None, lists: Iterable[Members]) -> Line | None:
    """How a secret has changed; ``None`` for not at all."""
    if before == after:
        return None
    known = {m.recipient.text: who for members in lists for who, m in members.members.items()}
    if after is None:
        return Line("secret", name, "-", ("gone without a signed removal",)) if before and not before.removed else None
    was = before if before is not None and not before.removed else None
    if after.removed:
        return Line("secret", name, "-", (f"version {after.version}", f"removed by {after.signer}")) if was else None
    said = [f"version {after.version} by {after.signer}"]
    if was is not None and before is not None:
        said = [f"version {before.version} -> {after.version} by {after.signer}"]
        said.append("rewrap" if was.rotated == after.rotated else "new value")
    for word, left, right in (
        ("groups", () if was is None else was.groups, after.groups),
        (
            "sealed for",
            () if was is None else (known.get(text, text) for text in was.recipients),
            (known.get(text, text) for text in after.recipients),
        ),
    ):
        if changed := _sets(left, right):
            said.append(f"{word} {changed}")
    old_due = "" if was is None else was.due
    if after.due != old_due:
        said.append(f"due: {after.due}" if after.due else "not due any more")
    if (None if was is None else was.expires) != after.expires:
        said.append("never expires" if after.expires is None else f"expires {after.expires:%Y-%m-%d %H:%M}")
    return Line("secret", name, "+" if was is None else "~", tuple(said))


def _member(left: Member, right: Member) -> tuple[str, ...]:
    said = []
    if left.role is not right.role:
        said.append(f"role {left.role} -> {right.role}")
    if changed := _sets(left.groups, right.groups):
        said.append(f"groups {changed}")
    if left.recipient != right.recipient:
        said.append(f"another key {right.recipient.text}")
    if left.sign != right.sign:
        said.append("another key of signatures")
    if left.due != right.due:
        said.append(f"key due: {right.due}" if right.due else "key not due any more")
    return tuple(said)


def _sets(before: Iterable[str], after: Iterable[str]) -> str:
    left, right = set(before), set(after)
    return " ".join([*(f"+{each}" for each in sorted(right - left)), *(f"-{each}" for each in sorted(left - right))])


def _names(opened: Opened | None) -> set[str]:
    if opened is None:
        return set()
    return set(opened.secrets) if opened.signed else set(opened.names())


def _sidecar(opened: Opened | None, name: str) -> Sidecar | None:
    found = opened.secrets.get(name) if opened is not None else None
    return None if found is None else found[1]
