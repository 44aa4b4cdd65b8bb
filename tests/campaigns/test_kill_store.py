"""The short form of the campaign; the long one is run by hand."""

from campaigns import kill_store


def test_acknowledged_commits_survive_kill_and_others_are_whole_or_absent(tmp_path):
    acknowledged, commits = kill_store.campaign(
        f"sqlite:{tmp_path}/store.db", rounds=5, seed=7, report=lambda line: None
    )
    assert 0 < acknowledged <= commits
