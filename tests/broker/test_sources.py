"""A call with what another mount made for it: used, scrubbed from the answer, and noticed where it must not be."""

from __future__ import annotations

import asyncio

from broker.stack import Received, Stack
from vault.lab import Lab


async def lab_at(stack: Stack) -> Lab:
    vault = stack.keyhole.node.vault
    assert vault is not None
    lab = Lab()
    lab.mount(stack.keyhole.node)
    await stack.service("lab", secret="/lab/creds/reader#username")
    return lab


def test_what_was_made_for_an_agent_is_sent_and_masked_in_the_answer() -> None:
    async def main() -> None:
        async with Stack() as stack:
            lab = await lab_at(stack)
            token = await stack.agent("coder", "lab")

            async def echo(request: Received, writer: asyncio.StreamWriter) -> None:
                value = request.values(b"authorization")[0].removeprefix(b"Bearer ")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(value), value))
                await writer.drain()

            stack.upstream.say = echo
            reply = await stack.get(token)
            [mark] = lab.alive
            assert stack.upstream.last.values(b"authorization") == [f"Bearer v-{mark}".encode()]
            assert reply.body == b"*" * len(f"v-{mark}")
            record, *_ = await stack.records(service="lab")
            assert record["secrets"] == ("/lab/creds/reader",)

    asyncio.run(main())


def test_what_stays_with_another_manager_is_sent_masked_and_recorded() -> None:
    async def main() -> None:
        async with Stack() as stack:
            await stack.ask("update", "sys/mounts/external", {"type": "external"})
            source = {"kind": "command", "argv": ["/usr/bin/env", "printf", "value-of-%s", "{path}"]}
            await stack.ask("update", "external/sources/team", source)
            await stack.service("crm", secret="/external/read/team/crm/key")
            token = await stack.agent("coder", "crm")

            async def echo(request: Received, writer: asyncio.StreamWriter) -> None:
                value = request.values(b"authorization")[0]
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(value), value))
                await writer.drain()

            stack.upstream.say = echo
            reply = await stack.get(token)
            assert stack.upstream.last.values(b"authorization") == [b"Bearer value-of-crm/key"]
            assert reply.body == b"Bearer " + b"*" * len("value-of-crm/key")
            [use, *_] = await stack.records(service="crm")
            assert use["secrets"] == ("/external/read/team/crm/key",)
            await stack.ask("delete", "external/sources/team")
            reply = await stack.get(token)
            assert (reply.status, reply.code) == (404, "not_found")

    asyncio.run(main())


def test_a_value_that_was_made_is_noticed_when_it_is_sent_elsewhere() -> None:
    async def main() -> None:
        async with Stack() as stack:
            lab = await lab_at(stack)
            await stack.secret("stripe/key")
            await stack.service("stripe", paths=["/other/**"])
            token = await stack.agent("coder", "lab", "stripe")
            await stack.get(token)
            [mark] = lab.alive
            reply = await stack.get(token, "/other/x", headers=f"X-Leak: v-{mark}\r\n".encode())
            assert (reply.status, reply.code) == (403, "policy_denied")

    asyncio.run(main())
