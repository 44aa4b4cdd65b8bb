"""`doctor --agent`: the ways out, tried from inside of a sandbox and from outside."""

import json
import os
import sys

import pytest

import keyhole
from cli_driver import run
from faces.run_fixtures import namespaces_allowed, runner_for


def test_outside_it_says_what_is_open_and_fails(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "a-real-value-0d5f2a")
    monkeypatch.setenv("OTHER_API_KEY", "sk_test_keyhole000000")
    done = run("doctor", "--agent", "--json")
    found = {escape["name"]: escape for escape in done.json}
    assert done.code == 1
    assert {escape["state"] for escape in done.json} <= {"held", "open", "not tried"}
    assert found["environment"]["state"] == "open"
    assert "SOME_API_KEY" in found["environment"]["detail"]
    assert "OTHER_API_KEY" not in found["environment"]["detail"]
    assert found["proxy"]["state"] == "not tried"
    assert found["covers"]["state"] == "not tried"
    assert found["Keyhole's own code"]["state"] == ("open" if os.access(keyhole.__file__, os.W_OK) else "held")
    assert found["signals"]["state"] == "open"
    assert "a-real-value" not in done.out


@pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is made of Linux namespaces")
def test_inside_everything_is_held():
    if not namespaces_allowed(nobody=False):
        pytest.skip("this system forbids user namespaces, so nothing was held")
    with runner_for(nobody=False) as runner:
        vault = runner.place / "user" / ".local" / "share" / "keyhole"
        vault.mkdir(parents=True)
        (vault / "vault.db").write_text("canary")
        outcome = runner.run(
            [sys.executable, "-m", "keyhole", "doctor", "--agent", "--json"],
            env={"HOME": str(runner.place / "user"), "PYTHONPATH": str(runner.source)},
            pinned=True,
            hidden=[str(vault)],
            network="broker",
        )
    found = {escape["name"]: escape for escape in json.loads(outcome.out)}
    assert [name for name, escape in found.items() if escape["state"] == "open"] == []
    assert outcome.code == 0
    assert found["covers"]["state"] == "held"
    assert found["vault"]["state"] == "held"
    assert len(found) >= 25
    assert str(runner.place / "user" / ".bashrc") in found["files that run later"]["detail"]


def test_the_name_of_an_agent_is_still_taken_for_one():
    done = run("doctor", "--agent", "nobody-of-that-name", "--client", "no-such-client")
    assert done.code == 3
    assert "no client of this name" in done.err
