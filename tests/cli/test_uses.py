"""One query: which credential was used by which step, when, and with what result."""

import json

import pytest

from cli_driver import ok, run
from keyhole.cli.uses import cells, uses

KEY = "sk_test_" + "c4" * 12
RULE = 'path "secret/data/crm/*" { capabilities = ["read"] } path "secret/metadata/crm/*" { capabilities = ["read"] }'
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize("vault", ["server"], indirect=True)
def test_one_query_says_which_step_used_what_when_and_how_it_ended(vault, monkeypatch, tmp_path):
    ok("set", "crm/key", stdin=KEY)
    ok("set", "bank/key", stdin=KEY)
    (tmp_path / "crm.hcl").write_text(RULE)
    ok("policy", "write", "crm", tmp_path / "crm.hcl")
    ok("agent", "add", "coder")
    for step in ("fetch", "store"):
        told = ("--workflow", "nightly", "--run", "4711", "--step", step, "--policy", "crm")
        token = ok("agent", "token", "coder", *told, "--json").json["token"]
        with monkeypatch.context() as patch:
            patch.setenv("KEYHOLE_TOKEN", token)
            ok("get", "crm/key", "--reveal")
            ok("show", "crm/key")
    found = ok("audit", "uses", "--run", "4711", "--json").json
    assert [(use["step"], use["secrets"], use["agent"], use["workflow"], use["result"]) for use in found] == [
        ("fetch", ["crm/key"], "agent/coder", "nightly", "ok"),
        ("store", ["crm/key"], "agent/coder", "nightly", "ok"),
    ]
    assert found[0]["time"] < found[1]["time"]
    [shown] = ok("audit", "uses", "--run", "4711", "--step", "store").out.splitlines()[1:]
    assert [word for word in shown.split() if "T" not in word][:6] == [
        "4711",
        "store",
        "coder",
        "crm/key",
        "read",
        "ok",
    ]
    assert ok("audit", "uses", "--run", "4712").out == ""
    assert {r["step"] for r in ok("audit", "query", "--workflow", "nightly", "--json").json} == {"fetch", "store"}
    assert run("audit", "query", "--limit", "0").code == 3
    exported = ok("audit", "export", "--workflow", "nightly", "--before", "2999-01-01")
    assert [json.loads(line) for line in exported.out.splitlines()] == ok(
        "audit", "query", "--workflow", "nightly", "--json"
    ).json
    assert exported.err == f"exported {len(exported.out.splitlines())} records\n"
    assert "sys/audit-log" in ok("audit", "export").out
    assert ok("audit", "export", "--between", "2020-01-01", "2020-01-02").out == ""
    tailed = [json.loads(line) for line in ok("tail", "--no-follow", "--run", "4711", "--json").out.splitlines()]
    assert {(line["run"], line["agent"]) for line in tailed} == {("4711", "agent/coder")}
    assert ok("tail", "--no-follow", "--run", "4712", "--json").out == ""


def record(phase, **fields):
    return {
        "time": fields.pop("time", "2027-01-31T12:00:00Z"),
        "phase": phase,
        "id": "r1",
        "caller": "agent/a",
        **fields,
    }


def test_a_use_is_found_behind_records_of_other_things(vault, monkeypatch):
    ok("set", "crm/key", stdin=KEY)
    ok("get", "crm/key", "--reveal")
    for _ in range(5):
        ok("list")
    for first in (1000, 2):
        monkeypatch.setattr("keyhole.cli.audit._FIRST", first)
        assert [use["secrets"] for use in ok("audit", "uses", "--limit", "1", "--json").json] == [["crm/key"]]
    monkeypatch.setattr("keyhole.cli.audit._MOST", 4)
    assert "latest 4 records" in ok("audit", "uses", "--limit", "1").err


CALL = {"operation": "use", "path": "services/pay", "service": "pay", "secrets": ["pay/key"], "run": "1", "step": "pay"}
CALL |= {"host": "pay.example:443", "method": "POST", "target": "/charges"}


def test_a_call_is_one_line_from_its_beginning_to_its_end():
    begun = record("intent", **CALL)
    ended = record("outcome", **CALL, time="2027-01-31T12:00:01Z", result="ok", status=201, milliseconds=950)
    [use] = uses([begun, ended])
    assert cells(use)[1:] == ["1", "pay", "a", "pay/key", "POST pay.example/charges", "ok 201", "950"]
    assert use["time"] == begun["time"]
    assert cells(uses([begun])[0])[6] == "no end"


def test_what_is_leased_began_when_it_was_asked_for():
    read = {"operation": "read", "path": "database/creds/app"}
    begun = record("intent", **read)
    between = record("intent", **CALL) | {"id": "r2", "time": "2027-01-31T12:00:00.010000Z"}
    ended = record("outcome", **read, time="2027-01-31T12:00:00.040000Z", result="ok", lease="database/creds/app/1")
    leased, call = uses([begun, between, ended])
    assert (leased["time"], leased["ms"], call["id"]) == (begun["time"], 40, "r2")


@pytest.mark.parametrize(
    ("fields", "counts"),
    [
        ({"operation": "read", "path": "database/creds/app", "lease": "database/creds/app/1"}, True),
        ({"operation": "read", "path": "secret/data/a/metadata/b", "secrets": ["a/metadata/b"]}, True),
        ({"operation": "read", "path": "secret/metadata/a", "secrets": ["a"]}, False),
        ({"operation": "update", "path": "secret/data/a", "secrets": ["a"]}, False),
        ({"operation": "egress", "path": "services", "host": "example.com:443"}, False),
        ({"operation": "use", "path": "tools/crm/send"}, True),
        ({"operation": "use", "path": "services", "result": "no_service"}, False),
    ],
)
def test_what_counts_as_a_use(fields, counts):
    assert bool(uses([record("outcome", **fields)])) is counts


def test_what_only_the_caller_said_is_marked():
    forged = record("intent", **CALL, claimed="run,step")
    half = record("intent", **CALL, claimed="step")
    assert cells(uses([forged])[0])[1:3] == ["1 (said)", "pay (said)"]
    assert cells(uses([half])[0])[1:3] == ["1", "pay (said)"]
