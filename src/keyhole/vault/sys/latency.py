"""``sys/latency``: how long calls through each service take, and how they end; each org sees its own."""

from __future__ import annotations

from keyhole.core.errors import InvalidRequest
from keyhole.core.request import Operation, Reply
from keyhole.core.times import format_time
from keyhole.engines import Call, Context, Field, Route
from keyhole.vault.vault import Vault


def routes(vault: Vault) -> tuple[Route, ...]:
    """The table."""

    async def read(context: Context, call: Call) -> Reply:
        org, form = context.caller.org, call.data.get("format") or ""
        if form == "prometheus":
            text = (await vault.meters.prometheus_of(org)).encode()
            return Reply(raw=text, content_type="text/plain; version=0.0.4")
        if form:
            raise InvalidRequest("unknown format of figures", "ask for prometheus, or leave it out")
        calls, _ = await vault.meters.everywhere(org, others=False)
        shown = {name: figures.as_data() for name, figures in calls.services(org).items()}
        return Reply({"since": format_time(vault.meters.started), "services": shown})

    return (
        Route(
            "latency",
            {Operation.READ: read},
            fields=(Field("format", "prometheus"),),
            help="How long calls through each service of this org take on this server, stage by stage, and their ends.",
        ),
    )
