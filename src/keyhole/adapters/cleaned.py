"""Results and errors of tools without the values that the tool was given."""

from __future__ import annotations

import codecs
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from keyhole.core.errors import KeyholeError
from keyhole.scrub import Scrubber

_DEEPEST = 100


class ToolFailed(KeyholeError):
    """A tool raised an error whose text had a credential in it; its kind and its text without it are in the reason."""

    code = "internal"
    status = 500


def cleaned(scrubber: Scrubber, value: Any, depth: int = 0) -> Any:
    """A result with every text of it scrubbed; the very object where nothing was found.

    Looked into are texts, bytes, mappings, lists, tuples, sets, dataclasses, and models of Pydantic. What else is
    given back (a number, an object of a library) is what it was.

    Raises:
        ToolFailed: it is nested too deeply to be looked through.
    """
    if depth > _DEEPEST:
        raise ToolFailed("the tool's result is nested too deeply to be looked through", "give back something flatter")
    if isinstance(value, str):
        found = scrubber.text(value.encode(errors="surrogatepass"))
        return value if found == value.encode(errors="surrogatepass") else found.decode(errors="replace")
    if isinstance(value, bytes | bytearray | memoryview):
        raw = bytes(value)
        found = scrubber.text(raw)
        return value if found == raw else found
    if isinstance(value, Mapping):
        made = {cleaned(scrubber, k, depth + 1): cleaned(scrubber, v, depth + 1) for k, v in value.items()}
        same = all(a is b for a, b in zip(made, value, strict=False)) and all(
            made[k] is value[k] for k in value if k in made
        )
        return value if same and len(made) == len(value) else made
    if isinstance(value, list | tuple | set | frozenset):
        items = [cleaned(scrubber, item, depth + 1) for item in value]
        if all(a is b for a, b in zip(items, value, strict=True)):
            return value
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return _object(scrubber, value, depth)


def _object(scrubber: Scrubber, value: Any, depth: int) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
        changed = _changed(scrubber, fields, depth)
        return dataclasses.replace(value, **changed) if changed else value
    copy, fields_of = getattr(value, "model_copy", None), getattr(type(value), "model_fields", None)
    if callable(copy) and isinstance(fields_of, Mapping):
        changed = _changed(scrubber, {name: getattr(value, name) for name in fields_of}, depth)
        return copy(update=changed) if changed else value
    return value


def _changed(scrubber: Scrubber, fields: Mapping[str, Any], depth: int) -> dict[str, Any]:
    made = {name: cleaned(scrubber, value, depth + 1) for name, value in fields.items()}
    return {name: made[name] for name, value in fields.items() if made[name] is not value}


def safe_error(scrubber: Scrubber, error: BaseException) -> BaseException:
    """The error where no text of it, or of what it came from, has a value; else one that says as much without."""
    seen: BaseException | None = error
    for _ in range(_DEEPEST):
        if seen is None:
            return error
        text = f"{seen}\n{seen!r}\n{seen.args!r}\n{getattr(seen, '__notes__', '')!r}".encode(errors="replace")
        if scrubber.text(text) != text:
            said = scrubber.text(str(error).encode(errors="replace")).decode(errors="replace")
            return ToolFailed(f"{type(error).__name__}: {said[:500]}", "the tool put a credential into its error")
        seen = seen.__cause__ or seen.__context__
    return ToolFailed(type(error).__name__, "the tool's error came from too many others to be looked through")


class Pieces:
    """What a tool gives piece by piece: a value is found also where it goes over from one text to the next.

    Args:
        scrubber: of the values.
    """

    def __init__(self, scrubber: Scrubber) -> None:
        self._scrubber = scrubber
        self._stream = scrubber.stream()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = False

    def feed(self, item: Any) -> Iterator[Any]:
        """What can be passed on now. A text is held back as far as a value may begin in it."""
        if isinstance(item, str):
            self._held = True
            text = self._decoder.decode(self._stream.feed(item.encode(errors="replace")))
            if text:
                yield text
            return
        yield from self.finish()
        yield cleaned(self._scrubber, item)

    def finish(self) -> Iterator[str]:
        """The rest of what was held back."""
        if self._held:
            text = self._decoder.decode(self._stream.finish(), final=True)
            self._stream, self._held = self._scrubber.stream(), False
            self._decoder.reset()
            if text:
                yield text
