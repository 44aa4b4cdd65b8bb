"""The short form of the campaign: what is counted, not how long it took."""

import asyncio

from campaigns.tenant_flood import play


def test_a_tenant_that_floods_costs_another_no_call_and_no_login():
    small = {"certificates": 4, "held_bytes": 2_000_000, "connections": 80, "strangers": 40, "starting": 4}
    report = asyncio.run(play(7, clients=4, calls=20, pause=0.0, **small))
    assert report.failures == []
    assert (len(report.during), report.logins, report.left) == (20, 2, 0)
    assert report.flooded.total()
