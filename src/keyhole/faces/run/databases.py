"""Ports of the command's own for databases: one for each, on loopback, and a session is opened without a password.

A connection is served when a process of the command holds its other end (see ``port``). It becomes a tunnel through the
broker's proxy, with the command's token; what is spoken inside is the database's protocol, and the broker opens the
session.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import quote

from keyhole.faces.run.plan import Database
from keyhole.faces.run.port import Address, SessionPort

_SECONDS = 30.0  # to the answer to CONNECT
_STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")

WITHHELD = (
    "PGPASSWORD", "PGPASSFILE", "PGSERVICE", "PGSERVICEFILE", "PGHOSTADDR", "PGSSLMODE", "PGSSLCERT", "PGSSLKEY",
    "PGSSLROOTCERT", "PGCHANNELBINDING", "PGREQUIREAUTH", "PGREQUIRESSL", "PGGSSENCMODE", "MYSQL_PWD", "DATABASE_URL",
)  # fmt: skip
"""Variables of the caller that would lead to another database, or ask of this port what it has not."""


class _Names(NamedTuple):
    """The variables of a scheme."""

    host: str
    port: str
    user: str
    database: str
    more: tuple[tuple[str, str], ...]
    url: str
    query: str


_NAMES = {
    "postgres": _Names(
        "PGHOST", "PGPORT", "PGUSER", "PGDATABASE", (("PGSSLMODE", "disable"),), "postgresql", "?sslmode=disable"
    ),
    "mysql": _Names("MYSQL_HOST", "MYSQL_TCP_PORT", "MYSQL_USER", "MYSQL_DATABASE", (), "mysql", ""),
}


class DatabasePort(SessionPort):
    """The listener for one database.

    Args:
        proxy_url: the broker's proxy, of plain HTTP, with the token.
        on_message: told once when somebody else tried to connect, and once when the proxy refuses.
        database: where it leads.
    """

    what = "port for a database"
    refusal = b""

    def __init__(self, proxy_url: str, on_message: Callable[[str], None], database: Database) -> None:
        super().__init__(proxy_url, on_message)
        self.database = database
        self._refused = False

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = self.database.authority.encode()
        service = self.database.service.encode()
        try:
            back, forth = await asyncio.open_connection(*self._there)
        except OSError:
            return
        try:
            head = b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n" % (there, there)
            forth.write(head + self._credential + b"X-Keyhole-Service: %b\r\n\r\n" % service)
            async with asyncio.timeout(_SECONDS):
                answer = await back.readuntil(b"\r\n\r\n")
            status = _STATUS.match(answer)
            if status is not None and status[1] == b"200":
                await self.carry(reader, writer, back, forth)
            elif not self._refused:
                self._refused = True
                said = status[1].decode() if status is not None else "nothing that HTTP knows"
                self._on_message(f"the broker refuses the way to {self.database.service}: it says {said}")
        finally:
            forth.close()


def variables(databases: Sequence[Database], ports: Sequence[Address]) -> dict[str, str]:
    """What leads the command's clients to its ports.

    The variables that clients read by themselves are set where only one database of their kind is granted,
    ``DATABASE_URL`` where only one is at all; all of them besides with the service's name before.

    Args:
        databases: that are granted.
        ports: of each, in the same order.
    """
    found: dict[str, str] = {}
    for database, (host, port) in zip(databases, ports, strict=True):
        names = _NAMES[database.scheme]
        name = database.name or database.service
        own = {names.host: host, names.port: str(port), names.user: database.service, names.database: name}
        own |= dict(names.more)
        url = f"{names.url}://{quote(database.service)}@{host}:{port}/{quote(name, safe='')}{names.query}"
        before = re.sub(r"[^A-Z0-9]", "_", database.service.upper()).lstrip("0123456789") or "_"
        found |= {f"{before}_{variable}": text for variable, text in own.items()} | {f"{before}_DATABASE_URL": url}
        if sum(other.scheme == database.scheme for other in databases) == 1:
            found |= own
        if len(databases) == 1:
            found["DATABASE_URL"] = url
    return found
