"""``static-roles/NAME``: users that are there already, whose passwords are replaced from time to time.

A new password is stored as ``pending`` before the database learns it, and the entry is due: whatever a crash leaves is
finished with that same password, by whichever node finds it first.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from keyhole.core.errors import Conflict, InvalidRequest, KeyholeError, NotFound, TargetFailed
from keyhole.core.fields import parse_text
from keyhole.core.request import Reply
from keyhole.core.times import format_time
from keyhole.core.value import Secret
from keyhole.engines import Call, Context
from keyhole.engines.database.connections import Connections, names_or_404, password_for, read_name
from keyhole.engines.database.names import safe
from keyhole.engines.database.roles import credential
from keyhole.engines.database.statements import fill, parse_statements, take_apart
from keyhole.engines.database.users import require_allowed
from keyhole.engines.settings import Setting, read, seconds

PATH = "static-roles"
CLAIM = 60.0
"""Seconds for which nobody else tries the same rotation; longer than one can take."""

_RETRY = 10.0  # seconds after a failure
_SHORTEST = 5
_LONGEST = 30.0  # seconds that others wait for one

SETTINGS = (
    Setting("db_name", parse_text, "", "the connection, as in config/NAME", "string"),
    Setting("username", parse_text, "", "of a user that the database has", "string"),
    seconds("rotation_period", "after which the password is replaced; 5 s or more"),
    Setting("rotation_statements", parse_statements, [], "replace it; the database's own unless said", "list"),
    Setting("credential_type", credential, "password", "password", "string"),
)
_NEW: Mapping[str, Any] = {"password": "", "pending": "", "claimed": 0.0, "last": 0.0}


class StaticRoles:
    """The static roles of a mount.

    Args:
        connections: of the mount.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def exists(self, context: Context, params: Mapping[str, str]) -> bool:
        """Is there one of this name?"""
        return (await context.storage.get_one(f"{PATH}/{params['name']}")).data is not None

    async def write(self, context: Context, call: Call) -> None:
        """Makes one, which replaces the password at once, or changes its settings."""
        name = read_name(call)
        item = await context.storage.get_one(f"{PATH}/{name}")
        call.require_new(stored=item.data is not None)
        before = json.loads(item.data) if item.data is not None else None
        role = {**(before or _NEW), **read(SETTINGS, call.data, before)}
        if not role["db_name"]:
            raise InvalidRequest("database name is a required field", "send db_name, the name of a connection")
        if not role["username"]:
            raise InvalidRequest("username is a required field to create a static account", "send username")
        safe(role["username"], "this is a user name")
        if before is not None and role["username"] != before["username"]:
            raise InvalidRequest("cannot update static account username", "make another static role")
        if role["rotation_period"] < _SHORTEST:
            raise InvalidRequest(f"rotation_period must be {_SHORTEST} seconds or more", "send it, like 24h")
        require_allowed(await self._connections.load(context, role["db_name"]), name)
        if before is not None and before["last"]:
            due = self._due(role)
            await context.storage.change([(f"{PATH}/{name}", json.dumps(role).encode(), item.revision, due)])
            return
        try:
            await self._rotate(context, name, role, item.revision)
        except Conflict:  # somebody else has made one of this name
            raise
        except KeyholeError:
            await self.delete(context, call)
            raise

    async def rotate(self, context: Context, call: Call) -> None:
        """Replaces the password now."""
        role, revision = await self._load(context, read_name(call))
        if role["pending"] and context.now < role["claimed"] + CLAIM:
            raise InvalidRequest("its password is being replaced at this moment", "try again in a minute")
        await self._rotate(context, call.params["name"], role, revision)

    async def due(self, context: Context, path: str) -> str:
        """Replaces a password whose time has come, or finishes what was begun. Raises ``KeyholeError``."""
        name = path.rpartition("/")[2]
        role, revision = await self._load(context, name)
        if self._due(role) > context.now:
            return ""
        try:
            async with asyncio.timeout(_LONGEST):
                await self._rotate(context, name, role, revision)
        except TimeoutError:
            raise TargetFailed("the database did not answer in time", "is it reachable?") from None
        return f"rotate-role/{name}"

    def _due(self, role: Mapping[str, Any]) -> float:
        if role["pending"]:
            return float(role["claimed"] + CLAIM)
        return float(role["last"] + role["rotation_period"])

    async def _rotate(self, context: Context, name: str, role: Mapping[str, Any], revision: int) -> None:
        """Raises ``Conflict`` when somebody else is at it; after any other error it is tried again later."""
        path = f"{PATH}/{name}"
        connection = await self._connections.load(context, role["db_name"])
        pending = role["pending"] or await password_for(context, connection)
        claimed = {**role, "pending": pending, "claimed": context.now}
        await context.storage.change([(path, json.dumps(claimed).encode(), revision, context.now + CLAIM)])
        try:
            require_allowed(connection, name)
            text = connection.plugin.password_text(connection.details, role["username"], pending)
            values = {"name": role["username"], "username": role["username"], "password": text}
            own = role["rotation_statements"] or connection.plugin.PASSWORD
            statements = take_apart(own, backslash=connection.plugin.BACKSLASH)
            async with self._connections.session(context, connection) as session:
                await session.run([fill(each, values) for each in statements], pending, text)
        except KeyholeError:
            failed = {**claimed, "claimed": context.now - CLAIM + _RETRY}
            await context.storage.change([(path, json.dumps(failed).encode(), revision + 1, context.now + _RETRY)])
            raise
        done = {**claimed, "password": pending, "pending": "", "last": context.now}
        await context.storage.change([(path, json.dumps(done).encode(), revision + 1, self._due(done))])

    async def _load(self, context: Context, name: str) -> tuple[dict[str, Any], int]:
        item = await context.storage.get_one(f"{PATH}/{name}")
        if item.data is None:
            raise InvalidRequest(f"unknown role: {name[:64]}", "see LIST static-roles")
        return json.loads(item.data), item.revision

    async def creds(self, context: Context, call: Call) -> Reply:
        """The password that counts now."""
        name, warnings = read_name(call), []
        role, revision = await self._load(context, name)
        if role["pending"] and self._due(role) <= context.now:
            try:
                await self._rotate(context, name, role, revision)
            except Conflict:
                pass
            except KeyholeError as error:
                warnings = [f"the password is being replaced, which has failed: {error.reason}"]
            role, _ = await self._load(context, name)
        data = {
            "last_vault_rotation": format_time(role["last"]),
            "password": Secret(json.dumps(role["password"])),
            "rotation_period": role["rotation_period"],
            "ttl": max(0, int(role["last"] + role["rotation_period"] - context.now)),
            "username": role["username"],
        }
        return Reply(data, warnings=warnings)

    async def read(self, context: Context, call: Call) -> Reply:
        """The settings, without the password."""
        item = await context.storage.get_one(f"{PATH}/{read_name(call)}")
        if item.data is None:
            raise NotFound("there is no such static role", "see LIST static-roles")
        role = json.loads(item.data)
        shown = {key: role[key] for key in ("db_name", "rotation_period", "rotation_statements", "username")}
        return Reply({**shown, "last_vault_rotation": format_time(role["last"])})

    async def delete(self, context: Context, call: Call) -> None:
        """Forgets one; the user keeps its last password."""
        path = f"{PATH}/{read_name(call)}"
        item = await context.storage.get_one(path)
        if item.data is not None:
            await context.storage.change((), [(path, item.revision)])

    async def list_names(self, context: Context, _call: Call) -> Reply:
        """Names of static roles."""
        return Reply({"keys": names_or_404(await context.storage.list(PATH), "static roles")})
