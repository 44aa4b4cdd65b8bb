"""A short run of the campaign; the long one is started by hand."""

from campaigns import api_races


def test_races_and_floods_over_http_are_won_by_nobody_who_should_not(tmp_path):
    with api_races.server(tmp_path) as started:
        api_races.campaign(started, 0.02, report=lambda *_: None)
