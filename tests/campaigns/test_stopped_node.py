"""The short form of the campaign; the long one is run by hand."""

import asyncio

from campaigns import stopped_node


def test_a_node_that_stood_still_for_longer_than_its_claims_gives_nothing_out_and_leaves_nothing(tmp_path):
    assert asyncio.run(stopped_node.campaign(tmp_path, rounds=2, seed=6, report=lambda line: None))
