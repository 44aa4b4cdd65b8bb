"""The files of a vault in words, a line for each thing: nothing is opened, and nothing is believed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from keyhole.core.errors import KeyholeError
from keyhole.core.strict_json import JsonBounds, parse_object
from keyhole.crypto import age
from keyhole.repo import members, signed
from keyhole.repo.comparing import compare_members
from keyhole.repo.joining import SIGNED_MEMBERS
from keyhole.repo.members import Members
from keyhole.repo.tree import Files

_AGE = b"age-encryption.org/"
_BOUNDS = JsonBounds(depth=8, string=64 * 1024)
_ORDER = ("secret", "version", "removed", "due", "groups", "also", "recipients", "rotated", "created", "expires")


def describe(data: bytes, vault: Files | None = None) -> list[str]:
    """What a file says, in lines.

    Args:
        data: of a signed document, an age file, or anything else.
        vault: where the document before may lie, to say what a list of members changes; it is taken by its digest.
    """
    if data.startswith(_AGE):
        return _sealed(data)
    try:
        document = parse_object(data, _BOUNDS)
        content, signatures = document["content"], document["signatures"]
        if len(document) == 2 and isinstance(content, dict) and isinstance(signatures, dict):
            return _document(data, content, sorted(map(str, signatures)), vault)
    except (KeyholeError, KeyError):
        pass
    try:
        return data.decode().splitlines()
    except UnicodeDecodeError:
        return [f"{len(data)} bytes", f"sha256 {hashlib.sha256(data).hexdigest()}"]


def _sealed(data: bytes) -> list[str]:
    try:
        count = f"{age.stanza_count(data)} stanzas of recipients"
    except KeyholeError:
        count = "damaged: this is no file of age"
    return ["age file", count, f"{len(data)} bytes", f"sha256 {hashlib.sha256(data).hexdigest()}"]


def _document(data: bytes, content: Mapping[str, Any], signers: list[str], vault: Files | None) -> list[str]:
    by = f"signed as {' '.join(signers) or 'nobody'} (not verified here)"
    if "members" in content:
        try:
            return [*_members(data, vault), by]
        except KeyholeError:
            pass
    if "records" in content and isinstance(content["records"], list):
        head = {name: content[name] for name in sorted(content) if name != "records"}
        records = [f"read {_text(each.get('content', each))}" for each in content["records"] if isinstance(each, dict)]
        return [*_fields(head), *records, by]
    return [*_fields(content), by]


def _members(data: bytes, vault: Files | None) -> list[str]:
    document = signed.read(members.KIND, data, "members")
    after = members.read(document)
    lines = [f"members version {after.version}", f"vault {after.vault}"]
    before = _before(after, vault)
    if before is not None:
        lines += [f"since version {before.version}: {line.text}" for line in compare_members(before, after)]
    for member in sorted(after.members.values(), key=lambda each: each.name):
        lines.append(f"{member.role} {member.name}")
        lines += [f"  key {member.recipient.text}", f"  signs with {member.sign.hex() or 'nothing'}"]
        lines += [f"  group {group}" for group in sorted(member.groups)]
    for group, hosts in sorted(after.hosts.items()):
        lines += [f"group {group} may go to {host}" for host in hosts or ("nowhere",)]
    return lines + (["names are hidden"] if after.opaque else [])


def _before(after: Members, vault: Files | None) -> Members | None:
    if vault is None or after.version < 2:
        return None
    try:
        data = vault.read(f"{SIGNED_MEMBERS}/{after.version - 1:06}.json")
        document = None if data is None else signed.read(members.KIND, data, "members")
        return members.read(document) if document is not None and document.digest == after.previous else None
    except KeyholeError:
        return None


def _fields(content: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for name in sorted(content, key=lambda each: (_ORDER.index(each) if each in _ORDER else len(_ORDER), each)):
        value = content[name]
        lines += [f"{name} {_text(each)}" for each in value] if isinstance(value, list) else [f"{name} {_text(value)}"]
    return [line.rstrip() for line in lines]


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name}={_text(each)}" for name, each in sorted(value.items()))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(str(value).split())
