"""``roles/NAME``: which statements make a user, for how long, and what takes it back."""

from __future__ import annotations

import json
from typing import Any

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.fields import parse_map, parse_text
from keyhole.core.request import Reply
from keyhole.engines import Call, Context
from keyhole.engines.database.connections import names_or_404, read_name
from keyhole.engines.database.statements import parse_statements
from keyhole.engines.settings import Setting, read, seconds


def credential(value: Any, name: str) -> str:
    """The one kind of credential that there is. Raises ``InvalidRequest`` for others."""
    if value != "password":
        raise InvalidRequest(f"{name} is password", "keys and certificates are not made for databases here")
    return "password"


def _statements(name: str, about: str) -> Setting:
    return Setting(name, parse_statements, [], about, "list")


SETTINGS = (
    Setting("db_name", parse_text, "", "the connection, as in config/NAME", "string"),
    _statements("creation_statements", "make the user {{name}} with {{password}} until {{expiration}}"),
    _statements("revocation_statements", "take it back; the database's own unless said"),
    _statements("rollback_statements", "clean up after creation_statements that failed"),
    _statements("renew_statements", "let it live until {{expiration}}; the database's own unless said"),
    seconds("default_ttl", "how long a user lives; the mount's unless said"),
    seconds("max_ttl", "how long renewals can keep it; the mount's unless said"),
    Setting("credential_type", credential, "password", "password", "string"),
    Setting("credential_config", parse_map, {}, "taken for Vault's clients", "map"),
)


async def load(context: Context, name: str) -> dict[str, Any] | None:
    """The role of this name."""
    item = await context.storage.get_one(f"r/{name}")
    return None if item.data is None else json.loads(item.data)


async def exists(context: Context, params: Any) -> bool:
    """Is there one of this name?"""
    return await load(context, params["name"]) is not None


async def write(context: Context, call: Call) -> None:
    """Makes a role, or changes what is sent of one."""
    path = f"r/{read_name(call)}"
    item = await context.storage.get_one(path)
    call.require_new(stored=item.data is not None)
    role = read(SETTINGS, call.data, json.loads(item.data) if item.data is not None else None)
    if not role["db_name"]:
        raise InvalidRequest("empty database name attribute given", "send db_name, the name of a connection")
    if role["max_ttl"] and role["default_ttl"] > role["max_ttl"]:
        raise InvalidRequest("default_ttl is longer than max_ttl", "lower it")
    await context.storage.change([(path, json.dumps(role).encode(), item.revision)])


async def show(context: Context, call: Call) -> Reply:
    """A role."""
    role = await load(context, read_name(call))
    if role is None:
        raise NotFound("there is no such role", "see LIST roles")
    return Reply(role)


async def delete(context: Context, call: Call) -> None:
    """Removes a role; users that it made are taken back when their leases end."""
    path = f"r/{read_name(call)}"
    item = await context.storage.get_one(path)
    if item.data is not None:
        await context.storage.change((), [(path, item.revision)])


async def list_names(context: Context, _call: Call) -> Reply:
    """Names of roles."""
    return Reply({"keys": names_or_404(await context.storage.list("r"), "roles")})
