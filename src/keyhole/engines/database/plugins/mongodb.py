"""MongoDB, by PyMongo.

The driver finds the members of a replica set by itself, wherever they say that they are. Here it finds nothing: each
host that the URL names is asked alone, at the address that the guard has judged, and the primary is used.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

from keyhole.core.errors import InvalidRequest, TargetFailed
from keyhole.core.host import parse_authority
from keyhole.engines.database.hiding import hidden
from keyhole.engines.database.plugins import Address, Dialled, Kind, Login, Refused, Unsure
from keyhole.engines.database.relay import Relay
from keyhole.engines.database.statements import open_texts
from keyhole.engines.database.tls import context_of
from keyhole.net.tls import upstream_error

try:
    from pymongo import AsyncMongoClient
    from pymongo.errors import AutoReconnect, NotPrimaryError, OperationFailure, PyMongoError
except ImportError:
    raise InvalidRequest(
        "this installation has no driver for MongoDB", "install it with the extra: keyhole[mongo]"
    ) from None

TEMPLATE = (
    '{{ printf "v-%s-%s-%s-%s" (.DisplayName | truncate 15) (.RoleName | truncate 15) (random 20) (unix_time)'
    ' | replace "." "-" | truncate 100 }}'
)
LONGEST = 255

_URL = re.compile(
    r"(?P<scheme>mongodb(?:\+srv)?)://(?:(?P<user>[^:@/?]*)(?::(?P<password>[^@/?]*))?@)?"
    r"(?P<places>[^/?@]+)(?:/(?P<database>[^?]*))?(?:\?(?P<more>.*))?"
)
_FORM = "write mongodb://{{username}}:{{password}}@HOST:PORT/admin?tls=true"
_PORT = 27017
_HOSTS = 16
_MOST = 10_000
_CONNECT_MS = 5000
_ANSWER_MS = 20_000
_ADMIN = "admin"
_EXTERNAL = "$external"
_X509 = "MONGODB-X509"
_MECHANISMS = frozenset({"", "SCRAM-SHA-1", "SCRAM-SHA-256", _X509})
_SWITCHES = frozenset({"tls", "ssl", "tlsinsecure", "tlsallowinvalidcertificates"})
_PASSED = frozenset({"directconnection", "retrywrites", "appname", "w", "readpreference"})  # say nothing here
_NAME = re.compile(r"[^\x00/\\. \"$]{1,63}")
_REFUSED = 18
_NO_SUCH_USER = 11

Command = dict[str, Any]


def _parts(details: Mapping[str, Any]) -> dict[str, str]:
    """What the URL says, and its options by their names in lower case."""
    match = _URL.fullmatch(str(details["connection_url"]))
    if match is None:
        raise InvalidRequest("connection_url is no URL of MongoDB", _FORM)
    parts = {key: value or "" for key, value in match.groupdict().items()}
    if parts["scheme"] != "mongodb":
        raise InvalidRequest("mongodb+srv leaves the choice of hosts to DNS", f"name each host: {_FORM}")
    given = {key.lower(): value for key, value in parse_qsl(parts["more"], keep_blank_values=True)}
    if any(key.endswith("file") for key in given):
        raise InvalidRequest("connection_url names a file of the server", "send tls_ca and tls_certificate_key as text")
    known = {*_SWITCHES, *_PASSED, "authsource", "authmechanism", "replicaset"}
    if unknown := sorted(given.keys() - known):
        raise InvalidRequest(f"connection_url has options that are not used here: {', '.join(unknown)[:80]}", _FORM)
    if any(given.get(key, "true") not in {"true", "false"} for key in _SWITCHES):
        raise InvalidRequest("tls is true or false", _FORM)
    if given.get("authmechanism", "") not in _MECHANISMS:
        raise InvalidRequest("authMechanism would show the password, or is not known", "leave it out for SCRAM")
    return {**given, **{key: parts[key] for key in ("user", "password", "places", "database")}}


def addresses(details: Mapping[str, Any]) -> list[Address]:
    """The hosts of the URL, in its order."""
    _concern(details)
    names = _parts(details)["places"].split(",")
    if len(names) > _HOSTS or not all(names):
        raise InvalidRequest("connection_url names no host", _FORM)
    return [_address(name) for name in names]


def _address(name: str) -> Address:
    if name.lower().startswith("%2f"):
        return Address(unquote(name), _PORT)
    where = parse_authority(name, _PORT)
    return Address(where.host, where.port)


def _database(details: Mapping[str, Any]) -> str:
    return unquote(_parts(details)["database"]) or _ADMIN


def _source(details: Mapping[str, Any]) -> str:
    """Where our own user is: as drivers find it (MongoDB's authentication specification)."""
    return _parts(details).get("authsource") or _database(details)


class MongoSession:
    """One client that is logged in."""

    def __init__(self, client: AsyncMongoClient[Any], relay: Relay, concern: Command) -> None:
        self.client = client
        self._relay = relay
        self._concern = concern

    async def run(self, statements: Sequence[str], *secret: str, user: str = "") -> None:  # noqa: ARG002 - made by name
        """Run commands, each as ``statements`` gives them; a user that is not there need not be dropped."""
        for number, statement in enumerate(statements):
            found = json.loads(statement)
            try:
                await self._command(found["db"], {**found["command"], "writeConcern": self._concern}, secret)
            except Unsure:
                raise
            except TargetFailed as error:
                if number:
                    raise Unsure(error.reason, error.hint) from None
                raise

    async def _command(self, database: str, command: Command, secret: Sequence[str]) -> None:
        dropped = command.get("dropUser")
        try:
            said = await self.client[database].command(command)
        except OperationFailure as error:
            if dropped is None or error.code != _NO_SUCH_USER:
                words = hidden(_words(error), secret)
                raise TargetFailed(words, "check the statements, and what the login may do") from None
            said = {}
        except NotPrimaryError:
            raise TargetFailed("this member is no longer the primary", "it is tried again") from None
        except PyMongoError as error:
            raise Unsure(hidden(_words(error), secret), "is the database reachable?") from None
        if said.get("writeConcernError"):
            raise Unsure("the write was not confirmed as write_concern wants", "are enough members reachable?")
        if dropped is not None:
            await self._end_sessions(database, str(dropped))

    async def _end_sessions(self, database: str, username: str) -> None:
        """What a user that is gone still does. It may do nothing new; a login that may not end it leaves it at that."""
        try:
            await self.client[_ADMIN].command({"killAllSessions": [{"user": username, "db": database}]})
        except OperationFailure:
            return
        except PyMongoError as error:
            raise TargetFailed(_words(error), "is the database reachable?") from None

    async def close(self) -> None:
        """Let it go."""
        try:
            await self.client.close()
        finally:
            await self._relay.close()


async def connect(details: Mapping[str, Any], login: Login, dialled: Dialled) -> MongoSession:
    """Log in at the first host that is a primary, a router or stands alone."""
    parts = _parts(details)
    concern, context = _concern(details), _context(parts, details, login)
    failures: list[TargetFailed] = []
    for place, address in dialled:
        try:
            relay = await Relay.open(place, address, None if place.is_local else context)
        except OSError as error:
            failures.append(_unreachable(error))
            continue
        session = MongoSession(_client(parts, details, login, relay), relay, concern)
        try:
            await _unless_broken(relay, _greet(session, parts, login))
        except TargetFailed as error:
            await session.close()
            if isinstance(error, Refused):
                raise
            failures.append(error)
        except BaseException:
            await session.close()
            raise
        else:
            return session
    raise failures[-1] if failures else TargetFailed("the database cannot be reached")


def _client(parts: Mapping[str, str], details: Mapping[str, Any], login: Login, relay: Relay) -> AsyncMongoClient[Any]:
    def fill(text: str) -> str:
        whole = unquote(text)
        return whole.replace("{{username}}", login.username).replace("{{password}}", login.password)

    more: dict[str, Any] = {}
    if parts["user"]:
        more = {"username": fill(parts["user"]), "password": fill(parts["password"]), "authSource": _source(details)}
        more |= {"authMechanism": parts["authmechanism"]} if parts.get("authmechanism") else {}
    elif login.chain:
        more = {"authSource": _EXTERNAL, "authMechanism": _X509}
        more |= {"username": login.username} if login.username else {}
    return AsyncMongoClient(
        f"mongodb://{quote(relay.path, safe='')}",
        directConnection=True,
        maxPoolSize=1,
        retryWrites=False,
        appname="keyhole",
        serverMonitoringMode="poll",
        connectTimeoutMS=_CONNECT_MS,
        serverSelectionTimeoutMS=_CONNECT_MS,
        socketTimeoutMS=_ANSWER_MS,
        **more,
    )


async def _unless_broken(relay: Relay, work: Coroutine[Any, Any, None]) -> None:
    """Wait for this, unless the address takes nothing: the driver would try on for seconds, and not say why."""
    task = asyncio.ensure_future(work)
    waited: set[asyncio.Future[Any]] = {task, relay.broken}
    try:
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    finally:
        task.cancel()
        await asyncio.wait({task})
    said = not task.cancelled() and isinstance(task.exception(), Refused | None)
    if relay.broken.done() and not said:
        raise _unreachable(relay.broken.result())
    await task


def _unreachable(error: OSError) -> TargetFailed:
    if isinstance(error, ssl.SSLError):
        said = upstream_error(error).reason.replace("upstream", "database")
        return TargetFailed(said, "check tls_ca, and tls_certificate_key where the database wants one")
    return TargetFailed("the database cannot be reached", "check the connection: POST config/NAME")


async def _greet(session: MongoSession, parts: Mapping[str, str], login: Login) -> None:
    """Log in, and see whom we speak to. Raises ``Refused``, ``TargetFailed``."""
    try:
        said = await session.client[_ADMIN].command("hello")
    except OperationFailure as error:
        words = hidden(_words(error), [login.password])
        kind = Refused if error.code == _REFUSED else TargetFailed
        raise kind(words, "check the connection: POST config/NAME") from None
    except PyMongoError as error:
        words = hidden(_words(error), [login.password])
        raise TargetFailed(words, "check the connection: POST config/NAME") from None
    if parts.get("replicaset") and said.get("setName") != parts["replicaset"]:
        raise TargetFailed("the database belongs to another replica set", "check replicaSet in connection_url")
    if not said.get("isWritablePrimary"):
        raise TargetFailed("none of these hosts is the primary", "name every member in connection_url")


def _context(parts: Mapping[str, str], details: Mapping[str, Any], login: Login) -> ssl.SSLContext | None:
    said = parts.get("tls") or parts.get("ssl")
    if said == "false" or (said is None and not details.get("tls_ca") and not login.chain):
        return None
    blind = "true" in {parts.get("tlsinsecure"), parts.get("tlsallowinvalidcertificates")}
    return context_of(details, login, verify=not blind)


def _concern(details: Mapping[str, Any]) -> Command:
    """The write concern of a command. Vault names its parts as an older driver of Go did."""
    found = open_texts([details.get("write_concern") or "{}"])
    given = {key.lower(): value for key, value in _object(found[0] if len(found) == 1 else "", "write_concern").items()}
    if unknown := sorted(given.keys() - {"w", "wmode", "wtimeout", "j", "fsync"}):
        raise InvalidRequest(f"write_concern has no {unknown[0][:40]!r}", '{"wmode": "majority", "wtimeout": 5000}')
    concern = {"w": given.get("wmode") or given.get("w") or "majority", "wtimeout": given.get("wtimeout", 0)}
    if type(concern["w"]) not in {str, int} or type(concern["wtimeout"]) is not int:
        raise InvalidRequest("write_concern is not in its form", '{"wmode": "majority", "wtimeout": 5000}')
    return {**concern, "j": True} if given.get("j") or given.get("fsync") else concern


def statements(kind: Kind, texts: Sequence[str], details: Mapping[str, Any]) -> list[str]:
    """Commands of MongoDB, of what Vault writes as ``{"db": …, "roles": […]}``."""
    return [json.dumps(each) for each in _commands(kind, open_texts(texts), details)]


def _commands(kind: Kind, texts: Sequence[str], details: Mapping[str, Any]) -> Iterator[Command]:
    if len(texts) > 1:
        raise InvalidRequest("MongoDB takes one statement", 'write {"db": "admin", "roles": [{"role": "read"}]}')
    if not texts and kind in {"creation", "revocation"}:
        return  # no users without roles; and what is revoked, ``kept`` has said
    said = _object(texts[0], f"{kind}_statements") if texts else {}
    allowed = {"db", "roles"} if kind == "creation" else {"db"}
    if unknown := sorted(said.keys() - allowed):
        raise InvalidRequest(
            f"{kind}_statements has no {unknown[0][:40]!r}", f"it takes {' and '.join(sorted(allowed))}"
        )
    own = {"root": _source, "password": _database}.get(kind)
    database = said.get("db") or (own(details) if own else _ADMIN)
    if not isinstance(database, str) or not (_NAME.fullmatch(database) or database == _EXTERNAL):
        raise InvalidRequest("db is no name of a database")
    if kind == "creation":
        roles = _roles(said.get("roles"))
        yield {"db": database, "command": {"createUser": "{{name}}", "pwd": "{{password}}", "roles": roles}}
    elif kind == "revocation":
        yield {"db": database, "command": {"dropUser": "{{name}}"}}
    elif kind in {"password", "root"}:
        yield {"db": database, "command": {"updateUser": "{{name}}", "pwd": "{{password}}"}}


def _roles(value: Any) -> list[str | dict[str, str]]:
    if not isinstance(value, list) or not value:
        raise InvalidRequest(
            "roles array is required in creation statement", 'write [{"role": "readWrite", "db": "x"}]'
        )
    found: list[str | dict[str, str]] = []
    for each in value:
        role = {"role": each} if isinstance(each, str) else each
        if not isinstance(role, dict) or not role.get("role") or role.keys() - {"role", "db"}:
            raise InvalidRequest("roles is a list of objects with role and db", '[{"role": "readWrite", "db": "x"}]')
        if not all(isinstance(text, str) and "{{" not in text for text in role.values()):
            raise InvalidRequest("role and db are names", '[{"role": "readWrite", "db": "x"}]')
        found.append(dict(role) if role.get("db") else role["role"])
    return found


def _object(text: str, name: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidRequest(f"{name} is no JSON object", "see docs/database.md")
    return found


def kept(role: Mapping[str, Any]) -> list[str]:
    """The role's own, or where its users are made."""
    if role["revocation_statements"]:
        return list(role["revocation_statements"])
    [made] = _commands("creation", open_texts(role["creation_statements"]), {})
    return [json.dumps({"db": made["db"]})]


def password_text(_details: Mapping[str, Any], _username: str, password: str) -> str:
    """The password itself."""
    return password


async def knows(_session: MongoSession, _username: str) -> bool:
    """Nobody knows in which database; dropping one that is not there is fine."""
    return True


async def users(session: MongoSession, beginning: str) -> list[str]:
    """Names of users that begin so, in whichever database."""
    return sorted({name for _, name in await _found(session, f"^{re.escape(beginning)}")})[:_MOST]


async def _found(session: MongoSession, pattern: str) -> list[tuple[str, str]]:
    """Databases and names of users; those of ``admin`` where our login may not look at all."""
    matching = {"filter": {"user": {"$regex": pattern}}}
    try:
        said = await session.client[_ADMIN].command({"usersInfo": {"forAllDBs": True}, **matching})
    except OperationFailure:
        try:
            said = await session.client[_ADMIN].command({"usersInfo": 1, **matching})
        except PyMongoError as error:
            raise TargetFailed(_words(error)) from None
    except PyMongoError as error:
        raise TargetFailed(_words(error)) from None
    return [(str(user["db"]), str(user["user"])) for user in said.get("users", [])]


async def lock(_session: MongoSession, _username: str) -> None:
    """MongoDB locks nobody out; its users are dropped at once."""


async def drop(session: MongoSession, username: str) -> None:
    """Take a user away, in every database where it is."""
    await drop_all(session, [username])


async def drop_all(session: MongoSession, usernames: Sequence[str]) -> None:
    """``drop`` several."""
    pattern = f"^({'|'.join(map(re.escape, usernames))})$"
    commands = [{"db": where, "command": {"dropUser": name}} for where, name in await _found(session, pattern)]
    await session.run([json.dumps(command) for command in commands])


def _words(error: PyMongoError) -> str:
    """What the server said; the driver's own words would describe us."""
    if isinstance(error, OperationFailure):
        said = (error.details or {}).get("errmsg") or "the command failed"
        return f"({(error.details or {}).get('codeName') or error.code}) {said}"
    return (
        "the database closed the connection" if isinstance(error, AutoReconnect) else "the database cannot be reached"
    )
