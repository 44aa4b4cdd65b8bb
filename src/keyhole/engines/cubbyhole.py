"""A private drawer for each token: nobody else reads it, and it goes with the token. Semantics of Vault's cubbyhole."""

from __future__ import annotations

import json
from collections.abc import Mapping

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.path import parse_path
from keyhole.core.request import Operation, Reply
from keyhole.core.value import Secret
from keyhole.engines import Call, Context, Engine, Route


def _path(context: Context, params: Mapping[str, str]) -> str:
    return f"{drawer(context)}/{parse_path(params['path'])}"


def drawer(context: Context) -> str:
    """Folder of the caller's token; the owner of a local vault has one too.

    Raises:
        InvalidRequest: it is a batch token, whose end nobody would notice.
    """
    if context.caller.type == "batch":
        raise InvalidRequest('cubbyhole operations are only supported by "service" type tokens', "use a service token")
    return context.caller.token_id or "owner"


async def _exists(context: Context, params: Mapping[str, str]) -> bool:
    return (await context.storage.get_one(_path(context, params))).data is not None


async def read(context: Context, call: Call) -> Reply:
    """What was stored here by the same token."""
    item = await context.storage.get_one(_path(context, call.params))
    if item.data is None:
        raise NotFound("there is nothing here")
    # Every leaf is masked until a face that may show it does so.
    return Reply({key: Secret(json.dumps(value)) for key, value in json.loads(item.data).items()})


async def write(context: Context, call: Call) -> None:
    """Stores the fields, replacing what was here."""
    if not call.data:
        raise InvalidRequest("missing data fields", 'send {"key": "value"}')
    path = _path(context, call.params)
    item = await context.storage.get_one(path)
    call.require_new(stored=item.data is not None)
    await context.storage.change([(path, json.dumps(dict(call.data)).encode(), item.revision)])


async def delete(context: Context, call: Call) -> None:
    """Removes what is stored here."""
    path = _path(context, call.params)
    item = await context.storage.get_one(path)
    if item.data is not None:
        await context.storage.change((), [(path, item.revision)])


async def list_names(context: Context, call: Call) -> Reply:
    """Names in the drawer."""
    below = call.params.get("path", "").strip("/")
    keys = await context.storage.list(f"{drawer(context)}/{parse_path(below)}" if below else drawer(context))
    if not keys:
        raise NotFound("there is nothing here")
    return Reply({"keys": list(keys)})


ENGINE = Engine(
    "cubbyhole",
    (
        Route("", {Operation.LIST: list_names}, help="Names in the drawer of this token."),
        Route(
            "{path...}",
            {
                Operation.READ: read,
                Operation.CREATE: write,
                Operation.DELETE: delete,
                Operation.LIST: list_names,
            },
            exists=_exists,
            help="A drawer that belongs to the token and goes with it.",
        ),
    ),
)
