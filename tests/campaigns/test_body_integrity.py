"""The short form of the campaign; a gigabyte is sent by hand."""

import asyncio

from campaigns import body_integrity

MEGABYTES = 24  # one that was collected would be seen in memory


def test_bodies_arrive_unchanged_in_both_directions_and_are_not_collected():
    ways = ("bearer", "query", "placeholder in a body")
    runs = asyncio.run(body_integrity.campaign(MEGABYTES, report=lambda line: None, ways=ways))
    assert len(runs) == 11
    assert [str(run) for run in runs if not run.whole] == []
    assert [str(run) for run in runs if run.grown > MEGABYTES - 8] == []
