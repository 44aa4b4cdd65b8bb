"""Two clones that changed one vault: nothing is lost, and what both changed is chosen by somebody who may."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta

import pytest

from keyhole.core.errors import IntegrityError, InvalidRequest, NotFound, PolicyDenied
from keyhole.crypto import age
from keyhole.repo import changes
from keyhole.repo.checking import check
from keyhole.repo.members import Role
from keyhole.repo.merging import MEMBERS, compare, merge
from keyhole.repo.opened import verify
from keyhole.repo.sealing import Actor
from keyhole.repo.seen import Seen
from keyhole.repo.settling import Side
from keyhole.repo.tree import Tree
from repo.world import CANARY, Folder


class Pair:
    """One vault in two clones, and where they parted."""

    def __init__(self, tmp_path):
        self.ours = Folder.create(tmp_path)
        self.member = self.ours.add("ann", "a", "b", role=Role.MEMBER)
        self.agent = self.ours.add("coder", "a")
        self.ours.set("a/one", "one")
        self.ours.set("a/two", "two")
        self.synced()
        self._part(tmp_path)

    def synced(self):
        ours = self.ours.open()
        ours.seen.saw("git", *ours.state())
        ours.seen.store()

    def _part(self, tmp_path):
        for name in ("base", "theirs"):
            shutil.copytree(self.ours.root, tmp_path / name)
        self.base_root = tmp_path / "base"
        self.theirs = replace(
            self.ours, root=tmp_path / "theirs", home=tmp_path / "home2", now=self.ours.now + timedelta(minutes=1)
        )

    def sides(self):
        base = verify(Tree(self.base_root), Seen())
        ours = self.ours.open()
        return base, ours, verify(Tree(self.theirs.root), ours.seen.of_remote("git"))

    def merge(self, by=None, **chosen):
        base, ours, theirs = self.sides()
        who = by or self.ours.owner
        member = ours.require_members().of(who.recipient)
        actor = None if member is None else Actor(member, who, self.ours.now)
        change = self.ours.apply(merge(base, ours, theirs, actor, {n.replace("__", "/"): s for n, s in chosen.items()}))
        assert check(self.ours.open(), self.ours.now, self.ours.owner).errors == [
            f"{name} is due for a new value at its source ({self.ours.open().sidecar(name).due})" for name in change.due
        ]
        return change


@pytest.fixture
def pair(tmp_path):
    return Pair(tmp_path)


def test_changes_of_different_secrets_come_together(pair):
    pair.ours.set("a/one", "one-new")
    pair.theirs.set("a/two", "two-new", by=pair.member)
    pair.theirs.set("b/three", "three", by=pair.member)
    base, ours, theirs = pair.sides()
    found = compare(base, ours, theirs)
    assert (found.ours, found.theirs, found.clashes) == (["a/one"], ["a/two", "b/three"], [])
    pair.merge()
    assert [pair.ours.get(name) for name in ("a/one", "a/two", "b/three")] == ["one-new", "two-new", "three"]


def test_a_pure_advance_is_taken_byte_for_byte_without_a_key(pair):
    pair.theirs.set("a/two", "two-new")
    base, ours, theirs = pair.sides()
    change = merge(base, ours, theirs, None, {})
    assert all(theirs.tree.read(path) == data for path, data in change.files.items())


@pytest.mark.parametrize(("side", "value"), [(Side.OURS, "ours"), (Side.THEIRS, "theirs")])
def test_one_secret_that_both_changed_is_chosen_and_never_lost_in_silence(pair, side, value):
    pair.ours.set("a/one", "ours")
    pair.theirs.set("a/one", "theirs", by=pair.member)
    with pytest.raises(InvalidRequest, match=r"a/one.*by owner.*by ann") as caught:
        pair.merge()
    assert CANARY not in str(caught.value)
    pair.merge(a__one=side)
    assert pair.ours.get("a/one") == pair.ours.get("a/one", pair.agent) == value
    assert pair.ours.open().sidecar("a/one").version == 3


def test_a_removal_against_a_change_is_chosen(pair):
    pair.ours.do(changes.remove, "a/one")
    pair.theirs.set("a/one", "theirs")
    with pytest.raises(InvalidRequest, match="removed it"):
        pair.merge()
    pair.merge(a__one=Side.THEIRS)
    assert pair.ours.get("a/one") == "theirs"


def test_a_revocation_here_holds_for_what_was_written_there(pair):
    pair.ours.do(changes.revoke, "coder", "a")
    pair.theirs.set("a/new", "written there")
    assert pair.theirs.get("a/new", pair.agent) == "written there"
    change = pair.merge()
    assert "a/new" in change.due
    for name in ("a/one", "a/two", "a/new"):
        with pytest.raises(NotFound):
            pair.ours.get(name, pair.agent)


def test_a_newcomer_there_opens_what_was_written_here(pair):
    newcomer = pair.theirs.add("late", "a")
    pair.ours.set("a/new", "written here")
    pair.merge()
    assert pair.ours.get("a/new", newcomer) == "written here"
    assert pair.ours.get("a/one", newcomer) == "one"


def test_what_a_member_wrote_who_was_taken_out_is_signed_by_who_merges(pair):
    pair.ours.do(changes.take_out, "ann")
    pair.theirs.set("a/new", "by ann", by=pair.member)
    pair.merge()
    assert pair.ours.get("a/new") == "by ann"
    assert pair.ours.open().sidecar("a/new").signer == "owner"


def test_who_may_not_sign_cannot_merge_what_has_to_be_signed_again(pair):
    pair.theirs.add("late", "a")
    pair.ours.set("a/new", "written here")
    with pytest.raises(PolicyDenied):
        pair.merge(by=pair.agent)


def test_members_that_both_changed_are_chosen(pair):
    pair.ours.add("x", "a")
    late = pair.theirs.add("y", "a")
    with pytest.raises(InvalidRequest, match="members"):
        pair.merge()
    pair.merge(**{MEMBERS: Side.THEIRS})
    assert pair.ours.get("a/one", late) == "one"
    assert "x" not in pair.ours.open().require_members().members


def test_another_vault_is_not_merged(pair, tmp_path):
    (tmp_path / "other").mkdir()
    other = Folder.create(tmp_path / "other")
    with pytest.raises(IntegrityError):
        merge(None, pair.ours.open(), other.open(), None, {})


def test_an_attackers_side_is_refused_before_anything_is_taken(pair):
    thief = age.generate()
    pair.theirs.path("secrets/a/one.enc").write_bytes(age.encrypt(b"theirs", [thief.recipient]))
    pair.theirs.set("a/two", "two-new")
    base, ours, theirs = pair.sides()
    with pytest.raises(IntegrityError, match="a/one"):
        theirs.ciphertext("a/one")
    change = merge(base, ours, theirs, None, {})
    assert "secrets/a/one.enc" not in change.files


def test_a_remote_that_goes_back_behind_what_it_once_had_is_refused(pair):
    pair.theirs.set("a/two", "two-new")
    pair.merge()
    pair.synced()
    shutil.rmtree(pair.theirs.root)
    shutil.copytree(pair.base_root, pair.theirs.root)
    with pytest.raises(IntegrityError, match="old state"):
        pair.sides()


def test_a_merge_by_git_alone_is_named_with_the_way_out(pair):
    for name in (".x/members/000001.json", "manifest.yaml", ".x/secrets/a/one.json"):
        path = pair.ours.path(name)
        kept = path.read_text()
        path.write_text(f"<<<<<<< HEAD\n{kept}=======\n{kept}>>>>>>> 1234\n")
        with pytest.raises(IntegrityError) as refused:
            pair.ours.open()
        assert "git merge --abort" in refused.value.hint
        path.write_text(kept)
