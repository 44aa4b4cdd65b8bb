"""What follows from the head of a call, found by whoever asks first and kept with the head."""

from __future__ import annotations

from keyhole.broker.directory import Wanted
from keyhole.broker.own_token import shows_token
from keyhole.broker.said import summary
from keyhole.core.host import Authority
from keyhole.core.message import Call
from keyhole.core.target import judged


def summed_up(call: Call) -> tuple[bool, dict[str, object]]:
    """Whether a call shows its caller's own token, and what its record says of it."""
    heading = call.heading
    data = heading.summary
    if data is None:
        heading.leaks = shows_token(call)
        data = heading.summary = summary(call, Authority(call.host, call.port), target=not heading.leaks)
    return heading.leaks, data


def wanted_of(call: Call) -> Wanted:
    """What a call is matched by. Raises what refuses its target."""
    wanted = call.heading.wanted
    if not isinstance(wanted, Wanted):
        target, paths = judged(call.target)
        authority = Authority(call.host, call.port)
        wanted = Wanted(call.scheme, authority, call.method, paths, call.service, call.headers, target)
        call.heading.wanted = wanted
    return wanted
