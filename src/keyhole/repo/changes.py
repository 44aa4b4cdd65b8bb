"""What the verbs change in a repo vault. Each gives a ``Change``: sealed bytes and signed documents, nothing in clear.

Whoever is granted something can open it from then on, so granting is for owners and admins; who is taken out of a group
has seen its values, so these are marked as due for a new value at their source, until somebody stores one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from keyhole.core.errors import Conflict, InvalidRequest, NotFound, PolicyDenied
from keyhole.core.value import Secret
from keyhole.crypto import age
from keyhole.crypto.age import Identity, Recipient
from keyhole.repo import sidecar
from keyhole.repo.documents import CONFIG as CONFIG_TEXT
from keyhole.repo.documents import Manifest, write_manifest, write_meta
from keyhole.repo.members import RULERS, WRITERS, Member, Members, Role
from keyhole.repo.names import group_of, parse_part
from keyhole.repo.opened import (
    CONFIG,
    MANIFEST,
    OWNER,
    SIGNED_MEMBERS,
    Opened,
    meta_path,
    recipients_of,
    sealed_path,
    signed_path,
)
from keyhole.repo.sidecar import Sidecar
from keyhole.repo.tree import Change

IGNORED = b"# agent-vault: block unencrypted key material\n*.key\n*.pem\n**/private.*\n!**/*.escrow\n"
Files = dict[str, bytes | None]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who changes the vault, with the key that signs it.

    Attributes:
        member: in the members of the vault.
        identity: opens what has to be sealed again.
        now: the time, with its zone.
    """

    member: Member
    identity: Identity
    now: datetime

    @classmethod
    def of(cls, opened: Opened, identity: Identity, now: datetime) -> Actor:
        """The member whose key it is. Raises ``PolicyDenied`` for a stranger."""
        return cls(opened.member(identity), identity, now)

    def require(self, *roles: Role) -> None:
        """Raises ``PolicyDenied`` for who has none of these roles."""
        if self.member.role not in roles:
            raise PolicyDenied(
                f"{self.member.name} is {self.member.role} here, and this takes {' or '.join(roles)}", "ask an owner"
            )


def create(identity: Identity, owner: str) -> Change:
    """A new vault with one owner."""
    member = Member(parse_part(owner, "owner"), Role.OWNER, identity.recipient, identity.signing.public)
    everybody = Members(os.urandom(16).hex(), members={member.name: member})
    files: Files = {
        CONFIG: CONFIG_TEXT.encode(),
        OWNER: identity.recipient.text.encode(),
        ".gitignore": IGNORED,
        f"{SIGNED_MEMBERS}/000001.json": everybody.write([(member.name, identity.signing)]),
        MANIFEST: write_manifest(Manifest((member.name,))),
    }
    return Change("agent-vault: initialize vault", files)


def store(
    opened: Opened,
    actor: Actor,
    name: str,
    value: Secret,
    *,
    groups: Iterable[str] = (),
    also: Iterable[str] = (),
    expires: datetime | None = None,
    due: str = "",
) -> Change:
    """A secret with a new value.

    Args:
        opened: the vault.
        actor: may write the groups.
        name: ``group/name``.
        value: in clear; it is sealed here.
        groups: to which it belongs; those it has, else the first part of its name.
        also: members for whom it is sealed besides, and stays so.
        expires: when it is not to be used any more; ``None`` leaves what was said.
        due: why it has to be changed at its source all the same.

    Raises:
        NotFound: one of ``also`` is no member.
        PolicyDenied: the actor may not write it.
    """
    everybody = opened.require_members()
    after, ciphertext = _sealed_anew(opened, actor, name, value, groups=groups, also=also, due=due)
    if expires is not None:
        after = replace(after, expires=expires)
    files = {sealed_path(after.secret): ciphertext}
    return _with(opened, everybody, actor, f"agent-vault: set {after.secret}", {after.secret: after}, files)


def store_all(opened: Opened, actor: Actor, values: Mapping[str, tuple[Secret, str]], message: str) -> Change:
    """Many secrets with new values, in one change.

    Args:
        opened: the vault.
        actor: may write the groups of all of them.
        values: name to its value, and why that is due for another one at its source; empty where it is not.
        message: of the change.

    Raises:
        PolicyDenied: the actor may not write one of them.
    """
    changed: dict[str, Sidecar] = {}
    files: Files = {}
    for name, (value, due) in values.items():
        after, ciphertext = _sealed_anew(opened, actor, name, value, due=due)
        changed[after.secret] = after
        files[sealed_path(after.secret)] = ciphertext
    change = _with(opened, opened.require_members(), actor, message, changed, files)
    return replace(change, due=tuple(sorted(name for name, each in changed.items() if each.due)))


def _sealed_anew(
    opened: Opened,
    actor: Actor,
    name: str,
    value: Secret,
    *,
    groups: Iterable[str] = (),
    also: Iterable[str] = (),
    due: str = "",
) -> tuple[Sidecar, bytes]:
    """The next version of a secret, with its ciphertext. See ``store``."""
    everybody, name = opened.require_members(), opened.where(name)
    document, before = opened.secrets.get(name, (None, None))
    named = tuple(parse_part(group, "group") for group in groups)
    belongs = named or (before.groups if before is not None and not before.removed else ()) or (group_of(name),)
    for checked in (belongs, before.groups if before is not None else belongs):
        if not actor.member.writes(checked):
            raise PolicyDenied(f"{actor.member.name} may not write {name}", "ask an owner to grant the group")
    besides = tuple(_require_member(everybody, each).name for each in also)
    if before is not None and not before.removed:
        besides = tuple(dict.fromkeys((*before.also, *besides)))
    recipients = recipients_of(everybody, belongs, besides)
    ciphertext = age.encrypt(value.reveal(), recipients)
    texts = tuple(recipient.text for recipient in recipients)
    if before is None or document is None:
        after = replace(sidecar.first(name, belongs, ciphertext, texts, actor.now, besides), due=due)
    else:
        changes = {"groups": belongs, "also": besides, "rotated": actor.now, "due": due}
        if before.removed:
            changes["created"] = actor.now
        after = before.next(document.digest, ciphertext, texts, **changes)
    return after, ciphertext


def remove(opened: Opened, actor: Actor, name: str) -> Change:
    """A secret that is no more; a signed word of who removed it stays."""
    everybody, name = opened.require_members(), opened.where(name)
    before = opened.sidecar(name)
    if not actor.member.writes(before.groups):
        raise PolicyDenied(f"{actor.member.name} may not remove {name}", "ask an owner")
    after = before.gone(opened.secrets[name][0].digest)
    files: Files = {sealed_path(name): None, meta_path(name): None}
    return _with(opened, everybody, actor, f"agent-vault: remove {name}", {name: after}, files)


def add(
    opened: Opened,
    actor: Actor,
    name: str,
    recipient: Recipient,
    *,
    role: Role = Role.AGENT,
    sign: bytes = b"",
    groups: Iterable[str] = (),
    escrow: Identity | None = None,
) -> Change:
    """A new member.

    Args:
        opened: the vault.
        actor: an owner, or an admin for who is neither owner nor admin.
        name: unique.
        recipient: its public key.
        role: see ``Role``.
        sign: its public key of signatures, for who may write.
        groups: that are granted at once.
        escrow: its private key, sealed for the owners, for an agent that is made here.

    Raises:
        Conflict: somebody has that name or that key.
        InvalidRequest: its key cannot sign, and the role writes.
        PolicyDenied: the actor may not.
    """
    if role in WRITERS and not recipient.kind.signs:
        raise age.cannot_sign(recipient.kind)
    everybody = opened.require_members()
    actor.require(*([Role.OWNER] if role in RULERS else RULERS))
    name = parse_part(name, "member")
    if name in everybody.members:
        raise Conflict(f"agent '{name}' already exists", "choose another name, or: keyhole repo recover-agent")
    if everybody.of(recipient) is not None:
        raise Conflict("somebody in this vault has this key already", "every member has a key of its own")
    member = Member(name, role, recipient, sign, tuple(parse_part(group, "group") for group in groups))
    after = everybody.changed(opened.digest, members={**everybody.members, name: member})
    files: Files = {}
    if role is not Role.OWNER:
        files[f"agents/{name}/public.key"] = recipient.text.encode()
    if escrow is not None:
        files[_escrow(name)] = age.encrypt(escrow.to_text().encode(), [owner.recipient for owner in after.owners])
    if role is Role.OWNER:
        files |= _escrows_again(opened, actor, after)
    return _members_changed(opened, actor, after, f"agent-vault: add {role} {name}", files)


def grant(opened: Opened, actor: Actor, name: str, group: str) -> Change:
    """A member who may open the secrets of a group."""
    return _regroup(opened, actor, name, group, wanted=True)


def revoke(opened: Opened, actor: Actor, name: str, group: str) -> Change:
    """A member who may not open the secrets of a group any more; what it could open is due for a new value."""
    return _regroup(opened, actor, name, group, wanted=False)


def take_out(opened: Opened, actor: Actor, name: str) -> Change:
    """A vault without a member; what it could open is due for a new value."""
    everybody = opened.require_members()
    member = _require_member(everybody, name)
    actor.require(*([Role.OWNER] if member.role in RULERS else RULERS))
    if member.role is Role.OWNER and len(everybody.owners) == 1:
        raise InvalidRequest(f"{name} is the only owner", "add another owner first")
    left = {other: each for other, each in everybody.members.items() if other != name}
    after = everybody.changed(opened.digest, members=left)
    files: Files = {f"agents/{name}/public.key": None, _escrow(name): None}
    if member.role is Role.OWNER:
        files |= _escrows_again(opened, actor, after)
    return _members_changed(opened, actor, after, f"agent-vault: remove {member.role} {name}", files)


def replace_key(opened: Opened, actor: Actor, name: str, fresh: Identity) -> Change:
    """An agent with a new key, sealed for the owners; its old key opens nothing that is stored from now on."""
    everybody = opened.require_members()
    member = _require_member(everybody, name)
    actor.require(*RULERS)
    if member.role is not Role.AGENT:
        raise InvalidRequest(f"{name} has made its own key", "remove it, and add its new public key")
    member = replace(member, recipient=fresh.recipient, sign=fresh.signing.public)
    after = everybody.changed(opened.digest, members={**everybody.members, name: member})
    owners = [owner.recipient for owner in after.owners]
    files: Files = {
        f"agents/{name}/public.key": fresh.recipient.text.encode(),
        _escrow(name): age.encrypt(fresh.to_text().encode(), owners),
    }
    return _members_changed(opened, actor, after, f"agent-vault: recover agent {name}", files)


def _regroup(opened: Opened, actor: Actor, name: str, group: str, *, wanted: bool) -> Change:
    everybody, group = opened.require_members(), parse_part(group, "group")
    member = _require_member(everybody, name)
    actor.require(*([Role.OWNER] if member.role in RULERS else RULERS))
    known = {each for _, found in opened.secrets.values() for each in found.groups}
    if group not in known and not any(group in each.groups for each in everybody.members.values()):
        raise NotFound(f"there is no group {group!r}", "it comes with its first secret: keyhole repo set GROUP/NAME")
    if not wanted and group not in member.groups:
        raise NotFound(f"{name} has no grant of {group}", "keyhole repo list-agents")
    groups = tuple(sorted({*member.groups, group} if wanted else {*member.groups} - {group}))
    after = everybody.changed(opened.digest, members={**everybody.members, name: replace(member, groups=groups)})
    verb, word = ("grant", "to") if wanted else ("revoke", "from")
    message = f"agent-vault: {verb} {group} {word} {name}"
    return _members_changed(opened, actor, after, message, {}, None if wanted else (name, group))


def _members_changed(
    opened: Opened,
    actor: Actor,
    after: Members,
    message: str,
    files: Mapping[str, bytes | None],
    revoked: tuple[str, str] | None = None,
) -> Change:
    """The change of the members, with every secret sealed again whose readers are others now."""
    path = f"{SIGNED_MEMBERS}/{after.version:06}.json"
    signer = (actor.member.name, actor.identity.signing)
    changed: dict[str, Sidecar] = {}
    sealed: Files = {}
    due = []
    for name, (document, before) in opened.secrets.items():
        if before.removed:
            changed |= _signed_again(before, after, document.digest, name)
            continue
        taken = revoked[0] if revoked is not None and revoked[1] in before.groups else ""
        also = tuple(each for each in before.also if each in after.members and each != taken)
        recipients = recipients_of(after, before.groups, also)
        texts = {recipient.text for recipient in recipients}
        writer = after.members.get(before.signer)
        if texts == set(before.recipients) and writer is not None and writer.writes(before.groups):
            continue
        value = age.decrypt(opened.ciphertext(name), [actor.identity])
        ciphertext = age.encrypt(value, recipients)
        lost = set(before.recipients) - texts
        why = before.due or (f"{message.removeprefix('agent-vault: ')}: it was readable before" if lost else "")
        if why:
            due.append(name)
        changed[name] = before.next(document.digest, ciphertext, (r.text for r in recipients), due=why, also=also)
        sealed[sealed_path(name)] = ciphertext
    change = _with(opened, after, actor, message, changed, {**files, **sealed, path: after.write([signer])})
    return replace(change, due=tuple(sorted(due)))


def _signed_again(before: Sidecar, after: Members, digest: str, name: str) -> dict[str, Sidecar]:
    """A word of a removal whose signer is gone is said by who is there."""
    writer = after.members.get(before.signer)
    if writer is not None and writer.writes(before.groups):
        return {}
    return {name: before.gone(digest)}


def _with(
    opened: Opened,
    everybody: Members,
    actor: Actor,
    message: str,
    changed: Mapping[str, Sidecar],
    files: Mapping[str, bytes | None],
) -> Change:
    """The change with the documents of these secrets, and with the format's own files, which follow from them."""
    out: Files = dict(files)
    for name, each in changed.items():
        out[signed_path(name)] = each.write(actor.member.name, actor.identity.signing)
        if not each.removed:
            out[meta_path(name)] = write_meta(each.meta(everybody))
    present = {name: each for name, (_, each) in opened.secrets.items()} | dict(changed)
    out[MANIFEST] = write_manifest(manifest_of(everybody, present))
    out[OWNER] = everybody.owners[0].recipient.text.encode()
    return Change(message, out)


def manifest_of(everybody: Members, secrets: Mapping[str, Sidecar]) -> Manifest:
    """The format's own list, as its readers want it. Secrets of one group are in its order of names."""
    groups: dict[str, list[str]] = {}
    for name, each in sorted(secrets.items()):
        if not each.removed:
            for group in each.groups:
                groups.setdefault(group, []).append(name)
    for member in everybody.members.values():
        for group in member.groups:
            groups.setdefault(group, [])
    agents = {m.name: m.groups for m in everybody.members.values() if m.role is not Role.OWNER}
    owners = tuple(owner.name for owner in everybody.owners)
    return Manifest(owners, dict(sorted(agents.items())), {name: tuple(each) for name, each in sorted(groups.items())})


def _escrows_again(opened: Opened, actor: Actor, after: Members) -> Files:
    """The escrowed keys of all agents, sealed for the owners that there are now."""
    owners = [owner.recipient for owner in after.owners]
    files: Files = {}
    for member in after.members.values():
        sealed = opened.tree.read(_escrow(member.name)) if member.role is Role.AGENT else None
        if sealed is not None:
            files[_escrow(member.name)] = age.encrypt(age.decrypt(sealed, [actor.identity]), owners)
    return files


def _escrow(name: str) -> str:
    return f"agents/{name}/private.key.escrow"


def _require_member(everybody: Members, name: str) -> Member:
    member = everybody.members.get(parse_part(name, "member"))
    if member is None:
        raise NotFound(f"agent '{name}' not found", "keyhole repo list-agents")
    return member
