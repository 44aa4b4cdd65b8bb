"""Runs a workflow: steps in order, branches side by side, each written down before and after.

What is done twice is only what may be: a step that was begun and whose end is not known is made again when the journal
shows that nothing was sent, or when it is idempotent or has a key by which the other side knows a repetition. Any other
one is in doubt, and a person says whether it was done.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from typing import Any, Literal

from keyhole.core.checks.documents import JsonView
from keyhole.core.errors import InvalidRequest, KeyholeError
from keyhole.core.record import Phase
from keyhole.faces.workflow.acting import Actor, Request, render
from keyhole.faces.workflow.credentials import refuse_in
from keyhole.faces.workflow.document import Call, Parallel, Part, Step, Workflow
from keyhole.faces.workflow.reference import INPUT, RUN, Unresolved, fill, references
from keyhole.faces.workflow.results import Outcome, scrubbed
from keyhole.faces.workflow.state import StateFile, StepState

Verdict = Literal["done", "repeat"]
Tell = Callable[[str, str, Mapping[str, Any]], None]
"""Hears of progress: a step, what happens (``begins``, ``again``, ``ended``, ``skipped``, ``kept``, …), facts."""


class Runner:
    """One run.

    Args:
        workflow: what is to be done.
        file: of the run; open.
        actor: makes the attempts.
        tell: hears of progress.
        verdicts: what a person says of steps that are in doubt, by id.
    """

    def __init__(
        self,
        workflow: Workflow,
        file: StateFile,
        actor: Actor,
        tell: Tell = lambda _step, _what, _facts: None,
        verdicts: Mapping[str, Verdict] | None = None,
    ) -> None:
        self._workflow = workflow
        self._file = file
        self._actor = actor
        self._tell = tell
        self._verdicts = dict(verdicts or {})
        self._known: dict[str, Any] = {
            INPUT: dict(file.state.inputs),
            RUN: {"id": file.state.run, "workflow": workflow.name},
        }
        self._stopped = ""
        self._read = _members_read(workflow)

    async def run(self) -> str:
        """Go on until all is done, or something stops it.

        Returns:
            ``done``, ``failed``, ``waiting`` or ``doubt``.

        Raises:
            StoreUnavailable: something could not be written down.
            InvalidRequest: a verdict is for no step that is in doubt.
        """
        open_steps = {name for name, step in self._file.state.steps.items() if _in_doubt(step)}
        if strange := self._verdicts.keys() - open_steps:
            raise InvalidRequest(f"the step {min(strange)!r} is not in doubt", "keyhole workflow show RUN")
        # Calls wait in threads. With as few as there are by default, branches would wait for one another, within
        # their own time; and an attempt that was given up keeps its thread for a while.
        threads = ThreadPoolExecutor(2 * self._workflow.width + 4, "workflow")
        asyncio.get_running_loop().set_default_executor(threads)
        await self._parts(self._workflow.parts)
        ending = self._stopped or "done"
        self._file.over(ending)
        return ending

    def outputs(self) -> dict[str, Any]:
        """What the workflow says in the end; without what leads to nothing."""
        found = {}
        for name, value in self._workflow.outputs.items():
            try:
                found[name] = scrubbed(fill(value, self._known))
            except Unresolved:
                found[name] = None
        return found

    async def _parts(self, parts: tuple[Part, ...]) -> None:
        for part in parts:
            if self._stopped:
                return
            if isinstance(part, Parallel):
                await self._branches(part)
            else:
                await self._step(part)

    async def _branches(self, part: Parallel) -> None:
        """Each to its end, also when another one fails: what was begun is not given up."""
        work = [asyncio.ensure_future(self._parts(branch)) for branch in part.branches.values()]
        found = await asyncio.gather(*work, return_exceptions=True)
        for each in found:
            if isinstance(each, BaseException):
                raise each

    async def _step(self, step: Step) -> None:
        state = self._file.state.steps.get(step.id) or StepState()
        if state.ended is not None and (state.ended["result"] in {"ok", "skipped"} or self._may_stay(step, state)):
            self._known[step.id] = state.ended
            self._tell(step.id, "kept", state.ended)
            return
        if _in_doubt(state) and not await self._settle(step, state):
            return
        try:
            if not self._wanted(step):
                self._end(step, {"result": "skipped"}, 0)
                self._tell(step.id, "skipped", {})
                return
            request = render(step, self._known, self.key_of(step))
            if reason := refuse_in(request.content()):
                raise InvalidRequest(f"what the step would send is refused: {reason}", "see what the steps before gave")
        except KeyholeError as error:
            self._conclude(step, Outcome("failed", error.code, error.reason, error.hint), 0)
            return
        await self._attempts(step, request)

    def _may_stay(self, step: Step, state: StepState) -> bool:
        """Whether its failure is the last word: it may fail, all attempts were made, and nobody says otherwise."""
        is_last = state.ended is not None and not state.ended.get("again")
        return step.go_on and is_last and not _stops(state) and step.id not in self._verdicts

    def key_of(self, step: Step) -> str:
        """By which the other side knows a repetition: the same for every attempt of a step of a run."""
        return "kh-" + hashlib.sha256(f"{self._file.state.run}\0{step.id}".encode()).hexdigest()[:32]

    def _wanted(self, step: Step) -> bool:
        if not step.when:
            return True
        document = json.loads(json.dumps(self._known), parse_float=Decimal)
        view = JsonView(document)
        return all(test.holds(view) for test in step.when)

    async def _attempts(self, step: Step, request: Request) -> None:
        for number in range(1, step.retry.attempts + 1):
            outcome, ms = await self._attempt(step, request)
            again = (
                outcome.result == "failed"
                and number < step.retry.attempts
                and not self._stopped
                and step.retry.covers(outcome.error, outcome.status)
            )
            if not again:
                self._conclude(step, outcome, ms)
                return
            self._end(step, outcome.as_data() | {"again": True}, ms)
            pause = min(max(step.retry.pause(number), outcome.after), step.retry.most)
            self._tell(step.id, "again", {**outcome.as_data(), "attempt": number + 1, "pause": pause, "ms": ms})
            await asyncio.sleep(pause)

    async def _attempt(self, step: Step, request: Request) -> tuple[Outcome, int]:
        attempt = (self._file.state.steps.get(step.id) or StepState()).attempts + 1
        try:
            grip = await self._actor.open(step)
        except KeyholeError as error:
            return Outcome("failed", error.code, error.reason, error.hint), 0
        try:
            self._file.begin(step.id, attempt, grip.accessor)
            self._tell(step.id, "begins", {"attempt": attempt})
            before = time.monotonic()
            outcome = await self._actor.do(grip, request)
            return outcome, int((time.monotonic() - before) * 1000)
        finally:
            await self._actor.close(grip)

    def _conclude(self, step: Step, outcome: Outcome, ms: int) -> None:
        """Write down how a step ended, and stop the run where that is to be."""
        if step.repeatable:
            outcome = replace(outcome, doubt=False)
        data = outcome.as_data()
        self._end(step, data, ms)
        self._tell(step.id, "ended", {**data, "ms": ms})
        if outcome.result == "waiting":
            self._stop("waiting")
        elif outcome.result == "failed" and outcome.doubt and not step.go_on:
            self._tell(step.id, "doubt", data)
            self._stop("doubt")
        elif outcome.result == "failed" and not step.go_on:
            self._stop("failed")

    def _end(self, step: Step, data: dict[str, Any], ms: int) -> None:
        self._file.end(step.id, data, ms)
        self._known[step.id] = data

    def _stop(self, ending: str) -> None:
        """The worst thing that happened is what the run ended with."""
        order = ("", "waiting", "failed", "doubt")
        self._stopped = max(self._stopped, ending, key=order.index)

    async def _settle(self, step: Step, state: StepState) -> bool:
        """Whether a step that was begun may be made now. Where it was done, that is written down."""
        verdict = self._verdicts.get(step.id)
        if verdict == "done":
            self._end(step, {"result": "ok", "body": None, "reason": "somebody said that it was done"}, 0)
            self._tell(step.id, "kept", {"result": "ok"})
            return False
        if verdict == "repeat":
            return True
        return await self._by_journal(step, state)

    async def _by_journal(self, step: Step, state: StepState) -> bool:
        """What the journal says: the intent is on the disk before the first byte leaves, so without one none has."""
        try:
            records = await self._actor.recorded(step, state.accessor)
        except KeyholeError as error:
            if not step.repeatable:
                self._doubt(step, f"the journal cannot be asked: {error.reason}")
            return step.repeatable
        begun = [record for record in records if record["phase"] == Phase.INTENT]
        ended = [record for record in records if record["phase"] == Phase.OUTCOME]
        if not begun and not ended:
            self._tell(step.id, "settled", {"reason": "nothing was sent"})
            return True
        last = ended[-1] if ended else {}
        if last and self._is_right(step, last) and not self._read.get(step.id, frozenset()) & {"body", "headers"}:
            status = {"status": last["status"]} if last.get("status") else {}
            data = {"result": "ok", "body": None, "reason": "the journal says that it was done", **status}
            self._end(step, data, int(last.get("milliseconds", 0)))
            self._tell(step.id, "kept", data)
            return False
        if step.repeatable:
            self._tell(step.id, "settled", {"reason": "it may be repeated"})
            return True
        how = f"it ended with {last['result']} {last.get('status', '')}".strip() if last else "it was sent"
        self._doubt(step, f"{how}, and what it gave is lost")
        return False

    @staticmethod
    def _is_right(step: Step, record: Mapping[str, Any]) -> bool:
        status = int(record.get("status", 0))
        expect = step.act.expect if isinstance(step.act, Call) else ()
        return record.get("result") == "ok" and (status in expect if expect else status < 400)

    def _doubt(self, step: Step, reason: str) -> None:
        self._tell(step.id, "doubt", {"reason": reason})
        self._stop("doubt")


def _in_doubt(state: StepState) -> bool:
    return state.open or bool(state.ended is not None and state.ended.get("doubt"))


def _stops(state: StepState) -> bool:
    return state.ended is not None and state.ended["result"] == "waiting"


def _members_read(workflow: Workflow) -> dict[str, frozenset[str]]:
    """Which members of what a step gave somebody refers to."""
    found: dict[str, set[str]] = {}

    def read(head: str, member: str) -> None:
        found.setdefault(head, set()).add(member)

    for step in workflow.steps():
        act = step.act
        values: list[Any] = [act.url, act.headers, act.query, act.body] if isinstance(act, Call) else [act.arguments]
        for reference in references([dict(v) if isinstance(v, Mapping) else v for v in values]):
            read(reference.head, reference.path[0])
        for pointer in _pointers([test.as_data() for test in step.when]):
            read(*pointer)
    for reference in references(dict(workflow.outputs)):
        read(reference.head, reference.path[0])
    return {name: frozenset(members) for name, members in found.items()}


def _pointers(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        for each in value:
            yield from _pointers(each)
    elif isinstance(value, dict):
        if isinstance(at := value.get("at"), str):
            head, member = at[1:].split("/")[:2]
            yield head, member
        for name in ("any", "all", "not"):
            yield from _pointers(value.get(name))
