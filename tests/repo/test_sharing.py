"""Records of reads that a team shares: signed, only added to, and missed when they are gone."""

from __future__ import annotations

import json

import pytest

from cli_driver import ok, run
from keyhole.core.errors import IntegrityError, PolicyDenied
from keyhole.crypto import age
from keyhole.repo import changes, reads, sharing
from keyhole.repo.checking import check
from keyhole.repo.members import Role
from repo.test_sync import Team, git
from repo.world import CANARY, Folder


@pytest.fixture
def team(tmp_path):
    world = Folder.create(tmp_path)
    world.set("stripe/key")
    world.coder = world.add("coder", "stripe")
    return world


def read(team, who, times=1):
    for _ in range(times):
        reads.release(team.open(), who, "stripe/key", how="get", environ={}, now=team.now)


def share(team, who=None):
    change = sharing.share(team.open(), team.actor(who))
    return None if change is None else team.apply(change)


def files(team):
    return sorted(team.path(".x/reads").rglob("*.json"))


def test_what_was_read_is_shared_once_and_goes_on(team, monkeypatch):
    monkeypatch.setattr(sharing, "MOST", 2)
    read(team, team.coder, 3)
    assert len(share(team).files) == 2
    assert share(team) is None
    read(team, team.owner)
    share(team)
    found = list(sharing.all_shared(team.open()))
    assert [(each.number, each.by, len(each.records)) for each in found] == [
        (1, "owner", 2),
        (2, "owner", 1),
        (3, "owner", 1),
    ]
    assert [one.who for each in found for one in each.records] == ["coder", "coder", "coder", "owner"]
    assert check(team.open(), team.now).errors == []
    assert all(CANARY.encode() not in path.read_bytes() for path in files(team))


def test_another_machine_shows_it_and_has_its_own(team, tmp_path):
    read(team, team.coder)
    share(team)
    team.home = tmp_path / "another"
    assert [one.who for each in sharing.all_shared(team.open()) for one in each.records] == ["coder"]
    read(team, team.owner)
    share(team, team.coder)
    assert len({path.parent for path in files(team)}) == 2
    assert check(team.open(), team.now).errors == []


def change_a_record(team):
    path = files(team)[0]
    document = json.loads(path.read_text())
    document["content"]["records"][0]["content"]["secret"] = "stripe/other"
    path.write_text(json.dumps(document))


def sign_as_a_stranger(team):
    path = files(team)[0]
    content = json.loads(path.read_text())["content"]
    path.write_bytes(sharing.signed.write(sharing.KIND, content, [("owner", age.generate().signing)]))


def say_that_another_read_it(team):
    """A member who shares cannot put a read into another's mouth as if that one had signed it."""
    path = files(team)[0]
    content = json.loads(path.read_text())["content"]
    record = content["records"][0]
    record["content"]["who"] = "owner"
    record["signatures"] = {"owner": record["signatures"].pop("coder")}
    path.write_bytes(sharing.signed.write(sharing.KIND, content, [("owner", team.owner.signing)]))


def cut_the_end(team):
    files(team)[-1].unlink()


def cut_the_start(team):
    files(team)[0].unlink()


def cut_all(team):
    for path in files(team):
        path.unlink()


def write_another_end(team):
    """Whoever may share writes a shorter record anew, genuinely signed."""
    cut_the_end(team)
    read(team, team.coder)
    share(team)


HARMS = [
    change_a_record,
    sign_as_a_stranger,
    say_that_another_read_it,
    cut_the_end,
    cut_the_start,
    cut_all,
    write_another_end,
]


@pytest.mark.parametrize("harm", HARMS)
def test_who_has_seen_records_notices_what_was_changed_or_cut(team, harm):
    read(team, team.coder)
    share(team)
    read(team, team.coder)
    share(team)
    assert check(team.open(), team.now).errors == []
    harm(team)
    errors = check(team.open(), team.now).errors
    assert len(errors) == 1, errors
    assert "read" in errors[0]


def test_a_state_from_elsewhere_that_lacks_a_record_is_refused(team, tmp_path):
    read(team, team.coder)
    share(team)
    later = Folder(tmp_path / "team", tmp_path / "other", team.owner)
    before = later.open().tree
    kept = {path: before.read(path) for path in (f"{sharing.SHARED}/{p.parent.name}/{p.name}" for p in files(team))}

    class Lacking:
        def read(self, path):
            return None if path in kept else before.read(path)

    sharing.require_kept(before, before)
    with pytest.raises(IntegrityError, match="taken away"):
        sharing.require_kept(before, Lacking())


def test_a_record_that_was_shared_and_is_another_now_is_not_shared_further(team):
    read(team, team.coder, 2)
    share(team)
    path = reads.path_of(team.open())
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(IntegrityError):
        share(team)


def test_who_signs_nothing_shares_nothing(team):
    ben = age.generate()
    team.apply(changes.add(team.open(), team.actor(), "ben", ben.recipient, role=Role.READER, groups=("stripe",)))
    read(team, ben)
    with pytest.raises(PolicyDenied):
        share(team, ben)
    share(team)
    (found,) = [one for each in sharing.all_shared(team.open()) for one in each.records]
    assert (found.who, found.is_signed([team.open().require_members()])) == ("ben", False)


def test_as_it_is_typed(team, tmp_path, monkeypatch):
    monkeypatch.setenv("KEYHOLE_HOME", str(team.home))
    key = tmp_path / "owner.key"
    key.touch(0o600)
    key.write_text(team.owner.to_text())
    monkeypatch.setenv("KEYHOLE_REPO_KEY", str(key))
    monkeypatch.chdir(team.root)
    assert ok("repo", "get", "stripe/key").out == CANARY
    assert ok("repo", "reads", "share", "--always", "--json").json == {"always": True, "files": 1}
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "another"))
    (found,) = ok("repo", "reads", "stripe/key", "--json").json
    assert (found["who"], found["shared_by"], found["signed"]) == ("owner", "owner", True)
    assert run("repo", "reads", "--always").code == 3
    cut_all(team)
    assert run("repo", "reads", "--verify").code == 1


def test_two_clones_share_with_each_push_and_none_can_be_taken_away(tmp_path, monkeypatch):
    team = Team(tmp_path, monkeypatch)
    for who in ("owner", "ann"):
        team.as_(who)
        assert ok("repo", "get", "a/one").out == "one"
        ok("repo", "reads", "share", "--always")
        assert run("repo", "push").code == (0 if who == "owner" else 2)  # ann has to pull first
    ok("repo", "pull")
    ok("repo", "push")
    folder = team.as_("owner")
    ok("repo", "pull")
    assert sorted(each["who"] for each in ok("repo", "reads", "--json").json) == ["ann", "owner"]
    thief = tmp_path / "thief"
    git(tmp_path, "clone", "-q", team.remote, thief)
    git(thief, "rm", "-q", "-r", ".agent-vault/.x/reads")
    git(thief, "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "x")
    git(thief, "push", "-q")
    before = git(folder, "rev-parse", "HEAD")
    ran = run("repo", "pull")
    assert ran.code == 2
    assert "a record of who has read what, was changed or taken away" in ran.err
    assert git(folder, "rev-parse", "HEAD") == before
