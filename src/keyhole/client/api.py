"""``Client`` and ``AsyncClient``: the same requests, waiting in two ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, Self, TypeVar

from keyhole.client.context import context
from keyhole.client.core import Result
from keyhole.client.discover import Where, discover
from keyhole.client.fetched import Fetched
from keyhole.core.errors import InvalidRequest

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from keyhole.client.leasing import AsyncLease, Lease, Leased
    from keyhole.client.local import Opened
    from keyhole.client.party import Party
    from keyhole.client.road import Road
    from keyhole.client.travel import Answered

P = ParamSpec("P")
T = TypeVar("T")


class Transport(Protocol):
    """How requests get to a vault."""

    def ask(self, operation: str, path: str, data: Mapping[str, Any]) -> Result:
        """Ask, and wait for the result."""

    def road(self, token: str = "") -> Road:
        """The way to the broker, with the caller's own credential or with ``token``."""

    def another(self, token: str = "") -> Transport:
        """The same vault, to be asked from another thread; as the holder of ``token`` where there is one."""

    def close(self) -> None:
        """Let everything go."""


Opener = Callable[[Where], "Opened"]


def connect(where: Where, *, org: str = "", opener: Opener | None = None) -> Transport:
    """The transport for a vault that was found.

    Args:
        where: the vault and the token.
        org: where to ask; empty for the token's own.
        opener: opens a vault of this machine.

    Raises:
        InvalidRequest: the address cannot be used, or a local vault is meant and nothing can open it.
    """
    if where.remote:
        from keyhole.client.http import HttpTransport  # noqa: PLC0415  # each transport loads only what it needs

        first, *others = where.location.split(",")
        if not others:
            return HttpTransport(first, token=where.token, org=org)
        from keyhole.client.failover import Failover  # noqa: PLC0415  # the same
        from keyhole.client.http import PATIENCE  # noqa: PLC0415

        servers = (first, *others)
        return Failover([HttpTransport(each, token=where.token, org=org, patience=PATIENCE) for each in servers])
    if opener is None:
        raise InvalidRequest("this client cannot open a local vault", "use keyhole.Client, or name a server")
    from keyhole.client.local import LocalTransport  # noqa: PLC0415  # the same

    return LocalTransport(opener(where), token=where.token, org=org)


class Client:
    """A vault, asked from blocking code. Not for several threads at once.

    Args:
        vault: ``https://HOST:PORT`` or the location of a store; empty to find it as the command line does.
        token: instead of the one that would be found.
        org: where to ask; empty for the token's own.
        opener: opens a vault of this machine.
        transport: instead of finding any vault.
    """

    opener: Opener | None = None

    def __init__(
        self,
        vault: str = "",
        *,
        token: str | None = None,
        org: str = "",
        opener: Opener | None = None,
        transport: Transport | None = None,
    ) -> None:
        self._transport = transport or connect(
            discover(vault, token=token), org=org, opener=opener or type(self).opener
        )
        self._road: Road | None = None
        self._ca: Path | None = None
        self.fetched = Fetched()

    def read(self, path: str, **query: Any) -> Result:
        """Read an API path, such as ``secret/data/stripe/api-key``. Raises ``NotFound`` and other refusals."""
        found = self._transport.ask("read", path, query)
        self.fetched.note_answer(path, found.data, leased=bool(found.lease_id))
        return found

    def list(self, path: str, **query: Any) -> Result:
        """The names below a path, in ``data["keys"]``; folders end in a slash."""
        return self._transport.ask("list", path, query)

    def write(self, path: str, data: Mapping[str, Any] | None = None) -> Result:
        """Create or update what is at a path."""
        found = self._transport.ask("update", path, data or {})
        if found.auth:
            self.fetched.note(found.auth.get("client_token"))
        return found

    def patch(self, path: str, data: Mapping[str, Any]) -> Result:
        """Change some fields of what is at a path (RFC 7396)."""
        return self._transport.ask("patch", path, data)

    def delete(self, path: str) -> Result:
        """Delete what is at a path."""
        return self._transport.ask("delete", path, {})

    def call(self, method: str, url: str, **options: Any) -> Answered:
        """Make a call through the broker, which attaches the credential. See ``travel.Trip`` for the options.

        Raises:
            KeyholeError: the broker refused it or could not reach the upstream.
        """
        from keyhole.client import travel  # noqa: PLC0415  # most commands do not travel

        trip = travel.Trip(method, url, **options)
        service = travel.resolve(self._transport.ask, trip)
        return travel.send(self.road(), trip, service)

    def road(self, token: str = "") -> Road:
        """The way to the broker; found once. With ``token`` it is the way of that token's holder."""
        if token:
            return self._transport.road(token)
        if self._road is None:
            self._road = self._transport.road()
        return self._road

    def party(self, token: str = "") -> Party:
        """This vault, to be asked from several threads at once; as the holder of ``token`` where there is one."""
        from keyhole.client.party import Party  # noqa: PLC0415  # few programs need it

        return Party(self._transport, token)

    def lease(
        self,
        source: str,
        *,
        grace: float = 60.0,
        on_change: Callable[[Leased], object] | None = None,
        revoke: bool = True,
    ) -> Lease:
        """A credential for a ``with`` block: renewed while it is used, read anew when it cannot be, revoked at the end.

        Args:
            source: what is read, such as ``/database/creds/readonly``; it takes ``read``.
            grace: seconds for which it is served, beyond nine tenths of its time and never past its end, while no
                server can be asked.
            on_change: called, from another thread, when another credential took its place.
            revoke: take back at the end what was leased.

        Raises:
            KeyholeError: when the block is entered: it could not be had.
            InvalidRequest: the source is no path, or the grace no number of seconds.
        """
        from keyhole.client.leasing import Lease  # noqa: PLC0415  # few programs lease

        note = self.fetched.note
        return Lease(self._transport.another(), source, grace=grace, on_change=on_change, revoke=revoke, note=note)

    def context(self, **fields: str) -> AbstractContextManager[None]:
        """Say, for a ``with`` block, which work its requests belong to: see ``client.context.context``.

        Args:
            fields: ``workflow``, ``run``, ``step``, ``tool``, ``on_behalf_of``, ``traceparent``.

        Raises:
            InvalidRequest: a text is unprintable or has more than 200 characters.
        """
        return context(**fields)

    def requests_session(self) -> Any:
        """A session of the library ``requests`` that is wired to the broker, until this client is closed.

        Raises:
            InvalidRequest: that library is not installed.
        """
        from keyhole.client.travel import ca_file, requests_session  # noqa: PLC0415  # as in call

        if self._ca is None:
            self._ca = ca_file(self.road())
        return requests_session(self.road(), self._ca)

    def close(self) -> None:
        """Let the vault go. The client can be used again."""
        self._road = None
        if self._ca is not None:
            self._ca.unlink(missing_ok=True)
            self._ca = None
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient:
    """The same vault, asked from asyncio: see ``Client`` for arguments and methods.

    Requests of one client run one after the other, in a thread of their own, so that the caller's loop stays free
    whatever a seal or a keychain takes.
    """

    opener: Opener | None = None
    blocking: type[Client] = Client

    def __init__(self, vault: str = "", **options: Any) -> None:
        import asyncio  # noqa: PLC0415  # slow to import, and blocking clients of a server do without

        options.setdefault("opener", type(self).opener)
        self._client = self.blocking(vault, **options)
        self._turn = asyncio.Lock()

    async def read(self, path: str, **query: Any) -> Result:
        """See ``Client.read``."""
        return await self._wait(self._client.read, path, **query)

    async def list(self, path: str, **query: Any) -> Result:
        """See ``Client.list``."""
        return await self._wait(self._client.list, path, **query)

    async def write(self, path: str, data: Mapping[str, Any] | None = None) -> Result:
        """See ``Client.write``."""
        return await self._wait(self._client.write, path, data)

    async def patch(self, path: str, data: Mapping[str, Any]) -> Result:
        """See ``Client.patch``."""
        return await self._wait(self._client.patch, path, data)

    async def delete(self, path: str) -> Result:
        """See ``Client.delete``."""
        return await self._wait(self._client.delete, path)

    async def call(self, method: str, url: str, **options: Any) -> Answered:
        """See ``Client.call``."""
        return await self._wait(self._client.call, method, url, **options)

    def context(self, **fields: str) -> AbstractContextManager[None]:
        """See ``Client.context``; for ``with``, also around what is awaited."""
        return context(**fields)

    def lease(self, source: str, **options: Any) -> AsyncLease:
        """See ``Client.lease``; for ``async with``."""
        from keyhole.client.leasing import AsyncLease  # noqa: PLC0415  # as there

        return AsyncLease(lambda: self._client.lease(source, **options))

    async def close(self) -> None:
        """See ``Client.close``."""
        await self._wait(self._client.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _wait(self, work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        import asyncio  # noqa: PLC0415  # as above

        async with self._turn:
            return await asyncio.to_thread(work, *args, **options)
