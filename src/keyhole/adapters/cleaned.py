"""Results and errors of tools without the values that the tool was given."""

from __future__ import annotations

import codecs
import copy
import dataclasses
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from keyhole.adapters.looked import EXACT, TooMuch, attributes, has_value
from keyhole.core.errors import KeyholeError
from keyhole.scrub import Scrubber

_DEEPEST = 100


class ToolFailed(KeyholeError):
    """What a tool gave back or raised had a credential in it, and was held back; the reason says what may be said."""

    code = "internal"
    status = 500


def cleaned(scrubber: Scrubber, value: Any, depth: int = 0) -> Any:
    """A result with every text of it scrubbed; the very object where nothing was found.

    Scrubbed are texts, bytes, numbers, mappings, lists, tuples, sets, dataclasses, and models of Pydantic. Another
    object is given back as it is where no value is in it.

    Raises:
        ToolFailed: a value is in an object of another kind; or the result cannot be looked through, because it is
            nested too deeply, holds too much, or is an iterator or an awaitable.
    """
    if depth > _DEEPEST:
        raise ToolFailed("the tool's result is nested too deeply to be looked through", "give back something flatter")
    if isinstance(value, str):
        raw = value.encode(errors="surrogatepass")
        found = scrubber.text(raw)
        return _itself(scrubber, value, "".join) if found == raw else found.decode(errors="replace")
    if isinstance(value, bytes | bytearray | memoryview):
        raw = bytes(value)
        found = scrubber.text(raw)
        return _itself(scrubber, value, bytes) if found == raw else found
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        if has_value(scrubber, value + 0):
            return scrubber.text(str(value + 0).encode()).decode()
        return _itself(scrubber, value, lambda plain: plain + 0)
    if isinstance(value, Mapping):
        made = {cleaned(scrubber, k, depth + 1): cleaned(scrubber, v, depth + 1) for k, v in value.items()}
        same = all(a is b for a, b in zip(made, value, strict=False)) and all(
            made[k] is value[k] for k in value if k in made
        )
        return _itself(scrubber, value, lambda _: made) if same and len(made) == len(value) else made
    if isinstance(value, list | tuple | set | frozenset):
        items = [cleaned(scrubber, item, depth + 1) for item in value]
        if all(a is b for a, b in zip(items, value, strict=True)):
            return _itself(scrubber, value, lambda _: items)
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return _object(scrubber, value, depth)


def _itself(scrubber: Scrubber, value: Any, plain: Callable[[Any], Any]) -> Any:
    """A value in whose items nothing was found; without what it holds besides, where something is in that."""
    if type(value) in EXACT:
        return value
    try:
        found = has_value(scrubber, list(attributes(value)))
    except TooMuch:
        found = True
    return plain(value) if found else value


def _object(scrubber: Scrubber, value: Any, depth: int) -> Any:
    made = value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        held = {
            field.name: getattr(value, field.name) for field in dataclasses.fields(value) if hasattr(value, field.name)
        }
        if changed := _changed(scrubber, held, depth):
            made = copy.copy(value)
            for name, clean in changed.items():
                object.__setattr__(made, name, clean)  # as a frozen one's own __init__ does
    elif callable(getattr(value, "model_copy", None)) and isinstance(
        getattr(type(value), "model_fields", None), Mapping
    ):
        held = {name: getattr(value, name) for name in type(value).model_fields} | (value.model_extra or {})
        if changed := _changed(scrubber, held, depth):
            made = value.model_copy(update=changed)
    kind = type(value).__name__
    try:
        if not has_value(scrubber, made):
            return made
    except TooMuch:
        raise ToolFailed(
            f"the tool's result cannot be looked through: a {kind} holds too much, or what is not there yet",
            "give back texts, lists and mappings; to give a stream, yield its pieces",
        ) from None
    raise ToolFailed(
        f"there is a credential in the {kind} that the tool gave back", "give back texts, lists and mappings"
    )


def _changed(scrubber: Scrubber, fields: Mapping[str, Any], depth: int) -> dict[str, Any]:
    made = {name: cleaned(scrubber, value, depth + 1) for name, value in fields.items()}
    return {name: made[name] for name, value in fields.items() if made[name] is not value}


def safe_error(scrubber: Scrubber, error: BaseException, kept: tuple[type[BaseException], ...] = ()) -> BaseException:
    """The error where no value is in it, its attributes, or what it came from; else one that says as much without.

    The local variables of the functions that it went through are forgotten: what reports errors may show them.

    Args:
        scrubber: of the values.
        error: what the tool raised.
        kept: kinds that mean something to who called the tool. One of them is made again with a scrubbed text.
    """
    for each in _chain(error):
        traceback.clear_frames(each.__traceback__)
    kind = type(error)
    try:
        if not has_value(scrubber, error, pending=True):
            return error
        hint = "the tool put a credential into its error"
    except TooMuch:
        hint = "the tool's error holds too much to be looked through"
    if not isinstance(error, Exception):
        return kind() if kind in {KeyboardInterrupt, SystemExit, GeneratorExit} else _again(scrubber, error, ())
    if isinstance(error, kept):
        return _again(scrubber, error, (_said(scrubber, error),))
    return ToolFailed(f"{kind.__name__}: {_said(scrubber, error)[:500]}", hint)


def _again(scrubber: Scrubber, error: BaseException, words: tuple[str, ...]) -> BaseException:
    try:
        made = type(error)(*words)
        if not has_value(scrubber, made):
            return made
    except Exception:  # noqa: BLE001, S110  # a kind that is made in another way, and has to be held back
        pass
    return ToolFailed(type(error).__name__, "the tool put a credential into its error")


def _said(scrubber: Scrubber, error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  # whatever it is, it says nothing
        return ""
    return scrubber.text(text.encode(errors="replace")).decode(errors="replace")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and all that it came from."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting and len(seen) < _DEEPEST:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += [each.__cause__, each.__context__, *getattr(each, "exceptions", ())]


class Pieces:
    """What a tool gives piece by piece: a value is found also where it goes over from one text to the next.

    Args:
        scrubber: of the values.
    """

    def __init__(self, scrubber: Scrubber) -> None:
        self._scrubber = scrubber
        self._stream = scrubber.stream()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held: type[str | bytes] | None = None

    def feed(self, item: Any) -> Iterator[Any]:
        """What can be passed on now. A text, or bytes, are held back as far as a value may begin in them."""
        kind = str if isinstance(item, str) else bytes if isinstance(item, bytes | bytearray | memoryview) else None
        if self._held is not kind:
            yield from self.finish()
        if kind is None:
            yield cleaned(self._scrubber, item)
            return
        self._held = kind
        raw = self._stream.feed(item.encode(errors="replace") if kind is str else bytes(item))
        piece = self._decoder.decode(raw) if kind is str else raw
        if piece:
            yield piece

    def finish(self) -> Iterator[str | bytes]:
        """The rest of what was held back."""
        if self._held is None:
            return
        raw = self._stream.finish()
        piece = self._decoder.decode(raw, final=True) if self._held is str else raw
        self._stream, self._held = self._scrubber.stream(), None
        self._decoder.reset()
        if piece:
            yield piece
