"""Users of a database that look as if they had been made here and that no lease knows: found, shown, then taken away.

None comes about while the store keeps its promises; one does when a store was put back from a backup, or a lease was
forgotten by force. A name proves little, as another vault may make users at the same database: so a person decides.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from itertools import takewhile

from keyhole.core.errors import InvalidRequest, KeyholeError
from keyhole.core.lease import Lease
from keyhole.engines import Context
from keyhole.engines.database.connections import Connection, Connections
from keyhole.engines.database.names import user_of
from keyhole.engines.database.static import PATH as STATIC
from keyhole.engines.database.templates import Source, read_template
from keyhole.engines.strays import Stray

_SHORTEST = 2  # characters by which users are told from others
_SECONDS = 20.0  # for one database


class Strays:
    """Finds them, and takes them away.

    Args:
        connections: of the mount.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def find(
        self,
        context: Context,
        leases: Callable[[], Awaitable[Sequence[Lease]]],
        drop: Collection[tuple[str, str]],
    ) -> list[Stray]:
        """As ``engines.Strays``."""
        names = await context.storage.list("c")
        found = await asyncio.gather(*(self._of_one(context, name, leases, drop) for name in names))
        return [stray for strays in found for stray in strays]

    async def _of_one(
        self,
        context: Context,
        name: str,
        leases: Callable[[], Awaitable[Sequence[Lease]]],
        drop: Collection[tuple[str, str]],
    ) -> list[Stray]:
        try:
            async with asyncio.timeout(_SECONDS):
                return await self._look(context, await self._connections.load(context, name), leases, drop)
        except KeyholeError as error:
            return [Stray(name, error=error.reason)]
        except TimeoutError:
            return [Stray(name, error="the database did not answer in time")]

    async def _look(
        self,
        context: Context,
        connection: Connection,
        leases: Callable[[], Awaitable[Sequence[Lease]]],
        drop: Collection[tuple[str, str]],
    ) -> list[Stray]:
        beginning = beginning_of(connection.template)
        known = {connection.details.get("username", ""), *await self._static(context)}
        plugin = connection.plugin
        async with self._connections.session(context, connection) as session:
            # Whoever is made meanwhile has a lease before; whoever is taken back meanwhile is gone afterwards.
            before = set(await plugin.users(session, beginning))
            known |= {user_of(lease) for lease in await leases()}
            strays = [Stray(connection.name, name) for name in sorted(before - known)]
            after = set(await plugin.users(session, beginning)) if strays else set()
            strays = [stray for stray in strays if stray.name in after]
            for number, stray in enumerate(strays):
                if (stray.target, stray.name) in drop:
                    strays[number] = await self._drop(connection, session, stray)
        return strays

    async def _drop(self, connection: Connection, session: object, stray: Stray) -> Stray:
        try:
            await connection.plugin.drop(session, stray.name)  # type: ignore[arg-type]  # of this plugin's own kind
        except KeyholeError as error:
            return replace(stray, error=error.reason)
        return replace(stray, dropped=True)

    async def _static(self, context: Context) -> list[str]:
        names = await context.storage.list(STATIC)
        items = await context.storage.get(*(f"{STATIC}/{name}" for name in names)) if names else []
        return [json.loads(item.data)["username"] for item in items if item.data is not None]


def beginning_of(template: str) -> str:
    """How all names begin that a template makes.

    Raises:
        InvalidRequest: they have nothing in common.
    """
    read = read_template(template)
    whom = (("a" * 64, "b" * 64), ("B" * 64, "A" * 64))
    names = [read.render(Source(str(n), n * 987_654_321, *whom[n % 2])) for n in range(8)]
    same = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    beginning = "".join(letters[0] for letters in same)
    if len(beginning) < _SHORTEST:
        raise InvalidRequest(
            "names by its username_template have no beginning in common, so users without a lease are not found",
            'begin the template with something like "v-"',
        )
    return beginning
