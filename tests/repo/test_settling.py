"""Two members who meet at two remotes in turns: each is asked once, what one has settled holds for all."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from campaigns.repo_meeting import World, tree
from keyhole.core.errors import IntegrityError, InvalidRequest
from keyhole.core.value import Secret
from keyhole.repo import changes, lineage, sidecar, signed
from keyhole.repo.lineage import MOST, Line, Lineage
from keyhole.repo.merging import compare, merge
from keyhole.repo.opened import signed_path, verify
from keyhole.repo.seen import Seen
from keyhole.repo.settling import Side, line

NAME = "a/first"


@pytest.fixture(scope="module")
def made():
    found = World(1)
    for clone, remote in ((found.owner, "one"), (found.ann, "two")):
        clone.do(changes.store, NAME, Secret(remote.encode()))
        clone.sync(remote)
    return found


@pytest.fixture
def world(made):
    """Both have set one secret, and pushed it to a remote each."""
    return made.copy()


def choose(clone, remote, side):
    ours = clone.open()
    theirs = verify(tree(clone.world.remotes[remote]), ours.seen.of_remote(remote))
    ours.seen.saw(remote, *theirs.state())
    base = verify(tree(clone.bases[remote]), Seen())
    with pytest.raises(InvalidRequest, match=NAME):
        merge(base, ours, theirs, None, {})
    clone.apply(merge(base, ours, theirs, clone.actor(ours), {NAME: side}))
    clone.note(remote, clone.world.remotes[remote])


def between(clone, other):
    return compare(None, clone.open(), verify(tree(other.files), Seen()))


def value(clone):
    return clone.open().get(NAME, [clone.key], clone.world.now).reveal().decode()


def test_what_one_has_chosen_is_later_than_both_and_asked_nowhere_again(world):
    choose(world.owner, "two", Side.THEIRS)
    assert value(world.owner) == "two"
    for clone in (world.owner, world.ann):
        for remote in ("one", "two"):
            clone.sync(remote)
    assert (world.asked, value(world.ann)) == (0, "two")


def test_two_who_choose_the_same_at_two_remotes_have_one_version_without_a_question(world):
    choose(world.owner, "two", Side.OURS)
    choose(world.ann, "one", Side.THEIRS)
    assert between(world.owner, world.ann).sealed == [NAME]
    world.owner.sync("one")
    world.ann.sync("two")
    assert world.meet() <= 2
    assert (world.asked, value(world.ann)) == (0, "one")
    assert world.owner.open().secrets[NAME][1].version == 3


def test_two_who_choose_differently_are_asked_once_more_and_then_the_later_value_counts(world):
    for _ in range(2):
        choose(world.owner, "two", Side.OURS)
        choose(world.ann, "one", Side.OURS)
        world.remotes = {"one": dict(world.owner.files), "two": dict(world.ann.files)}
    found = between(world.owner, world.ann)
    assert (found.settled, found.clashes) == ({NAME: Side.THEIRS}, [])
    assert between(world.ann, world.owner).settled == {NAME: Side.OURS}
    world.meet()
    assert (world.asked, value(world.owner)) == (0, "two")


def test_of_two_that_say_the_same_the_lower_digest_is_never_taken_back(world):
    choose(world.owner, "two", Side.OURS)
    choose(world.ann, "one", Side.THEIRS)
    lower, higher = sorted((world.owner, world.ann), key=lambda clone: clone.open().secrets[NAME][0].digest)
    verify(tree(lower.files), replace(higher.seen, members=(0, "")))
    with pytest.raises(IntegrityError, match="two different versions"):
        verify(tree(higher.files), lower.seen)


def test_a_version_that_brings_lines_together_is_not_taken_for_one_that_says_something_else(world):
    choose(world.owner, "two", Side.OURS)
    choose(world.ann, "one", Side.OURS)
    for one, other in ((world.owner, world.ann), (world.ann, world.owner)):
        with pytest.raises(IntegrityError, match="two different versions"):
            verify(tree(one.files), other.seen)


def test_a_side_that_is_chosen_knows_the_other_even_where_its_number_was_higher(world):
    world.ann.do(changes.store, NAME, Secret(b"newer"))
    world.ann.sync("two")
    before = line(world.owner.open().secrets[NAME])
    choose(world.owner, "two", Side.THEIRS)
    assert line(world.owner.open().secrets[NAME]).covers(before)


def test_what_is_due_on_one_side_stays_due_when_the_other_is_taken(world):
    world.owner.sync("two")
    world.ann.sync("two")
    world.owner.do(changes.revoke, "coder", "a")
    world.owner.sync("one")
    world.ann.do(changes.store, "a/second", Secret(b"x"))
    world.ann.sync("two")
    world.meet()
    assert "coder" in world.ann.open().sidecar(NAME).due


def test_a_document_without_the_lists_knows_the_version_before_it(world):
    first, second = ("1" * 64), ("2" * 64)
    older, newer = Line.of(1, first, "", Lineage()), Line.of(2, second, first, Lineage())
    assert newer.covers(older)
    assert not older.covers(newer)
    assert lineage.read({}) == Lineage()


def test_a_first_version_is_written_as_before_there_were_lists(world):
    world.ann.do(changes.store, "b/new", Secret(b"x"))
    document, _ = world.ann.open().secrets["b/new"]
    assert not {"after", "joins", "chosen"} & document.content.keys()


def test_the_lists_stay_short_and_have_the_latest():
    found, digest = Lineage(), ""
    for version in range(1, 100):
        previous, digest = digest, hashlib.sha256(b"%d" % version).hexdigest()
        found = Line.of(version, digest, previous, found).after()
    assert len(found.after) == MOST
    assert found.after[-1] == f"99:{digest}"


@pytest.mark.parametrize(
    "content",
    [
        {"after": ["1:x"]},
        {"after": "1:" + "1" * 64},
        {"joins": [f"{n}:{'1' * 64}" for n in range(1, 300)]},
        {"chosen": -1},
        {"chosen": True},
        {"joins": [["1", "2"]]},
    ],
)
def test_lists_that_are_none_are_refused(world, content):
    document = world.owner.open().secrets[NAME][0]
    bad = signed.Signed(sidecar.KIND, {**document.content, **content}, document.signatures, signed_path(NAME))
    with pytest.raises(IntegrityError, match="does not describe a secret"):
        sidecar.read(bad, NAME)
