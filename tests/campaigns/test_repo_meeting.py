"""The short form of the campaign; the long one is run by hand."""

from campaigns import repo_meeting


def test_two_members_who_sync_in_turns_with_two_remotes_come_together_and_lose_nothing():
    most, asked = repo_meeting.campaign(2, start=10, meetings=1, report=lambda line: None)
    assert most <= repo_meeting.ROUNDS
    assert asked > 0
