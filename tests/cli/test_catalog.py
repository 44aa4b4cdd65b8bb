"""The catalog on the command line: what there is, entries of one's own, and adding by them."""

import json

import pytest

from cli_driver import environment, ok, run, spawn

ENTRY = """
title = "Acme"
variables = { ACME_ID = "id", ACME_SECRET = "secret" }
settings = { ACME_URL = "https://{region}.acme.example" }
key_page = { host = "acme.example", path = "/keys" }
note = "Make one for each agent."

[key.id]
title = "Client ID"
pattern = "id-[a-z0-9]{16}"
placeholder = "id-keyhole"
length = 19

[key.secret]
title = "Client secret"
pattern = "[a-z0-9]{32}"
placeholder = "keyhole"
length = 32

[blank.region]
ask = "Region"
choices = ["eu", "us"]

[[service]]
name = "acme"
hosts = ["{region}.acme.example"]
inject = { kind = "bearer" }
field = "secret"

[test]
path = "/v1/me"
"""
ID, SECRET = "id-a1b2c3d4a1b2c3d4", "a1b2c3d4" * 4


@pytest.fixture
def acme(tmp_path):
    file = tmp_path / "acme.toml"
    file.write_text(ENTRY)
    return file


def test_list_and_show_say_what_there_is():
    known = {entry["name"]: entry for entry in ok("catalog", "list", "--json").json}
    assert len(known) >= 75
    assert known["stripe"]["variables"] == ["STRIPE_API_KEY", "STRIPE_SECRET_KEY"]
    assert ok("add", "--json").json == ok("catalog", "list", "--json").json
    shown = ok("catalog", "show", "atlassian")
    assert "{site}.atlassian.net" in shown.out
    assert "--set email=" in shown.out
    assert ok("catalog", "show", "atlassian", "--json").json["services"][0]["inject"]["user"] == "{email}"
    missing = run("catalog", "show", "strip")
    assert missing.code == 5
    assert "stripe" in missing.err


def test_an_entry_of_ones_own_is_checked_kept_used_and_removed(local, acme):
    assert "acme.toml is right" in ok("catalog", "check", acme).out
    assert "keyhole add acme" in ok("catalog", "add", acme).err
    kept = local / "catalog" / "acme.toml"
    assert kept.read_text() == ENTRY
    assert [e["own"] for e in ok("catalog", "list", "--json").json if e["name"] == "acme"] == [True]
    again = run("catalog", "add", acme)
    assert again.code == 2
    assert "--replace" in again.err
    ok("catalog", "add", acme, "--replace")

    said = ok("add", "acme", "--host", "eu.acme.example", stdin=json.dumps({"id": ID, "secret": SECRET})).err
    assert "Make one for each agent." in said
    assert "look like" not in said
    service = ok("service", "show", "acme", "--json").json
    assert service["hosts"] == ["eu.acme.example:443"]
    assert service["secret"] == "acme/credentials#secret"
    found = {v["variable"]: v for v in ok("env", "--json").json}
    assert found["ACME_URL"]["placeholder"] == "https://eu.acme.example"
    assert found["ACME_ID"]["secret"] == "acme/credentials#id"
    assert found["ACME_ID"]["placeholder"].startswith("id-keyhole")
    assert found["ACME_SECRET"]["placeholder"].startswith("keyhole")
    assert ID not in ok("env", "--json").out

    ok("catalog", "rm", "acme")
    assert not kept.exists()
    assert run("catalog", "rm", "acme").code == 5
    assert ok("service", "show", "acme", "--json").json == service


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (SECRET, "JSON object"),
        ("[1]", "JSON object"),
        (json.dumps({"id": 1, "secret": SECRET}), "JSON object"),
        (json.dumps({"id": ID}), "secret is missing"),
        (json.dumps({"id": ID, "secret": SECRET, "x" + SECRET: "y"}), "a field too many"),
    ],
)
def test_a_credential_of_several_fields_is_complete_or_refused(local, acme, given, said):
    ok("catalog", "add", acme)
    ran = run("add", "acme", "--host", "eu", stdin=given)
    assert ran.code == 3
    assert said in ran.err
    assert SECRET not in ran.err
    assert run("list", "--json").json == []


def test_what_is_missing_or_wrong_is_said_with_the_option_that_helps(local):
    for words, code, said in (
        (("atlassian",), 3, "--host acme"),
        (("atlassian", "--host", "acme"), 3, "--set email=you@example.com"),
        (("atlassian", "--host", "acme", "--set", "mail=x"), 3, "it has email, site"),
        (("atlassian", "--host", "acme", "--set", "email"), 3, "--set email=me@example.com"),
        (("stripe", "--host", "eu"), 3, "the same for everybody"),
        (("square", "--host", "squareup.example"), 3, "connect.squareup.com"),
    ):
        ran = run("add", *words, stdin="key")
        assert (ran.code, said in ran.err) == (code, True), ran
    assert run("list", "--json").json == []


def test_a_default_is_taken_and_said(local):
    said = ok("add", "square", stdin="EAAAl" + "a1B2" * 14).err
    assert "connect.squareup.com; say another with --host" in said
    assert ok("service", "show", "square", "--json").json["hosts"] == ["connect.squareup.com:443"]


def test_a_wrong_file_is_refused_and_spoils_nothing_else(local, tmp_path):
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(ENTRY.replace('name = "acme"', 'name = "wrong"').replace("pattern", "pattren"))
    ran = run("catalog", "check", wrong)
    assert ran.code == 1
    assert "pattren is not known" in ran.err
    assert run("catalog", "add", wrong).code == 3
    assert run("catalog", "add", tmp_path / "acme.txt").code == 3
    assert run("catalog", "add", tmp_path / "not-there.toml").code == 3

    (local / "catalog").mkdir()
    (local / "catalog" / "wrong.toml").write_bytes(b"\xff" * 70_000)
    listed = ok("catalog", "list")
    assert "stripe" in listed.out
    assert "wrong is longer" in listed.err
    ok("add", "stripe", stdin="sk_test_51ExampleExampleExample00")


def test_an_entry_that_takes_the_place_of_another_is_warned_of(local, acme, tmp_path):
    own = tmp_path / "stripe.toml"
    own.write_text(ENTRY.replace('name = "acme"', 'name = "stripe"').replace("ACME_ID", "OPENAI_API_KEY"))
    said = ok("catalog", "add", own).err
    assert "takes the place of the entry 'stripe'" in said
    assert "OPENAI_API_KEY is a variable of openai too" in said


def test_a_field_that_a_credential_does_without_has_no_variable(local):
    keys = {"access_key_id": "AKIA" + "A1B2" * 4, "secret_access_key": "a1B2" * 10}
    ok("add", "aws", "--host", "eu-central-1", stdin=json.dumps(keys))
    service = ok("service", "show", "aws", "--json").json
    assert service["variables"] == {"AWS_ACCESS_KEY_ID": "access_key_id", "AWS_SECRET_ACCESS_KEY": "secret_access_key"}
    assert service["hosts"][:2] == ["sts.eu-central-1.amazonaws.com:443", "*.eu-central-1.amazonaws.com:443"]
    found = {v["variable"]: v["placeholder"] for v in ok("env", "--json").json}
    assert found["AWS_REGION"] == "eu-central-1"
    assert found["AWS_ACCESS_KEY_ID"].startswith("AKIAKEYHOLE")
    assert "AWS_SESSION_TOKEN" not in found
    ok("add", "aws", "--host", "eu-central-1", stdin=json.dumps({**keys, "session_token": "a1B2" * 50}))
    assert "AWS_SESSION_TOKEN" in {v["variable"] for v in ok("env", "--json").json}


def test_an_sdk_that_asks_for_a_token_itself_is_given_the_placeholder(local):
    options = ("--set", "tenant=acme.onmicrosoft.com", "--set", "client_id=00000000-0000-0000-0000-000000000001")
    ok("add", "azure", *options, stdin="a1B8Q~" + "a1B2" * 8 + "ab")
    services = {each["name"]: each for each in ok("service", "list", "--json").json}
    shown = {v["variable"]: v["placeholder"] for v in ok("env", "--json").json}
    assert services["azure-login"]["inject"]["text"] == shown["AZURE_CLIENT_SECRET"]
    assert services["azure-login"]["paths"][0] == "/acme.onmicrosoft.com/oauth2/v2.0/token"
    assert services["azure-vault"]["inject"]["client_id"] == "00000000-0000-0000-0000-000000000001"
    allowed = run("why", "POST", "https://login.microsoftonline.com/acme.onmicrosoft.com/oauth2/v2.0/token")
    assert allowed.code == 0, allowed


def test_the_shell_completes_names_of_ours_and_ones_own(local, acme):
    ok("catalog", "add", acme)
    begin = {"_KEYHOLE_COMPLETE": "bash_complete", "COMP_WORDS": "keyhole add ac", "COMP_CWORD": "2"}
    done = spawn(env=environment(KEYHOLE_HOME=str(local), **begin))
    assert done.out.split() == ["plain,acme"]


def test_a_service_of_an_optional_field_is_made_when_the_field_is_there(local):
    uuid = "a1b2c3d4-a1b2-a1b2-a1b2-a1b2c3d4a1b2"
    ok("add", "codecov", stdin=json.dumps({"api_token": uuid}))
    assert run("service", "show", "codecov-upload").code == 5
    ok("add", "codecov", stdin=json.dumps({"api_token": uuid, "upload_token": uuid}))
    assert ok("service", "show", "codecov-upload", "--json").json["secret"] == "codecov/credentials#upload_token"
