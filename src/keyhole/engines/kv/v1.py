"""Secrets without versions, as Vault's KV version 1: each write replaces what was there. They lie at ``p/NAME``.

Where there is ``MARK`` the mount is being given versions: nothing is written here any more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.lease import parse_duration
from keyhole.core.path import DEFAULT_FIELD, parse_path
from keyhole.core.request import Operation, Reply
from keyhole.core.value import Secret
from keyhole.engines import Call, Context, Engine, Route

MARK = "upgraded"
UPGRADING = (
    "Upgrading from non-versioned to versioned data. This backend will be unavailable for a brief period and will "
    "resume service shortly."
)


def _path(params: Mapping[str, str]) -> str:
    return f"p/{parse_path(params['path'])}"


async def _read(context: Context, path: str) -> tuple[Any, tuple[str, int]]:
    """What lies there, and what a change of it stands on. Raises ``InvalidRequest`` where there is ``MARK``."""
    item, mark = await context.storage.get(path, MARK)
    if mark.data is not None:
        raise InvalidRequest(UPGRADING, "try again")
    return item, (MARK, mark.revision)


async def _require_unmarked(context: Context) -> None:
    """Where nothing was found, it may have been brought over. Raises ``InvalidRequest``."""
    if (await context.storage.get_one(MARK)).data is not None:
        raise InvalidRequest(UPGRADING, "try again")


async def _exists(context: Context, params: Mapping[str, str]) -> bool:
    return (await context.storage.get_one(_path(params))).data is not None


async def read(context: Context, call: Call) -> Reply:
    """What was stored here. Its field ``ttl``, where there is one, says how long to rely on it."""
    item = await context.storage.get_one(_path(call.params))
    if item.data is None:
        await _require_unmarked(context)
        raise NotFound("there is nothing here")
    data = json.loads(item.data)
    return Reply({key: Secret(json.dumps(value)) for key, value in data.items()}, duration=_duration(context, data))


def _duration(context: Context, data: Mapping[str, object]) -> int:
    for name in ("ttl", "lease"):
        if name in data:
            try:
                return parse_duration(data[name])
            except InvalidRequest:
                continue  # a field of the user's own that has this name
    return context.default_ttl


async def write(context: Context, call: Call) -> None:
    """Stores the fields, replacing what was here."""
    if not call.data:
        raise InvalidRequest("missing data fields", 'send {"key": "value"}')
    path = _path(call.params)
    item, unmarked = await _read(context, path)
    call.require_new(stored=item.data is not None)
    await context.storage.change([(path, json.dumps(dict(call.data)).encode(), item.revision)], checks=[unmarked])


async def delete(context: Context, call: Call) -> None:
    """Removes what is stored here."""
    path = _path(call.params)
    item, unmarked = await _read(context, path)
    if item.data is not None:
        await context.storage.change((), [(path, item.revision)], [unmarked])


async def list_names(context: Context, call: Call) -> Reply:
    """Names below a path; folders end in a slash."""
    below = call.params.get("path", "").strip("/")
    keys = await context.storage.list(f"p/{parse_path(below)}" if below else "p")
    await _require_unmarked(context)
    if not keys:
        raise NotFound("there is nothing here")
    return Reply({"keys": list(keys)})


ENGINE = Engine(
    "kv",
    (
        Route("", {Operation.LIST: list_names}, help="Names of secrets."),
        Route(
            "{path...}",
            {
                Operation.READ: read,
                Operation.CREATE: write,
                Operation.DELETE: delete,
                Operation.LIST: list_names,
            },
            exists=_exists,
            help="Read, write and delete a secret; a write replaces it.",
            source=DEFAULT_FIELD,
        ),
    ),
    options={"version": "1"},
)
