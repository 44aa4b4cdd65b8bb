from __future__ import annotations

from keyhole.net.http2.budget import Budget


def test_a_budget_allows_a_burst_and_then_a_rate() -> None:
    budget = Budget(3, 2.0, now=10.0)
    assert [budget.spend(10.0) for _ in range(4)] == [True, True, True, False]
    assert budget.spend(11.0)  # what was asked for in vain counts too
    assert not budget.spend(11.0)


def test_what_is_earned_is_no_more_than_the_burst() -> None:
    budget = Budget(2, 0.0, now=0.0)
    budget.earn(100)
    assert budget.spend(0.0, 2)
    assert not budget.spend(0.0)
    budget.earn(5)
    assert budget.spend(0.0)
