"""``keyhole external``: sources from the command line, on a local vault and on a server."""

import json
import sys

import pytest

from cli_driver import ok, run

PRINT = "import os, sys; print(os.environ['KEY'] + sys.argv[1])"
COMMAND = ["external", "add", "team", "--kind", "command", "--arg", sys.executable, "--arg", "-I", "--arg", "-c"]
COMMAND += ["--arg", PRINT, "--arg", "{path}", "--set", "json=false"]


@pytest.mark.parametrize("where", ["local", "root_of_server"])  # commands are for the org root alone
def test_a_source_is_added_tested_bound_and_forgotten(where, request):
    request.getfixturevalue(where)
    said = ok(*COMMAND, "--credential", "KEY", stdin=b"sesame-\n")
    assert "mounted the engine external" in said.err
    assert [each["name"] for each in ok("external", "list", "--json").json] == ["team"]
    shown = ok("external", "show", "team")
    assert "KEY" in shown.out
    assert "sesame" not in shown.out
    assert ok("external", "test", "team", "crm", "--json").json["fields"] == ["value"]
    ok("service", "add", "crm", "--host", "crm.example.com", "--secret", "/external/read/team/crm", "--bearer")
    assert run("external", "test", "team", "crm", "--field", "none").code == 5
    ok("service", "rm", "crm")
    ok("external", "rm", "team")
    assert run("external", "show", "team").code == 5
    assert ok("external", "list").err.startswith("no sources yet")


def test_several_credentials_come_as_json_and_a_mount_may_have_another_name(local):
    body = json.dumps({"access_key_id": "a", "secret_access_key": "FORGOTTEN"}).encode()
    words = ["external", "add", "aws", "--kind", "aws-secrets-manager", "--set", "region=eu-central-1", "--json-in"]
    ok(*words, "--mount", "cloud", stdin=body)
    shown = ok("external", "show", "aws", "--mount", "cloud", "--json")
    assert shown.json["credentials"] == ["access_key_id", "secret_access_key"]
    assert "FORGOTTEN" not in shown.out + shown.err


def test_a_credential_in_the_command_line_is_refused_and_not_repeated(local):
    for words in (["--credential", "token=FORGOTTEN"], ["--set", "FORGOTTEN"], ["--json-in", "--credential", "token"]):
        ran = run("external", "add", "x", "--kind", "doppler", *words, stdin=b"{}")
        assert ran.code == 3
        assert "FORGOTTEN" not in ran.out + ran.err


def test_a_source_that_is_away_ends_a_test_with_code_6(local):
    words = ["external", "add", "corp", "--kind", "vault", "--set", "address=http://127.0.0.1:1"]
    ok(*words, "--credential", "token", stdin=b"t")
    ran = run("external", "test", "corp", "--json")
    assert ran.code == 6
    assert ran.error["code"] == "upstream_unreachable"
    assert "keyhole external test corp" in ran.error["hint"]
