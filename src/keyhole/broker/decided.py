"""A call while it is decided: what was found so far, and what a replay of policies is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keyhole.broker.directory import Match
from keyhole.broker.minting import Minting
from keyhole.broker.noting import Noting
from keyhole.broker.watch import FrameWatch, Tripped
from keyhole.core.errors import KeyholeError
from keyhole.core.host import Authority
from keyhole.core.identity import Caller
from keyhole.core.message import Call
from keyhole.core.question import TUNNEL
from keyhole.core.record import parameter_names
from keyhole.core.request import Request
from keyhole.vault.shares import Turn

_LONG = 1000  # characters of a path that is noted
_NAME = 100  # characters of another text
_NAMES = 64  # headers
_UNMATCHED = Match()


@dataclass(slots=True)
class Decided:
    """One call.

    Attributes:
        call: with its body held, once that was judged.
        request: as its record shows it.
        match: what it was matched to.
        target: canonical; empty before that is known.
        watch: looks at what the caller sends on a stream.
        minting: what becomes of a credential that it makes.
        turn: what it takes of its org's share.
        noting: where it is noted; ``None`` where nothing is.
    """

    call: Call
    request: Request
    turn: Turn
    match: Match = _UNMATCHED
    target: bytes = b""
    watch: FrameWatch | None = None
    minting: Minting | None = None
    noting: Noting | None = None

    def note(self, caller: Caller, error: KeyholeError | None = None) -> None:
        """Note how it was decided, where an operator turned that on."""
        if self.noting is not None:
            self.noting.add(caller, self._asked(error))

    def _asked(self, error: KeyholeError | None) -> dict[str, Any]:
        call, match = self.call, self.match
        path, _, query = self.target.decode("latin-1").partition("?")
        names = list(dict.fromkeys(name[:_NAME].decode("latin-1") for name, _ in call.headers[:_NAMES]))
        if isinstance(error, Tripped) and error.of_value:
            path, query, names = "", "", []  # a value stands in one of them
        service = match.service
        length = 0 if call.body is None else call.body.length
        return {
            "service": call.service[:_NAME],
            "shown": service.name if service is not None and match.shown else "",
            "method": call.method[:_NAME],
            "scheme": call.scheme,
            "host": call.host,
            "port": call.port,
            "path": path if len(path) <= _LONG else "",
            "parameters": tuple(name[:_NAME] for name in parameter_names(query)),
            "headers": tuple(names),
            "size": -1 if length is None else length,
            "upgrade": call.upgrade,
            "through": service.name if service is not None else match.about,
            **_answered(error, match),
        }


def note_tunnel(noting: Noting | None, caller: Caller, authority: Authority, match: Match) -> None:
    """Note a CONNECT that was refused."""
    if noting is not None:
        asked = {"method": "CONNECT", "scheme": "https", "host": authority.host, "port": authority.port, "path": ""}
        noting.add(caller, {**asked, "upgrade": TUNNEL, "through": match.about, **_answered(match.refusal, match)})


def _answered(error: KeyholeError | None, match: Match) -> dict[str, Any]:
    if error is None:
        return {"allowed": True}
    stage = "tripwire" if isinstance(error, Tripped) else "rules" if error is match.refusal else "checks"
    return {"allowed": False, "code": error.code, "stage": stage}
