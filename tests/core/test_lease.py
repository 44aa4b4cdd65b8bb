import math
import random

import pytest

from keyhole.core.errors import InvalidRequest
from keyhole.core.lease import SYSTEM_MAX_TTL, Term, compute_term, parse_duration

HOUR = 3600


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (0, 0),
        ("", 0),
        ("0", 0),
        (30, 30),
        (1.9, 1),
        ("30", 30),
        (" 30s ", 30),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("7d", 604_800),
        ("2H", 7200),
        ("768h", 2_764_800),
        ("36500d", 3_153_600_000),
    ],
)
def test_a_duration_is_read_as_vault_reads_it(written, seconds):
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written",
    [
        -1,
        "-1",
        "-5m",
        True,
        None,
        [],
        {},
        b"30",
        "soon",
        "1x",
        "1h 30m",
        "h",
        "1e3",
        "0x10",
        "1_000",
        "٣٠",
        "3\uff10s",
        "36501d",
        10**12,
        math.inf,
        math.nan,
        "9" * 5_000,
        "9" * 400 + "d",
        "1s" * 200_000,
    ],
    ids=lambda written: repr(written)[:12],
)
def test_what_is_no_duration_or_longer_than_a_century_is_refused(written):
    with pytest.raises(InvalidRequest) as caught:
        parse_duration(written, name="period")
    assert caught.value.reason == "period is not a duration"
    assert caught.value.hint


def test_a_grant_gets_what_it_asks_for_or_the_default():
    assert compute_term(requested=60) == Term(60)
    assert compute_term(requested=0, default=HOUR) == Term(HOUR)
    assert compute_term(requested=0, default=0, maximum=0) == Term(0)


def test_a_grant_that_asks_for_more_than_the_maximum_is_shortened_and_told():
    term = compute_term(requested=2 * SYSTEM_MAX_TTL)
    assert term.ttl == SYSTEM_MAX_TTL
    assert term.warning == ('TTL of "1536h" exceeded the effective max_ttl of "768h"; TTL value is capped accordingly')
    assert compute_term(requested=0, default=2 * HOUR, maximum=HOUR) == Term(HOUR), "nobody asked, so no warning"


def test_renewals_cannot_carry_a_grant_past_its_maximum():
    assert compute_term(requested=HOUR, maximum=2 * HOUR, age=90 * 60).ttl == 30 * 60
    for age in (2 * HOUR, 3 * HOUR):
        with pytest.raises(InvalidRequest) as caught:
            compute_term(requested=HOUR, maximum=2 * HOUR, age=age)
        assert "past the max TTL" in caught.value.reason


def test_a_period_is_free_of_the_maximum_but_not_of_an_explicit_one():
    assert compute_term(requested=5, period=HOUR, maximum=60, age=10**9) == Term(HOUR)
    assert compute_term(requested=0, period=HOUR, explicit_max=2 * HOUR, age=90 * 60).ttl == 30 * 60
    with pytest.raises(InvalidRequest):
        compute_term(requested=0, period=HOUR, explicit_max=2 * HOUR, age=2 * HOUR)


def test_no_sequence_of_renewals_outlives_the_cap():
    rng = random.Random(11)
    for _ in range(2_000):
        maximum, explicit = rng.choice((0, 50, 100)), rng.choice((0, 30, 80))
        period = rng.choice((0, 0, 10))
        cap = explicit if period else min(filter(None, (maximum, explicit)), default=0)
        age = 0
        for _ in range(12):
            asked = rng.choice((0, 5, 40, 10**9))
            try:
                term = compute_term(
                    requested=asked, default=20, maximum=maximum, explicit_max=explicit, period=period, age=age
                )
            except InvalidRequest:
                assert cap
                assert age >= cap
                break
            assert term.ttl > 0
            assert not cap or age + term.ttl <= cap
            age += rng.randrange(1, min(term.ttl, 60) + 1)
