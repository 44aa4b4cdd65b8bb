"""The short form of the campaign; the long one is run by hand."""

from campaigns import kill_repo


def test_a_killed_command_leaves_the_vault_as_it_was_or_as_it_would_be(tmp_path):
    killed, _ = kill_repo.campaign("pull-merge", 3, 7, tmp_path / "private", report=lambda line: None)
    assert killed
