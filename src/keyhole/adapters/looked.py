"""Whether a value is anywhere in an object: in what it shows, in what it holds, and in what that holds."""

from __future__ import annotations

import contextlib
import traceback
import types
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from typing import Any

from keyhole.adapters.credentials import Credentials
from keyhole.scrub import Scrubber

_MOST = 5_000  # objects that are looked at for one result or error
_LEAVES = (bool, type(None), type, types.ModuleType)
_CODE = (types.FunctionType, types.MethodType, types.BuiltinFunctionType)
EXACT = frozenset({str, bytes, bytearray, memoryview, int, float, dict, list, tuple, set, frozenset})
"""Kinds that have no attributes of their own; one that is derived from them may."""
_FRAMES = (types.TracebackType, types.FrameType, types.CodeType)
_PENDING = (Iterator, AsyncIterator, Awaitable)  # what is not there yet, so that nobody can look at it
_CONTAINERS = (dict, list, tuple, set, frozenset, deque)  # their items are looked at one by one


class TooMuch(Exception):
    """An object cannot be looked through: it is too big, or a part of it is not there yet."""


def has_value(scrubber: Scrubber, thing: Any, *, pending: bool = False) -> bool:
    """Whether a value is in an object, its attributes, its items, or, for an error, in what it came from.

    Credentials do not count: they are empty when the call has ended.

    Args:
        scrubber: of the values.
        thing: the object.
        pending: whether iterators and awaitables may be in it; of them only the attributes are looked at. The variables
            of functions that tracebacks in it lead to are forgotten.

    Raises:
        TooMuch: it holds too much, or an iterator or an awaitable, and nothing was found before.
    """
    seen: set[int] = set()
    keep: list[Any] = []  # what a descriptor makes must not end while its id counts
    waiting = deque([thing])
    while waiting:
        each = waiting.popleft()
        if isinstance(each, (*_LEAVES, *_FRAMES, Credentials)) or id(each) in seen:
            if pending and isinstance(each, types.TracebackType):
                traceback.clear_frames(each)
            continue
        seen.add(id(each))
        keep.append(each)
        if len(seen) > _MOST:
            raise TooMuch
        if isinstance(each, str | bytes | bytearray | memoryview | int | float):
            if _found(scrubber, each):
                return True
            waiting.extend(attributes(each))
            continue
        if isinstance(each, _CODE):
            waiting.extend(_closed_over(each))
            continue
        if not pending and isinstance(each, _PENDING):
            raise TooMuch
        if not isinstance(each, _CONTAINERS) and _shown(scrubber, each):
            return True
        waiting.extend(_held(each))
    return False


def _found(scrubber: Scrubber, each: str | bytes | bytearray | memoryview | float) -> bool:
    if isinstance(each, str):
        raw = each.encode(errors="surrogatepass")
    elif isinstance(each, int | float):
        raw = str(each).encode() if not isinstance(each, int) or each.bit_length() < 10_000 else b""
    else:
        raw = bytes(each)
    return scrubber.text(raw) != raw


def _shown(scrubber: Scrubber, each: Any) -> bool:
    kind: Any = type(each)
    if (kind.__str__, kind.__repr__) == (object.__str__, object.__repr__):
        return False
    for show in (str, repr):
        with contextlib.suppress(Exception):  # an object that cannot show itself shows nothing
            if _found(scrubber, show(each)):
                return True
    return False


def _held(each: Any) -> Iterator[Any]:
    """The attributes and items of an object, without running code of its own where that can be."""
    if isinstance(each, Mapping):
        with contextlib.suppress(Exception):
            yield from list(each.keys())
            yield from list(each.values())
    elif isinstance(each, _CONTAINERS):
        yield from list(each)
    yield from attributes(each)
    if isinstance(each, BaseExceptionGroup):
        yield each.exceptions


def attributes(each: Any) -> Iterator[Any]:
    """What an object holds besides its items."""
    if type(each) in EXACT:
        return
    with contextlib.suppress(Exception):
        yield from list(object.__getattribute__(each, "__dict__").values())
    error = isinstance(each, BaseException)
    for kind in type(each).__mro__:
        for name, member in vars(kind).items():
            slot = isinstance(member, types.MemberDescriptorType)
            if slot or (error and isinstance(member, types.GetSetDescriptorType) and name != "__dict__"):
                with contextlib.suppress(Exception):
                    yield member.__get__(each, kind)


def _closed_over(code: Any) -> Iterator[Any]:
    """What a function brings with it."""
    own = getattr(code, "__self__", None)
    if not isinstance(own, types.ModuleType):
        yield own
    for cell in getattr(code, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # it is empty
            yield cell.cell_contents
    yield from getattr(code, "__defaults__", None) or ()
    yield from (getattr(code, "__kwdefaults__", None) or {}).values()
    yield from getattr(code, "__dict__", {}).values()
