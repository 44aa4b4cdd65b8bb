"""The command `agent-vault`: scripts that were written for the tool of that name go on working."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys

import pytest

from keyhole.cli.agent_vault import main

VALUE = "sk_test_123-canary"


@pytest.fixture
def team(tmp_path, monkeypatch, capfd):
    folder = tmp_path / "team"
    folder.mkdir()
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    for name in [name for name in os.environ if name.startswith(("KEYHOLE_", "VAULT_", "GIT_"))]:
        monkeypatch.delenv(name)
    for name, value in [("HOME", tmp_path / "user"), ("KEYHOLE_HOME", tmp_path / "keyhole"), ("PATH", "/usr/bin:/bin")]:
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.stdin", io.StringIO())

    def run(*words, code=0):
        capfd.readouterr()
        ended = main([str(word) for word in words])
        out, err = capfd.readouterr()
        assert ended == code, (out, err)
        assert "Traceback" not in err
        return out, err

    run.folder = folder
    run.keys = tmp_path / "user" / ".agent-vault"
    return run


def test_it_is_a_program_of_its_own(team):
    command = [sys.executable, "-c", "from keyhole.cli.agent_vault import program; program()", "list"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"vault not found" in done.stderr
    assert b"Traceback" not in done.stderr


def test_every_verb_says_what_scripts_look_for(team):
    _, err = team("list-agents", code=1)
    assert "vault not found" in err
    _, err = team("init")
    assert "Vault initialized" in err
    assert "owner key" in err
    assert "already initialized" in team("init", code=1)[1]
    assert team("list-agents")[0] == "No agents configured.\n"
    assert team("list")[0] == "No secrets found.\n"
    _, err = team("add-agent", "bot1")
    assert "Agent 'bot1' created." in err
    assert str(team.keys / "agents" / "bot1.key") in err
    assert "agent-vault grant" in err
    assert "agent 'bot1' already exists" in team("add-agent", "bot1", code=1)[1]
    assert team("list-agents")[0] == "bot1  (no groups)\n"
    out, _ = team("check")
    assert "bot1" in out
    assert "no group" in out
    assert "Secret 'stripe/api-key' set in group 'stripe'." in team("set", "stripe/api-key", VALUE)[1]
    assert team("get", "stripe/api-key")[0] == VALUE
    _, err = team("grant", "bot1", "stripe")
    assert "Granted 'bot1' access" in err
    assert "Re-encrypted 1" in err
    key = team.keys / "agents" / "bot1.key"
    assert team("get", "stripe/api-key", "--key", key)[0] == VALUE
    assert team("list-agents")[0] == "bot1  [stripe]\n"
    assert json.loads(team("list-agents", "--json")[0]) == [{"name": "bot1", "groups": ["stripe"]}]
    assert team("check")[0] == "No issues found. Vault is healthy.\n"
    assert json.loads(team("check", "--json")[0]) == {"errors": [], "warnings": []}
    out, _ = team("list")
    assert out.startswith("stripe/api-key                 group=stripe          agents=[bot1]  rotated=20")
    [listed] = json.loads(team("list", "--json", "--group", "stripe")[0])
    assert set(listed) == {"name", "group", "authorized_agents", "created", "rotated", "expires"}
    _, err = team("revoke", "bot1", "stripe")
    assert "Revoked" in err
    assert "WARNING" in err
    assert "  - stripe/api-key" in err
    team("get", "stripe/api-key", "--key", key, code=1)
    assert "ERROR: stripe/api-key is due" in team("check", code=1)[0]
    assert "still to be rotated at the source" in team("set", "stripe/api-key", team("get", "stripe/api-key")[0])[1]
    assert "ERROR: stripe/api-key is due" in team("check", code=1)[0]
    before = key.read_text()
    team("restore-agent", "bot1", "--to", team.folder / "restored.key")
    assert (team.folder / "restored.key").read_text() == before
    team("recover-agent", "bot1")
    assert key.read_text() != before
    _, err = team("remove-agent", "bot1")
    assert "Agent 'bot1' removed." in err
    assert "agent 'bot1' not found" in team("remove-agent", "bot1", code=1)[1]
    assert "No agents" in team("list-agents")[0]


def test_check_says_as_json_what_cannot_be_read(team):
    team("init")
    (team.folder / ".agent-vault/config.yaml").write_text(": no")
    [told] = json.loads(team("check", "--json", code=1)[0])["errors"]
    assert told.startswith("config.yaml is not what")
    assert "ERROR: config.yaml is not what" in team("check", code=1)[0]


def test_a_value_without_an_end_is_refused(team, monkeypatch):
    team("init")
    monkeypatch.setattr("keyhole.cli.agent_vault.LONGEST", 20 << 20)
    assert "a secret has at most" in team("set", "a/b", "--from-file", "/dev/zero", code=1)[1]


def test_a_vault_that_can_only_be_read_is_read(team, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system", ".agent-vault/.local")

    team("init")
    team("set", "a/b", VALUE)
    monkeypatch.setattr("keyhole.repo.tree.Tree._local", refuse)
    out, err = team("get", "a/b")
    assert (out, "can only be read" in err) == (VALUE, True)
    assert ".agent-vault/.local: Read-only file system" in team("set", "a/b", "x", code=1)[1]


def test_what_goes_wrong_is_said_in_one_line(team, monkeypatch):
    def fail(*_):
        raise RuntimeError(VALUE)

    team("init")
    monkeypatch.setattr("keyhole.cli.agent_vault._text_of", fail)
    assert team("set", "a/b", "--from-file", "x", code=1)[1] == "Error: internal error: RuntimeError\n"
    team.keys.joinpath("agents").write_text("in the way")
    assert "agents: " in team("add-agent", "bot1", code=1)[1]


def test_set_takes_one_value_from_one_place(team):
    team("init")
    (team.folder / "value.txt").write_text("from-a-file-1\n")
    assert "provide a value or --from-file" in team("set", "a/b", code=1)[1]
    assert "not both" in team("set", "a/b", "x", "--from-file", "value.txt", code=1)[1]
    team("set", "a/b", "--from-file", "value.txt", "--expires", "2100-12-31T00:00:00Z")
    assert team("get", "a/b")[0] == "from-a-file-1\n"
    assert "expires=2100-12-31" in team("list")[0]
    assert "invalid --expires" in team("set", "a/b", "x", "--expires", "soon", code=1)[1]
    assert "group 'default'" in team("set", "plain", VALUE)[1]
    assert team("get", "default/plain")[0] == VALUE


def test_agents_beside_the_groups(team):
    team("init")
    team("add-agent", "bot1")
    assert "(also encrypted for: bot1)" in team("set", "a/b", VALUE, "--agents", "bot1")[1]
    assert team("get", "a/b", "--key", team.keys / "agents" / "bot1.key")[0] == VALUE
    team("set", "a/b", VALUE, "--agents", "nobody", code=1)


def test_help_and_completions(team):
    out, _ = team("--help")
    assert "Zero-trust credential manager" in out
    for shell in ("bash", "zsh", "fish", "powershell", "elvish"):
        assert "agent-vault" in team("completions", shell)[0]
    team("no-such-verb", code=2)


@pytest.mark.parametrize(
    ("shell", "words", "word", "found"),
    [
        ("powershell", "agent-vault re", "re", ["recover-agent", "remove-agent", "restore-agent", "revoke"]),
        ("powershell", "agent-vault list --", "--", ["--group", "--json", "--help"]),
        ("elvish", "agent-vault\nlist-", "", ["list-agents"]),
        ("elvish", "agent-vault\nlist\n--g", "", ["--group"]),
    ],
)
def test_powershell_and_elvish_are_answered(team, shell, words, word, found):
    asked = {"_AGENT_VAULT_COMPLETE": f"{shell}_complete", "COMP_WORDS": words, "COMP_CWORD": word}
    command = [sys.executable, "-c", "from keyhole.cli.agent_vault import program; program()"]
    done = subprocess.run(command, capture_output=True, check=True, env={**os.environ, **asked})
    assert [line for line in done.stdout.decode().splitlines() if line != "-h"] == found
