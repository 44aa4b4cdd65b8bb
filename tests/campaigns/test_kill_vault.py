"""The short form of the campaign; the long one is run by hand."""

from campaigns import kill_vault


def test_what_a_vault_acknowledged_survives_kill_and_the_rest_is_whole_or_absent(tmp_path):
    told, (versions, records, _) = kill_vault.campaign(
        tmp_path / "private" / "vault.db", rounds=3, seed=5, report=lambda line: None
    )
    assert 0 < told.total <= records
    assert len(told.versions) <= versions
