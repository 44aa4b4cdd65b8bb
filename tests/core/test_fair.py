from collections import Counter, deque

from hypothesis import given
from hypothesis import strategies as st

from keyhole.core.fair import FairCache, FairQueue

TENANTS = st.sampled_from(["a", "b", "c"])
MEMBERS = st.sampled_from(["x", "y"])


def drained(queue: FairQueue[int]) -> list[tuple[str, int]]:
    found = []
    while (each := queue.take()) is not None:
        found.append(each)
    return found


def test_tenants_take_turns_however_many_wait_of_one():
    queue: FairQueue[int] = FairQueue(100, 100)
    for number in range(5):
        queue.put("flood", "one", number)
    queue.put("quiet", "two", 9)
    assert [tenant for tenant, _ in drained(queue)][:3] == ["flood", "quiet", "flood"]


def test_members_of_a_tenant_take_turns_too():
    queue: FairQueue[int] = FairQueue(100, 100)
    for number in range(3):
        queue.put("org", "flood", number)
    queue.put("org", "quiet", 9)
    assert [number for _, number in drained(queue)] == [0, 9, 1, 2]


def test_who_may_not_now_waits_and_holds_up_nobody():
    queue: FairQueue[int] = FairQueue(100, 100)
    queue.put("busy", "", 1)
    queue.put("free", "", 2)
    assert queue.take(lambda tenant: tenant != "busy") == ("free", 2)
    assert queue.take(lambda tenant: tenant != "busy") is None
    assert queue.take() == ("busy", 1)


def test_a_full_line_gives_its_longest_members_last_place_to_who_has_less():
    queue: FairQueue[int] = FairQueue(3, 100)
    assert [queue.put("org", "flood", number) for number in range(4)] == [None, None, None, 3]
    assert queue.put("org", "quiet", 9) == 2
    assert drained(queue) == [("org", 0), ("org", 9), ("org", 1)]


def test_when_all_lines_are_full_the_largest_tenant_makes_room():
    queue: FairQueue[int] = FairQueue(3, 4)
    assert [queue.put("flood", "", number) for number in range(3)] == [None, None, None]
    assert queue.put("other", "", 5) is None
    assert queue.put("quiet", "", 9) == 2
    assert {tenant for tenant, _ in drained(queue)} == {"flood", "other", "quiet"}


@given(st.lists(st.tuples(st.sampled_from(["put", "take", "remove"]), TENANTS, MEMBERS)))
def test_nothing_is_lost_or_invented_and_bounds_hold(steps):
    queue: FairQueue[int] = FairQueue(4, 7)
    waiting: dict[int, tuple[str, str]] = {}
    for number, (what, tenant, member) in enumerate(steps):
        if what == "put":
            waiting[number] = (tenant, member)
            out = queue.put(tenant, member, number)
            if out is not None:
                del waiting[out]
        elif what == "take":
            found = queue.take()
            assert (found is None) == (not waiting)
            if found is not None:
                assert waiting.pop(found[1])[0] == found[0]
        elif waiting:
            oldest = next(iter(waiting))
            assert queue.remove(*waiting.pop(oldest), oldest)
            assert not queue.remove(tenant, member, oldest)
        sizes = Counter(place[0] for place in waiting.values())
        assert len(queue) == len(waiting) <= 7
        assert all(queue.waiting(name) == sizes[name] <= 4 for name in "abc")
    assert sorted(number for _, number in drained(queue)) == sorted(waiting)


@given(st.lists(st.tuples(TENANTS, MEMBERS), max_size=60))
def test_of_a_member_it_is_first_come_first_served(puts):
    queue: FairQueue[tuple[str, int]] = FairQueue(100, 100)
    lines: dict[tuple[str, str], deque[int]] = {}
    for number, (tenant, member) in enumerate(puts):
        queue.put(tenant, member, (member, number))
        lines.setdefault((tenant, member), deque()).append(number)
    while (found := queue.take()) is not None:
        tenant, (member, number) = found
        assert lines[tenant, member].popleft() == number


def test_whoever_fills_a_cache_pushes_out_its_own():
    cache: FairCache[int, str] = FairCache(10)
    for number in range(3):
        cache.put("quiet", number, f"q{number}")
    for number in range(1000):
        cache.put("flood", number, "f")
    assert [cache.get("quiet", number) for number in range(3)] == ["q0", "q1", "q2"]
    assert len(cache) == 10
    assert cache.get("flood", 999) == "f"
    assert cache.get("flood", 0) is None


def test_what_was_used_lately_stays():
    cache: FairCache[int, str] = FairCache(2)
    cache.put("org", 1, "one")
    cache.put("org", 2, "two")
    cache.get("org", 1)
    assert cache.put("org", 3, "three") == "two"
    assert cache.get("org", 1) == "one"


@given(st.lists(st.tuples(st.booleans(), TENANTS, st.integers(0, 9))))
def test_a_cache_never_grows_beyond_its_bound(steps):
    cache: FairCache[int, int] = FairCache(5)
    for put, tenant, key in steps:
        if put:
            cache.put(tenant, key, key)
            assert cache.get(tenant, key) == key
        else:
            cache.pop(tenant, key)
            assert cache.get(tenant, key) is None
        assert len(cache) == len(cache.values()) <= 5
