"""Services, agents, grants, policies and the journal, on a local vault and on a server alike."""

import json

import pytest

from cli_driver import ok, run
from keyhole import Client

VALUE = "sk_live_0123456789"
ODD_WAYS = [
    ["--query", "a", "--cookie", "b"],
    ["--basic", "--digest"],
    ["--bearer", "--in", "query"],
    ["--bearer", "--option", "name=x"],
    ["--inject", "magic"],
    ["--inject", "header", "--option", "name"],
    ["--inject", "header", "--option", "kind=bearer"],
    ["--inject", "headers", "--option", "headers=X-A"],
    ["--placeholder", "sk-holder-1", "--in", "moon"],
    ["--body-field", "a..b"],
]


@pytest.fixture
def stripe(vault):
    ok("set", "stripe/api-key", stdin=VALUE)
    ok("service", "add", "stripe", "--host", "api.stripe.com", "--secret", "stripe/api-key", "--bearer")
    ok("agent", "add", "coder")
    return vault


def test_a_service_is_added_shown_listed_and_removed(stripe):
    shown = ok("service", "show", "stripe", "--json").json
    assert shown["hosts"] == ["api.stripe.com:443"]
    assert shown["secret"] == "stripe/api-key#value"
    assert shown["inject"] == {"kind": "bearer"}
    assert [s["name"] for s in ok("service", "list", "--json").json] == ["stripe"]
    assert VALUE not in ok("service", "show", "stripe").out
    ok("service", "rm", "stripe")
    assert ok("service", "list", "--json").json == []
    assert run("service", "rm", "stripe").code == 5


def test_every_limit_of_a_service_is_kept(stripe):
    ok(
        *("service", "add", "gh", "--host", "api.github.com:8443", "--host", "*.github.io", "--scheme", "https"),
        *("--method", "GET", "--method", "HEAD", "--path", "/repos/**", "--deny-path", "/repos/*/keys/**"),
        *("--allow-address", "10.0.0.5/32", "--secret", "stripe/api-key#value", "--header", "X-Key=token {}"),
    )
    shown = ok("service", "show", "gh", "--json").json
    assert shown["hosts"] == ["api.github.com:8443", "*.github.io:443"]
    assert (shown["methods"], shown["paths"], shown["deny_paths"]) == (
        ["GET", "HEAD"],
        ["/repos/**"],
        ["/repos/*/keys/**"],
    )
    assert shown["allow_addresses"] == ["10.0.0.5/32"]
    assert shown["inject"] == {"kind": "header", "name": "x-key", "template": "token {}"}


@pytest.mark.parametrize(
    ("ways", "inject", "described"),
    [
        (["--query", "p"], {"kind": "query", "name": "p"}, "query p=***"),
        (["--body-field", "a.b"], {"kind": "body", "field": "a.b"}, "body a.b=***"),
        (["--form-field", "f"], {"kind": "form", "field": "f"}, "form f=***"),
        (["--cookie", "sid"], {"kind": "cookie", "name": "sid"}, "cookie sid=***"),
        (["--digest", "--user", "bot"], {"kind": "digest", "user": "bot"}, "authorization: Digest bot:***"),
        (
            ["--placeholder", "sk-holder-1", "--in", "query, body"],
            {"kind": "placeholder", "text": "sk-holder-1", "in": ["query", "body"]},
            "sk-holder-1 -> *** in query, body",
        ),
        (
            ["--placeholder", "sk-holder-1", "--in", "path", "--in", "body"],
            {"kind": "placeholder", "text": "sk-holder-1", "in": ["path", "body"]},
            "sk-holder-1 -> *** in path, body",
        ),
        (
            ["--inject", "path", "--option", "text=sk-holder-1"],
            {"kind": "path", "text": "sk-holder-1"},
            "sk-holder-1 -> *** in path",
        ),
        (
            ["--inject", "headers", "--option", "headers=X-A=value,X-B=other"],
            {"kind": "headers", "headers": {"x-a": "value", "x-b": "other"}},
            "x-a: ***, x-b: ***",
        ),
        (
            ["--inject", "query", "--option", 'params={"a": "value"}'],
            {"kind": "query", "params": {"a": "value"}},
            "query a=***",
        ),
        (
            ["--inject", "header", "--option", "name=X-A", "--option", "template={}"],
            {"kind": "header", "name": "x-a"},
            "x-a: ***",
        ),
    ],
)
def test_every_way_of_attaching_can_be_said_shown_and_explained(vault, ways, inject, described):
    ok("set", "a/key", "--json-in", stdin='{"value": "some-value-1", "other": "some-value-2"}')
    ok("service", "add", "odd", "--host", "a.example", "--secret", "a/key", *ways)
    assert ok("service", "show", "odd", "--json").json["inject"] == inject
    assert f"kind {inject['kind']}" in ok("service", "show", "odd").out
    assert inject["kind"] in ok("service", "list").out
    assert described in ok("why", "POST", "https://a.example/").out


def test_a_way_that_needs_no_secret_is_bound_without_one_and_others_are_not(vault):
    ok("service", "add", "open", "--host", "a.example", "--inject", "none")
    assert run("service", "add", "odd", "--host", "a.example", "--bearer").code == 3


def test_every_kind_of_injection_is_listed(vault):
    from keyhole.core.inject import KINDS

    found = ok("service", "kinds", "--json").json
    assert [kind["kind"] for kind in found] == list(KINDS)
    shown = ok("service", "add", "--help").out
    assert all(kind in shown for kind in KINDS)


@pytest.mark.parametrize("ways", [[], ["--bearer", "--basic"], ["--header", "X={}{}"], ["--header", "Host"], *ODD_WAYS])
def test_a_service_attaches_its_secret_in_exactly_one_sound_way(stripe, ways):
    ran = run("service", "add", "odd", "--host", "a.example", "--secret", "stripe/api-key", *ways)
    assert ran.code == 3
    assert run("service", "show", "odd").code == 5


def test_binding_a_secret_that_does_not_exist_is_pointed_out(vault):
    ran = ok("service", "add", "x", "--host", "a.example", "--secret", "not/there", "--bearer")
    assert "keyhole set not/there" in ran.err


def test_why_says_what_would_be_attached_only_after_the_grant(stripe):
    asked = ("why", "GET", "https://api.stripe.com/v1/balance?x=1", "--agent", "coder")
    before = run(*asked, "--json")
    assert before.code == 1
    assert before.json["allowed"] is False
    assert before.json["error"]["hint"]
    ok("grant", "coder", "stripe")
    after = run(*asked, "--json")
    assert after.code == 0
    assert (after.json["service"], after.json["secret"]) == ("stripe", "stripe/api-key#value")
    text = ok(*asked).out
    assert "authorization: Bearer ***" in text
    assert VALUE not in text
    ok("revoke", "coder", "stripe")
    assert run(*asked).code == 1


def test_why_names_a_secret_that_could_not_be_lent(stripe):
    ok("grant", "coder", "stripe")
    asked = ("why", "GET", "https://api.stripe.com/v1/balance", "--agent", "coder")
    ok("expire", "stripe/api-key", "--at", "2020-01-01")
    ran = run(*asked, "--json")
    assert (ran.code, ran.json["allowed"], ran.json["error"]["code"]) == (1, False, "expired")
    assert ran.json["service"] == "stripe"
    assert "keyhole set stripe/api-key" in run(*asked).out
    ok("rm", "stripe/api-key", "--all")
    assert run(*asked, "--json").json["error"]["code"] == "not_found"


NEARLY = [
    ("GET", "https://api.strpe.com/v1/x", {"host": "api.stripe.com"}),
    ("GET", "http://api.stripe.com:443/v1/x", {"scheme": "https"}),
    ("GET", "https://api.stripe.com:8443/v1/x", {"port": "443"}),
    ("DELETE", "https://api.stripe.com/v1/x", {"method": "GET POST"}),
    ("GET", "https://api.stripe.com/v2/x", {"path": "/v1/**"}),
    ("PUT", "https://api.stripe.com/v2/x", {"method": "GET POST", "path": "/v1/**"}),
    ("GET", "https://api.stripe.com/v1/keys", {"path": "none of /v1/keys"}),
]


@pytest.mark.parametrize(("method", "url", "differs"), NEARLY)
def test_why_names_the_part_in_which_a_call_differs_from_a_service(vault, method, url, differs):
    ok("set", "pay/key", stdin=VALUE)
    rules = ("--method", "GET", "--method", "POST", "--path", "/v1/**", "--deny-path", "/v1/keys")
    ok("service", "add", "pay", "--host", "api.stripe.com", "--secret", "pay/key", "--bearer", *rules)
    ok("agent", "add", "coder")
    ok("grant", "coder", "pay")
    ran = run("why", method, url, "--agent", "coder", "--json")
    assert ran.code == 1
    assert ran.json["near"] == [{"service": "pay", "differs": differs}]
    text = run("why", method, url, "--agent", "coder").out
    for part, wants in differs.items():
        assert f"the {part} ({wants})" in text


def test_why_names_no_service_that_has_nothing_to_do_with_the_call(stripe):
    ok("grant", "coder", "stripe")
    assert "near" not in run("why", "GET", "https://collect.example/", "--agent", "coder", "--json").json


def test_an_agent_that_asks_is_told_of_no_service_that_it_may_not_use(stripe, monkeypatch):
    token = ok("agent", "token", "coder", "--ttl", "5m", "--json").json["token"]
    monkeypatch.setenv("KEYHOLE_TOKEN", token)
    assert "near" not in run("why", "GET", "https://api.strpe.com/", "--json").json


def test_why_says_what_else_belongs_to_a_call(vault):
    ok("set", "app/key", stdin=VALUE)
    ok("set", "app/certificate", stdin=VALUE)
    with Client() as client:
        inject = {"kind": "client-credentials", "token_url": "https://login.example.com/token", "client_id": "x"}
        client.write("services/app", {"hosts": ["api.example.com"], "secret": "app/key", "inject": inject})
    rules = ("--certificate", "app/certificate", "--rate", "10/m", "--approve", "POST /v1/refunds")
    ok("service", "add", "pay", "--host", "pay.example.com", "--secret", "app/key", "--bearer", *rules)
    ok("org", "set", "--tripwire", "revoke")
    ok("agent", "add", "coder")
    ok("grant", "coder", "app")
    ok("grant", "coder", "pay")
    assert "token:    made with the secret" in ok("why", "GET", "https://api.example.com/", "--agent", "coder").out
    said = ok("why", "POST", "https://pay.example.com/v1/refunds", "--agent", "coder").out
    for words in ("app/certificate", "10", "person", "ends the session's token"):
        assert words in said, said


def test_questions_about_an_agent_that_is_not_there_say_so(stripe):
    ran = run("why", "GET", "https://api.stripe.com/", "--agent", "codr", "--json")
    assert ran.code == 5
    assert "codr" in ran.error["reason"]
    assert run("what-can", "codr").code == 5


def test_who_can_and_what_can_answer_from_both_ends(stripe):
    assert ok("who-can", "stripe/api-key", "--json").json["agents"] == []
    ok("grant", "coder", "stripe")
    assert ok("who-can", "stripe/api-key", "--json").json["agents"][0]["uses_through"] == ["stripe"]
    assert ok("what-can", "coder", "--json").json["services"][0]["secret"] == "stripe/api-key#value"
    assert run("what-can", "nobody").code == 5


def test_an_agent_uses_and_never_reads(stripe, monkeypatch):
    ok("grant", "coder", "stripe")
    token = ok("agent", "token", "coder", "--ttl", "1h", "--json").json
    assert set(token) == {"token", "accessor", "expires_at"}
    monkeypatch.setenv("KEYHOLE_TOKEN", token["token"])
    ran = run("get", "stripe/api-key", "--json")
    assert ran.code == 4
    assert ran.error["code"] == "policy_denied"
    assert ran.error["request_id"]
    assert VALUE not in ran.out + ran.err
    assert run("set", "stripe/api-key", stdin="overwritten-value").code == 4
    assert run("why", "GET", "https://api.stripe.com/").code == 0


def test_revoked_tokens_are_refused(stripe, monkeypatch):
    token = ok("agent", "token", "coder", "--json").json["token"]
    assert ok("agent", "revoke", "coder", "--json").json["revoked"] == 1
    monkeypatch.setenv("KEYHOLE_TOKEN", token)
    ran = run("why", "GET", "https://api.stripe.com/", "--json")
    assert ran.code == 4
    assert ran.error["code"] == "unauthenticated"


def test_a_token_is_printed_alone_for_scripts(stripe):
    ran = ok("agent", "token", "coder")
    assert ran.out.startswith("hvs.")
    assert ran.out.count("\n") == 1


def test_agents_are_listed_shown_and_removed(stripe):
    ok("agent", "add", "second", "--description", "does the rest")
    assert [a["name"] for a in ok("agent", "list", "--json").json] == ["coder", "second"]
    assert ok("agent", "show", "second", "--json").json["description"] == "does the rest"
    ok("agent", "rm", "second")
    assert run("agent", "show", "second").code == 5
    assert run("agent", "rm", "second").code == 5
    assert run("grant", "second", "stripe").code == 5
    assert run("grant", "coder", "nothing").code == 5


def test_one_token_of_an_agent_is_found_and_ended_alone(stripe):
    made = ok("agent", "token", "coder", "--uses", "3", "--run", "4711", "--json").json
    ok("agent", "token", "coder")
    [newest, found] = ok("agent", "tokens", "coder", "--json").json
    assert (found["accessor"], found["num_uses"], found["run"]) == (made["accessor"], 3, "4711")
    shown = ok("agent", "tokens", "coder").out
    assert "run=4711 uses=3" in shown
    assert made["token"] not in shown
    assert run("agent", "revoke", "coder", "--accessor", "").code == 3
    ok("agent", "revoke", "coder", "--accessor", made["accessor"])
    assert ok("agent", "tokens", "coder", "--json").json == [newest]
    assert run("agent", "revoke", "coder", "--accessor", made["accessor"]).code == 5


@pytest.mark.parametrize(
    "limit", [("--uses", "0"), ("--ttl", ""), ("--max-ttl", ""), ("--service", ""), ("--bind", ""), ("--run", "")]
)
def test_a_limit_that_is_nothing_makes_no_token_without_it(stripe, limit):
    assert run("agent", "token", "coder", *limit).code == 3
    assert ok("agent", "tokens", "coder", "--json").json == []


def test_a_policy_is_written_tested_and_removed(stripe, tmp_path):
    (tmp_path / "ops.hcl").write_text('path "secret/data/*" { capabilities = ["read"] }\n')
    ok("policy", "write", "ops", tmp_path / "ops.hcl")
    assert "ops" in ok("policy", "list", "--json").json
    assert "capabilities" in ok("policy", "show", "ops").out
    assert run("policy", "test", "ops", "read", "secret/data/a").code == 0
    assert run("policy", "test", "ops", "delete", "secret/data/a").code == 1
    assert run("policy", "test", "coder", "use", "services/stripe").code == 1
    ok("grant", "coder", "stripe")
    answer = run("policy", "test", "coder", "use", "services/stripe", "--json")
    assert (answer.code, answer.json["rule"]) == (0, "services/stripe")
    ok("policy", "rm", "ops")
    assert run("policy", "test", "ops", "read", "x").code == 5
    assert run("policy", "write", "bad", stdin='path "x" {').code == 3


def test_a_policy_is_tested_with_fields_wrapping_and_an_entity(stripe, tmp_path):
    with Client() as client:
        made = client.write("identity/entity", {"name": "bob", "metadata": {"team": "web"}}).data
        client.write("identity/group", {"name": "ops", "member_entity_ids": [made["id"]]})
    text = """
        path "secret/data/{{identity.entity.metadata.team}}/*" { capabilities = ["read"] }
        path "x/{{identity.groups.names.ops.id}}" { capabilities = ["read"] }
        path "auth/token/create" { capabilities = ["update"] allowed_parameters = { ttl = ["1h"] } }
        path "wrapped" { capabilities = ["read"] max_wrapping_ttl = "5m" }
    """
    ok("policy", "write", "ops", stdin=text)

    def code(*words):
        return run("policy", "test", "ops", *words).code

    assert code("read", "secret/data/web/a") == 1
    assert code("read", "secret/data/web/a", "--entity", "bob") == 0
    assert code("read", "secret/data/other/a", "--entity", "bob") == 1
    assert code("read", "secret/data/web/a", "--entity", "nobody") == 5
    assert (code("update", "auth/token/create", "--field", "ttl=1h"), code("read", "wrapped")) == (0, 1)
    assert (code("update", "auth/token/create", "--field", "ttl=2h"), code("read", "wrapped", "--wrap-ttl", "1m")) == (
        1,
        0,
    )
    assert code("update", "auth/token/create", "--field", "ttl") == 3
    assert code("update", "auth/token/create", "--sudo") == 1


def test_a_task_token_says_what_it_may_use(stripe, monkeypatch):
    ok("agent", "add", "builder")
    ok("grant", "builder", "stripe")
    limits = ("--ttl", "10m", "--max-ttl", "20m", "--uses", "9", "--service", "stripe", "--bind", "127.0.0.1")
    made = json.loads(ok("agent", "token", "builder", *limits, "--run", "1", "--step", "2", "--json").out)
    with Client() as client:
        found = client.write("auth/token/lookup", {"token": made["token"]}).data
    assert (found["num_uses"], found["explicit_max_ttl"], found["creation_ttl"]) == (9, 1200, 600)
    assert (found["services"], found["bound_cidrs"], found["run"], found["step"]) == (
        ["stripe"], ["127.0.0.1/32"], "1", "2",
    )  # fmt: skip
    own = json.loads(ok("agent", "token", "builder", "--service", "stripe", "--json").out)["token"]
    monkeypatch.setenv("KEYHOLE_TOKEN", own)
    assert "api.stripe.com" in ok("what-can").out


def test_the_journal_names_who_used_what_and_never_a_value(stripe):
    ok("get", "stripe/api-key")
    run("get", "not/there")
    records = ok("audit", "query", "--secret", "stripe/api-key", "--json").json
    assert {"create", "read"} <= {record["operation"] for record in records}
    assert len(ok("audit", "query", "--limit", "3", "--json").json) == 3
    missed = ok("audit", "query", "--result", "not_found", "--json").json
    assert [record["path"] for record in missed] == ["secret/data/not/there"]
    tail = ok("audit", "tail", "-n", "50").out
    assert "secret/data/stripe/api-key" in tail
    assert VALUE not in json.dumps(records) + tail


def test_the_journal_is_whole_and_its_checkpoint_holds(stripe, tmp_path):
    (tmp_path / "checkpoint.json").write_text(ok("audit", "checkpoint").out)
    verified = run("audit", "verify", "--anchor", tmp_path / "checkpoint.json", "--json")
    assert (verified.code, verified.json["valid"], verified.json["anchored"]) == (0, True, True)
    assert "--anchor" in ok("audit", "verify").out
    (tmp_path / "checkpoint.json").write_text("[]")
    assert run("audit", "verify", "--anchor", tmp_path / "checkpoint.json").code == 3


def test_the_settings_of_an_org_can_be_changed_by_its_administrator(vault):
    assert ok("org", "set", "--egress", "log", "--json").json["egress"] == "log"
    assert ok("org", "show", "--json").json["egress"] == "log"
    assert run("org", "set", "--egress", "perhaps").code == 3
