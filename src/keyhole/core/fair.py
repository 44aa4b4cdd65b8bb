"""Fair to tenants: lines in which they take turns, and caches in which none pushes out what is another's.

A tenant is an org, or an address while nobody knows who asks; its members are agents. Pure: who waits, and for how
long, is the caller's concern.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from contextvars import ContextVar
from typing import Generic, TypeVar

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

ASKING: ContextVar[tuple[str, str]] = ContextVar("ASKING", default=("", ""))
"""For whom the running task works: id of an org, and name of a caller. Set by who authenticated a request."""


class FairQueue(Generic[T]):
    """What waits. Tenants take turns, and within a tenant its members do, each of them first come first served.

    Where too much waits, who has most in the line loses its last place to who has less.

    Args:
        each: how much may wait of one tenant.
        most: how much may wait in all.
    """

    __slots__ = ("_all", "_each", "_lines", "_most", "_sizes")

    def __init__(self, each: int, most: int) -> None:
        self._each = each
        self._most = most
        self._lines: OrderedDict[str, OrderedDict[str, deque[T]]] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self._all = 0

    def __len__(self) -> int:
        return self._all

    def waiting(self, tenant: str) -> int:
        """How much waits of a tenant."""
        return self._sizes.get(tenant, 0)

    def put(self, tenant: str, member: str, item: T) -> T | None:
        """Let something wait.

        Returns:
            What there is no room for: the item itself, or one that waited and does so no longer; ``None`` when there is
            room for all.
        """
        out = None
        if self._sizes.get(tenant, 0) >= self._each:
            out = self._crowd_out(tenant, len(self._lines[tenant].get(member, ())))
        elif self._all >= self._most:
            largest = max(self._sizes, key=lambda each: self._sizes[each], default=tenant)
            if self._sizes.get(largest, 0) > self._sizes.get(tenant, 0):
                out = self._crowd_out(largest, 0)
            elif tenant in self._lines:
                out = self._crowd_out(tenant, len(self._lines[tenant].get(member, ())))
            else:
                return item
        else:
            self._append(tenant, member, item)
            return None
        if out is None:
            return item
        self._append(tenant, member, item)
        return out

    def _append(self, tenant: str, member: str, item: T) -> None:
        members = self._lines.get(tenant)
        if members is None:
            members = self._lines[tenant] = OrderedDict()
        line = members.get(member)
        if line is None:
            line = members[member] = deque()
        line.append(item)
        self._sizes[tenant] = self._sizes.get(tenant, 0) + 1
        self._all += 1

    def _crowd_out(self, tenant: str, least: int) -> T | None:
        """What waits last in a tenant's longest line, if that is longer than ``least``."""
        members = self._lines[tenant]
        member = max(members, key=lambda each: len(members[each]))
        if len(members[member]) <= least:
            return None
        item = members[member].pop()
        self._tidy(tenant, member)
        return item

    def take(self, may: Callable[[str], bool] | None = None) -> tuple[str, T] | None:
        """The next one with its tenant, of those tenants that ``may``; ``None`` when there is none."""
        lines = self._lines
        tenant = next(iter(lines) if may is None else filter(may, lines), None)
        if tenant is None:
            return None
        members = lines[tenant]
        member, line = next(iter(members.items()))
        item = line.popleft()
        if not line:
            del members[member]
        elif len(members) > 1:
            members.move_to_end(member)
        self._shrink(tenant)
        if len(lines) > 1 and tenant in lines:
            lines.move_to_end(tenant)
        return tenant, item

    def remove(self, tenant: str, member: str, item: T) -> bool:
        """Let something wait no longer; whether it did."""
        line = self._lines[tenant].get(member) if tenant in self._lines else None
        if line is None or item not in line:
            return False
        line.remove(item)
        self._tidy(tenant, member)
        return True

    def _tidy(self, tenant: str, member: str) -> None:
        if not self._lines[tenant][member]:
            del self._lines[tenant][member]
        self._shrink(tenant)

    def _shrink(self, tenant: str) -> None:
        self._sizes[tenant] -= 1
        self._all -= 1
        if not self._sizes[tenant]:
            del self._sizes[tenant], self._lines[tenant]


class FairCache(Generic[K, T]):
    """A cache of so many entries. When there are too many, the tenant that has most loses what it used least lately.

    So whoever fills it pushes out its own, and others keep theirs.
    """

    __slots__ = ("_most", "_of", "_size")

    def __init__(self, most: int) -> None:
        self._most = most
        self._of: dict[str, OrderedDict[K, T]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def get(self, tenant: str, key: K) -> T | None:
        """What is kept, which counts as used."""
        kept = self._of.get(tenant)
        if kept is None or (found := kept.get(key)) is None:
            return None
        kept.move_to_end(key)
        return found

    def put(self, tenant: str, key: K, item: T) -> T | None:
        """Keep something, as used now; what had to go for it, if anything."""
        kept = self._of.setdefault(tenant, OrderedDict())
        self._size += key not in kept
        kept[key] = item
        kept.move_to_end(key)
        return self._drop() if self._size > self._most else None

    def pop(self, tenant: str, key: K) -> T | None:
        """Keep something no longer; what it was, if it was there."""
        kept = self._of.get(tenant)
        if kept is None or key not in kept:
            return None
        return self._taken(tenant, kept.pop(key))

    def values(self) -> list[T]:
        """Everything that is kept."""
        return [item for kept in self._of.values() for item in kept.values()]

    def _drop(self) -> T:
        tenant = max(self._of, key=lambda each: len(self._of[each]))
        return self._taken(tenant, self._of[tenant].popitem(last=False)[1])

    def _taken(self, tenant: str, item: T) -> T:
        self._size -= 1
        if not self._of[tenant]:
            del self._of[tenant]
        return item
