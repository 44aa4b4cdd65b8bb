"""What commits did to a vault, for a reviewer: by names, without a key, and red for what is not genuine."""

from __future__ import annotations

import subprocess

import pytest

from cli_driver import ok, run
from keyhole.crypto import age
from keyhole.repo import changes, reviewing
from keyhole.repo.comparing import compare_states
from keyhole.repo.describing import describe
from keyhole.repo.members import Member, Role
from repo.kept import InGit, Kept
from repo.world import CANARY


@pytest.fixture
def team(tmp_path, monkeypatch):
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "keyhole"))
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    world = InGit.create(tmp_path)
    world.set("stripe/key")
    world.mark()
    monkeypatch.chdir(world.root)
    return world


def review(span="base..HEAD"):
    ran = run("repo", "review", span, "--json")
    return ran.code, ran.json


def test_a_range_of_genuine_changes_is_summed_up_without_a_value(team):
    team.add("coder", "stripe")
    team.set("stripe/key", "another")
    ran = ok("repo", "review", "base..HEAD")
    assert "signed and genuine" in ran.out
    assert "- added member coder: agent, groups stripe, age1" in ran.out
    assert "changed secret stripe/key: version 1 -\\> 3 by owner, new value, sealed for +coder" in ran.out
    assert CANARY not in ran.out
    assert not (team.root.parent / "user").exists()


def swap(team):
    team.set("stripe/other", "x")
    one, other = team.path("secrets/stripe/key.enc"), team.path("secrets/stripe/other.enc")
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)
    return "is not the file that owner wrote"


def own_file(team):
    team.path("secrets/stripe/new.enc").write_bytes(age.encrypt(b"x", [team.owner.recipient]))
    return "is signed by nobody"


def recipient(team):
    """A member with a key of the attacker, signed by the attacker only."""
    thief = age.generate()
    everybody = team.open().require_members()
    more = {**everybody.members, "thief": Member("thief", Role.READER, thief.recipient, groups=("stripe",))}
    after = everybody.changed(team.open().digest, members=more)
    team.path(".x/members/000002.json").write_bytes(after.write([("owner", thief.signing)]))
    return "not signed by anybody who may change the members"


def public_key(team):
    team.add("coder", "stripe")
    team.path("agents/coder/public.key").write_text(age.generate().recipient.text)
    return "is not the key of coder"


def old_state(team):
    path = team.path(".x/secrets/stripe/key.json")
    before, sealed = path.read_bytes(), team.path("secrets/stripe/key.enc").read_bytes()
    team.set("stripe/key", "second")
    team.mark()
    path.write_bytes(before)
    team.path("secrets/stripe/key.enc").write_bytes(sealed)
    return "has seen version 2"


def vanished(team):
    team.path(".x/secrets/stripe/key.json").unlink()
    team.path("secrets/stripe/key.enc").unlink()
    return "gone without a signed removal"


def unsigned(team):
    for path in sorted(team.path(".x").rglob("*.json")):
        path.unlink()
    return "signed"


def stray(team):
    team.path("secrets/stripe/key.txt").write_text("oops")
    return "is no file of a vault"


@pytest.mark.parametrize("harm", [swap, own_file, recipient, public_key, old_state, vanished, unsigned, stray])
def test_each_harm_is_found(tmp_path, harm):
    team = Kept.create(tmp_path)
    team.set("stripe/key")
    team.mark()
    wanted = harm(team)
    team.commit()
    base, last = team.base, team.past.last
    found, _ = reviewing.review(
        reviewing.state_of(team.past.at(base)), team.past.at(last), team.past.touched(base, last)
    )
    assert any(wanted in problem for problem in found.problems), found


def test_a_link_and_names_of_strangers_fail_the_review_and_are_no_markup(team):
    team.path("secrets/stripe/key.meta").unlink()
    team.path("secrets/stripe/key.meta").symlink_to("/etc/passwd")
    odd = team.path("secrets") / "<img src=x>[a](b) @all"
    odd.mkdir()
    (odd / "`x`").write_text("x")
    team.commit()
    ran = run("repo", "review", "base..HEAD")
    assert ran.code == 1
    assert ran.out.startswith("### Vault: base..HEAD: 2 problems")
    assert "secrets/stripe/key.meta is no file of a vault" in ran.out
    assert r"\<img src=x\>\[a\](b) (at)all/\`x\`" in ran.out


def test_a_commit_on_the_way_that_is_not_genuine_is_named(team):
    sealed = team.path("secrets/stripe/key.enc").read_bytes()
    team.path("secrets/stripe/key.enc").write_bytes(b"age-encryption.org/v1\n")
    team.commit()
    bad = team.git.head()
    team.path("secrets/stripe/key.enc").write_bytes(sealed)
    team.commit()
    code, found = review()
    assert code == 1
    assert found["problems"] == [f"commit {bad[:10]}: stripe/key is not the file that owner wrote"]


def test_two_commits_and_two_versions_are_compared_by_names(team):
    team.add("coder", "stripe")
    team.set("db/url", "second")
    told = ok("repo", "diff", "base", "HEAD", "--json").json
    assert [(each["sign"], each["name"]) for each in told["members"]] == [("+", "coder")]
    assert [(each["sign"], each["name"]) for each in told["secrets"]] == [("+", "db/url"), ("~", "stripe/key")]
    assert ok("repo", "diff", "stripe/key@1", "stripe/key@2").out == (
        "~ secret stripe/key: version 1 -> 2 by owner, rewrap, sealed for +coder\n"
    )
    assert run("repo", "diff", "nothing").code == 5
    assert run("repo", "diff", "--", "--output=x").code == 5


def test_roles_groups_keys_and_due_values_are_in_a_comparison(tmp_path):
    team = Kept.create(tmp_path)
    team.set("stripe/key")
    team.add("coder", "stripe")
    before = team.open()
    team.do(changes.revoke, "coder", "stripe")
    team.do(changes.replace_key, "coder", age.generate())
    text = [line.text for line in compare_states(before, team.open()).lines]
    assert text[0].startswith("~ member coder: groups -stripe, another key age1")
    assert "sealed for -coder, due: revoke stripe from coder" in text[1]


def test_git_shows_what_the_files_say_once_a_person_has_set_it_up(team):
    """The repository names a driver and brings a module of Python: neither counts."""
    (team.root / ".gitattributes").write_text("* diff=keyhole\n")
    (team.root / "keyhole").mkdir()
    (team.root / "keyhole" / "__init__.py").write_text("raise SystemExit('taken from the repository')")
    for _ in range(2):
        ok("repo", "diff-driver", "install")
    team.add("coder", "stripe")
    words = ["git", "--no-pager", "diff", "base", "HEAD", "--", ".agent-vault/.x/members"]
    shown = subprocess.run(words, capture_output=True, check=True).stdout.decode()
    assert "+since version 1: + member coder: agent, groups stripe" in shown
    assert (team.root / ".git/info/attributes").read_text().count("diff=") == 3
    assert '[diff "keyhole"]' not in (team.root / ".git/config").read_text()
    ok("repo", "diff-driver", "remove")
    assert "textconv" not in (team.root / ".git/config").read_text()
    assert "diff=" not in (team.root / ".git/info/attributes").read_text()


def test_what_is_signed_of_a_secret_is_described_in_lines(tmp_path):
    team = Kept.create(tmp_path)
    team.set("stripe/key")
    lines = describe(team.path(".x/secrets/stripe/key.json").read_bytes())
    assert lines[:5] == ["secret stripe/key", "version 1", "removed no", "due", "groups stripe"]
    assert lines[-1] == "signed as owner (not verified here)"
    assert describe(team.path("secrets/stripe/key.enc").read_bytes())[1].endswith("stanzas of recipients")


def test_any_file_is_described_and_nothing_hidden():
    assert describe(b"\xff\x00")[0] == "2 bytes"
    assert describe(b'{"content": {}, "signatures": {}, "more": 1}') == ['{"content": {}, "signatures": {}, "more": 1}']
    assert describe(b"age-encryption.org/v1\nx")[1].startswith("damaged")
