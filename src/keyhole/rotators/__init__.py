"""Shelf: how a value is replaced at its source. A member knows one kind of source; the order of steps is not its own.

    note = await rotator.prepare(world, old)       # what is there before, without a value; stored first
    new = await rotator.create(world, old)         # a new value beside the old one, which keeps working
    await rotator.verify(world, new)               # raises NotYet while the source does not know it everywhere
    …the new value is put in the place of the old one, and both work for a grace period…
    await rotator.revoke(world, old, by=new)       # or, when something failed: revoke(world, new, by=old)

Promises of a member:

1. ``create`` leaves the old value working; ``revoke`` takes back the value that it is given and no other.
2. ``revoke`` of what is gone already is done. It is called again when it failed, or when nobody knows whether it did.
   It raises ``Nameless`` for a value that it cannot find at the source at all.
3. ``abandon`` takes back whatever a ``create`` may have left whose answer nobody has: it knows the note of ``prepare``
   and ``World.attempt``, which no other attempt has. It returns false when it cannot, and a person is told.
4. It reaches the world through ``World`` only. Values are ``Secret``; none stands in an argument of a program, an
   environment, an error or a log.
5. ``needs`` names every secret, path and privilege that whoever writes the rotation has to have.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

from keyhole.core.errors import InvalidRequest, KeyholeError, TargetFailed
from keyhole.core.value import Secret

if TYPE_CHECKING:
    from keyhole.net.ask import Asks

MEMBERS = ("aws_iam", "command", "database", "http")
Settings = Mapping[str, Any]


class NotYet(TargetFailed):
    """The source does not know the new value yet; it is asked again in a moment."""


class Nameless(TargetFailed):
    """Nobody knows what names a value at its source, so a person has to take it back there."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value at its source.

    Attributes:
        fields: of the secret.
        handle: what names it at the source, such as the id of a key; never a value.
    """

    fields: Mapping[str, Secret]
    handle: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Needs:
    """What whoever writes a rotation has to have.

    Attributes:
        secrets: references ``path#field`` that it reads.
        paths: ``(operation, API path)`` that it asks.
        sudo: why it needs ``sudo``, in words; empty when it does not.
        server: it runs something on the server itself, which is for administrators of the org root.
        in_place: the source replaces and keeps the value itself: no secret is named, and nothing is kept beside.
    """

    secrets: tuple[str, ...] = ()
    paths: tuple[tuple[str, str], ...] = ()
    sudo: str = ""
    server: bool = False
    in_place: bool = False


@dataclass(frozen=True, slots=True)
class World:
    """What a member is given.

    Attributes:
        settings: as ``read`` gave them.
        now: seconds since the epoch.
        attempt: names this attempt, and no other; letters and digits.
        net: asks servers, through the guard.
        secret: opens a secret that the settings name by reference.
        ask: ``(operation, API path, data)`` of an engine of the org that ``needs`` has named.
        note: what ``prepare`` gave.
    """

    settings: Settings
    now: float
    attempt: str
    net: Asks
    secret: Callable[[str], Awaitable[Secret]]
    ask: Callable[[str, str, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
    note: Mapping[str, Any] = field(default_factory=dict)


class Rotator(Protocol):
    """What a member's module has."""

    def read(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Settings as they are stored. Raises ``InvalidRequest`` for what cannot work."""

    def needs(self, settings: Settings) -> Needs:
        """What whoever writes them has to have."""

    async def prepare(self, world: World, old: Value) -> dict[str, Any]:
        """What ``abandon`` will want to know. Raises ``KeyholeError`` when a rotation cannot begin."""

    async def create(self, world: World, old: Value) -> Value:
        """A new value: the fields that change."""

    async def verify(self, world: World, new: Value) -> None:
        """Return when it works. Raises ``NotYet`` for later, any other ``KeyholeError`` for never."""

    async def revoke(self, world: World, value: Value, by: Value) -> None:
        """Take a value back, with the help of one that works."""

    async def abandon(self, world: World, old: Value) -> bool:
        """Take back what an attempt may have made. True when nothing of it can be left."""


def load(name: str) -> Rotator:
    """The member of this name. Raises ``InvalidRequest`` when there is none."""
    if name not in MEMBERS:
        raise InvalidRequest(f"there is no rotator {name[:40]!r}", f"use one of: {', '.join(MEMBERS)}")
    return cast("Rotator", importlib.import_module(f"keyhole.rotators.{name}"))


def field_of(value: Value, name: str) -> Secret:
    """A field of a value. Raises ``InvalidRequest`` when the secret has none of this name."""
    found = value.fields.get(name)
    if found is None:
        raise InvalidRequest(f"the secret has no field {name!r}", "the rotator needs it: store it with --field")
    return found


def failed(what: str, error: KeyholeError | None = None) -> TargetFailed:
    """What a step says that has failed, without anything of what was answered."""
    return TargetFailed(f"{what}: {error.reason}" if error else what, "keyhole rotation show NAME says how it stands")
