"""A vault that something else wrote in the same format: opened as it is, and signed once an owner has looked at it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cli_driver import ok, run
from keyhole.core.errors import Conflict, IntegrityError, NotFound, PolicyDenied
from keyhole.crypto import age
from keyhole.repo.adopting import adopt, review
from keyhole.repo.checking import check
from keyhole.repo.documents import CONFIG, Manifest, Meta, write_manifest, write_meta
from keyhole.repo.tree import VAULT
from repo.world import CANARY, START, Folder

MANIFEST = b"""\
version: 1
owners:
- name: owner
  public_key: owner.pub
agents:
- name: coder
  groups:
  - payments
groups:
- name: payments
  secrets:
  - stripe/key
- name: mail
  secrets: []
"""
META = b"""\
name: stripe/key
group: payments
created: 2025-02-20T14:30:00.123456Z
rotated: '2025-02-21T14:30:00+02:00'
authorized_agents:
- coder
- guest
"""


@pytest.fixture
def foreign(tmp_path):
    """A vault as the format's own tool makes it, written here by hand."""
    world = Folder(tmp_path / "team", tmp_path / "home")
    world.agent = age.generate()
    for path, data in {
        "config.yaml": CONFIG.encode(),
        "owner.pub": world.owner.recipient.text.encode(),
        "manifest.yaml": MANIFEST,
        "agents/coder/public.key": world.agent.recipient.text.encode(),
        "agents/coder/private.key.escrow": age.encrypt(world.agent.to_text().encode(), [world.owner.recipient]),
        "secrets/stripe/key.enc": age.encrypt(CANARY.encode(), [world.owner.recipient, world.agent.recipient]),
        "secrets/stripe/key.meta": META,
    }.items():
        file = world.root / VAULT / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return world


def take_over(world):
    return world.apply(adopt(world.open(), world.owner, "owner", world.now))


def test_it_opens_as_it_is(foreign):
    assert foreign.get("stripe/key") == foreign.get("stripe/key", foreign.agent) == CANARY
    assert not foreign.open().signed
    assert check(foreign.open(), START).warnings


def test_a_review_says_what_would_be_signed_and_what_is_odd(foreign):
    found = review(foreign.open())
    assert [line.split()[0] for line in found.agents] == ["coder"]
    assert found.secrets == ["stripe/key"]
    assert "guest" in found.notes[0]


def test_taken_over_it_keeps_its_groups_and_times_and_is_whole(foreign):
    take_over(foreign)
    opened = foreign.open()
    assert opened.signed
    assert opened.sidecar("stripe/key").groups == ("payments",)
    meta = opened.meta("stripe/key")
    assert meta.created == datetime(2025, 2, 20, 14, 30, 0, 123456, UTC)
    assert meta.rotated == datetime(2025, 2, 21, 12, 30, tzinfo=UTC)
    assert meta.agents == ("coder",)
    assert foreign.get("stripe/key", foreign.agent) == CANARY
    assert check(opened, START, foreign.owner).errors == []


def test_only_the_owner_takes_it_over(foreign):
    with pytest.raises(PolicyDenied):
        foreign.apply(adopt(foreign.open(), foreign.agent, "owner", START))


def test_a_change_of_the_other_tool_is_refused_until_it_is_taken_over(foreign):
    take_over(foreign)
    foreign.path("secrets/stripe/key.enc").write_bytes(
        age.encrypt(b"changed", [foreign.owner.recipient, foreign.agent.recipient])
    )
    with pytest.raises(IntegrityError, match="adopt"):
        foreign.get("stripe/key")
    assert review(foreign.open()).secrets == ["stripe/key"]
    take_over(foreign)
    assert foreign.get("stripe/key", foreign.agent) == "changed"
    assert review(foreign.open()).empty


def test_an_agent_and_a_secret_of_the_other_tool_come_in_and_go_again(foreign):
    take_over(foreign)
    newcomer = age.generate()
    foreign.path("agents/late").mkdir()
    foreign.path("agents/late/public.key").write_text(newcomer.recipient.text)
    foreign.path("secrets/mail").mkdir()
    foreign.path("secrets/mail/key.enc").write_bytes(age.encrypt(b"mail-key", [foreign.owner.recipient]))
    agents = {"coder": ("payments",), "late": ("mail",)}
    groups = {"mail": ("mail/key",), "payments": ("stripe/key",)}
    foreign.path("manifest.yaml").write_bytes(write_manifest(Manifest(("owner",), agents, groups)))
    with pytest.raises(NotFound):
        foreign.get("mail/key", newcomer)
    take_over(foreign)
    assert foreign.get("mail/key", newcomer) == "mail-key"
    foreign.path("secrets/mail/key.enc").unlink()
    foreign.path("manifest.yaml").write_bytes(write_manifest(Manifest(("owner",), {"coder": ("payments",)}, groups)))
    found = review(foreign.open())
    assert (found.removed, found.gone) == (["late"], ["mail/key"])
    take_over(foreign)
    assert foreign.open().names() == ["stripe/key"]


def test_the_owner_cannot_be_called_as_an_agent(foreign):
    with pytest.raises(Exception, match="agent coder"):
        adopt(foreign.open(), foreign.owner, "coder", START)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"- 1",
        b"version: 1\nversion: 1\n",
        b"a: &x [1]\nb: *x\n",
        b"!!python/object/apply:os.system ['id']",
        b"agents: [{groups: []}]",
        b"agents: 5",
        b"agents:\n- name: ../x\n",
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_documents_that_are_none_are_refused(foreign, data):
    foreign.path("manifest.yaml").write_bytes(data)
    with pytest.raises(Exception, match=r"manifest.yaml|is not the") as caught:
        foreign.open()
    assert caught.type.__module__.startswith("keyhole")


@pytest.mark.parametrize("name", ["12", "1.5", "true", "null", "no", "0x1f", "1e5", "2026-01-02", "-", "_"])
def test_names_that_yaml_takes_for_something_else_stay_names(name):
    import yaml

    manifest = Manifest(("owner",), {name: (name,)}, {name: (f"{name}/{name}",)})
    document = yaml.safe_load(write_manifest(manifest))
    assert document["agents"] == [{"name": name, "groups": [name]}]
    assert document["groups"] == [{"name": name, "secrets": [f"{name}/{name}"]}]


def test_times_are_read_by_yaml_as_times_with_their_zone():
    import yaml

    document = yaml.safe_load(write_meta(Meta("a/b", "a", START, START, START, ("coder",))))
    assert document == {
        "name": "a/b",
        "group": "a",
        "created": START,
        "rotated": START,
        "expires": START,
        "authorized_agents": ["coder"],
    }


def test_a_key_file_is_never_written_over(tmp_path):
    from keyhole.repo import keys

    keys.write(tmp_path / "x.key", age.generate())
    before = (tmp_path / "x.key").read_text()
    assert (tmp_path / "x.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(Conflict):
        keys.write(tmp_path / "x.key", age.generate())
    assert (tmp_path / "x.key").read_text() == before


def test_a_new_reader_is_signed_by_nobody_who_did_not_look(foreign, monkeypatch):
    """A command without a terminal is that of a script or an agent, who was told by an error to run it."""
    monkeypatch.setenv("HOME", str(foreign.home))
    monkeypatch.setenv("KEYHOLE_HOME", str(foreign.home))
    monkeypatch.setenv("AGENT_VAULT_KEY", foreign.owner.to_text())
    monkeypatch.chdir(foreign.root)
    ok("repo", "adopt")
    mallory = age.generate()
    foreign.path("agents/mallory").mkdir()
    foreign.path("agents/mallory/public.key").write_text(mallory.recipient.text)
    manifest = foreign.path("manifest.yaml")
    manifest.write_bytes(
        manifest.read_bytes().replace(b"agents:", b"agents:\n- name: mallory\n  groups:\n  - payments")
    )
    refused = run("repo", "adopt", "--json")
    assert (refused.code, "--yes" in refused.error["hint"]) == (4, True)
    assert mallory.recipient.text in run("repo", "adopt").err
    with pytest.raises(NotFound):
        foreign.get("stripe/key", mallory)
    assert ok("repo", "adopt", "--yes", "--json").json["adopted"]
    assert foreign.get("stripe/key", mallory) == CANARY
