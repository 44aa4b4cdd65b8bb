"""The versions of a secret out of git: who, when, for whom; and the way back to one of them."""

from __future__ import annotations

import subprocess

import pytest

from cli_driver import ok, run
from keyhole.repo import changes, history
from repo.kept import InGit, Kept


@pytest.fixture
def team(tmp_path):
    world = Kept.create(tmp_path)
    world.set("stripe/key", "first")
    return world


@pytest.fixture
def cloned(tmp_path):
    world = InGit.create(tmp_path)
    world.set("stripe/key", "first")
    return world


def shown(versions):
    return [(each.label, each.kind.value, each.described.signer, each.readers) for each in versions]


def test_each_version_says_what_it_was_who_signed_it_and_for_whom(team):
    team.add("coder", "stripe")
    ann = team.add("ann", "stripe", role=changes.Role.MEMBER)
    team.set("stripe/key", "second", by=ann)
    team.do(changes.remove, "stripe/key")
    everybody = ("ann", "coder", "owner")
    assert shown(team.versions()) == [
        ("5", "removed", "owner", ()),
        ("4", "new value", "ann", everybody),
        ("3", "rewrap", "owner", everybody),
        ("2", "rewrap", "owner", ("coder", "owner")),
        ("1", "new value", "owner", ("owner",)),
    ]
    assert {each.standing.value for each in team.versions()} == {"line"}
    assert len({each.trace.place for each in team.versions()}) == 5


def test_a_rollback_is_a_new_version_for_todays_readers_with_a_new_time(team):
    team.set("stripe/key", "second")
    coder = team.add("coder", "stripe")
    assert team.back("1").due == ()
    assert team.get("stripe/key", coder) == "first"
    now = team.versions()[0]
    assert (now.label, now.kind.value, now.readers, now.described.due) == ("4", "new value", ("coder", "owner"), "")


def test_a_rollback_to_what_somebody_removed_could_read_is_due(team):
    team.add("coder", "stripe")
    team.do(changes.take_out, "coder")
    team.set("stripe/key", "second")
    assert team.back("1").due == ("stripe/key",)
    assert "coder" in team.versions()[0].described.due
    team.set("stripe/key", "third")
    team.back("5")  # the same value, when it had come back
    assert "coder" in team.versions()[0].described.due


def test_a_removed_secret_comes_back_and_the_value_of_today_does_not_become_new(team):
    with pytest.raises(history.Conflict):
        team.back("1")
    team.do(changes.remove, "stripe/key")
    with pytest.raises(history.NotFound):
        team.back("2")
    team.back("1")
    assert team.get("stripe/key") == "first"


def test_only_who_may_write_a_secret_rolls_it_back(team):
    coder = team.add("coder", "stripe")
    team.set("stripe/key", "second")
    with pytest.raises(changes.PolicyDenied):
        team.back("2", by=coder)


def test_what_nobody_signed_is_shown_as_such_and_never_opened(cloned):
    path, good = cloned.path(".x/secrets/stripe/key.json"), cloned.path(".x/secrets/stripe/key.json").read_bytes()
    path.write_bytes(good.replace(b'"owner"', b'"nobody"'))
    cloned.commit()
    path.write_bytes(b"{}")
    cloned.commit()
    path.unlink()
    path.symlink_to("/etc/passwd")
    cloned.commit()
    path.unlink()
    path.write_bytes(good)
    cloned.commit()
    cloned.set("stripe/key", "second")
    versions = cloned.versions()
    assert [each.standing.value for each in versions].count("unverified") == 3
    assert [each.label for each in versions if each.standing.value == "line"] == ["2", "1"]
    for each in versions:
        if each.standing.value == "unverified":
            with pytest.raises(history.IntegrityError):
                cloned.back(each.label)
    assert cloned.back("1").due == ()


def test_a_version_whose_file_was_another_is_refused(team):
    first = team.path("secrets/stripe/key.enc").read_bytes()
    team.set("stripe/key", "second")
    team.past.states[-1][0]["secrets/stripe/key.enc"] = first
    team.set("stripe/key", "third")
    with pytest.raises(history.IntegrityError, match="not the one that owner wrote"):
        team.back("2")


def test_a_shallow_clone_says_what_it_lacks_and_a_rollback_in_it_is_careful(cloned, tmp_path):
    cloned.set("stripe/key", "second")
    cloned.add("coder", "stripe")
    cloned.set("stripe/key", "third")
    subprocess.run(["git", "clone", "-q", "--depth", "2", f"file://{cloned.root}", str(tmp_path / "clone")], check=True)
    cloned.root = tmp_path / "clone"
    found = history.history(cloned.open(tmp_path / "new"), cloned.past, "stripe/key")
    assert ([each.label for each in found.versions], found.lost) == (["4", "3"], 2)
    with pytest.raises(history.NotFound):
        found.find("1")
    assert "not in the history" in history.roll_back(cloned.open(), cloned.actor(), cloned.past, "stripe/key", "3").due[
        0
    ] or (cloned.back("3").due == ("stripe/key",))


def test_as_it_is_typed(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "keyhole"))
    subprocess.run(["git", "init", "-q", str(tmp_path / "team")], check=True)
    monkeypatch.chdir(tmp_path / "team")
    ok("repo", "init")
    for value in ("first", "second"):
        ok("repo", "set", "stripe/key", stdin=value)
    assert ok("repo", "get", "stripe/key", "--version", "1").out == "first"
    ok("repo", "rm", "stripe/key")
    assert run("repo", "get", "stripe/key").code == 5
    ok("repo", "rollback", "stripe/key", "2")
    assert ok("repo", "get", "stripe/key").out == "second"
    told = ok("repo", "history", "stripe/key", "--json").json
    assert [each["version"] for each in told["versions"]] == ["4", "3", "2", "1"]
    lines = ok("repo", "history").out.splitlines()
    assert "stripe/key" in lines[1]
    assert "member owner" in lines[-1]
    read = ok("repo", "reads", "--json").json
    assert [(each["how"], each["version"], each["signed"]) for each in read] == [
        ("get", 4, True),
        ("get --version 1", 1, True),
    ]
    assert ok("repo", "reads", "--verify", "--json").json["signed"] == 2
    assert "first" not in ok("repo", "history").out + ok("repo", "reads").out


def test_hidden_names_stay_hidden_and_a_member_sees_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "keyhole"))
    team = tmp_path / "team"
    subprocess.run(["git", "init", "-q", str(team)], check=True)
    monkeypatch.chdir(team)
    ok("repo", "init", "--opaque-names", "--owner", "ownerly")
    for value in ("first", "second"):
        ok("repo", "set", "wombat/quokka", stdin=value)
    ok("repo", "rollback", "wombat/quokka", "1")
    assert ok("repo", "get", "wombat/quokka", "--version", "2").out == "second"
    ok("repo", "reads", "share")
    rows = ok("repo", "history", "wombat/quokka", "--json").json["versions"]
    assert [(each["signer"], each["readers"]) for each in rows] == [("ownerly", ["ownerly"])] * 3
    assert "wombat/quokka" in ok("repo", "history").out
    assert ok("repo", "reads", "wombat/quokka", "--json").json[0]["who"] == "ownerly"
    compared = ok("repo", "diff", "wombat/quokka@1", "wombat/quokka@2").out
    assert compared == "~ secret wombat/quokka: version 1 -> 2 by ownerly, new value\n"
    assert "secret wombat/quokka: version 1 -\\> 3" in ok("repo", "review", "HEAD~3..HEAD").out
    log = subprocess.run(["git", "cat-file", "--batch-all-objects", "--batch"], capture_output=True, check=True).stdout
    assert [name for name in (b"wombat", b"quokka", b"ownerly") if name in log] == []


def test_a_remote_of_objects_keeps_versions_too(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "keyhole"))
    (tmp_path / "team").mkdir()
    monkeypatch.chdir(tmp_path / "team")
    ok("repo", "init", "--no-git")
    ok("repo", "remote", "add", "stick", tmp_path / "stick")
    for value in ("first", "second"):
        ok("repo", "set", "stripe/key", stdin=value)
        ok("repo", "push")
    ok("repo", "set", "stripe/key", stdin="third")
    told = ok("repo", "history", "stripe/key", "--json").json["versions"]
    assert [(each["version"], each["kind"], bool(each["commit"])) for each in told] == [
        ("3", "new value", False),
        ("2", "new value", True),
        ("1", "new value", True),
    ]
    assert "new value" in ok("repo", "history").out
    compared = ok("repo", "diff", told[2]["commit"], told[1]["commit"]).out
    assert compared == "~ secret stripe/key: version 1 -> 2 by owner, new value\n"
    ok("repo", "rollback", "stripe/key", "1")
    assert ok("repo", "get", "stripe/key").out == "first"
    (tmp_path / "stick").rename(tmp_path / "away")
    assert "are not in the history that is here" in ok("repo", "history", "stripe/key").err
