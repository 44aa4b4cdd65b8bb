"""The short form of the campaign; the long one is run by hand."""

import sys

import pytest

from campaigns import soak


@pytest.mark.skipif(sys.platform != "linux", reason="memory and descriptors of another process are read from /proc")
def test_streams_and_crowds_are_served_in_little_and_what_is_under_way_ends_well_or_visibly():
    streams, crowd, end, journal = soak.campaign(40, 6, 150, 60, 16, every=0.1, drain=5.0, report=lambda _: None)
    early, late = streams
    assert late - early < 16 << 20
    assert crowd[1] <= 0
    code, _, well = end
    assert code == 0
    assert well
    begun, without = journal
    assert begun > 40 + 16
    assert without == 0
