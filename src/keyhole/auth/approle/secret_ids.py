"""Secret ids of a role: kept as HMAC-SHA256 under a key of the role, found by accessor, spent by compare-and-set.

They lie in a folder that is named after the role's ``uid``, so they end with the role, also before they are removed.
"""

from __future__ import annotations

import hmac
import json
import re
import uuid
from collections.abc import Mapping
from typing import Any

from keyhole.core.cidr import covers, parse_cidrs
from keyhole.core.errors import Conflict, InvalidRequest
from keyhole.core.lease import parse_duration
from keyhole.core.numbers import parse_count
from keyhole.core.times import format_time
from keyhole.engines import StorageView

_ACCESSOR = re.compile(r"[0-9a-f-]{36}")
_LONGEST = 4096
_TRIES = 200  # a login that loses a race tries again; each race has a winner
_METADATA = 64
_PAGE = 200


def digest(role: Mapping[str, Any], secret_id: str) -> str:
    """The name under which a secret id of the role lies."""
    return hmac.digest(bytes.fromhex(role["key"]), secret_id.encode(), "sha256").hex()


async def issue(
    storage: StorageView, role: Mapping[str, Any], data: Mapping[str, Any], secret_id: str, now: float
) -> tuple[str, dict[str, Any]]:
    """Store a new secret id; returns its accessor and entry.

    Raises:
        InvalidRequest: it asks for more than the role gives, or there is this secret id already.
    """
    if not 0 < len(secret_id) <= _LONGEST:
        raise InvalidRequest(f"a secret_id has 1 to {_LONGEST} characters")
    ttl, uses = role["secret_id_ttl"], role["secret_id_num_uses"]
    if data.get("ttl") is not None:
        ttl = parse_duration(data["ttl"])
        if role["secret_id_ttl"] and not 0 < ttl <= role["secret_id_ttl"]:
            raise InvalidRequest("ttl cannot be longer than the role's secret_id_ttl")
    if data.get("num_uses") is not None:
        uses = parse_count(data["num_uses"], "num_uses")
        if role["secret_id_num_uses"] and not 0 < uses <= role["secret_id_num_uses"]:
            raise InvalidRequest("num_uses cannot be higher than the role's secret_id_num_uses")
    accessor, name = str(uuid.uuid4()), digest(role, secret_id)
    entry = {
        "accessor": accessor,
        "created": now,
        "updated": now,
        "expires": now + ttl if ttl else 0.0,
        "ttl": ttl,
        "uses": uses,
        "metadata": _metadata(data.get("metadata")),
        "cidr_list": _narrower(data, "cidr_list", role["secret_id_bound_cidrs"]),
        "token_bound_cidrs": _narrower(data, "token_bound_cidrs", role["token_bound_cidrs"]),
    }
    item = await storage.get_one(f"sid/{role['uid']}/{name}")
    if item.data is not None:
        raise InvalidRequest("this secret_id is already registered", "choose another, or destroy it first")
    pointer = f"acc/{role['uid']}/{accessor}"
    await storage.change(
        [(f"sid/{role['uid']}/{name}", json.dumps(entry).encode(), item.revision), (pointer, name.encode(), 0)],
        checks=[(f"role/{role['name']}", role["revision"])],
    )
    return accessor, entry


async def spend(storage: StorageView, role: Mapping[str, Any], secret_id: str, now: float) -> dict[str, Any] | None:
    """Take one use of a secret id; ``None`` when there is none, or it is used up or too old.

    Raises:
        Conflict: so many others did the same at once that it never came to it.
    """
    path = f"sid/{role['uid']}/{digest(role, secret_id[:_LONGEST])}"
    for _ in range(_TRIES):
        item = await storage.get_one(path)
        if item.data is None or len(secret_id) > _LONGEST:
            return None
        entry: dict[str, Any] = json.loads(item.data)
        if entry["expires"] and entry["expires"] <= now:
            return None
        if not entry["uses"]:
            return entry
        try:
            if entry["uses"] == 1:
                await _remove(storage, role["uid"], path, item.revision, entry["accessor"])
            else:
                left = json.dumps({**entry, "uses": entry["uses"] - 1, "updated": now}).encode()
                await storage.change([(path, left, item.revision)])
        except Conflict:
            continue
        return entry
    raise Conflict("too many logins with this secret_id at once", "try again")


async def find(storage: StorageView, role: Mapping[str, Any], *, secret_id: str = "", accessor: str = "") -> str:
    """The name of a secret id of the role, by itself or by its accessor; empty when there is none."""
    if secret_id:
        name = digest(role, secret_id)
        return name if (await storage.get_one(f"sid/{role['uid']}/{name}")).data is not None else ""
    if not _ACCESSOR.fullmatch(accessor):
        return ""
    item = await storage.get_one(f"acc/{role['uid']}/{accessor}")
    return "" if item.data is None else item.data.decode()


async def read(storage: StorageView, role: Mapping[str, Any], name: str, now: float) -> dict[str, Any] | None:
    """What a lookup answers; ``None`` when it is gone or too old."""
    item = await storage.get_one(f"sid/{role['uid']}/{name}")
    entry = json.loads(item.data) if item.data is not None else None
    if entry is None or (entry["expires"] and entry["expires"] <= now):
        return None
    return {
        "cidr_list": entry["cidr_list"],
        "creation_time": format_time(entry["created"]),
        "expiration_time": format_time(entry["expires"]) if entry["expires"] else "0001-01-01T00:00:00Z",
        "last_updated_time": format_time(entry["updated"]),
        "metadata": entry["metadata"],
        "secret_id_accessor": entry["accessor"],
        "secret_id_num_uses": entry["uses"],
        "secret_id_ttl": entry["ttl"],
        "token_bound_cidrs": entry["token_bound_cidrs"],
    }


async def destroy(storage: StorageView, uid: str, name: str) -> None:
    """Remove a secret id and its accessor."""
    path = f"sid/{uid}/{name}"
    item = await storage.get_one(path)
    if item.data is not None:
        await _remove(storage, uid, path, item.revision, json.loads(item.data)["accessor"])


async def purge(storage: StorageView, uid: str) -> None:
    """Remove all secret ids of a role that was deleted."""
    for folder in (f"sid/{uid}", f"acc/{uid}"):
        names = await storage.list(folder)
        for start in range(0, len(names), _PAGE):
            paths = [f"{folder}/{name}" for name in names[start : start + _PAGE]]
            items = await storage.get(*paths)
            pairs = zip(paths, items, strict=True)
            await storage.change((), [(path, item.revision) for path, item in pairs if item.data is not None])


async def tidy(storage: StorageView, uids: set[str], now: float) -> None:
    """Remove what is too old, and what deleted roles have left. ``uids`` are those of the roles that there are."""
    for folder in await storage.list("sid"):
        uid = folder.removesuffix("/")
        if uid not in uids:
            await purge(storage, uid)
            continue
        for name in await storage.list(f"sid/{uid}"):
            item = await storage.get_one(f"sid/{uid}/{name}")
            entry = json.loads(item.data) if item.data is not None else None
            if entry and entry["expires"] and entry["expires"] <= now:
                await destroy(storage, uid, name)


async def _remove(storage: StorageView, uid: str, path: str, revision: int, accessor: str) -> None:
    pointer = await storage.get_one(f"acc/{uid}/{accessor}")
    deletes = [(path, revision)]
    if pointer.data is not None:
        deletes.append((f"acc/{uid}/{accessor}", pointer.revision))
    await storage.change((), deletes)


def _metadata(value: Any) -> dict[str, str]:
    """A map of texts, also as the JSON text that Vault's clients send."""
    if isinstance(value, str) and value:
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise InvalidRequest("metadata is a JSON object of texts") from None
    found = value or {}
    texts = isinstance(found, dict) and len(found) <= _METADATA
    if not texts or not all(isinstance(text, str) and len(text) <= _LONGEST for text in found.values()):
        raise InvalidRequest(f"metadata is a JSON object of at most {_METADATA} texts")
    return dict(found)


def _narrower(data: Mapping[str, Any], name: str, of_role: list[str]) -> list[str]:
    cidrs = parse_cidrs(data.get(name), name)
    if of_role and not covers(of_role, cidrs):
        raise InvalidRequest(f"{name} must lie within the addresses of the role")
    return cidrs
