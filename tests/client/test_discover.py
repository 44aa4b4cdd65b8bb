"""Which vault is meant, and where a token may go."""

import json

import pytest

from keyhole.client.discover import discover, store_token, stored_token, token_file
from keyhole.core.errors import InvalidRequest


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("named", "env", "expected"),
    [
        ("https://a", {"KEYHOLE_VAULT": "https://b", "KEYHOLE_ADDR": "https://c"}, "https://a"),
        ("", {"KEYHOLE_VAULT": "sqlite:/b", "KEYHOLE_ADDR": "https://c"}, "sqlite:/b"),
        ("", {"KEYHOLE_ADDR": "https://c/", "VAULT_ADDR": "https://d"}, "https://c"),
    ],
)
def test_the_nearest_word_counts(named, env, expected):
    assert discover(named, environ=env).location == expected


def test_without_a_word_it_is_the_local_vault(home):
    where = discover(environ={"VAULT_ADDR": "https://d", "VAULT_TOKEN": "hvs.d"})
    assert (where.location, where.remote, where.token) == (f"sqlite:{home}/vault.db", False, "")


def test_vaults_variables_count_when_asked_and_after_our_own():
    env = {"VAULT_ADDR": "https://d", "VAULT_TOKEN": "hvs.d"}
    where = discover(environ=env, vault_env=True)
    assert (where.location, where.token) == ("https://d", "hvs.d")
    assert discover(environ={**env, "KEYHOLE_ADDR": "https://c"}, vault_env=True).location == "https://c"


@pytest.mark.parametrize("location", ["ftp://x", "/var/lib/vault.db", "example.com:8200"])
def test_a_location_of_no_known_kind_is_refused(location):
    with pytest.raises(InvalidRequest):
        discover(location, environ={})


def test_a_stored_token_belongs_to_one_address():
    store_token("https://a:8200", "hvs.a")
    store_token("https://b:8200", "hvs.b")
    assert discover("https://a:8200", environ={}).token == "hvs.a"
    assert discover("https://c:8200", environ={}).token == ""
    assert discover("https://a:8200", environ={"KEYHOLE_TOKEN": "hvs.env"}).token == "hvs.env"
    assert "hvs.a" not in repr(discover("https://a:8200", environ={}))
    store_token("https://a:8200", "")
    assert stored_token("https://a:8200") == ""
    assert json.loads(token_file().read_text()) == {"https://b:8200": "hvs.b"}


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'"hvs.x"', b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_token_file_is_named(home, content):
    store_token("https://a", "hvs.a")
    token_file().write_bytes(content)
    with pytest.raises(InvalidRequest):
        discover("https://a", environ={})


def test_a_token_with_a_line_end_is_refused_before_it_becomes_a_header():
    with pytest.raises(InvalidRequest):
        discover("https://a", environ={"KEYHOLE_TOKEN": "hvs.a\nX-Other: 1"})
