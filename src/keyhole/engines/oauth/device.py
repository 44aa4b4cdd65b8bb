"""Consent on another device (RFC 8628): a person types a short code there, while somebody here asks from time to time.

The device code stays in the vault, which also keeps the pace: whoever asks too early is told how long to wait, and the
provider is not asked. One flow of a connection counts; another one, or the end of the connection, cancels it.
"""

from __future__ import annotations

import contextlib
import hmac
import json
from typing import Any

from keyhole.core.errors import Conflict, InvalidRequest, KeyholeError, TargetFailed, UpstreamUnreachable
from keyhole.core.request import Reply
from keyhole.engines import Call, Context
from keyhole.engines.oauth.asking import DEVICE_CODE, Away, Declined, Granted, ask_device, ask_tokens, end_token
from keyhole.engines.oauth.connection import Connection
from keyhole.engines.oauth.consent import known, take, who

_INTERVAL, _SLOWER, _LONGEST_INTERVAL = 5, 5, 60  # seconds; the first two are RFC 8628, sections 3.2 and 3.5
_LASTS, _LONGEST = 600, 3600


async def begin(context: Context, call: Call) -> Reply:
    """A code for a person to type at the provider."""
    connection = await known(context, call.params["name"])
    if not connection["device_url"] or not connection.by_person:
        raise InvalidRequest("the provider of this connection has no device flow", connection.next_step())
    said = await ask_device(context, connection, context.now)
    if isinstance(said, Away):
        raise said.error()
    if isinstance(said, Declined):
        raise TargetFailed(f"the provider begins no device flow: {said.code}", "is it allowed for this client?")
    code, shown, url = said.get("device_code"), said.get("user_code"), said.get("verification_uri")
    url = url or said.get("verification_url")  # as Google spells it
    texts = (code, shown, url)
    if not all(isinstance(text, str) and text.isprintable() and 0 < len(text) <= 2048 for text in texts):
        raise UpstreamUnreachable("the provider's answer is none of a device flow", "check device_url")
    interval = _seconds(said.get("interval"), _INTERVAL, _LONGEST_INTERVAL)
    lasts = _seconds(said.get("expires_in"), _LASTS, _LONGEST)
    flow = {
        "device_code": code,
        "id": connection["id"],
        "who": who(context),
        "interval": interval,
        "next": context.now + interval,
        "until": context.now + lasts,
    }
    path = _path(connection.name)
    item = await context.storage.get_one(path)
    await context.storage.change([(path, json.dumps(flow).encode(), item.revision, flow["until"])])
    complete = said.get("verification_uri_complete")
    data = {"user_code": shown, "verification_uri": url, "interval": interval, "expires_in": lasts}
    if isinstance(complete, str) and complete.isprintable() and len(complete) <= 2048:
        data["verification_uri_complete"] = complete
    return Reply(data)


async def poll(context: Context, call: Call) -> Reply:
    """Has the person agreed? ``retry_in`` says when to ask again."""
    connection = await known(context, call.params["name"])
    path = _path(connection.name)
    item = await context.storage.get_one(path)
    flow: dict[str, Any] = json.loads(item.data) if item.data is not None else {"id": "", "who": ""}
    own = hmac.compare_digest(flow["who"].encode(), who(context).encode())
    if flow["id"] != connection["id"] or not own:
        raise InvalidRequest("no device flow is under way: it was cancelled, or somebody else began it", "begin again")
    if flow["until"] <= context.now:
        await context.storage.change((), [(path, item.revision)])
        raise InvalidRequest("the code was not typed in time", connection.next_step())
    if flow["next"] > context.now:
        return _pending(flow["next"] - context.now)
    revision = await _wait_again(context, path, flow, item.revision)
    answer: Granted | Declined | Away
    try:
        form = {"grant_type": DEVICE_CODE, "device_code": flow["device_code"]}
        answer = await ask_tokens(context, connection, form, context.now)
    except KeyholeError as error:
        answer = Away(error.reason)
    if isinstance(answer, Granted) and answer.access:
        return await _taken(context, connection, answer, path, revision)
    if isinstance(answer, Away) or answer == Declined("slow_down"):
        slower = flow["interval"] + _SLOWER if isinstance(answer, Declined) else flow["interval"] * 2
        flow["interval"] = min(max(slower, getattr(answer, "retry_after", 0)), _LONGEST_INTERVAL)
        await _wait_again(context, path, flow, revision)
    elif answer != Declined("authorization_pending"):
        await context.storage.change((), [(path, revision)])
        return await take(context, connection, answer)
    return _pending(flow["interval"])


async def _wait_again(context: Context, path: str, flow: dict[str, Any], revision: int) -> int:
    """Nobody asks before an interval has gone; the entry's new revision. Raises ``Conflict`` when somebody just did."""
    flow["next"] = context.now + flow["interval"]
    await context.storage.change([(path, json.dumps(flow).encode(), revision, flow["until"])])
    return revision + 1


async def _taken(context: Context, connection: Connection, answer: Granted, path: str, revision: int) -> Reply:
    try:
        return await take(context, connection, answer, (path, revision))
    except Conflict:
        if connection["revoke_url"]:
            with contextlib.suppress(KeyholeError):
                hint = "refresh_token" if answer.refresh else "access_token"
                await end_token(context, connection, answer.refresh or answer.access, hint, context.now)
        raise InvalidRequest("the device flow was cancelled meanwhile", "begin again") from None


async def cancel(context: Context, call: Call) -> None:
    """Ends the flow that is under way; nobody asks the provider for its tokens any more."""
    path = _path(call.params["name"])
    item = await context.storage.get_one(path)
    if item.data is not None:
        await context.storage.change((), [(path, item.revision)])


async def due(context: Context, path: str) -> str:
    """Forget one that nobody ended."""
    item = await context.storage.get_one(path)
    if item.data is not None and json.loads(item.data)["until"] <= context.now:
        await context.storage.change((), [(path, item.revision)])
    return ""


def _pending(seconds: float) -> Reply:
    return Reply({"status": "pending", "retry_in": max(1, int(seconds + 0.999))})


def _path(name: str) -> str:
    return f"d/{name}"


def _seconds(value: Any, usual: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        return usual
    return int(min(max(value, 1), most))
