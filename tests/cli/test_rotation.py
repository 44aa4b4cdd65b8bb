"""Rotations from the command line."""

import json
import sys

import pytest

from cli_driver import ok, run

PROGRAM = """
import json, sys
asked = json.load(sys.stdin)
if asked["step"] == "create":
    print(json.dumps({"fields": {"value": "value-" + asked["attempt"]}}))
sys.exit(3 if asked["step"] == "verify" and "fail" in sys.argv else 0)
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "rotate"
    path.write_text(f"#!{sys.executable}\n{PROGRAM}")
    path.chmod(0o700)
    return str(path)


def test_a_value_is_rotated_by_name_of_its_secret_and_the_rotation_removed(local, program):
    ok("set", "acme/key", stdin="the-first-value")
    ok("rotation", "add", "acme", "--secret", "acme/key", "--rotator", "command", "--arg", program, "--every", "30d")
    assert ok("rotate", "acme/key", "--json").json["step"] == "grace"
    value = ok("get", "acme/key").out
    assert value.startswith("value-")
    assert "works until" in run("rotate", "acme").err
    assert run("rotation", "rm", "acme").code == 3
    ok("rotation", "rm", "acme", "--force", "--yes")
    assert ok("rotation", "list", "--json").json == []
    assert ok("get", "acme/key").out == value
    assert run("rotate", "acme/key").code == 5
    assert run("rotate").code == 3


def test_a_rotation_that_fails_says_why_and_leaves_the_value(local, program, tmp_path):
    ok("set", "acme/key", stdin="the-first-value")
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"argv": [program, "fail"]}))
    ok("rotation", "add", "acme", "--secret", "acme/key", "--rotator", "command", "--settings", str(settings))
    ran = run("rotate", "acme")
    assert ran.code == 6
    assert "failed at the step verify (3)" in ran.err
    assert "(1 in a row)" in ok("rotation", "show", "acme").out
    assert ok("get", "acme/key").out == "the-first-value\n"
    settings.write_text("[]")
    assert run("rotation", "add", "b", "--secret", "b", "--rotator", "http", "--settings", str(settings)).code == 3
