"""Shares as an operator writes them."""

import pytest

from keyhole.bounds import shares
from keyhole.config import Config, load
from keyhole.core.errors import InvalidRequest


def test_single_orgs_have_the_part_that_the_file_says(tmp_path):
    file = tmp_path / "keyhole.toml"
    file.write_text("org_share = 0.5\nagent_share = 0.25\ncalls = 100\n[org_shares]\nacme = 0.9\ntrial = 0.05\n")
    limits = shares(load(str(file)))
    assert limits.parts("acme") == (0.9, 0.25)
    assert limits.parts("trial") == (0.05, 0.05)
    assert limits.parts("other") == (0.5, 0.25)


@pytest.mark.parametrize("text", ["org_share = 0", "agent_share = 1.5", "calls = 0", "[org_shares]\nacme = -1"])
def test_a_share_that_is_no_part_of_a_whole_is_refused(tmp_path, text):
    file = tmp_path / "keyhole.toml"
    file.write_text(text)
    with pytest.raises(InvalidRequest) as refused:
        load(str(file))
    assert refused.value.hint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("agent_rate = -1", "agent_rate: -1.0 is not a number from 0 on"),
        ("org_rate = nan", "org_rate: nan is not a number from 0 on"),
        ("head_timeout = inf", "head_timeout: inf is not a number from 0 on"),
        ("refusal_burst = -5", "refusal_burst: -5 is not a number from 0 on"),
        ('agent_share = "x"', "agent_share: 'x' is not a number"),
        ('agent_rate = "30s"', "agent_rate: '30s' is not a number"),
        ('body_rate = ""', "body_rate: '' is not a number"),
    ],
)
def test_a_rate_or_time_that_is_none_is_refused_by_name(tmp_path, text, words):
    file = tmp_path / "keyhole.toml"
    file.write_text(text)
    with pytest.raises(InvalidRequest) as refused:
        load(str(file))
    assert refused.value.reason == words


@pytest.mark.parametrize("text", ["org_shares = 0.5", '[org_shares]\nacme = "half"'])
def test_a_table_of_shares_that_is_none_is_refused(tmp_path, text):
    file = tmp_path / "keyhole.toml"
    file.write_text(text)
    with pytest.raises(InvalidRequest, match="org_shares: each is ORG = PART"):
        load(str(file))


def test_what_nobody_set_is_shared_all_the_same():
    limits = shares(Config())
    assert 0 < limits.agent < limits.org < 1
