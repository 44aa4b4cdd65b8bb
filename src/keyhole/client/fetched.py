"""Values that the clients of this process have fetched, for what keeps its logs clean of them.

A client holds what it fetched, bounded, as long as it lives; here it is known by a weak reference only. What is fetched
for one call of a tool is told to nobody unless somebody listens.
"""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

from keyhole.core.value import Secret

_MOST = 512  # values of one client; the oldest are forgotten first

_lock = threading.Lock()
_holders: weakref.WeakSet[Fetched] = weakref.WeakSet()
_listeners: weakref.WeakSet[Any] = weakref.WeakSet()


class Fetched:
    """The values of one client.

    Attributes:
        version: grows with each new value.
    """

    def __init__(self) -> None:
        self._values: OrderedDict[bytes, Secret] = OrderedDict()
        self.version = 0
        with _lock:
            _holders.add(self)

    def __repr__(self) -> str:
        return "Fetched(***)"

    def values(self) -> list[Secret]:
        """All of them."""
        with _lock:
            return list(self._values.values())

    def note(self, value: Any) -> None:
        """Keep every text in a value, a mapping or a list."""
        for text in _texts(value):
            self._add(text)

    def note_answer(self, path: str, data: Mapping[str, Any], *, leased: bool) -> None:
        """Keep the values in what was read at an API path: of versioned secrets, of drawers, and what was leased."""
        if leased or path.startswith("cubbyhole/"):
            self.note(data)
        elif "/data/" in path and isinstance(data.get("data"), Mapping):
            self.note(data["data"])

    def _add(self, text: str | bytes) -> None:
        raw = text.encode(errors="surrogatepass") if isinstance(text, str) else text
        name = hashlib.sha256(raw).digest()
        with _lock:
            if name in self._values:
                self._values.move_to_end(name)
                return
            self._values[name] = Secret(raw)
            self.version += 1
            if len(self._values) > _MOST:
                self._values.popitem(last=False)


def holders() -> list[Fetched]:
    """What the clients of this process hold."""
    with _lock:
        return list(_holders)


def listen(listener: Any) -> None:
    """Say that somebody keeps logs clean, as long as he lives."""
    with _lock:
        _listeners.add(listener)


def is_heard() -> bool:
    """Whether somebody does."""
    return bool(_listeners)


def _texts(value: Any, depth: int = 0) -> Iterator[str | bytes]:
    if isinstance(value, str | bytes):
        yield value
    elif isinstance(value, Mapping) and depth < 16:
        for each in value.values():
            yield from _texts(each, depth + 1)
    elif isinstance(value, list | tuple) and depth < 16:
        for each in value:
            yield from _texts(each, depth + 1)
