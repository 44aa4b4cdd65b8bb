"""`add`, `env`, `run` and `call`, on a local vault and on a server."""

import socket
import sys

from cli_driver import ok, run

KEY = "sk_test_51ExampleExampleExample00"


def test_add_stores_binds_and_grants_in_one_step(vault):
    said = run("add", "stripe", "--json", stdin=KEY).json
    assert said == {
        "secret": "stripe/api-key",
        "version": 1,
        "services": ["stripe"],
        "agent": "default",
        "variables": ["STRIPE_API_KEY", "STRIPE_SECRET_KEY"],
    }
    assert run("show", "stripe/api-key", "--json").json["type"] == "api-key"
    assert run("why", "GET", "https://api.stripe.com/v1/balance", "--agent", "default").code == 0
    assert run("why", "GET", "https://files.stripe.com/v1/x", "--agent", "default").code == 0


def test_add_makes_the_local_vault_the_first_time(tmp_path, monkeypatch):
    ok("init", "--vault", f"sqlite:{tmp_path / 'other.db'}", "--seal", f"keyfile:{tmp_path / 'key'}", "--make-keyfile")
    monkeypatch.setenv("KEYHOLE_SEAL", f"keyfile:{tmp_path / 'key'}")
    done = run("add", "openai", stdin="sk-proj-" + "a" * 60)
    assert done.code == 0
    assert "made your vault" in done.err
    assert "hvs." not in done.out + done.err
    assert (tmp_path / "home/vault.db").exists()


def test_add_says_what_a_wrong_paste_looks_like_and_repeats_nothing_of_it(vault):
    done = run("add", "stripe", stdin="not-a-key-of-stripe")
    assert done.code == 0
    assert "does not look like a key of Stripe" in done.err
    assert "not-a-key" not in done.out + done.err


def test_add_twice_is_a_new_version_and_another_agent(vault):
    ok("add", "stripe", stdin=KEY)
    said = run("add", "stripe", "--agent", "coder", "--json", stdin=KEY).json
    assert (said["version"], said["agent"]) == (2, "coder")
    assert [agent["agent"] for agent in run("who-can", "stripe/api-key", "--json").json["agents"]] == [
        "coder",
        "default",
    ]


def test_add_leaves_a_service_alone_that_is_the_users_own(vault):
    ok("set", "mine/key", stdin=KEY)
    ok("service", "add", "stripe", "--host", "api.stripe.com", "--secret", "mine/key", "--bearer")
    done = run("add", "stripe", stdin=KEY)
    assert done.code == 2
    assert "it lends mine/key" in done.err
    assert run("show", "stripe/api-key").code == 5


def test_add_of_something_unknown_names_what_is_close_and_asks_for_nothing(vault):
    done = run("add", "strip")
    assert done.code == 5
    assert "perhaps stripe" in done.err


def test_add_without_a_name_lists_the_catalog(vault):
    names = [entry["name"] for entry in run("add", "--json").json]
    assert {"stripe", "github", "anthropic", "openai"} <= set(names)


def test_env_shows_placeholders_and_never_a_key(vault):
    ok("add", "github", stdin="ghp_" + "A" * 36)
    done = run("env")
    assert "GITHUB_TOKEN" in done.out
    assert "ghp_keyhole" in done.out
    assert "A" * 20 not in done.out
    assert {row["variable"] for row in run("env", "--json").json} >= {"GITHUB_TOKEN", "GH_TOKEN"}
    assert run("env", "--agent", "nobody").code == 5
    assert run("env", "--agent", "").code == 3


def test_a_service_of_ones_own_gets_a_placeholder_of_the_shape_that_the_sdk_expects(vault):
    ok("set", "pay/key", stdin=KEY)
    ok("agent", "add", "default")
    options = ("--host", "api.stripe.com", "--secret", "pay/key", "--bearer", "--variable", "STRIPE_API_KEY")
    ok("service", "add", "pay", *options)
    ok("grant", "default", "pay")
    assert "sk_test_keyhole" in run("env").out
    options = (
        "--host",
        "a.example.com",
        "--secret",
        "pay/key",
        "--placeholder",
        "my-own-placeholder",
        "--variable",
        "A",
    )
    ok("service", "add", "own", *options)
    ok("grant", "default", "own")
    assert "my-own-placeholder" in run("env").out


def test_run_says_that_a_socket_which_is_to_be_reached_is_not_there(vault, tmp_path):
    ok("agent", "add", "default")
    there, missing = tmp_path / "there", tmp_path / "missing"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(there))
        named = ("--allow-local", str(there), "--allow-local", str(missing))
        said = run("run", *named, "--", "true").err.splitlines()
    warned = [line for line in said if "--allow-local" in line]
    assert warned == [f"warning: --allow-local: nobody has opened a socket {missing}"]


def test_a_service_that_lends_nothing_says_so(vault):
    ok("agent", "add", "default")
    tunnel = run("service", "add", "pinned", "--scheme", "tls", "--host", "a.example.com", "--inject", "none")
    assert tunnel.err.splitlines()[0] == (
        "service pinned: tunnels to a.example.com:443 are passed on as they are, and nothing is lent in them"
    )
    plain = run("service", "add", "open", "--host", "b.example.com", "--inject", "none")
    assert plain.err.splitlines()[0] == (
        "service open: calls to b.example.com:443 are let out, and nothing is attached to them"
    )
    ok("grant", "default", "open")
    assert "  secret:   none" in run("why", "GET", "https://b.example.com/", "--agent", "default").out.splitlines()


def test_one_variable_holds_one_placeholder_and_the_other_service_is_named(vault):
    ok("agent", "add", "default")
    for name in ("one", "two"):
        ok("set", f"{name}/key", stdin=KEY)
        options = ("--secret", f"{name}/key", "--bearer", "--variable", "TOKEN")
        ok("service", "add", name, "--host", f"{name}.example.com", *options)
        ok("grant", "default", name)
    done = run("env")
    assert done.out.count("keyhole_placeholder_") == 1
    assert "one.example.com" in done.out
    assert "TOKEN of the service two is taken by another service" in done.err


def test_call_of_a_secret_that_no_service_sends_there_is_denied(vault):
    ok("add", "stripe", stdin=KEY)
    done = run("call", "https://evil.example.com/", "--bearer", "stripe/api-key")
    assert done.code == 4
    assert "no service binds a secret to evil.example.com:443" in done.err


def test_call_with_an_option_that_is_no_pair_does_not_repeat_it(vault):
    done = run("call", "https://api.example.com/", "--header", "hunter2hunter2")
    assert done.code == 3
    assert "hunter2" not in done.out + done.err


def test_run_refuses_its_own_misuse_with_125(vault):
    for words in (("run",), ("run", "--sandbox", "perhaps", "--", "true"), ("run", "--agent", "nobody", "--", "true")):
        assert run(*words).code == 125


def test_run_needs_a_variable_for_a_value_that_no_service_names(vault):
    ok("set", "db/prod", stdin="correct-horse-battery")
    ok("agent", "add", "default")
    done = run("run", "--env", "db/prod", "--", "true")
    assert done.code == 125
    assert "--env VARIABLE=db/prod" in done.err
    assert run("run", "--env", "X=db/none", "--", "true").code == 125


def test_run_gives_the_value_only_in_the_variable_that_was_named(vault, capfd):
    ok("add", "stripe", stdin=KEY)
    script = f"import os; print(sorted(k for k, v in os.environ.items() if v == '{KEY}'))"
    for option, variables in (("X=stripe/api-key", ["X"]), ("stripe/api-key", ["STRIPE_API_KEY", "STRIPE_SECRET_KEY"])):
        done = run("run", "--sandbox", "off", "--env", option, "--", sys.executable, "-c", script)
        assert done.code == 0, done
        assert f"the command gets the real value in {', '.join(variables)}" in done.err
        assert str(variables) in done.out + capfd.readouterr().out


def test_runs_token_is_revoked_when_the_command_has_ended(vault):
    ok("add", "stripe", stdin=KEY)
    assert run("run", "--sandbox", "off", "--", "true").code == 0
    assert run("agent", "show", "default", "--json").json["tokens"] == 0
