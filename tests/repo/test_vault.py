"""Repo vaults: who is granted something opens it, nobody else does, and nobody can slip anything in."""

from __future__ import annotations

import json
import os
import shutil
from datetime import timedelta

import pytest

from keyhole.core.errors import Conflict, Expired, IntegrityError, InvalidRequest, KeyholeError, NotFound, PolicyDenied
from keyhole.core.value import Secret
from keyhole.crypto import age
from keyhole.repo import changes
from keyhole.repo.members import Role
from keyhole.repo.refusals import refusals
from keyhole.repo.tree import Change, Tree
from repo.world import CANARY, Folder


@pytest.fixture
def world(tmp_path):
    return Folder.create(tmp_path)


def every_byte(world):
    return b"".join(path.read_bytes() for path in sorted(world.root.rglob("*")) if path.is_file())


def test_an_owner_stores_and_a_granted_agent_opens(world):
    agent = world.add("coder", "stripe")
    world.set("stripe/key")
    assert world.get("stripe/key") == CANARY
    assert world.get("stripe/key", agent) == CANARY
    assert CANARY.encode() not in every_byte(world)


def test_an_agent_without_a_grant_opens_nothing(world):
    agent = world.add("coder", "other")
    world.set("stripe/key")
    with pytest.raises(NotFound, match="not for this key"):
        world.get("stripe/key", agent)


def test_a_grant_opens_what_is_there_already(world):
    agent = world.add("coder")
    world.set("stripe/key")
    change = world.do(changes.grant, "coder", "stripe")
    assert world.get("stripe/key", agent) == CANARY
    assert change.due == ()


def test_a_revoked_agent_opens_nothing_of_the_new_state_and_the_values_are_due(world):
    agent = world.add("coder", "stripe")
    world.set("stripe/key")
    world.set("stripe/hook")
    world.set("mail/key")
    change = world.do(changes.revoke, "coder", "stripe")
    assert change.due == ("stripe/hook", "stripe/key")
    for name in ("stripe/key", "stripe/hook"):
        with pytest.raises(NotFound):
            world.get(name, agent)
        assert world.open().sidecar(name).due
    world.set("stripe/key", "new-value-1")
    assert not world.open().sidecar("stripe/key").due
    assert world.open().sidecar("stripe/hook").due


def test_names_that_differ_only_in_capitals_are_refused_when_they_are_made(world):
    """They would be one file on many disks, and the second would take the place of the first."""
    world.set("stripe/key")
    world.add("coder", "stripe")
    for name in ("stripe/Key", "Stripe/other"):
        with pytest.raises(Conflict, match="stripe"):
            world.set(name)
    for name, group in (("Coder", "stripe"), ("other", "STRIPE")):
        with pytest.raises(Conflict, match="capitals"):
            world.add(name, group)
    both = {name: (Secret("x"), "") for name in ("a/one", "a/ONE")}
    with pytest.raises(Conflict, match="a/one"):
        changes.store_all(world.open(), world.actor(), both, "x")
    world.do(changes.remove, "stripe/key")
    with pytest.raises(Conflict, match="stripe/key"):  # the signed word of its removal is a file as well
        world.set("stripe/KEY")
    world.set("stripe/key")
    assert world.get("stripe/key")


def test_only_a_new_value_moves_the_time_of_rotation(world):
    world.set("stripe/key")
    before = world.open().meta("stripe/key")
    world.add("coder")
    world.do(changes.grant, "coder", "stripe")
    assert world.open().meta("stripe/key").rotated == before.rotated
    world.set("stripe/key", "another")
    after = world.open().meta("stripe/key")
    assert (after.created, after.rotated > before.rotated) == (before.created, True)


def test_a_member_who_is_taken_out_opens_nothing_and_what_he_wrote_stays(world):
    member = world.add("ann", "stripe", role=Role.MEMBER)
    world.set("stripe/key", "written-by-ann", by=member)
    change = world.do(changes.take_out, "ann")
    assert change.due == ("stripe/key",)
    assert world.get("stripe/key") == "written-by-ann"
    with pytest.raises(NotFound):
        world.get("stripe/key", member)
    with pytest.raises(PolicyDenied):
        world.actor(member)


def test_a_recovered_agent_has_a_new_key_and_the_old_one_opens_nothing(world):
    agent = world.add("coder", "stripe")
    world.set("stripe/key")
    fresh = age.generate()
    world.do(changes.replace_key, "coder", fresh)
    assert world.get("stripe/key", fresh) == CANARY
    with pytest.raises(NotFound):
        world.get("stripe/key", agent)
    escrow = world.path("agents/coder/private.key.escrow").read_bytes()
    assert age.decrypt(escrow, [world.owner]).decode() == fresh.to_text()


def test_a_second_owner_opens_everything_the_escrows_too(world):
    agent = world.add("coder", "stripe")
    world.set("stripe/key")
    second = world.add("deputy", role=Role.OWNER)
    assert world.get("stripe/key", second) == CANARY
    escrow = world.path("agents/coder/private.key.escrow").read_bytes()
    assert age.decrypt(escrow, [second]).decode() == agent.to_text()
    world.do(changes.take_out, "owner", by=second)
    with pytest.raises(NotFound):
        world.get("stripe/key")
    assert world.get("stripe/key", second) == CANARY


def test_the_last_owner_stays(world):
    with pytest.raises(InvalidRequest, match="only owner"):
        world.do(changes.take_out, "owner")


@pytest.mark.parametrize("role", [Role.READER, Role.AGENT])
def test_who_only_reads_writes_nothing(world, role):
    reader = world.add("ann", "stripe", role=role)
    with pytest.raises(PolicyDenied):
        world.set("stripe/key", by=reader)
    for verb in (changes.grant, changes.revoke):
        with pytest.raises(PolicyDenied):
            world.do(verb, "ann", "stripe", by=reader)


def test_a_member_writes_the_granted_groups_only(world):
    member = world.add("ann", "stripe", role=Role.MEMBER)
    world.set("stripe/key", by=member)
    world.set("mail/key")
    for name, more in (("mail/key", {}), ("mail/other", {}), ("stripe/key", {"groups": ("mail",)})):
        with pytest.raises(PolicyDenied):
            world.set(name, by=member, **more)


def test_an_admin_cannot_make_owners_or_admins(world):
    admin = world.add("ann", "stripe", role=Role.ADMIN)
    world.add("coder", "stripe", by=admin)
    for role in (Role.OWNER, Role.ADMIN):
        with pytest.raises(PolicyDenied):
            world.add("x", role=role, by=admin)
    with pytest.raises(PolicyDenied):
        world.do(changes.take_out, "owner", by=admin)


@pytest.mark.parametrize("name", ["coder", "owner"])
def test_names_and_keys_are_unique(world, name):
    agent = world.add("coder")
    with pytest.raises(Conflict):
        world.add(name)
    with pytest.raises(Conflict):
        world.do(changes.add, "another", agent.recipient)


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "a/../b",
        "a/b/c",
        "/a",
        "a/",
        ".a/b",
        "a/.b",
        "a b/c",
        "a/\u00e9",
        "",
        "a//b",
        "a\\b/c",
        "con/x",
        "a/b.",
        "a/x\n",
    ],
)
def test_names_cannot_lead_elsewhere(world, name):
    with pytest.raises(InvalidRequest):
        world.set(name)
    with pytest.raises(KeyholeError):
        world.get(name)


def test_a_name_without_a_group_is_in_default(world):
    world.set("key")
    assert world.get("key") == world.get("default/key") == CANARY


def test_what_has_expired_is_refused(world):
    world.set("stripe/key", expires=world.now + timedelta(days=1))
    assert world.get("stripe/key") == CANARY
    world.now += timedelta(days=2)
    with pytest.raises(Expired):
        world.get("stripe/key")


def test_a_date_that_has_passed_goes_with_the_value_that_it_was_for(world):
    world.set("stripe/key", expires=world.now + timedelta(days=1))
    world.now += timedelta(days=2)
    world.set("stripe/key", expires=None)
    with pytest.raises(Expired):
        world.get("stripe/key")  # nothing was changed at its source
    world.set("stripe/key", "a-new-value-0001")
    assert world.get("stripe/key") == "a-new-value-0001"
    world.set("stripe/key", expires=world.now + timedelta(days=1))
    world.set("stripe/key", "a-new-value-0002")
    world.now += timedelta(days=2)
    with pytest.raises(Expired):
        world.get("stripe/key")  # one that lay ahead stays
    world.do(changes.remove, "stripe/key")
    world.set("stripe/key", "a-new-value-0002")
    assert world.get("stripe/key") == "a-new-value-0002"
    world.set("stripe/key", expires=world.now + timedelta(days=1))
    world.set("stripe/key", expires=changes.NEVER)
    world.now += timedelta(days=2)
    assert world.get("stripe/key") == CANARY


def test_a_removed_secret_is_gone_and_may_come_again(world):
    world.set("stripe/key")
    world.do(changes.remove, "stripe/key")
    with pytest.raises(NotFound):
        world.get("stripe/key")
    assert world.open().names() == []
    world.set("stripe/key", "again")
    assert world.get("stripe/key") == "again"


# What somebody with the right to push could try.


def test_a_swapped_ciphertext_is_refused(world):
    world.set("a/one", "first")
    world.set("a/two", "second")
    shutil.copy(world.path("secrets/a/one.enc"), world.path("secrets/a/two.enc"))
    with pytest.raises(IntegrityError, match="a/two"):
        world.get("a/two")
    shutil.copy(world.path(".x/secrets/a/one.json"), world.path(".x/secrets/a/two.json"))
    with pytest.raises(IntegrityError):
        world.open()


def test_a_file_of_the_attackers_own_for_the_same_recipients_is_refused(world):
    world.set("a/one")
    world.path("secrets/a/one.enc").write_bytes(age.encrypt(b"theirs", [world.owner.recipient]))
    with pytest.raises(IntegrityError):
        world.get("a/one")


def test_an_old_state_is_refused_once_a_newer_was_seen(world, tmp_path):
    world.set("a/one", "old")
    shutil.copytree(world.root, tmp_path / "kept")
    world.set("a/one", "new")
    world.open()
    shutil.rmtree(world.root)
    shutil.copytree(tmp_path / "kept", world.root)
    with pytest.raises(IntegrityError, match="old state"):
        world.open()


def test_an_old_list_of_members_is_refused_once_a_newer_was_seen(world):
    world.add("coder", "a")
    world.set("a/one")
    world.do(changes.take_out, "coder")
    world.open()
    world.path(".x/members/000003.json").unlink()
    with pytest.raises(IntegrityError, match="version 2"):
        world.open()


def test_a_secret_that_vanishes_is_missed(world):
    world.set("a/one")
    world.open()
    world.path(".x/secrets/a/one.json").unlink()
    with pytest.raises(IntegrityError, match="gone"):
        world.open()


def test_signatures_that_vanish_are_missed(world):
    world.set("a/one")
    world.open()
    shutil.rmtree(world.path(".x"))
    with pytest.raises(IntegrityError, match="was signed"):
        world.open()


def forge(world, change):
    path = world.path(".x/members/000001.json")
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("fresh", [False, True])
def test_nobody_adds_a_recipient_without_a_signature(world, tmp_path, fresh):
    world.set("a/one")
    thief = age.generate()

    def add(document):
        document["content"]["members"].append(
            {"name": "x", "role": "reader", "recipient": thief.recipient.text, "sign": "", "groups": ["a"]}
        )

    forge(world, add)
    with pytest.raises(IntegrityError):
        world.open(tmp_path / "elsewhere" if fresh else None)


def test_a_list_of_members_of_the_attackers_own_is_another_vault(world, tmp_path):
    world.set("a/one")
    theirs = Folder(tmp_path / "theirs", tmp_path / "home2")
    (theirs.root / ".agent-vault").mkdir(parents=True)
    theirs.apply(changes.create(theirs.owner, "owner"))
    shutil.copytree(theirs.path(".x"), world.path(".x"), dirs_exist_ok=True)
    with pytest.raises(IntegrityError):
        world.open()


def test_a_replaced_public_key_changes_nothing(world):
    agent = world.add("coder", "a")
    thief = age.generate()
    for path in ("agents/coder/public.key", "owner.pub"):
        world.path(path).write_text(thief.recipient.text)
    world.set("a/one")
    assert world.get("a/one", agent) == CANARY
    with pytest.raises(NotFound):
        world.get("a/one", thief)


def test_a_reader_who_signs_a_secret_is_not_believed(world):
    reader = world.add("ann", "a", role=Role.READER)
    world.set("a/one")
    opened = world.open()
    document, before = opened.secrets["a/one"]
    ciphertext = age.encrypt(b"theirs", [world.owner.recipient])
    after = before.next(document.digest, ciphertext, before.recipients)
    world.path("secrets/a/one.enc").write_bytes(ciphertext)
    world.path(".x/secrets/a/one.json").write_bytes(after.write("ann", reader.signing))
    with pytest.raises(IntegrityError, match="nobody who may write"):
        world.open()


@pytest.mark.parametrize("where", ["secrets", "secrets/a", "secrets/a/one.enc", ".x/secrets/a/one.json", "config.yaml"])
def test_links_are_not_followed(world, tmp_path, where):
    world.set("a/one")
    path = world.path(where)
    moved = tmp_path / "moved"
    path.rename(moved)
    path.symlink_to(moved)
    with pytest.raises(IntegrityError):
        world.get("a/one")


# Crashes.


def test_a_change_that_is_cut_anywhere_is_carried_out_or_never_was(world, monkeypatch):
    """Each call of the system that changes something is cut once; what is left is the old state or the new one."""
    world.add("coder", "a")
    world.set("a/one", "before")
    calls = ("rename", "unlink", "rmdir", "mkdir")
    for cut in range(200):
        count = 0

        def breaking(original):
            def call(*args, **options):
                nonlocal count
                count += 1
                if count > cut:  # noqa: B023 - called within the loop
                    raise KeyboardInterrupt
                return original(*args, **options)

            return call

        change = changes.store(world.open(), world.actor(), "a/one", Secret(f"after-{cut}"))
        before = world.get("a/one")
        with monkeypatch.context() as patch:
            for name in calls:
                patch.setattr(os, name, breaking(getattr(os, name)))
            tree = Tree(world.root)
            try:
                with tree.lock():
                    tree.apply(change)
                    tree.finish()
            except KeyboardInterrupt:
                pass
            else:
                return
        with Tree(world.root).lock():
            pass
        assert world.get("a/one") in {before, f"after-{cut}"}
        Tree(world.root).finish()
    raise AssertionError("a change takes more calls than were cut")


def test_a_change_that_nobody_finished_says_so(world):
    tree = Tree(world.root)
    with tree.lock():
        tree.apply(Change("agent-vault: half", {"x": b"1"}))
    assert Tree(world.root).left() == Change("agent-vault: half", {"x": b"1"})
    tree.finish()
    assert Tree(world.root).left() is None


def test_an_agent_beside_the_groups_stays_when_the_groups_change(world):
    guest = world.add("guest")
    world.add("coder")
    world.set("a/one", also=("guest",))
    assert world.get("a/one", guest) == CANARY
    world.do(changes.grant, "coder", "a")
    world.set("a/one", "newer")
    assert world.get("a/one", guest) == "newer"
    assert set(world.open().meta("a/one").agents) == {"coder", "guest"}
    world.set("b/two", also=("coder",))
    world.do(changes.grant, "coder", "b")
    world.do(changes.revoke, "coder", "b")
    assert world.open().sidecar("b/two").also == ()
    assert world.do(changes.take_out, "guest").due == ("a/one",)
    with pytest.raises(NotFound):
        world.set("a/one", also=("nobody",))


def test_the_value_that_a_secret_has_is_no_new_one(world):
    """Storing it again changes nothing at its source: it stays due, and since when it is what it was."""
    world.set("stripe/key", "known")
    world.add("leaver", "stripe")
    world.do(changes.revoke, "leaver", "stripe")
    before = world.open().sidecar("stripe/key")
    assert world.set("stripe/key", "known").due == ("stripe/key",)
    after = world.open().sidecar("stripe/key")
    assert (after.due, after.rotated, after.version) == (before.due, before.rotated, before.version + 1)
    assert world.set("stripe/key", "fresh").due == ()
    after = world.open().sidecar("stripe/key")
    assert (after.due, after.rotated > before.rotated) == ("", True)


def test_the_same_value_in_another_group_is_due_for_who_reads_it_no_more(world):
    world.set("a/key", "known")
    world.add("reader", "a")
    assert world.set("a/key", "known", groups=["b"]).due == ("a/key",)
    assert world.open().sidecar("a/key").due == "set: it was readable before"


def test_many_secrets_are_stored_in_one_change_and_what_is_due_is_marked(tmp_path):
    folder = Folder.create(tmp_path)
    folder.set("stripe/api-key", "old-value-1")
    values = {"stripe/api-key": (Secret("new-value-1"), ""), "db/password": (Secret(CANARY), "lay in a plain file")}
    change = folder.apply(changes.store_all(folder.open(), folder.actor(), values, "agent-vault: import 2 secrets"))
    assert change.due == ("db/password",)
    opened = folder.open()
    assert [(name, opened.sidecar(name).version, opened.sidecar(name).due) for name in opened.names()] == [
        ("db/password", 1, "lay in a plain file"),
        ("stripe/api-key", 2, ""),
    ]
    assert (folder.get("stripe/api-key"), folder.get("db/password")) == ("new-value-1", CANARY)


@pytest.mark.parametrize("name", ["created", "rotated", "expires"])
def test_a_time_that_no_calendar_has_is_refused(world, name):
    world.set("a/one")
    path = world.path(".x/secrets/a/one.json")
    document = json.loads(path.read_text())
    document["content"][name] = "0001-01-01T00:00:00+23:59"
    path.write_text(json.dumps(document))
    with pytest.raises(IntegrityError, match="does not describe a secret"):
        world.open()


@pytest.mark.parametrize("line", ["rotated: 0001-01-01T00:00:00+23:59", "rotated: !!timestamp x", "rotated: !!int x"])
def test_the_formats_own_word_of_a_secret_may_be_anything_and_is_left_alone(world, line):
    world.set("a/one")
    shutil.rmtree(world.path(".x"))
    world.path("secrets/a/one.meta").write_text(f"name: a/one\ngroup: a\ncreated: 2026-01-01T00:00:00Z\n{line}\n")
    world.home = world.home.with_name("fresh")
    assert world.open().meta("a/one") is None


def test_a_file_in_place_of_another_is_refused_when_it_is_opened_and_that_is_on_record(world):
    world.set("a/one")
    world.set("a/two", "second")
    shutil.copy(world.path("secrets/a/two.enc"), world.path("secrets/a/one.enc"))
    opened = world.open()  # what is signed is genuine
    assert refusals(world.root, world.home) == []
    for _ in range(2):
        with pytest.raises(IntegrityError, match="a/one is not the file that owner wrote"):
            opened.get("a/one", [world.owner], world.now)
    assert [(each.where, each.reason) for each in refusals(world.root, world.home)] == [
        ("the folder", "a/one is not the file that owner wrote")
    ]


def test_a_reason_is_one_line_so_that_nobody_writes_lines_into_the_log_of_a_job(world):
    world.set("a/one", due="imported\n::error::x\x1b[31m")
    assert world.open().sidecar("a/one").due == "imported ::error::x [31m"
    path = world.path(".x/secrets/a/one.json")
    document = json.loads(path.read_text())
    document["content"]["due"] = "x\n::error::y"
    path.write_text(json.dumps(document))
    with pytest.raises(IntegrityError, match="does not describe a secret"):
        world.open()
