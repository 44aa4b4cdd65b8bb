"""``creds/NAME``: a user of a database, for as long as its lease.

The lease is noted first, and the name of the user derives from its id: whatever a crash leaves can be found and taken
back. The lease keeps the statements that take it back, so the role may be gone by then.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from keyhole.core.errors import InvalidRequest, KeyholeError, PolicyDenied, TargetAway, TargetFailed
from keyhole.core.lease import Lease
from keyhole.core.request import Reply
from keyhole.core.value import Secret
from keyhole.engines import Call, Context
from keyhole.engines.database import roles
from keyhole.engines.database.connections import Connection, Connections, password_for
from keyhole.engines.database.names import require_short, user_of
from keyhole.engines.database.statements import fill

_GRACE = 5  # seconds that the database lets a user live beyond its lease, as Vault


class NotAllowed(PolicyDenied):
    """The connection is not for this role. Clients of Vault know it by this status."""

    status = 500


class Users:
    """Makes users, and takes them back.

    Args:
        connections: of the mount.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def create(self, context: Context, call: Call) -> Reply:
        """A new user with its password."""
        name = call.params["name"]
        role = await roles.load(context, name)
        if role is None:
            raise InvalidRequest(f"unknown role: {name[:64]}", "see LIST roles")
        connection = await self._connections.load(context, role["db_name"])
        require_allowed(connection, name)
        plugin, details = connection.plugin, connection.details
        statements = plugin.statements("creation", role["creation_statements"], details)
        rollback = plugin.statements("rollback", role["rollback_statements"], details)
        if not statements:
            raise InvalidRequest("empty creation statements", "send creation_statements to the role")
        internal = {
            "db_name": connection.name,
            "display": context.caller.display or context.caller.name.replace("/", "-"),
            "role": name,
            "template": connection.template,
            "revocation_statements": plugin.kept(role),
            "renew_statements": role["renew_statements"],
        }
        password = await password_for(context, connection)
        lease = await context.leases.begin(
            ttl=role["default_ttl"], max_ttl=role["max_ttl"], internal=internal, target=connection.name
        )
        username = require_short(user_of(lease), plugin.LONGEST)
        text = plugin.password_text(details, username, password)
        values = {**_values(username, lease.expires), "password": text}
        async with self._connections.session(context, connection) as session:
            try:
                await session.run([fill(each, values) for each in statements], password, text, user=username)
            except KeyholeError:
                with contextlib.suppress(KeyholeError):  # the lease takes back whatever is there
                    await session.run([fill(each, values) for each in rollback], password, text)
                raise
        return Reply({"username": username, "password": Secret(json.dumps(password))}, lease=lease)

    async def revoke(self, context: Context, lease: Lease) -> None:
        """Take the user of a lease back. One that is gone already is taken back. Raises ``TargetFailed``."""
        connection = await self._connections.load(context, lease.internal["db_name"])
        username, plugin = user_of(lease), connection.plugin
        own = plugin.statements("revocation", lease.internal["revocation_statements"], connection.details)
        async with self._connections.session(context, connection) as session:
            if own and not await plugin.knows(session, username):
                return
            if own:
                values = _values(username, lease.expires)
                await plugin.lock(session, username)
                await session.run([fill(each, values) for each in own])
            else:
                await plugin.drop(session, username)

    async def revoke_all(self, context: Context, leases: Sequence[Lease]) -> list[KeyholeError | None]:
        """Take back the users of several leases of one connection; why each failed."""
        plain = [lease for lease in leases if not lease.internal["revocation_statements"]]
        errors: dict[str, KeyholeError] = {}
        if len(plain) > 1:
            connection = await self._connections.load(context, plain[0].internal["db_name"])
            try:
                async with self._connections.session(context, connection) as session:
                    await connection.plugin.drop_all(session, [user_of(lease) for lease in plain])
            except TargetAway:
                raise
            except TargetFailed:
                plain = []  # one of them cannot be taken back, so each has a try of its own
        else:
            plain = []
        done = {lease.mark for lease in plain}
        for lease in leases:
            if lease.mark not in done:
                try:
                    await self.revoke(context, lease)
                except TargetAway:
                    raise
                except KeyholeError as error:
                    errors[lease.mark] = error
        return [errors.get(lease.mark) for lease in leases]

    async def renew(self, context: Context, lease: Lease, _ttl: int) -> None:
        """Let the user of a lease live until its new end. Raises ``TargetFailed``."""
        connection = await self._connections.load(context, lease.internal["db_name"])
        own = lease.internal["renew_statements"]
        statements = connection.plugin.statements("renewal", own, connection.details)
        if statements:
            values = _values(user_of(lease), lease.expires)
            async with self._connections.session(context, connection) as session:
                await session.run([fill(each, values) for each in statements])


def require_allowed(connection: Connection, role: str) -> None:
    """Raises ``NotAllowed`` when the connection is not for this role."""
    if not connection.allows(role):
        hint = "whoever writes the connection can add it to allowed_roles"
        raise NotAllowed(f'1 error occurred:\n\t* "{role[:64]}" is not an allowed role\n\n', hint)


def _values(username: str, expires: float) -> Mapping[str, Any]:
    until = datetime.fromtimestamp(int(expires) + _GRACE, UTC)
    return {"name": username, "username": username, "expiration": until.strftime("%Y-%m-%d %H:%M:%S%z")}
