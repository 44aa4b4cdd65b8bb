"""Two people change the members at once, and one list is put in place of the other: by whom, and who believes it."""

import shutil

import pytest

from keyhole.core.errors import IntegrityError, PolicyDenied
from keyhole.crypto import age
from keyhole.repo import changes, signed
from keyhole.repo.joining import ASIDE, SIGNED_MEMBERS
from keyhole.repo.members import KIND, Role, read
from keyhole.repo.merging import MEMBERS, compare, merge
from keyhole.repo.opened import open_vault, verify
from keyhole.repo.ruling import give_role
from keyhole.repo.sealing import Actor
from keyhole.repo.seen import Seen
from keyhole.repo.settling import Side
from keyhole.repo.tree import Tree
from repo.world import Folder


class Hidden(Folder):
    """One with names that only members read."""

    def open(self, home=None):
        opened = super().open(home)
        opened.unlock(self.owner)
        return opened


class Clones:
    """One vault of two owners in three clones: ours and theirs change it, and others look on."""

    def __init__(self, tmp_path, *, opaque=False):
        self.place = tmp_path
        self.ours = Folder.create(tmp_path) if not opaque else Hidden(tmp_path / "team", tmp_path / "home")
        if opaque:
            self.ours.path("").mkdir(parents=True)
            self.ours.apply(changes.create(self.ours.owner, "owner", opaque=True))
        self.second = self.ours.add("second", role=Role.OWNER)
        self.member = self.ours.add("ann", "a", role=Role.MEMBER)
        self.ours.set("a/one", "one")
        self.base = self.copy("base")
        self.theirs = self.copy("theirs")

    def copy(self, name, of=None):
        """Another clone, on a machine that has seen what is there."""
        of = of or self.ours
        shutil.copytree(of.root, self.place / name / "team")
        made = type(of)(self.place / name / "team", self.place / name / "home", of.owner, of.now)
        made.open()
        return made

    def watcher(self, of, name):
        """What somebody has seen who has looked at a clone."""
        seen = Seen()
        opened = of.open()
        seen.vault, (seen.members, seen.secrets) = opened.require_members().vault, opened.state()
        return seen

    def merge(self, side, by=None):
        who = by or self.ours.owner
        base, ours, theirs = (verify(Tree(each.root), Seen()) for each in (self.base, self.ours, self.theirs))
        assert [clash.name for clash in compare(base, ours, theirs).clashes] == [MEMBERS]
        return self.ours.apply(merge(base, ours, theirs, Actor.of(ours, who, self.ours.now), {MEMBERS: side}))


@pytest.fixture
def clones(tmp_path):
    return Clones(tmp_path)


@pytest.mark.parametrize("opaque", [False, True])
@pytest.mark.parametrize("side", list(Side))
def test_who_has_seen_either_list_believes_the_one_that_an_owner_by_both_has_put_in_place(tmp_path, side, opaque):
    clones = Clones(tmp_path, opaque=opaque)
    clones.ours.add("x", "a")
    clones.theirs.add("y", "a")
    clones.theirs.add("z", "a", by=clones.second)
    seen = [clones.watcher(each, "w") for each in (clones.base, clones.ours, clones.theirs)]
    clones.merge(side)
    there = clones.ours.open()
    there.unlock(clones.ours.owner)
    names = {there.shown(name) for name in there.require_members().members}
    assert names == {"owner", "second", "ann", *({"x"} if side is Side.OURS else {"y", "z"})}
    clones.ours.add("late", "a", by=clones.second)
    for each in seen:
        opened = verify(Tree(clones.ours.root), each)
        opened.remember()
        assert opened.get("a/one", [clones.member], clones.ours.now).reveal() == b"one"
    ours, theirs = (verify(Tree(each.root), Seen()) for each in (clones.ours, clones.theirs))
    for here, there in ((ours, theirs), (theirs, ours)):
        found = compare(None, here, there)
        assert (found.clashes, found.members) == ([], Side.OURS if here is ours else Side.THEIRS)


def test_two_who_chose_differently_come_together_as_well(clones):
    clones.ours.add("x", "a")
    clones.theirs.add("y", "a")
    seen = [clones.watcher(clones.ours, "w"), clones.watcher(clones.theirs, "w")]
    before = clones.copy("before")
    clones.merge(Side.OURS)
    other = Clones.__new__(Clones)
    other.place, other.ours, other.theirs, other.base = clones.place, clones.theirs, before, clones.base
    other.ours.owner = clones.second
    other.merge(Side.OURS)
    seen += [clones.watcher(clones.ours, "w"), clones.watcher(clones.theirs, "w")]
    clones.merge(Side.THEIRS)
    for each in seen:
        assert "y" in verify(Tree(clones.ours.root), each).require_members().members


def test_an_owner_who_is_none_any_more_by_the_list_that_was_seen_puts_no_other_in_its_place(clones):
    clones.ours.do(give_role, "second", Role.READER)
    seen = clones.watcher(clones.ours, "w")
    clones.theirs.add("thief", "a", by=clones.second)
    ours, theirs = (verify(Tree(each.root), Seen()) for each in (clones.theirs, clones.ours))
    with pytest.raises(PolicyDenied, match="owns the vault by both"):
        merge(None, ours, theirs, Actor.of(ours, clones.second, clones.ours.now), {MEMBERS: Side.OURS})
    forged = _over(clones.theirs, clones.second, seen.members[1])
    for source in Tree(clones.ours.root).names(SIGNED_MEMBERS):
        data = clones.ours.path(f"{SIGNED_MEMBERS}/{source}").read_bytes()
        aside = clones.theirs.path(f"{ASIDE}/{signed.read(KIND, data, source).digest}.json")
        aside.parent.mkdir(exist_ok=True)
        aside.write_bytes(data)
    assert verify(Tree(clones.theirs.root), Seen()).require_members().over == forged.over
    with pytest.raises(IntegrityError, match="the list of members"):
        verify(Tree(clones.theirs.root), seen)


def _over(folder, identity, digest):
    """Put a document there that names another list as one that it takes the place of."""
    opened = folder.open()
    everybody = opened.require_members()
    after = everybody.changed(opened.digest, over=(digest,))
    signer = (everybody.of(identity.recipient).name, identity.signing)
    folder.path(f"{SIGNED_MEMBERS}/{after.version:06}.json").write_bytes(after.write([signer]))
    return after


def test_an_admin_a_member_and_a_stranger_put_no_list_in_place_of_another(clones):
    admin = clones.ours.add("boss", "a", role=Role.ADMIN)
    clones.theirs = clones.copy("theirs2")
    seen = clones.watcher(clones.ours, "w")
    clones.ours.add("x", "a")
    late = clones.watcher(clones.ours, "w")
    for who in (admin, clones.member, age.generate()):
        document = _forged(clones.theirs, who, late.members[1])
        with pytest.raises(IntegrityError):
            verify(Tree(clones.theirs.root), late)
        document.unlink()
    assert verify(Tree(clones.theirs.root), seen).require_members()
    clones.theirs.add("y", "a", by=admin)
    ours, theirs = (verify(Tree(each.root), Seen()) for each in (clones.theirs, clones.ours))
    with pytest.raises(PolicyDenied, match="owns the vault by both"):
        merge(None, ours, theirs, Actor.of(ours, admin, clones.ours.now), {MEMBERS: Side.OURS})


def _forged(folder, identity, digest):
    opened = folder.open()
    everybody = opened.require_members()
    member = everybody.of(identity.recipient)
    after = everybody.changed(opened.digest, over=(digest,))
    path = folder.path(f"{SIGNED_MEMBERS}/{after.version:06}.json")
    path.write_bytes(after.write([(member.name if member else "owner", identity.signing)]))
    return path


@pytest.mark.parametrize("what", ["gone", "changed", "not json"])
def test_without_what_stays_beside_the_chain_the_other_list_is_not_believed(clones, what):
    clones.ours.add("x", "a")
    clones.theirs.add("y", "a")
    seen = clones.watcher(clones.theirs, "w")
    clones.merge(Side.OURS)
    [kept] = clones.ours.path(ASIDE).iterdir()
    document = kept.read_text()
    assert read(signed.read(KIND, document.encode(), "x")).members.keys() >= {"y"}
    verify(Tree(clones.ours.root), seen)
    match what:
        case "gone":
            kept.unlink()
        case "changed":
            kept.write_text(document.replace('"y"', '"x"'))
        case _:
            kept.write_text("{")
    with pytest.raises(IntegrityError):
        verify(Tree(clones.ours.root), seen)


def test_a_machine_that_saw_the_other_list_takes_it_up_and_goes_on(clones):
    clones.ours.add("x", "a")
    clones.theirs.add("y", "a")
    clones.merge(Side.OURS)
    shutil.rmtree(clones.theirs.root)
    shutil.copytree(clones.ours.root, clones.theirs.root)
    assert open_vault(clones.theirs.root, clones.theirs.home).require_members().members.keys() >= {"x"}
    clones.theirs.add("late", "a")
    assert clones.theirs.get("a/one", clones.member) == "one"
