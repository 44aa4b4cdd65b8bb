"""A body whose beginning comes late.

A call is decided on its head, and nothing is sent before its body has begun. A client that holds the body back must not
outlive its token or its grant by that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from keyhole.core.errors import PolicyDenied
from keyhole.core.identity import Caller
from keyhole.core.message import Body, Headers
from keyhole.core.service import Service
from keyhole.vault.identity import standing
from keyhole.vault.tokens import MOUNT
from keyhole.vault.vault import Vault

PATIENCE = 1.0  # seconds for which a decision stands before anything was sent


class LateBody:
    """A body that asks again whether it may be sent when its first chunk was waited for.

    Args:
        body: what the client sends.
        judge: raises the refusal.
    """

    __slots__ = ("_body", "_judge", "length")

    def __init__(self, body: Body, judge: Callable[[], Awaitable[object]]) -> None:
        self._body = body
        self._judge: Callable[[], Awaitable[object]] | None = judge
        self.length = body.length

    @property
    def trailers(self) -> Headers:
        """Those of the body."""
        return self._body.trailers

    async def read(self) -> bytes:
        """The next chunk; ``b""`` at the end. Raises what the body or the judge raises."""
        judge, self._judge = self._judge, None
        if judge is None:
            return await self._body.read()
        loop = asyncio.get_running_loop()
        start = loop.time()
        chunk = await self._body.read()
        if loop.time() - start >= PATIENCE:
            await judge()
        return chunk


async def require_still(vault: Vault, caller: Caller, service: Service | None) -> float:
    """Judge again a call that was allowed. A token that the call itself has used up counts as live until it is swept.

    Returns:
        When the token expires, in seconds since the epoch; infinity for one that does not.

    Raises:
        Unauthenticated: the token was revoked or has expired, or its entity was disabled or deleted.
        PolicyDenied: the service was taken back, changed or removed.
    """
    state = await vault.compiled.state(caller.org_id)
    expires = await vault.tokens.still(vault.storage(caller.org_id, MOUNT), caller, vault.clock.now())
    acl = await standing.acl_now(vault, state, caller)
    if service is None:
        return expires
    now = (await vault.services(state)).get(service.name)
    same = now is not None and now.as_data() == service.as_data()
    if not (same and acl.decide("use", f"services/{service.name}")):
        raise PolicyDenied(
            f"the service {service.name!r} was changed or taken back while the call was under way", "make it again"
        )
    return expires


def judged(vault: Vault, caller: Caller, service: Service | None, body: Body | None) -> Body | None:
    """The body of a call that was allowed, judged again where it begins late."""
    return None if body is None else LateBody(body, lambda: require_still(vault, caller, service))
