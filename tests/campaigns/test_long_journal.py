"""A short run of the campaign; the long one is started by hand."""

import asyncio

from campaigns import long_journal


def test_a_long_journal_is_proved_whole_and_reported_from(tmp_path):
    seconds, _ = asyncio.run(long_journal.campaign(f"sqlite:{tmp_path}/private/vault.db", 1500))
    assert list(seconds) == ["verify", "verify since", "report access", "query"]
