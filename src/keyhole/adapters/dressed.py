"""A function that shows itself as another one does, but for a parameter that nobody outside is to know of."""

from __future__ import annotations

import functools
import inspect
import re
import types
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, closing
from typing import Any

_SECTION = re.compile(r"\s*(?:Args|Arguments|Parameters|Keyword Args|Keyword Arguments|Other Parameters)\s*:?\s*$")


def dressed(calls: Callable[..., Any], function: Callable[..., Any], *, without: str = "") -> Any:
    """A function that does what ``calls`` does, and has the name, signature, annotations and text of ``function``.

    Its annotations are resolved where those of ``function`` are, so that they may be strings.

    Args:
        calls: what is called, of any of the four kinds: plain, generator, coroutine, asynchronous generator.
        function: what it looks like.
        without: a parameter that is not shown.
    """
    kind = _kind(calls)
    scope = getattr(inspect.unwrap(getattr(function, "func", function)), "__globals__", kind.__globals__)
    made: Any = types.FunctionType(kind.__code__, scope, kind.__name__, None, kind.__closure__)
    functools.update_wrapper(made, function)
    del made.__wrapped__  # frameworks would look through it
    signature, annotations = _annotated(function)
    parameters = [each for name, each in signature.parameters.items() if name != without]
    made.__signature__ = signature.replace(parameters=parameters)
    made.__annotations__ = {name: kind for name, kind in annotations.items() if name != without}
    made.__doc__ = undocumented(getattr(function, "__doc__", None), without)
    return made


def _annotated(function: Callable[..., Any]) -> tuple[inspect.Signature, dict[str, Any]]:
    """Signature and annotations, with what stands in strings looked up where that can be done already."""
    try:
        return inspect.signature(function, eval_str=True), inspect.get_annotations(function, eval_str=True)
    except Exception:  # noqa: BLE001  # an annotation is any expression; of an object that is called there are none
        return inspect.signature(function), dict(getattr(function, "__annotations__", {}))


def _kind(calls: Callable[..., Any]) -> Any:
    """A function of the kind of ``calls`` whose code names nothing global, for it gets the globals of somebody else."""
    if inspect.isasyncgenfunction(calls):
        closed: Callable[..., Any] = aclosing

        async def flowing(*args: Any, **arguments: Any) -> AsyncIterator[Any]:
            async with closed(calls(*args, **arguments)) as items:
                async for item in items:
                    yield item

        return flowing
    if inspect.iscoroutinefunction(calls):

        async def waiting(*args: Any, **arguments: Any) -> Any:
            return await calls(*args, **arguments)

        return waiting
    if inspect.isgeneratorfunction(calls):
        ended: Callable[..., Any] = closing

        def streaming(*args: Any, **arguments: Any) -> Iterator[Any]:
            with ended(calls(*args, **arguments)) as items:
                yield from items

        return streaming

    def calling(*args: Any, **arguments: Any) -> Any:
        return calls(*args, **arguments)

    return calling


def undocumented(text: str | None, parameter: str) -> str | None:
    """A docstring without what it says of a parameter, in the styles of Google, NumPy and Sphinx."""
    if not text or not parameter or parameter not in text:
        return text
    kept: list[str] = []
    inside: int | None = None
    own = re.escape(parameter)
    entry = re.compile(
        rf"(\s*)(?:\*{{0,2}}{own}\s*(?:\([^)]*\))?\s*:(?!:)|{own}\s*$|:(?:param|type|keyword)\b[^:]*\b{own}\s*:)"
    )
    for line in text.split("\n"):
        begins = entry.match(line)
        indent = len(line) - len(line.lstrip())
        if begins:
            inside = indent
            continue
        if inside is not None and (line.strip() and indent > inside):
            continue
        inside = None
        kept.append(line)
    made = [line for at, line in enumerate(kept) if not (_SECTION.match(line) and _empty(kept, at))]
    return "\n".join(made)


def _empty(lines: list[str], at: int) -> bool:
    """Whether nothing is left in the section whose heading is a line."""
    indent = len(lines[at]) - len(lines[at].lstrip())
    for line in lines[at + 1 :]:
        if line.strip() and set(line.strip()) != {"-"}:
            return len(line) - len(line.lstrip()) <= indent
    return True
