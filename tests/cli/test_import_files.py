"""Placeholders in place of values in files: what else stays the same, and that nothing is lost on the way."""

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cli.test_import import ENV, KEY, SAUCE, place, taken, write  # noqa: F401  # place is a fixture
from cli_driver import environment, ok, run
from importers.samples import SAMPLES, hidden

NAMES = {
    "dotenv": ".env",
    "npmrc": ".npmrc",
    "pip": "pip.conf",
    "netrc": ".netrc",
    "aws": ".aws/credentials",
    "docker": ".docker/config.json",
    "git": ".git-credentials",
    "mcp": "mcp.json",
}


def backups():
    return [item["name"] for item in run("import", "restore", "--json").json]


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_values_go_and_everything_else_stays(vault, place):  # noqa: F811
    content = f"# mine\r\nexport STRIPE_SECRET_KEY = '{KEY}'   # c\r\nPORT=3000\r\nACME_TOKEN={SAUCE}\r\n".encode()
    path = write(place / ".env", content, 0o600)
    ran = ok("import", ".env", "--placeholders", "--json")
    [done] = ran.json["files"]
    assert (done["path"], done["replaced"], done["stay"]) == (".env", ["stripe/api-key", "shop/acme-token"], {})
    placeholders = {row["variable"]: row["placeholder"] for row in run("env", "--json").json}
    after = path.read_bytes()
    acme = after.split(b"ACME_TOKEN=")[1].split(b"\r\n")[0]
    assert acme.startswith(b"keyhole_placeholder_")
    assert after == content.replace(KEY.encode(), placeholders["STRIPE_SECRET_KEY"].encode()).replace(
        SAUCE.encode(), acme
    )
    assert files(place) == [".env"]


def test_a_service_that_is_added_later_has_the_placeholder_of_the_file(vault, place):  # noqa: F811
    path = write(place / ".env", ENV)
    [later] = [item["next"] for item in ok("import", ".env", "--placeholders", "--json").json["taken"] if item["next"]]
    ok(*later.replace("HOST", "api.acme.example").split()[1:])
    assert run("service", "show", "shop-acme-token", "--json").json["placeholder"] in path.read_text()


@pytest.mark.parametrize("kind", NAMES)
def test_every_kind_of_file_loses_its_values_and_gets_them_back(vault, place, kind):  # noqa: F811
    path = write(place / NAMES[kind], SAMPLES[kind], 0o600)
    assert hidden(path.read_text())
    ok("import", "file", path, "--placeholders")
    assert not hidden(path.read_text())
    ran = ok("import", "file", path, "--placeholders", "--json")
    assert ran.json["files"] == []
    [name] = backups()
    ok("import", "restore", name, "--yes")
    assert path.read_bytes() == SAMPLES[kind]
    assert not json.loads(ok("import", "restore", name, "--yes", "--json").out)["changed"]


def test_the_copy_is_in_the_vault_and_nowhere_else(vault, place, tmp_path):  # noqa: F811
    path = write(place / ".env", ENV)
    ok("import", ".env", "--placeholders")
    [name] = backups()
    assert name.startswith("shop-env-20")
    shown = run("show", f"backup/{name}", "--json").json
    assert (shown["type"], shown["current_version"]) == ("backup", 1)
    data = run("get", f"backup/{name}", "--json").json["data"]
    assert data["path"] == str(path)
    assert data["written"] == hashlib.sha256(path.read_bytes()).hexdigest()
    for each in tmp_path.rglob("*"):
        if each.is_file():
            assert not [secret for secret in (KEY, SAUCE) if secret.encode() in each.read_bytes()], each


def test_a_large_file_is_kept_in_parts(local, place):  # noqa: F811
    content = ENV.encode() + b"# " + os.urandom(1 << 20).hex().encode() + b"\n"
    path = write(place / ".env", content)
    ok("import", ".env", "--placeholders")
    [name] = backups()
    assert sum(field.startswith("part-") for field in run("show", f"backup/{name}", "--json").json["fields"]) == 3
    ok("import", "restore", name, "--yes")
    assert path.read_bytes() == content


def test_what_no_placeholder_can_stand_for_stays_and_is_said(local, place):  # noqa: F811
    path = write(place / ".env", f"DB=postgres://me:{SAUCE}@db/x\nACME_TOKEN={SAUCE}\n")
    ran = ok("import", ".env", "--placeholders", "--json")
    [done] = ran.json["files"]
    assert done["stay"].keys() == {"shop/db", "shop/acme-token"}
    assert "another place" in done["stay"]["shop/acme-token"]
    assert f"me:{SAUCE}@" in path.read_text()


def test_what_is_found_in_requests_by_its_placeholder_has_to_come_from_run(local, place):  # noqa: F811
    token = "123456789:AA" + "b1C2d3E4f5" * 3
    write(place / ".env", f"TELEGRAM_BOT_TOKEN={token}\nACME_TOKEN={SAUCE}\n")
    [done] = ok("import", ".env", "--placeholders", "--json").json["files"]
    assert done["by_run"] == {"telegram/api-key": ["TELEGRAM_BOT_TOKEN", "TELEGRAM_TOKEN"]}
    assert done["stay"] == {}


def test_what_is_not_in_the_vault_stays_in_the_file(local, place):  # noqa: F811
    ok("set", "shop/acme-token", stdin="what-was-there-before")
    path = write(place / ".env", ENV)
    ran = run("import", ".env", "--placeholders", "--json")
    assert ran.code == 2
    assert ran.json["files"][0]["stay"] == {"shop/acme-token": "it is not in the vault"}
    assert SAUCE in path.read_text()
    assert KEY not in path.read_text()


def test_links_are_refused_and_name_the_file(local, place, tmp_path):  # noqa: F811
    real = write(tmp_path / "real.env", ENV)
    (place / ".env").symlink_to(real)
    ran = run("import", ".env", "--placeholders")
    assert ran.code == 2
    assert f"name the file: {real}" in ran.err
    assert real.read_text() == ENV
    os.link(real, tmp_path / "twin.env")
    assert "hard link" in run("import", real, "--placeholders").err
    assert real.read_text() == ENV


def test_a_file_that_changes_meanwhile_is_left(local, place, monkeypatch):  # noqa: F811
    path = write(place / ".env", ENV)
    original = os.open

    def open_and_change(name, *args, **options):
        if str(name).endswith(".keyhole-new"):
            path.write_text("NEW=1\n")
        return original(name, *args, **options)

    monkeypatch.setattr("os.open", open_and_change)
    ran = run("import", ".env", "--placeholders")
    assert ran.code == 2
    assert "has changed since it was read" in ran.err
    assert path.read_text() == "NEW=1\n"
    assert files(place) == [".env"]


def test_a_folder_that_cannot_be_written_leaves_the_file_as_it_is(local, place, monkeypatch):  # noqa: F811
    path = write(place / ".env", ENV)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.fsync", refuse)
    ran = run("import", ".env", "--placeholders", "--no-services")
    assert ran.code != 0
    assert path.read_text() == ENV
    assert files(place) == [".env"]


def test_owner_mode_and_attributes_are_kept(local, place):  # noqa: F811
    path = write(place / ".env", ENV, 0o440)
    attributes = {}
    try:
        os.setxattr(path, "user.note", b"mine")
        attributes = {"user.note": b"mine"}
    except OSError:
        pass  # this file system has none
    if os.geteuid() == 0:
        os.chown(path, 12345, 54321)
    before = path.stat()
    ok("import", ".env", "--placeholders")
    after = path.stat()
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (before.st_uid, before.st_gid, 0o440)
    assert {name: os.getxattr(path, name) for name in os.listxattr(path)} == attributes


CRASHES = {
    "before the copy": ("keyhole.client.api.Client.write", "backup/", False),
    "after the copy": ("keyhole.client.api.Client.write", "backup/", True),
    "before the new file": ("os.open", ".keyhole-new", False),
    "with an empty new file": ("os.open", ".keyhole-new", True),
    "before it takes its place": ("os.replace", ".keyhole-new", False),
    "after it took its place": ("os.replace", ".keyhole-new", True),
}
_PROGRAM = """
import importlib, os, signal, sys
from keyhole.cli import main
where, needle, after = sys.argv[1], sys.argv[2], sys.argv[3] == "True"
owner, _, name = where.rpartition(".")
try:
    target = importlib.import_module(owner)
except ModuleNotFoundError:
    module, _, cls = owner.rpartition(".")
    target = getattr(importlib.import_module(module), cls)
original = getattr(target, name)
def cut(*args, **options):
    hit = any(needle in str(arg) for arg in args[:2])
    if hit and not after:
        os.kill(os.getpid(), signal.SIGKILL)
    result = original(*args, **options)
    if hit:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(target, name, cut)
main(["import", ".env", "--placeholders"])
"""


@pytest.mark.parametrize("crash", CRASHES)
def test_killed_at_any_point_the_file_is_the_old_or_the_new_one_and_nothing_is_lost(local, place, crash):  # noqa: F811
    path = write(place / ".env", ENV)
    where, needle, after = CRASHES[crash]
    env = environment(KEYHOLE_HOME=os.environ["KEYHOLE_HOME"], HOME=os.environ["HOME"])
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, where, needle, str(after)],
        env=env,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done
    for each in place.iterdir():
        assert each == path or KEY.encode() not in each.read_bytes()
    if crash == "after it took its place":
        assert KEY not in path.read_text()
        ok("import", "restore", backups()[0], "--yes")
    assert path.read_text() == ENV
    ok("import", ".env", "--placeholders")
    assert not hidden(path.read_text())
    assert SAUCE not in path.read_text()
    assert files(place) == [".env"]
    ok("import", "restore", backups()[-1], "--yes")
    assert path.read_text() == ENV


class TestRestore:
    def test_a_file_that_was_changed_since_is_not_overwritten(self, vault, place):  # noqa: F811
        path = write(place / ".env", ENV)
        ok("import", ".env", "--placeholders")
        [name] = backups()
        path.write_text(path.read_text() + "MORE=1\n")
        ran = run("import", "restore", name, "--yes")
        assert ran.code == 2
        assert "has changed since" in ran.err
        ok("import", "restore", name, "--yes", "--to", place / "old.env")
        assert (place / "old.env").read_text() == ENV
        assert stat.S_IMODE((place / "old.env").stat().st_mode) == 0o600
        ok("import", "restore", name, "--yes", "--replace")
        assert path.read_text() == ENV

    def test_a_file_that_is_gone_comes_back_with_its_mode(self, vault, place):  # noqa: F811
        path = write(place / ".env", ENV, 0o640)
        ok("import", ".env", "--placeholders")
        path.unlink()
        ok("import", "restore", f"backup/{backups()[0]}", "--yes")
        assert path.read_text() == ENV
        assert stat.S_IMODE(path.stat().st_mode) == 0o640

    def test_values_that_come_back_are_not_open_to_others_for_a_moment(self, local, place, monkeypatch):  # noqa: F811
        path = write(place / ".env", ENV, 0o600)
        ok("import", ".env", "--placeholders")
        path.chmod(0o644)  # with placeholders only, it may be
        seen, rename = [], Path.replace

        def watched(fresh, target):
            seen.append(stat.S_IMODE(fresh.stat().st_mode))
            return rename(fresh, target)

        monkeypatch.setattr(Path, "replace", watched)
        ok("import", "restore", backups()[0], "--yes")
        assert path.read_text() == ENV
        assert seen == [0o600]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_a_link_in_its_place_is_not_followed(self, local, place, tmp_path):  # noqa: F811
        path = write(place / ".env", ENV)
        ok("import", ".env", "--placeholders")
        path.unlink()
        victim = write(tmp_path / "victim", "mine")
        path.symlink_to(victim)
        assert "link" in run("import", "restore", backups()[0], "--yes").err
        assert victim.read_text() == "mine"

    def test_a_copy_from_another_machine_needs_a_place(self, local, place, monkeypatch):  # noqa: F811
        write(place / ".env", ENV)
        ok("import", ".env", "--placeholders")
        monkeypatch.setattr("platform.node", lambda: "elsewhere")
        ran = run("import", "restore", backups()[0], "--yes")
        assert ran.code == 2
        assert "another machine" in ran.err

    def test_a_copy_that_is_not_whole_or_no_copy_is_refused(self, vault, place):  # noqa: F811
        write(place / ".env", ENV)
        ok("import", ".env", "--placeholders")
        [name] = backups()
        ok("set", f"backup/{name}", "--field", "part-0000", stdin="QUJD")
        ran = run("import", "restore", name, "--yes")
        assert ran.code == 2
        assert "not whole" in ran.err
        ok("set", "backup/other", stdin="something-else")
        assert "no copy of a file" in run("import", "restore", "other", "--yes").err

    def test_it_asks_and_needs_read(self, local, place, monkeypatch):  # noqa: F811
        path = write(place / ".env", ENV)
        ok("import", ".env", "--placeholders")
        monkeypatch.setattr("keyhole.cli.import_.has_terminal", lambda: True)
        monkeypatch.setattr("keyhole.cli.import_.ask_yes", lambda _: False)
        assert run("import", "restore", backups()[0]).code == 4
        assert KEY not in path.read_text()


def test_taken_is_what_the_table_says(local, place):  # noqa: F811
    write(place / ".env", ENV)
    ran = ok("import", ".env", "--placeholders", "--json")
    assert set(taken(ran).values()) == {"stored"}
