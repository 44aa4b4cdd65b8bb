"""A short run of the campaign; the long one is started by hand."""

from campaigns import rekey_under_load


def test_two_servers_fail_no_request_and_lose_no_write_while_every_key_changes(tmp_path):
    found = rekey_under_load.campaign(f"sqlite:{tmp_path}/vault.db", 0, 50, secrets=40, report=lambda _: None)
    assert found["changes"] == 2
    assert found["writes"] > 0
