"""``rotate-root/NAME``: our own password at a database, replaced by one that nobody but this vault has."""

from __future__ import annotations

import contextlib
import json

from keyhole.core.errors import Conflict, InvalidRequest
from keyhole.engines import Call, Context
from keyhole.engines.database.connections import Connections, password_for, read_name
from keyhole.engines.database.names import safe
from keyhole.engines.database.statements import fill

_CLAIM = 60.0  # seconds for which nobody else replaces it; longer than it can take


class Root:
    """Replaces our own passwords.

    Args:
        connections: of the mount.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def rotate(self, context: Context, call: Call) -> None:
        """Replaces the password with which Keyhole logs in.

        The new one is stored before the database learns it; who logs in next finds out which of the two counts.
        """
        connection = await self._connections.load(context, read_name(call))
        username = safe(connection.details.get("username", ""), "username is a name")
        if "{{password}}" not in connection.details["connection_url"]:
            raise InvalidRequest("connection_url has a password of its own", "write {{password}} in its place")
        if connection.data["pending"]:
            if context.now < connection.data["rotating"] + _CLAIM:
                raise InvalidRequest("the password is being replaced at this moment", "try again in a minute")
            async with self._connections.fresh(context, connection):
                pass  # which finds out which one counts
            connection = await self._connections.load(context, connection.name)
        new = await password_for(context, connection)
        begun = {**connection.data, "pending": new, "rotating": context.now}
        path = f"c/{connection.name}"
        text = connection.plugin.password_text(connection.details, username, new)
        own = connection.data["root_rotation_statements"]
        statements = connection.plugin.statements("root", own, connection.details)
        values = {"name": username, "username": username, "password": text}
        async with self._connections.fresh(context, connection) as session:
            await context.storage.change([(path, json.dumps(begun).encode(), connection.revision)])
            await session.run([fill(each, values) for each in statements], new, text)
        done = {**begun, "password": new, "pending": ""}
        with contextlib.suppress(Conflict):  # whoever logged in meanwhile has seen that the new one counts
            await context.storage.change([(path, json.dumps(done).encode(), connection.revision + 1)])
