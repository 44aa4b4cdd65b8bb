"""What is wrong with a repo vault, or soon will be: everything that can be told without a key, and more with one."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from keyhole.core.errors import KeyholeError
from keyhole.crypto import age
from keyhole.crypto.age import Identity
from keyhole.repo import sharing
from keyhole.repo.documents import read_manifest
from keyhole.repo.members import Role
from keyhole.repo.opened import MANIFEST, Opened, recipients_of, sealed_path
from keyhole.repo.sealing import manifest_of

_SOON = timedelta(days=30)


@dataclass(slots=True)
class Findings:
    """What was found, in words without a value.

    Attributes:
        errors: has to be put right.
        warnings: should be looked at.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check(opened: Opened, now: datetime, identity: Identity | None = None) -> Findings:
    """Look at everything in a vault.

    Args:
        opened: as it was verified.
        now: the time, with its zone.
        identity: an owner's; with it every secret and every escrowed key is opened as well.
    """
    found = Findings()
    if opened.members is None:
        found.warnings.append("nothing here is signed: keyhole repo adopt")
    for name in opened.names():
        _check_secret(opened, name, now, found)
        if identity is not None:
            try:
                age.decrypt(opened.ciphertext(name), [identity])
            except KeyholeError as error:
                found.errors.append(f"{name} cannot be opened with this key: {error.reason}")
    check_members(opened, found, identity)
    found.errors += sharing.problems(opened)
    for name in opened.tree.files("secrets", ".enc"):
        if name not in opened.names():
            found.warnings.append(f"{sealed_path(name)} belongs to nothing")
    return found


def _check_secret(opened: Opened, name: str, now: datetime, found: Findings) -> None:
    try:
        ciphertext = opened.ciphertext(name)
        age.require_file(ciphertext)
    except KeyholeError as error:
        found.errors.append(error.reason)
        return
    meta = opened.meta(name)
    if meta is None:
        found.errors.append(f"{name} has no readable .meta")
    elif meta.expires is not None and meta.expires <= now:
        found.errors.append(f"{name} has expired")
    elif meta.expires is not None and meta.expires <= now + _SOON:
        found.warnings.append(f"{name} expires on {meta.expires:%Y-%m-%d}")
    if opened.members is None:
        return
    each = opened.sidecar(name)
    wanted = recipients_of(opened.members, each.groups, each.also)
    if set(each.recipients) != {recipient.text for recipient in wanted}:
        found.errors.append(f"{name} is not sealed for exactly those who are granted it")
    elif wrong := age.unlisted(ciphertext, wanted):
        found.errors.append(f"{name}: {wrong}")
    if each.due:
        found.errors.append(f"{name} is due for a new value at its source ({each.due})")


def check_members(opened: Opened, found: Findings, identity: Identity | None) -> None:
    """Look at what is told of the members in the format's own files, and with a key at what is escrowed."""
    if opened.members is None:
        return
    granted = {group for member in opened.members.members.values() for group in member.groups}
    present = {name: each for name, (_, each) in opened.secrets.items()}
    used = {group for each in present.values() if not each.removed for group in each.groups}
    for member in opened.members.members.values():
        if not member.recipient.native:
            kind = member.recipient.kind
            found.warnings.append(f"the key of {member.name} is of {kind}, which other tools of the format do not open")
        if member.role is Role.OWNER:
            continue
        if not member.groups:
            found.warnings.append(f"{member.name} has no groups")
        if opened.tree.read(f"agents/{member.name}/public.key") != member.recipient.text.encode():
            found.errors.append(f"agents/{member.name}/public.key is not the key of {member.name}")
        if member.due:
            found.errors.append(f"{member.name} is due for a new key ({member.due}): keyhole repo recover-agent")
        if member.role is Role.AGENT:
            _check_escrow(opened, member.name, member.recipient.text, found, identity)
    found.warnings += [f"the group {group} is empty" for group in sorted(granted - used)]
    found.warnings += [f"the group {group} is granted to nobody" for group in sorted(used - granted)]
    if not agrees(opened):
        found.errors.append("manifest.yaml says something else than what is signed")


def agrees(opened: Opened) -> bool:
    """Whether the format's own list of members and secrets is what is signed."""
    present = {name: each for name, (_, each) in opened.secrets.items()}
    data = opened.tree.read(MANIFEST)
    try:
        return data is not None and read_manifest(data) == manifest_of(opened.require_members(), present)
    except KeyholeError:
        return False


def _check_escrow(opened: Opened, name: str, recipient: str, found: Findings, identity: Identity | None) -> None:
    data = opened.tree.read(f"agents/{name}/private.key.escrow")
    if data is None:
        found.errors.append(f"{name} has no escrowed key")
        return
    if identity is None:
        return
    try:
        kept = age.parse_identity(age.decrypt(data, [identity]).decode(errors="replace"))
    except KeyholeError as error:
        found.errors.append(f"the escrowed key of {name} cannot be opened: {error.reason}")
        return
    if kept.recipient.text != recipient:
        found.errors.append(f"the escrowed key of {name} is another one")
        return
    for secret in opened.names():
        each = opened.sidecar(secret)
        if recipient in each.recipients:
            try:
                age.decrypt(opened.ciphertext(secret), [kept])
            except KeyholeError:
                found.errors.append(f"{secret} does not open for {name}, who is granted it")
