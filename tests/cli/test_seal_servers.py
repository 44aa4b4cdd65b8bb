"""Servers as processes whose seal somebody else keeps: they restart without a person, and the root key is nowhere."""

import base64
import contextlib
import json
import os
import shutil
import signal
import sqlite3
import tempfile
from pathlib import Path

import pytest

from cli_driver import environment, ok, run, serving, spawn
from keyhole.seals import KEPT_ELSEWHERE, open_seal
from seals import aws, hsm
from seals.clouds import RING, AzureStandIn, GoogleStandIn
from seals.other_vault import other_vault
from seals.other_vault import spec_of as other_spec

# What each seal needs: gives its specification and the environment in which it works.


@contextlib.contextmanager
def with_pkcs11(_folder):
    folder = hsm.tokens()
    yield f"pkcs11:{hsm.spec_of('right', folder, 'server')}", {"SOFTHSM2_CONF": os.environ["SOFTHSM2_CONF"]}


@contextlib.contextmanager
def with_awskms(_folder):
    with aws.aws_stand_in() as url:
        yield f"awskms:{aws.spec_of(url, aws.make_key(url))}", aws.ENVIRONMENT


@contextlib.contextmanager
def with_gcpkms(folder):
    with GoogleStandIn().running() as google:
        google.make_key("k")
        yield f"gcpkms:{RING}/k?endpoint={google.url}", google.environment(folder)


@contextlib.contextmanager
def with_azurekms(folder):
    with AzureStandIn().running() as azure:
        azure.make_key("k")
        yield f"azurekms:{azure.url}/keys/k", azure.environment(folder)


@contextlib.contextmanager
def with_transit(folder):
    with other_vault(folder) as other:
        yield f"transit:{other_spec(other, folder)}", {}


SEALS = {name: globals()[f"with_{name}"] for name in KEPT_ELSEWHERE}


def header_of(place):
    with contextlib.closing(sqlite3.connect(place)) as db:
        for table in ("entries", "entry"):
            with contextlib.suppress(sqlite3.OperationalError):
                [(value,)] = db.execute(f"SELECT value FROM {table} WHERE key = 'sys/vault'").fetchall()
                return json.loads(value)
    raise AssertionError("the store has no header")


def forms(key):
    return {key, key.hex().encode(), base64.b64encode(key), base64.urlsafe_b64encode(key), str(key).encode()}


def files_below(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", KEPT_ELSEWHERE)
def test_a_server_restarts_unsealed_and_its_root_key_lies_nowhere(name, tmp_path, monkeypatch):
    place = tmp_path / "data" / "vault.db"
    place.parent.mkdir()
    (tmp_path / "tmp").mkdir()
    with SEALS[name](tmp_path) as (spec, more):
        for key, value in more.items():
            monkeypatch.setenv(key, value)
        env = environment(KEYHOLE_HOME=str(place.parent), TMPDIR=str(tmp_path / "tmp"), **more)
        made = spawn("--vault", f"sqlite:{place}", "--json", "init", "--seal", spec, env=env)
        assert made.code == 0, made
        assert len(made.json["recovery_keys_base64"]) == 5
        monkeypatch.setenv("KEYHOLE_TOKEN", made.json["root_token"])
        with serving("--vault", f"sqlite:{place}", env=env, real=True) as (process, started):
            monkeypatch.setenv("KEYHOLE_ADDR", started["api"])
            ok("set", "a", stdin="kept over restarts")
            process.send_signal(signal.SIGKILL)
            process.wait(60)
        with serving("--vault", f"sqlite:{place}", env=env, real=True) as (process, started):
            monkeypatch.setenv("KEYHOLE_ADDR", started["api"])
            assert ok("get", "a").out == "kept over restarts\n"
            status = ok("operator", "status", "--json").json
            assert (status["type"], status["recovery_seal"], status["n"], status["t"]) == (name, True, 5, 3)
            header = header_of(place)
            root = open_seal(header["seal"], passphrase=None, vault_id=header["id"]).unwrap(
                base64.b64decode(header["root"])
            )
            for path in (*files_below(place.parent), *files_below(tmp_path / "tmp")):
                content = path.read_bytes()
                assert not any(form in content for form in forms(root)), path
            for kind in ("environ", "cmdline"):
                shown = Path(f"/proc/{process.pid}/{kind}").read_bytes()
                assert not any(form in shown for form in forms(root))
                assert hsm.PIN.encode() not in shown
                assert not (tmp_path / "token").exists() or (tmp_path / "token").read_bytes().strip() not in shown
            ok("operator", "seal")
            ok("operator", "unseal")
            assert ok("get", "a").out == "kept over restarts\n"


@pytest.mark.parametrize("name", KEPT_ELSEWHERE)
def test_a_server_whose_key_cannot_be_had_ends_with_six_and_says_what_to_do(name, tmp_path, monkeypatch):
    location = f"sqlite:{tmp_path}/vault.db"
    listen = ("--listen", "127.0.0.1:0", "--proxy-listen", "127.0.0.1:0")
    with SEALS[name](tmp_path) as (spec, more):
        for key, value in more.items():
            monkeypatch.setenv(key, value)
        env = environment(KEYHOLE_HOME=str(tmp_path / "home"), **more)
        if name == "pkcs11":  # a token of its own, that will be gone
            gone = Path(tempfile.mkdtemp(dir=tmp_path))
            env |= hsm.make_tokens(gone, "mine")
        mine = f"pkcs11:{hsm.spec_of('mine', gone)}" if name == "pkcs11" else spec
        made = spawn("--vault", location, "--json", "init", "--seal", mine, env=env)
        assert made.code == 0, made
        if name == "pkcs11":
            shutil.rmtree(gone / "tokens")
            (gone / "tokens").mkdir()
    ran = spawn("server", *listen, "--vault", location, "--json", env=env)
    assert ran.code == 6, ran
    assert ran.error["code"] == "sealed"
    assert ran.error["hint"]
    assert "Traceback" not in ran.err


def test_a_pin_that_a_person_enters_opens_the_server_and_no_other_does(tmp_path, monkeypatch):
    location = f"sqlite:{tmp_path}/vault.db"
    spec = f"pkcs11:{hsm.spec_of('right', hsm.tokens(), 'entered', pin=False)}"
    for name, pin in (("pin", hsm.PIN), ("wrong", "000000")):
        (tmp_path / name).write_text(pin + "\n")
    env = environment(KEYHOLE_HOME=str(tmp_path / "home"))
    made = spawn("--vault", location, "--passphrase-file", tmp_path / "pin", "--json", "init", "--seal", spec, env=env)
    assert made.code == 0, made
    monkeypatch.setenv("KEYHOLE_TOKEN", made.json["root_token"])
    with serving("--vault", location, env=env, real=True) as (process, started):
        monkeypatch.setenv("KEYHOLE_ADDR", started["api"])
        assert run("operator", "status").code == 6
        assert run("operator", "unseal").code == 6
        assert run("operator", "unseal", "--passphrase-file", tmp_path / "wrong").code == 6
        ok("operator", "unseal", "--passphrase-file", tmp_path / "pin")
        ok("set", "a", stdin="opened by a PIN")
        assert hsm.PIN.encode() not in Path(f"/proc/{process.pid}/environ").read_bytes()
    with serving("--vault", location, "--passphrase-file", tmp_path / "pin", env=env) as (_, started):
        monkeypatch.setenv("KEYHOLE_ADDR", started["api"])
        assert ok("get", "a").out == "opened by a PIN\n"


def enter(keys, *args):
    for key in keys:
        ran = ok(*args, "--json", stdin=key)
    return ran.json


def test_people_rekey_a_server_and_make_a_root_token_on_the_command_line(tmp_path, monkeypatch):
    location = f"sqlite:{tmp_path}/vault.db"
    env = environment(KEYHOLE_HOME=str(tmp_path / "home"))
    made = ok("--vault", location, "--json", "init", "--seal", "shares:3:2").json
    old = made["keys_base64"]
    monkeypatch.setenv("KEYHOLE_TOKEN", made["root_token"])
    with serving("--vault", location, env=env) as (_, started):
        monkeypatch.setenv("KEYHOLE_ADDR", started["api"])
        enter(old[:2], "operator", "unseal")
        ok("set", "a", stdin="kept")
        assert run("operator", "rekey", stdin=old[0]).code == 3
        ok("operator", "rekey", "--shares", "5", "--threshold", "3")
        new = enter(old[1:], "operator", "rekey")["keys_base64"]
        assert len(new) == 5
        assert enter(new[:3], "operator", "rekey") == {"complete": True}
        pad = ok("operator", "generate-root", "--start", "--json").json["otp"]
        encoded = enter(new[2:], "operator", "generate-root")["encoded_root_token"]
        token = ok("operator", "generate-root", "--decode", encoded, stdin=pad).out.strip()
        assert run("operator", "generate-root", "--decode", encoded, stdin="x" * 27).code == 3
        monkeypatch.setenv("KEYHOLE_TOKEN", token)
        assert ok("get", "a").out == "kept\n"
        ok("operator", "seal")
        assert run("operator", "unseal", stdin=old[0]).code == 3
        enter(new[:3], "operator", "unseal")
        assert ok("get", "a").out == "kept\n"


# From one seal to another.


def test_a_vault_goes_from_seal_to_seal_and_the_old_ones_open_nothing(tmp_path, monkeypatch):
    place = tmp_path / "vault.db"
    monkeypatch.setenv("KEYHOLE_VAULT", f"sqlite:{place}")
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"correct horse battery {name}\n")
    ok("--passphrase-file", tmp_path / "one", "init", "--seal", "passphrase")
    ok("--passphrase-file", tmp_path / "one", "set", "a", stdin="kept")
    to = ("operator", "migrate", "--json", "--to")
    two = ("passphrase", "--new-passphrase-file", tmp_path / "two")
    assert run("--passphrase-file", tmp_path / "two", *to, *two).code == 6
    ok("--passphrase-file", tmp_path / "one", *to, *two)
    assert run("--passphrase-file", tmp_path / "one", "get", "a").code == 6
    assert ok("--passphrase-file", tmp_path / "two", "get", "a").out == "kept\n"
    shares = ok("--passphrase-file", tmp_path / "two", *to, "shares:3:2").json["shares"]
    assert run("--passphrase-file", tmp_path / "two", "get", "a").code == 6
    assert run(*to, f"keyfile:{tmp_path}/key", "--make-keyfile", stdin=shares[0]).code == 6
    ok(*to, f"keyfile:{tmp_path}/key", stdin="\n".join(shares[1:]))
    assert ok("get", "a").out == "kept\n"
    pkcs11 = f"pkcs11:{hsm.spec_of('right', hsm.tokens(), 'migrated')}"
    recovery = ok(*to, pkcs11).json["recovery"]
    assert len(recovery) == 5
    (tmp_path / "key").unlink()
    assert ok("get", "a").out == "kept\n"


def test_a_new_seal_that_does_not_work_leaves_the_old_one_in_force(tmp_path, monkeypatch):
    monkeypatch.setenv("KEYHOLE_VAULT", f"sqlite:{tmp_path}/vault.db")
    ok("init", "--seal", f"keyfile:{tmp_path}/key", "--make-keyfile")
    ok("set", "a", stdin="kept")
    for name, value in aws.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    before = header_of(tmp_path / "vault.db")
    ran = run("--json", "operator", "migrate", "--to", "awskms:alias/k?region=eu-central-1&endpoint=http://127.0.0.1:9")
    assert (ran.code, ran.error["code"]) == (6, "sealed")
    assert header_of(tmp_path / "vault.db") == before
    assert ok("get", "a").out == "kept\n"


def test_a_server_that_is_set_to_another_seal_migrates_when_the_old_shares_are_entered(tmp_path, monkeypatch):
    location = f"sqlite:{tmp_path}/vault.db"
    pkcs11 = f"pkcs11:{hsm.spec_of('right', hsm.tokens(), 'online')}"
    env = environment(KEYHOLE_HOME=str(tmp_path / "home"))
    made = ok("--vault", location, "--json", "init", "--seal", "shares:3:2").json
    shares = made["keys_base64"]
    monkeypatch.setenv("KEYHOLE_TOKEN", made["root_token"])
    with serving("--vault", location, "--seal", pkcs11, env=env) as (_, started):
        monkeypatch.setenv("KEYHOLE_ADDR", started["api"])
        status = run("operator", "status", "--json")
        assert (status.code, status.json["migration"], status.json["t"]) == (6, True, 2)
        assert run("operator", "unseal", stdin=shares[0]).code == 3
        assert enter(shares[:2], "operator", "unseal", "--migrate")["sealed"] is False
        ok("set", "a", stdin="kept")
    with serving("--vault", location, env=env) as (_, started):  # by itself, with its new seal
        monkeypatch.setenv("KEYHOLE_ADDR", started["api"])
        assert ok("get", "a").out == "kept\n"
        status = ok("operator", "status", "--json").json
        assert (status["type"], status["recovery_seal"], status["n"]) == ("pkcs11", True, 3)
    with serving("--vault", location, "--seal", "shares:3:2", env=env) as (_, started):  # and back
        monkeypatch.setenv("KEYHOLE_ADDR", started["api"])
        assert run("operator", "status").code == 6
        assert enter(shares[1:], "operator", "unseal", "--migrate")["sealed"] is False
        ok("operator", "seal")
        enter(shares[:2], "operator", "unseal")
        assert ok("get", "a").out == "kept\n"
