"""A vault in PostgreSQL, from the command line."""

import os
import subprocess
import sys

import postgres_server
from cli_driver import ok, run


def test_vault_in_a_database_is_made_used_and_found_again(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("KEYHOLE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "home"))
    vault = postgres_server.location()
    assert run("--vault", vault, "list").code != 0
    made = run("init", "--vault", vault, "--seal", f"keyfile:{tmp_path}/key", "--make-keyfile", "--json")
    assert made.code == 0, made
    ok("--vault", vault, "set", "a/b", stdin=b"planted")
    assert ok("--vault", vault, "get", "a/b", "--reveal").out.strip() == "planted"
    assert ok("--vault", vault.replace("postgres:", "postgresql:", 1), "list", "--json").out
    with postgres_server.superuser() as connection:
        schema = postgres_server.schema_of(vault)
        [values] = connection.execute(f"SELECT string_agg(value, '') FROM {schema}.entry").fetchone()
    assert b"planted" not in values
    again = run("init", "--vault", vault, "--seal", f"keyfile:{tmp_path}/key")
    assert again.code != 0
    assert "Traceback" not in again.err


def test_command_gets_nothing_that_opens_the_database(tmp_path, monkeypatch):
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "home"))
    vault, sqlite = postgres_server.location(), f"sqlite:{tmp_path}/private/vault.db"
    passfile = tmp_path / "pgpass"
    passfile.write_text("*:*:*:*:planted-file\n")
    passfile.chmod(0o600)
    script = f'env; cat {passfile} "$PGPASSFILE" || true'
    ran = {}
    for where in (vault, sqlite):
        ok("init", "--vault", where, "--seal", f"keyfile:{tmp_path}/{len(ran)}.key", "--make-keyfile")
        ok("--vault", where, "agent", "add", "coder")
        environ = {"KEYHOLE_VAULT": where, "PGPASSWORD": "planted", "PGPASSFILE": str(passfile), "PGUSER": "me"}
        started = [sys.executable, "-m", "keyhole", "run", "--agent", "coder", "--", "sh", "-c", script]
        done = subprocess.run(started, env=os.environ | environ, capture_output=True, text=True, check=True)
        ran[where] = done.stdout
        assert "PGUSER=me" in done.stdout
    assert "planted" not in ran[vault].replace("planted-file", "")
    assert vault not in ran[vault]
    if "sandbox none" not in done.stderr:
        assert "planted-file" not in ran[vault]
    # What opens a database of the user's own is not the vault's.
    assert "PGPASSWORD=planted" in ran[sqlite]
    assert "planted-file" in ran[sqlite]


def test_password_in_the_location_is_refused_and_not_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "home"))
    for command in (["list"], ["init", "--seal", f"keyfile:{tmp_path}/key", "--make-keyfile"], ["server"]):
        ran = run("--vault", "postgres://u:planted@127.0.0.1:1/d", *command)
        assert ran.code != 0
        assert "PGPASSFILE" in ran.err
        assert "planted" not in ran.out + ran.err
