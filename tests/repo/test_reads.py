"""Who has read what: on record before a value is let go, or it is not let go."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

import keyhole
from keyhole.client.repo import RepoVault
from keyhole.core.errors import AuditUnavailable, IntegrityError, StoreUnavailable
from keyhole.repo import reads
from repo.world import CANARY, Folder


@pytest.fixture
def team(tmp_path):
    world = Folder.create(tmp_path)
    world.set("stripe/key")
    return world


def read(team, identity=None, name="stripe/key", **environ):
    who = identity or team.owner
    return reads.release(team.open(), who, name, how="get", environ=environ, now=team.now).reveal().decode()


def log(team):
    return reads.path_of(team.open())


def test_a_read_says_who_what_when_and_for_which_run_and_never_the_value(team):
    coder = team.add("coder", "stripe")
    read(team, coder, KEYHOLE_RUN="4711", KEYHOLE_WORKFLOW="deploy")
    (found,) = reads.load(log(team))
    assert (found.who, found.secret, found.version, found.how) == ("coder", "stripe/key", 2, "get")
    assert (found.time, found.context) == (team.now, {"run": "4711", "workflow": "deploy"})
    assert found.is_signed([team.open().require_members()])
    assert CANARY not in log(team).read_text()
    assert log(team).stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_recorded_is_not_given(team):
    log(team).mkdir()
    with pytest.raises(AuditUnavailable) as refused:
        read(team)
    assert "KEYHOLE_HOME" in refused.value.hint
    assert CANARY not in str(refused.value)


def test_a_home_that_cannot_be_written_is_named_with_the_next_step(team):
    with pytest.raises(StoreUnavailable) as refused:
        team.open(Path("/proc/nothing"))
    assert "KEYHOLE_HOME" in refused.value.hint


def test_a_refused_read_is_not_on_record(team):
    stranger = team.add("ben", "other")
    with pytest.raises(keyhole.core.errors.NotFound):
        read(team, stranger)
    assert not log(team).exists()


@pytest.mark.parametrize("harm", ["change", "drop", "swap", "start"])
def test_a_record_that_was_changed_or_taken_out_is_noticed(team, harm):
    for _ in range(4):
        read(team)
    lines = log(team).read_bytes().splitlines(keepends=True)
    if harm == "change":
        lines[1] = lines[1].replace(b'"get"', b'"git"')
    elif harm == "drop":
        del lines[2]
    elif harm == "swap":
        lines[1], lines[2] = lines[2], lines[1]
    else:
        del lines[0]
    log(team).write_bytes(b"".join(lines))
    with pytest.raises(IntegrityError):
        reads.load(log(team))


def test_a_line_that_a_crash_has_torn_is_passed_over_and_the_chain_goes_on(team):
    read(team)
    whole = log(team).read_bytes()
    log(team).write_bytes(whole + whole[:77])
    assert len(reads.load(log(team))) == 1
    read(team)
    assert [each.number for each in reads.load(log(team))] == [1, 2]


def test_a_record_in_the_name_of_another_is_not_taken_for_his(team):
    coder = team.add("coder", "stripe")
    read(team, coder)
    line = json.loads(log(team).read_text())
    line["content"]["who"] = "owner"
    line["signatures"] = {"owner": line["signatures"]["coder"]}
    log(team).write_text(json.dumps(line) + "\n")
    (found,) = reads.load(log(team))
    assert not found.is_signed([team.open().require_members()])


def test_reads_from_python_are_on_record(team, monkeypatch):
    monkeypatch.setenv("KEYHOLE_HOME", str(team.home))
    vault = RepoVault(team.root, key=team.owner.to_text(), environ={"KEYHOLE_STEP": "build"})
    assert vault.get("stripe/key") == CANARY
    (found,) = reads.load(log(team))
    assert (found.how, found.context) == ("RepoVault.get", {"step": "build"})
    os.truncate(log(team), 10)  # no line of ours is left whole
    log(team).write_bytes(b"x" * 40_000)
    with pytest.raises(AuditUnavailable):
        vault.get("stripe/key")


def test_values_leave_a_repo_vault_through_the_record_only():
    """Whoever calls ``Opened.get`` has to record it: the mount's caller does, in the journal of its vault."""
    package = Path(keyhole.__file__).parent
    calls = re.compile(r"(?:opened|vault|open\(\)|_open\([^)]*\))\.get\([^()]*(?:\[|identit)")
    found = {str(p.relative_to(package)) for p in package.rglob("*.py") if calls.search(p.read_text("utf-8"))}
    found -= {"cli/moving/sinks.py"}  # compares with what comes in, and gives nothing out
    assert found == {"repo/reads.py", "engines/repo.py"}
