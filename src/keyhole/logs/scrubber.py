"""Takes credentials out of texts and of the values that structured logs are made of."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from keyhole.client import fetched
from keyhole.core.errors import InvalidRequest
from keyhole.core.value import Secret
from keyhole.scrub.shapes import finder

from .known import Growing, Span

WITHHELD = "[withheld: it could not be looked through for credentials]"
_DEEPEST = 32
_MOST = 1024  # fetched values of one client that stay compiled, after which the forgotten ones go
_PLAIN = (bool, type(None))
_SHOWN = frozenset((str, bytes, bytearray, memoryview, int, float, dict, list, tuple, set, frozenset))

Values = Secret | str | bytes


class LogScrubber:
    """Knows values and shapes, and masks them with ``*`` of the same length.

    It holds what it looks for, compiled, as long as it lives. Share one; it may be used by several threads.

    Args:
        values: what is known: ``Secret``, text, bytes, or a function that gives some of them and is asked once.
        env: names of environment variables with a value; looked at again when they change.
        fetched: also what clients of this process have fetched from the vault, and tools were given, while the client
            lives; whatever they fetch later, too.
        shapes: also what looks like a credential.

    Raises:
        InvalidRequest: something is no value.
    """

    def __init__(
        self,
        values: Iterable[Values | Callable[[], Any]] = (),
        *,
        env: Iterable[str] = (),
        fetched: bool = True,
        shapes: bool = True,
    ) -> None:
        self._lock = threading.RLock()
        self._own = Growing()
        self._env: dict[str, str | None] = dict.fromkeys(env)
        self._fetched = fetched
        self._of_clients: weakref.WeakKeyDictionary[Any, tuple[int, Growing]] = weakref.WeakKeyDictionary()
        self._find = finder().find if shapes else None
        self.add(*values)
        if fetched:
            _listen(self)

    def __repr__(self) -> str:
        return "LogScrubber(***)"

    def add(self, *values: Values | Callable[[], Any]) -> None:
        """Know more values. Raises ``InvalidRequest`` for what is none."""
        found = [raw for value in values for raw in _raw(value)]
        with self._lock:
            self._own.add(found)

    def text(self, text: str) -> str:
        """A text without credentials; the very same where there is none. Never raises."""
        try:
            raw = text.encode(errors="surrogatepass")
            clean = self._masked(raw, b"")
            return text if clean is raw else _decoded(clean)
        except Exception:  # noqa: BLE001  # it is not to be seen, and the application is not to notice
            return WITHHELD

    def data(self, data: bytes) -> bytes:
        """The same for bytes."""
        try:
            return self._masked(data, b"")
        except Exception:  # noqa: BLE001  # as above
            return WITHHELD.encode()

    def line(self, text: str) -> str:
        """A line of a log, which stays JSON if it was: a number that is a value becomes a text."""
        clean = self.text(text)
        if clean == text or text.lstrip()[:1] not in {"{", "["}:
            return clean
        try:
            given = json.loads(text)
        except (ValueError, RecursionError):
            return clean
        try:
            json.loads(clean)
        except (ValueError, RecursionError):
            return json.dumps(self.value(given), ensure_ascii=False)
        return clean

    def value(self, value: Any, name: str = "") -> Any:
        """A value of a structured log: texts, bytes, numbers, and mappings and lists of them.

        Of another object, whatever its text shows counts; the very same is given where there is nothing. Never raises.

        Args:
            value: to be looked through.
            name: under which it stands, by which a password is known.
        """
        try:
            return self._value(value, name, 0)
        except Exception:  # noqa: BLE001  # as above
            return WITHHELD

    def is_known(self, text: str) -> bool:
        """Whether a known value stands there; what only looks like a credential does not count."""
        return bool(self._known(text.encode(errors="surrogatepass")))

    def _value(self, value: Any, name: str, depth: int) -> Any:
        if isinstance(value, _PLAIN) or depth > _DEEPEST:
            return value if depth <= _DEEPEST else WITHHELD
        if not _is_plain(value):  # its own text need not be what is in it
            found = self._contained(value, name, depth)
            return self._shown(value) if found is value else found
        return self._contained(value, name, depth)

    def _contained(self, value: Any, name: str, depth: int) -> Any:
        if isinstance(value, str):
            raw = value.encode(errors="surrogatepass")
            clean = self._masked(raw, name.encode(errors="surrogatepass"))
            return value if clean is raw else _decoded(clean)
        if isinstance(value, bytes):
            return self._masked(value, b"")
        if isinstance(value, memoryview | bytearray):
            data = bytes(value)
            clean = self._masked(data, b"")
            return value if clean is data else clean
        if isinstance(value, int | float):
            text = repr(value)
            found = self.text(text)
            return value if found == text else found
        if isinstance(value, Mapping):
            return self._mapping(value, depth)
        if isinstance(value, list | tuple | set | frozenset):
            items = [self._value(each, name, depth + 1) for each in value]
            if all(a is b for a, b in zip(items, value, strict=True)):
                return value
            return items if type(value) not in {tuple, set, frozenset} else type(value)(items)
        return self._fields(value, depth)

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> Any:
        made = {
            self._value(key, "", depth + 1): self._value(each, key if isinstance(key, str) else "", depth + 1)
            for key, each in value.items()
        }
        same = len(made) == len(value) and all(
            k is key and made[k] is each for k, (key, each) in zip(made, value.items(), strict=True)
        )
        return value if same else made

    def _fields(self, value: Any, depth: int) -> Any:
        if not dataclasses.is_dataclass(value) or isinstance(value, type):
            return value
        fields = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
        found = self._mapping(fields, depth + 1)
        return value if found is fields else found

    def _shown(self, value: Any) -> Any:
        """The very same, unless its text or what programmers see of it has something."""
        text = str(value)
        shown = f"{text}\n{value!r}"
        return value if self.text(shown) == shown else self.text(text)

    def _masked(self, raw: bytes, name: bytes) -> bytes:
        """The very same bytes where there is nothing to mask."""
        spans = self._known(raw)
        if self._find is not None:
            before = name + b'="' if name else b""
            shift = len(before)
            text = before + raw + b'"' if name else raw
            spans += [
                (max(each.start - shift, 0), each.end - shift) for each in self._find(text, None) if each.end > shift
            ]
        if not spans:
            return raw
        masked = bytearray(raw)
        for begin, end in spans:
            masked[begin:end] = b"*" * (min(end, len(raw)) - begin)
        return bytes(masked)

    def _known(self, raw: bytes) -> list[Span]:
        self._look_around()
        spans = self._own.spans(raw)
        for _, known in list(self._of_clients.values()):
            spans += known.spans(raw)
        return spans

    def _look_around(self) -> None:
        """Take up what has come since."""
        for name, seen in self._env.items():
            value = os.environ.get(name)
            if value != seen and value:
                with self._lock:
                    self._env[name] = value
                    self._own.add([value.encode(errors="surrogateescape")])
        if not self._fetched:
            return
        for holder in fetched.holders():
            known = self._of_clients.get(holder)
            if known is None or known[0] != holder.version:
                with self._lock:
                    version = holder.version
                    growing = known[1] if known is not None and len(known[1]) < _MOST else Growing()
                    growing.add(secret.reveal() for secret in holder.values())
                    self._of_clients[holder] = version, growing


def _is_plain(value: Any) -> bool:
    """Whether its text is made of what is in it, by Python itself."""
    return type(value) in _SHOWN


def _listen(scrubber: LogScrubber) -> None:
    fetched.listen(scrubber)


def _raw(value: Any) -> Iterable[bytes]:
    if isinstance(value, Secret):
        yield value.reveal()
    elif isinstance(value, str):
        yield value.encode(errors="surrogatepass")
    elif isinstance(value, bytes):
        yield value
    elif callable(value):
        given = value()
        for each in given if isinstance(given, list | tuple | set | frozenset) else (given,):
            yield from _raw(each)
    else:
        raise InvalidRequest(
            f"a value to be scrubbed is a Secret, a text, bytes or a function, and not {type(value).__name__}",
            "LogScrubber([value, …], env=[NAME, …])",
        )


def _decoded(clean: bytes) -> str:
    try:
        return clean.decode(errors="surrogatepass")
    except UnicodeDecodeError:
        return clean.decode(errors="replace")
