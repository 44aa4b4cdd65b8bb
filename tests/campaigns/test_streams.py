"""The short form of the campaign; a thousand streams for half an hour are a command."""

import asyncio

from campaigns import streams


def test_events_of_many_streams_all_come_and_the_proxy_holds_no_more_in_the_end():
    found = asyncio.run(streams.campaign(8, 0.8, gap=0.05, every=0.2, real=False, report=lambda line: None))
    assert (found.lost, found.broken) == (0, 0)
    assert found.events >= 8 * streams.FEWEST
    assert found.grown <= streams.ROOM
