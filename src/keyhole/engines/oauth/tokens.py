"""What a connection has been given: its tokens, how it stands, and the request for new ones that is under way.

One entry of the store for each connection, ``t/NAME``. A token request begins with a write that claims it, so that of
all tasks and processes one asks; every write expects the revision that was read, which is the fence: whoever comes late
finds that it was overtaken.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from keyhole.core.value import Secret
from keyhole.engines import Context

NONE, CONNECTED, CONSENT, REFUSED = "not connected", "connected", "needs consent", "refused"
CLAIM = 25.0
"""Seconds for which a token request under way is waited for; longer than one can take (``net.ask.AskLimits``)."""

_EARLY = 300.0  # seconds before its end at which a token is refreshed by itself, of long-lived ones
_LATE = 30.0  # seconds before its end at which whoever needs it refreshes it
_REMINDED = 86_400.0


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one connection. Times are seconds since the epoch.

    Attributes:
        access: what is lent.
        until: when it ends; 0 when the provider did not say.
        obtained: when it was got.
        refresh: the refresh token; single-use at many providers.
        scopes: as granted.
        family: names one consent.
        status: one of ``NONE``, ``CONNECTED``, ``CONSENT``, ``REFUSED``.
        why: the last thing that went wrong, in words without a value.
        number: how many requests for tokens were begun.
        claimed: until when the one under way is waited for; 0 for none.
        again: the one under way repeats one whose answer was lost.
        lost: an answer may have been lost since the last one that was read.
        failures: in a row.
        next: nobody asks before.
        alarmed: when somebody was last told that it needs help.
        pushed: when it was last refreshed because an API refused the token.
        pushes: how often in a row.
    """

    access: str = field(default="", repr=False)
    until: float = 0.0
    obtained: float = 0.0
    refresh: str = field(default="", repr=False)
    scopes: tuple[str, ...] = ()
    family: str = ""
    status: str = NONE
    why: str = ""
    number: int = 0
    claimed: float = 0.0
    again: bool = False
    lost: bool = False
    failures: int = 0
    next: float = 0.0
    alarmed: float = 0.0
    pushed: float = 0.0
    pushes: int = 0

    def encode(self) -> bytes:
        """As it is stored."""
        return json.dumps(asdict(self)).encode()

    @property
    def brought(self) -> tuple[object, ...]:
        """What differs after every answer that brought tokens."""
        return self.access, self.obtained

    def usable(self, now: float) -> bool:
        """Is the access token still good, as far as it says?"""
        return bool(self.access) and (not self.until or self.until > now)

    def fresh(self, now: float) -> bool:
        """Is it good for long enough to be lent without asking for another?"""
        return self.usable(now) and (not self.until or self.until - min(_LATE, self._life / 10) > now)

    def cut_off(self, now: float) -> bool:
        """Did whoever asked last go away without an end?"""
        return 0 < self.claimed <= now

    @property
    def _life(self) -> float:
        return max(self.until - self.obtained, 1.0)

    def soon(self) -> float:
        """When it is refreshed by itself; many that were got at once are not all refreshed at once."""
        if not self.until:
            return 0.0
        spread = hashlib.sha256(f"{self.family}{self.number}".encode()).digest()[0] / 255
        return max(self.until - min(_EARLY, self._life / 5) * (1 + spread / 4), self.next)

    def due(self, *, renewable: bool) -> float | None:
        """When something has to happen; ``None`` for never."""
        if self.claimed:
            return self.claimed
        if self.status in {CONSENT, REFUSED}:
            return self.alarmed + _REMINDED if self.alarmed else self.obtained
        return self.soon() or None if self.status == CONNECTED and renewable else None

    def ended(self, status: str, why: str, now: float) -> Tokens:
        """The same after its provider has said no; somebody is told at the next sweep."""
        return replace(self, status=status, why=why, claimed=0.0, again=False, alarmed=0.0, next=now)


def decode(data: bytes | None) -> Tokens:
    """What is stored."""
    if data is None:
        return Tokens()
    fields: dict[str, Any] = json.loads(data)
    return Tokens(**{**fields, "scopes": tuple(fields["scopes"])})


def path_of(name: str) -> str:
    """Where the tokens of a connection lie."""
    return f"t/{name}"


async def load(context: Context, name: str) -> tuple[Tokens, int]:
    """The tokens of a connection and the revision of their entry."""
    item = await context.storage.get_one(path_of(name))
    return decode(item.data), item.revision


def forgiven(tokens: Tokens) -> Tokens:
    """The same after something was corrected: its provider may be asked again at once."""
    status = CONNECTED if tokens.access or tokens.refresh else NONE
    return replace(tokens, status=status, claimed=0.0, again=False, failures=0, next=0.0, alarmed=0.0)


def lent(tokens: Tokens) -> Secret:
    """The access token as it is lent."""
    return Secret(tokens.access)


async def hidden(context: Context, name: str) -> list[Secret]:
    """The refresh token, which no answer to an agent may have in it."""
    found, _ = await load(context, name)
    return [Secret(found.refresh)] if found.refresh else []
