"""A rotation as it is stored: what it is to do, how far it has come, and, while it is under way, both values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from keyhole.core.times import format_time
from keyhole.core.value import Secret
from keyhole.rotators import Value


class Step(StrEnum):
    """How far a rotation has come. Each is stored before what it names is done.

    ``idle``: nothing is under way. ``making``: a new value may be there that nobody knows. ``cleaning``: what an
    attempt has left is being removed. ``made``: the new value is stored, and is being tried. ``verified``: it works,
    and takes the place of the old one. ``grace``: it has, and both work. ``revoking``: the old one is being taken back.
    ``undoing``: the new one is, and the old one stays.
    """

    IDLE = "idle"
    MAKING = "making"
    CLEANING = "cleaning"
    MADE = "made"
    VERIFIED = "verified"
    GRACE = "grace"
    REVOKING = "revoking"
    UNDOING = "undoing"


@dataclass(slots=True)
class Rotation:
    """What is stored at ``r/NAME``. Times are seconds since the epoch, 0 for never.

    Attributes:
        secret: path of the secret in ``secret/``; empty where the source keeps the value itself.
        rotator: member of the shelf.
        settings: for it.
        every: seconds from one new value to the next; 0 for only when somebody asks.
        grace: seconds for which the old value goes on working.
        made: when it was written.
        step: see ``Step``.
        attempt: names the attempt that is under way.
        note: of ``Rotator.prepare``.
        version: of the secret on which the attempt stands.
        began: when the attempt did.
        until: end of the grace.
        claimed: until then somebody is at it.
        next: not tried again before.
        tries: failed ones of this step.
        failures: attempts that have failed since one succeeded.
        error: why, of the last failure that still matters.
        last: when there was a new value.
        handle: what names the present value at its source.
        placed: the version of the secret that has this value; 0 for whichever it is.
        hurry: no grace this time.
        left: what may have stayed alive at the source, for a person to look.
    """

    secret: str
    rotator: str
    settings: dict[str, Any]
    every: int = 0
    grace: int = 0
    made: float = 0.0
    step: str = Step.IDLE
    attempt: str = ""
    note: dict[str, Any] = field(default_factory=dict)
    version: int = 0
    began: float = 0.0
    until: float = 0.0
    claimed: float = 0.0
    next: float = 0.0
    tries: int = 0
    failures: int = 0
    error: str = ""
    last: float = 0.0
    handle: dict[str, str] = field(default_factory=dict)
    placed: int = 0
    hurry: bool = False
    left: list[str] = field(default_factory=list)

    def encode(self) -> bytes:
        """JSON."""
        return json.dumps(asdict(self)).encode()

    @property
    def due(self) -> float | None:
        """When somebody is to look at it; ``None`` for never."""
        if self.claimed:
            return self.claimed
        if self.step == Step.GRACE:
            return self.until
        if self.step != Step.IDLE:
            return self.next
        if not self.every:
            return None
        return self.next or (self.last or self.made) + self.every

    def shown(self, name: str) -> dict[str, Any]:
        """What a reader sees."""
        due = self.due if self.step == Step.IDLE else None
        return {
            "name": name,
            "secret": self.secret,
            "rotator": self.rotator,
            "settings": self.settings,
            "every": self.every,
            "grace": self.grace,
            "step": self.step,
            "rotated_at": _time(self.last),
            "next_at": _time(due or 0.0),
            "grace_until": _time(self.until) if self.step == Step.GRACE else None,
            "failures": self.failures,
            "error": self.error,
            "left": self.left,
        }


@dataclass(slots=True)
class Both:
    """What is stored at ``v/NAME`` while a rotation is under way.

    Attributes:
        secret: path of the secret.
        old: the value that is to be replaced.
        new: the fields that replace some of it, once they are made.
    """

    secret: str
    old: Value
    new: Value | None = None

    @property
    def whole(self) -> Value:
        """The new value with the fields that stay."""
        if self.new is None:
            return self.old
        return Value({**self.old.fields, **self.new.fields}, self.new.handle)

    def lies_in(self, fields: Mapping[str, Secret], value: Value) -> bool:
        """Has a secret this one of both values? Fields that stay, or were put beside since, do not matter."""
        names = self.new.fields if self.new is not None else self.old.fields
        return all(fields.get(name) == value.fields.get(name) for name in names)

    def replaced(self) -> dict[tuple[str, str], tuple[Secret, ...]]:
        """Both values of each field that changes, by path and field."""
        new = self.new.fields if self.new is not None else {}
        pairs = {name: (self.old.fields.get(name), value) for name, value in new.items()}
        return {
            (self.secret, name): tuple(each for each in pair if each is not None)
            for name, pair in pairs.items()
            if pair[0] != pair[1]
        }

    def encode(self) -> bytes:
        """JSON, to be sealed in the store."""
        values = {"old": _opened(self.old), "new": _opened(self.new) if self.new is not None else None}
        return json.dumps({"secret": self.secret, **values}).encode()

    @classmethod
    def decode(cls, data: bytes) -> Both:
        """What ``encode`` wrote."""
        stored = json.loads(data)
        return cls(stored["secret"], _value(stored["old"]), _value(stored["new"]) if stored["new"] else None)


def _opened(value: Value) -> dict[str, Any]:
    fields = {name: secret.reveal().decode() for name, secret in value.fields.items()}
    return {"fields": fields, "handle": dict(value.handle)}


def _value(stored: Mapping[str, Any]) -> Value:
    return Value({name: Secret(text) for name, text in stored["fields"].items()}, stored["handle"])


def _time(seconds: float) -> str | None:
    return format_time(seconds) if seconds else None
