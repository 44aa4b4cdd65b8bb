"""``@kh.tool``: a function that is given its credentials for each call and shows none of them."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import traceback
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any, Protocol, TypeVar

from keyhole.adapters.cleaned import Pieces, cleaned, safe_error
from keyhole.adapters.credentials import Credentials, texts
from keyhole.adapters.dressed import dressed
from keyhole.client.context import context
from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.path import parse_name, parse_secret_ref
from keyhole.scrub import Scrubber

F = TypeVar("F", bound=Callable[..., Any])
GIVEN = "credentials"
"""The parameter in which a tool gets them. It is for keywords, and nobody but us fills it in."""


_END: Any = object()


class Source(Protocol):
    """A vault, as a tool asks it."""

    def read_as(self, tool: str, path: str) -> Mapping[str, Any]:
        """The fields at an API path, read by the caller on behalf of a tool. Raises what the vault refuses."""

    def lease_for(self, source: str) -> Any:
        """A context manager that gives something leased with ``fields()``, and takes it back at its end."""


def wrap(source: Source, name: str, needs: Mapping[str, str]) -> Callable[[F], F]:
    """A decorator for the function of a tool.

    Args:
        source: the vault.
        name: of the tool, as it stands in the audit trail.
        needs: name for the function to secret, such as ``{"token": "slack/bot-token"}``, or to something that is leased
            for the call, such as ``{"db": "/database/creds/readonly"}``.

    Raises:
        InvalidRequest: a name or a reference is none, or the function has no keyword parameter ``credentials``.
    """
    if not isinstance(name, str):
        raise InvalidRequest(
            "the name of a tool is a text", '@kh.tool("slack.send", needs={"token": "slack/bot-token"})'
        )
    for part in name.split("."):
        parse_name(part)
    _check(needs)

    def decorate(function: F) -> F:
        given = inspect.signature(function).parameters.get(GIVEN)
        if given is None or given.kind is not inspect.Parameter.KEYWORD_ONLY:
            raise InvalidRequest(
                f"the function of the tool {name} has no keyword parameter {GIVEN!r}", f"write (…, *, {GIVEN})"
            )
        calls = _Calls(function, source, name, dict(needs))
        wrapper = dressed(calls.like(function), function, without=GIVEN)
        wrapper.tool_name = name
        wrapper.kept_errors = calls.kept
        found: F = wrapper
        return found

    return decorate


def _check(needs: Any) -> None:
    if not isinstance(needs, Mapping) or not all(isinstance(text, str) for pair in needs.items() for text in pair):
        raise InvalidRequest("needs are names with the secrets for them", 'needs={"token": "slack/bot-token"}')
    for own, reference in needs.items():
        if not own.isidentifier() or own.startswith("_") or hasattr(Credentials, own):
            raise InvalidRequest(
                f"{GIVEN}.{own[:40]} could not be written for a need of that name", "choose another name"
            )
        if not reference.startswith("/"):
            parse_secret_ref(reference)


class _Calls:
    """The calls of one tool, in each way in which a function can be called."""

    def __init__(self, function: Callable[..., Any], source: Source, name: str, needs: Mapping[str, str]) -> None:
        self._function = function
        self._source = source
        self._name = name
        self._needs = needs
        self.kept: list[type[BaseException]] = []
        """Kinds of errors that mean something to a framework, and stay of their kind also where a value was in them."""

    def like(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The one that is called as the function is."""
        known = inspect.unwrap(getattr(function, "func", function))
        asked = known if inspect.isroutine(known) else type(known).__call__
        if inspect.isasyncgenfunction(asked):
            return self.flow
        if inspect.iscoroutinefunction(asked):
            return self.wait
        if inspect.isgeneratorfunction(asked):
            return self.stream
        return self.call

    def call(self, *args: Any, **arguments: Any) -> Any:
        """Of a plain function."""
        loan = self._loan(arguments)
        try:
            with context(tool=self._name):
                return loan.clean(self._function(*args, **arguments, **loan.given))
        except BaseException as error:
            failure = self._safe(loan, error)
            if failure is error:
                raise
        finally:
            loan.end()
        raise failure from None

    def stream(self, *args: Any, **arguments: Any) -> Iterator[Any]:
        """Of a generator."""
        loan = self._loan(arguments)
        try:
            with loan.closing(self._function(*args, **arguments, **loan.given)) as items:
                yield from loan.through(items)
        except BaseException as error:
            failure = self._safe(loan, error)
            if failure is error:
                raise
        else:
            return
        finally:
            loan.end()
        raise failure from None

    async def wait(self, *args: Any, **arguments: Any) -> Any:
        """Of a coroutine function."""
        loan = await self._awaited(arguments)
        try:
            with context(tool=self._name):
                return loan.clean(await self._function(*args, **arguments, **loan.given))
        except BaseException as error:
            failure = self._safe(loan, error)
            if failure is error:
                raise
        finally:
            await _beside(loan.end)
        raise failure from None

    async def flow(self, *args: Any, **arguments: Any) -> AsyncIterator[Any]:
        """Of an asynchronous generator."""
        loan = await self._awaited(arguments)
        try:
            async with loan.aclosing(self._function(*args, **arguments, **loan.given)) as items:
                async for piece in loan.flowing(items):
                    yield piece
        except BaseException as error:
            failure = self._safe(loan, error)
            if failure is error:
                raise
        else:
            return
        finally:
            await _beside(loan.end)
        raise failure from None

    def _safe(self, loan: _Loan, error: BaseException) -> BaseException:
        return loan.safe(error, tuple(self.kept))

    def _loan(self, arguments: Mapping[str, Any]) -> _Loan:
        try:
            return _Loan(self._source, self._name, self._needs, arguments)
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)  # one secret may have been read before another was refused
            raise

    async def _awaited(self, arguments: Mapping[str, Any]) -> _Loan:
        """The loan, fetched in a thread. One that comes when nobody waits for it any more is ended at once."""
        fetching = _begun(self._loan, arguments)
        try:
            return await asyncio.shield(fetching)
        except asyncio.CancelledError:
            fetching.add_done_callback(_let_go)
            await asyncio.wait([fetching])
            raise


def _begun(work: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
    """Work that goes on in a thread from now on, whether or not it is waited for."""
    return asyncio.get_running_loop().run_in_executor(None, contextvars.copy_context().run, work, *args)


async def _beside(work: Callable[[], None]) -> None:
    """Do something that waits for the vault, without the loop's waiting; it is done also where this is cancelled."""
    try:
        begun = _begun(work)
    except RuntimeError:  # the loop is ending and starts no threads any more
        work()
        return
    await asyncio.shield(begun)


def _let_go(fetching: asyncio.Future[_Loan]) -> None:
    if not fetching.cancelled() and fetching.exception() is None:
        _begun(fetching.result().end)


class _Loan:
    """The credentials of one call. Making one fetches them."""

    def __init__(self, source: Source, name: str, needs: Mapping[str, str], arguments: Mapping[str, Any]) -> None:
        if GIVEN in arguments:
            raise InvalidRequest(f"{GIVEN} are not given by who calls the tool {name}")
        self._name = name
        self._stack = ExitStack()
        values: dict[str, Any] = {}
        try:
            with context(tool=name):
                for own, reference in needs.items():
                    if reference.startswith("/"):
                        values[own] = dict(self._stack.enter_context(source.lease_for(reference)).fields())
                    else:
                        values[own] = _read(source, name, reference)
        except BaseException:
            self._stack.close()
            raise
        self._credentials = Credentials(values)
        self._scrubber = Scrubber.compile(texts(values))

    @property
    def given(self) -> dict[str, Any]:
        """What the function gets besides its arguments."""
        return {GIVEN: self._credentials}

    def clean(self, result: Any) -> Any:
        """A result without the values."""
        return cleaned(self._scrubber, result)

    def through(self, items: Iterator[Any]) -> Iterator[Any]:
        """What comes one after the other. Not a part of what calls it, whose variables nobody can clear on an error."""
        pieces = Pieces(self._scrubber)
        while True:
            with context(tool=self._name):
                item = next(items, _END)
            if item is _END:
                break
            yield from pieces.feed(item)
        yield from pieces.finish()

    async def flowing(self, items: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """As ``through``."""
        pieces = Pieces(self._scrubber)
        while True:
            with context(tool=self._name):
                item = await anext(items, _END)
            if item is _END:
                break
            for piece in pieces.feed(item):
                yield piece
        for piece in pieces.finish():
            yield piece

    @contextmanager
    def closing(self, items: Any) -> Iterator[Any]:
        """Close a generator at the end; what it does then is done by the tool as well."""
        try:
            yield items
        finally:
            with context(tool=self._name):
                items.close()

    @asynccontextmanager
    async def aclosing(self, items: Any) -> AsyncIterator[Any]:
        """As ``closing``."""
        try:
            yield items
        finally:
            with context(tool=self._name):
                await items.aclose()

    def safe(self, error: BaseException, kept: tuple[type[BaseException], ...]) -> BaseException:
        """An error without the values: the very one where there are none in it."""
        return safe_error(self._scrubber, error, kept)

    def end(self) -> None:
        """Drop the values, and take back what was leased."""
        self._credentials.drop()
        self._scrubber = Scrubber.compile(())  # it holds the values, and this object stands in tracebacks
        self._stack.close()


def _read(source: Source, name: str, reference: str) -> Any:
    """A secret: the field that is named, the one that it has as ``value``, or all of its fields."""
    path, field = parse_secret_ref(reference)
    fields = source.read_as(name, f"secret/data/{path}")["data"]
    if not isinstance(fields, Mapping) or (field not in fields and ("#" in reference or not fields)):
        raise NotFound(f"the secret {path} has no field {field!r}", f"keyhole show {path}")
    return fields[field] if field in fields else dict(fields)
