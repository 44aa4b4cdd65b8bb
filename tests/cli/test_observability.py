"""``service latency``, ``policy capture`` and ``policy replay`` on the command line."""

import json

from cli_driver import ok, run

HOST = "elsewhere.invalid"


def test_changed_rules_are_held_against_calls_that_were_made(local, tmp_path):
    assert run("policy", "replay").code == 2
    assert "no calls are noted" in run("policy", "replay").err
    assert run("policy", "capture", "show").code == 5
    ok("set", "pay/key", stdin="value-of-the-key")
    ok("service", "add", "pay", "--host", HOST, "--path", "/v1/**", "--secret", "pay/key", "--bearer")
    on = ok("policy", "capture", "on", "--for", "1h", "--most", "10", "--json").json
    assert (on["on"], on["most"], on["keep"]) == (True, 10, "168h")
    assert run("call", f"https://{HOST}/v2/x?q=words", "--service", "pay").code == 4
    shown = ok("policy", "capture", "show").out
    assert "1 calls of at most 10" in shown
    service = tmp_path / "pay.json"
    service.write_text(ok("service", "show", "pay", "--json").out)
    same = ok("policy", "replay", "--service", f"pay={service}")
    assert "1  as before" in same.out
    service.write_text(json.dumps({**json.loads(service.read_text()), "paths": ["/v2/**"]}))
    wider = run("policy", "replay", "--service", f"pay={service}")
    assert (wider.code, "1  refused, would be allowed" in wider.out) == (1, True)
    assert f"GET https://{HOST}:443/v2/x: through pay" in wider.out
    assert "words" not in wider.out
    data = run("policy", "replay", "--service", f"pay={service}", "--json").json
    assert (data["calls"], data["newly_allowed"]) == (1, 1)
    hours = {**json.loads(service.read_text()), "limits": {"rate": "1/m"}}
    service.write_text(json.dumps(hours))
    unsure = run("policy", "replay", "--service", f"pay={service}")
    assert (unsure.code, "rate, which is not replayed" in unsure.out) == (2, True)
    ok("policy", "capture", "off")
    assert ok("policy", "capture", "show").out.startswith("ended")
    ok("policy", "capture", "off", "--forget")
    assert run("policy", "capture", "show").code == 5


def test_a_change_that_cannot_be_read_is_a_mistake_in_words(local, tmp_path):
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    for option, text in (("--policy", "ops"), ("--policy", f"ops={tmp_path}/none"), ("--service", f"pay={broken}")):
        ran = run("policy", "replay", option, text)
        assert (ran.code, "Traceback" in ran.err) == (3, False)


def test_a_name_that_is_misspelt_or_said_twice_does_not_pass_for_a_change(local, tmp_path):
    rules = tmp_path / "ops.hcl"
    rules.write_text('path "services/*" { capabilities = ["use"] }')
    twice = run("policy", "replay", "--policy", f"ops={rules}", "--without-policy", "ops")
    assert (twice.code, "ops is changed twice" in twice.err) == (3, True)
    ok("policy", "write", "ops", str(rules))
    gone = run("policy", "replay", "--without-policy", "opps", "--without-policy", "ops", "--without-service", "payy")
    assert "there is no policy 'opps'" in gone.err
    assert "there is no service 'payy'" in gone.err
    assert "'ops'" not in gone.err


def test_latency_of_a_vault_that_made_no_calls(local):
    ran = ok("service", "latency")
    assert (ran.out, "no calls yet" in ran.err) == ("", True)
    assert run("service", "latency", "nobody").code == 5


def test_latency_is_a_table_of_stages():
    from keyhole.cli.service import _stages

    times = {"count": 3, "p50": 0.0004, "p95": 0.25, "p99": 2.5}
    stages = {"vault": times, "queue": {**times, "count": 0}}
    assert _stages("pay", {"calls": 3, "stages": stages}) == [["pay", "3", "vault", "0.40 ms", "250.00 ms", "2.5 s"]]
    assert _stages("-", {"calls": 1, "stages": {}}) == [["-", "1", "-", "-", "-", "-"]]
