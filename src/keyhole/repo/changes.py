"""What the verbs change in a repo vault. Each gives a ``Change``: sealed bytes and signed documents, nothing in clear.

Whoever is granted something can open it from then on, so granting is for owners and admins; who is taken out of a group
has seen its values, so these are marked as due for a new value at their source, until somebody stores one.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from keyhole.core.errors import Conflict, InvalidRequest, KeyholeError, NotFound, PolicyDenied
from keyhole.core.value import Secret
from keyhole.crypto import age
from keyhole.crypto.age import Identity, Recipient
from keyhole.repo import sidecar
from keyhole.repo.alike import require_unlike_member, require_unlike_secrets
from keyhole.repo.documents import CONFIG as CONFIG_TEXT
from keyhole.repo.documents import Manifest, write_manifest
from keyhole.repo.for_git import ATTRIBUTES, IGNORE, IGNORED, UNCHANGED
from keyhole.repo.hidden import NAMES, Book, Kind, digest
from keyhole.repo.joining import SIGNED_MEMBERS
from keyhole.repo.members import RULERS, WRITERS, Member, Members, Role
from keyhole.repo.names import group_of, parse_part
from keyhole.repo.opened import (
    CONFIG,
    MANIFEST,
    OWNER,
    Opened,
    meta_path,
    recipients_of,
    sealed_path,
)
from keyhole.repo.sealing import (
    Actor,
    Files,
    escrow_path,
    escrows_again,
    members_changed,
    require_group,
    require_member,
    with_documents,
)
from keyhole.repo.sidecar import Sidecar
from keyhole.repo.tree import Change

NEVER = datetime.max.replace(tzinfo=UTC)
"""For ``expires``: from now on the secret has no date."""


def create(identity: Identity, owner: str, *, opaque: bool = False) -> Change:
    """A new vault with one owner; ``opaque``: only members can read the names in it."""
    vault, name = os.urandom(16).hex(), parse_part(owner, "owner")
    files: Files = {}
    names = ""
    if opaque:
        book = Book.create(vault)
        name = book.hide(Kind.MEMBER, name)
        files[NAMES] = sealed = book.seal([identity.recipient])
        names = digest(sealed)
    member = Member(name, Role.OWNER, identity.recipient, identity.signing.public)
    everybody = Members(vault, members={member.name: member}, opaque=opaque, names=names)
    files |= {
        CONFIG: CONFIG_TEXT.encode(),
        OWNER: identity.recipient.text.encode(),
        IGNORE: IGNORED,
        ATTRIBUTES: UNCHANGED,
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
        expires: when it is not to be used any more, or ``NEVER``; ``None`` leaves what was said, but a date that has
            passed goes with the value that it was for.
        due: why it has to be changed at its source all the same. What was due stays so with the value that it had.

    Raises:
        Conflict: there is a secret or group whose name differs only in capitals.
        NotFound: one of ``also`` is no member.
        PolicyDenied: the actor may not write it.
    """
    everybody = opened.require_members()
    after, ciphertext = _sealed_anew(opened, actor, name, value, groups=groups, also=also, due=due)
    if expires is not None:
        after = replace(after, expires=None if expires == NEVER else expires)
    require_unlike_secrets(opened, {after.secret: after})
    files = {sealed_path(after.secret): ciphertext}
    message = f"agent-vault: set {after.secret}"
    change = with_documents(opened, everybody, actor, message, {after.secret: after}, files)
    return replace(change, due=(after.secret,) if after.due else ())


def store_all(opened: Opened, actor: Actor, values: Mapping[str, tuple[Secret, str]], message: str) -> Change:
    """Many secrets with new values, in one change.

    Args:
        opened: the vault.
        actor: may write the groups of all of them.
        values: name to its value, and why that is due for another one at its source; empty where it is not.
        message: of the change.

    Raises:
        Conflict: names differ only in capitals.
        PolicyDenied: the actor may not write one of them.
    """
    changed: dict[str, Sidecar] = {}
    files: Files = {}
    for name, (value, due) in values.items():
        after, ciphertext = _sealed_anew(opened, actor, name, value, due=due)
        changed[after.secret] = after
        files[sealed_path(after.secret)] = ciphertext
    require_unlike_secrets(opened, changed)
    change = with_documents(opened, opened.require_members(), actor, message, changed, files)
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
    named = tuple(opened.hidden(Kind.GROUP, group) for group in groups)
    belongs = named or (before.groups if before is not None and not before.removed else ()) or (group_of(name),)
    for checked in (belongs, before.groups if before is not None else belongs):
        if not actor.member.writes(checked):
            raise PolicyDenied(f"{actor.member.name} may not write {name}", "ask an owner to grant the group")
    besides = tuple(require_member(opened, each).name for each in also)
    if before is not None and not before.removed:
        besides = tuple(dict.fromkeys((*before.besides(everybody), *besides)))
    recipients = recipients_of(everybody, belongs, besides)
    data = value.reveal()
    ciphertext = age.encrypt(data, recipients)
    texts = tuple(recipient.text for recipient in recipients)
    if before is None or document is None:
        after = replace(sidecar.first(name, belongs, ciphertext, texts, actor.now, besides), due=due)
    else:
        changes = {"groups": belongs, "also": besides, "rotated": actor.now, "due": due}
        if before.removed:
            changes |= {"created": actor.now, "expires": None}
        elif _is_value(opened, actor, name, data):  # nothing was changed at its source
            lost = "set: it was readable before" if set(before.recipients) - set(texts) else ""
            changes |= {"rotated": before.rotated, "due": due or before.due or lost}
        elif before.expires is not None and before.expires <= actor.now:
            changes["expires"] = None
        after = before.next(document.digest, ciphertext, texts, **changes)
    return after, ciphertext


def _is_value(opened: Opened, actor: Actor, name: str, value: bytes) -> bool:
    """Whether a secret has this value now; one that cannot be opened is what somebody stores a new one for."""
    try:
        return hmac.compare_digest(age.decrypt(opened.ciphertext(name), [actor.identity]), value)
    except KeyholeError:
        return False


def remove(opened: Opened, actor: Actor, name: str) -> Change:
    """A secret that is no more; a signed word of who removed it stays."""
    everybody, name = opened.require_members(), opened.where(name)
    before = opened.sidecar(name)
    if not actor.member.writes(before.groups):
        raise PolicyDenied(f"{actor.member.name} may not remove {name}", "ask an owner")
    after = before.gone(opened.secrets[name][0].digest)
    files: Files = {sealed_path(name): None, meta_path(name): None}
    return with_documents(opened, everybody, actor, f"agent-vault: remove {name}", {name: after}, files)


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
        Conflict: somebody has that name, if only in other capitals, or that key; or a group has.
        InvalidRequest: its key cannot sign, and the role writes.
        PolicyDenied: the actor may not.
    """
    if role in WRITERS and not recipient.kind.signs:
        raise age.cannot_sign(recipient.kind)
    everybody = opened.require_members()
    actor.require(*([Role.OWNER] if role in RULERS else RULERS))
    name = opened.hidden(Kind.MEMBER, name)
    if name in everybody.members:
        raise Conflict(f"agent '{name}' already exists", "choose another name, or: keyhole repo recover-agent")
    if everybody.of(recipient) is not None:
        raise Conflict("somebody in this vault has this key already", "every member has a key of its own")
    member = Member(name, role, recipient, sign, tuple(opened.hidden(Kind.GROUP, group) for group in groups))
    after = everybody.changed(opened.digest, members={**everybody.members, name: member})
    require_unlike_member(opened, after, name)
    files: Files = {}
    if role is not Role.OWNER:
        files[f"agents/{name}/public.key"] = recipient.text.encode()
    if escrow is not None:
        files[escrow_path(name)] = age.encrypt(escrow.to_text().encode(), [owner.recipient for owner in after.owners])
    if role is Role.OWNER:
        files |= escrows_again(opened, actor, after)
    return members_changed(opened, actor, after, f"agent-vault: add {role} {name}", files)


def grant(opened: Opened, actor: Actor, name: str, group: str) -> Change:
    """A member who may open the secrets of a group."""
    return _regroup(opened, actor, name, group, wanted=True)


def revoke(opened: Opened, actor: Actor, name: str, group: str) -> Change:
    """A member who may not open the secrets of a group any more; what it could open is due for a new value."""
    return _regroup(opened, actor, name, group, wanted=False)


def take_out(opened: Opened, actor: Actor, name: str) -> Change:
    """A vault without a member; what it could open is due for a new value."""
    everybody = opened.require_members()
    member = require_member(opened, name)
    name = member.name
    actor.require(*([Role.OWNER] if member.role in RULERS else RULERS))
    if member.role is Role.OWNER and len(everybody.owners) == 1:
        raise InvalidRequest(f"{name} is the only owner", "add another owner first")
    left = {other: each for other, each in everybody.members.items() if other != name}
    if member.role is Role.OWNER:
        left |= keys_due(left, f"{name} was an owner, and could open it")
    after = everybody.changed(opened.digest, members=left)
    files: Files = {f"agents/{name}/public.key": None, escrow_path(name): None}
    if member.role is Role.OWNER:
        files |= escrows_again(opened, actor, after)
    change = members_changed(opened, actor, after, f"agent-vault: remove {member.role} {name}", files)
    return replace(change, keys=tuple(sorted(each.name for each in left.values() if each.due)))


def keys_due(members: Mapping[str, Member], why: str) -> dict[str, Member]:
    """The agents, each with its key due for a new one: whoever was an owner could open what was escrowed."""
    return {name: replace(each, due=why) for name, each in members.items() if each.role is Role.AGENT}


def replace_key(opened: Opened, actor: Actor, name: str, fresh: Identity) -> Change:
    """An agent with a new key, sealed for the owners; its old key opens nothing that is stored from now on."""
    everybody = opened.require_members()
    member = require_member(opened, name)
    name = member.name
    actor.require(*RULERS)
    if member.role is not Role.AGENT:
        raise InvalidRequest(f"{name} has made its own key", "remove it, and add its new public key")
    member = replace(member, recipient=fresh.recipient, sign=fresh.signing.public, due="")
    after = everybody.changed(opened.digest, members={**everybody.members, name: member})
    owners = [owner.recipient for owner in after.owners]
    files: Files = {
        f"agents/{name}/public.key": fresh.recipient.text.encode(),
        escrow_path(name): age.encrypt(fresh.to_text().encode(), owners),
    }
    return members_changed(opened, actor, after, f"agent-vault: recover agent {name}", files)


def _regroup(opened: Opened, actor: Actor, name: str, group: str, *, wanted: bool) -> Change:
    everybody, group = opened.require_members(), require_group(opened, group)
    member = require_member(opened, name)
    name = member.name
    actor.require(*([Role.OWNER] if member.role in RULERS else RULERS))
    if not wanted and group not in member.groups:
        raise NotFound(f"{name} has no grant of {group}", "keyhole repo list-agents")
    groups = tuple(sorted({*member.groups, group} if wanted else {*member.groups} - {group}))
    after = everybody.changed(opened.digest, members={**everybody.members, name: replace(member, groups=groups)})
    verb, word = ("grant", "to") if wanted else ("revoke", "from")
    message = f"agent-vault: {verb} {group} {word} {name}"
    return members_changed(opened, actor, after, message, {}, None if wanted else (name, group))
