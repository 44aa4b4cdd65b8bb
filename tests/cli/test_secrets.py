"""Secrets, on a local vault and on a server alike."""

import json
from types import SimpleNamespace

import pytest

from cli_driver import ok, run
from keyhole import Client
from keyhole.faces.mcp.tools import Shelf

VALUE = "sk_live_0123456789"


def test_a_stored_value_comes_back_without_the_newline_of_its_file(vault):
    stored = ok("set", "stripe/api-key", "--json", stdin=f"{VALUE}\n").json
    assert stored == {"name": "stripe/api-key", "version": 1, "fields": ["value"]}
    assert ok("get", "stripe/api-key").out == f"{VALUE}\n"
    assert ok("get", "stripe/api-key", "-n").out == VALUE


def test_only_one_newline_is_taken_off(vault):
    ok("set", "a", stdin=b"line one\nline two\n\n")
    assert ok("get", "a", "-n").out == "line one\nline two\n"
    ok("set", "a", "--exact", stdin=b"line one\n")
    assert ok("get", "a", "-n").out == "line one\n"


def test_a_value_can_come_from_a_file(vault, tmp_path):
    (tmp_path / "key.pem").write_text("-----BEGIN KEY-----\nabc\n-----END KEY-----\n")
    ok("set", "tls/key", "--from-file", tmp_path / "key.pem")
    assert ok("get", "tls/key").out == (tmp_path / "key.pem").read_text()


def test_one_field_changes_and_the_others_stay(vault):
    ok("set", "db/prod", "--json-in", stdin='{"username": "application", "password": "first-password"}')
    ok("set", "db/prod", "--field", "password", stdin="second-password")
    assert ok("get", "db/prod", "--json").json["data"] == {"username": "application", "password": "second-password"}
    assert ok("get", "db/prod#username").out == "application\n"
    ok("set", "new/one", "--field", "token", stdin="a-long-enough-token")
    assert ok("get", "new/one#token").out == "a-long-enough-token\n"


def test_a_missing_field_names_the_fields_that_are_there(vault):
    ok("set", "db/prod", "--json-in", stdin='{"username": "application", "password": "the-password"}')
    ran = run("get", "db/prod")
    assert ran.code == 5
    assert "password, username" in ran.err
    assert "the-password" not in ran.err


def test_a_name_with_a_slash_before_it_is_what_another_mount_has(vault):
    with Client() as client:
        client.write("sys/mounts/other", {"type": "kv", "options": {"version": "2"}})
        client.write("sys/mounts/plain", {"type": "kv", "options": {"version": "1"}})
        client.write("other/data/stripe/key", {"data": {"value": VALUE}})
        client.write("plain/stripe/key", {"token": VALUE})
        assert ok("get", "/other/data/stripe/key").out == f"{VALUE}\n"
        assert ok("get", "/plain/stripe/key#token").out == f"{VALUE}\n"
        shelf = Shelf(reveal=True)
        asker = SimpleNamespace(ask=lambda _, path: client.read(path))
        assert shelf.use(asker, "reveal_secret", {"secret": "/other/data/stripe/key"}).text == VALUE
        client.write("plain/odd", {"data": "field-of-its-own", "metadata": "another"})
        assert ok("get", "/plain/odd#data").out == "field-of-its-own\n"
        client.write("secret/data/bare", {"data": {}})
        assert ok("get", "bare", "--json").json["data"] == {}
        client.delete("other/data/stripe/key")
        assert run("get", "/other/data/stripe/key").code == 5
    assert run("get", "//other/data/stripe/key").code == 3


def test_what_keyhole_says_of_itself_is_no_secret(vault):
    asked = []
    asker = SimpleNamespace(ask=lambda _, path: asked.append(path))
    said = ("/auth/token/lookup-self#id", "/cubbyhole/response#token", "/sys/keyhole#proxy")
    for secret in (*said, *(f"/acme{each}" for each in said)):  # an org may be named in front
        assert Shelf(reveal=True).use(asker, "reveal_secret", {"secret": secret}).failed
        assert run("get", secret).code == 3
    assert asked == []


def test_lists_and_descriptions_show_no_value(vault):
    ok("set", "stripe/api-key", "--type", "api-key", "--owner", "ops", "--tag", "a", "--tag", "b", stdin=VALUE)
    ok("set", "stripe/deep/er", stdin=VALUE)
    ok("set", "other", "--expires", "2099-01-31", stdin=VALUE)
    listed = ok("list", "--json").json
    assert [entry["name"] for entry in listed] == ["other", "stripe/api-key", "stripe/deep/er"]
    assert listed[1]["type"] == "api-key"
    assert listed[0]["expires_at"].startswith("2099-01-31")
    assert [entry["name"] for entry in ok("list", "stripe", "--json").json] == ["stripe/api-key", "stripe/deep/er"]
    shown = ok("show", "stripe/api-key", "--json").json
    assert (shown["owner"], shown["tags"], shown["fields"]) == ("ops", ["a", "b"], ["value"])
    texts = [ok("list").out, ok("show", "stripe/api-key").out, ok("history", "other").out, json.dumps([listed, shown])]
    assert not any(VALUE in text for text in texts)


def test_an_empty_vault_lists_nothing_and_says_what_to_do(vault):
    ran = ok("list")
    assert ran.out == ""
    assert "keyhole set" in ran.err
    assert ok("list", "--json").json == []
    assert run("list", "nowhere").code == 5


def test_a_write_that_expects_another_version_is_refused(vault):
    ok("set", "a", "--cas", "0", stdin="first-value")
    ran = run("set", "a", "--cas", "0", stdin="other-value")
    assert ran.code == 3
    assert ok("get", "a").out == "first-value\n"
    ok("set", "a", "--cas", "1", stdin="other-value")


def test_an_older_version_can_be_shown_and_made_current(vault):
    for value in ("first-value", "second-value"):
        ok("set", "a", stdin=value)
    assert ok("get", "a", "--version", "1").out == "first-value\n"
    assert [v["state"] for v in ok("history", "a", "--json").json] == ["kept", "current"]
    assert ok("rollback", "a", "--to", "1", "--json").json["version"] == 3
    assert ok("get", "a").out == "first-value\n"
    assert run("rollback", "a", "--to", "9").code == 5


def test_a_deleted_secret_comes_back_and_a_destroyed_one_does_not(vault):
    ok("set", "a", stdin="first-value")
    ok("rm", "a")
    assert run("get", "a").code == 5
    ok("rollback", "a", "--to", "1")
    assert ok("get", "a").out == "first-value\n"
    ok("rm", "a", "--destroy")
    assert run("get", "a").code == 5
    assert run("rollback", "a", "--to", "1").code == 5
    ok("rm", "a", "--all")
    assert run("show", "a").code == 5
    assert run("rm", "a").code == 5


def test_an_expired_secret_is_not_given_out(vault):
    ok("set", "a", stdin="first-value")
    ok("expire", "a", "--at", "2020-01-01")
    ran = run("get", "a", "--json")
    assert ran.code == 2
    assert ran.error["code"] == "expired"
    ok("expire", "a", "--never")
    assert ok("get", "a").out == "first-value\n"
    assert run("expire", "a").code == 3


def test_expiry_and_type_count_from_the_first_write(vault):
    ok("set", "a", "--expires-in", "90d", "--type", "password", stdin="first-value")
    shown = ok("show", "a", "--json").json
    assert shown["type"] == "password"
    assert shown["expires_at"]


def test_a_short_value_is_stored_with_a_warning(vault):
    ran = ok("set", "a", stdin="short")
    assert "warning:" in ran.err
    assert "masked" in ran.err
    assert ok("set", "a", "-q", stdin="short").err == ""


@pytest.mark.parametrize(
    ("stdin", "options"),
    [
        (b"", []),
        (b"\n", []),
        (b"\xff\xfe", []),
        (b"no json", ["--json-in"]),
        (b"[1]", ["--json-in"]),
        (b"{}", ["--json-in"]),
    ],
)
def test_what_cannot_be_a_value_is_refused_and_not_repeated(vault, stdin, options):
    ran = run("set", "a", *options, stdin=stdin)
    assert ran.code == 3
    assert "no json" not in ran.err
    assert run("show", "a").code == 5


def test_global_options_count_before_and_after_the_command(vault):
    assert json.loads(ok("--json", "set", "a", stdin=VALUE).out) == {"name": "a", "version": 1, "fields": ["value"]}
    assert json.loads(ok("set", "a", "--json", stdin=VALUE).out)["version"] == 2
    assert ok("-q", "set", "a", stdin=VALUE).err == ok("set", "a", "-q", stdin=VALUE).err == ""


def test_expiry_is_a_date_a_duration_or_never(vault):
    ok("set", "a", "--expires", "90d", "--rotate-every", "30d", stdin="first-value")
    shown = ok("show", "a", "--json").json
    assert (shown["rotate_every"], bool(shown["expires_at"]), bool(shown["rotated_at"])) == (30 * 86_400, True, True)
    assert "every 30d" in ok("show", "a").out
    ok("expire", "a", "2099-01-31")
    assert ok("list", "--json").json[0]["expires_at"].startswith("2099-01-31T00:00:00")
    assert ok("expire", "a", "4102444800", "--json").json["expires_at"].startswith("2100-01-01")
    assert ok("expire", "a", "never", "--json").json["expires_at"] is None
    assert run("expire", "a", "soon").code == 3
    assert run("expire", "a", "90d", "--never").code == 3


def test_what_comes_near_its_end_is_said_where_no_server_runs(vault):
    ok("set", "near", "--expires", "5d", stdin="first-value")
    found = ok("expire", "--check")
    assert "secret/near" in found.out
    ok("expire", "near", "2020-01-01")
    ran = run("expire", "--check", "--json")
    assert (ran.code, ran.json["secrets"][0]["past"]) == (1, True)
    assert run("expire", "near", "--check").code == 3


def test_channels_are_added_listed_and_removed_without_showing_their_urls(vault):
    ok("notice", "add", "ops", "--kind", "expiry", stdin="https://hooks.example.com/T0KEN")
    ok("notice", "add", "mail", "--apprise", stdin="mailtos://ops:correct-horse@smtp.example.com?to=a@example.com")
    listed = ok("notice", "list", "--json")
    assert [each["name"] for each in listed.json] == ["mail", "ops"]
    assert not {"T0KEN", "correct-horse"} & set(listed.out.replace('"', "/").split("/"))
    assert run("notice", "add", "bad", stdin="http://hooks.example.com/").code == 3
    assert ok("notice", "days", "60", "5", "--json").json["days"] == [60, 5]
    ok("notice", "rm", "ops")
    assert [each["name"] for each in ok("notice", "list", "--json").json] == ["mail"]
