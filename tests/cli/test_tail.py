"""`keyhole tail`: one line a call, whatever the journal says of it and whenever it says it."""

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest

from children import child
from cli_driver import environment, ok, run, spawn
from keyhole.cli.calls import Calls

CALL = {"caller": "agent/coder", "operation": "use", "service": "pay", "host": "api.pay.test:443", "method": "GET"}


def record(phase, name="r1", **fields):
    moment = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return {"time": moment, "writer": 0, "sequence": 1, "phase": phase, "id": name, **CALL, **fields}


def texts(lines):
    return ["  ".join(line.cells()) for line in lines]


def test_beginning_and_end_of_a_call_are_one_line():
    calls = Calls()
    assert calls.feed([record("intent", target="/v1/x", parameters=["page"])], 0.0) == []
    [line] = calls.feed(
        [record("outcome", target="/v1/x", parameters=["page"], result="ok", status=200, milliseconds=84)], 0.2
    )
    assert "coder  GET api.pay.test/v1/x?page=  200  84" in "  ".join(line.cells())
    assert line.state == "done"
    assert calls.running(9.0) == []


def test_a_call_that_runs_is_shown_once_after_a_second_and_again_at_its_end():
    calls = Calls()
    calls.feed([record("intent")], 10.0)
    assert calls.patience(10.25, 20.0) == 0.75
    assert calls.running(10.5) == []
    [line] = calls.running(11.0)
    assert (line.state, line.cells()[3]) == ("running", "…")
    assert calls.running(12.0) == []
    assert calls.patience(12.0, 20.0) == 20.0
    [line] = calls.feed([record("outcome", result="upstream_timeout", milliseconds=4000)], 14.0)
    assert line.state == "failed"
    assert "upstream_timeout" in line.cells()[-1]


@pytest.mark.parametrize(
    ("said", "state", "mark"),
    [
        (record("refused", result="policy_denied"), "refused", "refused: policy_denied"),
        (record("refused", result="approval_required", approval="3f9a"), "waiting", "keyhole approve 3f9a"),
        (record("event", operation="approval", approval="3f9a"), "waiting", "keyhole approve 3f9a"),
        (record("event", operation="alarm", result="value in body"), "alarm", "ALARM"),
        (record("outcome", result="ok", status=200, scrubbed=1), "done", "masked"),
        (record("outcome", operation="mint", result="ok", status=200), "done", "mints a token"),
        (record("refused", caller="", service="", result="unauthenticated"), "refused", "unauthenticated"),
    ],
)
def test_what_is_special_about_a_call_stands_out(said, state, mark):
    [line] = Calls().feed([said], 0.0)
    assert line.state == state
    assert mark in line.cells()[-1]
    assert line.bad == (state != "done")


def test_a_request_that_waits_for_approval_is_one_line_until_it_is_sent_again():
    calls = Calls()
    asked = record("event", operation="approval", approval="3f9a")
    refused = record("refused", result="approval_required", approval="3f9a")
    assert len(calls.feed([asked, refused], 0.0)) == 1
    assert len(calls.feed([record("refused", "r2", result="approval_required", approval="3f9a")], 1.0)) == 1


def test_what_people_and_the_vault_itself_do_is_no_line():
    own = record("outcome", caller="user/owner", operation="read", host="", path="secret/data/x", result="ok")
    watch = record("event", caller="", operation="watch")
    assert Calls().feed([own, watch], 0.0) == []
    agents = record("outcome", operation="read", host="", path="secret/data/x", result="ok")
    [line] = Calls().feed([agents], 0.0)
    assert line.cells()[2] == "read secret/data/x"


def furnish():
    ok("set", "pay/key", stdin="sk_live_0123456789abcdef")
    ok("service", "add", "pay", "--host", "api.pay.invalid", "--secret", "pay/key", "--bearer", "--path", "/v1/**")
    ok("agent", "add", "coder")
    ok("grant", "coder", "pay")
    return ok("agent", "token", "coder", "--json").json["token"]


def test_the_latest_lines_are_there_at_once_and_can_be_all(vault, monkeypatch):
    token = furnish()
    with monkeypatch.context() as patch:
        patch.setenv("KEYHOLE_TOKEN", token)
        assert run("get", "pay/key").code == 4
        assert run("call", "https://api.pay.invalid/v2/x", "--service", "pay").code != 0
    ran = ok("tail", "--no-follow")
    assert ran.out.splitlines()[0].split() == ["TIME", "AGENT", "CALL", "STATUS", "MS"]
    assert "read secret/data/pay/key" in ran.out
    assert "refused: policy_denied" in ran.out
    assert "\x1b" not in ran.out
    listed = [json.loads(line) for line in ok("tail", "--no-follow", "--refused", "--json").out.splitlines()]
    assert {line["state"] for line in listed} == {"refused"}
    assert {line["agent"] for line in listed} == {"agent/coder"}
    assert ok("tail", "--no-follow", "--agent", "nobody", "--json").out == ""
    assert len(ok("tail", "--no-follow", "-n", "1", "--json").out.splitlines()) == 1


@contextlib.contextmanager
def tailing(*words, env, stdout=subprocess.PIPE):
    command = [sys.executable, "-m", "keyhole", "tail", *words]
    with child(command, env=env, stdout=stdout, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(handle, wanted, act=lambda: None):
    deadline, found = time.monotonic() + 60, b""
    while wanted not in found:
        assert time.monotonic() < deadline, found
        act()
        if select.select([handle], [], [], 0.2)[0]:
            found += os.read(handle, 65536)
    return found


def test_it_follows_what_another_process_does_and_ends_cleanly(vault):
    token = furnish()
    with tailing("--json", "-n", "0", env=environment(**keyhole_settings())) as process:
        own = keyhole_settings() | {"KEYHOLE_TOKEN": token}

        def act():
            spawn("get", "pay/key", env=environment(**own))

        found = read_until(process.stdout.fileno(), b"secret/data/pay/key", act)
        assert json.loads(found.splitlines()[0])["result"] == "policy_denied"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read() == b""


def keyhole_settings():
    return {name: value for name, value in os.environ.items() if name.startswith("KEYHOLE_")}


@pytest.mark.parametrize("plain", [False, True])
def test_there_is_colour_on_a_terminal_unless_nobody_wants_it(local, plain):
    token = furnish()
    spawn("get", "pay/key", env=environment(**keyhole_settings(), KEYHOLE_TOKEN=token))
    ours, theirs = pty.openpty()
    env = environment(**keyhole_settings(), TERM="xterm")
    env.pop("NO_COLOR")
    if plain:
        env["NO_COLOR"] = "1"
    with tailing(env=env, stdout=theirs) as process:
        found = read_until(ours, b"policy_denied")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130, process.stderr.read()
    os.close(ours)
    os.close(theirs)
    assert (b"\x1b[31m" in found) is not plain
    assert (b"\x1b[1m" in found) is not plain


def test_calls_from_now_on_are_written_to_a_file(vault, tmp_path):
    token = furnish()
    path = tmp_path / "calls.har"
    with tailing("--har", str(path), env=environment(**keyhole_settings())) as process:
        own = keyhole_settings() | {"KEYHOLE_TOKEN": token}

        def act():
            spawn("call", "https://stranger.example.invalid/x", "--service", "pay", env=environment(**own))

        read_until(process.stdout.fileno(), b"no_service", act)
        # The broker notes a call a moment after its record: of the second one at the latest the first is there.
        read_until(process.stdout.fileno(), b"no_service", act)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert b"Traceback" not in process.stderr.read()
    first = json.loads(path.read_bytes())["log"]["entries"][0]
    assert first["request"]["method"] == "CONNECT"
    assert first["request"]["url"] == "https://stranger.example.invalid"
    assert first["_keyhole"]["result"] == "no_service"
