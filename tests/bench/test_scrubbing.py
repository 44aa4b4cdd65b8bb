"""The benchmark of the scrubbers measures work that was done: what is known is gone from what comes out."""

from bench.scrubbing import lines, scrubbing, value


def test_both_scrubbers_have_a_speed_and_the_log_has_what_they_look_for():
    assert value(0).encode() != value(1).encode()
    assert any(value(number).encode() in lines(300_000, hits=True) for number in range(50))
    assert b"sk_bench_" not in lines(100_000, hits=False)
    found = scrubbing(100_000, rounds=1)
    assert all(speed > 0 for each in found.values() for speed in each.values())
