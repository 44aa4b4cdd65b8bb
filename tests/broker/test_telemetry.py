"""Spans: what the door and the road say of a call to OpenTelemetry, where the environment asks for it."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from broker.stack import HOST, SECRET, Stack, until
from keyhole import app, telemetry
from keyhole.broker.broker import Broker
from keyhole.core.errors import KeyholeError
from keyhole.vault.vault import Vault

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01".encode()
LINES = b"traceparent: " + PARENT + b"\r\ntracestate: a=1\r\nX-Keyhole-Context: run=r1;step=charge\r\n"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What is exported by a process whose environment asks for spans."""
    exporter = InMemorySpanExporter()
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.setattr(telemetry, "exporters_of", lambda _environ: [exporter])
    return exporter


def spans(stack: Stack, sent: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    """The spans of what was done since the last look, by name."""
    assert stack.keyhole.spans is not None
    stack.keyhole.spans.provider.force_flush()
    found = {span.name: span for span in sent.get_finished_spans()}
    sent.clear()
    return found


async def furnished(stack: Stack) -> str:
    await stack.secret("stripe/key")
    await stack.service("stripe")
    return await stack.agent("coder", "stripe", workflow="nightly", on_behalf_of="alice@example.com")


def said(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def broken_off(_request: Any, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
    writer.close()


def id_of(number: int, digits: int) -> str:
    return f"{number:0{digits}x}"


def test_a_call_is_a_trace_with_its_run_and_without_any_value(sent: InMemorySpanExporter) -> None:
    async def scenario() -> None:
        async with Stack() as stack:
            token = await furnished(stack)
            spans(stack, sent)
            reply = await stack.get(token, "/v1/x?key=hidden-parameter", headers=LINES)
            assert reply.status == 200
            found = spans(stack, sent)
            assert set(found) == {"keyhole.call", "GET", "keyhole.use", "keyhole.lend"}
            assert {id_of(span.context.trace_id, 32) for span in found.values()} == {TRACE}
            parents = {name: span.parent and id_of(span.parent.span_id, 16) for name, span in found.items()}
            own = {name: id_of(span.context.span_id, 16) for name, span in found.items()}
            assert parents == {
                "keyhole.call": SPAN,
                "GET": own["keyhole.call"],
                "keyhole.use": own["GET"],
                "keyhole.lend": own["keyhole.use"],
            }
            run = {
                "keyhole.agent": "agent/coder", "keyhole.org": "root", "keyhole.workflow": "nightly",
                "keyhole.run": "r1", "keyhole.step": "charge", "keyhole.on_behalf_of": "alice@example.com",
            }  # fmt: skip
            for name in ("keyhole.call", "GET", "keyhole.use"):
                assert run.items() <= said(found[name]).items()
                assert said(found[name])["keyhole.outcome"] == "ok"
            assert said(found["GET"]).items() >= {
                "http.request.method": "GET", "http.response.status_code": 200, "server.address": HOST,
                "server.port": stack.secure, "url.full": f"https://{HOST}:{stack.secure}/v1/x", "url.scheme": "https",
                "keyhole.service": "stripe",
            }.items()  # fmt: skip
            assert said(found["keyhole.use"])["keyhole.secrets"] == ("stripe/key",)
            everything = " ".join(span.to_json() for span in found.values())
            assert SECRET not in everything
            assert token not in everything
            assert "hidden-parameter" not in everything
            [request] = stack.upstream.requests
            assert request.values(b"traceparent") == [f"00-{TRACE}-{own['GET']}-01".encode()]
            assert request.values(b"tracestate") == [b"a=1"]
            [*_, record] = await stack.records(service="stripe")
            assert (record["trace"], record["span"]) == (TRACE, own["keyhole.call"])

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_refusals_and_failures_say_their_code_and_a_call_without_a_trace_begins_one(sent: InMemorySpanExporter) -> None:
    async def scenario() -> None:
        async with Stack() as stack:
            token = await furnished(stack)
            await stack.ask("delete", "agents/coder/services/stripe")
            spans(stack, sent)
            with pytest.raises(KeyholeError):
                await stack.ask("read", "secret/data/stripe/key", token=token)
            found = spans(stack, sent)["keyhole.handle"]
            assert said(found).items() >= {
                "keyhole.outcome": "policy_denied", "error.type": "policy_denied", "keyhole.agent": "agent/coder",
                "keyhole.path": "secret/data/stripe/key", "keyhole.operation": "read",
            }.items()  # fmt: skip
            assert not found.events
            await stack.ask("update", "agents/coder/services/stripe")
            stack.upstream.say = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
            assert (await stack.get(token)).status == 500
            failed = spans(stack, sent)["GET"]
            assert (said(failed)["error.type"], failed.status.is_ok) == ("500", False)
            assert stack.upstream.last.values(b"traceparent") == []
            records = (await stack.ask("read", "sys/audit-log", {"trace": id_of(failed.context.trace_id, 32)}))[
                "records"
            ]
            assert {record["status"] for record in records if record["phase"] == "outcome"} == {500}

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_the_span_of_a_call_ends_with_its_answer_and_says_where_the_time_went(sent: InMemorySpanExporter) -> None:
    async def scenario() -> None:
        async with Stack() as stack:
            token = await furnished(stack)
            await stack.service("stripe", deny_paths=["/denied"])
            spans(stack, sent)
            go_on = asyncio.Event()

            async def slowly(_request: Any, writer: asyncio.StreamWriter) -> None:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
                await go_on.wait()
                writer.write(b"cd")

            stack.upstream.say = slowly
            asking = asyncio.create_task(stack.get(token))
            await until(lambda: any(flow.flowing for flow in stack.keyhole.broker._resources.live))
            assert "keyhole.call" not in spans(stack, sent)
            go_on.set()
            assert (await asking).body == b"abcd"
            await until(lambda: not len(stack.keyhole.broker._resources.live))
            call = said(spans(stack, sent)["keyhole.call"])
            for stage in ("vault", "connect", "upstream", "scrub"):
                assert call[f"keyhole.seconds.{stage}"] > 0
            assert "keyhole.seconds.queue" not in call
            assert (await stack.get(token, "/denied")).code == "policy_denied"
            assert said(spans(stack, sent)["keyhole.call"])["keyhole.outcome"] == "policy_denied"
            stack.upstream.say = broken_off
            await stack.get(token)
            await until(lambda: not len(stack.keyhole.broker._resources.live))
            call = said(spans(stack, sent)["keyhole.call"])
            assert (call["keyhole.outcome"], call["http.response.status_code"]) == ("upstream_unreachable", 200)

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_nothing_is_there_unless_the_environment_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)

    async def scenario() -> None:
        keyhole, _ = await app.open_ephemeral(app.Config())
        assert (keyhole.spans, type(keyhole.broker), type(keyhole.node.vault)) == (None, Broker, Vault)
        await keyhole.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("environ", "warned"),
    [
        ({"OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({"OTEL_TRACES_EXPORTER": "no-such-exporter"}, True),
    ],
)
def test_what_cannot_be_sent_is_not_made(
    caplog: pytest.LogCaptureFixture, environ: dict[str, str], warned: bool
) -> None:
    assert app._spans(environ) is None
    assert ("keyhole[otel]" in caplog.text) is warned


def test_without_the_library_a_vault_is_served_all_the_same(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "keyhole.telemetry", None)
    assert app._spans({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}) is None
    assert "pip install 'keyhole[otel]'" in caplog.text
