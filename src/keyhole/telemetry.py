"""OpenTelemetry: spans of what a vault is asked, of what it lends, and of calls to upstreams.

Nothing of this is there unless the environment asks for it, by OpenTelemetry's own variables, when a vault is
assembled; then door and road are these subclasses, which do the same and are watched. A span says what the record says
and no more: names, never a value, and of a URL no query.

    keyhole.call   a call, to the end of its answer         SERVER
      METHOD       its way to the upstream and the head     CLIENT, by the conventions for HTTP
        keyhole.use      decided, recorded, opened          INTERNAL
          keyhole.lend   the secrets of the service         INTERNAL
    keyhole.handle  anything else that is asked              SERVER
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import entry_points
from typing import Any, Unpack

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from keyhole import __version__
from keyhole.broker.broker import Broker
from keyhole.broker.resources import Resources
from keyhole.broker.transaction import Transaction
from keyhole.core.errors import InternalError, KeyholeError
from keyhole.core.identity import Caller
from keyhole.core.message import Answer, Call, Headers
from keyhole.core.record import clip
from keyhole.core.request import Reply, Request
from keyhole.core.stated import Stated
from keyhole.core.timing import STAGES, Timing
from keyhole.core.trace import Trace
from keyhole.vault.asked import Asked
from keyhole.vault.compiled import OrgState
from keyhole.vault.lending import Lent
from keyhole.vault.recording import About
from keyhole.vault.vault import Vault

_GROUP = "opentelemetry_traces_exporter"
_PARENT = b"traceparent"
_log = logging.getLogger("keyhole")


class Spans:
    """Makes spans and sends them.

    Args:
        exporters: where they go.
    """

    def __init__(self, exporters: list[SpanExporter]) -> None:
        named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        own = {"service.version": __version__} if named else {"service.name": "keyhole", "service.version": __version__}
        self.provider = TracerProvider(resource=Resource.create(own))
        for exporter in exporters:
            self.provider.add_span_processor(BatchSpanProcessor(exporter))
        self.tracer = self.provider.get_tracer("keyhole", __version__)

    def vault(self, *parts: Any) -> Vault:
        """A vault whose door is watched."""
        return TracedVault(self.tracer, *parts)

    def broker(self, *parts: Any, **options: Any) -> Broker:
        """A road that is watched."""
        return TracedBroker(self.tracer, *parts, **options)

    async def close(self) -> None:
        """Send what is left."""
        await asyncio.to_thread(self.provider.shutdown)


def open_spans(environ: Mapping[str, str]) -> Spans | None:
    """Spans for the exporters that an environment names; ``None`` where none of them is here, which is logged."""
    found = exporters_of(environ)
    return Spans(found) if found else None


def exporters_of(environ: Mapping[str, str]) -> list[SpanExporter]:
    """By ``OTEL_TRACES_EXPORTER`` and ``OTEL_EXPORTER_OTLP_[TRACES_]PROTOCOL``; each reads its own variables."""
    found: list[SpanExporter] = []
    for name in (environ.get("OTEL_TRACES_EXPORTER") or "otlp").split(","):
        if name.strip() == "console":
            found.append(ConsoleSpanExporter(out=sys.stderr))  # the other stream has the results of commands
        elif name.strip() not in {"", "none"}:
            found += _loaded(_entry(name.strip(), environ))
    return found


def _entry(name: str, environ: Mapping[str, str]) -> str:
    if name != "otlp":
        return name
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or ""
    return "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"


def _loaded(name: str) -> list[SpanExporter]:
    for entry in entry_points(group=_GROUP, name=name):
        try:
            return [entry.load()()]
        except Exception as error:  # noqa: BLE001 - a vault is served without its spans, too
            _log.warning("no spans are sent: the exporter %s fails: %s", name, type(error).__name__)
            return []
    _log.warning("no spans are sent: the exporter %s is not installed: pip install 'keyhole[otel]'", name)
    return []


@contextmanager
def _span(
    tracer: Tracer,
    name: str,
    attributes: Mapping[str, Any],
    kind: SpanKind = SpanKind.INTERNAL,
    parent: Trace | None = None,
    *,
    ends: bool = True,
) -> Iterator[Span]:
    """A span that is current for the block, below the one that is current now unless a parent is said.

    It ends with the block, unless that is said not to.
    """
    context = None
    if parent is not None:
        flags = trace.TraceFlags(int(parent.flags, 16))
        known = trace.SpanContext(int(parent.trace, 16), int(parent.span, 16), is_remote=True, trace_flags=flags)
        context = trace.set_span_in_context(trace.NonRecordingSpan(known))
    # What an exception says stays here: the code of the error is enough.
    with tracer.start_as_current_span(
        name,
        context,
        kind,
        attributes,
        record_exception=False,
        set_status_on_exception=False,
        end_on_exit=ends,
    ) as span:
        try:
            yield span
        except BaseException as error:
            _fail(span, error.code if isinstance(error, KeyholeError) else _other(error))
            raise


def _other(error: BaseException) -> str:
    return InternalError.code if isinstance(error, Exception) else "aborted"


def _fail(span: Span, code: str) -> None:
    span.set_attributes({"error.type": code, "keyhole.outcome": code})
    span.set_status(Status(StatusCode.ERROR, code))


def _stated(stated: Stated | None, span: Span) -> Stated | None:
    """What a request says, with the span in the place of where it came from: the record names the span."""
    known = span.get_span_context()
    if not known.is_valid:
        return stated
    here = Trace(f"{known.trace_id:032x}", f"{known.span_id:016x}", f"{known.trace_flags:02x}")
    return (stated or Stated())._replace(trace=here)


def _about(caller: Caller) -> dict[str, Any]:
    """Who asks and for what work, in the fields of the record."""
    run = caller.run
    fields = {"agent": caller.name, "org": caller.org, "workflow": run.workflow, "run": run.run, "step": run.step}
    fields |= {"tool": run.tool, "on_behalf_of": run.on_behalf_of}
    return {f"keyhole.{name}": text for name, text in fields.items() if text}


class TracedVault(Vault):
    """A door that is watched.

    Args:
        tracer: makes the spans.
        parts: as ``Vault``.
    """

    def __init__(self, tracer: Tracer, *parts: Any) -> None:
        super().__init__(*parts)
        self._tracer = tracer

    async def handle(self, request: Request) -> Reply:
        """As ``Vault.handle``."""
        parent = request.stated.trace if request.stated is not None else None
        said = {"keyhole.operation": request.operation.value, "keyhole.path": clip(request.path)}
        with _span(self._tracer, "keyhole.handle", said, SpanKind.SERVER, parent) as span:
            reply = await super().handle(request.but(stated=_stated(request.stated, span)))
            span.set_attributes({"keyhole.outcome": "ok", "keyhole.request_id": reply.request_id})
            return reply

    async def _dispatch(self, state: OrgState, caller: Caller, asked: Asked) -> Reply:
        trace.get_current_span().set_attributes(_about(caller))
        return await super()._dispatch(state, caller, asked)

    async def record_refusal(
        self, state: OrgState, caller: Caller, request: Request, error: KeyholeError, **about: Unpack[About]
    ) -> None:
        """As ``Vault.record_refusal``."""
        trace.get_current_span().set_attributes({**_about(caller), "keyhole.request_id": request.id})
        await super().record_refusal(state, caller, request, error, **about)

    async def begin_use(self, *args: Any, **options: Any) -> Lent:
        """As ``Vault.begin_use``."""
        _, caller, request, path = args[:4]
        said = {**_about(caller), "keyhole.service": path.partition("/")[2]}
        with _span(self._tracer, "keyhole.use", said) as span:
            lent = await super().begin_use(*args, **options)
            span.set_attributes({"keyhole.secrets": lent.intent.record().secrets, "keyhole.outcome": "ok"})
            span.set_attribute("keyhole.request_id", request.id)
            return lent

    async def _lend(self, *args: Any, **options: Any) -> Any:
        with _span(self._tracer, "keyhole.lend", {}):
            return await super()._lend(*args, **options)


class TracedBroker(Broker):
    """A road that is watched.

    Args:
        tracer: makes the spans.
        parts: as ``Broker``, as are ``options``.
    """

    def __init__(self, tracer: Tracer, *parts: Any, **options: Any) -> None:
        super().__init__(*parts, **options)
        self._tracer = tracer
        self._begin = partial(TracedTransaction, tracer, self._resources)

    async def handle(self, call: Call) -> Answer:
        """As ``Broker.handle``."""
        parent = call.stated.trace if call.stated is not None else None
        said = {"http.request.method": clip(call.method), "server.address": call.host, "server.port": call.port}
        whole: _Whole | None = None
        try:
            with _span(self._tracer, "keyhole.call", said, SpanKind.SERVER, parent, ends=False) as span:
                whole = _Whole(span, call.timing)
                answer = await super().handle(replace(call, stated=_stated(call.stated, span)))
                span.set_attributes({"http.response.status_code": answer.status, "keyhole.outcome": "ok"})
        except BaseException:
            if whole is not None:
                whole.end()
            raise
        whole.returned()
        return answer


class TracedTransaction(Transaction):
    """A call that is watched.

    Args:
        tracer: makes the spans.
        resources, call: as ``Transaction``.
    """

    __slots__ = ("_tracer",)

    def __init__(self, tracer: Tracer, resources: Resources, call: Call) -> None:
        super().__init__(resources, call)
        self._tracer = tracer

    async def forward(self) -> Answer:
        """As ``Transaction.forward``."""
        with self._upstream() as span:
            if self.match.service is not None:
                span.set_attribute("keyhole.service", self.match.service.name)
            return _heard(span, await super().forward())

    @contextmanager
    def _upstream(self) -> Iterator[Span]:
        """A client's span (OpenTelemetry's conventions for HTTP); an upstream that was to get a trace gets this one."""
        caller, request, call = self.caller, self.request, self.call
        trace.get_current_span().set_attributes({**_about(caller), "keyhole.request_id": request.id})
        host = f"[{call.host}]" if ":" in call.host else call.host
        url = f"{call.scheme}://{host}:{call.port}{request.data.get('target', '')}"
        said = {
            **_about(caller),
            "http.request.method": clip(call.method),
            "url.full": url,
            "url.scheme": call.scheme,
            "server.address": call.host,
            "server.port": call.port,
        }
        with _span(self._tracer, clip(call.method), said, SpanKind.CLIENT) as span:
            self.message.headers = _below(span, self.message.headers)
            yield span


class _Whole:
    """A call's own span, which ends when the head of its answer was given and the call has come to its end.

    Args:
        span: of the call.
        timing: of the same.
    """

    def __init__(self, span: Span, timing: Timing) -> None:
        self._span = span
        self._timing = timing
        self._code: str | None = None
        self._returned = False
        timing.then = self._ended

    def _ended(self, code: str) -> None:
        self._code = code
        if self._returned:
            self.end()

    def returned(self) -> None:
        """The head of the answer is there."""
        self._returned = True
        if self._code is not None:
            self.end()

    def end(self) -> None:
        """Say how it went and how long each stage took."""
        self._timing.then = None
        seconds = {stage: getattr(self._timing, stage) for stage in STAGES}
        self._span.set_attributes({f"keyhole.seconds.{stage}": took for stage, took in seconds.items() if took})
        if self._returned and self._code not in {None, "ok"}:
            _fail(self._span, str(self._code))
        self._span.end()


def _heard(span: Span, answer: Answer) -> Answer:
    span.set_attributes({"http.response.status_code": answer.status, "keyhole.outcome": "ok"})
    if answer.status >= 400:
        span.set_attribute("error.type", str(answer.status))
        span.set_status(Status(StatusCode.ERROR))
    return answer


def _below(span: Span, headers: Headers) -> Headers:
    """Headers whose ``traceparent`` is the span, where they had one that counts; ``tracestate`` stays (W3C, 3.3.1)."""
    known = Stated.of_headers(headers)
    here = _stated(None, span)
    if known is None or known.trace is None or here is None:
        return headers
    text = str(here.trace).encode()
    return [(name, text if name == _PARENT else value) for name, value in headers]
