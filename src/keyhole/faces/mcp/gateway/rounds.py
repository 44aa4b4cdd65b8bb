"""A request to a server, in as many rounds as it asks before it answers.

Servers of the revision 2026-07-28 ask in what they answer, and are sent the same request again with what they wanted to
know. What such a server keeps for itself between two rounds goes back to it, and to nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import mcp_types as types
from pydantic import TypeAdapter

from keyhole.core.errors import UpstreamUnreachable
from keyhole.faces.mcp.gateway.cleaned import Following
from keyhole.faces.mcp.gateway.questions import Listens
from keyhole.faces.mcp.gateway.upstream import Upstream, faults
from keyhole.faces.mcp.gateway.use import Use
from keyhole.faces.mcp.gateway.wants import Wanted

Asking = types.CallToolRequest | types.GetPromptRequest | types.ReadResourceRequest
Report = Callable[[float, float | None, str | None], Awaitable[None]]
Said = TypeVar("Said", bound=types.Result)
_FIRST_PAUSE = 0.05  # seconds, before a server is asked again that wanted nothing but that; doubled each time


async def exchanged(
    upstream: Upstream,
    use: Use,
    request: Asking,
    answer: TypeAdapter[Said | types.InputRequiredResult],
    client: Listens | None,
    report: Report,
) -> Said:
    """What a server answers in the end.

    Args:
        upstream: the server.
        use: of it.
        request: that it is sent.
        answer: reads what it says.
        client: is asked; nobody where there is none.
        report: is told of progress.

    Raises:
        MCPError: the server says so, or what it wants to know is not answered.
        KeyholeError: it cannot be used, or by now the call is refused.
    """
    limits, pause = upstream.questions, _FIRST_PAUSE
    for _ in range(limits.rounds + 1):
        try:
            found = await _sent(use, request, answer, client, report)
        except Wanted as wanted:  # it was refused, so nothing has been done
            use.session = await upstream.again(use.session, wanted)
            found = await _sent(use, request, answer, client, report)
        if not isinstance(found, types.InputRequiredResult):
            return found
        if len(found.request_state or "") > limits.state:
            break
        answers = None
        if found.input_requests:
            answers = await use.session.talk.answers(found.input_requests, client)
        else:
            await asyncio.sleep(pause)
            pause *= 2
        more = {"input_responses": answers, "request_state": found.request_state}
        request = request.model_copy(update={"params": request.params.model_copy(update=more)})
        session = await upstream.session(use.stamp)
        if session is not use.session:
            use.require_bound(session.server)
            use.session = session
    raise UpstreamUnreachable("the server asks again and again, and gives no answer")


async def _sent(
    use: Use,
    request: Asking,
    answer: TypeAdapter[Said | types.InputRequiredResult],
    client: Listens | None,
    report: Report,
) -> Said | types.InputRequiredResult:
    session, cleaner, following = use.session, use.cleaner, Following(use.scrubber)

    async def heard(progress: float, total: float | None, message: str | None) -> None:
        shown = cleaner.number(progress), cleaner.number(total) if total is not None else None
        await report(shown[0] or 0.0, shown[1], following.text(message) if message else message)

    async with session.in_use() as speaks, faults(session) as patience, session.talk.with_client(client, patience):
        use.asking = True
        try:
            return await speaks.send_request(request, answer, progress_callback=heard)
        finally:
            use.asking = False
