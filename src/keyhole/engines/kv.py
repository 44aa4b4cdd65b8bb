"""Versioned secrets, as Vault's KV version 2, with what a team wants to know of a secret: type, owner, tags, expiry.

One entry ``k/NAME`` holds the metadata and the data of the current version, so that the usual read is one entry;
``v/NUMBER/NAME`` holds the data of each older version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from keyhole.core.errors import Expired, InvalidRequest, NotFound
from keyhole.core.lease import parse_duration
from keyhole.core.path import parse_path
from keyhole.core.request import Operation, Reply
from keyhole.core.times import format_time, parse_time
from keyhole.core.value import Secret
from keyhole.engines import Call, Context, Engine, Field, Route

DEFAULT_VERSIONS = 10
TYPES = ("api-key", "oauth-token", "password", "certificate", "connection-string", "ssh-key", "custom")
_CONFIG = "config"
_LABELS = 64


@dataclass(slots=True)
class _Document:
    """Metadata of a secret and the data of its current version, as stored."""

    created: float
    updated: float
    current: int = 0
    oldest: int = 0
    max_versions: int = 0
    cas_required: bool = False
    delete_after: int = 0
    custom: dict[str, str] | None = None
    type: str = ""
    owner: str = ""
    tags: list[str] = field(default_factory=list)
    expires: float = 0.0
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    data: Any = None
    revision: int = 0

    def encode(self) -> bytes:
        """JSON, without the revision that the store keeps."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name != "revision"}
        return json.dumps(fields, separators=(",", ":")).encode()

    def describe(self, number: int) -> dict[str, Any]:
        """The ``metadata`` block of one version."""
        version = self.versions[str(number)]
        return {
            "created_time": format_time(version["created"]),
            "deletion_time": format_time(version["deleted"]) if version["deleted"] else "",
            "destroyed": version["destroyed"],
            "version": number,
            "custom_metadata": self.custom,
        }

    def gone(self, number: int, now: float) -> bool:
        """Is the version deleted or destroyed?"""
        version = self.versions[str(number)]
        return version["destroyed"] or bool(version["deleted"] and version["deleted"] <= now)


async def _load(context: Context, name: str) -> _Document | None:
    item = await context.storage.get_one(f"k/{name}")
    if item.data is None:
        return None
    return _Document(revision=item.revision, **json.loads(item.data))


async def _required(context: Context, name: str) -> _Document:
    document = await _load(context, name)
    if document is None:
        raise NotFound(f"there is no secret {name!r}", "keyhole list")
    return document


async def _tombstone(context: Context, path: str) -> int:
    revision: int = (await context.storage.get_one(path)).revision
    return revision


async def _settings(context: Context) -> dict[str, Any]:
    item = await context.storage.get_one(_CONFIG)
    defaults = {"max_versions": 0, "cas_required": False, "delete_version_after": "0s"}
    return defaults if item.data is None else {**defaults, **json.loads(item.data)}


def _name(call: Call) -> str:
    return parse_path(call.params["path"])


async def _exists(context: Context, params: Mapping[str, str]) -> bool:
    return await _load(context, parse_path(params["path"])) is not None


async def _data(context: Context, document: _Document, name: str, number: int) -> Any:
    if number == document.current:
        return document.data
    item = await context.storage.get_one(f"v/{number}/{name}")
    return json.loads(item.data) if item.data is not None else None


def _check_write(call: Call, document: _Document | None, settings: Mapping[str, Any]) -> None:
    options = call.data.get("options") or {}
    cas = options.get("cas")
    current = document.current if document else 0
    if cas is None:
        if settings["cas_required"] or (document is not None and document.cas_required):
            raise InvalidRequest("check-and-set parameter required for this call")
    elif isinstance(cas, bool) or not isinstance(cas, int | str) or str(cas) != str(current):
        raise InvalidRequest("check-and-set parameter did not match the current version", f"it is {current}")


async def _store_version(context: Context, name: str, document: _Document | None, data: Any) -> dict[str, Any]:
    """Write ``data`` as the next version; raises ``Conflict`` when somebody else wrote meanwhile."""
    settings = await _settings(context)
    writes: list[tuple[str, bytes, int]] = []
    deletes: list[tuple[str, int]] = []
    if document is None:
        document = _Document(context.now, context.now, revision=await _tombstone(context, f"k/{name}"))
    elif not document.versions.get(str(document.current), {"destroyed": True})["destroyed"]:
        path = f"v/{document.current}/{name}"
        writes.append((path, json.dumps(document.data).encode(), await _tombstone(context, path)))
    document.current += 1
    document.updated = context.now
    document.data = data
    after = document.delete_after or parse_duration(settings["delete_version_after"], name="delete_version_after")
    deleted = context.now + after if after else 0
    document.versions[str(document.current)] = {"created": context.now, "deleted": deleted, "destroyed": False}
    keep = document.max_versions or settings["max_versions"] or DEFAULT_VERSIONS
    for number in [n for n in document.versions if int(n) <= document.current - keep]:
        del document.versions[number]
        path = f"v/{number}/{name}"
        writes = [write for write in writes if write[0] != path]
        item = await context.storage.get_one(path)
        if item.data is not None:
            deletes.append((path, item.revision))
    document.oldest = min(map(int, document.versions))
    writes.append((f"k/{name}", document.encode(), document.revision))
    await context.storage.change(writes, deletes)
    return document.describe(document.current)


async def write(context: Context, call: Call) -> Reply:
    """A new version of a secret."""
    data = call.data.get("data")
    if not isinstance(data, dict):
        raise InvalidRequest("no data provided", 'send {"data": {"value": …}}')
    name = _name(call)
    document = await _load(context, name)
    _check_write(call, document, await _settings(context))
    if document is not None:
        _apply(document, call.data.get("options") or {}, context)
    return Reply(await _store_version(context, name, document, data))


async def patch(context: Context, call: Call) -> Reply:
    """A new version made from the current one by merge patch (RFC 7396)."""
    changes = call.data.get("data")
    if not isinstance(changes, dict):
        raise InvalidRequest("no data provided", 'send {"data": {"field": …}}')
    name = _name(call)
    document = await _required(context, name)
    if document.current == 0 or document.gone(document.current, context.now):
        raise NotFound(f"the current version of {name!r} is deleted", "keyhole history NAME")
    _check_write(call, document, await _settings(context))
    return Reply(await _store_version(context, name, document, _merge(document.data, changes)))


def _merge(base: Any, changes: Any) -> Any:
    if not isinstance(changes, dict):
        return changes
    merged = dict(base) if isinstance(base, dict) else {}
    for key, value in changes.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged


async def read(context: Context, call: Call) -> Reply:
    """One version of a secret; the current one unless ``version`` says otherwise."""
    name = _name(call)
    document = await _required(context, name)
    number = _version(call.data.get("version"), document)
    metadata = document.describe(number)
    if document.gone(number, context.now):
        return Reply({"data": None, "metadata": metadata}, found=False)
    _check_expiry(document, name, context.now)
    data = await _data(context, document, name, number)
    return Reply({"data": Secret(json.dumps(data)), "metadata": metadata})


def _version(given: Any, document: _Document) -> int:
    text = str(given or 0)
    number = int(text) if text.isascii() and text.isdecimal() else -1
    number = number or document.current
    if str(number) not in document.versions:
        raise NotFound("there is no such version", "keyhole history NAME")
    return number


def _check_expiry(document: _Document, name: str, now: float) -> None:
    if document.expires and document.expires <= now:
        raise Expired(
            f"the secret {name!r} expired at {format_time(document.expires)}", f"store a new value: keyhole set {name}"
        )


async def lend(context: Context, path: str, field_name: str) -> Secret:
    """The value of one field of the current version, for the road."""
    document = await _required(context, path)
    if document.current == 0 or document.gone(document.current, context.now):
        raise NotFound(f"the current version of the secret {path!r} is deleted", f"keyhole set {path}")
    _check_expiry(document, path, context.now)
    value = document.data.get(field_name) if isinstance(document.data, dict) else None
    if value is None:
        raise NotFound(f"the secret {path!r} has no field {field_name!r}", f"keyhole show {path}")
    return Secret(value if isinstance(value, str) else json.dumps(value))


async def delete(context: Context, call: Call) -> None:
    """Soft delete of the current version."""
    document = await _load(context, _name(call))
    if document is not None and document.current:
        await _mark(context, call, [document.current], deleted=context.now)


def _numbers(call: Call) -> list[int]:
    versions = call.data.get("versions")
    items = versions.split(",") if isinstance(versions, str) else versions
    if not isinstance(items, list) or not items or not all(str(item).isdecimal() for item in items):
        raise InvalidRequest("no version number provided", 'send {"versions": [1]}')
    return [int(item) for item in items]


async def _mark(context: Context, call: Call, numbers: list[int], *, deleted: float) -> None:
    name = _name(call)
    document = await _load(context, name)
    if document is None:
        return
    for number in numbers:
        version = document.versions.get(str(number))
        if version is not None and not version["destroyed"]:
            version["deleted"] = deleted
    document.updated = context.now
    await context.storage.change([(f"k/{name}", document.encode(), document.revision)])


async def delete_versions(context: Context, call: Call) -> None:
    """Soft delete of several versions."""
    await _mark(context, call, _numbers(call), deleted=context.now)


async def undelete(context: Context, call: Call) -> None:
    """Takes a soft delete back."""
    await _mark(context, call, _numbers(call), deleted=0)


async def destroy(context: Context, call: Call) -> None:
    """Removes the data of versions for good; their metadata stays."""
    name = _name(call)
    document = await _load(context, name)
    if document is None:
        return
    deletes = []
    for number in _numbers(call):
        version = document.versions.get(str(number))
        if version is None or version["destroyed"]:
            continue
        version["destroyed"] = True
        if number == document.current:
            document.data = None
        else:
            path = f"v/{number}/{name}"
            deletes.append((path, await _tombstone(context, path)))
    await context.storage.change([(f"k/{name}", document.encode(), document.revision)], deletes)


async def read_metadata(context: Context, call: Call) -> Reply:
    """All about a secret but its values."""
    document = await _required(context, _name(call))
    return Reply(
        {
            "cas_required": document.cas_required,
            "created_time": format_time(document.created),
            "current_version": document.current,
            "custom_metadata": document.custom,
            "delete_version_after": f"{document.delete_after}s",
            "max_versions": document.max_versions,
            "oldest_version": document.oldest,
            "updated_time": format_time(document.updated),
            "versions": {
                number: {k: v for k, v in document.describe(int(number)).items() if k in _VERSION_KEYS}
                for number in document.versions
            },
            "type": document.type,
            "owner": document.owner,
            "tags": document.tags,
            "expires_at": format_time(document.expires) if document.expires else None,
            "fields": sorted(document.data) if isinstance(document.data, dict) else [],
        }
    )


_VERSION_KEYS = ("created_time", "deletion_time", "destroyed")


async def write_metadata(context: Context, call: Call) -> None:
    """Sets metadata; what is not named stays."""
    name = _name(call)
    document = await _load(context, name)
    if document is None:
        document = _Document(context.now, context.now, revision=await _tombstone(context, f"k/{name}"))
    _apply(document, call.data, context)
    document.updated = context.now
    await context.storage.change([(f"k/{name}", document.encode(), document.revision)])


def _apply(document: _Document, data: Mapping[str, Any], context: Context) -> None:
    """Take the metadata fields out of request data, checked."""
    if "max_versions" in data:
        document.max_versions = _count(data["max_versions"], "max_versions")
    if "cas_required" in data:
        document.cas_required = data["cas_required"] in {True, "true"}
    if "delete_version_after" in data:
        document.delete_after = parse_duration(data["delete_version_after"], name="delete_version_after")
    if "custom_metadata" in data:
        document.custom = _labels(data["custom_metadata"])
    if "type" in data:
        document.type = _text(data["type"], "type")
        if document.type and document.type not in TYPES:
            raise InvalidRequest(f"type is one of {', '.join(TYPES)}")
    if "owner" in data:
        document.owner = _text(data["owner"], "owner")
    if "tags" in data:
        tags = data["tags"]
        document.tags = [_text(tag, "tags") for tag in (tags.split(",") if isinstance(tags, str) else tags or [])]
    if "expires_at" in data:
        document.expires = parse_time(data["expires_at"]) if data["expires_at"] else 0.0
    if "expires_in" in data:
        document.expires = context.now + parse_duration(data["expires_in"], name="expires_in")


def _count(value: Any, name: str) -> int:
    if not str(value).isdecimal() or int(value) > 10_000:
        raise InvalidRequest(f"{name} is a number from 0 to 10,000")
    return int(value)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or len(value) > 128 or not value.isprintable():
        raise InvalidRequest(f"{name}: printable text of at most 128 characters")
    return value.strip()


def _labels(value: Any) -> dict[str, str] | None:
    """Limits of Vault's custom metadata: 64 keys, key 1 to 128 and value 1 to 512 printable characters."""
    if not value:
        return None
    if not isinstance(value, dict) or len(value) > _LABELS:
        raise InvalidRequest(f"custom_metadata is a map of at most {_LABELS} texts")
    for key, text in value.items():
        good = isinstance(text, str) and 1 <= len(key) <= 128 and 1 <= len(text) <= 512
        if not good or not key.isprintable() or not text.isprintable():
            raise InvalidRequest("custom_metadata: keys of 1 to 128 and values of 1 to 512 printable characters")
    return dict(value)


async def delete_all(context: Context, call: Call) -> None:
    """Removes a secret with all versions and metadata."""
    name = _name(call)
    document = await _load(context, name)
    if document is None:
        return
    deletes = [(f"k/{name}", document.revision)]
    for number in document.versions:
        path = f"v/{number}/{name}"
        item = await context.storage.get_one(path)
        if item.data is not None:
            deletes.append((path, item.revision))
    await context.storage.change((), deletes)


async def list_names(context: Context, call: Call) -> Reply:
    """Names below a path; folders end in a slash."""
    path = call.params.get("path", "").strip("/")
    keys = await context.storage.list(f"k/{parse_path(path)}" if path else "k")
    if not keys:
        raise NotFound("there are no secrets here")
    return Reply({"keys": list(keys)})


async def read_config(context: Context, _call: Call) -> Reply:
    """The engine's defaults."""
    return Reply(await _settings(context))


async def write_config(context: Context, call: Call) -> None:
    """Sets the engine's defaults."""
    settings = await _settings(context)
    if "max_versions" in call.data:
        settings["max_versions"] = _count(call.data["max_versions"], "max_versions")
    if "cas_required" in call.data:
        settings["cas_required"] = call.data["cas_required"] in {True, "true"}
    if "delete_version_after" in call.data:
        parse_duration(call.data["delete_version_after"], name="delete_version_after")
        settings["delete_version_after"] = call.data["delete_version_after"]
    revision = await _tombstone(context, _CONFIG)
    await context.storage.change([(_CONFIG, json.dumps(settings).encode(), revision)])


async def unversioned(_context: Context, _call: Call) -> Reply:
    """A path without ``data/`` or ``metadata/``, as clients of version 1 write it."""
    raise NotFound("Invalid path for a versioned K/V secrets engine", "secret/data/NAME, or keyhole get NAME")


_METADATA_FIELDS = (
    Field("max_versions", "versions to keep; 0 for the engine's default"),
    Field("cas_required", "refuse writes without options.cas"),
    Field("delete_version_after", "delete each version this long after it was written"),
    Field("custom_metadata", "map of texts"),
    Field("type", f"one of {', '.join(TYPES)}"),
    Field("owner", "who is to be asked about it"),
    Field("tags", "list of texts"),
    Field("expires_at", "RFC 3339 time after which it is not given out any more"),
    Field("expires_in", "the same as a duration from now"),
)
_DATA_FIELDS = (
    Field("data", "map of fields to values"),
    Field("options", "cas: the version that must be current; and any field of metadata"),
)
_VERSIONS = (Field("versions", "list of version numbers"),)

ENGINE = Engine(
    "kv",
    (
        Route(_CONFIG, {Operation.READ: read_config, Operation.CREATE: write_config}, help="Defaults of the engine."),
        Route(
            "data/{path...}",
            {
                Operation.READ: read,
                Operation.CREATE: write,
                Operation.PATCH: patch,
                Operation.DELETE: delete,
            },
            exists=_exists,
            fields=_DATA_FIELDS,
            help="Read, write, patch and soft delete a secret.",
        ),
        Route(
            "metadata/{path...}",
            {
                Operation.READ: read_metadata,
                Operation.CREATE: write_metadata,
                Operation.PATCH: write_metadata,
                Operation.DELETE: delete_all,
                Operation.LIST: list_names,
            },
            exists=_exists,
            fields=_METADATA_FIELDS,
            help="All about a secret but its values; delete removes it altogether.",
        ),
        Route("metadata", {Operation.LIST: list_names}, help="Names of secrets."),
        Route("delete/{path...}", {Operation.CREATE: delete_versions}, fields=_VERSIONS, help="Soft delete versions."),
        Route("undelete/{path...}", {Operation.CREATE: undelete}, fields=_VERSIONS, help="Take a soft delete back."),
        Route("destroy/{path...}", {Operation.CREATE: destroy}, fields=_VERSIONS, help="Remove versions for good."),
        Route("{path...}", {Operation.READ: unversioned, Operation.LIST: unversioned}, help="Not versioned."),
    ),
    lend=lend,
    options={"version": "2"},
)
