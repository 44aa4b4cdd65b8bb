"""Exports of Bitwarden and Vaultwarden: JSON, JSON with a password of its own, and CSV.

An export that is sealed with the account's key opens in that account alone, and is refused.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.strict_json import JsonBounds, parse_object
from keyhole.core.value import Secret
from keyhole.crypto.importers.bitwarden import Stretching
from keyhole.importers.collect import Collector, objects, shown
from keyhole.importers.found import LIMITS, Item, Origin, Report
from keyhole.importers.rows import rows, table

TITLE = "Bitwarden export"
PLACES: tuple[str, ...] = ()
PLAIN = "lay in a file without encryption"
WEAK = "lay in a file whose password was stretched too little to withstand guessing"
_BOUNDS = JsonBounds(LIMITS.depth, LIMITS.file, LIMITS.nodes)
_LOGIN, _NOTE, _CARD, _IDENTITY, _SSH = 1, 2, 3, 4, 5
_HIDDEN, _LINKED = 1, 3
_PARTS = {_CARD: "card", _IDENTITY: "identity", _SSH: "sshKey"}

_CSV_HEAD = "folder,favorite,type,name,notes,fields,reprompt,login_uri,login_username,login_password,login_totp"


def parse(content: bytes, origin: Origin) -> Report:
    """See the contract of the shelf. Without a password it raises ``NotFound``, with a wrong one ``IntegrityError``."""
    if len(content) > LIMITS.file:
        raise InvalidRequest(f"it is larger than {LIMITS.file // 2**20} MiB", "export less at a time")
    found = Collector(origin)
    content = content.removeprefix(b"\xef\xbb\xbf")
    if not content.lstrip().startswith(b"{"):
        _take_rows(content, found)
        return found.report(PLAIN)
    document, seen = parse_object(content, _BOUNDS), PLAIN
    if document.get("encrypted"):
        document, weak = _opened(document, origin)
        seen = WEAK if weak else ""
    _take_items(document, found)
    return found.report(seen)


def _opened(document: Mapping[str, Any], origin: Origin) -> tuple[dict[str, Any], bool]:
    if not document.get("passwordProtected"):
        raise InvalidRequest(
            "the export is sealed with the account's key, which opens it there only",
            "export again, as JSON with a password: the file's own",
        )
    password = origin.opens.password
    if password is None:
        raise NotFound("there is no password to open the export with", "--password-file FILE")
    try:
        stretching = Stretching(
            str(document["salt"]),
            int(document["kdfType"]),
            int(document["kdfIterations"]),
            int(document.get("kdfMemory") or 64),
            int(document.get("kdfParallelism") or 4),
        )
        sealed, proof = str(document["data"]), str(document["encKeyValidation_DO_NOT_EDIT"])
    except (KeyError, TypeError, ValueError):
        raise InvalidRequest("the export lacks a part of what opens it", "export again") from None
    key = stretching.key(password.reveal())
    key.open(proof)
    return parse_object(key.open(sealed), _BOUNDS), stretching.weak


def _take_items(document: Mapping[str, Any], found: Collector) -> None:
    items = document.get("items")
    if not isinstance(items, list):
        raise InvalidRequest("it is no export of Bitwarden: it has no items", "export again as JSON")
    folders = {str(each.get("id")): str(each.get("name") or "") for each in objects(document.get("folders"))}
    folders |= {str(each.get("id")): str(each.get("name") or "") for each in objects(document.get("collections"))}
    for number, item in enumerate(objects(items)):
        name = str(item.get("name") or f"item-{number + 1}")
        shared = item.get("collectionIds")
        homes = [item.get("folderId"), *(shared if isinstance(shared, list) else [])]
        home = next((folders[str(each)] for each in homes if str(each) in folders), "")
        where = f"item {shown(name)}"
        if item.get("deletedDate"):
            found.skip(name, where, "is in the trash")
            continue
        for history in objects(item.get("passwordHistory"))[:1]:
            if history.get("password"):
                found.skip(f"{name}#passwordHistory", where, "is an older password")
        login = item.get("login") if isinstance(item.get("login"), dict) else {}
        if isinstance(login, dict) and login.get("fido2Credentials"):
            found.skip(f"{name}#passkey", where, "is a passkey, which only a browser uses")
        kind = _kind(item)
        found.take(
            [*home.split("/"), name] if home else [name],
            dict(_fields(item, name, where, found)),
            where,
            kind="ssh-key" if kind == _SSH else "password" if kind == _LOGIN else "custom",
            labels=_labels(item),
        )


def _kind(item: Mapping[str, Any]) -> int:
    kind = item.get("type")
    return kind if isinstance(kind, int) else 0


def _fields(item: Mapping[str, Any], name: str, where: str, found: Collector) -> Iterator[tuple[str, str | None]]:
    """The texts of an item: what it is for first, then what its user has added."""
    kind = _kind(item)
    login = item.get("login")
    given = dict[str, str]()
    if kind == _LOGIN and isinstance(login, dict):
        given = {field: login[field] for field in ("username", "password", "totp") if isinstance(login.get(field), str)}
    elif kind in _PARTS and isinstance(item.get(_PARTS[kind]), dict):
        given = {field: text for field, text in item[_PARTS[kind]].items() if isinstance(text, str)}
    elif kind not in {_LOGIN, _NOTE}:
        found.skip(name, where, "is of a kind that is not known here")
    if isinstance(item.get("notes"), str) and item["notes"]:
        given["notes"] = item["notes"]
    yield from ((field, text) for field, text in given.items() if text)
    for number, extra in enumerate(objects(item.get("fields"))):
        field, text = str(extra.get("name") or f"field-{number + 1}"), extra.get("value")
        if extra.get("type") == _LINKED:
            found.skip(f"{name}#{field}", where, "only points to another field")
        elif field in given:
            found.skip(f"{name}#{field}", where, "has the name of another field")
        elif isinstance(text, str) and text:
            given[field] = text
            yield field, text


def _labels(item: Mapping[str, Any]) -> dict[str, str]:
    login = item.get("login")
    uris = login.get("uris") if isinstance(login, dict) else None
    first = next((each.get("uri") for each in objects(uris) if isinstance(each.get("uri"), str)), "")
    return {"url": first[:512]} if first else {}


def _take_rows(content: bytes, found: Collector) -> None:
    for line, row in rows(content, "login_password"):
        fields: dict[str, str | None] = {
            field: row[column]
            for field, column in (
                ("username", "login_username"),
                ("password", "login_password"),
                ("totp", "login_totp"),
                ("notes", "notes"),
            )
            if row.get(column)
        }
        name, where = row.get("name") or f"line-{line}", f"line {line}"
        for text in (row.get("fields") or "").splitlines():
            field, colon, value = text.partition(": ")
            if not colon or field in fields:
                found.skip(f"{name}#{field if colon else 'fields'}", where, "cannot be told from the line before it")
            else:
                fields[field] = value
        home = row.get("folder") or (row.get("collections") or "").partition(",")[0]
        parts = [*home.split("/"), name] if home else [name]
        kind = "password" if row.get("type", "login") == "login" else "custom"
        found.take(
            parts, fields, where, kind=kind, labels={"url": row["login_uri"][:512]} if row.get("login_uri") else {}
        )


def write(items: Sequence[Item], password: Secret | None = None) -> bytes:
    """An export that Bitwarden imports, sealed with a password; in clear without one."""
    content = json.dumps(_document(items), indent=2, ensure_ascii=False).encode()
    if password is None:
        return content
    stretching = Stretching.fresh()
    key = stretching.key(password.reveal())
    sealed = {
        "encrypted": True,
        "passwordProtected": True,
        "salt": stretching.salt,
        "kdfType": stretching.kind,
        "kdfIterations": stretching.iterations,
        "encKeyValidation_DO_NOT_EDIT": key.seal(str(uuid.uuid4()).encode()),
        "data": key.seal(content),
    }
    return json.dumps(sealed, indent=2).encode()


def _document(items: Sequence[Item]) -> dict[str, Any]:
    homes = dict.fromkeys(item.name.rpartition("/")[0] for item in items if "/" in item.name)
    ids = {home: str(uuid.uuid5(uuid.NAMESPACE_URL, f"keyhole:folder:{home}")) for home in homes}
    return {
        "encrypted": False,
        "folders": [{"id": each, "name": home} for home, each in ids.items()],
        "items": [_item(item, ids) for item in items],
    }


def _item(item: Item, ids: Mapping[str, str]) -> dict[str, Any]:
    home, _, name = item.name.rpartition("/")
    fields = dict(item.fields)
    shape: dict[str, Any] = {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"keyhole:{item.name}")),
        "organizationId": None,
        "folderId": ids.get(home),
        "reprompt": 0,
        "name": name,
        "favorite": False,
        "notes": fields.pop("notes", None),
        "collectionIds": None,
    }
    if "password" in fields:
        login = {field: fields.pop(field, None) for field in ("username", "password", "totp")}
        shape |= {"type": _LOGIN, "login": {"uris": [], **login}}
    else:
        shape |= {"type": _NOTE, "secureNote": {"type": 0}}
    shape["fields"] = [{"name": field, "value": text, "type": _HIDDEN} for field, text in fields.items()]
    return shape


def write_table(items: Sequence[Item]) -> bytes:
    """The same as CSV, in clear: a field of several lines cannot be told apart there, and is refused."""
    lines = []
    for item in items:
        home, _, name = item.name.rpartition("/")
        fields = dict(item.fields)
        kind = "login" if "password" in fields else "note"
        username, password, totp, notes = (fields.pop(f, "") for f in ("username", "password", "totp", "notes"))
        if any("\n" in text or "\n" in field or ": " in field for field, text in fields.items()):
            raise InvalidRequest(f"a field of {item.name} has several lines, which CSV cannot say", "write JSON")
        extra = "\n".join(f"{field}: {text}" for field, text in fields.items())
        lines.append([home, "", kind, name, notes, extra, "0", "", username, password, totp])
    return table(_CSV_HEAD.split(","), lines)
