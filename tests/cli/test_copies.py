"""``operator backup`` and ``operator restore``: a vault as it was, somewhere else, and refusals in words."""

import hashlib

import pytest

from cli_driver import ok, run


def test_a_restored_vault_is_as_it_was_when_it_was_copied(local, tmp_path, monkeypatch):
    copy, again = tmp_path / "copy", f"sqlite:{tmp_path / 'again' / 'vault.db'}"
    ok("set", "a", stdin="the-first-value")
    ok("agent", "add", "coder")
    token = ok("agent", "token", "coder").out.strip()
    with monkeypatch.context() as sealed:
        (tmp_path / "key").rename(tmp_path / "elsewhere")
        said = ok("operator", "backup", copy, "--json").json
        assert said == {
            "file": str(copy),
            "bytes": copy.stat().st_size,
            "sha256": hashlib.sha256(copy.read_bytes()).hexdigest(),
        }
        sealed.setenv("KEYHOLE_VAULT", again)
        assert "counts again" in ok("operator", "restore", copy).err
        assert run("list").code == 6
        (tmp_path / "elsewhere").rename(tmp_path / "key")
    ok("set", "a", stdin="the-second-value")
    ok("agent", "revoke", "coder")
    for vault, value, code in ((again, "the-first-value", 1), ("", "the-second-value", 4)):
        monkeypatch.setenv("KEYHOLE_VAULT", vault)
        assert ok("get", "a").out == f"{value}\n"
        assert ok("audit", "verify", "--json").json["valid"]
        with monkeypatch.context() as agent:
            agent.setenv("KEYHOLE_TOKEN", token)
            assert run("why", "GET", "https://api.invalid/").code == code


@pytest.mark.parametrize("vault", ["http://127.0.0.1:1", "postgres://keyhole@127.0.0.1/vault", "memory:"])
def test_what_is_no_file_of_sqlite_is_copied_otherwise(vault, tmp_path, monkeypatch):
    monkeypatch.setenv("KEYHOLE_VAULT", vault)
    for verb in ("backup", "restore"):
        ran = run("operator", verb, tmp_path / "copy")
        assert (ran.code, "next:" in ran.err) == (3, True)
    assert not (tmp_path / "copy").exists()


def test_a_copy_has_a_name_of_its_own(local, tmp_path):
    ok("operator", "backup", tmp_path / "copy")
    assert run("operator", "backup", tmp_path / "copy").code == 2
    assert run("operator", "restore", tmp_path / "copy").code == 2
    assert run("operator", "restore", tmp_path / "none", "--vault", f"sqlite:{tmp_path}/new/vault.db").code == 5
    for name in ("", tmp_path):
        assert run("operator", "backup", name).code == 3
