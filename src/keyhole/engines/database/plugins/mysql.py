"""MySQL and MariaDB, by PyMySQL.

The driver blocks, so each session has a thread of its own. It dials the address that the guard has judged, and shows
the password to no server that asks for it in clear.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from keyhole.core.errors import InvalidRequest, TargetFailed
from keyhole.core.host import parse_authority
from keyhole.engines.database.hiding import hidden
from keyhole.engines.database.plugins import Address, Dialled, Kind, Login, Refused, Unsure
from keyhole.engines.database.statements import take_apart
from keyhole.engines.database.tls import context_of, said_of_tls
from keyhole.net.tasks import to_its_end

try:
    import pymysql
    from pymysql.err import MySQLError
except ImportError:
    raise InvalidRequest(
        "this installation has no driver for MySQL", "install it with the extra: keyhole[mysql]"
    ) from None

TEMPLATE = (
    '{{ printf "v-%s-%s-%s-%s" (.DisplayName | truncate 10) (.RoleName | truncate 10) (random 20) (unix_time)'
    " | truncate 32 }}"
)
LONGEST = 80  # of MariaDB; MySQL itself refuses more than 32
_PASSWORD = ("ALTER USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'",)

_CONNECT = 5.0
_ANSWER = 20
_PORT = 3306
_URL = re.compile(
    r"(?P<user>[^:@]*)(?::(?P<password>.*))?@(?P<net>tcp|unix)\((?P<place>[^()]*)\)/(?P<database>[^?]*)(?:\?(?P<more>.*))?"
)
_TLS = frozenset({"", "true", "false", "skip-verify"})
_REFUSED = frozenset({1045, 1698})
_NO_SUCH_THREAD = 1094
_SYNTAX = 1064
_NO_TABLE = 1142
_SAID = 1000
_DRIVERS = range(2000, 3000)
Result = TypeVar("Result")


def _parts(details: Mapping[str, Any]) -> dict[str, str]:
    match = _URL.fullmatch(str(details["connection_url"]))
    if match is None:
        raise InvalidRequest("connection_url is none of MySQL", "write {{username}}:{{password}}@tcp(HOST:PORT)/")
    parts = {key: value or "" for key, value in match.groupdict().items()}
    given = dict(pair.partition("=")[::2] for pair in parts["more"].split("&") if pair)
    parts["tls"] = given.pop("tls", "")
    if given or parts["tls"] not in _TLS:
        raise InvalidRequest("connection_url has parameters that are not used here", "tls=true or tls=skip-verify")
    return parts


def addresses(details: Mapping[str, Any]) -> list[Address]:
    """Where the URL leads."""
    parts = _parts(details)
    if parts["net"] == "unix":
        if not parts["place"].startswith("/"):
            raise InvalidRequest("connection_url names no socket", "write the whole path")
        return [Address(parts["place"], _PORT)]
    where = parse_authority(parts["place"], _PORT)
    return [Address(where.host, where.port)]


class _NeverInClear:
    """In the place of the ways to log in that send the password as it is."""

    def __init__(self, _connection: Any) -> None:
        pass

    def authenticate(self, _packet: Any) -> Any:
        raise MySQLError(_REFUSED_CLEAR, "the server asks for the password in clear")


_REFUSED_CLEAR = 2059
_CLEAR = {"mysql_clear_password": _NeverInClear, "dialog": _NeverInClear}


class MysqlSession:
    """One connection, in a thread of its own."""

    def __init__(self, connection: Any, thread: ThreadPoolExecutor) -> None:
        self.connection = connection
        self._thread = thread

    async def run(self, statements: Sequence[str], *secret: str, user: str = "") -> None:
        """Run statements. Those that make or grant end a transaction each, so what fails is undone by its lease."""
        done: list[str] = []

        def work() -> None:
            with self.connection.cursor() as cursor:
                self.connection.begin()
                for statement in statements:
                    cursor.execute(statement)
                    done.append(statement)
                self.connection.commit()
                if user and not _hosts(cursor, user):
                    raise TargetFailed("the statements have made no user of this name", "write the name as '{{name}}'")

        try:
            await self.do(work, *secret)
        except TargetFailed as error:
            if done:
                raise Unsure(error.reason, error.hint) from None
            raise

    async def do(self, work: Callable[[], Result], *secret: str) -> Result:
        """Let the thread work. It is waited for even when nobody wants the outcome: what follows must follow."""
        job = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            return await to_its_end(job)
        except MySQLError as error:
            words = hidden(_words(error), secret)
            kind = TargetFailed if _is_said(error) else Unsure
            raise kind(words, "check the statements, and what the login may do") from None

    async def close(self) -> None:
        """Let it go."""
        with contextlib.suppress(MySQLError):
            await asyncio.get_running_loop().run_in_executor(self._thread, self.connection.close)
        self._thread.shutdown(wait=False)


async def connect(details: Mapping[str, Any], login: Login, dialled: Dialled) -> MysqlSession:
    """Log in, at the first address that takes the connection."""
    parts = _parts(details)

    def fill(text: str) -> str:
        return text.replace("{{username}}", login.username).replace("{{password}}", login.password)

    tls = _context(parts["tls"], details, login)
    connection = pymysql.Connection(
        host=details.get("tls_server_name") or dialled[0][0].host,
        user=fill(parts["user"]),
        password=fill(parts["password"]),
        database=parts["database"] or None,
        read_timeout=_ANSWER,
        write_timeout=_ANSWER,
        charset="utf8mb4",
        ssl=tls,
        ssl_disabled=tls is None,
        auth_plugin_map=_CLEAR,
        defer_connect=True,
    )
    thread = ThreadPoolExecutor(1, "keyhole-mysql")
    session = MysqlSession(connection, thread)
    try:
        await session.do(lambda: connection.connect(_dial(dialled)), login.password)
    except TargetFailed as error:
        thread.shutdown(wait=False)
        if any(f"Error {code} " in error.reason for code in _REFUSED):
            raise Refused(error.reason, "check the connection: POST config/NAME") from None
        raise
    except BaseException:
        thread.shutdown(wait=False)
        raise
    return session


def _context(mode: str, details: Mapping[str, Any], login: Login) -> ssl.SSLContext | None:
    if mode in {"", "false"} and not details.get("tls_ca") and not login.chain:
        return None
    return context_of(details, login, verify=mode != "skip-verify" and not details.get("tls_skip_verify"))


def _dial(dialled: Dialled) -> socket.socket:
    for place, address in dialled:
        try:
            if not place.is_local:
                return socket.create_connection((address, place.port), _CONNECT)
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(_CONNECT)
            try:
                sock.connect(place.host)
            except OSError:
                sock.close()
                raise
        except OSError:
            continue
        return sock
    raise MySQLError(0, "the database cannot be reached")


def statements(kind: Kind, texts: Sequence[str], _details: Mapping[str, Any]) -> list[str]:
    """Statements of SQL."""
    return take_apart(texts or (_PASSWORD if kind in {"password", "root"} else ()), backslash=True)


def kept(role: Mapping[str, Any]) -> list[str]:
    """The role's own."""
    return list(role["revocation_statements"])


def password_text(_details: Mapping[str, Any], _username: str, password: str) -> str:
    """The password itself."""
    return password


async def knows(session: MysqlSession, username: str) -> bool:
    """Is there a user of this name, at any host?"""

    def work() -> bool:
        with session.connection.cursor() as cursor:
            return bool(_hosts(cursor, username))

    return await session.do(work)


def _hosts(cursor: Any, username: str) -> list[str]:
    """The hosts from which a user may log in; any host where our login may not look."""
    try:
        cursor.execute("SELECT Host FROM mysql.user WHERE User = %s", (username,))
    except MySQLError as error:
        if error.args[0] == _NO_TABLE:
            return ["%"]
        raise
    return [host for (host,) in cursor.fetchall()]


async def users(session: MysqlSession, beginning: str) -> list[str]:
    """Names of users that begin so, at any host."""

    def work() -> list[str]:
        with session.connection.cursor() as cursor:
            query = "SELECT DISTINCT User FROM mysql.user WHERE LEFT(User, CHAR_LENGTH(%s)) = %s LIMIT 10000"
            cursor.execute(query, (beginning, beginning))
            return [name for (name,) in cursor.fetchall()]

    return await session.do(work)


async def lock(session: MysqlSession, username: str) -> None:
    """Let a user log in no more, and end its sessions."""
    await session.do(lambda: _lock(session.connection, username))


def _lock(connection: Any, username: str) -> None:
    with connection.cursor() as cursor:
        for host in _hosts(cursor, username):
            cursor.execute("ALTER USER IF EXISTS %s@%s ACCOUNT LOCK", (username, host))
        _kill(cursor, username)


def _kill(cursor: Any, username: str) -> None:
    cursor.execute("SELECT ID FROM information_schema.processlist WHERE USER = %s", (username,))
    for (number,) in cursor.fetchall():
        try:
            cursor.execute("KILL %s", (number,))
        except MySQLError as error:
            if error.args[0] != _NO_SUCH_THREAD:
                raise


async def drop(session: MysqlSession, username: str) -> None:
    """Take a user away at every host, with what it was granted, and end its sessions."""
    await drop_all(session, [username])


async def drop_all(session: MysqlSession, usernames: Sequence[str]) -> None:
    """``drop`` several."""

    def work() -> None:
        with session.connection.cursor() as cursor:
            for username in usernames:
                _lock(session.connection, username)
                for host in _hosts(cursor, username):
                    cursor.execute("DROP USER IF EXISTS %s@%s", (username, host))
                _kill(cursor, username)

    await session.do(work)


def _is_said(error: MySQLError) -> bool:
    """Whether the server itself refused; the driver's own errors are below 1000 and from 2000 to 2999."""
    number = error.args[0] if error.args else 0
    return isinstance(number, int) and number >= _SAID and number not in _DRIVERS


def _words(error: MySQLError) -> str:
    """What the server said. Of a statement that it cannot read it would quote the rest."""
    if told := said_of_tls(error):
        return told
    number, said = (*error.args, "")[:2] if error.args else (0, "")
    text = str(said).partition(" near ")[0] if number == _SYNTAX else str(said)
    return f"Error {number} : {text}" if number else text or "the database cannot be reached"
