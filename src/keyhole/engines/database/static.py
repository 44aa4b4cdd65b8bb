"""``static-roles/NAME``: users that are there already, whose passwords are replaced from time to time.

A new password is stored as ``pending`` before the database learns it, and the entry is due: whatever a crash leaves is
finished with that same password, by whichever node finds it first. An entry by database and user says which role has
it: two roles that replaced one password would each make the other's wrong.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keyhole.core.errors import Conflict, InvalidRequest, KeyholeError, NotFound, TargetFailed
from keyhole.core.fields import parse_text
from keyhole.core.request import Reply
from keyhole.core.times import format_time
from keyhole.core.value import Secret
from keyhole.engines import Call, Context
from keyhole.engines.database.connections import Connections, dial_list, names_or_404, password_for, read_name
from keyhole.engines.database.names import require_short, safe
from keyhole.engines.database.plugins import Login, Unsure
from keyhole.engines.database.roles import credential
from keyhole.engines.database.statements import fill, parse_statements
from keyhole.engines.database.users import require_allowed
from keyhole.engines.settings import Setting, read, seconds

PATH = "static-roles"
_TAKEN = "static-users"
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


@dataclass(frozen=True, slots=True)
class _Taken:
    """What is written and removed beside a role, so that its user is no other's."""

    writes: tuple[tuple[str, bytes, int], ...] = ()
    deletes: tuple[tuple[str, int], ...] = ()


def _taken_by(role: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(f"{role['db_name']}\0{role['username']}".encode()).hexdigest()
    return f"{_TAKEN}/{digest}"


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
        connection = await self._connections.load(context, role["db_name"])
        require_allowed(connection, name)
        require_short(role["username"], connection.plugin.LONGEST)
        if role["username"] == connection.details.get("username"):
            raise InvalidRequest("this is the user as whom the connection logs in", "rotate-root replaces its password")
        taken = await self._take(context, name, role, before)
        if before is None or not before["last"]:
            await self._rotate(context, name, role, item.revision, taken, new=before is None)
            return
        saved = (f"{PATH}/{name}", json.dumps(role).encode(), item.revision, self._due(role))
        await context.storage.change([saved, *taken.writes], taken.deletes)

    async def _take(
        self, context: Context, name: str, role: Mapping[str, Any], before: Mapping[str, Any] | None
    ) -> _Taken:
        """What marks the user as this role's. Raises ``InvalidRequest`` when it is another's."""
        path = _taken_by(role)
        if before is not None and _taken_by(before) == path:
            return _Taken()
        found = await context.storage.get_one(path)
        if found.data is not None:
            other = found.data.decode()
            raise InvalidRequest(f"the static role {other!r} has this user already", "one user has one static role")
        left = await context.storage.get_one(_taken_by(before)) if before is not None else None
        deletes = ((_taken_by(before), left.revision),) if before is not None and left and left.data is not None else ()
        return _Taken(((path, name.encode(), found.revision),), deletes)

    async def rotate(self, context: Context, call: Call) -> None:
        """Replaces the password now."""
        role, revision = await self._load(context, read_name(call))
        if role["pending"] and context.now < role["claimed"] + CLAIM:
            raise InvalidRequest("its password is being replaced at this moment", "try again in a minute")
        await self._rotate(context, call.params["name"], role, revision)

    async def verify(self, context: Context, call: Call) -> None:
        """Logs in with the password that counts now. Raises ``TargetFailed`` when that cannot be done."""
        role, _ = await self._load(context, read_name(call))
        require_allowed(await self._connections.load(context, role["db_name"]), call.params["name"])
        await self._log_in(context, role, "password")

    async def _log_in(self, context: Context, role: Mapping[str, Any], which: str) -> None:
        connection = await self._connections.load(context, role["db_name"])
        login = Login(role["username"], role[which])
        session = await connection.plugin.connect(connection.details, login, await dial_list(context, connection))
        await session.close()

    async def _seen(self, context: Context, role: dict[str, Any]) -> dict[str, Any]:
        """A role whose password is being replaced, as the database sees it: whoever did it may be gone for good."""
        try:
            await self._log_in(context, role, "pending")
        except KeyholeError:
            return role
        return {**role, "password": role["pending"], "last": role["claimed"]}

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

    async def _rotate(
        self,
        context: Context,
        name: str,
        role: Mapping[str, Any],
        revision: int,
        taken: _Taken | None = None,
        *,
        new: bool = False,
    ) -> None:
        """Raises ``Conflict`` when somebody else is at it; after any other error it is tried again later.

        Only a role that is ``new`` is given up, and only when the database has certainly not taken its password.
        """
        path, taken = f"{PATH}/{name}", taken or _Taken()
        connection = await self._connections.load(context, role["db_name"])
        pending = role["pending"] or await password_for(context, connection)
        claimed = {**role, "pending": pending, "claimed": context.now}
        first = (path, json.dumps(claimed).encode(), revision, context.now + CLAIM)
        await context.storage.change([first, *taken.writes], taken.deletes)
        try:
            require_allowed(connection, name)
            text = connection.plugin.password_text(connection.details, role["username"], pending)
            values = {"name": role["username"], "username": role["username"], "password": text}
            own = role["rotation_statements"]
            statements = connection.plugin.statements("password", own, connection.details)
            async with self._connections.session(context, connection) as session:
                await session.run([fill(each, values) for each in statements], pending, text)
        except KeyholeError as error:
            if new and not isinstance(error, Unsure):
                await self._forget(context, name)
                raise
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
        if role["pending"]:
            role = await self._seen(context, role)
        if not role["last"]:
            why = warnings[0] if warnings else "its password has not been replaced yet"
            raise TargetFailed(why, "it is tried again every few seconds")
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
        await self._forget(context, read_name(call))

    async def _forget(self, context: Context, name: str) -> None:
        path = f"{PATH}/{name}"
        item = await context.storage.get_one(path)
        if item.data is None:
            return
        taken = await context.storage.get_one(_taken_by(json.loads(item.data)))
        mine = taken.data is not None and taken.data.decode() == name
        mark = [(_taken_by(json.loads(item.data)), taken.revision)] if mine else []
        await context.storage.change((), [(path, item.revision), *mark])

    async def list_names(self, context: Context, _call: Call) -> Reply:
        """Names of static roles."""
        return Reply({"keys": names_or_404(await context.storage.list(PATH), "static roles")})
