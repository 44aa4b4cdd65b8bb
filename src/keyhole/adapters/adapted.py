"""What the adapters have in common: a tool as a framework calls it, that gives one result, and refuses by its ways."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from keyhole.adapters.dressed import dressed
from keyhole.core.errors import InvalidRequest, KeyholeError

Failure = Callable[[str], BaseException]


def framework(module: str, package: str, *, extra: str = "") -> ModuleType:
    """A module of a framework.

    Raises:
        InvalidRequest: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        hint = f"pip install 'keyhole[{extra}]'" if extra else f"pip install {package}"
        raise InvalidRequest(f"the package {package} is not installed", hint) from None


def adapted(
    function: Callable[..., Any], *, failure: Failure | None = None, kept: Iterable[type[BaseException]] = ()
) -> Any:
    """A tool for a framework that knows plain and coroutine functions only.

    Args:
        function: made with ``@kh.tool``. What a generator yields is gathered into one text, or a list.
        failure: makes the framework's error out of what was refused or held back.
        kept: errors that mean something to the framework; see ``_Calls.kept``.

    Raises:
        InvalidRequest: it was not made with ``@kh.tool``.
    """
    if not hasattr(function, "kept_errors"):
        raise InvalidRequest(
            f"{getattr(function, '__name__', 'this')} is no tool yet", "write @kh.tool(…) between this and def"
        )
    function.kept_errors.extend(kept)
    made = dressed(_called(function, failure), function)
    made.tool_name, made.kept_errors = function.tool_name, function.kept_errors  # type: ignore[attr-defined]
    return made


def _called(function: Callable[..., Any], failure: Failure | None) -> Callable[..., Any]:
    flows = inspect.isasyncgenfunction(function)
    if flows or inspect.iscoroutinefunction(function):

        async def waits(*args: Any, **arguments: Any) -> Any:
            try:
                if flows:
                    return _whole([piece async for piece in function(*args, **arguments)])
                return await function(*args, **arguments)
            except KeyholeError as error:
                if failure is None:
                    raise
                raise failure(str(error)) from None

        return waits
    streams = inspect.isgeneratorfunction(function)

    def calls(*args: Any, **arguments: Any) -> Any:
        try:
            result = function(*args, **arguments)
            return _whole(list(result)) if streams else result
        except KeyholeError as error:
            if failure is None:
                raise
            raise failure(str(error)) from None

    return calls


def _whole(pieces: list[Any]) -> Any:
    if all(isinstance(piece, str) for piece in pieces):
        return "".join(pieces)
    return b"".join(pieces) if all(isinstance(piece, bytes) for piece in pieces) else pieces
