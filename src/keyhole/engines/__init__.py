"""Shelf: what can be made. An engine is a table of routes over one mount's storage; it knows nothing of HTTP.

    ENGINE = Engine("greeter", [Route("hello/{name}", {Operation.READ: hello}, help="Says hello.")])

    async def hello(context: Context, call: Call) -> Reply:
        return Reply({"greeting": f"hello {call.params['name']}"})

From the table come HTTP paths, policy paths, audit records and help. ``{name}`` takes one segment, ``{path...}`` the
rest. A route with ``exists`` has its writes told apart into create and update, as Vault does. Promises of a member:

1. It reaches the world through ``Context`` only.
2. It never answers a value except through the route that reads it, as a ``Secret`` of JSON text.
3. A write on a route with ``exists`` calls ``Call.require_new`` with what it has read.
4. ``lend``, where it exists, is not a route: only the door calls it, after ``use`` was decided and recorded.
5. What is made to be taken back is leased: ``begin`` before the act, names that derive from the lease's id, and the
   lease in the reply. ``revoke`` needs nothing but the lease, and what is gone already counts as taken back.
"""

import importlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Self

from keyhole.core import EMPTY
from keyhole.core.errors import Conflict, InvalidRequest, KeyholeError
from keyhole.core.identity import Caller
from keyhole.core.lease import SYSTEM_DEFAULT_TTL, SYSTEM_MAX_TTL, Lease
from keyhole.core.request import Limits, Operation, Reply
from keyhole.core.value import Secret
from keyhole.engines import absent

if TYPE_CHECKING:
    from keyhole.core.notice import Notice
    from keyhole.core.service import Service
    from keyhole.crypto.passwords import PasswordRules
    from keyhole.engines.strays import Strays
    from keyhole.net.ask import Heard

MEMBERS = ("cubbyhole", "database", "external", "kv", "oauth", "pki", "remote", "repo", "services",
           "ssh", "totp", "transit")  # fmt: skip
DATABASES = {  # kinds, each with its module of the engine ``database``
    "mariadb-database-plugin": "mysql",
    "mongodb-database-plugin": "mongodb",
    "mysql-database-plugin": "mysql",
    "postgresql-database-plugin": "postgresql",
}
SINGLE = ("cubbyhole", "services")  # every org has one, and no other


Writing = tuple[str, bytes, int] | tuple[str, bytes, int, float | None]
"""``(path, data, expected revision)``, and when it is due (seconds since the epoch) for an engine with ``due``."""


class InvalidForVault(InvalidRequest):
    """A mistake of the client's that Vault calls a fault of its own: its clients wait for that status."""

    status = 500


class StorageView(Protocol):
    """The mount's storage as ``vault.storage.Storage`` gives it.

    ``heads``: what an engine has parsed of its entries, by the bytes that it parsed; bounded by the engine, and never
    of a value. It goes when the vault is sealed.
    """

    heads: dict[bytes, Mapping[str, Any]]

    async def revisions(self, *paths: str) -> Sequence[int]:
        """The revisions of the entries at these paths; 0 where nothing ever was."""

    async def get(self, *paths: str) -> Sequence[Any]:
        """Values at these paths in one snapshot, each with ``data`` and ``revision``."""

    async def get_one(self, path: str) -> Any:
        """The value at one path."""

    async def list(self, prefix: str = "", *, recursive: bool = False) -> Sequence[str]:
        """Names below a prefix."""

    async def change(
        self,
        writes: Sequence[Writing] = (),
        deletes: Sequence[tuple[str, int]] = (),
        checks: Sequence[tuple[str, int]] = (),
    ) -> None:
        """Writes, deletes and checks ``(path, revision)``, all or nothing."""


class LeaseView(Protocol):
    """The leases of one request, as ``vault.desk.Desk`` gives them."""

    async def begin(
        self,
        *,
        ttl: int = 0,
        max_ttl: int = 0,
        renewable: bool = True,
        internal: Mapping[str, Any] | None = None,
        target: str = "",
    ) -> Lease:
        """Note durably that something is about to be made for the caller; call it before the act.

        The lease is given out with the reply that has it as ``Reply.lease``. One that is not given out, because the
        handler failed or the process died, is taken back by the engine's ``revoke``.

        Args:
            ttl: seconds that it shall live; 0 for the mount's default.
            max_ttl: seconds that renewals can keep it; 0 for the mount's own limit, which it cannot exceed.
            renewable: may it be renewed.
            internal: what ``revoke`` and ``renew`` need, JSON-ready, without any value. It outlives roles and settings.
            target: where it has to be taken back, when the mount has several such places: one that is away delays none
                of the others.

        Raises:
            Unauthenticated: the caller's token was revoked meanwhile.
            InvalidRequest: the caller's token was good for this one request only.
        """


class NetView(Protocol):
    """Questions to servers that a mount names, as ``net.ask.Asker`` gives them.

    ``programs``: whether programs of this machine may be run to be asked.
    """

    programs: bool

    async def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        ca_pem: str = "",
        allow: Sequence[str] = (),
    ) -> "Heard":
        """Send one request to a server that the guard lets through, and read the whole answer."""

    async def addresses(self, host: str, port: int, *, allow: Sequence[str] = ()) -> list[str]:
        """The addresses of a host that a driver may dial, all of which the guard lets through."""


PasswordsView = Callable[[str], Awaitable["PasswordRules"]]
"""The rules of the password policy of a name in the caller's org. Raises ``NotFound``."""


LendView = Callable[[str, str], Awaitable[Secret]]
"""``(path, field)`` to a field of a secret of the org that a mount's own settings name.

Whoever wrote those settings had to have ``read`` on it. Raises ``NotFound``, ``Expired``.
"""


BindView = Callable[["Service"], Awaitable[None]]
"""Raises ``PolicyDenied`` where a source that a service names may not be lent to where the service sends."""


class NoticesView(Protocol):
    """What the administrators of the caller's org are told, as ``vault.notices.Notices`` gives it."""

    async def days(self) -> Sequence[int]:
        """The days before a date at which they want to be told."""

    async def tell(self, notice: "Notice") -> bool:
        """Tell them. False when they were told already: a notice of the same kind and key is given once."""


class Context:
    """All that an engine is given.

    Attributes:
        storage: of its mount.
        now: seconds since the epoch.
        caller: who asks; ``caller.allows`` is pure.
        mount: path of the mount, with its trailing slash.
        default_ttl: seconds that something made here lives unless it is said.
        max_ttl: seconds that it lives at most.
        leases: for what is made to be taken back.
        net: asks servers that the mount was told of.
        passwords: the password policies of the org.
        lend: opens a secret of the org that settings of this mount name.
        require_lendable: judges a service that is being made by the limits of its sources.
        notices: tells the administrators of the org.
    """

    def __init__(
        self,
        storage: StorageView,
        now: float,
        caller: Caller,
        mount: str,
        default_ttl: int = SYSTEM_DEFAULT_TTL,
        max_ttl: int = SYSTEM_MAX_TTL,
        leases: LeaseView = absent.LEASES,
        net: NetView = absent.NET,
        passwords: PasswordsView = absent.no_passwords,
        lend: LendView = absent.no_lend,
        require_lendable: BindView = absent.unbound,
        notices: NoticesView = absent.NOTICES,
    ) -> None:
        self.storage = storage
        self.now = now
        self.caller = caller
        self.mount = mount
        self.default_ttl = default_ttl
        self.max_ttl = max_ttl
        self.leases = leases
        self.net = net
        self.passwords = passwords
        self.lend = lend
        self.require_lendable = require_lendable
        self.notices = notices


class Call:
    """One request as a handler sees it: parameters from the path, fields from the body or query, and from where.

    Nobody changes one: it is not frozen because each frozen field costs a call.
    ``wrap_ttl``: the door wraps the answer for so many seconds; 0 for not at all.
    ``token`` is the token that came with it, for a route with ``sees_token`` only.
    ``certificate`` is what an asker of an open route proved in the TLS handshake to hold the key of, as DER.
    """

    __slots__ = ("certificate", "data", "operation", "params", "path", "remote", "token", "wrap_ttl")

    def __init__(
        self,
        operation: Operation,
        path: str,
        params: Mapping[str, str],
        data: Mapping[str, Any],
        remote: str = "",
        wrap_ttl: int = 0,
        token: bytes = b"",
        certificate: bytes = b"",
    ) -> None:
        self.operation = operation
        self.path = path
        self.params = params
        self.data = data
        self.remote = remote
        self.wrap_ttl = wrap_ttl
        self.token = token
        self.certificate = certificate

    def but(self, **others: Any) -> Self:
        """The same with other values of these attributes."""
        return type(self)(**{**{name: getattr(self, name) for name in self.__slots__}, **others})

    def require_new(self, *, stored: bool) -> None:
        """For a write on a route with ``exists``, after what it replaces was read: a create must not replace.

        Raises:
            Conflict: somebody else made it since the door looked; the door decides again.
        """
        if stored and self.operation is Operation.CREATE:
            raise Conflict("it was made by somebody else meanwhile", "try again")


Handler = Callable[[Context, Call], Awaitable[Reply | None]]
Exists = Callable[[Context, Mapping[str, str]], Awaitable[bool]]
_PARAMETER = re.compile(r"\{(\w+)(\.\.\.)?\}")


FieldType = Literal["any", "string", "integer", "number", "boolean", "duration", "list", "map"]


class Field(NamedTuple):
    """One request field, for help and documentation.

    Attributes:
        name: in a body or query.
        help: what it says.
        type: what it takes; a ``duration`` is seconds or text such as ``1h``, a ``list`` also text with commas, a
            ``map`` an object.
    """

    name: str
    help: str
    type: FieldType = "any"


class Route(NamedTuple):
    """One line of an engine's table.

    Attributes:
        pattern: relative to the mount, with ``{name}`` and ``{path...}``.
        handlers: by operation; ``CREATE`` stands for create and update alike.
        exists: tells create from update; without it every write is an update.
        sudo: operations that need ``sudo`` besides.
        open: needs no token at all.
        sees_token: its handler is given the caller's token itself, to look it up or to show it to who sent it.
        fields: what the body may have.
        help: one sentence.
        bare: its answers stand alone, without the usual envelope, or are no JSON.
        recorded: its handlers record what they do before they do it; what they refuse is recorded by the door.
        source: services may name what its READ answers as the source of what they lend; the field that is meant when
            none is named, or empty where one has to be named. ``None`` for what can be no source.
    """

    pattern: str
    handlers: Mapping[Operation, Handler]
    exists: Exists | None = None
    sudo: frozenset[Operation] = frozenset()
    open: bool = False
    sees_token: bool = False
    fields: tuple[Field, ...] = ()
    help: str = ""
    bare: bool = False
    recorded: bool = False
    source: str | None = None

    def compiled(self) -> re.Pattern[str]:
        """The pattern as an expression over the path below the mount."""
        position, parts = 0, []
        for match in _PARAMETER.finditer(self.pattern):
            parts.append(re.escape(self.pattern[position : match.start()]))
            parts.append(f"(?P<{match[1]}>{'.+' if match[2] else '[^/]+'})")
            position = match.end()
        parts.append(re.escape(self.pattern[position:]))
        return re.compile("".join(parts) + "/?")


Lend = Callable[[Context, str, str], Awaitable[Secret]]
Marks = Callable[[Context, Sequence[str]], Awaitable[Sequence[int]]]
Hides = Callable[[Context, str], Awaitable[Sequence[Secret]]]
Relend = Callable[[Context, str, str, bytes], Awaitable[Secret]]
Hosts = Callable[[Context, str], Awaitable[Limits]]
Audience = Callable[[Context, str], Awaitable[str]]
Revoke = Callable[[Context, Lease], Awaitable[None]]
RevokeAll = Callable[[Context, Sequence[Lease]], Awaitable[Sequence[KeyholeError | None]]]
Renew = Callable[[Context, Lease, int], Awaitable[None]]


Upgrade = Callable[[Context], Awaitable[None]]
RoleOf = Callable[[Context, Mapping[str, Any]], Awaitable[str]]
Due = Callable[[Context, str], Awaitable[str]]
Settle = Callable[[], Awaitable[None]]


class Ending(NamedTuple):
    """Something that comes near its end.

    Attributes:
        name: with the path of the mount.
        what: ``expires`` or ``rotation``, when a new value is due.
        at: seconds since the epoch.
    """

    name: str
    what: str
    at: float


Ends = Callable[[Context], Awaitable[list[Ending]]]


class Engine(NamedTuple):
    """An engine: its type, its routes in order of precedence, and what it can lend.

    Attributes:
        type: name on the shelf and in ``sys/mounts``.
        routes: tried in order; the first whose pattern fits and that knows the operation answers.
        lend: ``(context, path, field)`` to the value; never routed.
        marks: ``(context, paths)`` to a number for each that is another once ``lend`` answers another value of it, but
            where that is because a time has come. Never routed.
        relend: ``(context, path, field, refused)`` to what is to be used instead of a lent value that an upstream has
            refused; the same one where there is no other. Never routed.
        hides: ``(context, path)`` to values that belong to a lent one and are lent to nobody, such as the refresh token
            of an access token; an answer that has one in it is masked. Never routed.
        hosts: ``(context, path)`` to ``Reply.hosts`` of a READ there, without making anything. Never routed.
        audience: ``(context, path)`` to the URL of the one resource that what is lent there is for; empty for no such
            one. Never routed.
        revoke: takes back what was made under a lease; an engine without it can lease nothing. Never routed.
        revoke_all: the same for several of one target, which costs less than one by one; says of each, in order, why it
            could not be taken back, ``None`` where it was. Never routed.
        renew: ``(context, lease, ttl)`` makes it live that many seconds from now; the lease says when that ends.
        strays: finds what no lease knows. Never routed.
        due: ``(context, path)`` does what an entry of its storage was due for, and moves it to another time or removes
            it; returns the path below the mount that this amounts to, empty when somebody else did it. Several nodes
            may call it at once. Never routed.
        ends: ``(context)`` to all that comes near its end, after whoever is to be told of it was told. It may look at
            everything there is. Never routed.
        settle: waits, for a bounded time, for what must not be cut off when the vault is closed. Never routed.
        role_of: ``(context, data)`` to the role that a login with these fields names, where it is not the field
            ``role``; empty for none. It proves nothing. Never routed.
        upgrade: brings what the engine's other version stored into the form of this one; may be called again, and by
            several nodes at once. Meanwhile the module's ``UPGRADING`` answers. Never routed.
        configures: what it stores is compiled per org.
        options: shown in ``sys/mounts``.
    """

    type: str
    routes: tuple[Route, ...]
    lend: Lend | None = None
    marks: Marks | None = None
    relend: Relend | None = None
    hides: Hides | None = None
    hosts: Hosts | None = None
    audience: Audience | None = None
    revoke: Revoke | None = None
    revoke_all: RevokeAll | None = None
    renew: Renew | None = None
    strays: "Strays | None" = None
    due: Due | None = None
    ends: Ends | None = None
    settle: Settle | None = None
    role_of: RoleOf | None = None
    upgrade: Upgrade | None = None
    configures: bool = False
    options: Mapping[str, str] = EMPTY


def load_upgrading(name: str) -> Engine:
    """What answers at a mount of this type while its data are brought into another form."""
    engine: Engine = importlib.import_module(f"keyhole.engines.{name}").UPGRADING
    return engine


def load(name: str, options: Mapping[str, str] | None = None) -> Engine:
    """The engine of this type for one mount: the module's ``ENGINE``, or what its ``make`` makes of the options.

    Raises:
        InvalidRequest: it is not on this shelf, or an option is wrong.
    """
    if name not in MEMBERS:
        raise InvalidRequest(f"plugin not found in the catalog: {name}")
    module = importlib.import_module(f"keyhole.engines.{name}")
    engine: Engine = module.make(options or {}) if hasattr(module, "make") else module.ENGINE
    return engine
