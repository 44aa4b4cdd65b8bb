"""How a change of a repo vault comes about: sealed for who reads it then, signed, and said in the format's files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from keyhole.core.errors import NotFound, PolicyDenied
from keyhole.crypto import age
from keyhole.crypto.age import Identity
from keyhole.repo.documents import Manifest, write_manifest, write_meta
from keyhole.repo.for_git import ATTRIBUTES, UNCHANGED
from keyhole.repo.hidden import NAMES, Kind, digest
from keyhole.repo.joining import SIGNED_MEMBERS
from keyhole.repo.members import Member, Members, Role, moved, require_hidden
from keyhole.repo.opened import (
    MANIFEST,
    OWNER,
    Opened,
    meta_path,
    recipients_of,
    sealed_path,
    signed_path,
)
from keyhole.repo.sidecar import Sidecar
from keyhole.repo.tree import Change

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
        opened.unlock(identity)
        return cls(opened.member(identity), identity, now)

    def require(self, *roles: Role) -> None:
        """Raises ``PolicyDenied`` for who has none of these roles."""
        if self.member.role not in roles:
            raise PolicyDenied(
                f"{self.member.name} is {self.member.role} here, and this takes {' or '.join(roles)}", "ask an owner"
            )


def members_changed(
    opened: Opened,
    actor: Actor,
    after: Members,
    message: str,
    files: Mapping[str, bytes | None],
    revoked: tuple[str, str] | None = None,
) -> Change:
    """The change of the members, with every secret sealed again whose readers are others now.

    Args:
        opened: the vault as it was.
        actor: who changes it.
        after: the next version of the members.
        message: of the change.
        files: that change besides.
        revoked: member and group of a grant that is taken back.

    Raises:
        PolicyDenied: the actor may not change the members like this, or cannot open what has to be sealed again.
    """
    everybody = opened.require_members()
    if actor.member.role is not Role.OWNER and not moved(everybody, after) <= set(actor.member.groups):
        raise PolicyDenied("an admin changes only what is granted to admins as well", "ask an owner")
    me = after.of(actor.identity.recipient)
    if me is None or me.role is not actor.member.role or not {*me.groups} >= {*actor.member.groups}:
        raise PolicyDenied("nobody takes a role or a grant from oneself", "ask another owner")
    after, names = _names_again(opened, after)
    path = f"{SIGNED_MEMBERS}/{after.version:06}.json"
    signer = (actor.member.name, actor.identity.signing)
    changed: dict[str, Sidecar] = {}
    sealed: Files = {}
    due = []
    for name, (document, before) in opened.secrets.items():
        if before.removed:
            again = _signed_again(before, after, document.digest, name)
            changed |= again
            if again:
                _require_writes(me, before)
            continue
        taken = revoked[0] if revoked is not None and revoked[1] in before.groups else ""
        also = tuple(each for each in before.besides(everybody) if each in after.members and each != taken)
        recipients = recipients_of(after, before.groups, also)
        texts = {recipient.text for recipient in recipients}
        writer = after.members.get(before.signer)
        if texts == set(before.recipients) and writer is not None and writer.writes(before.groups):
            continue
        _require_writes(me, before)
        ciphertext = age.encrypt(_open(opened, actor, name), recipients)
        lost = set(before.recipients) - texts
        why = before.due or (f"{message.removeprefix('agent-vault: ')}: it was readable before" if lost else "")
        if why:
            due.append(name)
        changed[name] = before.next(document.digest, ciphertext, (r.text for r in recipients), due=why, also=also)
        sealed[sealed_path(name)] = ciphertext
    change = with_documents(
        opened, after, actor, message, changed, {**files, **sealed, **names, path: after.write([signer])}
    )
    return replace(change, due=tuple(sorted(due)))


def _require_writes(me: Member, before: Sidecar) -> None:
    if not me.writes(before.groups):
        raise PolicyDenied(f"{before.secret} has to be signed again, and you may not write it", "ask an owner")


def _open(opened: Opened, actor: Actor, name: str) -> bytes:
    """What has to be sealed again. Raises ``PolicyDenied`` for who cannot open it."""
    try:
        return age.decrypt(opened.ciphertext(name), [actor.identity])
    except NotFound:
        raise PolicyDenied(f"{name} has to be sealed again, and you cannot open it", "ask an owner") from None


def _names_again(opened: Opened, after: Members) -> tuple[Members, Files]:
    """The names, sealed for those who are members then; who is none any more will not read names that are new."""
    if not opened.opaque:
        return after, {}
    book, before = opened.require_book(), opened.require_members()
    had, have = ({m.recipient.text for m in each.members.values()} for each in (before, after))
    if had == have:
        return after, {}
    if had - have:
        book = book.renewed()
    sealed = book.seal([member.recipient for member in after.members.values()])
    return replace(after, names=digest(sealed)), {NAMES: sealed}


def _signed_again(before: Sidecar, after: Members, digest: str, name: str) -> dict[str, Sidecar]:
    """A word of a removal whose signer is gone is said by who is there."""
    writer = after.members.get(before.signer)
    if writer is not None and writer.writes(before.groups):
        return {}
    return {name: before.gone(digest)}


def with_documents(
    opened: Opened,
    everybody: Members,
    actor: Actor,
    message: str,
    changed: Mapping[str, Sidecar],
    files: Mapping[str, bytes | None],
) -> Change:
    """The change, with the documents of these secrets and with the format's own files, which follow from them."""
    out: Files = dict(files)
    for name, each in changed.items():
        out[signed_path(name)] = each.write(actor.member.name, actor.identity.signing)
        if not each.removed:
            out[meta_path(name)] = write_meta(each.meta(everybody))
    present = {name: each for name, (_, each) in opened.secrets.items()} | dict(changed)
    out[MANIFEST] = write_manifest(manifest_of(everybody, present))
    out[OWNER] = everybody.owners[0].recipient.text.encode()
    if opened.tree.read(ATTRIBUTES) is None:  # a vault that something else has made
        out[ATTRIBUTES] = UNCHANGED
    if everybody.opaque:
        for path in out:
            folder, _, below = path.removeprefix(".x/").partition("/")
            if folder in {"secrets", "agents"}:
                require_hidden(part.partition(".")[0] for part in below.split("/")[: 2 if folder == "secrets" else 1])
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


def escrows_again(opened: Opened, actor: Actor, after: Members) -> Files:
    """The escrowed keys of all agents, sealed for the owners that there are now."""
    owners = [owner.recipient for owner in after.owners]
    files: Files = {}
    for member in after.members.values():
        sealed = opened.tree.read(escrow_path(member.name)) if member.role is Role.AGENT else None
        if sealed is not None:
            files[escrow_path(member.name)] = age.encrypt(age.decrypt(sealed, [actor.identity]), owners)
    return files


def escrow_path(name: str) -> str:
    """The escrowed key of an agent, below the vault."""
    return f"agents/{name}/private.key.escrow"


def require_member(opened: Opened, name: str) -> Member:
    """The member of a name. Raises ``NotFound``."""
    member = opened.require_members().members.get(opened.hidden(Kind.MEMBER, name))
    if member is None:
        raise NotFound(f"agent '{name}' not found", "keyhole repo list-agents")
    return member


def require_group(opened: Opened, group: str) -> str:
    """What stands for a group that has a secret, or is granted to somebody. Raises ``NotFound``."""
    group, everybody = opened.hidden(Kind.GROUP, group), opened.require_members()
    known = {each for _, found in opened.secrets.values() for each in found.groups}
    if group not in known and not any(group in each.groups for each in everybody.members.values()):
        raise NotFound(f"there is no group {group!r}", "it comes with its first secret: keyhole repo set GROUP/NAME")
    return group
