"""The short form of the campaign; the long one is run by hand."""

from campaigns import kill_leases


def test_a_server_that_is_killed_leaves_no_user_without_a_lease_and_no_lease_without_its_user(tmp_path):
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    told = kill_leases.campaign(folder, rounds=2, seed=3, report=lambda line: None)
    assert told.acknowledged
