"""Who keeps a place at a listener, and who loses it to whom."""

import random
from collections import Counter

import pytest

from keyhole.net.guests import Guest, Guests

MOST = (3, 2)  # of an org, of an agent


class Clock:
    """Goes on by two seconds each time that it is asked, unless it stands."""

    def __init__(self, step: float = 2.0) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def enter(guests: Guests, gone: list[str], name: str, address: str = "192.0.2.1") -> Guest:
    guest = guests.enter(address, lambda: gone.append(name))
    assert guest is not None
    return guest


def test_an_address_with_too_many_silent_connections_loses_its_oldest():
    gone: list[str] = []
    guests = Guests(100, strangers=2, clock=Clock())
    for name in ("other", "one", "two", "three"):
        enter(guests, gone, name, "192.0.2.9" if name == "other" else "192.0.2.1")
    assert gone == ["one"]
    assert len(guests.all) == 3


def test_an_ipv6_customer_is_one_address():
    gone: list[str] = []
    guests = Guests(100, strangers=1, clock=Clock())
    enter(guests, gone, "one", "2001:db8::1")
    enter(guests, gone, "two", "2001:db8::2")
    assert gone == ["one"]


def test_a_socket_of_this_machine_has_no_address_and_no_such_bound():
    gone: list[str] = []
    guests = Guests(100, strangers=1, clock=Clock())
    for name in ("one", "two", "three"):
        enter(guests, gone, name, "")
    assert gone == []


def test_of_many_that_come_at_once_nobody_goes_before_it_could_be_read():
    gone: list[str] = []
    clock = Clock(step=0.0)
    guests = Guests(100, strangers=2, clock=clock)
    crowd = [enter(guests, gone, str(number)) for number in range(8)]
    assert gone == []
    for guest in crowd[:4]:
        guest.work()
    clock.now = 5.0
    enter(guests, gone, "late")
    assert gone == ["4", "5", "6"]


def test_a_full_listener_gives_a_crowd_of_one_address_no_moment():
    gone: list[str] = []
    guests = Guests(5, strangers=2, clock=Clock(step=0.0))
    enter(guests, gone, "slow", "192.0.2.9")
    for number in range(4):
        enter(guests, gone, f"flood {number}")
    enter(guests, gone, "new", "192.0.2.7")
    enter(guests, gone, "newer", "192.0.2.8")
    assert gone == ["flood 0", "flood 1"]
    enter(guests, gone, "newest", "192.0.2.10")
    assert gone == ["flood 0", "flood 1", "slow"]


def test_who_has_sent_a_whole_request_is_left_alone():
    gone: list[str] = []
    noted: list[str] = []
    guests = Guests(2, 512, noted.append)
    for name in ("one", "two"):
        enter(guests, gone, name).work()
    assert guests.enter("192.0.2.7", lambda: None) is None
    assert (gone, noted) == ([], ["connections"])


def test_a_listener_that_bounds_no_strangers_lets_nobody_go():
    guests = Guests(1)
    enter(guests, [], "one")
    assert guests.enter("192.0.2.7", lambda: None) is None


def test_a_full_listener_lets_the_oldest_stranger_go_before_anybody_known():
    gone: list[str] = []
    guests = Guests(3, 512)
    known = enter(guests, gone, "known")
    assert known.prove("org", "agent", MOST) == ""
    enter(guests, gone, "first stranger")
    enter(guests, gone, "second stranger", "192.0.2.2")
    enter(guests, gone, "new", "192.0.2.3")
    assert gone == ["first stranger"]


def test_without_strangers_the_org_with_most_connections_makes_room():
    gone: list[str] = []
    guests = Guests(4, 512)
    enter(guests, gone, "quiet").prove("quiet", "a", (9, 9))
    for number in range(3):
        enter(guests, gone, f"flood {number}").prove("flood", "a", (9, 9))
    enter(guests, gone, "new")
    assert gone == ["flood 0"]


@pytest.mark.parametrize(("agents", "full"), [(["a", "a", "a"], "agent"), (["a", "a", "b", "c"], "org")])
def test_the_one_over_a_share_stays_a_stranger(agents, full):
    guests = Guests(100, 512)
    places = [guests.enter("192.0.2.1", lambda: None) for _ in agents]
    said = [place.prove("org", agent, MOST) for place, agent in zip(places, agents, strict=True) if place]
    assert said == [*[""] * (len(agents) - 1), full]
    assert guests.counts["org", ""] == len(agents) - 1
    places[0].leave()  # type: ignore[union-attr]
    assert places[-1].prove("org", agents[-1], MOST) == ""  # type: ignore[union-attr]


def test_a_connection_counts_for_who_used_it_last():
    guests = Guests(100, 512)
    place = enter(guests, [], "one")
    place.prove("org", "a", MOST)
    place.prove("org", "b", MOST)
    assert dict(guests.counts) == {("org", "b"): 1, ("org", ""): 1}


@pytest.mark.parametrize("seed", range(8))
def test_nothing_is_counted_any_more_once_all_have_gone(seed):
    """Connections come, prove who they are, work, change hands, break off or are let go, in any order."""
    dice = random.Random(seed)
    guests = Guests(12, strangers=4, clock=Clock(step=dice.choice([0.0, 0.4, 2.0])))
    open_: dict[int, Guest] = {}
    for number in range(600):
        act = dice.choice(["enter", "enter", "prove", "work", "rest", "leave", "leave twice"])
        if act == "enter":
            guest = guests.enter(f"192.0.2.{dice.randrange(4)}", lambda number=number: open_.pop(number))
            if guest is not None:
                open_[number] = guest
        elif open_:
            key = dice.choice(list(open_))
            guest = open_[key]
            if act == "prove":
                guest.prove(dice.choice("pq"), dice.choice("xyz"), (6, 3))
            elif act == "work":
                guest.work()
            elif act == "rest":
                guest.rest()
            else:
                del open_[key]
                guest.leave()
                if act == "leave twice":
                    guest.leave()
                    guest.work()
                    guest.rest()
                    guest.prove("p", "x", (6, 3))
        assert len(guests.all) == len(open_) <= 12
        assert all(count <= (6 if not agent else 3) for (_, agent), count in guests.counts.items())
    for guest in list(open_.values()):
        guest.leave()
    assert (len(guests.all), Counter(guests.counts)) == (0, Counter())
    assert vars_of(guests) == ({}, {}, {}, set())


def vars_of(guests: Guests) -> tuple[dict, dict, dict, set]:
    return dict(guests._strangers), dict(guests._of_address), dict(guests._resting), guests._over
