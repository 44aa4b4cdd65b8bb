"""Logins at sources that are still good. They lie in memory only, and end with the process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from keyhole.net.together import OneByOne

_SHARE = 2 / 3
_LONGEST = 3600
_MOST = 1000


@dataclass(frozen=True, slots=True)
class Login:
    """A token, and for how many seconds it is good; 0 for this once."""

    token: str = field(repr=False)
    seconds: int = 0


@dataclass(slots=True)
class Logins:
    """The logins of one mount, each for one revision of a source."""

    _kept: dict[tuple[str, int], tuple[float, str]] = field(default_factory=dict, repr=False)
    _turns: OneByOne[tuple[str, int]] = field(default_factory=OneByOne)

    async def token(self, key: tuple[str, int], now: float, log_in: Callable[[], Awaitable[Login]]) -> tuple[str, bool]:
        """A token, and whether it was made just now. Those who need one at the same time wait for one login."""
        asked = self._kept.get(key)
        if asked is not None and asked[0] > now:
            return asked[1], False
        async with self._turns.turn(key):
            kept = self._kept.get(key)
            if kept is not None and kept[0] > now and kept != asked:
                return kept[1], False
            login = await log_in()
            if len(self._kept) >= _MOST:
                self._kept.clear()
            self._kept[key] = now + min(login.seconds, _LONGEST) * _SHARE, login.token
            return login.token, True

    def forget(self, key: tuple[str, int], token: str) -> None:
        """Let go of a token that was refused, unless there is another one by now."""
        if self._kept.get(key, (0.0, ""))[1] == token:
            del self._kept[key]
