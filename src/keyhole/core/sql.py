"""Services that are databases: what is said of their login, and what a session is asked for with. Pure.

A session is one use of its service, however many statements run in it: what is judged is who opens it and where, never
what is said in it. So a service for a database has nothing that is judged request by request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.host import Authority, HostPattern
from keyhole.core.kind import Kind, Option
from keyhole.core.path import DEFAULT_FIELD

SQL = "sql"
SCHEMES = ("postgres", "mysql")
PORTS = {"postgres": 5432, "mysql": 3306}
_TEXT = 128  # characters of a name
_TLS = ("verify-full", "disable")
_NOT_OF_SESSIONS = (
    "methods",
    "paths",
    "deny_paths",
    "placeholder",
    "placeholders",
    "variables",
    "files",
    "test",
    "certificate",
    "conditions",
    "limits",
    "approval",
)


@dataclass(frozen=True, slots=True)
class SqlCall:
    """A session with a database that a caller asks the broker to open.

    Attributes:
        token: the caller's own credential as presented; never forwarded.
        scheme: ``postgres`` or ``mysql``: what the caller speaks.
        service: name of the service; empty for the one that means ``authority``.
        authority: where the caller's tunnel leads; ``None`` without one.
        database: as the client named it; empty for none.
        parameters: of PostgreSQL's startup message besides, in the client's order.
        replication: the client asks for a connection for replication.
        capabilities: of MySQL's handshake.
        charset: id of the client's character set, in MySQL.
        attributes: what a client of MySQL says of itself, as it stands on the wire.
        remote: address of the caller, for the record.
    """

    token: bytes = field(repr=False)
    scheme: str
    service: str = ""
    authority: Authority | None = None
    database: str = ""
    parameters: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)
    replication: bool = False
    capabilities: int = 0
    charset: int = 0
    attributes: bytes = field(default=b"", repr=False)
    remote: str = ""


def check_service(data: Mapping[str, Any], schemes: tuple[str, ...], hosts: tuple[HostPattern, ...], kind: str) -> None:
    """Refuse a service that mixes a database with HTTP, or says of sessions what holds for requests.

    Args:
        data: of the service, as given.
        schemes: of the service, read.
        hosts: of the service, read.
        kind: of its injection.

    Raises:
        InvalidRequest: naming what does not fit.
    """
    databases = [scheme for scheme in schemes if scheme in SCHEMES]
    if (kind == SQL) != bool(databases):
        raise InvalidRequest(
            "a database is logged in to with the injection sql, and nothing else is",
            f'say "inject": {{"kind": "sql"}} with the scheme {" or ".join(SCHEMES)}',
        )
    if not databases:
        return
    if len(schemes) > 1:
        raise InvalidRequest("a service for a database has one scheme", "make a service for each database")
    if len(hosts) > 1 or hosts[0].wildcard:
        raise InvalidRequest("a service for a database has one host", "make a service for each database")
    for name in _NOT_OF_SESSIONS:
        if data.get(name):
            raise InvalidRequest(f"{name} means requests of HTTP, and a database has none", f"leave {name} out")
    if str(data.get("secret")).partition("#")[2] not in {"", DEFAULT_FIELD}:
        raise InvalidRequest(
            "a login takes the fields username and password of the secret", "name the secret without a field"
        )


def _name(value: Any) -> str:
    text = "" if value is None else str(value)
    if not text.isprintable() or len(text) > _TEXT:
        raise InvalidRequest(f"a database or user is named with at most {_TEXT} visible characters")
    return text


def _sslmode(value: Any) -> str:
    if value and value not in _TLS:
        raise InvalidRequest(f"sslmode is {' or '.join(_TLS)}", "leave it out for TLS everywhere but on this machine")
    return str(value or "")


def _switch(value: Any) -> bool:
    known = {None: False, "": False, False: False, True: True, "true": True, "false": False, "1": True, "0": False}
    try:
        return known[value]
    except (KeyError, TypeError):
        raise InvalidRequest("a switch of the injection is true or false") from None


KIND: dict[str, Kind] = {
    SQL: Kind(
        "as the login of a session with a database",
        lambda how: (
            f"login of a session{' in ' + how['database'] if how['database'] else ''}: "
            f"{how['user'] or '***'} and password ***"
        ),
        (
            Option("database", _name, "", "the only database; the client's unless said"),
            Option("user", _name, "", "the user, where the secret has the password alone"),
            Option("sslmode", _sslmode, "", "verify-full, which it is off this machine, or disable"),
            Option("replication", _switch, False, "let the client replicate the database"),  # noqa: FBT003 - a default
            Option("local_infile", _switch, False, "let the database ask for files of the client (MySQL)"),  # noqa: FBT003 - a default
        ),
        fields=(("username", "password"),),
        sole=False,
        public=("username",),
        named=lambda how: ("password",) if how["user"] else (),
    )
}
