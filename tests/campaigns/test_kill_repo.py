"""The short form of the campaign; the long one is run by hand."""

import pytest

from campaigns import kill_repo


@pytest.mark.parametrize("verb", ["set", "pull-merge"])
def test_a_killed_command_leaves_the_vault_as_it_was_or_as_it_would_be(tmp_path, verb):
    killed, _ = kill_repo.campaign(verb, 3, 7, tmp_path / "private", report=lambda line: None)
    assert killed
