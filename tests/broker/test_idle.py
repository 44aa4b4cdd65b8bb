"""Of idle connections to upstreams, and of what is remembered of them, each org keeps its own."""

from types import SimpleNamespace
from typing import Any

from keyhole.broker.connections import Origin
from keyhole.broker.idle import Idle
from keyhole.broker.known import KnownUpstreams


def origin(org: str, number: int = 0) -> Origin:
    return Origin((org, "service"), "https", f"h{number}.test", 443)


def connection(org: str, number: int = 0) -> Any:
    return _Connection(origin=origin(org, number))


class _Connection(SimpleNamespace):
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def test_the_org_with_most_idle_connections_gives_up_its_oldest():
    idle, quiet = Idle(), connection("quiet")
    idle.add(quiet)
    flood = [connection("flood", number) for number in range(3)]
    for each in flood:
        idle.add(each)
    assert idle.spare() is flood[0]
    idle.discard(flood[0])
    idle.discard(flood[0])
    assert (len(idle), idle.take(quiet.origin), idle.take(quiet.origin)) == (3, quiet, None)
    assert idle.take(flood[2].origin) is flood[2]
    assert idle.all() == [flood[1]]


def test_the_connection_that_was_used_last_is_taken_first():
    idle = Idle()
    old, new = connection("org"), connection("org")
    idle.add(old)
    idle.add(new)
    assert idle.of(old.origin) == 2
    assert [idle.take(old.origin), idle.take(old.origin)] == [new, old]
    assert idle.spare() is None


def test_what_is_remembered_of_an_orgs_upstreams_is_pushed_out_by_its_own_alone():
    known = KnownUpstreams(4)
    known.of(origin("quiet")).http2 = True
    for number in range(50):
        known.of(origin("flood", number))
    remembered = known.get(origin("quiet"))
    assert remembered is not None
    assert remembered.http2
