"""Versioned secrets, as Vault's KV version 2, with what a team wants to know of a secret: type, owner, tags, expiry.

One entry ``k/NAME`` holds the metadata and the data of the current version, so that the usual read is one entry;
``v/NUMBER/NAME`` holds the data of each older version. Every change is made from one read of ``k/NAME`` and names its
revision, so that two writers never make the same version.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.numbers import parse_count
from keyhole.core.path import parse_path
from keyhole.core.request import Operation, Reply
from keyhole.core.value import Secret
from keyhole.engines import Call, Context, Writing
from keyhole.engines.kv.document import (
    DEFAULT_VERSIONS,
    Document,
    describe,
    gone,
    load,
    load_current,
    load_settings,
    load_split,
    load_stored,
    require_unexpired,
)
from keyhole.engines.kv.metadata import DESCRIPTIVE, apply
from keyhole.engines.kv.patching import merge, subkeys

Marking = Callable[[Context, Call], Awaitable[None]]
_INVALID_PATH = (
    "Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints to use. "
    "If using the Vault CLI, use 'vault kv {}' for this operation."
)
_VERBS = {Operation.READ: "get", Operation.LIST: "list", Operation.DELETE: "delete", Operation.PATCH: "patch"}
_HEADS = frozenset({"data", "metadata", "delete", "undelete", "destroy", "subkeys", "config", "detailed-metadata"})
_DEEPEST = 64


class _Unsupported(NotFound):
    """The path exists and does not take this operation."""

    status = 405


def _name(call: Call) -> str:
    return parse_path(call.params["path"])


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


def _apply(document: Document, options: Mapping[str, Any], context: Context) -> None:
    """Take what is said of a new value. A date that has passed was the old one's."""
    if document.expires and document.expires <= context.now:
        document.expires = 0.0
    apply(document, options, context)


async def _store_version(
    context: Context, name: str, document: Document, data: Any, settings: Mapping[str, Any]
) -> Reply:
    """Write ``data`` as the next version; raises ``Conflict`` when somebody else wrote meanwhile."""
    writes: list[Writing] = []
    deletes: list[tuple[str, int]] = []
    keep = document.max_versions or settings["max_versions"] or DEFAULT_VERSIONS
    if keep > 1 and not document.versions.get(str(document.current), {"destroyed": True})["destroyed"]:
        path = f"v/{document.current}/{name}"
        item = await context.storage.get_one(path)
        writes.append((path, json.dumps(document.data).encode(), item.revision))
    document.current += 1
    document.updated = context.now
    if data != document.data:
        document.rotated = context.now
    document.data = data
    # The shorter of both, as in Vault: who owns the engine bounds how long a value may stay.
    after = min(filter(None, (document.delete_after, settings["delete_version_after"])), default=0)
    deleted = context.now + after if after else 0
    document.versions[str(document.current)] = {"created": context.now, "deleted": deleted, "destroyed": False}
    for number in [n for n in document.versions if int(n) <= document.current - keep]:
        del document.versions[number]
        document.oldest = int(number) + 1  # 0 while nothing was pruned, as in Vault
        item = await context.storage.get_one(f"v/{number}/{name}")
        if item.data is not None:
            deletes.append((f"v/{number}/{name}", item.revision))
    writes.append(await document.writing(context, name))
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
    settings = await load_settings(context)
    _check_write(options, document, settings)
    _apply(document, options, context)
    return await _store_version(context, name, document, data, settings)


async def patch(context: Context, call: Call) -> Reply:
    """A new version made from the current one by merge patch (RFC 7396)."""
    changes, options, name = _given(call, '{"data": {"field": …}}'), _options(call), _name(call)
    document = await load_stored(context, name)
    if document.current == 0:
        raise NotFound(f"the secret {name!r} has no version yet", "keyhole set NAME")
    if document.gone(document.current, context.now):
        return Reply(document.describe(document.current), found=False)
    settings = await load_settings(context)
    _check_write(options, document, settings)
    _apply(document, options, context)
    return await _store_version(context, name, document, merge(document.data, changes), settings)


async def read(context: Context, call: Call) -> Reply:
    """One version of a secret; the current one unless ``version`` says otherwise."""
    metadata, data = await _version(context, call)
    if data is None:
        return Reply({"data": None, "metadata": metadata}, found=False)
    return Reply({"data": Secret(data), "metadata": metadata})


async def read_subkeys(context: Context, call: Call) -> Reply:
    """The names of the fields of one version, with ``null`` for each value."""
    depth = parse_count(call.data.get("depth") or 0, "depth", most=_DEEPEST) or _DEEPEST
    metadata, data = await _version(context, call)
    found = None if data is None else subkeys(json.loads(data), depth)
    return Reply({"subkeys": found, "metadata": metadata}, found=data is not None)


async def _version(context: Context, call: Call) -> tuple[dict[str, Any], bytes | None]:
    """Metadata and data, as JSON, of the version that is asked for; the data are ``None`` once it is deleted."""
    name = _name(call)
    fields, data = await load_split(context, name)
    wanted = call.data.get("version")
    number = (parse_count(wanted, "version") if wanted else 0) or fields["current"]
    version = fields["versions"].get(str(number))
    if version is None:
        raise NotFound("there is no such version", "keyhole history NAME")
    metadata = describe(version, number, fields.get("custom"))
    if gone(version, context.now):
        return metadata, None
    require_unexpired(fields.get("expires", 0.0), name, context.now)
    if number == fields["current"]:
        return metadata, data
    return metadata, (await context.storage.get_one(f"v/{number}/{name}")).data


async def lend(context: Context, path: str, field_name: str) -> Secret:
    """The value of one field of the current version, for the road."""
    data = await load_current(context, path)
    value = data.get(field_name) if isinstance(data, dict) else None
    if value is None:
        raise NotFound(f"the secret {path!r} has no field {field_name!r}", f"keyhole show {path}")
    return Secret(value if isinstance(value, str) else json.dumps(value))


async def marks(context: Context, paths: Sequence[str]) -> Sequence[int]:
    """Revisions of secrets: all that ``lend`` reads of one lies in its entry."""
    return await context.storage.revisions(*(f"k/{path}" for path in paths))


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
        raise InvalidRequest("No version number provided", 'send {"versions": [1]}')
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
        await context.storage.change([await document.writing(context, name)], deletes)


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


async def unversioned(_context: Context, call: Call) -> Reply:
    """A path without ``data/`` or ``metadata/``, as clients of version 1 write it."""
    if call.params.get("path", "").partition("/")[0] in _HEADS:
        raise _Unsupported("unsupported operation")
    return Reply(None, warnings=[_INVALID_PATH.format(_VERBS.get(call.operation, "put"))], found=False)
