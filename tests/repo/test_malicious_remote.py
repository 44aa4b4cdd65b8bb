"""What somebody can try who may write to the remote: each is refused, named and recorded, and nothing is taken."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cli_driver import ok, run
from keyhole.core.errors import IntegrityError
from keyhole.crypto import age
from keyhole.repo.opened import recipients_of, verify
from keyhole.repo.refusals import refusals
from keyhole.repo.sealing import Actor, with_documents
from keyhole.repo.seen import Seen
from keyhole.repo.tree import Tree
from repo.world import Folder

THIEF = age.generate()
BEN = age.generate()
"""A member who is granted another group than most attacks are on."""


def git(folder, *words):
    words = ("git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@x", *map(str, words))
    return subprocess.run(words, capture_output=True, check=True).stdout.decode()


class Team:
    """The owner's clone, and what a thief with the right to push does to the remote; the clone never takes it."""

    def __init__(self, root):
        self.root, self.remote, self.clone, self.thief = root, root / "remote.git", root / "team", root / "thief"
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(self.remote)], check=True)
        subprocess.run(["git", "init", "-q", "-b", "main", str(self.clone)], check=True)
        with self.here():
            ok("repo", "init")
            for name in ("a/one", "a/two", "b/one"):
                ok("repo", "set", name, stdin=f"first {name}")
            ok("repo", "add-agent", "coder", "--group", "a")
            keys = ("--recipient", BEN.recipient.text, "--sign", BEN.signing.public.hex())
            ok("repo", "add-member", "ben", *keys, "--role", "member", "--group", "b")
            self.old = git(self.clone, "rev-parse", "HEAD").strip()
            ok("repo", "set", "a/one", stdin="newer")
            ok("repo", "rm", "a/two")
            ok("repo", "set", "a/two", stdin="again")
            git(self.clone, "remote", "add", "origin", self.remote)
            git(self.clone, "push", "-q", "-u", "origin", "main")
            ok("repo", "push")
        self.genuine = git(self.clone, "rev-parse", "HEAD").strip()
        subprocess.run(["git", "clone", "-q", str(self.remote), str(self.thief)], check=True)
        self.theirs = self.thief / ".agent-vault"

    @contextlib.contextmanager
    def here(self):
        kept, place = dict(os.environ), Path.cwd()
        for name in ("KEYHOLE_REPO_KEY", "AGENT_VAULT_KEY"):
            os.environ.pop(name, None)
        os.environ.update(HOME=str(self.root / "home"), KEYHOLE_HOME=str(self.root / "keyhole"))
        os.chdir(self.clone)
        try:
            yield
        finally:
            os.chdir(place)
            os.environ.clear()
            os.environ.update(kept)

    def serve(self, attack):
        """The remote has what the attack makes of the genuine state."""
        git(self.thief, "reset", "-q", "--hard", self.genuine)
        git(self.thief, "clean", "-qfdx")
        attack(self)
        git(self.thief, "add", "-A", "-f")
        git(self.thief, "commit", "-qm", "work", "--allow-empty")
        git(self.thief, "push", "-q", "-f", "origin", "HEAD:main")


@pytest.fixture(scope="module")
def team(tmp_path_factory):
    return Team(tmp_path_factory.mktemp("malicious"))


def edited(path, change):
    document = json.loads(path.read_text())
    change(document["content"])
    path.write_text(json.dumps(document))


def members(team):
    return max((team.theirs / ".x" / "members").iterdir())


def sidecar(team, name="a/one"):
    return team.theirs / ".x" / "secrets" / f"{name}.json"


def enc(team, name="a/one"):
    return team.theirs / "secrets" / f"{name}.enc"


def recipient_added(team):
    person = {"name": "x", "role": "reader", "recipient": THIEF.recipient.text, "sign": "", "groups": ["a"]}
    edited(members(team), lambda content: content["members"].append({**content["members"][0], **person}))


def recipient_added_in_a_version_of_its_own(team):
    last = members(team)
    shutil.copy(last, last.with_name(f"{int(last.stem) + 1:06}.json"))
    recipient_added(team)


def role_raised(team):
    def raise_(content):
        for each in content["members"]:
            each["role"] = "owner"

    edited(members(team), raise_)


def members_cut(team):
    members(team).unlink()


def members_forked(team):
    edited(members(team), lambda content: content.update(previous="0" * 64))


def members_gap(team):
    (team.theirs / ".x" / "members" / "000001.json").unlink()


def files_swapped(team):
    one, two = enc(team).read_bytes(), enc(team, "a/two").read_bytes()
    enc(team).write_bytes(two)
    enc(team, "a/two").write_bytes(one)


def files_swapped_with_their_documents(team):
    files_swapped(team)
    one, two = sidecar(team).read_bytes(), sidecar(team, "a/two").read_bytes()
    sidecar(team).write_bytes(two)
    sidecar(team, "a/two").write_bytes(one)


def document_of_another_secret(team):
    shutil.copy(sidecar(team, "b/one"), sidecar(team))


def ciphertext_of_the_attacker(team):
    owner = age.parse_recipient((team.theirs / "owner.pub").read_text())
    enc(team).write_bytes(age.encrypt(b"theirs", [owner]))


def one_reader_more_in_a_genuine_looking_file(team):
    owner = age.parse_recipient((team.theirs / "owner.pub").read_text())
    enc(team).write_bytes(age.encrypt(b"newer", [owner, THIEF.recipient]))


def reader_more_in_the_document(team):
    edited(sidecar(team), lambda content: content["recipients"].append(THIEF.recipient.text))


def stanza_of_another_header(team):
    data = enc(team).read_bytes()
    fresh = age.encrypt(b"x", [THIEF.recipient])
    enc(team).write_bytes(fresh[: fresh.index(b"\n---")] + data[data.index(b"\n---") :])


def secret_taken_over_by_a_member_of_another_group(team):
    """All is as Keyhole would write it, but for the look at where the secret was."""
    opened = verify(Tree(team.thief), Seen())
    ben = Actor.of(opened, BEN, datetime.now(UTC))
    document, before = opened.secrets["a/one"]
    readers = recipients_of(opened.members, ["b"])
    data = age.encrypt(b"theirs", readers)
    texts = (each.text for each in readers)
    after = before.next(document.digest, data, texts, groups=("b",), rotated=ben.now, signer="ben")
    files = {"secrets/a/one.enc": data}
    for path, content in with_documents(opened, opened.members, ben, "x", {"a/one": after}, files).files.items():
        (team.theirs / path).write_bytes(content)


def secret_removed_without_a_word(team):
    for path in (sidecar(team), enc(team), enc(team).with_suffix(".meta")):
        path.unlink()


def ciphertext_removed(team):
    enc(team).unlink()


def secret_of_nobody(team):
    enc(team, "a/planted").write_bytes(age.encrypt(b"x", [THIEF.recipient]))


def agent_key_replaced(team):
    (team.theirs / "agents" / "coder" / "public.key").write_text(THIEF.recipient.text)


def agent_planted(team):
    path = team.theirs / "agents" / "x" / "public.key"
    path.parent.mkdir()
    path.write_text(THIEF.recipient.text)


def owner_pub_replaced(team):
    (team.theirs / "owner.pub").write_text(THIEF.recipient.text)


def manifest_lists_more(team):
    path = team.theirs / "manifest.yaml"
    path.write_text(path.read_text().replace("agents:\n", "agents:\n- name: x\n  groups:\n  - a\n"))


def manifest_names_a_path(team):
    path = team.theirs / "manifest.yaml"
    path.write_text(path.read_text().replace("a/one", "../../x"))


def manifest_cut(team):
    path = team.theirs / "manifest.yaml"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def meta_edited(team):
    path = enc(team).with_suffix(".meta")
    path.write_text(path.read_text().replace("rotated: 2", "rotated: 3"))


def config_changed(team):
    (team.theirs / "config.yaml").write_text("version: 1\nencryption:\n  format: none\n")


def signatures_gone(team):
    shutil.rmtree(team.theirs / ".x")


def old_state(team):
    git(team.thief, "reset", "-q", "--hard", team.old)


def old_secret_in_the_present_state(team):
    for path in (sidecar(team), enc(team), enc(team).with_suffix(".meta")):
        name = path.relative_to(team.thief)
        path.write_bytes(
            subprocess.run(
                ["git", "-C", team.thief, "show", f"{team.old}:{name}"], capture_output=True, check=True
            ).stdout
        )


def history_rewritten(team):
    git(team.thief, "checkout", "-q", "--orphan", f"fresh{os.urandom(4).hex()}")
    sidecar(team).unlink()


def another_vault(team):
    other = Folder.create(team.root / f"another{os.urandom(4).hex()}")
    shutil.rmtree(team.theirs)
    shutil.copytree(other.root / ".agent-vault", team.theirs, ignore=shutil.ignore_patterns(".local"))


def document_that_is_a_link(team):
    sidecar(team).unlink()
    sidecar(team).symlink_to("/etc/passwd")


def folder_that_is_a_link(team):
    shutil.rmtree(team.theirs / "secrets" / "a")
    (team.theirs / "secrets" / "a").symlink_to("/etc")


def vault_that_is_a_link(team):
    shutil.rmtree(team.theirs)
    team.theirs.symlink_to("/etc")


def plan_of_a_command(team):
    local = team.theirs / ".local"
    local.mkdir()
    moves = [["secrets/a/one.enc", "../../../../home/.agent-vault/owner.key"]]
    (local / "plan.json").write_text(json.dumps({"message": "x", "moves": moves}))


def document_that_is_huge(team):
    edited(sidecar(team), lambda content: content.update(due="x" * 3_000_000))


def document_that_is_deep(team):
    sidecar(team).write_text('{"content": ' + "[" * 50_000 + "]" * 50_000 + ', "signatures": {}}')


def name_with_a_newline(team):
    shutil.copy(sidecar(team), sidecar(team).with_name("a\nb.json"))


def name_in_another_case(team):
    (team.theirs / ".x" / "secrets" / "A").mkdir()
    shutil.copy(sidecar(team), team.theirs / ".x" / "secrets" / "A" / "one.json")


def name_in_two_spellings(team):
    for name in ("\u00e9", "e\u0301"):
        shutil.copy(sidecar(team), sidecar(team).with_name(f"{name}.json"))


ATTACKS = {
    recipient_added: "members/",
    recipient_added_in_a_version_of_its_own: "members/",
    role_raised: "members/",
    members_cut: "members",
    members_forked: "members/",
    members_gap: "members",
    files_swapped: "a/one",
    files_swapped_with_their_documents: "a/one",
    document_of_another_secret: "a/one",
    ciphertext_of_the_attacker: "a/one",
    one_reader_more_in_a_genuine_looking_file: "a/one",
    reader_more_in_the_document: "a/one",
    stanza_of_another_header: "a/one",
    secret_taken_over_by_a_member_of_another_group: "a/one",
    secret_removed_without_a_word: "a/one",
    ciphertext_removed: "a/one",
    secret_of_nobody: "a/planted",
    agent_key_replaced: "coder",
    agent_planted: "agents/x",
    owner_pub_replaced: "owner.pub",
    manifest_lists_more: "manifest",
    manifest_names_a_path: "manifest",
    manifest_cut: "manifest",
    meta_edited: "a/one",
    config_changed: "config.yaml",
    signatures_gone: "signed",
    old_state: "version",
    old_secret_in_the_present_state: "a/one",
    history_rewritten: "a/one",
    another_vault: "another vault",
    document_that_is_a_link: "a/one",
    folder_that_is_a_link: "secrets/a",
    vault_that_is_a_link: "agent-vault",
    plan_of_a_command: ".local",
    document_that_is_huge: "a/one",
    document_that_is_deep: "a/one",
    name_with_a_newline: "a",
    name_in_another_case: "A/one",
    name_in_two_spellings: "a/",
}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_a_malicious_remote_is_refused_named_and_recorded(team, attack):
    team.serve(attack)
    with team.here():
        before = git(team.clone, "rev-parse", "HEAD"), git(team.clone, "status", "--porcelain")
        refused = run("repo", "pull", "--json")
        assert refused.code == 2, refused
        assert "Traceback" not in refused.err
        assert ATTACKS[attack] in refused.error["reason"]
        assert refused.error["hint"]
        assert (git(team.clone, "rev-parse", "HEAD"), git(team.clone, "status", "--porcelain")) == before
        recorded = ok("repo", "status", "--json").json["refused"][-1]
        assert recorded["where"] == "the remote git"
        assert recorded["reason"] == refused.error["reason"]
        assert ok("repo", "get", "a/one").out == "newer"


def test_what_is_refused_in_the_folder_itself_is_recorded_too(tmp_path):
    world = Folder.create(tmp_path)
    world.set("a/one")
    world.open()
    world.path(".x/secrets/a/one.json").unlink()
    for _ in range(3):
        with pytest.raises(IntegrityError):
            world.open()
    [found] = refusals(world.root, world.home)
    assert "a/one" in found.reason


def test_a_genuine_change_is_taken_after_all_of_that(team):
    """So that what is refused above is refused for what it is."""
    with team.here():
        git(team.remote, "update-ref", "refs/heads/main", team.genuine)
        ok("repo", "pull")


def test_what_was_handed_over_to_other_groups_is_taken_by_who_says_so(team):
    team.serve(secret_taken_over_by_a_member_of_another_group)
    with team.here():
        refused = run("repo", "pull", "--json")
        assert "ben" in refused.error["reason"]
        assert "pull --theirs a/one" in refused.error["hint"]
        found = run("repo", "review", f"{team.genuine}..origin/main", "--json")
        assert found.code == 1
        assert any("a/one is from ben now" in problem for problem in found.json["problems"])
        ok("repo", "pull", "--theirs", "a/one")
        assert ok("repo", "get", "a/one").out == "theirs"
