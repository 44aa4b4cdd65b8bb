"""What ``doppler secrets download`` writes: JSON (also that of ``doppler secrets --json``), or dotenv."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace

from keyhole.core.errors import InvalidRequest
from keyhole.core.path import DEFAULT_FIELD
from keyhole.core.strict_json import JsonBounds, parse_object
from keyhole.importers.collect import Collector, segment
from keyhole.importers.found import LIMITS, Item, Origin, Report
from keyhole.importers.rows import rows
from keyhole.importers.text import decoded, first, scan

TITLE = "Doppler download"
PLACES: tuple[str, ...] = ()
SEEN = "lay in a file without encryption"
_OWN = ("DOPPLER_PROJECT", "DOPPLER_CONFIG", "DOPPLER_ENVIRONMENT")
_LINE = re.compile(
    r'(?:([A-Za-z_][A-Za-z0-9_]*)=(?:"((?:[^"\\]|\\.)*)"|([^"\r\n]*))(?:\r?\n|\Z)|[^\n]+(?:\n|\Z)|\n)', re.DOTALL
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


def parse(content: bytes, origin: Origin) -> Report:
    """See the contract of the shelf. The project and the config are the group, where the file says them."""
    early = Collector(origin)
    begin = content.removeprefix(b"\xef\xbb\xbf").lstrip()
    if begin.startswith(b"{"):
        document = parse_object(content.removeprefix(b"\xef\xbb\xbf"), JsonBounds(8, LIMITS.file, LIMITS.nodes))
        texts = {name: _value(value) for name, value in document.items()}
    elif begin[:5].lower() == b"name,":
        texts = {row["name"]: row.get("value", "") for _, row in rows(content, "value")}
    else:
        texts = _pairs(content, early)
    project, config = (texts.get(name) for name in _OWN[:2])
    group = f"{segment(project)}.{segment(config)}" if project and config else origin.group
    found = Collector(replace(origin, group=group))
    for skipped in early.report().skipped:
        found.skip(skipped.name, skipped.where, skipped.why)
    for name, text in texts.items():
        if name in _OWN:
            found.skip(name, "Doppler", "is set by Doppler, and no secret")
        elif not isinstance(text, str):
            found.skip(name, "Doppler", "has no value: it is restricted, or none was downloaded")
        else:
            found.take([name], {DEFAULT_FIELD: text}, name, kind="custom", variable=name)
    return found.report(SEEN)


def _pairs(content: bytes, found: Collector) -> dict[str, str | None]:
    """``NAME="value"`` a line, as Doppler quotes; what follows another rule is said, not guessed."""
    text = scan(content)
    texts, position, line = dict[str, str | None](), first(text), 1
    while position < len(text) and (match := _LINE.match(text, position)):
        position = match.end()
        here, line = line, line + match[0].count("\n")
        if match[1] is None:
            if match[0].strip() and not match[0].lstrip().startswith("#"):
                found.skip("", f"line {here}", 'is not NAME="value"')
            continue
        value = decoded(match[2] or match[3] or "")
        texts[match[1]] = None if value is None else _ESCAPE.sub(lambda e: {"n": "\n"}.get(e[1], e[1]), value)
    return texts


def _value(value: object) -> str | None:
    if isinstance(value, dict):
        value = value.get("computed")
    return value if isinstance(value, str) else None


def write(items: Sequence[Item]) -> bytes:
    """JSON for ``doppler secrets upload``: variables, since Doppler has no other names. In clear."""
    found: dict[str, str] = {}
    for item in items:
        for field, text in item.fields.items():
            whole = item.name if field == DEFAULT_FIELD else f"{item.name}_{field}"
            variable = re.sub(r"[^A-Z0-9]+", "_", whole.upper()).strip("_")
            if variable in found or not _VARIABLE.fullmatch(variable):
                raise InvalidRequest(f"two values would be called {variable}, or it is no variable", "leave one out")
            found[variable] = text
    return (json.dumps(found, indent=2, ensure_ascii=False) + "\n").encode()
