"""Who may do what in a repo vault: each role, every way in and out, and what is due afterwards."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keyhole.core.errors import IntegrityError, InvalidRequest, NotFound, PolicyDenied
from keyhole.crypto import age
from keyhole.repo import changes
from keyhole.repo.checking import check
from keyhole.repo.members import Role
from keyhole.repo.ruling import give_role, limit_hosts
from keyhole.repo.tree import Change
from repo.world import CANARY, Folder


@pytest.fixture
def world(tmp_path):
    world = Folder.create(tmp_path)
    world.admin = world.add("ada", "a", role=Role.ADMIN)
    world.member = world.add("ben", "a", role=Role.MEMBER)
    world.reader = world.add("cyd", "a", role=Role.READER)
    world.agent = world.add("bot", "a")
    world.set("a/one")
    world.set("b/two", "for owners")
    return world


def errors(world, deep=True):
    return check(world.open(), world.now, world.owner if deep else None).errors


@pytest.mark.parametrize("name", ["ada", "ben", "cyd", "bot"])
def test_whoever_leaves_cannot_open_the_new_state_and_what_it_read_is_due(world, name):
    key = {"ada": world.admin, "ben": world.member, "cyd": world.reader, "bot": world.agent}[name]
    assert world.get("a/one", key) == CANARY
    change = world.do(changes.take_out, name)
    assert change.due == ("a/one",)
    with pytest.raises(NotFound, match="not for this key"):
        world.get("a/one", key)
    assert errors(world) == [f"a/one is due for a new value at its source ({world.open().sidecar('a/one').due})"]
    world.set("a/one", "newer")
    assert errors(world) == []


def test_an_owner_who_leaves_could_read_all_and_the_keys_of_agents_too(world):
    second = world.add("eve", role=Role.OWNER)
    change = world.do(changes.take_out, "owner", by=second)
    assert change.due == ("a/one", "b/two")
    assert change.keys == ("bot",)
    found = check(world.open(), world.now, second).errors
    assert [error for error in found if "due for a new key" in error] == [
        "bot is due for a new key (owner was an owner, and could open it): keyhole repo recover-agent"
    ]
    world.do(changes.replace_key, "bot", age.generate(), by=second)
    assert "due for a new key" not in str(check(world.open(), world.now, second).errors)


def test_roles_are_given_by_owners_and_admins_within_their_own(world):
    world.do(give_role, "cyd", Role.MEMBER, by=world.admin)
    world.set("a/one", "by cyd", by=world.reader)
    for name, role in (("cyd", Role.ADMIN), ("cyd", Role.OWNER), ("owner", Role.READER), ("ada", Role.OWNER)):
        with pytest.raises(PolicyDenied):
            world.do(give_role, name, role, by=world.admin)
    for key in (world.member, world.reader, world.agent):
        with pytest.raises(PolicyDenied):
            world.do(give_role, "ben", Role.READER, by=key)
    world.do(give_role, "cyd", Role.OWNER)
    assert world.get("b/two", world.reader) == "for owners"
    escrow = world.path("agents/bot/private.key.escrow").read_bytes()
    assert age.decrypt(escrow, [world.reader]).decode() == world.agent.to_text()
    assert errors(world) == []


def test_a_demoted_owner_loses_what_it_is_not_granted_and_the_keys_of_agents_are_due(world):
    world.do(give_role, "ada", Role.OWNER)
    assert world.get("b/two", world.admin) == "for owners"
    change = world.do(give_role, "ada", Role.MEMBER)
    assert change.due == ("b/two",)
    assert change.keys == ("bot",)
    with pytest.raises(NotFound):
        world.get("b/two", world.admin)
    assert world.get("a/one", world.admin) == CANARY
    world.do(changes.replace_key, "bot", age.generate())
    world.set("a/one", "2", by=world.admin)
    world.set("b/two", "3")


def test_what_a_demoted_writer_wrote_is_signed_again_and_stays(world):
    world.set("a/mine", "by ben", by=world.member)
    world.do(changes.remove, "a/one", by=world.member)
    change = world.do(give_role, "ben", Role.READER)
    assert change.due == ()  # a reader can open it still
    assert world.open().sidecar("a/mine").signer == "owner"
    assert world.get("a/mine", world.member) == "by ben"
    with pytest.raises(PolicyDenied, match="may not write"):
        world.set("a/mine", "x", by=world.member)
    assert errors(world) == []


def test_an_admin_changes_only_what_is_granted_to_it(world):
    world.set("b/by-dan", "x", by=world.add("dan", "b", role=Role.MEMBER))
    with pytest.raises(PolicyDenied):
        world.do(give_role, "dan", Role.READER, by=world.admin)
    with pytest.raises(PolicyDenied, match="granted to admins"):
        world.do(changes.grant, "cyd", "b", by=world.admin)
    with pytest.raises(PolicyDenied, match="granted to admins"):
        world.do(changes.take_out, "dan", by=world.admin)
    with pytest.raises(PolicyDenied, match="granted to admins"):
        world.do(limit_hosts, "b", ["api.example.com"], by=world.admin)
    world.do(limit_hosts, "a", ["api.example.com"], by=world.admin)
    world.do(changes.revoke, "cyd", "a", by=world.admin)
    assert errors(world)[0].startswith("a/one is due")


def test_a_list_in_which_an_admin_grants_what_it_does_not_hold_is_refused_by_everybody(world):
    opened = world.open()
    people = dict(opened.members.members)
    people["cyd"] = replace(people["cyd"], groups=("a", "b"))
    after = opened.members.changed(opened.digest, members=people)
    path = f".x/members/{after.version:06}.json"
    world.apply(Change("x", {path: after.write([("ada", world.admin.signing)])}))
    with pytest.raises(IntegrityError, match="not signed by anybody who may"):
        world.open()


def test_nobody_takes_the_role_from_oneself_and_the_last_owner_stays(world):
    with pytest.raises(InvalidRequest, match="only owner"):
        world.do(give_role, "owner", Role.MEMBER)
    world.add("eve", role=Role.OWNER)
    for verb in (lambda o, a: give_role(o, a, "owner", Role.MEMBER), lambda o, a: changes.take_out(o, a, "owner")):
        with pytest.raises(PolicyDenied, match="oneself"):
            world.do(verb)


def test_what_cannot_be_a_role_is_said(world):
    for name, role in (("bot", Role.MEMBER), ("ben", Role.AGENT)):
        with pytest.raises(InvalidRequest, match="machine"):
            world.do(give_role, name, role)
    with pytest.raises(InvalidRequest, match="already"):
        world.do(give_role, "ben", Role.MEMBER)
    with pytest.raises(NotFound):
        world.do(give_role, "nobody", Role.MEMBER)
    silent = age.generate()
    world.apply(changes.add(world.open(), world.actor(), "mute", silent.recipient, role=Role.READER, groups=["a"]))
    with pytest.raises(InvalidRequest, match="signs what it writes"):
        world.do(give_role, "mute", Role.MEMBER)
    world.do(give_role, "mute", Role.MEMBER, silent.signing.public)
    world.set("a/one", "by mute", by=silent)


def test_hosts_are_hosts(world):
    world.do(limit_hosts, "a", ["API.Example.com", "*.example.net", "db.example.com:5432"])
    assert world.open().hosts("a/one") == (("*.example.net", "api.example.com", "db.example.com:5432"),)
    assert world.open().hosts("b/two") == ()
    for bad in ("https://api.example.com", "a b", "*", "api.example.com:0"):
        with pytest.raises(InvalidRequest):
            world.do(limit_hosts, "a", [bad])
    with pytest.raises(NotFound, match="no group"):
        world.do(limit_hosts, "none", ["api.example.com"])
    with pytest.raises(PolicyDenied):
        world.do(limit_hosts, "a", ["evil.example"], by=world.member)
    world.do(limit_hosts, "a", [])
    assert world.open().hosts("a/one") == ()
    with pytest.raises(NotFound, match="not limited"):
        world.do(limit_hosts, "a", [])


def forged(world, name, key, **changes):
    """A list of members that an admin signs by hand, in which one person is another."""
    opened = world.open()
    people = {**opened.members.members, name: replace(opened.members.members[name], **changes)}
    after = opened.members.changed(opened.digest, members=people)
    world.path(f".x/members/{after.version:06}.json").write_bytes(after.write([("ada", key.signing)]))


@pytest.mark.parametrize("what", ["recipient", "sign", "role"])
def test_an_admin_puts_no_key_of_its_own_in_place_of_that_of_a_reader_of_another_group(world, what):
    thief = age.generate()
    world.add("dan", "b", role=Role.READER)
    changed = {"recipient": thief.recipient, "sign": thief.signing.public, "role": Role.MEMBER}[what]
    forged(world, "dan", world.admin, **{what: changed})
    with pytest.raises(IntegrityError, match="not signed by anybody who may"):
        world.open()


def test_a_secret_is_not_sealed_for_a_name_that_has_another_key_than_when_it_was_added(world):
    thief, dan = age.generate(), world.add("dan", role=Role.READER)
    world.set("b/two", "one", also=["dan"])
    world.set("b/two", "two")
    assert world.get("b/two", dan) == "two"
    forged(world, "dan", world.admin, recipient=thief.recipient)  # dan is granted no group, so an admin may
    world.set("b/two", "three")
    with pytest.raises(NotFound, match="not for this key"):
        world.get("b/two", thief)
