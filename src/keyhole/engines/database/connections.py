"""``config/NAME``: databases, how to log in to each, and for which roles. A stored password is never shown.

Where a password is being replaced, ``pending`` holds the new one from before the database knows it, and whoever logs
in next finds out which of the two counts.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from keyhole.core.errors import (
    AddressDenied,
    Conflict,
    InvalidRequest,
    KeyholeError,
    NotFound,
    TargetAway,
    TargetFailed,
    UpstreamUnreachable,
)
from keyhole.core.fields import parse_switch, parse_text, parse_texts
from keyhole.core.lease import parse_duration
from keyhole.core.numbers import parse_count
from keyhole.core.request import Reply
from keyhole.engines import Call, Context
from keyhole.engines.database import plugins
from keyhole.engines.database.names import check_template, new_password
from keyhole.engines.database.pool import Pool
from keyhole.engines.database.statements import parse_statements
from keyhole.engines.database.tls import context_of
from keyhole.engines.outside import is_of_server, is_trusted
from keyhole.engines.settings import Setting

_NAME = re.compile(r"\w(?:[\w.-]{0,126}\w)?")
_OPEN = 4
_MOST_OPEN = 100
_LITERAL = re.compile(r"(?<=://)([^:/?#]*):(.*)@")


def _seconds(value: Any, name: str) -> str:
    return f"{parse_duration(value, name=name)}s"


def _open(value: Any, name: str) -> int:
    return parse_count(value, name, most=_MOST_OPEN)


def _idle(value: Any, name: str) -> int:
    return _OPEN if str(value).startswith("-") else parse_count(value, name, most=_MOST_OPEN)


def _authentication(value: Any, name: str) -> str:
    if value not in ("password", "scram-sha-256"):
        raise InvalidRequest(f"'{str(value)[:40]}' is not a valid {name}", "password or scram-sha-256")
    return str(value)


# What stands under connection_details, as far as it was sent.
DETAILS = (
    Setting("connection_url", parse_text, "", "with {{username}} and {{password}} where they go", "string"),
    Setting("username", parse_text, "", "as whom Keyhole logs in", "string"),
    Setting("max_open_connections", _open, _OPEN, "at the same time, of each server; 4", "integer"),
    Setting("max_idle_connections", _idle, 0, "taken for Vault's clients: none is kept idle", "integer"),
    Setting("max_connection_lifetime", _seconds, "0s", "taken for Vault's clients: none is kept idle", "duration"),
    Setting("username_template", parse_text, "", "of the names of users that are made", "string"),
    Setting("tls_ca", parse_text, "", "certificates in PEM that prove the server, instead of the system's", "string"),
    Setting("tls_certificate", parse_text, "", "a client certificate in PEM, whose key is private_key", "string"),
    Setting("tls_server_name", parse_text, "", "for MySQL: the name in the server's certificate", "string"),
    Setting("tls_skip_verify", parse_switch, default=False, help="for MySQL: trust whoever answers", type="boolean"),
    Setting("write_concern", parse_text, "", "for MongoDB: JSON of wmode or w, wtimeout and j", "string"),
    Setting("password_authentication", _authentication, "password", "password, or scram-sha-256", "string"),
    Setting("disable_escaping", parse_switch, default=False, help="taken for Vault's clients", type="boolean"),
)
SETTINGS = (
    Setting("plugin_name", parse_text, "", "postgresql-database-plugin", "string"),
    Setting("allowed_roles", parse_texts, [], "roles that may use it; globs, * for all", "list"),
    Setting("password_policy", parse_text, "", "policy of sys/policies/password by which passwords are made", "string"),
    Setting("root_rotation_statements", parse_statements, [], "statements that change our own password", "list"),
)
VERIFY = Setting("verify_connection", parse_switch, default=True, help="log in before it counts", type="boolean")
SECRETS = (
    Setting("password", parse_text, "", "with which Keyhole logs in", "string"),
    Setting("tls_certificate_key", parse_text, "", "a client certificate with its key, in PEM", "string"),
    Setting("private_key", parse_text, "", "the key of tls_certificate, in PEM", "string"),
)


@dataclass(slots=True)
class Connection:
    """A stored connection.

    Attributes:
        name: of it.
        data: as it is stored.
        revision: of the entry.
    """

    name: str
    data: dict[str, Any]
    revision: int

    @property
    def plugin(self) -> plugins.Plugin:
        """What knows its kind of database."""
        return plugins.load(self.data["plugin_name"])

    @property
    def details(self) -> dict[str, Any]:
        """Settings for the plugin."""
        found: dict[str, Any] = self.data["details"]
        return found

    @property
    def template(self) -> str:
        """Of user names."""
        return self.details.get("username_template") or self.plugin.TEMPLATE

    def allows(self, role: str) -> bool:
        """May this role use it?"""
        return any(
            fnmatchcase(role, glob.replace("[", "[[]").replace("?", "[?]")) for glob in self.data["allowed_roles"]
        )

    async def log_in(self, dialled: plugins.Dialled, which: str) -> plugins.Session:
        """Log in with one of the two passwords: ``password`` or ``pending``. Raises ``TargetFailed``."""
        return await self.plugin.connect(self.details, self.login(which), dialled)

    def login(self, which: str = "password") -> plugins.Login:
        """As whom we log in, and by which proof."""
        chain = self.data.get("tls_certificate_key", "")
        if not chain and self.data.get("private_key"):
            chain = f"{self.details.get('tls_certificate', '')}\n{self.data['private_key']}"
        return plugins.Login(self.details.get("username", ""), self.data[which], chain)

    def shown(self) -> dict[str, Any]:
        """What a reader sees."""
        url = _LITERAL.sub(_masked, self.details.get("connection_url", ""))
        return {
            "allowed_roles": self.data["allowed_roles"],
            "connection_details": {**self.details, "connection_url": url},
            "password_policy": self.data["password_policy"],
            "plugin_name": self.data["plugin_name"],
            "plugin_version": "",
            "root_credentials_rotate_statements": self.data["root_rotation_statements"],
        }


def _masked(match: re.Match[str]) -> str:
    return match[0] if match[2] == "{{password}}" else f"{match[1]}:*****@"


@dataclass(slots=True)
class Connections:
    """The connections of a mount, and the sessions that are open to them."""

    _pools: dict[str, tuple[int, Pool]] = field(default_factory=dict)

    async def load(self, context: Context, name: str) -> Connection:
        """The connection of this name. Raises ``InvalidRequest`` when there is none."""
        item = await context.storage.get_one(f"c/{name}")
        if item.data is None:
            raise InvalidRequest(f"failed to find entry for connection with name: {name[:64]!r}", "see LIST config")
        return Connection(name, json.loads(item.data), item.revision)

    @contextlib.asynccontextmanager
    async def session(self, context: Context, connection: Connection) -> AsyncIterator[plugins.Session]:
        """A session with the database, one of a bounded number at the same time. Raises ``TargetFailed``."""
        revision, pool = self._pools.get(connection.name, (-1, None))
        if pool is None or revision != connection.revision:
            pool = Pool(connection.details.get("max_open_connections") or _OPEN)
            self._pools[connection.name] = connection.revision, pool
        async with pool.session(lambda: self._log_in(context, connection)) as session:
            yield session

    @contextlib.asynccontextmanager
    async def fresh(self, context: Context, connection: Connection) -> AsyncIterator[plugins.Session]:
        """A session of its own, which has just logged in. Raises ``TargetFailed``."""
        session = await self._log_in(context, connection)
        try:
            yield session
        finally:
            await session.close()

    async def _log_in(self, context: Context, connection: Connection) -> plugins.Session:
        try:
            return await self._log_in_by_either(context, connection)
        except TargetFailed as error:
            raise TargetAway(error.reason, error.hint) from None

    async def _log_in_by_either(self, context: Context, connection: Connection) -> plugins.Session:
        dialled = await dial_list(context, connection)
        try:
            return await connection.log_in(dialled, "password")
        except plugins.Refused:
            if connection.revision:
                latest = await self.load(context, connection.name)
                if latest.revision != connection.revision and not connection.data["pending"]:
                    connection = latest  # the password was replaced since it was read
            if not connection.data["pending"]:
                return await connection.log_in(dialled, "password")
            session = await connection.log_in(dialled, "pending")
        after = {**connection.data, "password": connection.data["pending"], "pending": ""}
        with contextlib.suppress(Conflict):  # somebody else has found the same
            await context.storage.change([(f"c/{connection.name}", json.dumps(after).encode(), connection.revision)])
        return session

    async def write(self, context: Context, call: Call) -> Reply | None:
        """Makes a connection, or changes what is sent of one."""
        name = read_name(call)
        item = await context.storage.get_one(f"c/{name}")
        before = json.loads(item.data) if item.data is not None else _EMPTY
        data = _merged(before, call.data)
        connection = Connection(name, data, item.revision)
        if not data["plugin_name"]:
            raise InvalidRequest("plugin_name not specified", "postgresql-database-plugin")
        if not connection.details.get("connection_url"):
            raise InvalidRequest("connection_url cannot be empty", "write it with {{username}} and {{password}}")
        check_template(connection.template)
        if data["password_policy"]:
            await context.passwords(data["password_policy"])
        places = connection.plugin.addresses(connection.details)
        if connection.details.get("tls_ca") or connection.login().chain:
            context_of(connection.details, connection.login())
        self._require_password(connection, before, call)
        data["allow"] = [place.host for place in places if not place.is_local] if is_trusted(context, call) else []
        data["sockets"] = is_of_server(context, call)
        if parse_switch(call.data.get("verify_connection", True), "verify_connection"):
            await self._verify(context, connection)
        else:
            with contextlib.suppress(UpstreamUnreachable):  # it may come to be later
                await dial_list(context, connection)
        await context.storage.change([(f"c/{name}", json.dumps(data).encode(), item.revision)])
        self._pools.pop(name, None)
        return None

    def _require_password(self, connection: Connection, before: Mapping[str, Any], call: Call) -> None:
        """A password goes to the server for which it was given: a new place needs it again."""
        if not before["password"] or call.data.get("password"):
            return
        keys = ("connection_url", "username")
        if any(before["details"].get(key) != connection.details.get(key) for key in keys):
            raise InvalidRequest(
                "connection_url or username was changed without the password", "send the password again with them"
            )

    async def _verify(self, context: Context, connection: Connection) -> None:
        try:
            async with self.fresh(context, connection):
                pass
        except AddressDenied:
            raise
        except KeyholeError as error:
            raise InvalidRequest(
                f"error creating database object: error verifying connection: {error.reason}",
                error.hint or "with verify_connection=false it is stored all the same",
            ) from None

    async def read(self, context: Context, call: Call) -> Reply:
        """A connection, without its password."""
        item = await context.storage.get_one(f"c/{read_name(call)}")
        if item.data is None:
            raise NotFound("there is no such connection", "see LIST config")
        return Reply(Connection(call.params["name"], json.loads(item.data), item.revision).shown())

    async def delete(self, context: Context, call: Call) -> None:
        """Forget a connection. What was made through it stays, and cannot be taken back until it is there again."""
        name = read_name(call)
        item = await context.storage.get_one(f"c/{name}")
        if item.data is not None:
            await context.storage.change((), [(f"c/{name}", item.revision)])
        self._pools.pop(name, None)

    async def reset(self, context: Context, call: Call) -> None:
        """Let go of what is open; the next one who needs a session logs in anew."""
        self._pools.pop((await self.load(context, read_name(call))).name, None)

    async def reload(self, context: Context, call: Call) -> Reply:
        """``reset`` for every connection of a plugin."""
        plugin = call.params["name"]
        plugins.load(plugin)
        names = await context.storage.list("c")
        items = await context.storage.get(*(f"c/{name}" for name in names))
        pairs = zip(names, items, strict=True)
        mine = [name for name, item in pairs if item.data and json.loads(item.data)["plugin_name"] == plugin]
        for name in mine:
            self._pools.pop(name, None)
        return Reply({"connections": mine, "count": len(mine)})


_EMPTY: Mapping[str, Any] = {
    "details": {},
    **{secret.name: "" for secret in SECRETS},
    "pending": "",
    "rotating": 0.0,
    **{setting.name: setting.default for setting in SETTINGS},
}


def _merged(before: Mapping[str, Any], sent: Mapping[str, Any]) -> dict[str, Any]:
    data = {key: value for key, value in before.items() if key not in {"allow", "sockets"}}
    data["details"] = dict(before["details"])
    for setting in DETAILS:
        if sent.get(setting.name) is not None:
            data["details"][setting.name] = setting.parse(sent[setting.name], setting.name)
    for setting in SETTINGS:
        if sent.get(setting.name) is not None:
            data[setting.name] = setting.parse(sent[setting.name], setting.name)
    for secret in SECRETS:
        if sent.get(secret.name) is not None:
            data[secret.name] = secret.parse(sent[secret.name], secret.name)
    if sent.get("password") is not None:
        data["pending"] = ""
    return data


async def password_for(context: Context, connection: Connection) -> str:
    """A new password for a user of this database. Raises ``NotFound`` when its policy is gone."""
    policy = connection.data["password_policy"]
    return new_password(await context.passwords(policy) if policy else None)


async def dial_list(context: Context, connection: Connection) -> list[tuple[plugins.Address, str]]:
    """Where to dial: each place with every address of it that the guard lets through.

    Raises:
        AddressDenied: the guard refuses one, or whoever configured it may not name sockets of this machine.
    """
    found = []
    for place in connection.plugin.addresses(connection.details):
        if not place.is_local:
            judged = await context.net.addresses(place.host, place.port, allow=connection.data["allow"])
            found += [(place, address) for address in judged]
        elif connection.data["sockets"]:
            found.append((place, ""))
        else:
            raise AddressDenied(
                "connection_url names a socket of this machine",
                "whoever writes it needs sudo on this path, in the org root",
            )
    return found


def read_name(call: Call) -> str:
    """The name in the path. Raises ``InvalidRequest``."""
    name = call.params["name"]
    if not _NAME.fullmatch(name):
        raise InvalidRequest("a name has letters, digits, _, . and -", "choose another name")
    return name


async def list_names(context: Context, _call: Call) -> Reply:
    """Names of connections."""
    return Reply({"keys": names_or_404(await context.storage.list("c"), "connections")})


def names_or_404(names: Any, what: str) -> list[str]:
    """A list for a reply. Raises ``NotFound`` for an empty one, as Vault does."""
    if not names:
        raise NotFound(f"there are no {what} here")
    return list(names)
