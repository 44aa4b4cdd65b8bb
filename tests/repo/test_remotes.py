"""Vaults that travel through folders, buckets and servers: in step, after every accident, and past hostile remotes."""

from __future__ import annotations

import json
import shutil

import pytest

from cli_driver import ok, run
from keyhole.core.errors import Unreachable
from keyhole.remotes.chain import Chain, Head, Kept
from keyhole.remotes.folder import Folder
from keyhole.repo.snapshots import Entry, digest_of, travels, write_head, write_snapshot
from repo.remote_team import RemoteTeam, get, names


@pytest.fixture
def team(tmp_path, monkeypatch):
    return RemoteTeam(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A team with a folder as its remote, and a member; each test works on it as it was made."""
    place, kept = tmp_path_factory.mktemp("team"), tmp_path_factory.mktemp("kept") / "team"
    with pytest.MonkeyPatch.context() as patch:
        team = RemoteTeam(place, patch)
        ok("repo", "remote", "add", "origin", place / "shared")
        team.join("ann", place / "shared")
        shutil.copytree(place, kept)
        team.first = chain(team).head().snapshot
        ok("repo", "set", "a/one", stdin="newer")
        ok("repo", "set", "a/two", stdin="two")
        ok("repo", "push")
        team.as_("owner")
        ok("repo", "pull")
        shutil.copytree(place, kept.with_name("later"))
    return place, kept, team.first


@pytest.fixture
def shared(made, monkeypatch):
    """A team with a folder as its remote, of whom ann has just cloned."""
    place, kept, _ = made
    shutil.rmtree(place)
    shutil.copytree(kept, place)
    return RemoteTeam(place, monkeypatch, who="ann")


@pytest.fixture
def later(made, monkeypatch):
    """The same some time later, when ann has changed a/one, added a/two and pushed, and the owner has pulled."""
    place, kept, first = made
    shutil.rmtree(place)
    shutil.copytree(kept.with_name("later"), place)
    team = RemoteTeam(place, monkeypatch, who="owner")
    team.first = first
    return team


def test_members_stay_in_step(team, tmp_path):
    url = tmp_path / "shared"
    ok("repo", "remote", "add", "origin", url)
    assert ok("repo", "status", "--json").json["remotes"][0]["state"] == "ahead"
    team.join("ann", url)
    assert get("a/one") == "one"
    ok("repo", "set", "a/two", stdin="two")
    [about] = ok("repo", "status", "--json").json["remotes"]
    assert (about["name"], about["state"], about["unpushed"], about["behind"]) == ("origin", "ahead", ["a/two"], [])
    assert ok("repo", "push", "--json").json == {"pushed": True, "remote": "origin"}
    team.as_("owner")
    assert ok("repo", "diff", "--json").json["remote"] == ["a/two"]
    assert ok("repo", "status", "--json").json["remotes"][0]["behind"] == ["a/two"]
    ok("repo", "set", "b/three", stdin="three")
    told = run("repo", "push", "--json").error
    assert (told["code"], "pull" in told["hint"]) == ("conflict", True)
    assert ok("repo", "pull", "--json").json == {"changed": ["a/two"]}
    assert ok("repo", "status", "--json").json["remotes"][0]["unpushed"] == ["b/three"]
    ok("repo", "push")
    team.as_("ann")
    assert ok("repo", "pull", "--json").json == {"changed": ["b/three"]}
    assert names() == ["a/one", "a/two", "b/three"]
    assert ok("repo", "pull", "--json").json == {"changed": []}
    assert ok("repo", "status", "--json").json["remotes"][0]["state"] == "same"
    assert ok("repo", "check").code == 0


def test_what_both_changed_is_chosen_and_a_removed_member_reads_nothing_new(shared):
    ok("repo", "set", "a/one", stdin="by ann")
    ok("repo", "push")
    shared.as_("owner")
    ok("repo", "set", "a/one", stdin="by owner")
    ran = run("repo", "pull")
    assert (ran.code, "by ann (" in ran.err, "--theirs" in ran.err) == (3, True, True)
    assert get("a/one") == "by owner"
    ok("repo", "pull", "--theirs", "a/one")
    assert get("a/one") == "by ann"
    ok("repo", "revoke", "ann", "a")
    ok("repo", "set", "a/one", stdin="for others")
    ok("repo", "push")
    shared.as_("ann")
    ok("repo", "pull")
    assert run("repo", "get", "a/one").code == 5


def test_without_git_too_a_value_that_was_not_chosen_stays_in_the_history(shared):
    ok("repo", "set", "a/one", stdin="by ann")
    ok("repo", "push")
    shared.as_("owner")
    ok("repo", "set", "a/one", stdin="by owner, never pushed")
    refused = run("repo", "pull", "--ours", "a/one", "--theirs", "a/one", "--json")
    assert (refused.code, refused.error["reason"]) == (3, "a/one: both sides were chosen")
    ok("repo", "pull", "--theirs", "a/one")
    assert get("a/one") == "by ann"
    [aside] = [
        each["version"]
        for each in ok("repo", "history", "a/one", "--json").json["versions"]
        if each["standing"] == "aside"
    ]
    assert ok("repo", "get", "a/one", "--version", aside).out == "by owner, never pushed"
    ok("repo", "push")
    ok("repo", "rollback", "a/one", aside)
    assert get("a/one") == "by owner, never pushed"
    assert ok("repo", "check", "--json").json["errors"] == []
    assert not list(shared.remote.rglob("*unchosen*"))
    ok("repo", "remote", "rm", "origin")
    assert ok("repo", "get", "a/one", "--version", aside).out == "by owner, never pushed"


def test_a_list_of_members_that_an_owner_has_chosen_is_taken_by_who_pushed_the_other(shared):
    shared.as_("owner")
    sign = next(each["sign"] for each in ok("repo", "members", "--json").json if each["name"] == "ann")
    ok("repo", "role", "ann", "owner", "--sign", sign)
    ok("repo", "push")
    shared.as_("ann")
    ok("repo", "pull")
    ok("repo", "add-agent", "hers", "--group", "a")
    ok("repo", "push")
    shared.as_("owner")
    ok("repo", "add-agent", "his", "--group", "a")
    assert "--ours NAME" in run("repo", "pull").err
    ok("repo", "pull", "--ours", "members")
    ok("repo", "push")
    shared.as_("ann")
    ok("repo", "add-agent", "late", "--group", "a")
    assert "members" in run("repo", "pull").err
    ok("repo", "pull", "--theirs", "members")
    names = {each["name"] for each in ok("repo", "members", "--json").json}
    assert names == {"owner", "ann", "his"}
    ok("repo", "push")
    shared.as_("owner")
    ok("repo", "pull")
    [error] = json.loads(run("repo", "check", "--json").out)["errors"]
    assert "a/one is due for a new value" in error  # the two who are out could read it


def test_one_vault_has_a_git_branch_and_a_folder(shared):
    import subprocess

    repository = shared.folder / "work"
    subprocess.run(["git", "init", "-q", "-b", "main", str(repository)], check=True)
    shutil.copytree(shared.folder / "ann" / ".agent-vault", repository / ".agent-vault")
    subprocess.run(["git", "-C", str(repository), "add", "-A", "-f"], check=True)
    words = ["-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "vault"]
    subprocess.run(["git", "-C", str(repository), *words], check=True)
    shared.monkeypatch.chdir(repository)
    ok("repo", "remote", "add", "stick", shared.remote)
    ok("repo", "pull")
    ok("repo", "set", "a/two", stdin="two")
    ok("repo", "push", "stick")
    shared.as_("owner")
    ok("repo", "pull")
    ok("repo", "set", "a/three", stdin="three")
    ok("repo", "push")
    shared.as_("ann")
    shared.monkeypatch.chdir(repository)
    assert ok("repo", "pull", "--json").json == {"changed": ["a/three"]}
    log = subprocess.run(["git", "-C", str(repository), "log", "--format=%s"], capture_output=True, check=True).stdout
    assert log.splitlines()[0] == b"agent-vault: pull from stick"


class Cut:
    """A folder that fails at its nth message, before or after it is carried out."""

    def __init__(self, monkeypatch, number, *, after=False):
        self.left, self.after = number, after
        for verb in ("get", "put"):
            monkeypatch.setattr(Folder, verb, self._cutting(getattr(Folder, verb)))

    def _cutting(self, work):
        def cut(*arguments, **options):
            self.left -= 1
            if self.left == 0 and not self.after:
                raise Unreachable("cut")
            done = work(*arguments, **options)
            if self.left == 0:
                raise Unreachable("cut")
            return done

        return cut


@pytest.mark.parametrize("after", [False, True])
def test_a_push_that_is_cut_anywhere_is_never_called_synced_and_works_again(shared, after):
    shared.as_("owner")
    before = shared.state()["remotes"]["origin"]
    ok("repo", "set", "a/two", stdin="two")
    for number in range(1, 40):
        with pytest.MonkeyPatch.context() as patch:
            cut = Cut(patch, number, after=after)
            ran = run("repo", "push")
        if ran.code == 0:
            break
        assert (ran.code, cut.left) == (6, 0)
        assert shared.state()["remotes"]["origin"] == before
        assert ok("repo", "status", "--offline", "--json").json["remotes"][0]["unpushed"] == ["a/two"]
    assert number > 5
    assert ran.code == 0
    assert shared.state()["remotes"]["origin"]["version"] != before["version"]
    shared.as_("ann")
    assert ok("repo", "pull", "--json").json == {"changed": ["a/two"]}


@pytest.mark.parametrize("step", ["carry_out", "open", "finish", "note"])
def test_a_pull_that_ends_in_the_middle_is_finished_by_the_next(shared, step):
    from keyhole.cli.repo.peers import Peer
    from keyhole.cli.repo.place import Place
    from keyhole.repo.tree import Tree

    ok("repo", "set", "a/one", stdin="by ann")
    ok("repo", "push")
    shared.as_("owner")
    ok("repo", "set", "a/one", stdin="by owner")
    owner = {"carry_out": Place, "open": Place, "finish": Tree, "note": Peer}[step]
    with pytest.MonkeyPatch.context() as patch:
        work, calls = getattr(owner, step), []

        def ends(*arguments, **options):
            calls.append(1)
            if step != "open" or len(calls) == 2:
                raise KeyboardInterrupt
            return work(*arguments, **options)

        patch.setattr(owner, step, ends)
        run("repo", "pull", "--theirs", "a/one")
    assert calls
    again = run("repo", "pull", "--json")
    if step == "carry_out":  # it had not begun to change anything, so what was chosen has to be said again
        assert again.code == 3
        again = run("repo", "pull", "--theirs", "a/one", "--json")
    assert again.code == 0, again
    assert get("a/one") == "by ann"
    ok("repo", "push")
    shared.as_("ann")
    ok("repo", "pull")
    assert get("a/one") == "by ann"
    ok("repo", "check")


def test_what_a_cut_push_has_sent_is_this_clones_own(shared, monkeypatch):
    """Also when another has pushed on top of it, and this clone has changed something since."""

    def killed(*_):
        raise KeyboardInterrupt

    ok("repo", "set", "a/two", stdin="two")
    with monkeypatch.context() as patch:
        patch.setattr("keyhole.cli.repo.peers.ObjectPeer.note", killed)
        assert run("repo", "push").code != 0
    ok("repo", "set", "a/three", stdin="three")
    ok("repo", "push")
    with monkeypatch.context() as patch:
        ok("repo", "set", "a/four", stdin="four")
        patch.setattr("keyhole.cli.repo.peers.ObjectPeer.note", killed)
        assert run("repo", "push").code != 0
    ok("repo", "set", "a/five", stdin="five")
    shared.as_("owner")
    ok("repo", "pull")
    ok("repo", "set", "a/six", stdin="six")
    ok("repo", "push")
    shared.as_("ann")
    refused = run("repo", "push")
    assert refused.code == 2
    assert "keyhole repo pull" in refused.err
    ok("repo", "pull")
    ok("repo", "push")
    assert [get(f"a/{name}") for name in ("three", "four", "five", "six")] == ["three", "four", "five", "six"]


def test_of_two_pushes_at_once_one_is_told_to_pull(shared):
    ok("repo", "set", "a/ann", stdin="1")
    shared.as_("owner")
    ok("repo", "set", "a/owner", stdin="2")
    put, raced = Folder.put, []

    def racing(self, name, data, expected=""):
        if name == "head" and not raced:
            raced.append(1)
            shared.as_("ann")
            ok("repo", "push")
            shared.as_("owner")
        return put(self, name, data, expected)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Folder, "put", racing)
        told = run("repo", "push", "--json").error
    assert (told["code"], "keyhole repo pull" in told["hint"]) == ("conflict", True)
    ok("repo", "pull")
    ok("repo", "push")
    assert names() == ["a/ann", "a/one", "a/owner"]


def chain(team):
    """The remote as somebody sees it who may write to it."""
    return Chain(Folder(team.remote), Kept(team.folder / "thief"), "origin")


def forged(team, change):
    """A snapshot on top of the head in which files are as a thief wants them."""
    there = chain(team)
    head = there.head()
    entries = dict(there.entries(head.snapshot))
    added = change(entries, there.files(head.snapshot).read) or {}
    for path, data in added.items():
        entries[path] = Entry.of(data)
    there.add(entries, {digest_of(data): data for data in added.values()}, head)


def add_reader(_, read):
    document = json.loads(read(".x/members/000002.json"))
    document["content"]["version"] = 3
    return {".x/members/000003.json": json.dumps(document).encode()}


def swap(entries, _):
    one, two = "secrets/a/one.enc", "secrets/a/two.enc"
    entries[one], entries[two] = entries[two], entries[one]


def drop(entries, _):
    for path in [path for path in entries if path.startswith((".x/secrets/a/two", "secrets/a/two"))]:
        del entries[path]


def unsigned(entries, _):
    for path in [path for path in entries if path.startswith(".x/")]:
        del entries[path]


def other_key(_, read):
    return {".x/members/000002.json": read(".x/members/000002.json").replace(b"age1", b"age2", 1)}


def old_version(entries, _):
    entries.update(old_version.entries)


@pytest.mark.parametrize("change", [add_reader, swap, drop, unsigned, other_key, old_version])
def test_a_remote_that_serves_what_is_not_genuine_is_refused_and_nothing_is_taken(later, change):
    old_version.entries = chain(later).entries(later.first)
    before = files_of(later.folder / "owner")
    forged(later, change)
    ran = run("repo", "pull", "--json")
    assert (ran.code, "Traceback" in ran.err) == (2, False), (change, ran)
    assert files_of(later.folder / "owner") == before
    about = ok("repo", "status", "--json").json
    assert about["remotes"][0]["error"] == ran.error["reason"]
    assert "the remote origin" in {each["where"] for each in about["refused"]}
    assert get("a/one") == "newer"


def files_of(folder):
    return sorted((path, path.read_bytes()) for path in folder.rglob("*") if path.is_file())


BAD_PATHS = [
    "../../owner/.git/config",
    ".git/hooks/post-checkout",
    ".local/plan.json",
    ".LOCAL/x",
    "a/../../x",
    "/etc/x",
]
BAD_PATHS += ["secrets/a/.git/config", "CON", "secrets/a//x", "secrets/a/x.pem", ".gitattributes", "a\\b", "x" * 300]


@pytest.mark.parametrize("path", BAD_PATHS)
def test_no_vault_has_such_a_path(path):
    assert not travels(path)


@pytest.mark.parametrize("path", BAD_PATHS[:3])
def test_a_path_that_leads_out_of_the_vault_is_refused(shared, path):
    there = chain(shared)
    head = there.head()
    entries = {**there.entries(head.snapshot), path: Entry.of(b"evil")}
    number = there.snapshot(head.snapshot).number + 1
    data, listings = write_snapshot(entries, head.snapshot, number)
    remote = Folder(shared.remote)
    for each in (b"evil", data, *listings.values()):
        if remote.get(f"objects/{digest_of(each)}", 1 << 20) is None:
            remote.put(f"objects/{digest_of(each)}", each)
    remote.put("head", write_head(digest_of(data)), head.tag)
    shared.as_("owner")
    ran = run("repo", "pull", "--json")
    assert (ran.code, "Traceback" in ran.err) == (2, False)
    assert not list(shared.folder.rglob("*evil*"))
    assert run("repo", "clone", shared.remote, shared.folder / "new").code == 2
    assert not (shared.folder / "new").exists()


def old_head(shared, state):
    (shared / "head").write_bytes(write_head(state["first"]))


def new_history(shared, state):
    """The same vault, pushed anew by somebody who threw the history away."""
    there = state["chain"]
    entries = there.entries(there.head().snapshot)
    data, listings = write_snapshot(entries, "", 1)
    for each in (data, *listings.values()):
        (shared / "objects" / digest_of(each)).write_bytes(each)
    (shared / "head").write_bytes(write_head(digest_of(data)))


def no_head(shared, _):
    (shared / "head").unlink()


def strange_head(shared, _):
    (shared / "head").write_bytes(b'{"snapshot": "../../x"}')


def long_head(shared, _):
    (shared / "head").write_bytes(b" " * 5000)


def flipped(shared, _):
    for path in (shared / "objects").iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"!")


def emptied(shared, _):
    shutil.rmtree(shared / "objects")


@pytest.mark.parametrize("harm", [old_head, new_history, no_head, strange_head, long_head, flipped, emptied])
def test_a_head_that_does_not_go_on_from_what_was_synced_is_refused_and_named(later, harm):
    if harm in {flipped, emptied}:
        later.as_("ann")
        ok("repo", "set", "a/three", stdin="three")
        ok("repo", "push")
        later.as_("owner")
    harm(later.remote, {"chain": chain(later), "first": later.first})
    for verb in ("pull", "push") if harm not in {flipped, emptied} else ("pull",):
        ran = run("repo", verb)
        assert (ran.code, "Traceback" in ran.err) == (2, False), (verb, ran)
        told = ("rewritten", "lost its head", "no head", "longer", "other bytes", "lacks")
        assert any(word in ran.err for word in told), ran
    assert names() == ["a/one", "a/two"]


def test_a_private_key_in_the_folder_of_the_vault_is_not_pushed(shared):
    folder = shared.as_("owner") / ".agent-vault"
    key = (shared.folder / "owner-home" / ".agent-vault" / "owner.key").read_bytes()
    (folder / "owner.key").write_bytes(key)
    ok("repo", "set", "a/two", stdin="two")
    ok("repo", "push")
    (folder / "notes.txt").write_bytes(b"my key: " + key)
    ran = run("repo", "push")
    assert (ran.code, "private key in clear" in ran.err) == (3, True)
    for path in shared.remote.rglob("*"):
        assert path.is_dir() or b"AGE-SECRET-KEY" not in path.read_bytes()


BAD_URLS = ["https://me:hunter2@host/x", "s3://key:hunter2@bucket/x", "s3://bucket/x?secret=hunter2", "ftp://hunter2/x"]
BAD_URLS += ["keyhole+https://hunter2@host/vaults/team", "keyhole+https://hunter2", "--hunter2", "ext::sh -c hunter2"]


@pytest.mark.parametrize("url", BAD_URLS)
def test_an_address_with_a_password_or_of_no_kind_is_refused_and_not_repeated(team, url):
    for words in (("remote", "add", "x", "--", url), ("clone", "--", url, "there")):
        ran = run("repo", *words)
        assert ran.code in {3, 2}, ran
        assert "hunter2" not in ran.out + ran.err
    assert ok("repo", "remote", "list", "--json").json == []


def test_remotes_are_named_listed_and_forgotten(team, tmp_path):
    ok("repo", "remote", "add", "stick", tmp_path / "stick")
    ok("repo", "remote", "add", "bucket", "s3://team/x")
    found = ok("repo", "remote", "list", "--json").json
    assert [(each["name"], each["kind"], each["synced"]) for each in found] == [
        ("bucket", "object", None),
        ("stick", "folder", None),
    ]
    assert run("repo", "remote", "add", "stick", tmp_path / "y", "--json").error["code"] == "conflict"
    assert run("repo", "remote", "add", "git", tmp_path / "y").code == 3
    assert "name one: bucket, stick" in run("repo", "push").err
    ok("repo", "push", "stick")
    assert run("repo", "push", "none").code == 5
    ok("repo", "remote", "rm", "bucket")
    assert ok("repo", "push", "--json").json["remote"] == "stick"
    assert run("repo", "remote", "rm", "bucket").code == 5
    assert not any(b"stick" in path.read_bytes() for path in (tmp_path / "owner").rglob("*") if path.is_file())


def test_a_token_goes_to_the_server_for_which_it_is_kept_alone(team, monkeypatch):
    ok("repo", "remote", "add", "server", "keyhole+http://127.0.0.1:1/vaults/team")
    monkeypatch.setenv("KEYHOLE_ADDR", "http://127.0.0.1:2")
    monkeypatch.setenv("KEYHOLE_TOKEN", "hvs.of-another-server")
    told = run("repo", "push", "--json").error
    assert (told["code"], "keyhole login" in told["hint"]) == ("unauthenticated", True)


def test_git_is_cloned_too_and_a_repository_without_a_vault_is_not(team, tmp_path):
    import subprocess

    for name in ("with", "without"):
        subprocess.run(["git", "init", "-q", "-b", "main", str(tmp_path / name)], check=True)
    ok("repo", "init", tmp_path / "with")
    made = ok("repo", "clone", tmp_path / "with", tmp_path / "copy", "--json").json
    assert made["guard"].startswith("commits are guarded")
    assert "guard:" not in ok("repo", "status", "--dir", tmp_path / "copy").out
    ok("repo", "guard", "uninstall", tmp_path / "copy")
    assert "keyhole repo guard install" in ok("repo", "status", "--dir", tmp_path / "copy").out
    assert made["fingerprint"] == ok("repo", "status", "--dir", tmp_path / "with", "--json").json["fingerprint"]
    assert run("repo", "clone", tmp_path / "with", tmp_path / "copy", "--json").error["code"] == "conflict"
    ok("repo", "set", "a/x", "--dir", tmp_path / "copy", stdin="x")
    assert ok("repo", "diff", "--dir", tmp_path / "copy", "--json").json["local"] == ["a/x"]
    assert run("repo", "clone", tmp_path / "without", tmp_path / "none").code == 5
    plan = tmp_path / "with" / ".agent-vault" / ".local" / "plan.json"
    plan.parent.mkdir(exist_ok=True)
    plan.write_text('{"message": "evil", "moves": [["owner.pub", ""]]}')
    words = ["git", "-C", str(tmp_path / "with"), "-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run([*words, "add", "-f", str(plan)], check=True)
    subprocess.run([*words, "commit", "-qm", "evil"], check=True)
    told = run("repo", "clone", tmp_path / "with", tmp_path / "none")
    assert (told.code, ".agent-vault/.local" in told.err) == (2, True)
    assert not list(tmp_path.glob("*none*"))


def test_nothing_on_top_of_an_empty_head_is_a_vault(tmp_path):
    assert Chain(Folder(tmp_path / "none"), Kept(tmp_path / "kept"), "origin").head() == Head()
