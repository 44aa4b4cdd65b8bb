"""One attempt of a step: with a token of its own, which names run and step, and ends with it.

The token is made for the agent; one for a call can do nothing but calls, through the service that the step names. So
each use of a credential is in the audit trail under run and step, and what a record says of a token is about one
attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol
from urllib.parse import urlencode

from keyhole.client.core import Result
from keyhole.client.travel import Answered, Trip
from keyhole.core import errors
from keyhole.core.errors import ApprovalRequired, KeyholeError, RateLimited
from keyhole.core.identity import RunContext
from keyhole.faces.workflow.document import Call, Step, Use
from keyhole.faces.workflow.reference import fill, fill_address, fill_text
from keyhole.faces.workflow.results import Outcome, kept, read_body, read_headers

_MARGIN = 60  # seconds for which a token outlives its attempt, for what is recorded at the end
# After these something may have been done: the request was on its way, or its answer was not understood.
_UNSURE = (errors.UpstreamTimeout, errors.UpstreamUnreachable, errors.ScrubFailedClosed, errors.Unreachable)
_TOLD = 64 * 1024  # bytes of an error's body that are kept
_UNSURE_STATUS = frozenset({408, 425})


class Party(Protocol):
    """A vault and its broker, asked as one caller, from any thread."""

    def ask(self, operation: str, path: str, data: Mapping[str, Any] | None = None) -> Result:
        """Ask, and wait. Raises what the vault refuses."""

    def call(self, trip: Trip) -> Answered:
        """Make a call through the broker. Raises what the broker refuses."""

    def close(self) -> None:
        """Let the connections go."""


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """What a tool gave.

    Attributes:
        failed: it says that it has failed.
        body: its structured content, else its text.
    """

    failed: bool
    body: Any


class Tools(Protocol):
    """A gateway for tools."""

    async def use(self, party: Party, server: str, tool: str, arguments: Mapping[str, Any]) -> ToolAnswer:
        """Use a tool as an agent. Raises ``KeyholeError``."""


@dataclass(frozen=True, slots=True)
class Request:
    """A step with everything put in.

    Attributes:
        step: which one.
        trip: for a call.
        arguments: for a tool.
    """

    step: Step
    trip: Trip | None = None
    arguments: Mapping[str, Any] | None = None

    def content(self) -> Any:
        """All that goes out, for who looks at it."""
        if self.trip is None:
            return dict(self.arguments or {})
        body = self.trip.body
        return [self.trip.url, dict(self.trip.headers), body.decode() if isinstance(body, bytes) else body]


def render(step: Step, known: Mapping[str, Any], key: str) -> Request:
    """Put everything in.

    Args:
        step: to be done.
        known: what steps gave, inputs, and the run.
        key: by which the other side knows a repetition.

    Raises:
        Unresolved: a reference leads to nothing, or to what cannot stand there.
    """
    act = step.act
    if isinstance(act, Use):
        arguments = fill(dict(act.arguments), known)
        return Request(step, arguments={**arguments, step.key: key} if step.key else arguments)
    headers = {name: str(_plain(fill_text(text, known))) for name, text in act.headers.items()}
    if step.key:
        headers[step.key] = key
    url = fill_address(act.url, known)
    if act.query:
        query = urlencode({name: _plain(fill(value, known)) for name, value in act.query.items()})
        url += ("&" if "?" in url else "?") + query
    body = _body(act, known)
    if act.kind and not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = _KINDS[act.kind]
    return Request(step, Trip(act.method, url, service=act.service, headers=headers, body=body, timeout=step.timeout))


_KINDS = {"json": "application/json", "form": "application/x-www-form-urlencoded", "text": "text/plain; charset=utf-8"}


def _body(act: Call, known: Mapping[str, Any]) -> bytes | None:
    if act.kind == "json":
        return json.dumps(fill(act.body, known), ensure_ascii=False, separators=(",", ":")).encode()
    if act.kind == "form":
        return urlencode({name: _plain(fill(value, known)) for name, value in act.body.items()}).encode()
    return str(_plain(fill_text(act.body, known))).encode() if act.kind else None


def _plain(value: Any) -> Any:
    """As a text of a URL, a form or a header."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class Grip:
    """A token for one attempt.

    Attributes:
        party: the vault as its holder.
        accessor: names the token without being it.
    """

    def __init__(self, party: Party, accessor: str) -> None:
        self.party = party
        self.accessor = accessor


class Actor:
    """Makes attempts as an agent.

    Args:
        own: the vault as whoever runs the workflow, who may make tokens for the agent.
        party_of: the vault as the holder of a token.
        agent: who acts.
        context: of the run; each attempt adds its step.
        tools: the gateway; ``None`` where no step needs one.
    """

    def __init__(
        self, own: Party, party_of: Callable[[str], Party], agent: str, context: RunContext, tools: Tools | None
    ) -> None:
        self._own = own
        self._party_of = party_of
        self._agent = agent
        self._context = context
        self._tools = tools

    async def open(self, step: Step) -> Grip:
        """A token for one attempt. Raises ``KeyholeError``."""
        act = step.act
        data: dict[str, Any] = {"ttl": f"{int(step.timeout) + _MARGIN}s"}
        if isinstance(act, Use):
            context = self._context._replace(step=step.id, tool=f"{act.server}/{act.tool}")
        else:
            data |= {"scope": "proxy"} | ({"services": [act.service]} if act.service else {})
            context = self._context._replace(step=step.id)
        made = await self._ask("update", f"agents/{self._agent}/token", data | context.as_data())
        return Grip(self._party_of(str(made["token"])), str(made["accessor"]))

    async def close(self, grip: Grip) -> None:
        """End a token, and with it what is still under way."""
        grip.party.close()
        with contextlib.suppress(KeyholeError):  # it ends by itself as well
            await self._ask("update", "auth/token/revoke-accessor", {"accessor": grip.accessor})

    async def do(self, grip: Grip, request: Request) -> Outcome:
        """Make an attempt. Raises nothing: what happens is in the outcome."""
        step = request.step
        try:
            async with asyncio.timeout(step.timeout):
                if request.trip is not None:
                    answered = await asyncio.to_thread(grip.party.call, request.trip)
                    return _of_call(step, answered)
                return await self._use(grip, step, request.arguments or {})
        except TimeoutError:
            text = f"it took more than {step.timeout:g} seconds"
            return Outcome("failed", "upstream_timeout", text, "see timeout", doubt=True)
        except ApprovalRequired as error:
            return Outcome("waiting", error.code, error.reason, error.hint)
        except KeyholeError as error:
            after = float(error.retry_after) if isinstance(error, RateLimited) else 0.0
            unsure = isinstance(error, _UNSURE)
            return Outcome("failed", error.code, error.reason, error.hint, doubt=unsure, after=after)

    async def _use(self, grip: Grip, step: Step, arguments: Mapping[str, Any]) -> Outcome:
        if self._tools is None or not isinstance(step.act, Use):
            raise errors.InternalError("the step has no gateway")
        answer = await self._tools.use(grip.party, step.act.server, step.act.tool, arguments)
        if answer.failed:
            body = None
            with contextlib.suppress(KeyholeError):
                body = kept(answer.body, None)
            return Outcome("failed", "failed", "the tool says that it has failed", body=body, doubt=True)
        return _done(step, Outcome("ok"), lambda: answer.body)

    async def recorded(self, step: Step, accessor: str) -> list[Mapping[str, Any]]:
        """What the journal has of an attempt, which is ended first. Raises ``KeyholeError`` if it cannot be read."""
        with contextlib.suppress(errors.NotFound, errors.InvalidRequest, errors.PolicyDenied):  # it has ended
            await self._ask("update", "auth/token/revoke-accessor", {"accessor": accessor})
        made = await self._ask("update", f"agents/{self._agent}/token", {"ttl": "60s", "services": []})
        grip = Grip(self._party_of(str(made["token"])), str(made["accessor"]))
        try:
            # By run and step alone, what others claim of themselves could push these out of the answer.
            wanted = {"run": self._context.run, "step": step.id, "accessor": accessor, "limit": "1000"}
            found = await asyncio.to_thread(grip.party.ask, "read", "sys/own/audit-log", wanted)
        finally:
            await self.close(grip)
        return [record for record in found.data["records"] if record.get("accessor") == accessor]

    async def _ask(self, operation: str, path: str, data: Mapping[str, Any]) -> Mapping[str, Any]:
        return (await asyncio.to_thread(self._own.ask, operation, path, data)).data


def _of_call(step: Step, answered: Answered) -> Outcome:
    act = step.act
    headers = read_headers(answered.headers)
    right = answered.status in act.expect if isinstance(act, Call) and act.expect else answered.status < 400
    kind = headers.get("content-type", "")
    if right:
        outcome = Outcome("ok", status=answered.status, headers=headers)
        return _done(step, outcome, lambda: read_body(answered.body, kind))
    wait, body = headers.get("retry-after", ""), None
    if len(answered.body) <= _TOLD:
        with contextlib.suppress(KeyholeError):
            body = kept(read_body(answered.body, kind), None)
    return Outcome(
        "failed",
        "failed",
        f"the answer was {answered.status}",
        "keyhole workflow show RUN --json shows what it said",
        answered.status,
        headers,
        body,
        doubt=answered.status >= 500 or answered.status in _UNSURE_STATUS,
        after=float(wait) if wait.isdecimal() and len(wait) < 6 else 0.0,
    )


def _done(step: Step, outcome: Outcome, body: Callable[[], Any]) -> Outcome:
    """With what is kept of its body. It was done, so what is too large is no reason to do it again."""
    try:
        return replace(outcome, body=kept(body(), step.keep))
    except KeyholeError as error:
        return replace(outcome, result="failed", error=error.code, reason=error.reason, hint=error.hint, doubt=True)
