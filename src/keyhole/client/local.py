"""The transport to a vault in this process: one event loop in the foreground, which a proxy turns into a thread's.

This floor cannot construct a vault; whoever stands above gives an ``Opened``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from keyhole.client import context
from keyhole.client.core import Result
from keyhole.core.errors import KeyholeError
from keyhole.core.request import Reply
from keyhole.core.value import Secret

if TYPE_CHECKING:
    import socket

    from keyhole.client.road import Road
    from keyhole.core.stated import Stated

T = TypeVar("T")
PROXY_TTL = "12h"


class Answers(Protocol):
    """Something that asks a door."""

    async def ask(
        self,
        operation: str,
        path: str,
        data: Mapping[str, Any],
        *,
        token: str,
        org: str,
        stated: Stated | None = None,
    ) -> Reply:
        """Ask the door; without a token as the vault's owner."""


class Opened(Answers, Protocol):
    """A vault of this machine. It opens itself at the first request."""

    async def start_proxy(self) -> tuple[str, str]:
        """Listen for calls on a free port of loopback; the proxy's URL and the PEM of its CA."""

    async def adopt(self, sock: socket.socket) -> None:
        """Serve a socket that listens already, as the proxy."""

    async def close(self) -> None:
        """Finish what was accepted and let the vault go."""


class LocalTransport:
    """Asks a vault in this process.

    Args:
        opened: the vault.
        token: acts as its holder; empty for the owner of the vault.
        org: where it asks.
    """

    def __init__(self, opened: Opened, *, token: str = "", org: str = "") -> None:
        self._opened = opened
        self._token = token
        self._org = org
        self._runner: asyncio.Runner | None = None
        self._thread: threading.Thread | None = None
        self._made = ""

    def ask(self, operation: str, path: str, data: Mapping[str, Any]) -> Result:
        """Ask, and wait. Raises what opening the vault and the door raise."""
        return self.ask_as("", operation, path, data)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on this transport's loop, and wait for it."""
        if self._runner is None:
            self._runner = asyncio.Runner()
        if self._thread is None:
            return self._runner.run(work)
        return asyncio.run_coroutine_threadsafe(work, self._runner.get_loop()).result()

    def road(self, token: str = "") -> Road:
        """Start the proxy, and keep it running in a thread until ``close``."""
        from keyhole.client.road import Road  # noqa: PLC0415  # most commands do not travel

        url, ca = self.run(self._opened.start_proxy())
        token = token or self._token or self._proxy_token()
        self._to_background()
        return Road.at(url, ca, token, adopt=lambda sock: self.run(self._opened.adopt(sock)))

    def another(self, token: str = "") -> Borrowed:
        """This vault, to be asked from another thread; as the holder of ``token`` where there is one."""
        if self._runner is None:
            self._runner = asyncio.Runner()
        self._to_background()
        return Borrowed(self, token)

    def ask_as(self, token: str, operation: str, path: str, data: Mapping[str, Any]) -> Result:
        """Ask as the holder of a token; as ``ask`` where it is empty."""
        said = context.current()
        return self.run(
            ask(self._opened, operation, path, data, token=token or self._token, org=self._org, stated=said)
        )

    def _proxy_token(self) -> str:
        """The owner of a vault has no token; for the proxy it makes itself one that can do nothing else."""
        request = {"scope": "proxy", "ttl": PROXY_TTL, "display_name": "call"}
        auth = self.ask("update", "auth/token/create", request).auth or {}
        self._made = str(auth["client_token"])
        return self._made

    def _end_token(self) -> None:
        made, self._made = self._made, ""
        if made:
            with contextlib.suppress(KeyholeError):  # it ends by itself as well
                self.ask("update", "auth/token/revoke", {"token": made})

    def _to_background(self) -> None:
        if self._thread is None and self._runner is not None:
            loop = self._runner.get_loop()
            self._thread = threading.Thread(target=loop.run_forever, name="keyhole", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Close the vault and end the loop. The transport can be used again."""
        if self._runner is None:
            return
        try:
            self._end_token()
            self.run(self._opened.close())
        finally:
            if self._thread is not None:
                self._runner.get_loop().call_soon_threadsafe(self._runner.get_loop().stop)
                self._thread.join()
                self._thread = None
            self._runner.close()
            self._runner = None


class Borrowed:
    """A vault that belongs to another transport, which closes it."""

    def __init__(self, owner: LocalTransport, token: str = "") -> None:
        self._owner = owner
        self._token = token

    def ask(self, operation: str, path: str, data: Mapping[str, Any]) -> Result:
        """See ``LocalTransport.ask``."""
        return self._owner.ask_as(self._token, operation, path, data)

    def road(self, token: str = "") -> Road:
        """See ``LocalTransport.road``."""
        return self._owner.road(token or self._token)

    def another(self, token: str = "") -> Borrowed:
        """The same; as the holder of ``token`` where there is one."""
        return Borrowed(self._owner, token or self._token)

    def close(self) -> None:
        """Nothing is its own."""


async def ask(
    opened: Answers,
    operation: str,
    path: str,
    data: Mapping[str, Any],
    *,
    token: str = "",
    org: str = "",
    stated: Stated | None = None,
) -> Result:
    """Ask an opened vault, and give what a server would have sent."""
    path = path.strip("/")
    if stated is None:  # who opens a vault and knows nothing of this is asked as before
        reply = await opened.ask(operation, path, data, token=token, org=org)
    else:
        reply = await opened.ask(operation, path, data, token=token, org=org, stated=stated)
    fields = {name: _plain(value) for name, value in (reply.data or {}).items()}
    result = Result(fields, reply.auth, list(reply.warnings), found=reply.found, request_id=reply.request_id)
    result.lease_duration = reply.duration
    if (lease := reply.lease) is not None:
        result.lease_id, result.lease_duration, result.renewable = lease.id, lease.ttl, lease.renewable
    return result


def _plain(leaf: Any) -> Any:
    """A secret leaf holds JSON text. A reply that has one was read with the capability ``read`` and recorded."""
    return json.loads(leaf.reveal()) if isinstance(leaf, Secret) else leaf
