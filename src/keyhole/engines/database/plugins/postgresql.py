"""PostgreSQL, by psycopg.

The parameters of a connection are read by libpq, only those that are known here count, and libpq is given the addresses
that the guard has judged.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from keyhole.core.errors import InvalidRequest, TargetFailed
from keyhole.core.host import parse_host
from keyhole.engines.database.hiding import hidden
from keyhole.engines.database.plugins import Address, Dialled, Kind, Login, Refused, Unsure
from keyhole.engines.database.statements import take_apart
from keyhole.engines.database.tls import Unnamed, said_of_tls, split_chain

try:
    import psycopg
    from psycopg import sql
    from psycopg.conninfo import conninfo_to_dict
except ImportError:
    raise InvalidRequest(
        "this installation has no driver for PostgreSQL", "install it with the extra: keyhole[postgres]"
    ) from None

TEMPLATE = (
    '{{ printf "v-%s-%s-%s-%s" (.DisplayName | truncate 8) (.RoleName | truncate 8) (random 20) (unix_time)'
    " | truncate 63 }}"
)
LONGEST = 63
_PASSWORD = ("ALTER ROLE \"{{name}}\" WITH PASSWORD '{{password}}'",)
_OWN: Mapping[Kind, tuple[str, ...]] = {
    "renewal": ("ALTER ROLE \"{{name}}\" VALID UNTIL '{{expiration}}'",),
    "password": _PASSWORD,
    "root": _PASSWORD,
}

_CONNECT_SECONDS = 5
_STATEMENT = "20s"
_SCRAM = "scram-sha-256"
_PORT = 5432
_NOWHERE = "/dev/null/none"
_HOSTS = 16
_KNOWN = {
    "application_name", "channel_binding", "client_encoding", "connect_timeout", "dbname", "gssencmode", "host",
    "keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval", "password", "port", "sslcertmode",
    "sslmode", "ssl_min_protocol_version", "sslnegotiation", "sslrootcert", "target_session_attrs", "user",
}  # fmt: skip
_REFUSED = frozenset({"28000", "28P01"})
_LOST = ("08", "57P", "40003")  # classes of errors after which a transaction may be done all the same
_FATAL = re.compile(r"FATAL:\s+(.*)")

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


def _parameters(details: Mapping[str, Any]) -> dict[str, str]:
    """What libpq reads in the URL; the places for name and password stay."""
    try:
        found = conninfo_to_dict(str(details["connection_url"]))
    except psycopg.Error:
        raise InvalidRequest(
            "connection_url is no URL of PostgreSQL", "write postgresql://{{username}}:{{password}}@HOST:PORT/DATABASE"
        ) from None
    given = {key: str(value) for key, value in found.items() if value is not None}
    if unknown := sorted(given.keys() - _KNOWN):
        raise InvalidRequest(f"connection_url has parameters that are not used here: {', '.join(unknown)}")
    if given.get("sslrootcert", "system") != "system":
        raise InvalidRequest("connection_url names a file of the server", "send the certificates as tls_ca")
    return given


def addresses(details: Mapping[str, Any]) -> list[Address]:
    """Where libpq would go, in its order."""
    given = _parameters(details)
    hosts = given.get("host", "").split(",")
    ports = given.get("port", "").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    if not all(hosts) or len(hosts) > _HOSTS or len(ports) != len(hosts):
        raise InvalidRequest("connection_url names no host", "write the host, or the folder of the socket")
    try:
        numbers = [int(port or _PORT) for port in ports]
    except ValueError:
        numbers = [0]
    if not all(0 < number < 65_536 for number in numbers):
        raise InvalidRequest("connection_url has something that is no port")
    named = zip(hosts, numbers, strict=True)
    return [Address(host if host.startswith("/") else parse_host(host), port) for host, port in named]


class PostgresSession:
    """One connection."""

    def __init__(self, connection: Connection, files: Unnamed) -> None:
        self.connection = connection
        self._files = files

    async def run(self, statements: Sequence[str], *secret: str, user: str = "") -> None:
        """Run statements in one transaction."""
        try:
            async with _alone(self.connection):
                for statement in statements:
                    await self.connection.execute(statement.encode())
                if user and not await knows(self, user):
                    raise TargetFailed("the statements have made no user of this name", 'write the name as "{{name}}"')
        except psycopg.Error as error:
            words = hidden(_words(error), secret)
            kind = Unsure if (error.sqlstate or _LOST[0]).startswith(_LOST) else TargetFailed
            raise kind(words, "check the statements, and what the login may do") from None

    async def close(self) -> None:
        """Let it go."""
        await self.connection.close()
        self._files.close()


async def connect(details: Mapping[str, Any], login: Login, dialled: Dialled) -> PostgresSession:
    """Log in."""
    files = Unnamed()
    try:
        return PostgresSession(await _log_in(details, login, dialled, files), files)
    except BaseException:
        files.close()
        raise


def _proof(details: Mapping[str, Any], login: Login, files: Unnamed) -> dict[str, str]:
    """What libpq proves the server by, and us to it."""
    found: dict[str, str] = {}
    if details.get("tls_ca"):
        found |= {"sslmode": "verify-full", "sslrootcert": files.path(details["tls_ca"])}
    if login.chain:
        certificates, key = split_chain(login.chain)
        found |= {"sslcert": files.path(certificates), "sslkey": files.path(key)}
    return found


async def _log_in(details: Mapping[str, Any], login: Login, dialled: Dialled, files: Unnamed) -> Connection:
    given = _parameters(details)
    for key, value in given.items():
        given[key] = value.replace("{{username}}", login.username).replace("{{password}}", login.password)
    given |= {
        "host": ",".join(address.host for address, _ in dialled),
        "hostaddr": ",".join(judged for _, judged in dialled),
        "port": ",".join(str(address.port) for address, _ in dialled),
    }
    defaults = {
        "user": login.username,
        "password": login.password,
        "dbname": "postgres",
        "connect_timeout": str(_CONNECT_SECONDS),
        "application_name": "keyhole",
        "gssencmode": "disable",
        # Nothing of the account under which the server runs is shown to a database that somebody named.
        "passfile": _NOWHERE,
        "sslcert": _NOWHERE,
        "sslkey": _NOWHERE,
        **_proof(details, login, files),
        "tcp_user_timeout": "10000",
        "options": f"-c statement_timeout={_STATEMENT} -c idle_in_transaction_session_timeout={_STATEMENT}",
    }
    try:
        return await psycopg.AsyncConnection.connect(
            **{**defaults, **given},  # type: ignore[arg-type]  # the names of libpq's own parameters, all of them texts
            autocommit=True,
        )
    except psycopg.Error as error:
        text = hidden(_words(error), [login.password])
        kind = Refused if error.sqlstate in _REFUSED or "authentication failed" in text else TargetFailed
        raise kind(text, "check the connection: POST config/NAME") from None


def statements(kind: Kind, texts: Sequence[str], _details: Mapping[str, Any]) -> list[str]:
    """Statements of SQL."""
    return take_apart(texts or _OWN.get(kind, ()))


def kept(role: Mapping[str, Any]) -> list[str]:
    """The role's own."""
    return list(role["revocation_statements"])


def password_text(details: Mapping[str, Any], username: str, password: str) -> str:
    """The password, or the verifier that the server would make of it, so that it never sees it (RFC 5802)."""
    if details.get("password_authentication") != _SCRAM:
        return password
    made = psycopg.pq.PGconn.connect_start(b"").encrypt_password(password.encode(), username.encode(), _SCRAM.encode())
    return made.decode()


_GRANTED = """
SELECT DISTINCT CASE d.classid
    WHEN 'pg_class'::regclass THEN 'REVOKE ALL ON TABLE ' || d.objid::regclass
    WHEN 'pg_proc'::regclass THEN 'REVOKE ALL ON ROUTINE ' || d.objid::regprocedure
    WHEN 'pg_type'::regclass THEN 'REVOKE ALL ON TYPE ' || d.objid::regtype
    WHEN 'pg_namespace'::regclass
      THEN (SELECT format('REVOKE ALL ON SCHEMA %%I', nspname) FROM pg_namespace WHERE oid = d.objid)
    WHEN 'pg_database'::regclass
      THEN (SELECT format('REVOKE ALL ON DATABASE %%I', datname) FROM pg_database WHERE oid = d.objid)
    WHEN 'pg_language'::regclass
      THEN (SELECT format('REVOKE ALL ON LANGUAGE %%I', lanname) FROM pg_language WHERE oid = d.objid)
    WHEN 'pg_tablespace'::regclass
      THEN (SELECT format('REVOKE ALL ON TABLESPACE %%I', spcname) FROM pg_tablespace WHERE oid = d.objid)
    WHEN 'pg_foreign_server'::regclass
      THEN (SELECT format('REVOKE ALL ON FOREIGN SERVER %%I', srvname) FROM pg_foreign_server WHERE oid = d.objid)
    WHEN 'pg_foreign_data_wrapper'::regclass
      THEN (SELECT format('REVOKE ALL ON FOREIGN DATA WRAPPER %%I', fdwname)
            FROM pg_foreign_data_wrapper WHERE oid = d.objid)
    WHEN 'pg_largeobject'::regclass THEN 'REVOKE ALL ON LARGE OBJECT ' || d.objid
    WHEN 'pg_default_acl'::regclass
      THEN (SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE %%I', pg_get_userbyid(defaclrole))
              || coalesce((SELECT format(' IN SCHEMA %%I', nspname) FROM pg_namespace WHERE oid = defaclnamespace), '')
              || ' REVOKE ALL ON ' || CASE defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES'
                 WHEN 'f' THEN 'FUNCTIONS' WHEN 'T' THEN 'TYPES' WHEN 'n' THEN 'SCHEMAS' ELSE 'LARGE OBJECTS' END
            FROM pg_default_acl WHERE oid = d.objid)
  END
FROM pg_shdepend d JOIN pg_roles r ON r.oid = d.refobjid
WHERE r.rolname = ANY(%s) AND d.refclassid = 'pg_authid'::regclass AND d.deptype = 'a'
  AND d.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
"""
_TURN = "SELECT pg_advisory_xact_lock(hashtext('keyhole:grants'))"
_SESSIONS = "SELECT pg_terminate_backend({}) FROM pg_stat_activity WHERE usename = ANY(%s) AND pid <> pg_backend_pid()"
_WAITS = 140_000  # version from which a session can be waited for: until it is gone, it may own a temporary table


@contextlib.asynccontextmanager
async def _alone(connection: Connection) -> AsyncIterator[None]:
    """A transaction that waits for those of other nodes.

    Two that change the grants of one object at once would fail with "tuple concurrently updated".
    """
    async with connection.transaction():
        await connection.execute(_TURN)
        yield


async def knows(session: PostgresSession, username: str) -> bool:
    """Is there a role of this name?"""
    try:
        found = await session.connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (username,))
    except psycopg.Error as error:
        raise TargetFailed(_words(error)) from None
    return found.rowcount > 0


async def users(session: PostgresSession, beginning: str) -> list[str]:
    """Names of roles that begin so."""
    query = "SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s) LIMIT 10000"
    try:
        found = await session.connection.execute(query, (beginning,))
        return [name for (name,) in await found.fetchall()]
    except psycopg.Error as error:
        raise TargetFailed(_words(error)) from None


async def lock(session: PostgresSession, username: str) -> None:
    """Let a role log in no more, and end its sessions where our login may (``pg_signal_backend``)."""
    try:
        await _lock(session.connection, [username])
    except psycopg.Error as error:
        raise TargetFailed(_words(error)) from None


async def _lock(connection: Connection, usernames: list[str]) -> None:
    forbidden = [sql.SQL("ALTER ROLE {} NOLOGIN").format(sql.Identifier(name)) for name in usernames]
    await connection.execute(sql.SQL("; ").join(forbidden))
    with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
        each = "pid, 1000" if connection.info.server_version >= _WAITS else "pid"
        await connection.execute(sql.SQL(_SESSIONS).format(sql.SQL(each)), (usernames,))


async def drop(session: PostgresSession, username: str) -> None:
    """Take a role away: first it can log in no more, then its sessions end, then it goes with what it was granted.

    What it owns is not touched: a role that owns something stays, without a login, until its own statements say what
    becomes of that.
    """
    await drop_all(session, [username])


async def drop_all(session: PostgresSession, usernames: Sequence[str]) -> None:
    """``drop`` several in one transaction."""
    connection = session.connection
    try:
        found = await connection.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", (list(usernames),))
        there = [name for (name,) in await found.fetchall()]
        if not there:
            return
        await _lock(connection, there)
        roles = sql.SQL(", ").join(map(sql.Identifier, there))
        async with _alone(connection):
            granted = await (await connection.execute(_GRANTED, (there,))).fetchall()
            revoked = [sql.SQL("{} FROM {} CASCADE").format(sql.SQL(what), roles) for (what,) in granted if what]
            await connection.execute(sql.SQL("; ").join([*revoked, sql.SQL("DROP ROLE IF EXISTS {}").format(roles)]))
    except psycopg.Error as error:
        hint = "write revocation_statements that say what becomes of what it owns, as in REASSIGN OWNED BY"
        raise TargetFailed(_words(error), hint) from None


def _words(error: psycopg.Error) -> str:
    """What the server said, without the statement and without details, which quote values."""
    said = error.diag.message_primary
    if said is None and (found := _FATAL.findall(str(error))):
        said = found[-1]
    if said is None:
        return said_of_tls(error) or "the database cannot be reached"
    return f"pq: {said}"
