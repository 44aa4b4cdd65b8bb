"""The command `agentsecrets` where no session is: lists of the vault, and refusals that name the right command."""

import json

import pytest

from cli_driver import ok, run
from keyhole.cli.agentsecrets import main


@pytest.fixture(autouse=True)
def outside(monkeypatch):
    monkeypatch.delenv("AGENTSECRETS_PORT", raising=False)


@pytest.fixture
def stripe(local):
    ok("set", "stripe/api-key", stdin="sk_live_0123456789abcdef")
    ok("service", "add", "stripe", "--host", "api.stripe.com", "--secret", "stripe/api-key", "--bearer")
    ok("agent", "add", "default")
    ok("grant", "default", "stripe")
    return local


@pytest.fixture
def say(capsys):
    def say(*words, code=0):
        assert main(list(words)) == code
        said = capsys.readouterr()
        return said.err if code else said.out

    return say


def test_lists_have_the_forms_that_the_sdk_reads(stripe, say):
    assert say("secrets", "list") == "STRIPE_API_KEY\n"
    assert say("secrets", "get", "STRIPE_API_KEY") == "STRIPE_API_KEY\n"
    for name in ("stripe/api-key", "STRIPE"):
        assert say("secrets", "get", name) == f"{name}\n"
    assert "│ api.stripe.com │ service  │ -        │" in say("workspace", "allowlist", "list")
    assert "│ default │ keyhole   │ —           │" in say("project", "list")
    assert say("workspace", "list") == "→ keyhole (personal)\n"
    assert say("agent", "policy", "get", "default").startswith("Allowed Secrets: stripe/api-key\n")
    line = say("agent", "list").splitlines()[1]
    assert (line[0:20].strip(), line[20:36].strip(), line[36:45].strip(), line[45:71].strip()) == (
        ("default", "workspace", "0", "never")
    )
    assert say("proxy", "logs") == ""
    assert "not found in keychain" in say("secrets", "get", "NO_SUCH", code=1)
    assert "keyhole run --agent NAME" in say("project", "use", "x", code=1)


def test_the_log_is_narrowed_by_any_name_of_a_secret(stripe, say, monkeypatch):
    ok("set", "other/key", stdin="sk_live_0123456789abcdef")
    ok("service", "add", "other", "--host", "127.0.0.1:1", "--secret", "other/key", "--bearer")
    ok("grant", "default", "other")
    monkeypatch.setenv("KEYHOLE_TOKEN", ok("agent", "token", "default", "-q").out.strip())
    run("call", "https://127.0.0.1:1/", "--bearer", "other/key")
    monkeypatch.delenv("KEYHOLE_TOKEN")
    for name in ("OTHER_KEY", "other/key", "OTHER"):
        assert len(say("proxy", "logs", "--secret", name).splitlines()) == 1
    assert say("proxy", "logs", "--secret", "STRIPE") == ""


def test_agents_are_registered_without_showing_a_token(stripe, say):
    assert say("agent", "register", "coder", "--label", "x", "--save-token") == "Name     coder\nScope    workspace\n"
    assert "say --confirm" in say("agent", "delete", "coder", code=1)
    say("agent", "delete", "coder", "--confirm")
    assert "coder" not in say("agent", "list")


def test_tokens_of_an_agent_are_listed_and_ended_as_the_sdk_asks(stripe, say):
    assert say("agent", "token", "list", "default") == "No tokens found\n"
    made = ok("agent", "token", "default", "--run", "4711", "--json").json
    ok("agent", "token", "default")
    line = next(found for found in say("agent", "token", "list", "default").splitlines() if "4711" in found)
    assert (line[20:36].strip(), line[36:52].strip(), line[52:78].strip(), line[78:]) == (
        ("4711", made["expires_at"][:10], "", "active")
    )
    number = line[0:20].strip()
    for words in ((number,), ("--all",), (), (number, "--all", "--confirm")):
        assert "Revoked" not in say("agent", "token", "revoke", *words, "--agent", "default", code=1)
    assert "no token" in say("agent", "token", "revoke", "none", "--agent", "default", "--confirm", code=1)
    say("agent", "token", "revoke", number, "--agent", "default", "--confirm")
    assert len(ok("agent", "tokens", "default", "--json").json) == 1
    say("agent", "token", "revoke", "--all", "--agent", "default", "--confirm")
    assert ok("agent", "tokens", "default", "--json").json == []


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("secrets", "set", "A=sk_live_value"), "keyhole set NAME < FILE"),
        (("secrets", "delete", "A"), "keyhole rm NAME"),
        (("workspace", "allowlist", "add", "a.test"), "keyhole service add NAME --host HOST"),
        (("init", "-f", "--storage-mode", "1"), "keyhole init"),
        (("login",), "keyhole login"),
        (("logout", "-f"), "keyhole logout"),
        (("mcp", "serve"), "keyhole mcp serve"),
        (("exec",), "keyhole get NAME --reveal"),
        (("workspace", "switch", "x"), "keyhole org"),
        (("agent", "token", "issue", "default", "--label", "x"), "keyhole agent token NAME"),
        (("agent", "policy", "set", "default", "--allow", "A"), "keyhole grant NAME SERVICE"),
        (("environment", "switch", "staging"), "keyhole run --agent NAME"),
        (("proxy", "start", "--port", "8765"), "keyhole run -- COMMAND"),
        (("proxy", "stop"), "end that command"),
        (("call", "--url", "https://a.test", "--bearer", "A", "--token", "hvs.abcdefgh"), "NAME_TOKEN"),
    ],
)
def test_what_is_done_elsewhere_is_refused_with_the_way(say, words, hint):
    said = say(*words, code=1)
    assert hint in said
    assert "sk_live_value" not in said
    assert "hvs." not in said


def test_a_call_without_a_session_of_its_own_says_why_in_the_form_that_programs_read(local, say, capsys):
    words = ("call", "--url", "https://a.test", "--bearer", "A")
    assert say(*words, code=1) == "Error: there is no agent 'default' (keyhole agent add default)\n"
    assert main([*words, "--output", "json"]) == 1
    said = capsys.readouterr()
    envelope = json.loads(said.out)
    assert (envelope["status"], envelope["headers"], envelope["body"], said.err) == (0, {}, "", "")
    assert envelope["error"] == "there is no agent 'default' (keyhole agent add default)"


def test_a_vault_with_a_passphrase_opens_as_for_keyhole(say, tmp_path, monkeypatch):
    (tmp_path / "pass").write_text("correct horse battery staple\n")
    monkeypatch.setenv("KEYHOLE_PASSPHRASE_FILE", str(tmp_path / "pass"))
    ok("init", "--seal", "passphrase")
    ok("agent", "add", "default")
    assert "default" in say("project", "list")
