"""Shelf: where a repo vault travels. Besides git, which is a world of its own, a member keeps objects and one head.

    remote = load("folder", "/mnt/team/vault")
    remote.put("objects/" + digest, data)                     # refused when it is there already
    found = remote.get("head", most=4096)                     # bytes, and a tag that stands for exactly these bytes
    remote.put("head", changed, expected=found.tag)           # refused when somebody was faster

Promises of a member of ``OBJECTS``:

1. Names are ``head`` and ``objects/SHA256``, and nothing else. What it keeps is bytes; it reads nothing out of them.
2. ``put`` is atomic, also between processes and machines: of two that expect the same tag one wins, and the other gets
   ``Conflict``. There is no write without a condition. It returns once the bytes are durable there.
3. ``get`` gives whole objects of at most so many bytes, or nothing. What is larger is refused before it is held.
4. It believes nothing: whether bytes are what they should be is judged by who asked for them.
5. Credentials are found where the store's own tools find them. None is stored, and none is in an error.
6. A store that cannot be reached is ``Unreachable``; after it the same call can be made again.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from keyhole.core.errors import Conflict, InternalError, InvalidRequest

MEMBERS = ("git", "folder", "object", "server")
OBJECTS = ("folder", "object", "server")
_NAME = re.compile(r"head|objects/[0-9a-f]{64}")
_AT_ONCE = 8
T = TypeVar("T")
Ask = Callable[[str, str, Mapping[str, Any]], Mapping[str, Any]]
"""``(operation, path, data)`` to the fields of a server's answer; raises what the server refuses with."""


@dataclass(frozen=True, slots=True)
class Found:
    """What lies in a remote.

    Attributes:
        data: the bytes.
        tag: stands for them in the condition of a ``put``.
    """

    data: bytes
    tag: str


class Remote(Protocol):
    """The contract. ``slow``: each call waits for a network, so several are made at once."""

    slow: bool

    def get(self, name: str, most: int) -> Found | None:
        """What lies there; ``None`` for nothing.

        Raises:
            IntegrityError: it is larger than ``most`` bytes, or no plain object.
            Unreachable: the store cannot be asked.
            PolicyDenied: it refuses.
        """

    def list(self) -> list[str]:
        """The digests of all objects, bounded. Raises the same."""

    def put(self, name: str, data: bytes, expected: str = "") -> str:
        """Store it if what lies there has the tag ``expected``, or, for an empty one, if nothing does; gives its tag.

        Raises:
            Conflict: something else lies there.
            Unreachable: the store cannot be asked. It may have been stored.
            PolicyDenied: it refuses.
        """

    def close(self) -> None:
        """Let connections go."""


@runtime_checkable
class Many(Protocol):
    """What a member has besides that takes several objects in one message."""

    def get_many(self, wanted: Mapping[str, int]) -> dict[str, bytes]:
        """Objects by digest, each of at most so many bytes; what is not there is left out."""

    def put_many(self, objects: Mapping[str, bytes]) -> None:
        """Store objects by digest; what is there already stays."""


def load(kind: str, where: str, ask: Ask | None = None) -> Remote:
    """The remote of a kind.

    Args:
        kind: a member of ``OBJECTS``.
        where: the member's own way to say it: a path, a URL.
        ask: for ``server``: asks that server.

    Raises:
        InvalidRequest: it is not on this shelf, or ``where`` cannot be.
    """
    if kind not in OBJECTS:
        raise InvalidRequest(f"there is no kind of remote {kind!r}", f"use one of: {', '.join(OBJECTS)}")
    module = importlib.import_module(f"keyhole.remotes.{kind}")
    remote: Remote = module.make(where, ask) if kind == "server" else module.make(where)
    return remote


def check_name(name: str) -> str:
    """A name that a remote may be asked for."""
    if not _NAME.fullmatch(name):
        raise InternalError("that is no name of an object")
    return name


def get_all(remote: Remote, wanted: Mapping[str, int]) -> dict[str, bytes]:
    """Objects by digest, each of at most so many bytes; what is not there is left out. Raises what ``get`` raises."""
    if isinstance(remote, Many):
        return remote.get_many(wanted)
    found = _each(remote, lambda digest: remote.get(f"objects/{digest}", wanted[digest]), wanted)
    return {digest: item.data for digest, item in found if item is not None}


def put_all(remote: Remote, objects: Mapping[str, bytes]) -> None:
    """Store objects by digest; what is there already stays. Raises what ``put`` raises but ``Conflict``."""
    if isinstance(remote, Many):
        remote.put_many(objects)
        return

    def put(digest: str) -> None:
        try:
            remote.put(f"objects/{digest}", objects[digest])
        except Conflict:  # of the same name, so of the same bytes; who reads it compares
            return

    _each(remote, put, objects)


def _each(remote: Remote, work: Callable[[str], T], digests: Iterable[str]) -> list[tuple[str, T]]:
    names = list(digests)
    if not remote.slow or len(names) < 2:
        return [(name, work(name)) for name in names]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(zip(names, pool.map(work, names), strict=True))
