"""Who may open and change a repo vault: numbered documents, each signed by somebody whom the one before lets sign it.

``.agent-vault/.x/members/000001.json`` was made with the vault; the highest number counts. Whoever has once seen one of
them follows the chain from there, so a new owner is believed because an old one said so, and nobody else can add a
recipient.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from keyhole.core.errors import IntegrityError, InternalError, InvalidRequest
from keyhole.crypto.age import Recipient, parse_recipient
from keyhole.crypto.low_order import is_sound_ed25519
from keyhole.crypto.signing import SigningKey
from keyhole.repo import signed
from keyhole.repo.names import hidden_kind, parse_line, parse_part
from keyhole.repo.signed import Signed

KIND = "members"
_MOST = 10_000


class Role(StrEnum):
    """What a member may do.

    ``owner``: everything, and reads everything. ``admin``: changes members who are neither owner nor admin, and what
    they are granted. ``member``: reads and writes the secrets of the granted groups. ``reader`` and ``agent`` (a
    machine, whose key is escrowed for the owners): read them.
    """

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    READER = "reader"
    AGENT = "agent"


RULERS = frozenset({Role.OWNER, Role.ADMIN})
WRITERS = frozenset({Role.OWNER, Role.ADMIN, Role.MEMBER})


@dataclass(frozen=True, slots=True)
class Member:
    """One who may open something.

    Attributes:
        name: unique in the vault.
        role: see ``Role``.
        recipient: for whom secrets are sealed.
        sign: the public key of signatures, 32 bytes; empty for one who signs nothing.
        groups: that are granted; an owner has all without it.
        due: why the key of an agent has to be replaced; empty while it need not be.
    """

    name: str
    role: Role
    recipient: Recipient
    sign: bytes = b""
    groups: tuple[str, ...] = ()
    due: str = ""

    def reads(self, groups: Iterable[str]) -> bool:
        """Whether secrets that belong to these groups are sealed for it."""
        return self.role is Role.OWNER or not set(self.groups).isdisjoint(groups)

    def writes(self, groups: Iterable[str]) -> bool:
        """Whether it may sign a new version of a secret that belongs to these groups."""
        return self.role in WRITERS and self.reads(groups)


@dataclass(frozen=True, slots=True)
class Members:
    """All members at one version of the document.

    Attributes:
        vault: id of the vault, 32 hexadecimal digits.
        version: from 1, without a gap.
        previous: digest of the version before; empty for the first.
        members: by name.
        hosts: group to the hosts to which its secrets may go; a group that is not there may go anywhere that a service
            says.
        opaque: ids stand for the names of secrets, groups, members and hosts (``repo.hidden``), in here as well.
        names: digest of what opens them; empty in a vault without.
        over: digests of the last documents of other lists, in whose place this one is (``repo.joining``).
    """

    vault: str
    version: int = 1
    previous: str = ""
    members: Mapping[str, Member] = field(default_factory=dict)
    hosts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    opaque: bool = False
    names: str = ""
    over: tuple[str, ...] = ()

    def readers(self, groups: Iterable[str], also: Iterable[str] = ()) -> list[Member]:
        """For whom a secret of these groups is sealed, and for these members besides: the owners first."""
        named, besides = tuple(groups), frozenset(also)
        found = [member for member in self.members.values() if member.reads(named) or member.name in besides]
        return sorted(found, key=lambda member: (member.role is not Role.OWNER, member.name))

    @property
    def owners(self) -> list[Member]:
        """Those who own the vault, by name."""
        return sorted((m for m in self.members.values() if m.role is Role.OWNER), key=lambda member: member.name)

    def of(self, recipient: Recipient) -> Member | None:
        """The member with this key."""
        return next((member for member in self.members.values() if member.recipient == recipient), None)

    def changed(self, digest: str, **changes: Any) -> Members:
        """The next version; ``digest`` is of this one."""
        return replace(self, **{"version": self.version + 1, "previous": digest, "over": (), **changes})

    def write(self, signers: list[tuple[str, SigningKey]]) -> bytes:
        """Its signed document."""
        people = [
            {
                "name": member.name,
                "role": member.role.value,
                "recipient": member.recipient.text,
                "sign": member.sign.hex(),
                "groups": sorted(member.groups),
                **({"due": member.due} if member.due else {}),
            }
            for member in sorted(self.members.values(), key=lambda member: member.name)
        ]
        content = {
            "vault": self.vault,
            "version": self.version,
            "previous": self.previous,
            "members": people,
            "hosts": {group: sorted(hosts) for group, hosts in self.hosts.items()},
            "opaque": self.opaque,
        }
        if self.over:
            content["over"] = list(self.over)
        if self.opaque:
            content["names"] = self.names
            hosts = {host for each in self.hosts.values() for host in each}
            require_hidden(self.members, self.hosts, hosts, *(member.groups for member in self.members.values()))
        return signed.write(KIND, content, signers)


def read(document: Signed) -> Members:
    """What a document says, without a look at who signed it. Raises ``IntegrityError``."""
    content = document.content
    try:
        people = [_member(each) for each in content["members"]]
        members = {member.name: member for member in people}
        keys = {member.recipient.text for member in people}
        found = Members(
            str(content["vault"]),
            int(content["version"]),
            str(content["previous"]),
            members,
            {parse_part(group): tuple(map(str, hosts)) for group, hosts in content["hosts"].items()},
            content["opaque"] is True,
            str(content["names"]) if content["opaque"] is True else "",
            _digests(content.get("over", [])),
        )
    except (InvalidRequest, KeyError, TypeError, ValueError, AttributeError):
        raise IntegrityError(f"{document.where} is not a list of members", "restore it from its history") from None
    if not found.owners or len(people) > _MOST or len(members) < len(people) or len(keys) < len(people):
        raise IntegrityError(f"{document.where} names no owner, or somebody twice", "restore it from its history")
    return found


def _digests(data: Any) -> tuple[str, ...]:
    if not isinstance(data, list) or not all(isinstance(each, str) for each in data):
        raise TypeError("no list of digests")
    return tuple(data)


def _member(data: Mapping[str, Any]) -> Member:
    sign = bytes.fromhex(data["sign"])
    if sign and not is_sound_ed25519(sign):
        raise ValueError("anybody can sign for this key")
    return Member(
        parse_part(str(data["name"])),
        Role(data["role"]),
        parse_recipient(str(data["recipient"])),
        sign,
        tuple(parse_part(str(group), "group") for group in data["groups"]),
        parse_line(str(data.get("due", ""))),
    )


def require_follows(before: Members, digest: str, document: Signed) -> Members:
    """The members of a document that comes after ``before``, whose digest is ``digest``.

    Raises:
        IntegrityError: it does not follow, or nobody signed it who might.
    """
    after = read(document)
    where = document.where
    if (after.vault, after.version, after.previous) != (before.vault, before.version + 1, digest):
        raise IntegrityError(f"{where} does not follow the version before it", "its history was changed: ask an owner")
    if after.opaque != before.opaque:
        raise IntegrityError(f"{where} changes whether names are hidden", "somebody else wrote it: ask an owner")
    signers = [m for m in before.members.values() if m.role in RULERS and document.is_by(m.name, m.sign)]
    if any(signer.role is Role.OWNER for signer in signers):
        return after
    if not signers or _rulers(before) != _rulers(after) or not moved(before, after) <= _held(signers):
        raise IntegrityError(
            f"{where} is not signed by anybody who may change the members like this",
            "somebody else wrote it: ask an owner, and do not use the vault before",
        )
    return after


def _rulers(members: Members) -> dict[str, Member]:
    return {name: member for name, member in members.members.items() if member.role in RULERS}


def moved(before: Members, after: Members) -> set[str]:
    """The groups that somebody was given or lost, whose readers have another key or role, or whose hosts are others."""
    grants = [
        {
            (group, member.name, member.role, member.recipient.text, member.sign)
            for member in each.members.values()
            for group in member.groups
        }
        for each in (before, after)
    ]
    hosts = [{(group, host) for group, found in each.hosts.items() for host in found} for each in (before, after)]
    moved = {group for group, *_ in grants[0] ^ grants[1]} | {group for group, _ in hosts[0] ^ hosts[1]}
    return moved | (before.hosts.keys() ^ after.hosts.keys())


def _held(signers: Iterable[Member]) -> set[str]:
    return {group for signer in signers for group in signer.groups}


def require_hidden(*names: Iterable[str]) -> None:
    """Raises ``InternalError`` where a name would be written in clear into a vault that hides them."""
    if not all(hidden_kind(name) for some in names for name in some):
        raise InternalError("a name would have been written in clear", "report this, with the command")
