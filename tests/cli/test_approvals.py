"""Conditions, limits and approvals at the command line, on a local vault and on a server alike."""

import json
import os
import signal
import subprocess
import sys

import pytest

from children import child
from cli_driver import environment, ok, run

HOST = "api.example.invalid"
URL = f"https://{HOST}/v1/pay"


@pytest.fixture
def pay(vault):
    """A service whose posts a person has to approve, and an agent that may use it; the agent's token."""
    ok("set", "pay/key", stdin="sk_live_0123456789")
    ok("service", "add", "pay", "--host", HOST, "--secret", "pay/key", "--bearer", "--approve", "POST")
    ok("agent", "add", "coder")
    ok("grant", "coder", "pay")
    return ok("agent", "token", "coder", "--json").json["token"]


def call(monkeypatch, token, *args, url=URL):
    """A call of the agent; an approved one gets as far as a host that does not exist."""
    with monkeypatch.context() as own:
        own.setenv("KEYHOLE_TOKEN", token)
        own.delenv("KEYHOLE_ORG", raising=False)
        ran = run("call", url, "--service", "pay", "--json", *args)
    assert ran.code != 0
    return ran.error


def asked(monkeypatch, token, *args):
    """The id that a refused call names."""
    error = call(monkeypatch, token, "-X", "POST", *args)
    assert error["code"] == "approval_required"
    assert error["hint"].startswith("keyhole approve ")
    return error["hint"].split()[2].rstrip(",")


def test_a_call_waits_is_listed_approved_and_goes_out_once(pay, monkeypatch):
    request = asked(monkeypatch, pay)
    listed = ok("requests").out
    assert request in listed
    assert f"POST {HOST}:443/v1/pay" in listed
    assert "agent/coder" in ok("requests", request).out
    said = ok("approve", request).err
    assert "approved" in said
    assert "once" in said
    assert "approved" in ok("requests").out
    assert call(monkeypatch, pay, "-X", "POST")["code"] == "upstream_unreachable"
    assert asked(monkeypatch, pay) != request
    intents = [r for r in ok("audit", "query", "--agent", "coder", "--json").json if r["phase"] == "intent"]
    assert [record.get("approval") for record in intents if record["operation"] == "use"] == [request]
    assert f"approval={request}" in ok("audit", "query", "--agent", "coder").out


def test_a_denied_call_stays_denied(pay, monkeypatch):
    request = asked(monkeypatch, pay)
    assert "denied" in ok("deny", request).err
    assert call(monkeypatch, pay, "-X", "POST")["code"] == "policy_denied"
    assert run("deny", "0123456789ab").code == 5
    assert run("approve", "0123456789ab").code == 5
    assert run("approve", "../../sys").code == 3


def test_a_standing_approval_is_given_listed_and_taken_back(pay, monkeypatch):
    request = asked(monkeypatch, pay)
    rule = ok("approve", request, "--for", "1h", "--same-path", "--json").json
    assert call(monkeypatch, pay, "--data", "{}", url=f"{URL}?x=1")["code"] == "upstream_unreachable"
    assert call(monkeypatch, pay, "-X", "POST")["code"] == "upstream_unreachable"
    listed = ok("requests", "--standing").out
    assert rule["id"] in listed
    assert "any query, headers and body" in listed
    assert ok("requests", "--json").json == []
    assert "taken back" in ok("deny", rule["id"]).err
    assert ok("requests", "--standing", "--json").json == []
    asked(monkeypatch, pay)


def test_an_approval_of_more_than_one_request_needs_an_end(pay, monkeypatch):
    request = asked(monkeypatch, pay)
    assert run("approve", request, "--same-path").code == 3
    assert run("approve", request, "--for", "31d").code == 3
    assert run("requests", request, "--watch").code == 3
    asked(monkeypatch, pay)


def test_an_agent_with_the_right_to_approve_cannot_approve_itself(pay, monkeypatch, tmp_path):
    (tmp_path / "p.hcl").write_text('path "approvals/*" { capabilities = ["read", "list", "update"] }\n')
    request = asked(monkeypatch, pay)
    (tmp_path / "q.hcl").write_text(
        (tmp_path / "p.hcl").read_text() + 'path "services/pay" { capabilities = ["use"] }\n'
    )
    ok("policy", "write", "agent/coder", tmp_path / "q.hcl")
    monkeypatch.setenv("KEYHOLE_TOKEN", pay)
    ran = run("approve", request, "--json")
    assert (ran.code, ran.error["code"]) == (4, "policy_denied")
    assert "its own request" in ran.error["reason"]


def test_the_list_is_empty_in_words(vault):
    assert "nothing waits" in ok("requests").err
    assert "no standing" in ok("requests", "--standing").err


@pytest.mark.parametrize("vault", ["server"], indirect=True)
def test_watching_shows_what_comes_until_it_is_stopped(pay, monkeypatch, server):
    request = asked(monkeypatch, pay)
    env = environment(KEYHOLE_ADDR=server["api"], KEYHOLE_TOKEN=os.environ["KEYHOLE_TOKEN"])
    command = [sys.executable, "-m", "keyhole", "requests", "--watch"]
    with child(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        ok("approve", request)
        second = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert f"keyhole approve {request}" in first
    assert " approved agent/coder" in second


OPTIONS = [
    (
        ["--query-condition", "dry_run=true|yes", "--query-condition", "n>=1", "--query-condition", "n<=9.5"],
        {"conditions": [{"query": {"dry_run": {"in": ["true", "yes"]}, "n": {"min": 1, "max": 9.5}}}]},
    ),
    (
        ["--query-condition", "env?=dev-*", "--query-condition", "force!"],
        {"conditions": [{"query": {"env": {"like": "dev-*", "optional": True}, "force": {"absent": True}}}]},
    ),
    (
        ["--body-condition", "/amount<=5000", "--body-condition", '/a/b=5|true|null|eur|"5"'],
        {
            "conditions": [
                {"body": [{"at": "/amount", "max": 5000}, {"at": "/a/b", "in": [5, True, None, "eur", "5"]}]},
            ]
        },
    ),
    (
        ["--graphql", "query", "--graphql", "mutation", "--graphql-field", "viewer", "--graphql-deny", "**.email"],
        {
            "conditions": [
                {
                    "graphql": {
                        "operations": ["query", "mutation"],
                        "fields": ["viewer"],
                        "deny_fields": ["**.email"],
                    }
                }
            ]
        },
    ),
    (["--graphql-field", "viewer"], {"conditions": [{"graphql": {"operations": ["query"], "fields": ["viewer"]}}]}),
    (["--git", "fetch"], {"conditions": [{"git": "fetch"}]}),
    (
        ["--hours", "Mon-Fri 08:00-18:00 UTC", "--hours", "Sat 10:00-12:00 UTC", "--until", "2030-01-31"],
        {
            "conditions": [
                {
                    "hours": ["Mon-Fri 08:00-18:00 UTC", "Sat 10:00-12:00 UTC"],
                    "until": "2030-01-31T00:00:00.000000Z",
                }
            ]
        },
    ),
    (
        ["--rate", "10/m", "--count", "100/d", "--concurrent", "4"],
        {"limits": {"rate": "10/m", "count": "100/d", "concurrent": 4}},
    ),
    (["--approve", "all"], {"approval": {"required": True}}),
    (
        ["--approve", "POST,PUT /v1/pay /v1/refund", "--approve", "/admin/**", "--approval-wait", "2m"],
        {
            "approval": {
                "required": True,
                "for": [{"methods": ["POST", "PUT"], "paths": ["/v1/pay", "/v1/refund"]}, {"paths": ["/admin/**"]}],
                "wait": 120,
            }
        },
    ),
]


@pytest.mark.parametrize(("options", "stored"), OPTIONS)
def test_what_a_call_must_be_is_said_and_shown(local, options, stored):
    ok("set", "x/key", stdin="sk_live_0123456789")
    shown = ok("service", "add", "x", "--host", HOST, "--secret", "x/key", "--bearer", "--json", *options).json
    assert {name: shown[name] for name in ("conditions", "limits", "approval") if name in shown} == stored
    assert "checked:" in ok("service", "show", "x").out


@pytest.mark.parametrize(
    "options",
    [
        ["--query-condition", "amount"],
        ["--query-condition", "amount<=many"],
        ["--query-condition", "amount<=5", "--query-condition", "amount<=6"],
        ["--body-condition", "amount<=5"],
        ["--hours", "in the morning"],
        ["--until", "soon"],
        ["--rate", "fast"],
        ["--count", "0/d"],
        ["--approve", "POST GET /x"],
        ["--approve", "post /x"],
        ["--approve", ""],
        ["--approval-wait", "2m"],
        ["--conditions-from", "/nowhere/x.json"],
    ],
)
def test_a_check_that_is_not_understood_is_refused(local, options):
    ok("set", "x/key", stdin="sk_live_0123456789")
    ran = run("service", "add", "x", "--host", HOST, "--secret", "x/key", "--bearer", *options)
    assert ran.code == 3, ran
    assert "next:" in ran.err
    assert run("service", "show", "x").code == 5


def test_checks_are_read_from_a_file(local, tmp_path):
    ok("set", "x/key", stdin="sk_live_0123456789")
    add = ("service", "add", "x", "--host", HOST, "--secret", "x/key", "--bearer", "--json", "--conditions-from")
    data = {"conditions": {"git": "fetch"}, "limits": {"rate": "5/m"}, "approval": {"required": True}}
    file = tmp_path / "checks.json"
    file.write_text(json.dumps(data))
    shown = ok(*add, file, "--query-condition", "a=b", "--rate", "6/m").json
    assert shown["conditions"] == [{"git": "fetch"}, {"query": {"a": {"in": ["b"]}}}]
    assert (shown["limits"], shown["approval"]) == ({"rate": "6/m"}, {"required": True})
    file.write_text('[{"git": "push"}, {"until": "2030-01-01"}]')
    assert len(ok(*add, file).json["conditions"]) == 2
    for broken in ("{", "5", '{"conditions": 5}', '{"limit": {"rate": "5/m"}}'):
        file.write_text(broken)
        assert run(*add, file).code == 3


def test_why_shows_what_is_checked(pay):
    told = ok("why", "POST", URL, "--agent", "coder").out
    assert "checked:  approval by a person: POST" in told
