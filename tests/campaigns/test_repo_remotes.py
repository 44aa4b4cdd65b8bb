"""The short form of the campaign; the long one is run by hand."""

from campaigns import repo_remotes


def test_two_members_and_an_agent_stay_in_step_and_the_server_learns_no_value_and_no_name(tmp_path):
    assert repo_remotes.campaign(tmp_path, rounds=3, seed=2, report=lambda line: None) > 100_000
