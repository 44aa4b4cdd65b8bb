"""Envelopes of AgenticMail's SecureVault: one, a configuration that has some, or rows of its table as JSON.

Rows are what ``sqlite3 -json FILE 'SELECT * FROM vault_entries'`` prints, or ``psql``'s ``json_agg``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from keyhole.core.errors import IntegrityError, InvalidRequest, NotFound
from keyhole.core.path import DEFAULT_FIELD
from keyhole.core.strict_json import JsonBounds, parse_json
from keyhole.core.value import Secret
from keyhole.crypto.importers import agenticmail
from keyhole.importers.collect import Collector, segment
from keyhole.importers.found import LIMITS, Found, Item, Origin, Report

TITLE = "AgenticMail SecureVault"
PLACES: tuple[str, ...] = ()
FALLBACK = "opens with the password that AgenticMail uses where none is set, and that everybody knows"
_BOUNDS = JsonBounds(LIMITS.depth, LIMITS.file, LIMITS.nodes)
_AGENTS = "AgenticMail hands its password to every agent: each of them could open all of these"


def parse(content: bytes, origin: Origin) -> Report:
    """See the contract of the shelf. Takes a third of a second for each envelope."""
    found = Collector(origin)
    password = origin.opens.password
    if password is None:
        raise NotFound("there is no password to open envelopes with", "AGENTICMAIL_VAULT_KEY, or --password-file FILE")
    count = 0
    for parts, where, envelope in _envelopes(_document(content)):
        count += 1
        if count > LIMITS.entries:
            raise InvalidRequest(f"it has more than {LIMITS.entries} envelopes", "split it")
        _take(parts, where, envelope, password, found)
    if not count:
        raise InvalidRequest("it has no envelope of AgenticMail", "name the file with the rows of vault_entries")
    found.note(_AGENTS)
    return found.report()


def _take(parts: list[str], where: str, envelope: dict[str, Any], password: Secret, found: Collector) -> None:
    name = "/".join(parts)
    try:
        value, seen = _opened(envelope, password)
    except (IntegrityError, InvalidRequest) as error:
        found.skip(name, where, error.reason, failed=True)
        return
    text = _text(value)
    if not found.refused(name, text, where, references=False):
        named = [segment(part) for part in parts]
        named = [segment(found.origin.group), *named] if len(named) == 1 else named
        found.add(Found("/".join(named), {DEFAULT_FIELD: value}, where, kind="custom", seen=seen))


def _opened(envelope: dict[str, Any], password: Secret) -> tuple[Secret, str]:
    """The value, and whether everybody could have opened it."""
    given = password.reveal()
    try:
        return agenticmail.open_envelope(envelope, given), FALLBACK if given == agenticmail.FALLBACK else ""
    except IntegrityError:
        if given == agenticmail.FALLBACK:
            raise
        try:
            return agenticmail.open_envelope(envelope, agenticmail.FALLBACK), FALLBACK
        except IntegrityError:
            pass
        raise


def _text(value: Secret) -> str | None:
    try:
        return value.reveal().decode()
    except UnicodeDecodeError:
        return None


def _document(content: bytes) -> Any:
    """One document, or one a line."""
    if len(content) > LIMITS.file:
        raise InvalidRequest(f"it is larger than {LIMITS.file // 2**20} MiB", "split it")
    lines = [line for line in content.split(b"\n") if line.strip()]
    if len(lines) > 1 and all(line.lstrip().startswith(b"{") and line.rstrip().endswith(b"}") for line in lines):
        return [parse_json(line, _BOUNDS) for line in lines[: LIMITS.entries + 1]]
    return parse_json(content, _BOUNDS)


def _envelopes(document: Any) -> Iterator[tuple[list[str], str, dict[str, Any]]]:
    """Name, place and content of every envelope, wherever in the document it stands."""
    stack: list[tuple[list[str], str, Any]] = [([], "document", document)]
    while stack:
        parts, where, node = stack.pop()
        envelope = _envelope(node)
        if envelope is not None:
            yield parts or ["secret"], where, envelope
        elif isinstance(node, list):
            named = [(_row(each, parts, number), f"{where}, {number + 1}", each) for number, each in enumerate(node)]
            stack += reversed(named)
        elif isinstance(node, dict):
            row = _envelope(node.get("encrypted_value"))
            if row is not None:
                yield parts or ["secret"], where, row
                continue
            stack += reversed([([*parts, key], f"{where}, {key}", each) for key, each in node.items()])


def _row(node: Any, parts: list[str], number: int) -> list[str]:
    """A row of the table names itself; what stands in another list has its number."""
    if isinstance(node, dict) and isinstance(node.get("name"), str):
        org = node.get("org_id")
        return [*([org] if isinstance(org, str) and org else []), *node["name"].split("/")]
    return [*parts, str(number + 1)]


def _envelope(node: Any) -> dict[str, Any] | None:
    """The envelope that a value is or has: an object, the text of one, or one below ``_encrypted``."""
    if isinstance(node, dict) and isinstance(node.get("_encrypted"), str):
        node = node["_encrypted"]
    if isinstance(node, str) and re.match(r'\s*\{\s*"v"', node):
        try:
            node = parse_json(node.encode(), JsonBounds(4, LIMITS.value * 8, 64 + LIMITS.value * 4))
        except InvalidRequest:
            return None
    return node if agenticmail.is_envelope(node) else None


def write(items: Sequence[Item], password: Secret) -> bytes:
    """Rows as ``parse`` reads them; what is not the field ``value`` has its field after the name."""
    rows = []
    for item in items:
        for field, text in item.fields.items():
            name = item.name if field == DEFAULT_FIELD else f"{item.name}.{field}"
            rows.append({"name": name, "encrypted_value": agenticmail.seal_envelope(text.encode(), password.reveal())})
    return (json.dumps(rows, indent=1) + "\n").encode()
