"""With every logger at its loudest, no log, trace or error has a value or a token in it."""

from __future__ import annotations

import logging
import traceback

import pytest

from broker.stack import HOST, SECRET, Stack
from keyhole.core.errors import KeyholeError
from keyhole.logs import LogScrubber


def told(record: logging.LogRecord) -> str:
    """Everything that any formatter could make of a record."""
    error = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
    return f"{record.getMessage()} {record.__dict__!r} {error}"


@pytest.fixture
def everything():
    """All records of all loggers, those of asyncio at work among them."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler(1)
    handler.emit = records.append  # type: ignore[method-assign]  # a list is all that it is
    root = logging.getLogger()
    loud = [root, *(logging.getLogger(name) for name in list(logging.root.manager.loggerDict))]
    before = [(each, each.level, each.disabled) for each in loud]
    for each in loud:
        each.setLevel(1)
        each.disabled = False
    root.addHandler(handler)
    yield records
    root.removeHandler(handler)
    for each, level, disabled in before:
        each.setLevel(level)
        each.disabled = disabled


def test_no_value_and_no_token_is_in_any_log_at_the_loudest(stack: Stack, run, everything) -> None:
    async def work() -> list[str]:
        await stack.secret("loud/key", SECRET)
        await stack.service("loud", secret="loud/key", inject={"kind": "bearer"})
        token = await stack.agent("loud", "loud")
        echo = b"HTTP/1.1 200 OK\r\nX-Echo: %b\r\nContent-Length: %d\r\n\r\n%b"
        stack.upstream.say = [echo % (SECRET.encode(), len(SECRET), SECRET.encode())]
        assert (await stack.get(token)).status == 200
        for damaged in (
            [b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(SECRET), SECRET.encode()],
            [b"HTTP/1.1 2" + SECRET.encode() + b"\r\n\r\n"],
            [],
        ):
            stack.upstream.say = damaged
            assert (await stack.get(token)).status in {502, 504}
        reply, (_, writer) = await stack.connect("hvs." + "n" * 60, f"{HOST}:{stack.secure}")
        assert reply.status == 407
        writer.close()
        with pytest.raises(KeyholeError) as refused:
            await stack.ask("read", "secret/data/loud/none")
        assert SECRET not in "".join(traceback.format_exception(refused.value))
        return [SECRET, token]

    values = run(work())
    scrubber = LogScrubber(values, fetched=False, shapes=False)
    assert not [told(record) for record in everything if scrubber.is_known(told(record))]
    logging.getLogger("keyhole.broker").debug("what would be a mistake: %s", SECRET)
    assert scrubber.is_known(told(everything[-1])), "a mistake would be seen"
