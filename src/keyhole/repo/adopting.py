"""Taking over what something that signs nothing has written: a whole vault of the format, or changes of its own tool.

Nothing is believed before an owner has looked at it: ``review`` says what would be taken over, ``adopt`` signs it. A
value is taken from the file as it is, and sealed again for exactly those who are granted it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from keyhole.core.errors import IntegrityError, InvalidRequest, KeyholeError, PolicyDenied
from keyhole.crypto import age
from keyhole.crypto.age import Identity
from keyhole.repo import sidecar
from keyhole.repo.documents import read_meta, write_manifest, write_meta
from keyhole.repo.for_git import ATTRIBUTES, UNCHANGED
from keyhole.repo.joining import SIGNED_MEMBERS
from keyhole.repo.members import Member, Members, Role
from keyhole.repo.names import group_of, hidden_kind, parse_secret
from keyhole.repo.opened import (
    MANIFEST,
    OWNER,
    Opened,
    meta_path,
    recipients_of,
    sealed_path,
    signed_path,
)
from keyhole.repo.sealing import Files, manifest_of
from keyhole.repo.sidecar import Sidecar
from keyhole.repo.tree import Change


@dataclass(slots=True)
class Review:
    """What something that signs nothing has changed.

    Attributes:
        agents: new or changed ones, each with its groups.
        removed: agents that are gone.
        secrets: new or changed ones.
        gone: secrets whose files are gone.
        notes: what a person should know besides.
    """

    agents: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to be taken over."""
        return not (self.agents or self.removed or self.secrets or self.gone)


def review(opened: Opened) -> Review:
    """Compare the files of the format with what is signed. Raises ``IntegrityError`` for files that cannot be read."""
    found = Review()
    before = {} if opened.members is None else opened.members.members
    for name, groups in opened.manifest.agents.items():
        text = opened.tree.read(f"agents/{name}/public.key")
        if text is None:
            raise IntegrityError(f"agents/{name}/public.key is missing", "restore it, or remove the agent")
        known = before.get(name)
        key = age.parse_recipient(text.decode(errors="replace")).text
        if known is None or known.recipient.text != key or set(known.groups) != set(groups):
            found.agents.append(f"{name} [{' '.join(sorted(groups)) or 'no groups'}] {key}")
    found.removed = [
        member.name
        for member in before.values()
        if member.role is not Role.OWNER and member.name not in opened.manifest.agents
    ]
    present = opened.tree.files("secrets", ".enc")
    for name in present:
        signed = opened.secrets.get(parse_secret(name))
        data = opened.tree.require(sealed_path(name))
        if signed is None or hashlib.sha256(data).hexdigest() != signed[1].digest:
            found.secrets.append(name)
            _note_listed(opened, name, found)
    found.gone = [n for n, (_, each) in opened.secrets.items() if not each.removed and n not in present]
    return found


def _note_listed(opened: Opened, name: str, found: Review) -> None:
    """The format's tool seals for agents that it lists with a secret only, and forgets them with the next grant."""
    data = opened.tree.read(meta_path(name))
    try:
        listed = set() if data is None else set(read_meta(data, f"{name}.meta").agents)
    except KeyholeError:
        found.notes.append(f"{name}.meta cannot be read; its times are taken from now")
        return
    for agent in sorted(listed - set(opened.manifest.readers(name))):
        found.notes.append(f"{agent} is listed for {name} and is granted none of its groups: it will not open it")


def adopt(opened: Opened, identity: Identity, owner: str, now: datetime) -> Change:
    """Sign what is there.

    Args:
        opened: the vault.
        identity: an owner's.
        owner: what the owner is called, in a vault where nothing is signed.
        now: the time, with its zone.

    Raises:
        PolicyDenied: the key is no owner's.
        IntegrityError, NotFound: something cannot be opened with it, so it cannot be taken over.
    """
    before = opened.members
    if opened.opaque:
        _require_ids(opened)
    after, signer = _members(opened, identity, owner)
    files: Files = {}
    if before is None or after != before:
        path = f"{SIGNED_MEMBERS}/{after.version:06}.json"
        files[path] = after.write([(signer, identity.signing)])
    changed: dict[str, Sidecar] = {}
    for name in opened.tree.files("secrets", ".enc"):
        each, ciphertext = _taken(opened, after, name, identity, now)
        if each is not None:
            changed[each.secret] = each
            files[sealed_path(each.secret)] = ciphertext
    present = set(opened.tree.files("secrets", ".enc"))
    for name, (document, each) in opened.secrets.items():
        if not each.removed and name not in present:
            changed[name] = each.gone(document.digest)
    for name, each in changed.items():
        files[signed_path(name)] = each.write(signer, identity.signing)
        files[meta_path(name)] = None if each.removed else write_meta(each.meta(after))
    everything = {name: each for name, (_, each) in opened.secrets.items()} | changed
    files[MANIFEST] = write_manifest(manifest_of(after, everything))
    files[OWNER] = after.owners[0].recipient.text.encode()
    files[ATTRIBUTES] = UNCHANGED
    due = tuple(sorted(name for name, each in changed.items() if each.due))
    return Change("agent-vault: adopt", files, due)


def _require_ids(opened: Opened) -> None:
    """Raises ``InvalidRequest`` for what has its name in clear, which is in the history by then."""
    stems = [part for stem in opened.tree.files("secrets", ".enc") for part in stem.split("/")]
    for name in [*stems, *opened.manifest.agents, *opened.manifest.groups]:
        if not hidden_kind(name):
            raise InvalidRequest(
                f"{name} was written with its name in clear, and names are hidden in this vault",
                "take that commit back, and use keyhole repo set or add-agent",
            )


def _members(opened: Opened, identity: Identity, owner: str) -> tuple[Members, str]:
    """The members as they will be, and who signs it."""
    agents = _agents(opened)
    if opened.members is None:
        text = opened.tree.require(OWNER).decode(errors="replace")
        if age.parse_recipient(text).text != identity.recipient.text:
            raise PolicyDenied("this key is not the owner's", "use the owner's key: --key FILE")
        if owner in agents:
            raise InvalidRequest(f"there is an agent {owner}", "--owner NAME")
        first = Member(owner, Role.OWNER, identity.recipient, identity.signing.public)
        return Members(os.urandom(16).hex(), members={owner: first, **agents}), owner
    me = opened.members.of(identity.recipient)
    if me is None or me.role is not Role.OWNER:
        raise PolicyDenied("only an owner can take over what nobody signed", "use an owner's key: --key FILE")
    kept = {name: m for name, m in opened.members.members.items() if m.role is Role.OWNER or name in agents}
    for name, agent in agents.items():
        known = kept.get(name)
        same = known is not None and known.recipient == agent.recipient
        kept[name] = replace(known, groups=agent.groups) if known is not None and same else agent
    if kept == opened.members.members:
        return opened.members, me.name
    return opened.members.changed(opened.digest, members=kept), me.name


def _agents(opened: Opened) -> Mapping[str, Member]:
    found = {}
    for name, groups in opened.manifest.agents.items():
        text = opened.tree.require(f"agents/{name}/public.key").decode(errors="replace")
        found[name] = Member(name, Role.AGENT, age.parse_recipient(text), b"", tuple(sorted(groups)))
    return found


def _taken(
    opened: Opened, after: Members, name: str, identity: Identity, now: datetime
) -> tuple[Sidecar | None, bytes]:
    """A secret as it will be signed; ``None`` where it is as it was."""
    secret = parse_secret(name)
    data = opened.tree.require(sealed_path(name))
    document, before = opened.secrets.get(secret, (None, None))
    changed = before is None or hashlib.sha256(data).hexdigest() != before.digest
    groups = _groups(opened, secret, before)
    recipients = recipients_of(after, groups, () if before is None else before.besides(opened.require_members()))
    texts = tuple(recipient.text for recipient in recipients)
    if before is not None and not changed and set(before.recipients) == set(texts):
        return None, b""
    ciphertext = age.encrypt(age.decrypt(data, [identity]), recipients)
    meta = opened.tree.read(meta_path(name))
    try:
        known = None if meta is None else read_meta(meta, f"{name}.meta")
    except IntegrityError:
        known = None
    if before is None or document is None:
        each = sidecar.first(secret, groups, ciphertext, texts, now)
    else:
        lost = set(before.recipients) - set(texts)
        due = "" if changed else before.due or ("adopt: it was readable before" if lost else "")
        each = before.next(document.digest, ciphertext, texts, groups=groups, due=due)
    if known is not None and changed:
        each = replace(each, created=known.created, rotated=known.rotated, expires=known.expires)
    return each, ciphertext


def _groups(opened: Opened, secret: str, before: Sidecar | None) -> tuple[str, ...]:
    listed = tuple(name for name, secrets in opened.manifest.groups.items() if secret in secrets)
    return listed or (before.groups if before is not None and not before.removed else ()) or (group_of(secret),)
