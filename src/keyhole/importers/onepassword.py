"""Exports of 1Password: ``.1pux`` (a ZIP file with one JSON document), and CSV."""

from __future__ import annotations

import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.path import DEFAULT_FIELD
from keyhole.core.strict_json import JsonBounds, parse_object
from keyhole.importers.collect import Collector, objects, shown
from keyhole.importers.found import LIMITS, Item, Origin, Report
from keyhole.importers.rows import rows, table

TITLE = "1Password export"
PLACES: tuple[str, ...] = ()
SEEN = "lay in a file without encryption"
_DATA = "export.data"
_MOST_FILES = 20_000
_BOUNDS = JsonBounds(LIMITS.depth, LIMITS.file, LIMITS.nodes)
_TEXTS = ("concealed", "string", "totp", "url", "phone", "menu", "gender", "creditCardType", "creditCardNumber")
_CSV = {"username": "username", "password": "password", "otpauth": "totp", "notes": "notes"}
_HEAD = ["Title", "Url", "Username", "Password", "OTPAuth", "Favorite", "Archived", "Tags", "Notes"]
_SSH, _API = "114", "112"
_LOGINS = ("001", "005", "110")
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
)
"""What the library raises for an archive that is none, of which kind whatever."""


def parse(content: bytes, origin: Origin) -> Report:
    """See the contract of the shelf. Attached files stay in the archive, and are named."""
    if len(content) > LIMITS.file:
        raise InvalidRequest(f"it is larger than {LIMITS.file // 2**20} MiB", "export less at a time")
    found = Collector(origin)
    if content.startswith(b"PK"):
        _take_vaults(parse_object(_unzipped(content), _BOUNDS), found)
    else:
        _take_rows(content, found)
    return found.report(SEEN)


def _unzipped(content: bytes) -> bytes:
    """The document in the archive, read no further than the bound, whatever the archive says of its size."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            if len(names) > _MOST_FILES or names.count(_DATA) != 1:
                raise InvalidRequest(f"it is no export of 1Password: it has no {_DATA}, or two", "export again as 1PUX")
            with archive.open(_DATA) as file:
                data = file.read(LIMITS.file + 1)
    except _UNREADABLE:
        raise InvalidRequest("it is a ZIP file that cannot be read", "export again as 1PUX") from None
    if len(data) > LIMITS.file:
        raise InvalidRequest(f"what is in it is larger than {LIMITS.file // 2**20} MiB", "export less at a time")
    return data


def _take_vaults(document: Mapping[str, Any], found: Collector) -> None:
    if not isinstance(document.get("accounts"), list):
        raise InvalidRequest("it is no export of 1Password: it has no accounts", "export again as 1PUX")
    for account in objects(document["accounts"]):
        for vault in objects(account.get("vaults")):
            name = str(_object(vault.get("attrs")).get("name") or "vault")
            for number, wrapped in enumerate(objects(vault.get("items"))):
                item = _object(wrapped.get("item")) or wrapped
                _take_item(item, name, number, found)


def _take_item(item: Mapping[str, Any], vault: str, number: int, found: Collector) -> None:
    overview, details = _object(item.get("overview")), _object(item.get("details"))
    title = str(overview.get("title") or f"item-{number + 1}")
    where = f"{shown(vault)}: {shown(title)}"
    if item.get("trashed") or item.get("state") in {"archived", "deleted"}:
        found.skip(title, where, "is archived, or in the trash")
        return
    if details.get("documentAttributes"):
        found.skip(title, where, "is a file, which stays in the archive")
    if objects(details.get("passwordHistory")):
        found.skip(f"{title}#passwordHistory", where, "is an older password")
    fields = dict[str, str | None]()
    for field, text in _fields(details, title, where, found):
        if field in fields:
            found.skip(f"{title}#{field}", where, "has the name of another field")
        else:
            fields[field] = text
    url = overview.get("url")
    category = str(item.get("categoryUuid") or "")
    kind = "ssh-key" if category == _SSH else "password" if category in _LOGINS else "custom"
    if category == _API and "credential" in fields and DEFAULT_FIELD not in fields:
        kind, fields = "api-key", {DEFAULT_FIELD: fields.pop("credential"), **fields}
    labels = {"url": url[:512]} if isinstance(url, str) and url else {}
    found.take([vault, title], fields, where, kind=kind, labels=labels)


def _fields(details: Mapping[str, Any], title: str, where: str, found: Collector) -> Iterator[tuple[str, str]]:
    """The texts of an item: its user name and password, its note, then its sections."""
    for field in objects(details.get("loginFields")):
        text = field.get("value")
        name = field.get("designation") or field.get("name") or field.get("id")
        if isinstance(text, str) and text and name and field.get("fieldType") not in {"B", "C", "I"}:
            yield str(name), text
    for name, key in (("password", "password"), ("notes", "notesPlain")):
        if isinstance(details.get(key), str) and details[key]:
            yield name, details[key]
    for section in objects(details.get("sections")):
        for number, field in enumerate(objects(section.get("fields"))):
            name = str(field.get("title") or field.get("id") or f"field-{number + 1}")
            text, why = _value(_object(field.get("value")))
            if why:
                found.skip(f"{title}#{name}", where, why)
            elif text:
                yield name, text


def _value(value: Mapping[str, Any]) -> tuple[str, str]:
    """The text of a field, or why there is none to be taken."""
    for kind, each in value.items():
        if each in (None, ""):
            return "", ""
        if kind in _TEXTS and isinstance(each, str):
            return each, ""
        if kind == "email":
            return str(_object(each).get("email_address") or "") if isinstance(each, dict) else str(each), ""
        if kind == "sshKey":
            key = _object(each).get("privateKey")
            return (key, "") if isinstance(key, str) else ("", "is an SSH key without its private part")
        if kind in {"date", "monthYear"} and isinstance(each, int):
            return str(each), ""
        return "", "is a file, an address or a reference, and no text"
    return "", ""


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _take_rows(content: bytes, found: Collector) -> None:
    for line, row in rows(content, "title"):
        title, where = row.get("title") or f"line-{line}", f"line {line}"
        if (row.get("archived") or "").lower() == "true":
            found.skip(title, where, "is archived, or in the trash")
            continue
        fields: dict[str, str | None] = {field: row[column] for column, field in _CSV.items() if row.get(column)}
        for column in row.keys() - {*_CSV, *(name.lower() for name in _HEAD)}:
            if row[column]:
                fields[column] = row[column]
        labels = {"url": row["url"][:512]} if row.get("url") else {}
        found.take(title.split("/"), fields, where, kind="password", labels=labels)


def write(items: Sequence[Item]) -> bytes:
    """A table that 1Password imports, in clear. Each field that it has no column for is a row of its own."""
    lines = []
    for item in items:
        fields = dict(item.fields)
        columns = [fields.pop(field, "") for field in ("username", "password", "totp", "notes")]
        if any(columns):
            lines.append([item.name, "", *columns[:3], "", "", item.name.partition("/")[0], columns[3]])
        for field, text in fields.items():
            title = item.name if field == DEFAULT_FIELD and not any(columns) else f"{item.name}/{field}"
            lines.append([title, "", "", text, "", "", "", item.name.partition("/")[0], ""])
    return table(_HEAD, lines)
