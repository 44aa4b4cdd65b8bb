"""Who may do what in a repo vault, and to which hosts a group may go: changes of the signed list of members."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.host import HostPattern
from keyhole.crypto import age
from keyhole.repo.changes import keys_due
from keyhole.repo.hidden import Kind
from keyhole.repo.members import RULERS, WRITERS, Role
from keyhole.repo.opened import Opened
from keyhole.repo.sealing import Actor, Files, escrows_again, members_changed, require_group, require_member
from keyhole.repo.tree import Change

_MOST_HOSTS = 64


def give_role(opened: Opened, actor: Actor, name: str, role: Role, sign: bytes = b"") -> Change:
    """A member in another role. What it wrote and may not write any more is signed again by who takes the role away.

    Args:
        opened: the vault.
        actor: an owner, or an admin where neither role is owner or admin.
        name: of the member.
        role: the new one.
        sign: its public key of signatures, for who signed nothing until now.

    Raises:
        InvalidRequest: it is a machine or has that role, cannot sign, or is the only owner.
        PolicyDenied: the actor may not, or would take the role from oneself.
    """
    everybody, member = opened.require_members(), require_member(opened, name)
    name = member.name
    actor.require(*([Role.OWNER] if RULERS & {member.role, role} else RULERS))
    if Role.AGENT in {member.role, role}:
        raise InvalidRequest("an agent is a machine whose key was made for it", "add-agent, or add-member for a person")
    if member.role is role:
        raise InvalidRequest(f"{name} is {role} already", "keyhole repo list-agents")
    if member.role is Role.OWNER and len(everybody.owners) == 1:
        raise InvalidRequest(f"{name} is the only owner", "add another owner first")
    if role in WRITERS and not member.recipient.kind.signs:
        raise age.cannot_sign(member.recipient.kind)
    if role in WRITERS and not (sign or member.sign):
        raise InvalidRequest(f"a {role} signs what it writes", "--sign HEX, as the member's my-key shows it")
    after = {**everybody.members, name: replace(member, role=role, sign=sign or member.sign)}
    files: Files = {}
    if member.role is Role.OWNER:
        after |= keys_due(after, f"{name} was an owner, and could open it")
        files[f"agents/{name}/public.key"] = member.recipient.text.encode()
    if role is Role.OWNER:
        files[f"agents/{name}/public.key"] = None
    changed = everybody.changed(opened.digest, members=after)
    if Role.OWNER in {member.role, role}:
        files |= escrows_again(opened, actor, changed)
    change = members_changed(opened, actor, changed, f"agent-vault: make {name} {role}", files)
    return replace(change, keys=tuple(sorted(each.name for each in after.values() if each.due)))


def limit_hosts(opened: Opened, actor: Actor, group: str, hosts: Iterable[str]) -> Change:
    """A group whose secrets are lent to these hosts alone; to any that a service says where there are none.

    Args:
        opened: the vault.
        actor: an owner, or an admin who is granted the group.
        group: which.
        hosts: ``name``, ``name:port``, or with ``*.`` before the name for one more label.

    Raises:
        NotFound: there is no such group.
        InvalidRequest: something is no host, or there are too many.
    """
    everybody, group = opened.require_members(), require_group(opened, group)
    actor.require(*RULERS)
    texts = sorted({_host(text) for text in hosts})
    if len(texts) > _MOST_HOSTS:
        raise InvalidRequest(f"a group has at most {_MOST_HOSTS} hosts", "use a wildcard, or another group")
    after = {name: each for name, each in everybody.hosts.items() if name != group}
    if texts:
        after[group] = tuple(opened.hidden(Kind.HOST, text) for text in texts)
    elif group not in everybody.hosts:
        raise NotFound(f"the hosts of {group} are not limited", "keyhole repo list")
    changed = everybody.changed(opened.digest, hosts=after)
    return members_changed(opened, actor, changed, f"agent-vault: limit the hosts of {group}", {})


def _host(text: str) -> str:
    """In canonical form; its port only where it was said."""
    if "/" in text:
        raise InvalidRequest("a host is no URL", "write it like api.example.com, or api.example.com:8443")
    one, other = HostPattern.parse(text, 1), HostPattern.parse(text, 2)
    return str(one) if one.port == other.port else str(one).removesuffix(":1")
