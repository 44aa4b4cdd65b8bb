"""Vaults with opaque names as they are used: commands, mounts and Python show names, remotes learn none."""

from __future__ import annotations

import asyncio
import json
import subprocess

import pytest

from cli_driver import ok, run
from keyhole import RepoVault
from keyhole.cli.agent_vault import main
from keyhole.testing import open_vault
from repo.test_opaque import CANARY, NAMES_USED
from vault.world import SERVICE, agent, use

SECRET = "wombat-payments/quokka-ledger"


def git(folder, *words):
    return subprocess.run(["git", "-C", str(folder), *map(str, words)], capture_output=True, check=True).stdout


@pytest.fixture
def team(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "keyhole"))
    for name in ("KEYHOLE_REPO_KEY", "AGENT_VAULT_KEY"):
        monkeypatch.delenv(name, raising=False)
    remote, folder = tmp_path / "remote.git", tmp_path / "team"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(remote)], check=True)
    subprocess.run(["git", "init", "-q", "-b", "main", str(folder)], check=True)
    monkeypatch.chdir(folder)
    ok("repo", "init", "--opaque-names", "--owner", "ownerly")
    ok("repo", "set", SECRET, stdin=CANARY)
    ok("repo", "add-agent", "echidna", "--group", "wombat-payments")
    ok("repo", "set", "numbat.production/dingo-signing-key", stdin="another")
    git(folder, "remote", "add", "origin", remote)
    git(folder, "push", "-q", "-u", "origin", "main")
    return folder


def objects(repository):
    """Every byte that a repository holds: all objects, uncompressed, and the words beside them."""
    out = git(repository, "cat-file", "--batch-all-objects", "--batch")
    folder = repository / ".git" if (repository / ".git").is_dir() else repository
    files = [path for path in folder.rglob("*") if path.is_file() and "objects" not in path.parts]
    return out + b"".join(str(path).encode() + path.read_bytes() for path in files)


def test_the_remote_learns_no_name(team, tmp_path):
    ok("repo", "revoke", "echidna", "wombat-payments")
    ok("repo", "remove-agent", "echidna")
    ok("repo", "add-agent", "bilby", "--group", "numbat.production")
    ok("repo", "rm", "numbat.production/dingo-signing-key")
    ok("repo", "reads", "share")
    ok("repo", "push")
    ok("repo", "remote", "add", "store", tmp_path / "store")
    ok("repo", "push", "store")
    kept = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert kept
    found = b"".join(str(path).encode() + path.read_bytes() for path in kept)
    assert [name for name in NAMES_USED if name.encode() in found] == []
    for repository in (team, tmp_path / "remote.git"):
        found = objects(repository)
        assert b"agent-vault: revoke g_" in found
        assert [name for name in NAMES_USED if name.encode() in found] == []


def test_commands_show_names_to_members_and_ids_to_others(team, tmp_path, monkeypatch):
    assert ok("repo", "get", SECRET).out == CANARY
    assert [each["name"] for each in ok("repo", "list", "--json").json] == [
        "numbat.production/dingo-signing-key",
        SECRET,
    ]
    assert ok("repo", "list", "--json", "--group", "wombat-payments").json[0]["authorized_agents"] == ["echidna"]
    assert "echidna" in ok("repo", "list-agents").out
    assert {"ownerly", "echidna"} <= set(ok("repo", "history", SECRET).out.split())
    assert SECRET in ok("repo", "diff", "HEAD~1", "HEAD~0").out + ok("repo", "diff", "HEAD~2", "HEAD").out
    assert ok("repo", "status", "--json").json["you"] == {"name": "ownerly", "role": "owner"}
    revoked = ok("repo", "revoke", "echidna", "wombat-payments", "--json").json
    assert revoked["due"] == [SECRET]
    assert f"{SECRET} is due" in run("repo", "check").out
    assert "no secret 'wombat-payments/none'" in run("repo", "get", "wombat-payments/none").err
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    shown = ok("repo", "list").out + run("repo", "check").out
    assert [name for name in NAMES_USED if name in shown] == []
    refused = run("repo", "get", SECRET)
    assert refused.code != 0
    assert "Traceback" not in refused.err


def test_an_agent_key_is_written_again_under_the_name_of_the_agent(team, tmp_path):
    ok("repo", "restore-agent", "echidna", "--to", tmp_path / "again.key")
    assert ok("repo", "get", SECRET, "--key", tmp_path / "again.key").out == CANARY
    ok("repo", "recover-agent", "echidna", "--to", tmp_path / "fresh.key")
    assert ok("repo", "get", SECRET, "--key", tmp_path / "fresh.key").out == CANARY
    assert run("repo", "get", SECRET, "--key", tmp_path / "again.key").code != 0


def test_a_vault_with_names_is_not_made_opaque_afterwards(team):
    refused = run("repo", "init", "--opaque-names")
    assert "already initialized" in refused.err
    assert "in its history" in refused.err


def test_a_value_that_has_an_id_in_it_is_shown_as_it_is(team):
    stem = git(team, "ls-files", "*.enc").decode().split()[0].removeprefix(".agent-vault/secrets/")[:-4]
    ok("repo", "set", "wombat-payments/odd", stdin=f"see {stem}")
    assert ok("repo", "get", "wombat-payments/odd").out == f"see {stem}"
    assert ok("repo", "get", "wombat-payments/odd", "--json").json["value"] == f"see {stem}"


def test_python_reads_by_name_and_so_does_the_sdk_of_the_format_by_id(team, tmp_path):
    with RepoVault(team, key_file=tmp_path / "user" / ".agent-vault" / "agents" / "echidna.key") as vault:
        assert vault.get(SECRET) == CANARY
        assert {each.name for each in vault.list_secrets()} == {SECRET, "numbat.production/dingo-signing-key"}
        assert [each.agents for each in vault.list_secrets("wombat-payments")] == [("echidna",)]
        assert vault.list_agents() == {"echidna": ("wombat-payments",)}
    manifest = (team / ".agent-vault" / "manifest.yaml").read_text()
    assert "/s_" in manifest


def test_the_drop_in_command_knows_the_names(team, capfd):
    assert main(["list", "--json"]) == 0
    assert {each["name"] for each in json.loads(capfd.readouterr().out)} == {
        SECRET,
        "numbat.production/dingo-signing-key",
    }
    assert main(["list", "--group", "wombat-payments"]) == 0
    assert SECRET in capfd.readouterr().out
    assert main(["revoke", "echidna", "wombat-payments"]) == 0
    assert SECRET in capfd.readouterr().err


def test_a_mount_lends_and_lists_by_name(team, tmp_path):
    async def main():
        async with open_vault() as vault:
            await vault.ask("update", "sys/mounts/team", {"type": "repo"})
            key_file = tmp_path / "user" / ".agent-vault" / "owner.key"
            await vault.ask("update", "team/config", {"path": str(team), "key_file": str(key_file)})
            assert (await vault.ask("list", "team/data")).data == {"keys": ["numbat.production/", "wombat-payments/"]}
            assert (await vault.ask("read", "team/config")).data["member"] == {"name": "ownerly", "role": "owner"}
            await vault.ask("update", "services/pay", {**SERVICE, "secret": f"/team/data/{SECRET}"})
            token = await agent(vault, services=["pay"])
            assert (await use(vault, "services/pay", token)).lent["value"].reveal().decode() == CANARY

    asyncio.run(main())
