"""A short run of the campaign; the long one is started by hand."""

from campaigns import kill_rewrap


def test_a_process_that_dies_while_it_rewraps_loses_nothing(tmp_path):
    _, _, terms = kill_rewrap.campaign(tmp_path, 2, 400, 7, report=lambda _: None)
    assert len(terms) == 1
