"""Calls that wait for a client which no request can reach, and which comes back with answers (revision 2026-07-28).

1. A call runs in a task of its own. Where its server asks something, the client is answered with the question and a
   state, and the task waits.
2. A state is random and says nothing. It is good once, for the holder of the same token and the same call: method,
   name and arguments. What is kept is its digest.
3. Who comes back with it is judged anew before the server hears the answer. What a server has kept for itself
   between two rounds stays here.
4. A call whose client does not come back in time is given up, at the server too, as all of them are with the gateway.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import json
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import mcp_types as types
from mcp.shared.exceptions import MCPError

from keyhole.faces.mcp.gateway.questions import ELICITATION, REFUSED, SAMPLING, Asked, Check, Question, QuestionLimits
from keyhole.net.tasks import Tasks, heard

Said = TypeVar("Said", bound=types.Result)
_ANSWERS: Mapping[type[Any], type[types.Result]] = {
    types.CreateMessageRequest: types.CreateMessageResult,
    types.ElicitRequest: types.ElicitResult,
}
_FULL = types.ErrorData(code=types.INVALID_REQUEST, message="too many calls wait for their clients")


class Visitor(Protocol):
    """A client, as long as one request of it goes on."""

    @property
    def able(self) -> frozenset[str]:
        """The kinds of questions that it can be asked."""

    async def log(self, level: types.LoggingLevel, logger: str, data: Any) -> None:
        """Hear what a server logs."""

    async def report(self, progress: float, total: float | None, message: str | None) -> None:
        """Hear of progress."""


class Parking:
    """The calls that wait.

    Args:
        limits: bounds.
    """

    def __init__(self, limits: QuestionLimits) -> None:
        self.limits = limits
        self._parked: dict[bytes, Conversation] = {}
        self._tasks = Tasks()
        self._places = Counter[bytes]()
        self._closed = False

    async def hold(
        self,
        holder: bytes,
        about: Sequence[Any],
        visitor: Visitor,
        params: types.InputResponseRequestParams,
        make: Callable[[Conversation], Awaitable[Said]],
    ) -> Said | types.InputRequiredResult:
        """Make a call, or go on with one.

        Args:
            holder: says which token it is asked with.
            about: the call, as JSON: a client that comes back has to ask for the same.
            visitor: the client.
            params: of the request, with the state of the call and the answers where it comes back.
            make: makes it for a client that may be asked.

        Returns:
            How it ends, or what is asked.

        Raises:
            Stale: the state is none of this call's.
            MCPError: of the answers; or what ``make`` raises, and what the check of the call does.
        """
        try:
            text = json.dumps(about, sort_keys=True).encode()
        except RecursionError:
            raise _unfit("the arguments are nested too deep") from None
        bound = hashlib.sha256(holder + text).digest()
        said: Said | types.InputRequiredResult
        if params.request_state is None and not params.input_responses:
            if self._closed:
                raise MCPError(code=types.INTERNAL_ERROR, message="the gateway ends")
            conversation = Conversation(self, holder, bound, visitor, may_wait=len(text) <= self.limits.call)
            self._tasks.keep(conversation.begin(make))
            said = await conversation.next()
        else:
            found = self._parked.get(_key(params.request_state or ""))
            if not hmac.compare_digest(found.bound if found else b"\0" * 32, bound) or found is None:
                raise Stale
            said = await found.resume(visitor, found.read(params.input_responses or {}))
        return said

    def keep(self, conversation: Conversation) -> str:
        """Let a call wait; returns its state."""
        state = secrets.token_urlsafe(32)
        self._parked[_key(state)] = conversation
        return state

    def forget(self, state: str) -> None:
        """A call waits no more."""
        self._parked.pop(_key(state), None)

    def has_place(self, holder: bytes) -> bool:
        """Take a place for a call that is about to wait, if there is one."""
        if self._closed or self._places[holder] >= self.limits.agent or self._places.total() >= self.limits.total:
            return False
        self._places[holder] += 1
        return True

    def leave(self, holder: bytes) -> None:
        """Give a place back."""
        self._places[holder] -= 1
        if self._places[holder] <= 0:
            del self._places[holder]

    async def close(self) -> None:
        """Give up all calls."""
        self._closed = True
        for conversation in list(self._parked.values()):
            conversation.end()
        await self._tasks.end()


class Conversation:
    """One call, for a client that comes and goes. See ``Listens``.

    Args:
        parking: where it waits.
        holder: of the token that it is made with.
        bound: what a client that comes back has to ask for.
        visitor: the client.
        may_wait: whether there is room for its arguments.
    """

    def __init__(self, parking: Parking, holder: bytes, bound: bytes, visitor: Visitor, *, may_wait: bool) -> None:
        self.bound = bound
        self._may_wait = may_wait
        self._parking = parking
        self._holder = holder
        self._visitor: Visitor | None = visitor
        self._able = visitor.able
        self._check: Check | None = None
        self._task: asyncio.Task[Any]
        self._numbers = itertools.count(1)
        self._open: dict[str, tuple[Asked, asyncio.Future[Any]]] = {}
        self._told: dict[str, Asked] = {}
        self._asks = asyncio.Event()
        self._has_place = False
        self._rounds = 0
        self._state = ""
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, make: Callable[[Conversation], Awaitable[Any]]) -> asyncio.Task[Any]:
        """Make the call, in a task that outlives the request."""

        async def run() -> Any:
            found = await make(self)
            if self._visitor is None and len(found.model_dump_json()) > self._parking.limits.kept:
                raise MCPError(code=types.INTERNAL_ERROR, message="the answer came too early and is too large")
            return found

        self._task = asyncio.create_task(run())
        self._task.add_done_callback(heard)  # its client may not come back
        return self._task

    def begun(self, check: Check) -> None:
        """See ``Listens``."""
        self._check = check

    async def log(self, level: types.LoggingLevel, logger: str, data: Any) -> None:
        """See ``Listens``. While the client is away, nobody hears it."""
        if self._visitor is not None:
            await self._visitor.log(level, logger, data)

    async def report(self, progress: float, total: float | None, message: str | None) -> None:
        """See ``Listens``. While the client is away, nobody hears it."""
        if self._visitor is not None:
            await self._visitor.report(progress, total, message)

    async def ask(self, server: str, questions: Sequence[Question]) -> list[Any]:
        """See ``Listens``. The check is made by whoever comes back with the answers."""
        if not self._may_be_asked(questions):
            return [REFUSED] * len(questions)
        try:
            asked = [each.request(server) for each in questions]
        except ValueError:
            return [REFUSED] * len(questions)
        self._has_place = self._has_place or self._parking.has_place(self._holder)
        if not self._has_place:
            return [_FULL] * len(questions)
        loop = asyncio.get_running_loop()
        # The names under which a server asks are text of the server, and stay here.
        waits = {str(next(self._numbers)): (each, loop.create_future()) for each in asked}
        self._open.update(waits)
        self._asks.set()
        try:
            return list(await asyncio.gather(*(wait for _, wait in waits.values())))
        finally:
            for name in waits:
                del self._open[name]

    def _may_be_asked(self, questions: Sequence[Question]) -> bool:
        limits = self._parking.limits
        open_now = [each for each, _ in self._open.values()]
        size = sum(len(each.model_dump_json()) for each in open_now) + sum(len(str(each.params)) for each in questions)
        return (
            self._may_wait
            and self._rounds < limits.rounds
            and all(each.kind in self._able for each in questions)
            and len(open_now) + len(questions) <= limits.at_once
            and size <= limits.together
        )

    async def next(self) -> Any:
        """How it ends, or what is asked next. Whoever leaves meanwhile gives it up."""
        try:
            while not self._task.done():
                self._asks.clear()
                if asked := {name: each for name, (each, wait) in self._open.items() if not wait.done()}:
                    return self._park(asked)
                asks = asyncio.create_task(self._asks.wait())
                try:
                    await asyncio.wait({self._task, asks}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    asks.cancel()
        except asyncio.CancelledError:
            self.end()
            raise
        self.end()
        if self._task.cancelled():
            raise MCPError(code=types.INTERNAL_ERROR, message="the call was given up")
        return self._task.result()

    def read(self, answers: Mapping[str, Any]) -> dict[str, Any]:
        """The answers to what was asked. Raises ``MCPError`` for any others, after which it can be answered still."""
        asked = self._told
        if answers.keys() != asked.keys():
            raise _unfit("answer each of the questions that were asked, and no other")
        if sum(len(each.model_dump_json()) for each in answers.values()) > self._parking.limits.answer:
            raise _unfit("the answers are too large")
        if not all(isinstance(each, _ANSWERS[type(asked[name])]) for name, each in answers.items()):
            raise _unfit("an answer is none to its question")
        return {name: each.model_copy(update={"meta": None}) for name, each in answers.items()}

    async def resume(self, visitor: Visitor, answers: Mapping[str, Any]) -> Any:
        """Go on with what its client says, unless it is refused by now. Raises what it is refused for."""
        self._wait_no_more()  # before anything else is waited for: of two that come back at once, one goes on
        self._visitor, self._able = visitor, visitor.able
        try:
            if self._check is not None and not self._task.done():
                await self._check()
        except BaseException:
            self.end()
            raise
        for name, answer in answers.items():
            _, wait = self._open.get(name, (None, None))
            if wait is not None and not wait.done():  # a server may have taken its question back
                wait.set_result(answer)
        return await self.next()

    def end(self) -> None:
        """Give it up, if it goes on still."""
        self._wait_no_more()
        self._visitor = None
        if self._has_place:
            self._has_place = False
            self._parking.leave(self._holder)
        self._task.cancel()
        for _, wait in self._open.values():
            if not wait.done():
                wait.set_result(REFUSED)

    def _park(self, asked: dict[str, Asked]) -> types.InputRequiredResult:
        self._told, self._visitor = asked, None
        self._rounds += 1
        self._state = self._parking.keep(self)
        self._timer = asyncio.get_running_loop().call_later(self._parking.limits.wait, self.end)
        return types.InputRequiredResult(input_requests=dict(asked), request_state=self._state)

    def _wait_no_more(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._parking.forget(self._state)


class Stale(MCPError):
    """What is said of a state that is not one of this call, whatever else it is."""

    def __init__(self) -> None:
        super().__init__(
            code=types.INVALID_PARAMS,
            message="no question of this call is open under this request state: make the call anew, without one",
            data={"reason": "invalid_request_state"},
        )


def kinds_of(capabilities: types.ClientCapabilities | None) -> frozenset[str]:
    """What a client can be asked. One that says nothing of forms nor of URLs shows forms."""
    if capabilities is None:
        return frozenset()
    asks = capabilities.elicitation
    shows = asks is not None and (asks.form is not None or asks.url is None)
    return frozenset([*([SAMPLING] if capabilities.sampling is not None else []), *([ELICITATION] if shows else [])])


def _key(state: str) -> bytes:
    return hashlib.sha256(state.encode(errors="surrogatepass")).digest()


def _unfit(reason: str) -> MCPError:
    return MCPError(code=types.INVALID_PARAMS, message=reason)
