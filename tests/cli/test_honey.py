"""Bait, and what an org does with requests that carry what must not leave."""

import pytest

from cli_driver import ok, run


def test_bait_is_made_listed_and_touching_it_raises_an_alarm(vault):
    ok("honey", "add", "stripe/backup", "--like", "stripe")
    assert ok("honey", "list", "--json").json == ["stripe/backup"]
    value = ok("get", "stripe/backup", "--reveal").out.strip()
    assert value.startswith("sk_test_")
    assert "keyhole" not in value
    [alarm] = ok("audit", "query", "--operation", "alarm", "--json").json
    assert alarm["result"] == "the honey secret stripe/backup was touched"
    ok("honey", "rm", "stripe/backup")
    ok("get", "stripe/backup", "--reveal")
    assert len(ok("audit", "query", "--operation", "alarm", "--json").json) == 1


def test_a_secret_that_is_there_keeps_its_value(vault):
    ok("set", "mine", stdin="the-value-that-was-there")
    ok("honey", "add", "mine")
    assert ok("get", "mine", "--reveal").out == "the-value-that-was-there\n"


def test_bait_like_something_unknown_is_refused(vault):
    assert run("honey", "add", "x", "--like", "strip").code == 5
    assert run("show", "x").code == 5


@pytest.mark.parametrize("setting", ["stop", "revoke", "off"])
def test_org_says_what_a_tripwire_does(vault, setting):
    assert ok("org", "set", "--tripwire", setting, "--json").json["tripwire"] == setting
    assert ok("org", "show", "--json").json["tripwire"] == setting


def test_setting_of_an_org_has_to_be_named(vault):
    assert run("org", "set").code == 3
