"""Tokens that are not wanted any more are ended at their provider (RFC 7009), also when it is away just then.

What is to be ended is moved to an entry of its own, ``e/ID``, in the very change that takes it out of use. It lies
there with what is needed to reach the provider until that has agreed, or has been asked often enough.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any

from keyhole.core.errors import Conflict, KeyholeError, TargetFailed
from keyhole.engines import Context, Writing
from keyhole.engines.oauth.asking import end_token
from keyhole.engines.oauth.connection import Connection
from keyhole.engines.oauth.tokens import Tokens

PATH = "e"
_CLAIM = 30.0  # seconds for which nobody else tries the same
_FIRST_PAUSE = 30.0
_LONGEST_PAUSE = 3600.0
_MOST = 30  # tries, over about a day


def to_end(connection: Connection, tokens: Tokens, now: float) -> tuple[str, list[Writing]]:
    """Where it will lie, and the write that puts it there; nothing where the provider ends no tokens."""
    token = tokens.refresh or tokens.access
    if not token or not connection["revoke_url"]:
        return "", []
    path = f"{PATH}/{secrets.token_hex(16)}"
    entry = {
        "name": connection.name,
        "data": dict(connection.data),
        "token": token,
        "hint": "refresh_token" if tokens.refresh else "access_token",
        "tries": 0,
    }
    return path, [(path, json.dumps(entry).encode(), 0, now + _CLAIM)]


async def end_now(context: Context, path: str) -> str:
    """Try it at once; why it could not be done, empty when it was. What is left is tried again by itself."""
    item = await context.storage.get_one(path)
    if item.data is None:
        return ""
    try:
        await _end(context, path, json.loads(item.data), item.revision)
    except Conflict:
        return ""
    except KeyholeError as error:
        return error.reason
    return ""


async def due(context: Context, path: str) -> str:
    """Try again. Raises ``KeyholeError`` when it failed."""
    item = await context.storage.get_one(path)
    if item.data is None:
        return ""
    entry = json.loads(item.data)
    await context.storage.change([(path, item.data, item.revision, context.now + _CLAIM)])
    await _end(context, path, entry, item.revision + 1)
    return f"connections/{entry['name']}"


async def _end(context: Context, path: str, entry: Mapping[str, Any], revision: int) -> None:
    connection = Connection(entry["name"], entry["data"])
    try:
        await end_token(context, connection, entry["token"], entry["hint"], context.now)
    except KeyholeError as error:
        tries = entry["tries"] + 1
        if tries >= _MOST:
            await context.storage.change((), [(path, revision)])
            gave_up = TargetFailed(
                f"a token of {connection.name!r} could not be ended at its provider, and nobody tries any more: "
                f"{error.reason}",
                "end it there, in the settings of the account",
            )
            gave_up.alarming = True
            raise gave_up from None
        due_at = context.now + min(_FIRST_PAUSE * 2**tries, _LONGEST_PAUSE)
        await context.storage.change([(path, json.dumps({**entry, "tries": tries}).encode(), revision, due_at)])
        raise
    await context.storage.change((), [(path, revision)])
