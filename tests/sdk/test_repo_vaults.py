"""The TypeScript SDK opens what the Python SDK opens, refuses what it refuses, and says the same of it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import shutil
import stat
import subprocess
import time
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

import cli_driver
from children import child
from keyhole.client.repo import RepoVault
from keyhole.core.errors import IntegrityError, KeyholeError
from keyhole.crypto import age
from keyhole.repo import changes, keys, signed
from keyhole.repo.documents import CONFIG
from keyhole.repo.hidden import NAMES, Book
from keyhole.repo.joining import SIGNED_MEMBERS
from keyhole.repo.members import Role
from keyhole.repo.merging import MEMBERS, merge
from keyhole.repo.opened import verify
from keyhole.repo.refusals import refusals
from keyhole.repo.ruling import give_role
from keyhole.repo.sealing import Actor
from keyhole.repo.seen import Seen
from keyhole.repo.settling import Side
from keyhole.repo.tree import VAULT, Tree
from repo import plugin_double
from repo.test_adopt import MANIFEST, META
from repo.test_opaque import Opaque
from repo.world import CANARY, START, Folder
from sdk import built

CASES = {}


def case(make):
    """A vault to be opened; the function gives the folder, and may name the key and the secrets."""
    CASES[make.__name__] = make
    return make


@dataclass
class Asked:
    root: Path | str
    key: str | None
    names: list[str] = field(default_factory=lambda: ["a/one"])
    env: dict[str, str] = field(default_factory=dict)


def owned(world, *names):
    return Asked(world.root, world.owner.to_text(), list(names) or ["a/one"])


def write(world, path, data):
    file = world.path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


def document(world, path, change):
    """A signed document with something else in it; nobody signs that."""
    file = world.path(path)
    found = json.loads(file.read_text())
    change(found["content"])
    file.write_text(json.dumps(found))


@case
def every_kind_of_member_and_secret(world):
    for name, role in (("ann", Role.ADMIN), ("bob", Role.MEMBER), ("rea", Role.READER)):
        world.add(name, "a", role=role)
    agent = world.add("coder", "a", "b.live")
    world.set("b.live/two", "line\nline \u00fc \U0001f511\n")
    world.set("plain", "x", expires=START + timedelta(days=100_000))
    world.set("old/one", "x", expires=START + timedelta(days=1))
    world.set("gone/one")
    world.do(changes.remove, "gone/one")
    world.do(changes.revoke, "coder", "a")
    return Asked(world.root, agent.to_text(), ["a/one", "b.live/two", "plain", "old/one", "gone/one", "../x", "a b"])


@case
def names_that_sort_differently_by_utf_16(world):
    world.set("a/one", "v" * 65_537)
    world.set("a/_", "")
    world.set("a/Z", "\ufeffwith a mark\x00")
    return owned(world, "a/one", "a/_", "a/Z", "_/none")


@case
def a_second_owner_whom_an_old_one_made(world):
    second = world.add("deputy", role=Role.OWNER)
    world.do(changes.take_out, "owner", by=second)
    return Asked(world.root, second.to_text())


@case
def a_format_without_signatures(world):
    shutil.rmtree(world.root)
    agent = age.generate()
    everybody = [world.owner.recipient, agent.recipient]
    for path, data in {
        "config.yaml": CONFIG.encode(),
        "manifest.yaml": MANIFEST,
        "secrets/stripe/key.enc": age.encrypt(CANARY.encode(), everybody),
        "secrets/stripe/key.meta": META,
        "secrets/stripe/dated.enc": age.encrypt(b"x", everybody),
        "secrets/stripe/dated.meta": META.replace(b"stripe/key", b"stripe/dated") + b"expires: 2020-01-01\n",
        "secrets/stripe/odd.enc": age.encrypt(b"x", everybody),
        "secrets/stripe/odd.meta": b"- no\n- meta",
        "secrets/stripe/.hidden.enc": b"",
        "secrets/stripe/con.enc": b"",
    }.items():
        write(world, path, data)
    return Asked(world.root, agent.to_text(), ["stripe/key", "stripe/dated", "stripe/odd", "stripe/none"])


def of_a_manifest(text):
    def make(world):
        shutil.rmtree(world.path(".x"))
        write(world, "manifest.yaml", text)
        return owned(world)

    return make


for number, text in enumerate(
    (
        b"agents: [{name: coder, groups: [a]}",
        b"agents: &a [{name: coder, groups: []}]\ngroups: *a\n",
        b"agents: []\nagents: []\n",
        b"- a list\n",
        b"agents: [{name: ../x, groups: []}]\n",
        b"agents: [{groups: []}]\n",
        b"groups: [{name: a, secrets: {}}]\n",
        b"owners: !!python/object:os.system {}\n",
        b"{? [a, b] : c}\n",
        b"\xff\xfe",
        b"agents:\ngroups:\nowners: ~\n",
        b"agents: " + b"[" * 200,
        b"<<<<<<< ours\nversion: 1\n=======\nversion: 2\n>>>>>>> theirs\n",
    )
):
    CASES[f"manifest {number}"] = of_a_manifest(text)


@case
def another_format(world):
    write(world, "config.yaml", b"version: 2\nencryption:\n  format: age\n")
    return owned(world)


@case
def keys_in_a_home_that_is_no_vault(world):
    shutil.rmtree(world.root / VAULT)
    (world.root / VAULT / "agents").mkdir(parents=True)
    return owned(world)


@case
def no_vault(world):
    shutil.rmtree(world.root / VAULT)
    return owned(world)


@case
def a_key_of_nobody(world):
    return Asked(world.root, age.generate().to_text())


@case
def a_key_that_is_none(world):
    return Asked(world.root, "AGE-SECRET-KEY-1" + "Q" * 58)


@case
def no_key(world):
    return Asked(world.root, None)


def key_file(world, mode=0o600, text=None):
    file = world.root / "the.key"
    file.write_text(text if text is not None else f"# of the owner\n{world.owner.to_text()}\n")
    file.chmod(mode)
    return file


@case
def a_key_file(world):
    return Asked(world.root, None, env={"KEYHOLE_REPO_KEY": str(key_file(world))})


@case
def a_key_in_a_variable(world):
    return Asked(world.root / VAULT, None, env={"AGENT_VAULT_KEY": world.owner.to_text()})


@case
def the_usual_key_file(world):
    keys.write(world.root / ".agent-vault" / "owner.key", world.owner)
    return Asked(world.root, None, env={"HOME": str(world.root)})


@case
def a_key_file_that_others_read(world):
    return Asked(world.root, None, env={"KEYHOLE_REPO_KEY": str(key_file(world, 0o640))})


@case
def a_key_file_without_a_key(world):
    return Asked(world.root, None, env={"KEYHOLE_REPO_KEY": str(key_file(world, text="nothing"))})


@case
def a_key_file_that_is_not_there(world):
    return Asked(world.root, None, env={"KEYHOLE_REPO_KEY": str(world.root / "none.key")})


@case
def swapped_ciphertexts(world):
    world.set("a/two", "second")
    shutil.copy(world.path("secrets/a/one.enc"), world.path("secrets/a/two.enc"))
    return owned(world, "a/one", "a/two")


@case
def swapped_sidecars(world):
    world.set("a/two", "second")
    shutil.copy(world.path(".x/secrets/a/one.json"), world.path(".x/secrets/a/two.json"))
    return owned(world)


@case
def a_ciphertext_of_the_attackers_own(world):
    write(world, "secrets/a/one.enc", age.encrypt(b"theirs", [world.owner.recipient]))
    return owned(world)


@case
def a_ciphertext_that_is_missing(world):
    world.path("secrets/a/one.enc").unlink()
    return owned(world)


@case
def an_old_state(world):
    shutil.copytree(world.root, world.root.with_name("kept"))
    world.set("a/one", "new")
    world.open()
    shutil.rmtree(world.root)
    world.root.with_name("kept").rename(world.root)
    return owned(world)


@case
def an_old_list_of_members(world):
    world.add("coder", "a")
    world.do(changes.take_out, "coder")
    world.open()
    last = max(world.path(".x/members").iterdir())
    last.unlink()
    return owned(world)


def members_in_two_lists(world, by=None):
    """Seen with one list of members; another one, which an owner has put in its place, lies there."""
    second = world.add("second", role=Role.OWNER)
    shutil.copytree(world.root, world.root.with_name("kept"))
    elsewhere = Folder(world.root.with_name("kept"), world.root.with_name("elsewhere"), world.owner, world.now)
    elsewhere.add("x", "a")
    elsewhere.add("y", "a")
    if by is None:
        world.add("z", "a")
    else:
        world.do(give_role, "second", Role.READER)
    world.open()
    ours, theirs = (verify(Tree(each.root), Seen()) for each in (elsewhere, world))
    actor = Actor.of(ours, world.owner, world.now)
    change = merge(None, ours, theirs, actor, {MEMBERS: Side.OURS})
    if by is not None:
        last = max(path for path in change.files if path.startswith(SIGNED_MEMBERS))
        content = json.loads(change.files[last])["content"]
        change.files[last] = signed.write("members", content, [("second", second.signing)])
    elsewhere.apply(change)
    shutil.rmtree(world.root)
    elsewhere.root.rename(world.root)
    return owned(world)


@case
def a_list_of_members_in_place_of_the_one_that_was_seen(world):
    return members_in_two_lists(world)


@case
def a_list_in_place_of_the_one_that_was_seen_by_an_owner_who_is_none_any_more(world):
    return members_in_two_lists(world, by="second")


@case
def a_list_in_place_of_another_without_what_lies_beside_it(world):
    asked = members_in_two_lists(world)
    shutil.rmtree(world.path(".x/aside"))
    return asked


@case
def another_document_of_the_same_version(world):
    shutil.copytree(world.root, world.root.with_name("kept"))
    world.set("a/one", "new")
    world.open()
    shutil.rmtree(world.root)
    world.root.with_name("kept").rename(world.root)
    elsewhere = Folder(world.root, world.root.with_name("elsewhere"), world.owner, world.now)
    elsewhere.set("a/one", "also new")
    return owned(world)


@case
def a_secret_that_vanished(world):
    world.open()
    world.path(".x/secrets/a/one.json").unlink()
    return owned(world)


@case
def signatures_that_vanished(world):
    world.open()
    shutil.rmtree(world.path(".x"))
    return owned(world)


@case
def a_list_of_members_of_the_attackers_own(world):
    world.open()
    theirs = Folder(world.root.with_name("theirs"), world.root.with_name("theirs-home"))
    (theirs.root / VAULT).mkdir(parents=True)
    theirs.apply(changes.create(theirs.owner, "owner"))
    shutil.rmtree(world.path(".x"))
    shutil.copytree(theirs.path(".x"), world.path(".x"))
    return owned(world)


@case
def a_recipient_whom_nobody_signed(world):
    thief = {"name": "x", "role": "reader", "recipient": age.generate().recipient.text, "sign": "", "groups": ["a"]}
    document(world, ".x/members/000001.json", lambda content: content["members"].append(thief))
    return owned(world)


@case
def a_gap_in_the_members(world):
    world.add("coder", "a")
    world.add("other", "a")
    world.path(".x/members/000002.json").unlink()
    return owned(world)


@case
def members_whom_a_member_signed(world):
    member = world.add("bob", "a", role=Role.MEMBER)
    opened = world.open()
    before = opened.require_members()
    after = before.changed(opened.digest, members={**before.members, "bob": before.members["owner"]})
    write(world, ".x/members/000003.json", after.write([("bob", member.signing)]))
    return owned(world)


@case
def an_admin_who_makes_himself_an_owner(world):
    admin = world.add("ann", "a", role=Role.ADMIN)
    opened = world.open()
    before = opened.require_members()
    ann = replace(before.members["ann"], role=Role.OWNER)
    after = before.changed(opened.digest, members={**before.members, "ann": ann})
    write(world, ".x/members/000003.json", after.write([("ann", admin.signing)]))
    return owned(world)


@case
def a_reader_who_signs_a_secret(world):
    reader = world.add("rea", "a", role=Role.READER)
    found, before = world.open().secrets["a/one"]
    ciphertext = age.encrypt(b"theirs", [world.owner.recipient])
    write(world, "secrets/a/one.enc", ciphertext)
    after = before.next(found.digest, ciphertext, before.recipients)
    write(world, ".x/secrets/a/one.json", after.write("rea", reader.signing))
    return owned(world)


@case
def an_admin_who_grants_what_he_cannot_open(world):
    admin = world.add("ann", "a", role=Role.ADMIN)
    world.add("coder")
    opened = world.open()
    before = opened.require_members()
    coder = replace(before.members["coder"], groups=("b",))
    after = before.changed(opened.digest, members={**before.members, "coder": coder})
    write(world, ".x/members/000004.json", after.write([("ann", admin.signing)]))
    return owned(world)


@case
def an_admin_who_puts_a_key_of_his_own_in_place_of_another(world):
    admin = world.add("ann", "a", role=Role.ADMIN)
    world.add("ben", "b", role=Role.READER)
    opened = world.open()
    ben = replace(opened.members.members["ben"], recipient=age.generate().recipient)
    after = opened.members.changed(opened.digest, members={**opened.members.members, "ben": ben})
    write(world, ".x/members/000004.json", after.write([("ann", admin.signing)]))
    return owned(world)


@case
def an_admin_who_lets_a_group_go_to_other_hosts(world):
    admin = world.add("ann", "a", role=Role.ADMIN)
    opened = world.open()
    after = opened.require_members().changed(opened.digest, hosts={"b": ("evil.example",)})
    write(world, ".x/members/000003.json", after.write([("ann", admin.signing)]))
    return owned(world)


@case
def an_admin_who_changes_what_is_his(world):
    admin = world.add("ann", "a", role=Role.ADMIN)
    world.add("coder", "a", by=admin)
    return owned(world)


def hiding(world):
    """The same folder with a vault that hides its names."""
    shutil.rmtree(world.root)
    hidden = Opaque(world.root, world.home, world.owner, world.now)
    kept = world.root.parents[1] / "hidden"
    if kept.exists():
        shutil.copytree(kept, world.root)
        return hidden
    (hidden.root / VAULT).mkdir(parents=True)
    hidden.apply(changes.create(hidden.owner, "owner", opaque=True))
    hidden.add("coder", "a", "b.live")
    hidden.set("a/one")
    hidden.set("b.live/two", "second")
    shutil.copytree(world.root, kept)
    return hidden


@case
def hidden_names_for_their_owner(world):
    hidden = hiding(world)
    hidden.set("a/" + "long-name" * 10)
    hidden.do(changes.revoke, "coder", "a")
    return owned(hidden, "a/one", "a/" + "long-name" * 10, "b.live/two")


@case
def hidden_names_for_an_agent_under_several_keys(world):
    hidden = hiding(world)
    other = hidden.add("other", "b.live")
    hidden.do(changes.take_out, "coder")
    hidden.set("b.live/three", "third")
    return Asked(hidden.root, other.to_text(), ["b.live/two", "b.live/three", "a/one"])


@case
def hidden_names_for_a_stranger(world):
    hidden = hiding(world)
    [stem, *_] = hidden.locked().names()
    return Asked(hidden.root, age.generate().to_text(), ["a/one", stem])


@case
def keys_of_names_that_somebody_replaced(world):
    hidden = hiding(world)
    write(hidden, NAMES, Book.create("x").seal([hidden.owner.recipient]))
    return owned(hidden)


@case
def a_vault_that_stops_hiding_its_names(world):
    hidden = hiding(world)
    opened = hidden.open()
    after = opened.require_members().changed(opened.digest, opaque=False)
    write(hidden, f".x/members/{after.version:06}.json", after.write([(after.owners[0].name, hidden.owner.signing)]))
    return owned(hidden)


@case
def recipients_of_every_kind(world):
    rsa = "ssh-rsa " + base64.b64encode(b"\0\0\0\7ssh-rsa\0\0\0\3\1\0\1\0\0\1\1\0" + b"\xf1" * 256).decode()
    ed = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + bytes(range(32))).decode()
    for name, text in (("rsa", rsa), ("ed", ed), ("key", plugin_double.make_key(b"x" * 32)[0])):
        world.apply(changes.add(world.open(), world.actor(), name, age.parse_recipient(text), role=Role.READER))
    return owned(world)


def of_content(where, change):
    def make(world):
        path = {"members": ".x/members/000001.json", "secret": ".x/secrets/a/one.json"}[where]
        document(world, path, change)
        return owned(world)

    return make


for name, (where, change) in {
    "members without a role": ("members", lambda c: c["members"][0].pop("role")),
    "members with an odd role": ("members", lambda c: c["members"][0].update(role="king")),
    "members without an owner": ("members", lambda c: c["members"][0].update(role="reader")),
    "members twice": ("members", lambda c: c["members"].append(c["members"][0])),
    "members who are no list": ("members", lambda c: c.update(members="none")),
    "members with hosts that are none": ("members", lambda c: c.update(hosts=[])),
    "members of version two": ("members", lambda c: c.update(version=2)),
    "a secret without groups": ("secret", lambda c: c.pop("groups")),
    "a secret with an odd time": ("secret", lambda c: c.update(created="yesterday")),
    "a secret with a name that leads elsewhere": ("secret", lambda c: c.update(secret="../../x")),
    "a secret of another name": ("secret", lambda c: c.update(secret="a/two")),
    "a secret by nobody": ("secret", lambda c: c.update(signer="nobody")),
    "a secret with another digest": ("secret", lambda c: c.update(digest="0" * 64)),
}.items():
    CASES[name] = of_content(where, change)


def of_bytes(data):
    def make(world):
        write(world, ".x/secrets/a/one.json", data)
        return owned(world)

    return make


for number, data in enumerate(
    (
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b"\xef\xbb\xbf{}",
        b'{"content": {}, "signatures": {}}',
        b'{"content": {}, "signatures": {"owner": "!"}}',
        b'{"content": {"a": 1, "a": 2}, "signatures": {}}',
        b'{"content": {"a": "\\ud800"}, "signatures": {}}',
        b'{"content": {"a": NaN}, "signatures": {}}',
        b'{"content": ' + b"[" * 50 + b"]" * 50 + b', "signatures": {}}',
        b'{"content": {}, "signatures": {}} x',
        b'<<<<<<< ours\n{"content": 1}\n=======\n{}\n>>>>>>> theirs\n',
    )
):
    CASES[f"bytes {number} for a document"] = of_bytes(data)


def joining(world, previous, joins=("1:" + "a" * 64,), **more):
    """Let the document of a secret be one that brings lines together, which the owner signs."""
    file = world.path(".x/secrets/a/one.json")
    content = json.loads(file.read_text())["content"] | {"previous": previous, "joins": list(joins), **more}
    file.write_bytes(signed.write("secret", content, [(content["signer"], world.owner.signing)]))
    return signed.read("secret", file.read_bytes(), "").digest


def said_twice(world, *, lower_is_seen):
    """Two documents of one version that bring the same lines together; one is seen, the other one lies there."""
    digests = {joining(world, each * 64): each for each in "ab"}
    lower, higher = sorted(digests)
    seen, there = (lower, higher) if lower_is_seen else (higher, lower)
    joining(world, digests[seen] * 64)
    world.open()
    joining(world, digests[there] * 64)
    return owned(world)


@case
def another_version_that_says_the_same_with_a_lower_digest(world):
    return said_twice(world, lower_is_seen=False)


@case
def another_version_that_says_the_same_with_a_higher_digest(world):
    return said_twice(world, lower_is_seen=True)


@case
def another_version_that_says_something_else(world):
    joining(world, "a" * 64)
    world.open()
    joining(world, "a" * 64, due="because")
    return owned(world)


@case
def a_version_that_joins_no_event(world):
    joining(world, "a" * 64, joins=["x"])
    return owned(world)


@case
def a_version_that_was_chosen_less_than_never(world):
    joining(world, "a" * 64, chosen=-1)
    return owned(world)


@case
def a_seen_file_that_cannot_be_read(world):
    world.open()
    [file] = (world.home / "repos").iterdir()
    file.write_text("{")
    return owned(world)


def of_link(where):
    def make(world):
        path = world.path(where)
        moved = world.root.with_name("moved")
        path.rename(moved)
        path.symlink_to(moved)
        return owned(world)

    return make


for where in ("secrets", "secrets/a", "secrets/a/one.enc", ".x/secrets/a/one.json", ".x/members", "config.yaml"):
    CASES[f"a link for {where}"] = of_link(where)


def said_by_python(asked, home, monkeypatch):
    def said(error):
        return {"error": type(error).__name__, "code": error.code, "reason": error.reason, "hint": error.hint}

    with monkeypatch.context() as patch:
        patch.setenv("KEYHOLE_HOME", str(home))
        try:
            vault = RepoVault(asked.root, key=asked.key, environ=environment(asked, home))
            values = {}
            for name in asked.names:
                try:
                    values[name] = vault.get(name)
                except KeyholeError as error:
                    values[name] = said(error)
            agents = {name: list(groups) for name, groups in vault.list_agents().items()}
            secrets = [asdict(secret) for secret in vault.list_secrets()]
        except KeyholeError as error:
            return said(error)
    return {"signed": vault.signed, "values": values, "agents": agents, "secrets": secrets}


def environment(asked, home):
    return {"HOME": "/nonexistent", "KEYHOLE_HOME": str(home), **asked.env}


def comparable(said, home):
    """Each has a home of its own, and a Date has milliseconds."""
    if "hint" in said:
        said |= {name: said[name].replace(str(home), "HOME") for name in ("reason", "hint")}
    for secret in said.get("secrets", ()):
        for name in ("created", "rotated", "expires"):
            when = secret[name]
            when = datetime.fromisoformat(when) if isinstance(when, str) else when
            secret[name] = when and int(when.timestamp() * 1000)
        secret["agents"] = list(secret["agents"])
    return said


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What both say of every case; one process of Node opens all of them."""
    folder, asked, python, homes = tmp_path_factory.mktemp("vaults"), [], [], []
    with pytest.MonkeyPatch.context() as monkeypatch:
        first = Folder.create(folder / "first")
        first.set("a/one")
        for number, make in enumerate(CASES.values()):
            place = folder / str(number)
            shutil.copytree(first.root, place / "team")
            world = Folder(place / "team", place / "home", first.owner, first.now)
            each = make(world)
            home = place / "home-of-node"
            if world.home.exists():
                shutil.copytree(world.home, home)
            python.append(comparable(said_by_python(each, world.home, monkeypatch), world.home))
            homes.append(home)
            env = environment(each, home)
            asked.append({"root": str(each.root), "env": env, "key": each.key, "names": each.names})
    said = built.answer("parity.js", given=asked)
    return dict(zip(CASES, zip(python, map(comparable, said, homes), strict=True), strict=True))


def test_of_versions_that_say_the_same_both_take_the_later_one_and_keep_the_same_of_it(tmp_path, monkeypatch):
    made = Folder.create(tmp_path / "one")
    made.set("a/one")
    digests = {joining(made, each * 64): each for each in "ab"}
    kept = []
    for home in ("python", "node"):
        world = Folder(made.root, tmp_path / home, made.owner, made.now)
        asked = {"root": str(world.root), "key": world.owner.to_text(), "names": ["a/one"]}
        asked["env"] = environment(owned(world), world.home)
        for digest in sorted(digests, reverse=True):
            joining(world, digests[digest] * 64)
            if home == "python":
                said = said_by_python(owned(world), world.home, monkeypatch)
            else:
                [said] = built.answer("parity.js", given=[asked])
            assert said["signed"] is True, said
        [file] = (world.home / "repos").glob("*.json")
        kept.append(json.loads(file.read_text())["secrets"]["a/one"])
    assert kept[0] == kept[1]
    assert (kept[0][1], len(kept[0][2])) == (min(digests), 64)


@pytest.mark.parametrize("name", CASES)
def test_both_say_the_same(outcomes, name):
    python, node = outcomes[name]
    assert node == python


def test_what_one_language_has_seen_the_other_knows(tmp_path, monkeypatch):
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "home"))
    world = Folder.create(tmp_path)
    world.set("a/one", "old")
    shutil.copytree(world.root, tmp_path / "kept")
    RepoVault(world.root, key=world.owner.to_text())
    [file] = (tmp_path / "home/repos").iterdir()
    data = json.loads(file.read_text())
    synced = {"members": data["members"], "secrets": data["secrets"]}
    file.write_text(json.dumps(data | {"synced": synced, "later": 1}))
    Folder(world.root, tmp_path / "elsewhere", world.owner, world.now).set("a/one", "new")
    asked = [{"root": str(world.root), "env": environment(owned(world), tmp_path / "home"), "names": ["a/one"]}]
    [said] = built.answer("parity.js", given=[each | {"key": world.owner.to_text()} for each in asked])
    assert said["values"] == {"a/one": "new"}
    after = json.loads(file.read_text())
    assert (after["synced"], after["later"], after["secrets"]["a/one"][0]) == (synced, 1, 2)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert set(file.parent.iterdir()) == {file, file.with_suffix(".reads.jsonl")}
    shutil.rmtree(world.root)
    (tmp_path / "kept").rename(world.root)
    with pytest.raises(IntegrityError, match="old state"):
        RepoVault(world.root, key=world.owner.to_text())


def test_a_vault_of_the_command_line_opens_and_neither_key_nor_value_is_ever_shown_or_written(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "home"))
    (tmp_path / "team").mkdir()
    monkeypatch.chdir(tmp_path / "team")
    cli_driver.ok("repo", "init", "--no-git")
    cli_driver.ok("repo", "set", "stripe/key", stdin=CANARY)
    cli_driver.ok("repo", "add-agent", "coder", "--group", "stripe")
    agent = (tmp_path / "user/.agent-vault/agents/coder.key").read_text()
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "user"), "KEYHOLE_HOME": str(tmp_path / "home")}
    before = set(tmp_path.rglob("*"))
    done = built.run("shown.js", "stripe/key", env=env | {"AGENT_VAULT_KEY": agent})
    said = json.loads(done.stdout)
    assert said["digest"] == hashlib.sha256(CANARY.encode()).hexdigest()
    assert f"RepoVault({json.dumps(str(tmp_path / 'team'))})" in said["shown"]
    for secret in (CANARY, agent.strip(), agent.strip()[16:]):
        assert secret.encode() not in done.stdout + done.stderr
    assert {path.suffix for path in set(tmp_path.rglob("*")) - before} == {".jsonl"}
    assert not any(secret in path.read_text() for path in tmp_path.rglob("*.jsonl") for secret in (CANARY, agent[16:]))


def test_a_key_that_only_the_program_opens_is_refused_by_what_it_is_and_never_shown(tmp_path):
    world = Folder.create(tmp_path)
    ssh = "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0LXNzaC1rZXk\n-----END OPENSSH PRIVATE KEY-----\n"
    plugin = "AGE-PLUGIN-YUBIKEY-1QQPQYQSZQGPQYQSZ"
    cases = {
        "an SSH key": ssh,
        "the key of a plugin": f"# recipient: age1yubikey1q\n{plugin}\n",
        "a key under a passphrase": "age-encryption.org/v1\n-> scrypt x 18\n",
        "a key in the keychain": "keychain:team\n",
        "a key that a token seals": '{"place": "pkcs11:x"}\n',
    }
    asked = []
    for number, text in enumerate(cases.values()):
        file = tmp_path / f"{number}.key"
        file.write_text(text)
        file.chmod(0o600)
        asked.append(Asked(world.root, None, env={"KEYHOLE_REPO_KEY": str(file)}))
    asked += [Asked(world.root, None, env={"KEYHOLE_REPO_KEY": text}) for text in (ssh, plugin, "keychain:team")]
    asked += [Asked(world.root, ssh), Asked("https://user:secret-ssh-key@host/x", None)]
    given = [
        {"root": str(each.root), "env": environment(each, world.home), "key": each.key, "names": []} for each in asked
    ]
    said = built.answer("parity.js", given=given)
    assert {each["code"] for each in said} == {"invalid_request"}
    for what, each in zip([*cases, "an SSH key", "the key of a plugin", "a key in the keychain"], said, strict=False):
        assert each["reason"].startswith(what)
    for text in ("c2VjcmV0LXNzaC1rZXk", plugin, "secret-ssh-key"):
        assert text not in json.dumps(said)


def test_a_key_in_a_form_that_is_not_understood_is_not_repeated(tmp_path):
    world = Folder.create(tmp_path)
    key = world.owner.to_text()
    forms = [f'"{key}"', key.lower(), f"key={key}", base64.b64encode(key.encode()).decode(), key * 60]
    asked = [Asked(world.root, None, env={"AGENT_VAULT_KEY": text}) for text in forms]
    given = [
        {"root": str(each.root), "env": environment(each, world.home), "key": each.key, "names": []} for each in asked
    ]
    said = built.answer("parity.js", given=given)
    assert {each["code"] for each in said} <= {"not_found", "invalid_request"}
    for text in forms:
        assert text[20:40] not in json.dumps(said)
    for text, each in zip(forms, said, strict=True):
        with pytest.raises(KeyholeError) as refused:
            keys.find({"AGENT_VAULT_KEY": text})
        assert refused.value.reason == each["reason"]


def test_a_vault_that_a_command_is_changing_is_waited_for_and_what_is_refused_is_recorded(tmp_path):
    world = Folder.create(tmp_path)
    world.set("a/one")
    asked = owned(world)
    given = [{"root": str(world.root), "env": environment(asked, world.home), "key": asked.key, "names": ["a/one"]}]
    world.open()
    sidecar = world.path(".x/secrets/a/one.json")
    data = sidecar.read_bytes()
    command = [built.node(), str(built.built() / "test/parity.js")]
    with child(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        with Tree(world.root).lock():
            sidecar.unlink()  # half of a change
            process.stdin.write(json.dumps(given).encode())
            process.stdin.close()
            while not waits(process.pid):
                assert process.poll() is None
                time.sleep(0.01)
            sidecar.write_bytes(data)
        assert json.loads(process.stdout.read())[0]["values"] == {"a/one": CANARY}
    assert refusals(world.root, world.home) == []
    sidecar.unlink()
    said = built.answer("parity.js", given=given * 2)
    assert [each.reason for each in refusals(world.root, world.home)] == [said[0]["reason"]]


def waits(pid):
    """Whether the process has somebody who waits for a lock."""
    for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if b"flock" in Path(f"/proc/{each}/cmdline").read_bytes():
                return True
    return False
