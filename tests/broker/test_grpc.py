"""gRPC through the broker, against grpcio's own server over TLS: credentials in, values out, statuses intact."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import gzip
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
import trustme

from broker.h2_upstream import H2Upstream, Pieces, context
from broker.stack import CERTIFIED, HOST, SECRET, Stack, authority, until
from keyhole.core.errors import KeyholeError, ScrubFailedClosed
from keyhole.core.message import Answer, Call

VALUE = SECRET.encode()
TYPE = (b"content-type", b"application/grpc")


class Service(grpc.GenericRpcHandler):
    """Messages are bytes. ``Echo`` says what it was sent and by whom."""

    def __init__(self) -> None:
        self.waiting, self.cancelled = threading.Event(), threading.Event()
        self.seen: list[dict[str, str | bytes]] = []

    def service(self, details):
        self.seen.append(dict(details.invocation_metadata))
        method = details.method.rpartition("/")[2]
        return {
            "Echo": grpc.unary_unary_rpc_method_handler(self.echo),
            "Count": grpc.unary_stream_rpc_method_handler(self.count),
            "Talk": grpc.stream_stream_rpc_method_handler(self.talk),
            "Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "Wait": grpc.unary_unary_rpc_method_handler(self.wait),
            "Packed": grpc.unary_stream_rpc_method_handler(self.packed),
        }.get(method)

    def bearer(self, context) -> bytes:
        return dict(context.invocation_metadata())["authorization"].encode()

    def echo(self, request, context):
        context.send_initial_metadata(
            [("x-echo", self.bearer(context)), ("x-echo-bin", b"<" + self.bearer(context) + b">")]
        )
        context.set_trailing_metadata([("x-more", "1"), ("x-more-bin", b"\0" + self.bearer(context)[7:])])
        return request + self.bearer(context)

    def count(self, request, _context):
        for number in range(int(request)):
            yield b"%d" % number

    def talk(self, requests, context):
        yield b"hello"
        for request in requests:
            yield request + self.bearer(context)

    def fail(self, _request, context):
        context.abort(grpc.StatusCode.NOT_FOUND, f"no such thing for {self.bearer(context).decode()}")

    def wait(self, _request, context):
        done = threading.Event()
        context.add_callback(done.set)
        self.waiting.set()
        done.wait(10)
        self.cancelled.set()
        return b""

    def packed(self, request, context):
        context.set_compression(grpc.Compression.Gzip)
        yield b"clean " * 50
        yield self.bearer(context) * 10 + request


class World:
    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.service = Service()
        self.server = grpc.server(ThreadPoolExecutor(4))
        self.server.add_generic_rpc_handlers([self.service])
        certificate = authority().issue_cert(*CERTIFIED, key_type=trustme.KeyType.ECDSA)
        chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
        credentials = grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), chain)])
        self.port = self.server.add_secure_port("127.0.0.1:0", credentials)
        self.plain = self.server.add_insecure_port("127.0.0.1:0")
        self.raw = H2Upstream()
        self.token = ""

    async def prepare(self) -> None:
        self.server.start()
        await self.stack.secret("stripe/key")
        port = await self.stack.listen(self.raw, context())
        self.raw_port = port
        await self.stack.service("grpc", hosts=[f"{HOST}:{self.port}", f"{HOST}:{port}"])
        await self.stack.service("grpc-clear", hosts=[f"{HOST}:{self.plain}"], schemes=["http"])
        self.token = await self.stack.agent("grpc", "grpc", "grpc-clear")

    async def ask(self, method: str, *messages, port: int = 0, scheme: str = "https", headers=()) -> Answer:
        fields = [TYPE, (b"grpc-accept-encoding", b"identity,deflate,gzip"), *headers]
        body = Pieces(*messages)
        call = Call(
            self.token.encode(),
            scheme,
            HOST,
            port or self.port,
            "POST",
            b"/test.Test/" + method.encode(),
            fields,
            body,
            http2=True,
            trailers=True,
        )
        return await self.stack.keyhole.broker.handle(call)

    async def say(self, *args, **options) -> tuple[Answer, list[tuple[int, bytes]], dict[bytes, bytes]]:
        """A whole call: its answer, the messages with their flags, and the trailers."""
        answer = await self.ask(*args, **options)
        data = b""
        while answer.body is not None and (chunk := await answer.body.read()):
            data += chunk
        trailers = answer.headers if answer.body is None else answer.body.trailers
        return answer, unframed(data), dict(trailers)


def framed(message: bytes, flag: int = 0) -> bytes:
    return bytes((flag,)) + len(message).to_bytes(4, "big") + message


def unframed(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        size = int.from_bytes(data[1:5], "big")
        found.append((data[0], data[5 : 5 + size]))
        assert len(found[-1][1]) == size
        data = data[5 + size :]
    return found


def from_bin(value: bytes) -> bytes:
    return base64.b64decode(value + b"=" * (-len(value) % 4))


@pytest.fixture(scope="module")
def world(module_stack: Stack, runner):
    world = World(module_stack)
    runner.run(world.prepare())
    yield world
    world.server.stop(0).wait()


def test_a_unary_call_is_made_with_the_credential_and_answered_without_it(world: World, run) -> None:
    answer, messages, trailers = run(world.say("Echo", framed(b"hi ")))
    hidden = b"*" * len(VALUE)
    assert (answer.status, messages) == (200, [(0, b"hi Bearer " + hidden)])
    assert trailers[b"grpc-status"] == b"0"
    assert trailers[b"x-more"] == b"1"
    assert from_bin(trailers[b"x-more-bin"]) == b"\0" + hidden
    head = dict(answer.headers)
    assert head[b"x-echo"] == b"Bearer " + hidden
    assert from_bin(head[b"x-echo-bin"]) == b"<Bearer " + hidden + b">"
    seen = world.service.seen[-1]
    assert seen["authorization"] == f"Bearer {SECRET}"


def test_a_stream_of_answers_arrives_message_by_message(world: World, run) -> None:
    _, messages, trailers = run(world.say("Count", framed(b"300")))
    assert [text for _, text in messages] == [b"%d" % number for number in range(300)]
    assert trailers[b"grpc-status"] == b"0"


def test_either_side_may_begin_to_talk(world: World, run) -> None:
    async def scenario() -> None:
        first, last = asyncio.Event(), asyncio.Event()
        answer = await world.ask("Talk", first.wait(), framed(b"one "), last.wait())
        assert await answer.body.read() == framed(b"hello")
        first.set()
        said = b""
        while len(said) < 5 + 4 + 7 + len(VALUE):
            said += await answer.body.read()
        assert unframed(said) == [(0, b"one Bearer " + b"*" * len(VALUE))]
        last.set()
        assert await answer.body.read() == b""
        assert dict(answer.body.trailers)[b"grpc-status"] == b"0"

    run(scenario())


def test_an_error_passes_without_the_value_in_its_message(world: World, run) -> None:
    _, messages, trailers = run(world.say("Fail", framed(b"")))
    assert messages == []
    assert trailers[b"grpc-status"] == b"5"
    assert trailers[b"grpc-message"] == b"no such thing for Bearer " + b"*" * len(VALUE)


def test_an_unknown_method_is_answered_by_trailers_alone(world: World, run) -> None:
    answer, _, trailers = run(world.say("Nothing", framed(b"")))
    assert answer.status == 200
    assert trailers[b"grpc-status"] == b"12"


def test_compressed_messages_are_looked_into(world: World, run) -> None:
    _, messages, trailers = run(world.say("Packed", framed(b"!")))
    assert trailers[b"grpc-status"] == b"0"
    assert [flag for flag, _ in messages] == [1, 1]
    clean, masked = [gzip.decompress(text) for _, text in messages]
    assert clean == b"clean " * 50
    assert masked == (b"Bearer " + b"*" * len(VALUE)) * 10 + b"!"


def test_a_deadline_travels(world: World, run) -> None:
    _, _, trailers = run(world.say("Wait", framed(b""), headers=[(b"grpc-timeout", b"50m")]))
    assert trailers[b"grpc-status"] in {b"4", b"1"}


def test_a_client_that_goes_cancels_the_call_at_the_upstream(world: World, run) -> None:
    world.service.waiting.clear()
    world.service.cancelled.clear()

    async def scenario() -> None:
        call = asyncio.ensure_future(world.ask("Wait", framed(b"")))
        await until(world.service.waiting.is_set)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        await until(world.service.cancelled.is_set)

    run(scenario())


def test_grpc_without_tls_is_spoken_with_an_upstream_that_has_none(world: World, run) -> None:
    _, messages, trailers = run(world.say("Echo", framed(b""), port=world.plain, scheme="http"))
    assert messages == [(0, b"Bearer " + b"*" * len(VALUE))]
    assert trailers[b"grpc-status"] == b"0"


def answering(*pieces: bytes, headers=(), trailers=((b"grpc-status", b"0"),)):
    async def say(talk, asked):
        await asked.ended.wait()
        talk.head(asked, [(b":status", b"200"), TYPE, *headers])
        for piece in pieces:
            await talk.data(asked, piece)
        talk.end(asked, list(trailers))

    return say


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_a_value_is_found_however_the_frames_are_cut(world: World, run, size: int) -> None:
    packed = gzip.compress(b"a " + VALUE)
    data = framed(b"x" + VALUE) + framed(b"") + framed(packed, 1) + framed(VALUE[:10]) + framed(VALUE[10:])
    pieces = (
        [bytes(piece) for piece in itertools.batched(data, size)]
        if hasattr(itertools, "batched")
        else [data[start : start + size] for start in range(0, len(data), size)]
    )
    world.raw.say = answering(*pieces, headers=[(b"grpc-encoding", b"gzip")])
    _, messages, _ = run(world.say("Any", framed(b""), port=world.raw_port))
    assert [text for flag, text in messages if not flag] == [b"x" + b"*" * len(VALUE), b"", VALUE[:10], VALUE[10:]]
    assert world.raw.requests[-1].headers[b"grpc-accept-encoding"] == b"identity,gzip"
    [inside] = [gzip.decompress(text) for flag, text in messages if flag]
    assert inside == b"a " + b"*" * len(VALUE)


def test_another_coding_of_messages_is_refused(world: World, run) -> None:
    world.raw.say = answering(framed(b"x", 1), headers=[(b"grpc-encoding", b"snappy")])

    async def scenario() -> None:
        with pytest.raises(ScrubFailedClosed):
            await world.ask("Any", framed(b""), port=world.raw_port)

    run(scenario())


@pytest.mark.parametrize(
    "broken",
    [framed(b"x", 1), framed(b"x", 2), framed(b"not gzip", 1), bytes((1, 0x7F, 0, 0, 0)), framed(b"123", 1)[:-1]],
)
def test_what_cannot_be_looked_into_ends_the_call_with_a_status(world: World, run, broken: bytes) -> None:
    coding = b"identity" if broken == framed(b"x", 1) else b"gzip"
    world.raw.say = answering(framed(b"ok"), broken, headers=[(b"grpc-encoding", coding)])

    async def scenario() -> None:
        answer = await world.ask("Any", framed(b""), port=world.raw_port)
        data = b""
        while chunk := await answer.body.read():
            data += chunk
        assert framed(b"ok").startswith(data)
        trailers = dict(answer.body.trailers)
        assert trailers[b"grpc-status"] == b"13"
        assert b"withheld" in trailers[b"grpc-message"] or b"compressed" in trailers[b"grpc-message"]

    run(scenario())


def test_an_upstream_that_breaks_off_is_told_by_a_status(world: World, run) -> None:
    async def say(talk, asked):
        talk.head(asked, [(b":status", b"200"), TYPE])
        await talk.data(asked, framed(b"one"))
        talk.writer.transport.abort()

    world.raw.say = say

    async def scenario() -> None:
        answer = await world.ask("Any", framed(b""), port=world.raw_port)
        assert await answer.body.read() == framed(b"one")
        assert await answer.body.read() == b""
        assert dict(answer.body.trailers)[b"grpc-status"] == b"14"

    run(scenario())


def test_a_value_among_the_messages_of_a_client_does_not_leave(world: World, run) -> None:
    world.raw.say = answering(framed(b"ok"))
    world.raw.requests.clear()

    async def scenario() -> None:
        with pytest.raises(KeyholeError) as caught:
            await world.ask("Any", framed(b"a"), framed(VALUE), port=world.raw_port)
        assert caught.value.code == "policy_denied"

    run(scenario())
    assert all(VALUE not in asked.body for asked in world.raw.requests)


GZIP = (b"grpc-encoding", b"gzip")


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_value_in_a_compressed_message_of_a_client_does_not_leave(world: World, run, size: int) -> None:
    world.raw.say = answering(framed(b"ok"))
    world.raw.requests.clear()
    secret = framed(gzip.compress(b"clean " * 40 + VALUE), 1)
    data = framed(b"a") + framed(gzip.compress(b"nothing"), 1) + secret

    async def scenario() -> None:
        with pytest.raises(KeyholeError) as caught:
            await world.ask("Any", *cut(data, size), port=world.raw_port, headers=[GZIP])
        assert caught.value.code == "policy_denied"

    run(scenario())
    assert all(secret[5:] not in asked.body for asked in world.raw.requests)


def test_clean_compressed_messages_of_a_client_pass_byte_for_byte(world: World, run) -> None:
    world.raw.say = answering(framed(b"ok"))
    world.raw.requests.clear()
    two = gzip.compress(b"one") + gzip.compress(b"member more")
    data = framed(gzip.compress(b"x" * 100_000), 1) + framed(b"") + framed(b"", 1) + framed(two, 1)

    async def scenario() -> bytes:
        answer = await world.ask("Any", *cut(data, 5), port=world.raw_port, headers=[GZIP])
        return await answer.body.read()

    assert run(scenario()) == framed(b"ok")
    assert bytes(world.raw.requests[0].body) == data


BOMB = gzip.compress(bytes(33 * 1024 * 1024))


@pytest.mark.parametrize(
    ("data", "coding"),
    [
        (framed(gzip.compress(b"abc", mtime=0), 1), b"identity"),
        (framed(b"\xff\x06\0\0sNaPpY", 1), b"snappy"),
        (framed(b"no gzip", 1), b"gzip"),
        (framed(gzip.compress(b"abc", mtime=0)[:-3], 1), b"gzip"),
        (framed(gzip.compress(b"abc", mtime=0) + b"more", 1), b"gzip"),
        (framed(gzip.compress(b"abc", mtime=0), 1)[:-3], b"gzip"),
        (b"\1\x7f\0\0\0abc", b"gzip"),
        (framed(BOMB, 1), b"gzip"),
        (framed(b"abc", 7), b"gzip"),
    ],
)
def test_messages_of_a_client_that_cannot_be_looked_into_do_not_leave(world: World, run, data, coding) -> None:
    world.raw.say = answering(framed(b"ok"))
    world.raw.requests.clear()

    async def scenario() -> None:
        with pytest.raises(KeyholeError) as caught:
            await world.ask("Any", data, port=world.raw_port, headers=[(b"grpc-encoding", coding)])
        assert caught.value.code == "invalid_request"

    run(scenario())
    assert all(not asked.body for asked in world.raw.requests)


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


# Through the proxy, with grpcio's own client.


@contextlib.asynccontextmanager
async def channel(world: World, token: str, port: int = 0):
    stack = world.stack
    ca = (await stack.ask("read", "sys/keyhole"))["ca"].encode()
    host, at = stack.address
    options = [("grpc.http_proxy", f"http://agent:{token}@{host}:{at}"), ("grpc.enable_retries", 0)]
    target = f"{HOST}:{port or world.port}"
    made = await asyncio.to_thread(grpc.secure_channel, target, grpc.ssl_channel_credentials(ca), options)
    try:
        yield made
    finally:
        await asyncio.to_thread(made.close)


def test_a_client_of_grpc_calls_through_the_proxy_in_every_way(world: World, run) -> None:
    def talk(made) -> dict[str, object]:
        echo, trailing = made.unary_unary("/test.Test/Echo").with_call(b"hi ", timeout=20)
        counted = list(made.unary_stream("/test.Test/Count")(b"50", timeout=20))
        talked = list(made.stream_stream("/test.Test/Talk")(iter([b"a ", b"b "]), timeout=20))
        packed = list(made.unary_stream("/test.Test/Packed")(b"!", timeout=20))
        return {
            "echo": echo,
            "more": dict(trailing.trailing_metadata())["x-more-bin"],
            "head": dict(trailing.initial_metadata())["x-echo-bin"],
            "counted": len(counted),
            "talked": talked,
            "packed": packed[1],
        }

    async def scenario() -> dict[str, object]:
        async with channel(world, world.token) as made:
            return await asyncio.to_thread(talk, made)

    hidden = b"*" * len(VALUE)
    assert run(scenario()) == {
        "echo": b"hi Bearer " + hidden,
        "more": b"\0" + hidden,
        "head": b"<Bearer " + hidden + b">",
        "counted": 50,
        "talked": [b"hello", b"a Bearer " + hidden, b"b Bearer " + hidden],
        "packed": (b"Bearer " + hidden) * 10 + b"!",
    }
    assert world.service.seen[-1]["authorization"] == f"Bearer {SECRET}"


def test_a_talk_of_a_thousand_messages_each_way_keeps_their_order(world: World, run) -> None:
    def talk(made) -> list[bytes]:
        messages = (b"%d " % number for number in range(1000))
        return list(made.stream_stream("/test.Test/Talk")(messages, timeout=30))

    async def scenario() -> list[bytes]:
        async with channel(world, world.token) as made:
            return await asyncio.to_thread(talk, made)

    hidden = b"*" * len(VALUE)
    assert run(scenario()) == [b"hello", *(b"%d Bearer %b" % (number, hidden) for number in range(1000))]


def failure(call) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def test_a_client_of_grpc_is_told_in_its_own_words_why_not(world: World, run) -> None:
    async def scenario() -> list[grpc.RpcError]:
        await world.stack.service(
            "grpc-narrow", hosts=[f"{HOST}:{world.port}"], paths=["/test.Test/*"], deny_paths=["/test.Test/Count"]
        )
        narrow = await world.stack.agent("grpc-narrow", "grpc-narrow")
        found = []
        async with channel(world, world.token) as made:
            for method in ("Fail", "Nothing"):
                call = functools.partial(made.unary_unary(f"/test.Test/{method}"), b"", timeout=20)
                found.append(await asyncio.to_thread(failure, call))
        async with channel(world, narrow) as made:
            call = functools.partial(made.unary_unary("/test.Test/Count"), b"1", timeout=20)
            found.append(await asyncio.to_thread(failure, call))
        return found

    own, unknown, denied = run(scenario())
    assert (own.code(), own.details()) == (
        grpc.StatusCode.NOT_FOUND,
        f"no such thing for Bearer {'*' * len(VALUE)}",
    )
    assert unknown.code() is grpc.StatusCode.UNIMPLEMENTED
    assert denied.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "denies" in denied.details()
    assert dict(denied.trailing_metadata())["x-keyhole-error"] == "policy_denied"


def test_a_client_of_grpc_that_cancels_ends_the_call_at_the_upstream(world: World, run) -> None:
    world.service.waiting.clear()
    world.service.cancelled.clear()

    async def scenario() -> None:
        async with channel(world, world.token) as made:
            call = await asyncio.to_thread(made.unary_unary("/test.Test/Wait").future, b"", timeout=20)
            await until(world.service.waiting.is_set)
            call.cancel()
            await until(world.service.cancelled.is_set)

    run(scenario())
