"""Reads through the TypeScript SDK are on record beside those of Python, before a value is given."""

import subprocess

import pytest

from children import child
from keyhole.client.repo import RepoVault
from keyhole.repo import reads
from repo.world import CANARY, Folder
from sdk import built


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "home"))
    world = Folder.create(tmp_path)
    world.agent = world.add("coder", "stripe")
    world.set("stripe/key")
    world.env = {
        "HOME": str(tmp_path),
        "KEYHOLE_HOME": str(world.home),
        "KEYHOLE_REPO_KEY": world.agent.to_text(),
        "KEYHOLE_RUN": "4711",
    }
    return world


def test_both_languages_write_one_record_at_the_same_time(world):
    command = [built.node(), str(built.built() / "test/reading.js"), str(world.root), "stripe/key", "8"]
    vault = RepoVault(world.root, key=world.owner.to_text())
    vault.get("stripe/key")
    with child(command, env=world.env, stdout=subprocess.PIPE) as process:
        for _ in range(15):
            vault.get("stripe/key")
        assert process.stdout.read() == b"8"
    vault.get("stripe/key")
    found = reads.load(reads.path_of(world.open()))
    ours = [read for read in found if read.who == "coder"]
    everybody = [world.open().require_members()]
    assert len(ours) == 8
    assert all(read.is_signed(everybody) for read in found)
    assert {(read.secret, read.version, read.how, read.context["run"]) for read in ours} == {
        ("stripe/key", 1, "RepoVault.get", "4711")
    }
    assert CANARY not in reads.path_of(world.open()).read_text()


@pytest.mark.parametrize("left", [b'{"content"', b"torn\n"], ids=["a torn line", "another line"])
def test_what_a_crash_has_left_is_taken_off_and_nothing_else_is(world, left):
    path = reads.path_of(world.open())
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(left)
    done = built.run("reading.js", str(world.root), "stripe/key", "1", env=world.env)
    if left.endswith(b"\n"):
        assert b"AuditUnavailable" in done.stderr
        assert path.read_bytes() == left
    else:
        assert [read.number for read in reads.load(path)] == [1]


def test_what_cannot_be_recorded_is_not_given(world):
    reads.path_of(world.open()).mkdir(parents=True)
    done = built.run("reading.js", str(world.root), "stripe/key", "1", env=world.env)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"AuditUnavailable: the read cannot be recorded" in done.stderr
    assert CANARY.encode() not in done.stderr
