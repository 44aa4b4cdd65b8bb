"""Mappings that never change, of which another one with few differences costs as much as these, however many there are.

    services = Layered({"a": 1, "c": 3})
    later = services.changed(["a"], {"b": 2})     # {"b": 2, "c": 3}; services is what it was

Differences lie above what they differ from, until there are so many that all is written out again.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any, TypeVar, overload

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

_MOST = 256  # differences
_GONE: Any = object()
_NOTHING: Any = object()


class Layered(Mapping[K, V]):
    """A mapping that never changes.

    Args:
        base: what is in it.
        ordered: it goes by its keys in their order, also when others come; else those that come are the last.
    """

    __slots__ = ("_above", "_base", "_flat", "_ordered")

    def __init__(self, base: Mapping[K, V] | None = None, *, ordered: bool = False) -> None:
        self._ordered = ordered
        self._above: dict[K, V] = {}
        self._base: dict[K, V] = dict(base or {})
        self._flat: dict[K, V] | None = self._sorted(self._base)

    def changed(self, gone: Iterable[K], come: Mapping[K, V]) -> Layered[K, V]:
        """Another one, without some keys, and then with others."""
        other: Layered[K, V] = Layered(ordered=self._ordered)
        other._base, other._flat = self._base, None
        other._above = {**self._above, **dict.fromkeys(gone, _GONE), **come}
        if len(other._above) > _MOST:
            other._base, other._above = other._whole(), {}
        return other

    def differences(self, before: Layered[K, V]) -> tuple[set[K], set[K]]:
        """Keys that another one has and this one has not, and those that only this one has."""
        if self._base is before._base:
            keys = self._above.keys() | before._above.keys()
            mine, its = {key for key in keys if key in self}, {key for key in keys if key in before}
        else:
            mine, its = set(self._whole()), set(before._whole())
        return its - mine, mine - its

    @overload
    def get(self, key: K, /) -> V | None: ...
    @overload
    def get(self, key: K, /, default: V | D) -> V | D: ...
    def get(self, key: K, /, default: Any = None) -> Any:
        """What a key stands for."""
        found = self._above.get(key, _NOTHING)
        if found is _NOTHING:
            return self._base.get(key, default)
        return default if found is _GONE else found

    def __getitem__(self, key: K) -> V:
        found = self.get(key, _GONE)
        if found is _GONE:
            raise KeyError(key)
        return found

    def __contains__(self, key: object) -> bool:
        return self.get(key, _GONE) is not _GONE  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[K]:
        return iter(self._whole())

    def __len__(self) -> int:
        return len(self._whole())

    def keys(self) -> KeysView[K]:
        """As of a ``dict``; so are the other two."""
        return self._whole().keys()

    def values(self) -> ValuesView[V]:
        """What the keys stand for."""
        return self._whole().values()

    def items(self) -> ItemsView[K, V]:
        """Both."""
        return self._whole().items()

    def _whole(self) -> dict[K, V]:
        """All of it, written out once for all who go through it."""
        if self._flat is None:
            all_of_it = {**self._base, **self._above}.items()
            self._flat = self._sorted({key: value for key, value in all_of_it if value is not _GONE})
        return self._flat

    def _sorted(self, found: dict[K, V]) -> dict[K, V]:
        if not self._ordered:
            return found
        keys: list[Any] = list(found)
        keys.sort()
        return dict(zip(keys, map(found.__getitem__, keys), strict=True))
