"""``sys/wrapping/``: wrap anything, and open what was wrapped with a token that a field names."""

from __future__ import annotations

from keyhole.core.errors import InvalidRequest
from keyhole.core.request import Operation, Reply
from keyhole.engines import Call, Context, Field, Route
from keyhole.vault import wrapping
from keyhole.vault.vault import Vault


class _Handlers:
    """Handlers of the wrapping routes of a vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def wrap(self, _context: Context, call: Call) -> Reply:
        if not call.wrap_ttl:
            raise InvalidRequest(
                "endpoint requires response wrapping to be used", "say for how long: X-Vault-Wrap-TTL: 5m"
            )
        return Reply(dict(call.data))

    async def do(self, context: Context, call: Call, verb: str) -> Reply:
        org_id = context.caller.org_id
        state = self._vault.compiled.last(org_id) or await self._vault.compiled.state(org_id)
        token = await wrapping.find(self._vault, state, call.data.get("token"))
        return await wrapping.do(self._vault, state, token, verb)

    async def lookup(self, context: Context, call: Call) -> Reply:
        return await self.do(context, call, "lookup")

    async def unwrap(self, context: Context, call: Call) -> Reply:
        return await self.do(context, call, "unwrap")

    async def rewrap(self, context: Context, call: Call) -> Reply:
        return await self.do(context, call, "rewrap")


def routes(vault: Vault) -> tuple[Route, ...]:
    """The table. Who shows the wrapping token as its credential is answered before this is asked."""
    r = _Handlers(vault)
    write = Operation.CREATE
    by = (Field("token", "the wrapping token; when it is not given, the token of the request is meant"),)
    return (
        Route("wrapping/wrap", {write: r.wrap}, help="Wraps the fields that are sent."),
        Route(
            "wrapping/lookup",
            {write: r.lookup, Operation.READ: r.lookup},
            fields=by,
            help="When and for what a wrapping token was made; it stays good.",
        ),
        Route("wrapping/unwrap", {write: r.unwrap}, fields=by, help="The answer that was wrapped, once."),
        Route("wrapping/rewrap", {write: r.rewrap}, fields=by, help="The same answer under a new wrapping token."),
    )
