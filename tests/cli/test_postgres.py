"""A vault in PostgreSQL, from the command line."""

import base64
import hashlib
import json
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


def test_seal_that_only_the_database_names_loads_no_code_and_sends_no_file(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("KEYHOLE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "home"))
    vault = postgres_server.location()
    ok("init", "--vault", vault, "--seal", f"keyfile:{tmp_path}/key", "--make-keyfile")
    wrapped = b"x" * 60
    fields = b"".join(
        bytes((len(it),)) + it for it in (b"pkcs11", b"hkdf-sha256", hashlib.sha256(wrapped).digest()[:16])
    )
    blob = b"\2" + fields + len(wrapped).to_bytes(2, "big") + wrapped + bytes(60)
    spec = f"pkcs11:token=a;object=b?module-path={tmp_path}/planted.so&pin-source=file:{tmp_path}/key"
    with postgres_server.superuser() as connection:
        entry = f"{postgres_server.schema_of(vault)}.entry"
        [header] = connection.execute(f"SELECT value FROM {entry} WHERE key = 'sys/vault'").fetchone()
        planted = json.loads(header) | {"seal": spec, "root": base64.b64encode(blob).decode()}
        connection.execute(f"UPDATE {entry} SET value = %s WHERE key = 'sys/vault'", [json.dumps(planted).encode()])
    for command in (["list"], ["operator", "migrate", "--to", f"keyfile:{tmp_path}/new", "--make-keyfile"]):
        refused = run("--vault", vault, *command)
        assert refused.code == 3, refused
        assert "because a database says so" in refused.err
        assert "KEYHOLE_SEAL" in refused.err
    monkeypatch.setenv("KEYHOLE_SEAL", spec)
    assert "planted.so" in run("--vault", vault, "list").err


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
