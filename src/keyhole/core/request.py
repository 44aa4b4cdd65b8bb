"""The one form in which anything is asked of a vault, and the one form of its reply. No HTTP in here."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from keyhole.core import EMPTY
from keyhole.core.identity import Caller, Login
from keyhole.core.lease import Lease
from keyhole.core.value import Secret

if TYPE_CHECKING:
    from keyhole.core.stated import Stated


class Operation(StrEnum):
    """What is asked. The value is the capability it needs; ``CREATE`` and ``UPDATE`` are told apart by the door."""

    READ = "read"
    LIST = "list"
    CREATE = "create"
    UPDATE = "update"
    PATCH = "patch"
    DELETE = "delete"
    USE = "use"

    __hash__ = str.__hash__  # an enumeration's own is a function in Python, and tables are asked on every request


class LocalOwner:
    """Credential of whoever opened a local vault with its key: ``user/owner`` of the org ``root``, without a token."""

    __slots__ = ()


class Anonymous:
    """Says in so many words that the request carries no credential."""

    __slots__ = ()


# A caller stands for itself within the request in which the door authenticated it.
Credential = bytes | LocalOwner | Anonymous | Caller


class Request:
    """One thing asked of the vault. Nobody changes one: it is not frozen because each frozen field costs a call.

    Attributes:
        credential: who asks; always stated, there is no default.
        operation: what is asked.
        path: API path without a leading slash, as received; the door brings it into its one canonical form.
        data: fields, from a JSON body or a query.
        org: name of the org where it is asked; empty for the credential's own.
        remote: address of the asker, for the audit record.
        id: request id; the door makes one when it is empty.
        wrap_ttl: seconds for which the answer is to be wrapped; 0 for an answer as it is.
        headers: of HTTP, by lower-case name, for who audits them; empty where there are none.
        stated: what the request says of the work that it belongs to; ``None`` for nothing.
        peer_certificate: what the asker proved in the TLS handshake to hold the key of, as DER; empty for nothing.
    """

    __slots__ = (
        "credential",
        "data",
        "headers",
        "id",
        "operation",
        "org",
        "path",
        "peer_certificate",
        "remote",
        "stated",
        "wrap_ttl",
    )

    def __init__(
        self,
        credential: Credential,
        operation: Operation,
        path: str,
        data: Mapping[str, Any] = EMPTY,
        org: str = "",
        remote: str = "",
        id: str = "",  # noqa: A002  # it is called what it is
        wrap_ttl: int = 0,
        peer_certificate: bytes = b"",
        stated: Stated | None = None,
        headers: Mapping[str, str] = EMPTY,
    ) -> None:
        self.credential = credential
        self.operation = operation
        self.path = path
        self.data = data
        self.org = org
        self.remote = remote
        self.id = id
        self.wrap_ttl = wrap_ttl
        self.peer_certificate = peer_certificate
        self.stated = stated
        self.headers = headers

    def but(self, **others: Any) -> Request:
        """The same with other values of these attributes."""
        return Request(**{**{name: getattr(self, name) for name in self.__slots__}, **others})

    def named(self, request_id: str) -> Request:
        """The same under an id; ``but`` takes several times as long."""
        return Request(
            self.credential,
            self.operation,
            self.path,
            self.data,
            self.org,
            self.remote,
            request_id,
            self.wrap_ttl,
            self.peer_certificate,
            self.stated,
            self.headers,
        )


class WrapInfo:
    """Where an answer lies that was wrapped.

    Attributes:
        token: gives the answer once, to whoever shows it.
        accessor: of that token.
        ttl: seconds that it is good for.
        created: seconds since the epoch.
        path: of the request that was answered.
        wrapped_accessor: of the token that the answer makes known; empty for none.
    """

    def __init__(
        self, token: str, accessor: str, ttl: int, created: float, path: str, wrapped_accessor: str = ""
    ) -> None:
        self.token: Final = token
        self.accessor: Final = accessor
        self.ttl: Final = ttl
        self.created: Final = created
        self.path: Final = path
        self.wrapped_accessor: Final = wrapped_accessor


Limits = tuple[tuple[str, ...], ...]
"""Lists of hosts, ``name[:port]`` or with ``*.`` before the name: what is lent may go where every list lets it go."""


class Reply:
    """What the vault says.

    Attributes:
        data: JSON-ready fields. A ``Secret`` leaf holds JSON text; who may see it turns it into JSON.
        auth: a fresh token, in the field names of Vault's ``auth`` block.
        warnings: for a person to read.
        lent: secrets opened for the broker; no face ever sees a reply that has them.
        found: ``False`` when ``data`` describes something that is not there any more (a deleted version).
        login: who somebody has proved to be; the door turns it into ``auth``.
        lease: under which what was made lives; the door gives it to whoever asked.
        wrap: the answer was wrapped, and this is all that is said of it.
        bare: the data stands alone, without the usual envelope.
        raw: the whole body, where it is not JSON; ``content_type`` says what it is.
        hosts: each has the only hosts to which what is revealed may be lent; all of them count. Empty for no limit.
        duration: seconds for which to rely on what was read, where it has no lease.
        status: of HTTP, where some of a batch failed, or the work goes on; 0 for the usual one.
        request_id: the id under which the journal has it.
        headers: of the answer in HTTP, besides.
    """

    __slots__ = (
        "auth",
        "bare",
        "content_type",
        "data",
        "duration",
        "found",
        "headers",
        "hosts",
        "lease",
        "lent",
        "login",
        "raw",
        "request_id",
        "status",
        "warnings",
        "wrap",
    )

    def __init__(
        self,
        data: dict[str, Any] | None = None,
        auth: dict[str, Any] | None = None,
        warnings: list[str] | None = None,
        lent: dict[str, Secret] | None = None,
        *,
        found: bool = True,
        login: Login | None = None,
        lease: Lease | None = None,
        wrap: WrapInfo | None = None,
        bare: bool = False,
        raw: bytes | None = None,
        hosts: Limits = (),
        content_type: str = "",
        duration: int = 0,
        status: int = 0,
        request_id: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        self.data = data
        self.auth = auth
        self.warnings = [] if warnings is None else warnings
        self.lent = lent
        self.found = found
        self.login = login
        self.lease = lease
        self.wrap = wrap
        self.bare = bare
        self.raw = raw
        self.hosts = hosts
        self.content_type = content_type
        self.duration = duration
        self.status = status
        self.request_id = request_id
        self.headers = {} if headers is None else headers
