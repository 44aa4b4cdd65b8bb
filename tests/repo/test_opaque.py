"""Vaults with opaque names: members see them as ever, and a copy of every byte tells nobody else one of them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta

import pytest

from keyhole.core.errors import IntegrityError, InternalError, InvalidRequest, NotFound, PolicyDenied
from keyhole.crypto import age
from keyhole.crypto.siv import KEY_SIZE
from keyhole.repo import changes
from keyhole.repo.adopting import adopt
from keyhole.repo.checking import check
from keyhole.repo.hidden import NAMES, Book, Kind, digest
from keyhole.repo.members import Role
from keyhole.repo.merging import MEMBERS, merge
from keyhole.repo.opened import verify
from keyhole.repo.sealing import Actor
from keyhole.repo.seen import Seen
from keyhole.repo.settling import Side
from keyhole.repo.tree import VAULT, Change, Tree
from repo.world import CANARY, Folder

NAMES_USED = (
    "wombat-payments",
    "quokka-ledger",
    "numbat.production",
    "dingo-signing-key",
    "echidna",
    "bilby",
    "ownerly",
)


class Opaque(Folder):
    @classmethod
    def create(cls, folder):
        world = cls(folder / "team", folder / "home")
        (world.root / VAULT).mkdir(parents=True)
        world.apply(changes.create(world.owner, "ownerly", opaque=True))
        return world

    def open(self, home=None, by=None):
        opened = super().open(home)
        opened.unlock(by or self.owner)
        return opened

    def locked(self):
        return super().open()


@pytest.fixture
def world(tmp_path):
    world = Opaque.create(tmp_path)
    world.agent = world.add("echidna", "wombat-payments")
    world.member = world.add("bilby", "wombat-payments", "numbat.production", role=Role.MEMBER)
    world.set("wombat-payments/quokka-ledger")
    world.set("numbat.production/dingo-signing-key", "another")
    return world


def texts_of(world):
    files = [path for path in sorted(world.root.rglob("*")) if path.is_file()]
    return b"\n".join(str(path.relative_to(world.root)).encode() + b"\n" + path.read_bytes() for path in files)


def test_no_name_is_in_any_path_or_byte(world):
    world.do(changes.revoke, "echidna", "wombat-payments")
    world.do(changes.remove, "numbat.production/dingo-signing-key")
    found = texts_of(world)
    assert [name for name in NAMES_USED if name.encode() in found] == []


def test_a_change_says_no_name_in_its_message_or_what_is_due(world):
    change = world.do(changes.revoke, "echidna", "wombat-payments")
    assert [name for name in NAMES_USED if name in f"{change.message} {change.due} {list(change.files)}"] == []
    assert world.open().shown(change.message) == "agent-vault: revoke wombat-payments from echidna"
    assert list(map(world.open().shown, change.due)) == ["wombat-payments/quokka-ledger"]


def test_who_is_granted_it_opens_it_by_its_name_and_by_its_id(world):
    for key in (world.owner, world.agent, world.member):
        assert world.get("wombat-payments/quokka-ledger", key) == CANARY
    stem = world.open().where("wombat-payments/quokka-ledger")
    assert world.get(stem, world.agent) == CANARY
    assert world.open().where(stem) == stem
    with pytest.raises(NotFound, match="not for this key"):
        world.get("numbat.production/dingo-signing-key", world.agent)


def test_every_member_sees_the_names_and_a_stranger_ids(world):
    stranger = age.generate()
    assert sorted(map(world.open(by=world.agent).shown, world.open().names())) == [
        "numbat.production/dingo-signing-key",
        "wombat-payments/quokka-ledger",
    ]
    opened = world.locked()
    opened.unlock(stranger)
    assert opened.book is None
    assert opened.shown(opened.names()[0]) == opened.names()[0]
    with pytest.raises(PolicyDenied, match="hidden"):
        opened.where("wombat-payments/quokka-ledger")
    with pytest.raises(PolicyDenied, match="nobody"):
        Actor.of(opened, stranger, world.now)


def test_everything_is_verified_without_a_key(world):
    assert check(world.locked(), world.now).errors == []
    path = world.path("secrets/" + world.open().where("wombat-payments/quokka-ledger") + ".enc")
    other = world.path("secrets/" + world.open().where("numbat.production/dingo-signing-key") + ".enc")
    path.write_bytes(other.read_bytes())
    [error] = check(world.locked(), world.now).errors
    assert "is not the file that" in error


def test_check_deep_finds_nothing_wrong(world):
    found = check(world.open(), world.now, world.owner)
    assert (found.errors, found.warnings) == ([], [])


def test_equal_names_in_two_groups_and_names_of_other_lengths_look_unrelated(world):
    world.set("numbat.production/quokka-ledger")
    world.set("numbat.production/q")
    ids = [world.open().where(f"{g}/quokka-ledger").split("/")[1] for g in ("numbat.production", "wombat-payments")]
    assert ids[0] != ids[1]
    lengths = {len(stem) for stem in world.open().names()}
    assert len(lengths) == 1


def test_a_long_name_has_an_id_too(world):
    name = "g" * 100 + "/" + "n" * 100
    world.set(name)
    assert world.get(name) == CANARY
    assert name in map(world.open().shown, world.open().names())


def test_who_is_taken_out_reads_no_name_that_comes_after(world):
    old = world.open(by=world.member)
    world.do(changes.take_out, "bilby")
    world.set("wombat-payments/bandicoot")
    world.set("numbat.production/dingo-signing-key", "newer")
    stem = world.open().where("wombat-payments/bandicoot")
    assert world.open(by=world.agent).shown(stem) == "wombat-payments/bandicoot"
    assert "bandicoot" not in old.shown(stem)
    assert old.book.stem("wombat-payments/bandicoot") != stem  # a guess shows nothing either
    assert old.shown(world.open().where("numbat.production/dingo-signing-key")).endswith("dingo-signing-key")
    again = world.locked()
    again.unlock(world.member)
    assert again.book is None


def test_what_was_removed_comes_back_at_its_place(world):
    stem = world.open().where("wombat-payments/quokka-ledger")
    world.do(changes.take_out, "bilby")
    world.do(changes.remove, "wombat-payments/quokka-ledger")
    world.set("wombat-payments/quokka-ledger", "again")
    assert world.open().where("wombat-payments/quokka-ledger") == stem
    assert world.open().sidecar(stem).version > 2


def test_keys_of_names_that_somebody_else_put_there_are_refused(world):
    everybody = world.open().members
    forged = Book(everybody.vault, [b"k" * KEY_SIZE]).seal([m.recipient for m in everybody.members.values()])
    world.path(NAMES).write_bytes(forged)
    with pytest.raises(IntegrityError, match="is not the file that the list of members says"):
        world.open()


def test_names_do_not_become_visible_by_a_new_list_of_members(world):
    opened = world.open()
    after = opened.members.changed(opened.digest, opaque=False, names="")
    path = ".x/members/000004.json"
    world.apply(Change("open it", {path: after.write([(opened.member(world.owner).name, world.owner.signing)])}))
    with pytest.raises(IntegrityError, match="whether names are hidden"):
        world.locked()


def test_a_name_is_never_written_in_clear_by_mistake(world):
    opened = world.open()
    everybody = opened.members
    someone = next(iter(everybody.members.values()))
    wrong = replace(everybody, members={**everybody.members, "plain": replace(someone, name="plain")})
    with pytest.raises(InternalError, match="in clear"):
        wrong.write([("x", world.owner.signing)])
    each = opened.sidecar("wombat-payments/quokka-ledger")
    with pytest.raises(InternalError, match="in clear"):
        replace(each, groups=("plain",)).write("x", world.owner.signing)


def test_an_id_that_is_none_of_this_vault_names_nothing_new(world):
    stem = world.open().where("wombat-payments/quokka-ledger")
    group, _, part = stem.partition("/")
    false = part[:-2] + ("AA" if part[-2:] != "AA" else "BB")
    with pytest.raises(InvalidRequest, match="no id of a secret here"):
        world.set(f"{group}/{false}")
    with pytest.raises(InvalidRequest, match="no id of a group here"):
        world.set(f"{part}/{part}")


def test_what_a_tool_of_the_format_wrote_in_clear_is_not_taken_over(world):
    stray = world.path("secrets/plain/name.enc")
    stray.parent.mkdir()
    stray.write_bytes(age.encrypt(b"x", [world.owner.recipient]))
    with pytest.raises(InvalidRequest, match="name in clear"):
        adopt(world.open(), world.owner, "owner", world.now)


class Pair:
    def __init__(self, world, tmp_path):
        self.ours = world
        for name in ("base", "theirs"):
            shutil.copytree(world.root, tmp_path / name)
        self.base = tmp_path / "base"
        home = tmp_path / "home2"
        self.theirs = replace(world, root=tmp_path / "theirs", home=home, now=world.now + timedelta(minutes=1))

    def merge(self, chosen=None):
        chosen = chosen or {}
        ours = self.ours.open()
        theirs = verify(Tree(self.theirs.root), ours.seen.of_remote("git"))
        actor = Actor.of(ours, self.ours.owner, self.ours.now)
        change = self.ours.apply(merge(verify(Tree(self.base), Seen()), ours, theirs, actor, chosen))
        found = check(self.ours.open(), self.ours.now, self.ours.owner)
        assert [error for error in found.errors if "due for a new value" not in error] == []
        return change


def test_two_clones_make_one_secret_of_one_new_name(world, tmp_path):
    pair = Pair(world, tmp_path)
    pair.ours.set("numbat.production/koala", "ours")
    pair.theirs.set("numbat.production/koala", "theirs")
    pair.theirs.set("wombat-payments/other", "only theirs")
    with pytest.raises(InvalidRequest, match="both sides changed the same"):
        pair.merge()
    pair.merge({"numbat.production/koala": Side.THEIRS})
    assert pair.ours.get("numbat.production/koala") == "theirs"
    assert pair.ours.get("wombat-payments/other") == "only theirs"
    assert len(pair.ours.open().names()) == 4


def test_names_of_both_sides_are_kept_when_both_took_somebody_out(world, tmp_path):
    pair = Pair(world, tmp_path)
    pair.ours.do(changes.take_out, "bilby")
    pair.ours.set("wombat-payments/made-here", "ours")
    pair.theirs.do(changes.take_out, "echidna")
    pair.theirs.set("wombat-payments/made-there", "theirs")
    with pytest.raises(InvalidRequest, match="members"):
        pair.merge()
    pair.merge({MEMBERS: Side.THEIRS})
    opened = pair.ours.open()
    assert {"wombat-payments/made-here", "wombat-payments/made-there"} <= set(map(opened.shown, opened.names()))
    assert pair.ours.get("wombat-payments/made-here") == "ours"
    assert pair.ours.get("wombat-payments/made-there") == "theirs"


def test_the_book_reads_what_it_wrote_and_nothing_of_another_vault():
    one, other = Book.create("a" * 32), Book.create("b" * 32)
    stem = one.stem("some.group/some-name")
    assert one.shown(f"error: secrets/{stem}.enc, {stem.split('/')[0]}!") == (
        "error: secrets/some.group/some-name.enc, some.group!"
    )
    assert other.shown(stem) == stem
    identity = age.generate()
    sealed = one.seal([identity.recipient])
    assert Book.open("a" * 32, sealed, identity).stem("some.group/some-name") == stem
    assert Book.open("b" * 32, sealed, identity).shown(stem) == stem  # bound to its vault
    host = one.hide(Kind.HOST, "api." + "x" * 200 + ".example")
    assert one.read(host).startswith("api.")
    assert digest(sealed) != digest(one.seal([identity.recipient]))
    with pytest.raises(IntegrityError):
        Book.open("a" * 32, age.encrypt(b'{"keys": []}', [identity.recipient]), identity)
