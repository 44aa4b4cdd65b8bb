"""A client that sends the same head again has it judged again by all that may have changed since."""

from __future__ import annotations

from broker.stack import HOST, SECRET, Stack, Streams, basic, read_reply


async def again(streams: Streams, raw: bytes) -> tuple[int, str]:
    """Send these bytes; the status of the answer, and the code of a refusal."""
    reader, writer = streams
    writer.write(raw)
    reply = await read_reply(reader, raw.partition(b" ")[0].decode())
    return reply.status, reply.code


def test_the_secret_is_read_and_the_grant_asked_for_every_time(stack: Stack, run) -> None:
    async def go() -> None:
        await stack.secret("again/key", f"{SECRET}-first")
        await stack.service("again", secret="again/key", hosts=[f"a.test:{stack.secure}"])
        streams = await stack.tunnel(await stack.agent("again", "again"), "a.test")
        raw = f"GET /v1/again HTTP/1.1\r\nHost: a.test:{stack.secure}\r\n\r\n".encode()
        assert [await again(streams, raw) for _ in range(3)] == [(200, "")] * 3
        await stack.secret("again/key", f"{SECRET}-second")
        assert await again(streams, raw) == (200, "")
        sent = [request.values(b"authorization") for request in stack.upstream.requests]
        assert sent == [[f"Bearer {SECRET}-first".encode()]] * 3 + [[f"Bearer {SECRET}-second".encode()]]
        await stack.ask("delete", "agents/again/services/again")
        assert await again(streams, raw) == (403, "policy_denied")
        assert len(stack.upstream.requests) == 4
        records = [each for each in await stack.records() if each.get("target") == "/v1/again"]
        assert [each["phase"] for each in records] == ["intent", "outcome"] * 4 + ["refused"]
        assert len({each["id"] for each in records}) == 5

    run(go())


def test_a_value_that_is_stored_later_is_found_in_the_same_head(stack: Stack, run) -> None:
    async def go() -> None:
        text = "pk_other_Zr48StoredLater77xQw1"
        await stack.secret("known/key", f"{SECRET}-known")
        await stack.service("known", secret="known/key", hosts=[f"b.test:{stack.secure}"])
        streams = await stack.tunnel(await stack.agent("known", "known"), "b.test")
        raw = f"GET /v1 HTTP/1.1\r\nHost: b.test:{stack.secure}\r\nX-Note: {text}\r\n\r\n".encode()
        assert [await again(streams, raw) for _ in range(2)] == [(200, "")] * 2
        await stack.secret("later/key", text)
        await stack.service("later", secret="later/key", hosts=["later.test"])
        assert (await again(streams, raw))[0] == 403
        assert len(stack.upstream.requests) == 2

    run(go())


def test_what_was_taken_before_a_tunnel_is_not_taken_inside_of_it(stack: Stack, run) -> None:
    async def go() -> None:
        await stack.secret("inside/key", f"{SECRET}-inside")
        where = f"{HOST}:{stack.plain}"
        await stack.service("inside", secret="inside/key", hosts=[where], schemes=["http"])
        proof = basic(await stack.agent("inside", "inside"))
        streams = await stack.open()
        raw = f"GET http://{where}/ HTTP/1.1\r\nHost: {where}\r\n".encode() + proof + b"\r\n"
        assert [await again(streams, raw) for _ in range(2)] == [(200, "")] * 2
        assert await again(streams, f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n".encode() + proof + b"\r\n") == (
            200,
            "",
        )
        assert (await again(streams, raw))[0] == 400
        assert len(stack.upstream.requests) == 2

    run(go())
