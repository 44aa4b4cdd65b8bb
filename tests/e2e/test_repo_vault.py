"""Repo vaults and the published SDK of their format: each opens what the other's tools wrote."""

import subprocess

from cli_driver import ok
from e2e.internet import client

READ = """
import sys
from agent_vault import Vault
vault = Vault(sys.argv[1], key_path=sys.argv[2], auto_pull=False)
print(vault.get("stripe/api-key"))
for each in vault.list_secrets():
    assert each.created.tzinfo and each.rotated.tzinfo and each.expires.tzinfo
    print(each.name, each.group, ",".join(each.authorized_agents), each.expires.year)
print(vault.list_agents())
print(vault.manifest.list_groups())
"""
VALUE = "canary-51H8xKeyhole-9Zq7"


def test_the_published_sdk_reads_a_vault_of_ours(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "keyhole"))
    team = tmp_path / "team"
    team.mkdir()
    subprocess.run(["git", "init", "-q", str(team)], check=True)
    monkeypatch.chdir(team)
    ok("repo", "init")
    ok("repo", "add-agent", "coder", "--group", "stripe")
    ok("repo", "set", "stripe/api-key", "--expires", "2100-01-01", stdin=VALUE)
    key = tmp_path / "user" / ".agent-vault" / "agents" / "coder.key"
    for path in (key, tmp_path / "user" / ".agent-vault" / "owner.key"):
        done = subprocess.run([client("python"), "-c", READ, str(team), str(path)], capture_output=True, check=True)
        assert done.stdout.decode().splitlines() == [
            VALUE,
            "stripe/api-key stripe coder 2100",
            "[{'name': 'coder', 'groups': ['stripe']}]",
            "['stripe']",
        ]
