"""Servers as processes: how they start, refuse to start, stay sealed, and end; and what is done with them."""

import os
import select
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from children import child
from cli_driver import environment, ok, run, serving, spawn
from keyhole.upkeep import write_public

PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def stored(tmp_path):
    """A vault with a passphrase; its location, its root token, and a file with the passphrase."""
    (tmp_path / "pass").write_text(PASSPHRASE + "\n")
    location = f"sqlite:{tmp_path / 'vault.db'}"
    made = ok("--vault", location, "init", "--seal", "passphrase", "--passphrase-file", tmp_path / "pass", "--json")
    return location, made.json["root_token"], tmp_path / "pass"


def test_a_development_server_says_where_it_is_and_ends_with_zero(tmp_path):
    env = environment(KEYHOLE_HOME=str(tmp_path), KEYHOLE_VAULT="sqlite:/nowhere/vault.db")
    with serving("--dev", "--dev-root-token-id", "chosen", env=env, real=True) as (process, started):
        assert set(started) == {"api", "proxy", "root_token", "ca_file", "pid"}
        assert started["root_token"] == "chosen"
        assert started["pid"] == process.pid
        assert "BEGIN CERTIFICATE" in Path(started["ca_file"]).read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert not Path(started["ca_file"]).exists()


def test_a_server_opens_its_vault_or_starts_sealed_and_is_unsealed(stored, tmp_path, monkeypatch):
    location, token, passfile = stored
    env = environment(KEYHOLE_HOME=str(tmp_path / "home"))
    with serving("--vault", location, "--passphrase-file", passfile, env=env) as (_, started):
        assert set(started) == {"api", "proxy", "ca_file", "pid"}
        monkeypatch.setenv("KEYHOLE_ADDR", started["api"])
        monkeypatch.setenv("KEYHOLE_TOKEN", token)
        ok("set", "a", stdin="the-first-value")
        assert run("operator", "status").code == 0
        ok("operator", "seal")
        assert run("operator", "status", "--json").code == 6
        ran = run("get", "a", "--json")
        assert (ran.code, ran.error["code"]) == (6, "sealed")
    with serving("--vault", location, env=env) as (_, started):
        monkeypatch.setenv("KEYHOLE_ADDR", started["api"])
        certificate = Path(started["ca_file"])
        certificate.unlink()
        assert run("get", "a").code == 6
        (tmp_path / "wrong").write_text("not the passphrase\n")
        assert run("operator", "unseal", "--passphrase-file", tmp_path / "wrong").code == 6
        assert run("operator", "unseal").code == 6
        ok("operator", "unseal", "--passphrase-file", passfile)
        assert ok("get", "a").out == "the-first-value\n"
        deadline = time.monotonic() + 60
        while not (certificate.exists() and "END CERTIFICATE" in certificate.read_text()):
            assert time.monotonic() < deadline, "the CA was not written"
            time.sleep(0.01)


def test_a_server_that_cannot_open_its_vault_ends_with_six(stored, tmp_path):
    location, _, _ = stored
    (tmp_path / "wrong").write_text("not the passphrase\n")
    env = environment(KEYHOLE_HOME=str(tmp_path / "home"))
    listen = ("--listen", "127.0.0.1:0", "--proxy-listen", "127.0.0.1:0")
    wrong = spawn("server", *listen, "--vault", location, "--passphrase-file", tmp_path / "wrong", env=env)
    assert wrong.code == 6, wrong
    assert wrong.err.startswith("error: ")
    nothing = spawn("server", *listen, "--vault", f"sqlite:{tmp_path / 'none.db'}", "--json", env=env)
    assert nothing.code == 6
    assert nothing.error["hint"]
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--listen", "0.0.0.0:0"),
        ("--listen", "nonsense"),
        ("--egress", "perhaps"),
        ("--dev-root-token-id", "x"),
        ("--vault", "https://127.0.0.1:8200"),
        ("--config", "missing.toml"),
        ("--tls-cert", "cert.pem"),
        ("--tls-client-ca", "ca.pem"),
        ("--tls-require-client-cert",),
        ("--trusted-proxy", "proxy.example"),
    ],
)
def test_settings_that_make_no_sense_are_named_before_anything_starts(options):
    ran = run("server", *options)
    assert ran.code == 3
    assert ran.out == ""


def test_a_file_of_settings_that_is_not_utf_8_is_said_to_be(tmp_path):
    config = tmp_path / "keyhole.toml"
    config.write_bytes('data = "/var/lib/schlüssel"\n'.encode("latin-1"))
    ran = run("server", "--dev", "--config", config)
    assert (ran.code, ran.out) == (3, "")
    assert f"{config}: not TOML: it is not UTF-8" in ran.err


@pytest.mark.parametrize(
    "content",
    [b"a = " + b"[" * 20_000, b"a = " + b"{b=" * 20_000, b"a = " + b"9" * 10_000, b"#" * (1 << 20) + b"#"],
    ids=["lists", "tables", "digits", "long"],
)
def test_a_file_of_settings_that_nobody_wrote_is_refused_in_words(tmp_path, content):
    config = tmp_path / "keyhole.toml"
    config.write_bytes(content)
    ran = run("server", "--dev", "--config", config)
    assert (ran.code, ran.out) == (3, "")
    assert f"{config}: " in ran.err
    entry = run("catalog", "check", config)
    assert "internal" not in entry.err
    assert entry.code == 1


def test_settings_come_from_the_file_the_environment_and_the_options(tmp_path):
    config = tmp_path / "keyhole.toml"
    config.write_text('egress = "log"\nlisten = "127.0.0.1:1"\n')
    env = environment(KEYHOLE_HOME=str(tmp_path / "home"), KEYHOLE_DATA=str(tmp_path / "data"))
    with serving("--dev", "--dev-root-token-id", "root", "--config", config, env=env) as (_, started):
        assert started["ca_file"] == str(tmp_path / "data" / "ca.pem")
        env |= {"KEYHOLE_ADDR": started["api"], "KEYHOLE_TOKEN": "root"}
        assert spawn("org", "show", "--json", env=env).json["egress"] == "log"


def test_orgs_are_made_listed_and_removed_by_the_root_org_alone(root_of_server, monkeypatch):
    made = ok("org", "add", "tenant", "--egress", "allow", "--json").json
    assert made["egress"] == "allow"
    assert "tenant" in ok("org", "list", "--json").json
    monkeypatch.setenv("KEYHOLE_TOKEN", made["root_token"])
    ok("set", "a", stdin="the-first-value")
    assert run("org", "add", "another").code == 4
    assert run("--org", "root", "list").code == 4
    monkeypatch.setenv("KEYHOLE_TOKEN", "root")
    assert run("--org", "tenant", "list").code == 4
    ok("org", "rm", "tenant")
    assert "tenant" not in ok("org", "list", "--json").json
    assert run("org", "rm", "tenant").code == 5


def test_a_token_is_kept_for_one_server_in_a_file_of_its_owners(server, monkeypatch):
    monkeypatch.setenv("KEYHOLE_ADDR", server["api"])
    ran = run("list", "--json")
    assert (ran.code, ran.error["code"]) == (4, "unauthenticated")
    assert run("login", stdin="hvs.wrong").code == 4
    assert run("list").code == 4
    before = os.umask(0)
    try:
        assert "root" not in ok("login", stdin="root\n").out
    finally:
        os.umask(before)
    path = Path(os.environ["KEYHOLE_HOME"]) / "tokens.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert run("list").code == 0
    path.chmod(0o644)
    assert run("list").code == 3
    path.chmod(0o600)
    ok("logout")
    assert run("list").code == 4
    assert not path.exists()


def test_a_stored_token_goes_to_no_other_address(server, monkeypatch):
    monkeypatch.setenv("KEYHOLE_ADDR", server["api"])
    ok("login", stdin="root\n")
    monkeypatch.setenv("KEYHOLE_ADDR", server["api"].replace("127.0.0.1", "localhost"))
    assert run("list").code == 4
    ok("--vault", server["api"], "logout")


def test_a_local_vault_needs_no_login(local):
    assert run("login", stdin="hvs.x").code == 3
    assert ok("operator", "status", "--json").json["initialized"] is True
    ok("operator", "unseal")
    ok("operator", "seal")


def test_following_the_journal_shows_what_happens_meanwhile(root_of_server):
    env = environment(KEYHOLE_ADDR=root_of_server["api"], KEYHOLE_TOKEN="root")
    command = [sys.executable, "-m", "keyhole", "audit", "tail", "-f", "-n", "1", "--json"]
    with child(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            deadline, found = time.monotonic() + 60, b""
            while b"secret/data/followed" not in found and time.monotonic() < deadline:
                run("get", "followed")
                if select.select([process.stdout], [], [], 0.5)[0]:
                    found += os.read(process.stdout.fileno(), 65536)
            assert b"secret/data/followed" in found
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
            assert b"Traceback" not in process.stderr.read()
        finally:
            process.kill()


def test_people_with_shares_open_a_server_one_after_the_other(tmp_path, monkeypatch):
    location = f"sqlite:{tmp_path / 'vault.db'}"
    made = ok("--vault", location, "init", "--seal", "shares:3:2", "--json").json
    one, two, three = made["keys_base64"]
    alone = run("--vault", location, "list")
    assert alone.code == 6
    assert "keyhole operator unseal" in alone.err
    with serving("--vault", location, env=environment(KEYHOLE_HOME=str(tmp_path / "home"))) as (_, started):
        monkeypatch.setenv("KEYHOLE_ADDR", started["api"])
        monkeypatch.setenv("KEYHOLE_TOKEN", made["root_token"])
        assert run("operator", "unseal", stdin="").code == 3
        assert "1 of 2 shares" in ok("operator", "unseal", stdin=three + "\n").err
        assert "any 2 open it; 1 entered" in run("operator", "status").out
        assert "0 of 2 shares" in ok("operator", "unseal", "--reset").err
        ok("operator", "unseal", stdin=one)
        wrong = run("operator", "unseal", stdin=two[:-1] + "!")
        assert wrong.code == 3
        assert two[:20] not in wrong.err
        opened = ok("operator", "unseal", "--json", stdin=two).json
        assert (opened["sealed"], opened["progress"]) == (False, 0)
        assert run("operator", "status").code == 0
        ok("set", "a", stdin="the-first-value")


def test_the_shares_are_shown_once_when_a_vault_is_made(tmp_path):
    ran = ok("--vault", f"sqlite:{tmp_path / 'vault.db'}", "init", "--seal", "shares:5:3")
    lines = ran.out.split()
    assert [len(line) for line in lines[:5]] == [72] * 5
    assert lines[5].startswith("hvs.")
    for spec in ("shares", "shares:1:2", "shares:5:1", "shares:300:3"):
        ran = run("--vault", f"sqlite:{tmp_path / 'other.db'}", "init", "--seal", spec)
        assert ran.code == 3
    assert not (tmp_path / "other.db").exists()


def test_a_server_without_a_vault_can_wait_until_one_is_made_over_its_api(tmp_path, monkeypatch):
    env = environment(KEYHOLE_HOME=str(tmp_path / "home"))
    location = f"sqlite:{tmp_path / 'vault.db'}"
    with serving("--vault", location, "--await-init", env=env) as (_, started):
        monkeypatch.setenv("KEYHOLE_ADDR", started["api"])
        assert run("operator", "status").code == 5
        monkeypatch.setenv("KEYHOLE_TOKEN", "hvs.guess")
        assert run("get", "a").code == 6
        assert run("operator", "unseal", stdin="AAAA").code != 0
        made = ok("init", "--seal", "shares:2:2", "--json").json
        monkeypatch.setenv("KEYHOLE_TOKEN", made["root_token"])
        ok("set", "a", stdin="the-first-value")
        assert run("init", "--seal", "shares:2:2").code == 3
    with serving("--vault", location, "--await-init", env=env) as (_, started):
        monkeypatch.setenv("KEYHOLE_ADDR", started["api"])
        for share in made["keys_base64"]:
            ok("operator", "unseal", stdin=share)
        assert ok("get", "a").out == "the-first-value\n"
    assert run("server", "--dev", "--await-init").code == 3


@pytest.mark.parametrize("there", ["nothing", "link", "pipe", "file"])
def test_the_certificate_takes_the_place_of_what_has_its_name_and_follows_no_link(tmp_path, there, caplog):
    path, other = tmp_path / "data" / "ca.pem", tmp_path / "precious"
    other.write_bytes(b"precious")
    if there != "nothing":
        path.parent.mkdir(mode=0o700)
    if there == "link":
        path.symlink_to(other)
    elif there == "pipe":
        os.mkfifo(path)
    elif there == "file":
        path.write_bytes(b"older")
    before = os.umask(0)
    try:
        write_public(path, b"certificate")
    finally:
        os.umask(before)
    assert (path.read_bytes(), other.read_bytes()) == (b"certificate", b"precious")
    assert stat.S_IMODE(path.lstat().st_mode) == 0o644
    assert [each.name for each in path.parent.iterdir()] == ["ca.pem"]
    assert caplog.text == ""
    path.parent.chmod(0o777)
    write_public(path, b"certificate")
    assert "others can write" in caplog.text
