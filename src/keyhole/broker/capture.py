"""Captures: what calls looked like, for an operator who looks for a fault. Never a body, never a value.

1. A capture is switched on by an operator for a limited time, holds a bounded number of calls in memory, and is
   forgotten when its time is over and when the vault is sealed.
2. What it says of a request was said by the client, before anything was injected; what it says of an answer is what
   the client was given, scrubbed. Of a query and of headers only the names are kept, and the values of few headers.
3. Values of secrets that a client sent itself are masked when a call is noted, and again when it is read.
4. While none is on, a call knows nothing of all this.
5. Of several processes that serve together each notes its own calls, and the one where a capture was begun fetches
   those of the others when it is read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Unpack, cast

from keyhole.broker.errand import OPERATION as MINT
from keyhole.broker.lease import Lease
from keyhole.core.errors import InvalidRequest, KeyholeError, NotFound
from keyhole.core.identity import Caller
from keyhole.core.message import Answer, Body, Call, Headers
from keyhole.core.record import Intent, Record
from keyhole.core.request import Request
from keyhole.core.times import format_time
from keyhole.scrub import Scrubber
from keyhole.vault.compiled import OrgState
from keyhole.vault.keys import new_id
from keyhole.vault.lending import Lent
from keyhole.vault.recording import About, refusal_of
from keyhole.vault.vault import Vault

CALLS = 1000
"""Calls that one capture holds; the oldest make room."""
MOST = 16
"""Captures at once on a node."""
_NAMES = 64  # headers of one message
_LONG = 256  # characters of a header's name or value
# Headers whose values are kept. None of them carries a credential, in a message that is what it should be.
_SHOWN = frozenset(
    b"accept accept-charset accept-encoding accept-language accept-ranges age allow cache-control connection"
    b" content-encoding content-language content-length content-type date expect expires host last-modified pragma"
    b" retry-after server transfer-encoding upgrade user-agent vary x-ratelimit-limit x-ratelimit-remaining"
    b" x-ratelimit-reset".split()
)
_FIELDS = ("id", "accessor", "operation", "service", "host", "method", "target", "approval", "result", "path")

Masking = Callable[[str], Scrubber | None]
"""The scrubber for what an org's secrets are, by the id of the org, as far as it is known now."""


@dataclass(slots=True)
class Trace:
    """One call on its way. Times are of the event loop, 0 for what has not come.

    Attributes:
        private: the call shows its caller's token, so that nothing is kept that may hold it.
        errand: when a request of the injection's own began.
    """

    call: Call
    started: float
    at: float
    private: bool
    headers: list[list[str]]
    injection: str = ""
    lent: float = 0.0
    asked: float = 0.0
    connected: float = 0.0
    fresh: bool = False
    sent: float = 0.0
    size: int = 0
    errand: float = 0.0
    head: float = 0.0
    answered: list[list[str]] = field(default_factory=list)
    org_id: str = ""
    entry: dict[str, Any] | None = None

    def timings(self, end: float) -> dict[str, float]:
        """Milliseconds of each part; -1 for one that there was not."""
        lent, head = self.lent or self.connected or end, self.head
        if not self.connected:
            return {"decide": _ms(lent - self.at), "connect": -1, "send": 0, "wait": _ms(end - lent), "receive": 0}
        sent = max(self.sent, self.connected)
        return {
            "decide": _ms(lent - self.at),
            "connect": _ms(self.connected - self.asked) if self.fresh else -1,
            "send": _ms(sent - self.connected),
            "wait": _ms((head or end) - sent),
            "receive": _ms(end - head) if head else 0,
        }


_TRACE: ContextVar[Trace | None] = ContextVar("keyhole_trace", default=None)


class TimedLease(Lease):
    """A lease that says when its connection was there. Where no call is noted it is like any other."""

    __slots__ = ()

    async def _obtain(self) -> Any:
        trace = _TRACE.get()
        if trace is None:
            return await super()._obtain()
        asked = asyncio.get_running_loop().time()
        connection = await super()._obtain()
        key = self._origin.key
        if isinstance(key, tuple) and key[-1] == MINT:
            trace.errand = asked
        else:
            trace.asked, trace.connected = asked, asyncio.get_running_loop().time()
            trace.fresh = not connection.used
        return connection


class _CountedBody:
    """The client's body, counted."""

    __slots__ = ("_body", "_trace", "length")

    def __init__(self, body: Body, trace: Trace) -> None:
        self._body = body
        self._trace = trace
        self.length = body.length

    @property
    def trailers(self) -> Headers:
        return self._body.trailers

    async def read(self) -> bytes:
        chunk = await self._body.read()
        self._trace.size += len(chunk)
        self._trace.sent = asyncio.get_running_loop().time()
        return chunk


class _Witness:
    """The door, as a call that is noted sees it: the same, but for what is noted of it."""

    def __init__(self, vault: Vault, trace: Trace, captures: Captures) -> None:
        self._vault = vault
        self._trace = trace
        self._captures = captures

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vault, name)

    async def begin_use(self, state: OrgState, caller: Caller, request: Request, path: str, **how: Any) -> Lent:
        def failed(error: KeyholeError) -> None:
            self._captures.add(state.org.id, refusal_of(caller, request, error, path=path), self._trace)

        def recorded(durable: asyncio.Future[None]) -> None:
            self._trace.lent = asyncio.get_running_loop().time()
            if not durable.cancelled() and isinstance(error := durable.exception(), KeyholeError):
                failed(error)

        try:
            lent = await self._vault.begin_use(state, caller, request, path, **how)
        except KeyholeError as error:
            failed(error)
            raise
        lent.durable.add_done_callback(recorded)
        self._trace.injection = lent.service.inject.describe()
        return lent

    async def record_refusal(
        self, state: OrgState, caller: Caller, request: Request, error: KeyholeError, **about: Unpack[About]
    ) -> None:
        await self._vault.record_refusal(state, caller, request, error, **about)
        self._captures.add(state.org.id, refusal_of(caller, request, error, **about), self._trace)

    def conclude(self, state: OrgState, intent: Record | Intent, result: str, **fields: int) -> None:
        self._vault.conclude(state, intent, result, **fields)
        record = intent.record() if isinstance(intent, Intent) else intent
        self._captures.add(state.org.id, record, self._trace, result=result, **fields)


@dataclass(slots=True)
class Capture:
    """One that is on.

    Attributes:
        accessor: of the token whose calls are kept; empty for all of the org.
        until: loop time of its end.
        home: number of the process that numbers its calls.
        count: calls noted so far.
    """

    id: str
    org_id: str
    accessor: str
    until: float
    home: int = 0
    calls: deque[tuple[int, dict[str, Any]]] = field(default_factory=lambda: deque(maxlen=CALLS))
    count: int = 0

    def note(self, entry: dict[str, Any]) -> None:
        """Hold a call, with the next number."""
        self.count += 1
        self.calls.append((self.count, entry))

    def take(self) -> list[dict[str, Any]]:
        """What is held, which then is held no longer."""
        taken = [entry for _, entry in self.calls]
        self.calls.clear()
        return taken


class Captures:
    """All captures of an open vault.

    Args:
        now: seconds since the epoch.
        masking: finds values.
        switch: called with this object when the first capture begins, and with ``None`` when the last one ended.
    """

    lease = TimedLease

    def __init__(self, now: Callable[[], float], masking: Masking, switch: Callable[[Captures | None], None]) -> None:
        self._now = now
        self._masking = masking
        self._switch = switch
        self._on: dict[str, Capture] = {}

    def begin(self, org_id: str, accessor: str, seconds: float, *, name: str = "", home: int = 0) -> Capture:
        """Switch one on, or the part here of one that process ``home`` has. Raises ``InvalidRequest`` for too many."""
        if len(self._on) >= MOST:
            raise InvalidRequest(
                f"{MOST} captures are on already", "wait until one ends, or end it: DELETE sys/capture/ID"
            )
        capture = Capture(name or new_id(), org_id, accessor, 0.0, home)
        self._on[capture.id] = capture
        self.prolong(capture, seconds)
        self._switch(self)
        return capture

    def prolong(self, capture: Capture, seconds: float) -> None:
        """Let it end so many seconds from now."""
        loop = asyncio.get_running_loop()
        capture.until = loop.time() + seconds
        loop.call_at(capture.until, self._end_overdue)

    def get(self, org_id: str, name: str) -> Capture:
        """The capture of an org. Raises ``NotFound``."""
        found = self._on.get(name)
        if found is None or found.org_id != org_id:
            raise NotFound("there is no such capture on this node", "it has ended; begin another: POST sys/capture")
        return found

    def on(self) -> list[Capture]:
        """All that are on."""
        return list(self._on.values())

    def of(self, org_id: str) -> list[Capture]:
        """Those of an org."""
        return [capture for capture in self._on.values() if capture.org_id == org_id]

    def end(self, capture: Capture) -> None:
        """Forget it."""
        self._on.pop(capture.id, None)
        if not self._on:
            self._switch(None)

    def forget(self) -> None:
        """Forget all."""
        self._on.clear()

    def _end_overdue(self) -> None:
        now = asyncio.get_running_loop().time()
        for capture in [each for each in self._on.values() if each.until <= now]:
            self.end(capture)

    async def watch(
        self, vault: Vault, call: Call, make: Callable[[Vault], Awaitable[Answer]], *, private: bool
    ) -> Answer:
        """Make a call and note it.

        Args:
            vault: open.
            call: what is asked; its body is counted.
            make: makes it over the door that it is given. Raises the refusal.
            private: nothing of the client's may be kept that could hold its token.
        """
        at = asyncio.get_running_loop().time()
        headers = [] if private else _headers(call.headers)
        trace = Trace(call, self._now(), at, private, headers)
        if call.body is not None:
            call.body = _CountedBody(call.body, trace)
        token = _TRACE.set(trace)
        try:
            answer = await make(cast("Vault", _Witness(vault, trace, self)))
        except KeyholeError as error:
            if trace.entry is not None:
                trace.entry["reason"] = error.reason
                trace.entry["response"]["status"] = trace.entry["response"]["status"] or error.status
            raise
        finally:
            _TRACE.reset(token)
        trace.head = asyncio.get_running_loop().time()
        trace.answered = _headers(answer.headers)
        if trace.entry is not None:  # an answer without a body has ended before it was given
            trace.entry["response"]["headers"] = masked(trace.answered, self._masking(trace.org_id))
        return answer

    def refused_tunnel(self, state: OrgState, caller: Caller, request: Request, error: KeyholeError) -> None:
        """Note a CONNECT that was refused."""
        host, _, port = str(request.data["host"]).rpartition(":")
        call = Call(b"", "https", host, int(port), "CONNECT", b"", [])
        trace = Trace(call, self._now(), asyncio.get_running_loop().time(), private=True, headers=[])
        self.add(state.org.id, refusal_of(caller, request, error), trace)
        if trace.entry is not None:
            trace.entry["reason"] = error.reason
            trace.entry["response"]["status"] = error.status

    def add(self, org_id: str, record: Record, trace: Trace, *, result: str = "", **numbers: int) -> None:
        """Note how a call ended, or a request of its injection's own."""
        wanted = [each for each in self.of(org_id) if each.accessor in {"", record.accessor}]
        if not wanted:
            return
        own = record.operation == MINT
        end = asyncio.get_running_loop().time()
        known = {name: getattr(record, name) for name in _FIELDS}
        entry: dict[str, Any] = {
            **known,
            "started": format_time(trace.started + (trace.errand - trace.at if own and trace.errand else 0.0)),
            "agent": record.caller,
            "scheme": "https" if own else trace.call.scheme,
            "parameters": list(record.parameters),
            "injection": "" if own else trace.injection,
            "result": result or record.result,
            "reason": "",
            "masked": bool(numbers.get("scrubbed")),
            "request": {
                "headers": [] if own else trace.headers,
                "size": 0 if own else trace.size + numbers.get("sent", 0),
            },
            "response": {
                "headers": [] if own else trace.answered,
                "status": numbers.get("status", 0),
                "size": numbers.get("received", 0),
            },
            "timings": _errand(end - (trace.errand or end)) if own else trace.timings(end),
        }
        entry = masked(entry, self._masking(org_id))
        if not own:
            trace.entry, trace.org_id = entry, org_id
        for capture in wanted:
            capture.note(entry)


def masked(data: Any, values: Scrubber | None) -> Any:
    """The same with the values of secrets masked in all of its texts."""
    if values is None or values.empty:
        return data
    if isinstance(data, dict):
        return {name: masked(value, values) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [masked(value, values) for value in data]
    if not isinstance(data, str):
        return data
    # What came from the wire was read as Latin-1, what a person wrote is UTF-8; a value may be either.
    clean = values.text(data.encode("latin-1", "replace")).decode("latin-1")
    clean = clean if clean != data.encode("latin-1", "replace").decode("latin-1") else data
    return values.text(clean.encode("utf-8", "replace")).decode("utf-8", "replace")


def _headers(headers: Headers) -> list[list[str]]:
    """Names, and the values of those that may be shown; others have an empty one."""
    return [
        [name[:_LONG].decode("latin-1"), value[:_LONG].decode("latin-1") if name in _SHOWN else ""]
        for name, value in headers[:_NAMES]
    ]


def _errand(seconds: float) -> dict[str, float]:
    return {"decide": 0, "connect": -1, "send": 0, "wait": _ms(seconds), "receive": 0}


def _ms(seconds: float) -> float:
    return round(max(0.0, seconds) * 1000, 3)
