"""Where the database is, and how a connection to it is set up.

    postgres://USER@HOST:PORT/DATABASE?schema=NAME

What the location leaves out comes from libpq's environment (PGHOST, PGPASSFILE, PGSSLROOTCERT and so on,
https://www.postgresql.org/docs/current/libpq-envars.html). A password is never taken from the location: locations are
typed, logged and listed with the processes.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

from keyhole.core.errors import InvalidRequest, StoreUnavailable
from keyhole.stores.postgres.faults import lost

# It logs lost connections with their addresses; what there is to say is said by our errors.
logging.getLogger("psycopg").setLevel(logging.CRITICAL)

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

CONNECT_SECONDS = 5
RECONNECT_SECONDS = 3.0
"""How long an operation waits for a database that has just gone, as it does in a restart."""

_AGAIN_SECONDS = 0.1
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_SETTINGS = (
    # A node that stands still in a transaction would hold the lock of the store for all others.
    ("idle_in_transaction_session_timeout", "5s"),
    ("lock_timeout", "10s"),
    ("statement_timeout", "30s"),
    ("default_transaction_isolation", "read committed"),
    # The driver writes bytes and lists as these say; with others of the role's or the server's own, what is read back
    # is not what was written.
    ("client_encoding", "UTF8"),
    ("standard_conforming_strings", "on"),
    ("array_nulls", "on"),
    ("row_security", "on"),
)
_UNBOUND = "SELECT bool_or(rolsuper OR rolbypassrls) FROM pg_roles WHERE rolname IN (session_user, current_user)"
_PASSWORDS = {"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"}
_WEAK = {"allow", "prefer"}
_DURABLE = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"


@dataclass(frozen=True, slots=True)
class Place:
    """Parameters of libpq, and the schema in which the tables are."""

    parameters: dict[str, str]
    schema: str


def locate(rest: str) -> Place:
    """Read what follows ``postgres:``.

    Raises:
        InvalidRequest: it is no such URL, holds a password, or leaves TLS to whoever is between.
    """
    form = "write postgres://USER@HOST/DATABASE"
    try:
        parts = urlsplit(f"postgres:{rest}")
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        schema = query.pop("schema", "keyhole")
        given = conninfo_to_dict(urlunsplit(parts._replace(query=urlencode(query))))
    except (ValueError, psycopg.Error):
        raise InvalidRequest("the location of the store is not a URL of PostgreSQL", form) from None
    if not rest.startswith("//"):
        raise InvalidRequest("the location of the store is not a URL of PostgreSQL", form)
    if not _PASSWORDS.isdisjoint(given):
        raise InvalidRequest(
            "a password in the location of a store would be seen in process lists and logs",
            "leave it out, and put it into the file that PGPASSFILE names (mode 0600)",
        )
    if _SCHEMA.fullmatch(schema) is None or schema.startswith("pg_"):
        raise InvalidRequest("a schema's name is lower-case letters, digits and _, and does not begin with pg_")
    parameters = {key: str(value) for key, value in given.items() if value is not None}
    if not _is_local(parameters):
        mode = parameters.setdefault("sslmode", os.environ.get("PGSSLMODE") or "require")
        if mode in _WEAK:
            raise InvalidRequest(
                f"with sslmode={mode} whoever is between Keyhole and the database can turn TLS off",
                "write sslmode=verify-full, or require; or disable where the network is trusted",
            )
    defaults = {"connect_timeout": str(CONNECT_SECONDS), "tcp_user_timeout": "10000", "application_name": "keyhole"}
    return Place({**defaults, **parameters, "target_session_attrs": "read-write"}, schema)


def _is_local(parameters: dict[str, str]) -> bool:
    hosts = parameters.get("hostaddr") or parameters.get("host") or os.environ.get("PGHOST", "")
    return all(_is_local_host(host) for host in hosts.split(","))


def _is_local_host(host: str) -> bool:
    if host in {"", "localhost"} or host.startswith(("/", "@")):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def connect(place: Place) -> Connection:
    """One connection, ready for use.

    Raises:
        StoreUnavailable: nobody answers there, or the login was refused.
        InvalidRequest: row level security would not bind the role.
    """
    try:
        connection = await psycopg.AsyncConnection.connect(
            **place.parameters,  # type: ignore[arg-type]  # the names of libpq's own parameters, all of them texts
            autocommit=True,
            prepare_threshold=2,
        )
    except psycopg.Error as error:
        raise _refused(str(error)) from None
    try:
        settings = (*_SETTINGS, ("search_path", f'"{place.schema}", pg_temp'))
        asked = ", ".join(["set_config(%s, %s, false)"] * len(settings))
        await connection.execute(f"SELECT {asked}", [text for setting in settings for text in setting])
        await connection.execute(_DURABLE)
        bound = await (await connection.execute(_UNBOUND)).fetchone() == (False,)
    except psycopg.Error:
        await connection.close()
        raise lost() from None
    if not bound:
        await connection.close()
        raise InvalidRequest(
            "the role of the store is a superuser or has BYPASSRLS, so nothing would keep the orgs' rows apart",
            "use a role without either, made with createuser alone: docs/store.md",
        )
    return connection


def _refused(message: str) -> StoreUnavailable:
    # libpq gives no SQLSTATE for a failed connection, only words.
    if "SSL" in message:
        return StoreUnavailable(
            "no connection with TLS could be made to the database",
            "give the database a certificate, or say ?sslmode=disable if the network between is trusted",
        )
    if "authentication" in message or "password" in message or "role" in message or "pg_hba" in message:
        return StoreUnavailable("the database refused the login", "check the user, the database and PGPASSFILE")
    if "database" in message and "does not exist" in message:
        return StoreUnavailable("there is no such database on the server", "make it with createdb")
    return lost()


async def reconnect(place: Place) -> Connection:
    """As ``connect``, and trying again for ``RECONNECT_SECONDS``."""
    loop = asyncio.get_running_loop()
    end = loop.time() + RECONNECT_SECONDS
    while True:
        try:
            return await connect(place)
        except StoreUnavailable:
            if loop.time() >= end:
                raise
        await asyncio.sleep(_AGAIN_SECONDS)
