"""What every remote of objects on the shelf ``remotes`` promises. Azure and Google stand in as obstore's own memory."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys

import pytest
from obstore.store import MemoryStore

import bucket_server
from keyhole.core.errors import (
    Conflict,
    IntegrityError,
    InternalError,
    InvalidRequest,
    KeyholeError,
    NotFound,
    PolicyDenied,
    Unreachable,
)
from keyhole.faces.api.envelope import render
from keyhole.remotes import OBJECTS, get_all, load, put_all
from keyhole.remotes.object import Bucket
from keyhole.repo.snapshots import digest_of
from keyhole.testing import open_vault

DATA = [b"", b"one", bytes(range(256)) * 40]
MOST = 1 << 20


def name_of(data):
    return f"objects/{digest_of(data)}"


@pytest.fixture(scope="module")
def bucket():
    with bucket_server.serving("team") as environ:
        before = {name: os.environ.get(name) for name in environ}
        os.environ.update(environ)
        yield "s3://team"
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


@contextlib.contextmanager
def vault_remote():
    """An open vault with a mount for repo vaults; gives what asks it, by token."""
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        vault = runner.run(stack.enter_async_context(open_vault()))
        runner.run(vault.ask("update", "sys/mounts/vaults", {"type": "remote"}))

        def asks(token=None):
            def ask(operation, path, data):
                reply = runner.run(vault.ask(operation, path, data, token=token))
                return json.loads(render(reply)[2])["data"] if reply is not None and reply.data is not None else {}

            return ask

        try:
            yield vault, runner, asks
        finally:
            runner.run(stack.aclose())


KINDS = [*OBJECTS, "memory"]


@pytest.fixture(params=KINDS)
def remote(request, tmp_path):
    match request.param:
        case "folder":
            yield load("folder", str(tmp_path / "shared"))
        case "object":
            bucket = request.getfixturevalue("bucket")
            yield load("object", f"{bucket}/{tmp_path.name}")
        case "server":
            with vault_remote() as (_, _, asks):
                yield load("server", "vaults/team", asks())
        case "memory":
            yield Bucket(MemoryStore(), "memory")


def test_what_was_put_is_there_whole(remote):
    assert remote.get("head", MOST) is None
    assert remote.list() == []
    for data in DATA:
        tag = remote.put(name_of(data), data)
        found = remote.get(name_of(data), MOST)
        assert (found.data, found.tag) == (data, tag)
    assert remote.list() == sorted(map(digest_of, DATA))


def test_of_two_that_expect_the_same_one_wins_and_the_other_is_told(remote):
    first = remote.put("head", b"1")
    with pytest.raises(Conflict):
        remote.put("head", b"2")
    assert remote.get("head", MOST).data == b"1"
    second = remote.put("head", b"2", remote.get("head", MOST).tag)
    with pytest.raises(Conflict):
        remote.put("head", b"3", first)
    assert remote.get("head", MOST) == type(remote.get("head", MOST))(b"2", second)
    remote.put("head", b"3", second)


def test_an_object_that_is_there_is_not_replaced(remote):
    remote.put(name_of(b"one"), b"one")
    with pytest.raises(Conflict):
        remote.put(name_of(b"one"), b"one")
    put_all(remote, {digest_of(data): data for data in DATA})
    wanted = {digest_of(data): MOST for data in [*DATA, b"not there"]}
    assert get_all(remote, wanted) == {digest_of(data): data for data in DATA}


def test_what_is_too_large_is_refused(remote):
    data = b"x" * 5000
    remote.put(name_of(data), data)
    with pytest.raises(IntegrityError, match="longer than 4999 bytes"):
        remote.get(name_of(data), 4999)
    assert remote.get(name_of(data), 5000).data == data


def test_no_other_name_is_asked_for(remote):
    for name in ("", "head/", "../head", "objects/" + "a" * 63, "objects/" + "A" * 64, "/etc/passwd"):
        with pytest.raises(InternalError):
            remote.get(name, MOST)
        with pytest.raises(InternalError):
            remote.put(name, b"")


def test_a_kind_that_is_not_on_the_shelf_is_none():
    for kind in ("", "git", "ftp", "../folder"):
        with pytest.raises(InvalidRequest, match="no kind of remote"):
            load(kind, "/x")


MOVE = """
import contextlib, sys
from keyhole.core.errors import Conflict
from keyhole.remotes import load
remote, won = load("folder", sys.argv[1]), 0
for _ in range(40):
    found = remote.get("head", 100)
    with contextlib.suppress(Conflict):
        remote.put("head", f"{int(found.data) + 1}".encode(), found.tag)
        won += 1
print(won)
"""


def test_a_folder_loses_no_change_of_processes_that_push_at_once(tmp_path):
    path = str(tmp_path / "shared")
    load("folder", path).put("head", b"0")
    command = [sys.executable, "-c", MOVE, path]
    working = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    won = sum(int(each.communicate(timeout=60)[0]) for each in working)
    assert int(load("folder", path).get("head", MOST).data) == won
    assert won >= 40


def test_a_hostile_folder_leads_nowhere(tmp_path):
    shared, outside = tmp_path / "shared", tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"mine")
    remote = load("folder", str(shared))
    remote.put(name_of(b"one"), b"one")
    (shared / "head").symlink_to(outside / "secret")
    with pytest.raises(IntegrityError):
        remote.get("head", MOST)
    os.mkfifo(shared / "objects" / digest_of(b"pipe"))
    with pytest.raises(IntegrityError):
        remote.get(name_of(b"pipe"), MOST)
    (shared / "objects").rename(shared / "moved")
    (shared / "objects").symlink_to(outside)
    with pytest.raises(IntegrityError):
        remote.put(name_of(b"two"), b"two")
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]


def test_a_bucket_that_is_away_or_not_there_is_said_without_what_opens_it(bucket, monkeypatch):
    with pytest.raises(NotFound, match="not there"):
        load("object", "s3://nobody/x").put("head", b"1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-of-aws")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(Unreachable) as told:
        load("object", f"{bucket}/x").get("head", MOST)
    assert "canary" not in f"{told.value.reason}{told.value.hint}"


class Careless:
    """A store that takes every write, as some do that speak S3."""

    def __init__(self, monkeypatch):
        import obstore

        put = obstore.put
        monkeypatch.setattr(obstore, "put", lambda store, name, data, **_: put(store, name, data))


def test_a_store_that_ignores_conditions_is_refused_before_the_first_push(monkeypatch):
    Careless(monkeypatch)
    remote = Bucket(MemoryStore(), "careless")
    with pytest.raises(InvalidRequest, match="ignores conditions"):
        remote.put("head", b"1")
    assert remote.get("head", MOST) is None


POLICIES = {
    "reader": 'path "vaults/team/*" { capabilities = ["read", "list"] }',
    "writer": 'path "vaults/team/*" { capabilities = ["read", "list", "create", "update"] }',
    "other": 'path "vaults/other/*" { capabilities = ["read", "list", "create", "update"] }',
}


def test_policies_of_a_server_say_who_reads_and_who_pushes():
    with vault_remote() as (vault, runner, asks):
        tokens = {}
        for name, text in POLICIES.items():
            runner.run(vault.ask("update", f"sys/policies/acl/{name}", {"policy": text}))
            made = runner.run(vault.ask("update", "auth/token/create", {"policies": [name]}))
            tokens[name] = load("server", "vaults/team", asks(made.auth["client_token"]))
        put_all(tokens["writer"], {digest_of(b"one"): b"one"})
        tokens["writer"].put("head", b"1")
        assert tokens["reader"].get("head", MOST).data == b"1"
        assert tokens["reader"].get(name_of(b"one"), MOST).data == b"one"
        for remote, act in (
            ("reader", lambda each: each.put("head", b"2", digest_of(b"1"))),
            ("reader", lambda each: put_all(each, {digest_of(b"two"): b"two"})),
            ("other", lambda each: each.get("head", MOST)),
            ("other", lambda each: each.list()),
        ):
            with pytest.raises(PolicyDenied):
                act(tokens[remote])


def test_a_server_takes_nothing_that_is_not_what_its_name_says_and_bounds_all():
    with vault_remote() as (_, _, asks):
        ask = asks()
        for path, data in (
            ("objects", {"objects": {digest_of(b"one"): "dHdv"}}),
            ("objects", {"objects": {"../head": "b25l"}}),
            ("objects", {"objects": {}}),
            ("objects", {"objects": {digest_of(b"one"): "not base64!"}}),
            ("head", {"data": "eA==" * 5000, "expected": ""}),
            ("head", {"data": 7, "expected": ""}),
        ):
            with pytest.raises(KeyholeError) as told:
                ask("update", f"vaults/team/{path}", data)
            assert told.value.code in {"invalid_request", "body_too_large"}, data
        with pytest.raises(InvalidRequest):
            ask("update", "vaults/../head", {"data": "eA==", "expected": ""})
        with pytest.raises(NotFound):
            ask("list", "vaults", {})


def test_a_vault_on_a_server_is_removed_with_all_that_it_has():
    with vault_remote() as (_, _, asks):
        ask = asks()
        remote = load("server", "vaults/team", ask)
        put_all(remote, {digest_of(data): data for data in DATA})
        remote.put("head", b"1")
        assert ask("list", "vaults", {}) == {"keys": ["team"]}
        ask("delete", "vaults/team", {})
        assert (remote.get("head", MOST), remote.list()) == (None, [])
