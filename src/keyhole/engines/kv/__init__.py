"""Versioned secrets, as Vault's KV version 2, with what a team wants to know of a secret: type, owner, tags, expiry.

One entry ``k/NAME`` holds the metadata and the data of the current version, so that the usual read is one entry;
``v/NUMBER/NAME`` holds the data of each older version. Every change is made from one read of ``k/NAME`` and names its
revision, so that two writers never make the same version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.numbers import parse_count
from keyhole.core.path import parse_path
from keyhole.core.request import Operation, Reply
from keyhole.core.value import Secret
from keyhole.engines import Call, Context, Engine, Field, Route
from keyhole.engines.kv.document import (
    CONFIG,
    DEFAULT_VERSIONS,
    Document,
    exists,
    load,
    load_current,
    load_settings,
    load_stored,
)
from keyhole.engines.kv.metadata import (
    DESCRIPTIVE,
    TYPES,
    apply,
    list_names,
    read_config,
    read_metadata,
    write_config,
    write_metadata,
)

_INVALID_PATH = "Invalid path for a versioned K/V secrets engine. Use secret/data/NAME, or: keyhole get NAME"


def _name(call: Call) -> str:
    return parse_path(call.params["path"])


async def _data(context: Context, document: Document, name: str, number: int) -> Any:
    if number == document.current:
        return document.data
    item = await context.storage.get_one(f"v/{number}/{name}")
    return json.loads(item.data) if item.data is not None else None


def _options(call: Call) -> Mapping[str, Any]:
    options = call.data.get("options") or {}
    if not isinstance(options, dict):
        raise InvalidRequest("options is an object", 'for example {"cas": 0}')
    unknown = options.keys() - {"cas", *DESCRIPTIVE}
    if unknown:
        raise InvalidRequest(f"unknown option {min(unknown)[:40]!r}", f"use cas, {', '.join(DESCRIPTIVE)}")
    return options


def _check_write(options: Mapping[str, Any], document: Document, settings: Mapping[str, Any]) -> None:
    cas = options.get("cas")
    if cas is None:
        if settings["cas_required"] or document.cas_required:
            raise InvalidRequest("check-and-set parameter required for this call")
    elif isinstance(cas, bool) or not isinstance(cas, int | str) or str(cas) != str(document.current):
        raise InvalidRequest("check-and-set parameter did not match the current version", f"it is {document.current}")


async def _store_version(context: Context, name: str, document: Document, data: Any) -> Reply:
    """Write ``data`` as the next version; raises ``Conflict`` when somebody else wrote meanwhile."""
    settings = await load_settings(context)
    writes: list[tuple[str, bytes, int]] = []
    deletes: list[tuple[str, int]] = []
    keep = document.max_versions or settings["max_versions"] or DEFAULT_VERSIONS
    if keep > 1 and not document.versions.get(str(document.current), {"destroyed": True})["destroyed"]:
        path = f"v/{document.current}/{name}"
        item = await context.storage.get_one(path)
        writes.append((path, json.dumps(document.data).encode(), item.revision))
    document.current += 1
    document.updated = context.now
    document.data = data
    after = document.delete_after or settings["delete_version_after"]
    deleted = context.now + after if after else 0
    document.versions[str(document.current)] = {"created": context.now, "deleted": deleted, "destroyed": False}
    for number in [n for n in document.versions if int(n) <= document.current - keep]:
        del document.versions[number]
        document.oldest = int(number) + 1  # 0 while nothing was pruned, as in Vault
        item = await context.storage.get_one(f"v/{number}/{name}")
        if item.data is not None:
            deletes.append((f"v/{number}/{name}", item.revision))
    writes.append((f"k/{name}", document.encode(), document.revision))
    await context.storage.change(writes, deletes)
    return Reply(document.describe(document.current))


def _given(call: Call, example: str) -> dict[str, Any]:
    data = call.data.get("data")
    if not isinstance(data, dict):
        raise InvalidRequest("no data provided", f"send {example}")
    return data


async def write(context: Context, call: Call) -> Reply:
    """A new version of a secret."""
    data, options, name = _given(call, '{"data": {"value": …}}'), _options(call), _name(call)
    document = await load(context, name)
    call.require_new(stored=document.stored)
    _check_write(options, document, await load_settings(context))
    apply(document, options, context)
    return await _store_version(context, name, document, data)


async def patch(context: Context, call: Call) -> Reply:
    """A new version made from the current one by merge patch (RFC 7396)."""
    changes, options, name = _given(call, '{"data": {"field": …}}'), _options(call), _name(call)
    document = await load_stored(context, name)
    if document.current == 0 or document.gone(document.current, context.now):
        raise NotFound(f"the current version of {name!r} is deleted", "keyhole history NAME")
    _check_write(options, document, await load_settings(context))
    apply(document, options, context)
    return await _store_version(context, name, document, _merge(document.data, changes))


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
    document = await load_stored(context, name)
    number = parse_count(call.data.get("version") or 0, "version") or document.current
    if str(number) not in document.versions:
        raise NotFound("there is no such version", "keyhole history NAME")
    metadata = document.describe(number)
    if document.gone(number, context.now):
        return Reply({"data": None, "metadata": metadata}, found=False)
    document.require_unexpired(name, context.now)
    data = await _data(context, document, name, number)
    return Reply({"data": Secret(json.dumps(data)), "metadata": metadata})


async def lend(context: Context, path: str, field_name: str) -> Secret:
    """The value of one field of the current version, for the road."""
    data = await load_current(context, path)
    value = data.get(field_name) if isinstance(data, dict) else None
    if value is None:
        raise NotFound(f"the secret {path!r} has no field {field_name!r}", f"keyhole show {path}")
    return Secret(value if isinstance(value, str) else json.dumps(value))


async def delete(context: Context, call: Call) -> None:
    """Soft delete of the current version."""
    name = _name(call)
    document = await load(context, name)
    if document.current:
        await _soft_delete(context, name, document, [document.current])


def _numbers(call: Call) -> list[int]:
    versions = call.data.get("versions")
    items = versions.split(",") if isinstance(versions, str) else versions
    if not isinstance(items, list) or not items:
        raise InvalidRequest("no version number provided", 'send {"versions": [1]}')
    return [parse_count(item, "versions") for item in items]


async def _soft_delete(context: Context, name: str, document: Document, numbers: list[int]) -> None:
    found = [n for n in numbers if str(n) in document.versions and not document.gone(n, context.now)]
    for number in found:
        document.versions[str(number)]["deleted"] = context.now
    if found:
        document.updated = context.now
        await document.save(context, name)


async def delete_versions(context: Context, call: Call) -> None:
    """Soft delete of several versions."""
    name = _name(call)
    await _soft_delete(context, name, await load(context, name), _numbers(call))


async def undelete(context: Context, call: Call) -> None:
    """Takes a soft delete back."""
    name = _name(call)
    document = await load(context, name)
    versions = [document.versions[str(n)] for n in _numbers(call) if str(n) in document.versions]
    back = [version for version in versions if version["deleted"] and not version["destroyed"]]
    for version in back:
        version["deleted"] = 0
    if back:
        document.updated = context.now
        await document.save(context, name)


async def destroy(context: Context, call: Call) -> None:
    """Removes the data of versions for good; their metadata stays."""
    name = _name(call)
    document = await load(context, name)
    deletes = []
    for number in _numbers(call):
        version = document.versions.get(str(number))
        if version is None or version["destroyed"]:
            continue
        version["destroyed"] = True
        if number == document.current:
            document.data = None
        else:
            item = await context.storage.get_one(f"v/{number}/{name}")
            if item.data is not None:
                deletes.append((f"v/{number}/{name}", item.revision))
    if document.stored:
        await context.storage.change([(f"k/{name}", document.encode(), document.revision)], deletes)


async def delete_all(context: Context, call: Call) -> None:
    """Removes a secret with all versions and metadata."""
    name = _name(call)
    document = await load(context, name)
    if not document.stored:
        return
    deletes = [(f"k/{name}", document.revision)]
    for number in document.versions:
        item = await context.storage.get_one(f"v/{number}/{name}")
        if item.data is not None:
            deletes.append((f"v/{number}/{name}", item.revision))
    await context.storage.change((), deletes)


async def unversioned(_context: Context, _call: Call) -> Reply:
    """A path without ``data/`` or ``metadata/``, as clients of version 1 write it."""
    return Reply(None, warnings=[_INVALID_PATH], found=False)


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
    Field("options", f"cas: the version that must be current; and {', '.join(DESCRIPTIVE)} of metadata"),
)
_VERSIONS = (Field("versions", "list of version numbers"),)

ENGINE = Engine(
    "kv",
    (
        Route(CONFIG, {Operation.READ: read_config, Operation.CREATE: write_config}, help="Defaults of the engine."),
        Route(
            "data/{path...}",
            {
                Operation.READ: read,
                Operation.CREATE: write,
                Operation.PATCH: patch,
                Operation.DELETE: delete,
            },
            exists=exists,
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
            exists=exists,
            fields=_METADATA_FIELDS,
            help="All about a secret but its values; delete removes it altogether.",
        ),
        Route("metadata", {Operation.LIST: list_names}, help="Names of secrets."),
        Route("delete/{path...}", {Operation.CREATE: delete_versions}, fields=_VERSIONS, help="Soft delete versions."),
        Route("undelete/{path...}", {Operation.CREATE: undelete}, fields=_VERSIONS, help="Take a soft delete back."),
        Route("destroy/{path...}", {Operation.CREATE: destroy}, fields=_VERSIONS, help="Remove versions for good."),
        Route("{path...}", {Operation.READ: unversioned}, help="Not versioned."),
    ),
    lend=lend,
    options={"version": "2"},
)
