"""``@kh.tool``: a function that is given its credentials for each call and shows none of them."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol, Self, TypeVar

from keyhole.adapters.cleaned import Pieces, cleaned, safe_error
from keyhole.adapters.credentials import Credentials, texts
from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.path import parse_name, parse_secret_ref
from keyhole.scrub import Scrubber

F = TypeVar("F", bound=Callable[..., Any])
GIVEN = "credentials"
"""The parameter in which a tool gets them. It is for keywords, and nobody but us fills it in."""


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
    for part in name.split("."):
        parse_name(part)
    for reference in needs.values():
        if not reference.startswith("/"):
            parse_secret_ref(reference)

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        given = signature.parameters.get(GIVEN)
        if given is None or given.kind is not inspect.Parameter.KEYWORD_ONLY:
            raise InvalidRequest(
                f"the function of the tool {name} has no keyword parameter {GIVEN!r}", f"write (…, *, {GIVEN})"
            )
        wrapper = _wrapper(function, source, name, dict(needs))
        shown = signature.replace(parameters=[p for n, p in signature.parameters.items() if n != GIVEN])
        functools.update_wrapper(wrapper, function)
        del wrapper.__wrapped__  # type: ignore[attr-defined]  # frameworks would look through it
        wrapper.__signature__ = shown  # type: ignore[attr-defined]
        wrapper.__annotations__ = {n: a for n, a in function.__annotations__.items() if n != GIVEN}
        wrapper.tool_name = name  # type: ignore[attr-defined]
        return wrapper  # type: ignore[return-value]

    return decorate


def _wrapper(function: Callable[..., Any], source: Source, name: str, needs: Mapping[str, str]) -> Callable[..., Any]:
    if inspect.isasyncgenfunction(function):

        async def streaming(*args: Any, **arguments: Any) -> Any:
            with await asyncio.to_thread(_Loan, source, name, needs, arguments) as loan:
                pieces = loan.pieces()
                async for item in function(*args, **arguments, **loan.given):
                    for piece in pieces.feed(item):
                        yield piece
                for piece in pieces.finish():
                    yield piece

        return streaming
    if inspect.iscoroutinefunction(function):

        async def awaiting(*args: Any, **arguments: Any) -> Any:
            loan = await asyncio.to_thread(_Loan, source, name, needs, arguments)
            try:
                with loan.watched():
                    return loan.clean(await function(*args, **arguments, **loan.given))
            finally:
                await asyncio.to_thread(loan.end)

        return awaiting
    if inspect.isgeneratorfunction(function):

        def generating(*args: Any, **arguments: Any) -> Iterator[Any]:
            with _Loan(source, name, needs, arguments) as loan:
                pieces = loan.pieces()
                for item in function(*args, **arguments, **loan.given):
                    yield from pieces.feed(item)
                yield from pieces.finish()

        return generating

    def calling(*args: Any, **arguments: Any) -> Any:
        with _Loan(source, name, needs, arguments) as loan:
            return loan.clean(function(*args, **arguments, **loan.given))

    return calling


class _Loan:
    """The credentials of one call. Making one fetches them."""

    def __init__(self, source: Source, name: str, needs: Mapping[str, str], arguments: Mapping[str, Any]) -> None:
        if GIVEN in arguments:
            raise InvalidRequest(f"{GIVEN} are not given by who calls the tool {name}")
        self._stack = ExitStack()
        values: dict[str, Any] = {}
        try:
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

    def pieces(self) -> Pieces:
        """For results that come one after the other."""
        return Pieces(self._scrubber)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Let no error out that has a value in it."""
        try:
            yield
        except Exception as error:
            safe = safe_error(self._scrubber, error)
            if safe is error:
                raise
            raise safe from None

    def end(self) -> None:
        """Drop the values, and take back what was leased."""
        self._credentials.drop()
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        try:
            if isinstance(error, Exception) and (safe := safe_error(self._scrubber, error)) is not error:
                raise safe from None
        finally:
            self.end()


def _read(source: Source, name: str, reference: str) -> Any:
    """A secret: the field that is named, the one that it has as ``value``, or all of its fields."""
    path, field = parse_secret_ref(reference)
    fields = source.read_as(name, f"secret/data/{path}")["data"]
    if not isinstance(fields, Mapping) or (field not in fields and ("#" in reference or not fields)):
        raise NotFound(f"the secret {path} has no field {field!r}", f"keyhole show {path}")
    return fields[field] if field in fields else dict(fields)
