"""The short form of the campaign; the long one is run by hand."""

import asyncio

from campaigns import lease_races


def test_what_races_a_revocation_or_its_own_end_dies_or_was_answered_and_holds(tmp_path):
    won = asyncio.run(lease_races.campaign(tmp_path, rounds=6, seed=2, report=lambda line: None))
    assert set(won) == {"token", "child", "prefix", "org", "renew"}
