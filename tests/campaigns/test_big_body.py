"""The short form of the campaign; ten gigabytes are a command."""

import asyncio

from campaigns import big_body


def test_a_body_is_the_same_on_the_other_side_but_for_the_secret_and_is_not_collected():
    runs = asyncio.run(big_body.campaign(24, 1, real=False, report=lambda line: None))
    assert [run.what for run in runs] == ["upload", "download"]
    assert [str(run) for run in runs if not run.good] == []
