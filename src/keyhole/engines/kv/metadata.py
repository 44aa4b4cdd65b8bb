"""All about a secret but its values: metadata, names, and the engine's defaults."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.lease import parse_duration
from keyhole.core.numbers import parse_count, parse_flag
from keyhole.core.path import parse_path
from keyhole.core.request import Reply
from keyhole.core.times import format_time, parse_time
from keyhole.engines import Call, Context
from keyhole.engines.kv.document import CONFIG, Document, decode, go_duration, load, load_settings, load_stored
from keyhole.engines.kv.patching import merge

TYPES = ("api-key", "oauth-token", "password", "certificate", "connection-string", "ssh-key", "backup", "custom")
DESCRIPTIVE = ("type", "owner", "tags", "expires_at", "expires_in", "rotate_every")
"""What a write of a value may say of it besides; the rest of the metadata governs versions and has its own path."""
_LABELS = 64
_TAGS = 64
_MOST_VERSIONS = 10_000
_SHORTEST = 3600
_LATEST = 253_402_300_800  # the year 10000, which RFC 3339 cannot write
_UNSET: dict[str, Any] = {
    "max_versions": 0,
    "cas_required": False,
    "delete_version_after": 0,
    "type": "",
    "owner": "",
    "tags": [],
    "expires_at": "",
    "rotate_every": 0,
}
_VERSION_KEYS = ("created_time", "deletion_time", "destroyed")


async def read_metadata(context: Context, call: Call) -> Reply:
    """All about a secret but its values."""
    return Reply(_describe(await load_stored(context, parse_path(call.params["path"]))))


def _describe(document: Document) -> dict[str, Any]:
    return {
        "cas_required": document.cas_required,
        "created_time": format_time(document.created),
        "current_version": document.current,
        "custom_metadata": document.custom,
        "delete_version_after": go_duration(document.delete_after),
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
        "rotate_every": document.rotate_every,
        "rotated_at": format_time(document.renewed) if document.current else None,
        "fields": sorted(document.data) if isinstance(document.data, dict) else [],
    }


async def patch_metadata(context: Context, call: Call) -> None:
    """Sets metadata of a secret that is there, by merge patch (RFC 7396): ``null`` takes a setting back."""
    name = parse_path(call.params["path"])
    document = await load_stored(context, name)
    changes = {key: _UNSET.get(key) if value is None else value for key, value in call.data.items()}
    if isinstance(changes.get("custom_metadata"), dict):
        changes["custom_metadata"] = merge(document.custom, changes["custom_metadata"])
    apply(document, changes, context)
    document.updated = context.now
    await document.save(context, name)


async def write_metadata(context: Context, call: Call) -> None:
    """Sets metadata; what is not named stays."""
    name = parse_path(call.params["path"])
    document = await load(context, name)
    call.require_new(stored=document.stored)
    apply(document, call.data, context)
    document.updated = context.now
    await document.save(context, name)


def apply(document: Document, data: Mapping[str, Any], context: Context) -> None:
    """Take the metadata fields out of request data, checked."""
    if "max_versions" in data:
        document.max_versions = parse_count(data["max_versions"], "max_versions", most=_MOST_VERSIONS)
    if "cas_required" in data:
        document.cas_required = parse_flag(data["cas_required"], "cas_required")
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
        document.tags = _tags(data["tags"])
    if "expires_at" in data:
        document.expires = _moment(data["expires_at"]) if data["expires_at"] else 0.0
    if data.get("expires_in"):
        document.expires = context.now + parse_duration(data["expires_in"], name="expires_in")
    if "rotate_every" in data:
        document.rotate_every = parse_duration(data["rotate_every"] or 0, name="rotate_every")
        if 0 < document.rotate_every < _SHORTEST:
            raise InvalidRequest("rotate_every is an hour or more", "write like 30d")


def _moment(value: Any) -> float:
    """Seconds since the epoch, from a number of them or from RFC 3339. Raises ``InvalidRequest``."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < _LATEST:
        return float(value)
    return parse_time(value)


def _tags(value: Any) -> list[str]:
    tags = value.split(",") if isinstance(value, str) else value or []
    if not isinstance(tags, list) or len(tags) > _TAGS:
        raise InvalidRequest(f"tags is a list of at most {_TAGS} texts")
    return [tag for tag in (_text(tag, "tags") for tag in tags) if tag]


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


async def list_names(context: Context, call: Call) -> Reply:
    """Names below a path; folders end in a slash."""
    path = call.params.get("path", "").strip("/")
    keys = await context.storage.list(f"k/{parse_path(path)}" if path else "k")
    if not keys:
        raise NotFound("there are no secrets here")
    return Reply({"keys": list(keys)})


async def list_details(context: Context, call: Call) -> Reply:
    """Names below a path, and the metadata of those that are secrets."""
    reply = await list_names(context, call)
    keys: list[str] = (reply.data or {})["keys"]
    path = call.params.get("path", "").strip("/")
    names = [name for name in keys if not name.endswith("/")]
    items = await context.storage.get(*(f"k/{path}/{name}" if path else f"k/{name}" for name in names))
    found = {name: _describe(decode(item)) for name, item in zip(names, items, strict=True) if item.data is not None}
    return Reply({"keys": keys, "key_info": found})


async def read_config(context: Context, _call: Call) -> Reply:
    """The engine's defaults."""
    settings = await load_settings(context)
    return Reply({**settings, "delete_version_after": go_duration(settings["delete_version_after"])})


async def write_config(context: Context, call: Call) -> None:
    """Sets the engine's defaults."""
    item = await context.storage.get_one(CONFIG)
    settings = await load_settings(context)
    if "max_versions" in call.data:
        settings["max_versions"] = parse_count(call.data["max_versions"], "max_versions", most=_MOST_VERSIONS)
    if "cas_required" in call.data:
        settings["cas_required"] = parse_flag(call.data["cas_required"], "cas_required")
    if "delete_version_after" in call.data:
        settings["delete_version_after"] = parse_duration(
            call.data["delete_version_after"], name="delete_version_after"
        )
    await context.storage.change([(CONFIG, json.dumps(settings).encode(), item.revision)])
