"""Projects with environments, members and hosts, as they are typed."""

from __future__ import annotations

import pytest

from cli_driver import ok, run
from repo.test_commands import git


@pytest.fixture(params=[(), ("--opaque-names",)], ids=["clear", "opaque"])
def team(tmp_path, monkeypatch, request):
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "keyhole"))
    for name in ("KEYHOLE_REPO_KEY", "AGENT_VAULT_KEY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "team"
    folder.mkdir()
    git(folder, "init", "-q")
    monkeypatch.chdir(folder)
    ok("repo", "init", *request.param)
    return folder


def test_keys_of_environments_are_covered_and_compared_by_name_only(team):
    ok("repo", "project", "shop")
    ok("repo", "set", "stripe-key", "--env", "production", stdin="live-value-1")
    ok("repo", "set", "stripe-key", "--env", "staging", stdin="test-value-1")
    ok("repo", "set", "db-url", "--env", "staging", stdin="url-value-1")
    assert ok("repo", "get", "stripe-key", "--env", "production").out == "live-value-1"
    assert ok("repo", "get", "shop.staging/stripe-key").out == "test-value-1"
    assert ok("repo", "coverage", "--json").json == [
        {
            "project": "shop",
            "environments": ["production", "staging"],
            "keys": {
                "db-url": {"production": False, "staging": True},
                "stripe-key": {"production": True, "staging": True},
            },
            "missing": {"db-url": ["production"]},
        }
    ]
    table = ok("repo", "coverage", "shop").out
    assert [line.split() for line in table.splitlines()] == [
        ["SHOP", "PRODUCTION", "STAGING"],
        ["db-url", "-", "yes"],
        ["stripe-key", "yes", "yes"],
    ]
    compared = ok("repo", "compare", "shop", "production", "staging", "--json").json
    assert (compared["in_from_only"], compared["in_to_only"], compared["in_both"]) == ([], ["db-url"], ["stripe-key"])
    assert "value" not in table + ok("repo", "compare", "shop", "staging", "production").out


def test_what_is_no_project_or_environment_is_said(team):
    ok("repo", "set", "shop.dev/a", stdin="1")
    assert "there are: shop" in run("repo", "coverage", "other").err
    assert "there are: dev" in run("repo", "compare", "shop", "dev", "prod").err
    assert "keyhole repo project" in run("repo", "get", "a", "--env", "dev").err
    assert "goes with --env" in run("repo", "get", "a", "--project", "shop").err
    assert "last part alone" in run("repo", "get", "x/a", "--env", "dev", "--project", "shop").err
    assert "no environment" in run("repo", "get", "a", "--env", "eu.dev", "--project", "shop").err
    assert ok("repo", "get", "a", "--env", "dev", "--project", "shop").out == "1"


def test_the_project_of_a_clone_is_in_no_commit(team):
    ok("repo", "project", "wombat")
    assert ok("repo", "project").out == "wombat\n"
    assert git(team, "status", "--porcelain") == ""
    ok("repo", "set", "shop.dev/a", stdin="1")
    assert "wombat" not in git(team, "ls-files")


def test_members_roles_and_hosts(team):
    words = ok("repo", "my-key", "--json").json
    ok("repo", "add-agent", "bot", "--group", "shop.dev")
    ok("repo", "set", "shop.dev/a", stdin="1")
    owner, bot = ok("repo", "members", "--json").json
    assert (owner["name"], owner["role"], owner["recipient"], owner["sign"]) == (
        "owner",
        "owner",
        words["recipient"],
        words["sign"],
    )
    assert (bot["name"], bot["groups"]) == ("bot", ["shop.dev"])
    assert owner["fingerprint"] != bot["fingerprint"]
    assert bot["fingerprint"] in ok("repo", "members").out
    assert "machine" in run("repo", "role", "bot", "member").err
    assert "only owner" in run("repo", "role", "owner", "reader").err
    assert ok("repo", "hosts").err == "no group is limited\n"
    ok("repo", "hosts", "shop.dev", "api.stripe.com", "*.example.com")
    assert ok("repo", "hosts", "shop.dev", "--json").json["hosts"] == ["*.example.com", "api.stripe.com"]
    assert ok("repo", "hosts", "--json").json == [{"group": "shop.dev", "hosts": ["*.example.com", "api.stripe.com"]}]
    assert run("repo", "hosts", "shop.dev", "x.example", "--any").code != 0
    ok("repo", "hosts", "shop.dev", "--any")
    assert ok("repo", "hosts", "shop.dev", "--json").json["hosts"] is None
    missing = run("repo", "hosts", "shop.dve")
    assert missing.code == 5
    assert "there is no group 'shop.dve'" in missing.err
