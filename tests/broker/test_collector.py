"""What a call and its connection leave behind: nothing that only the collector could take away.

Each tunnel holds a TLS connection, whose memory the collector does not see: it would come late.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from broker.h2_upstream import H2Upstream, context, ok
from broker.stack import HOST, Stack, until
from keyhole.core.message import Call
from keyhole.faces.proxy.connection import ProxyConnection
from keyhole.net.guests import Guest
from keyhole.net.http1.answer import ClientAnswer
from keyhole.net.http1.tls import TlsChannel
from keyhole.net.http2.exchange import Http2Answer

_TIMES = 3


def _alive(*kinds: type) -> list[Any]:
    return [held for held in gc.get_objects() if type(held) in kinds]


@asynccontextmanager
async def _uncollected() -> AsyncIterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def test_a_tunnel_that_has_ended_is_gone_with_its_tls_at_once() -> None:
    async def main() -> None:
        async with Stack() as stack:
            await stack.secret("stripe/key")
            await stack.service("stripe")
            token = await stack.agent("coder", "stripe")
            assert (await stack.get(token)).status == 200  # its connection to the upstream stays
            await until(lambda: not stack.proxy.connections)
            async with _uncollected():
                before = len(_alive(ProxyConnection, Guest, TlsChannel, ClientAnswer))
                for _ in range(_TIMES):
                    assert (await stack.get(token)).status == 200
                await until(lambda: not stack.proxy.connections)
                await asyncio.sleep(0)
                assert len(_alive(ProxyConnection, Guest, TlsChannel, ClientAnswer)) <= before

    asyncio.run(main())


def test_an_answer_that_was_read_is_gone_at_once() -> None:
    async def main() -> None:
        async with Stack() as stack:
            upstream = H2Upstream()
            upstream.say = ok
            port = await stack.listen(upstream, context("h2", "http/1.1"))
            await stack.secret("stripe/key")
            await stack.service("one")
            await stack.service("two", hosts=[f"{HOST}:{port}"])
            token = await stack.agent("coder", "one", "two")
            async with _uncollected():
                for http2 in [True, False] * _TIMES:
                    to = port if http2 else stack.secure
                    fields: dict[str, Any] = {"scheme": "https", "port": to, "headers": [], "http2": http2}
                    call = Call(token=token.encode(), host=HOST, method="GET", target=b"/v1/x", **fields)
                    answer = await stack.keyhole.broker.handle(call)
                    assert answer.body is not None
                    while await answer.body.read():
                        pass
                    del answer, call
                await asyncio.sleep(0)
                assert not _alive(Http2Answer, ClientAnswer)

    asyncio.run(main())
