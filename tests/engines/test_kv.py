"""Versioned secrets: no version is lost, given out twice or shown after its end."""

import asyncio
import json
import sqlite3

import pytest

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.testing import FrozenClock
from vault.world import CANARY, Place, play, policy_token, refusal


async def put(vault, name, value, **options):
    data = {"data": value if isinstance(value, dict) else {"value": value}}
    return (await vault.ask("update", f"secret/data/{name}", {**data, "options": options})).data["version"]


async def get(vault, name, version=None):
    data = {"version": str(version)} if version is not None else {}
    return await vault.ask("read", f"secret/data/{name}", data)


async def value(vault, name, version=None):
    return json.loads((await get(vault, name, version)).data["data"].reveal())


async def about(vault, name):
    return (await vault.ask("read", f"secret/metadata/{name}")).data


def test_each_write_is_a_version_and_older_ones_stay_readable():
    async def scenario(vault):
        assert [await put(vault, "a/b", f"v{n}") for n in range(1, 4)] == [1, 2, 3]
        assert await value(vault, "a/b") == {"value": "v3"}
        assert [(await value(vault, "a/b", n))["value"] for n in (0, 1, 2, 3)] == ["v3", "v1", "v2", "v3"]
        for version in (4, 99, "9" * 18):
            assert (await refusal(get(vault, "a/b", version))).code == "not_found"
        for version in ("x", "-1", "1.0", "9" * 5000):
            assert (await refusal(get(vault, "a/b", version))).code == "invalid_request"

    play(scenario)


def test_check_and_set_takes_the_current_version_only():
    async def scenario(vault):
        assert isinstance(await refusal(put(vault, "x", "a", cas=1)), InvalidRequest)
        assert await put(vault, "x", "a", cas=0) == 1
        for wrong in (0, 2, "0", True, -1, 1.0, [1], {}):
            error = await refusal(put(vault, "x", "b", cas=wrong))
            assert error.reason == "check-and-set parameter did not match the current version", wrong
        assert await put(vault, "x", "b", cas=1) == 2
        assert await put(vault, "x", "c", cas="2") == 3

    play(scenario)


@pytest.mark.parametrize("where", ["config", "metadata/x"])
def test_check_and_set_can_be_required(where):
    async def scenario(vault):
        await put(vault, "x", "a")
        await vault.ask("update", f"secret/{where}", {"cas_required": True})
        error = await refusal(put(vault, "x", "b"))
        assert error.reason == "check-and-set parameter required for this call"
        assert await put(vault, "x", "b", cas=1) == 2

    play(scenario)


def test_a_writer_of_values_cannot_turn_off_what_guards_versions():
    async def scenario(vault):
        await put(vault, "x", "a")
        await vault.ask("update", "secret/metadata/x", {"cas_required": True})
        for options in (
            {"cas_required": False},
            {"max_versions": 1},
            {"custom_metadata": {}},
            {"delete_version_after": "1s"},
        ):
            assert (await refusal(put(vault, "x", "b", cas=1, **options))).code == "invalid_request"

    play(scenario)


def test_one_of_many_writers_wins_each_round_and_versions_have_no_gap():
    async def scenario(vault):
        for round_number in range(5):
            results = await asyncio.gather(*(refusal(put(vault, "x", f"w{n}", cas=round_number)) for n in range(100)))
            assert sum(error is None for error in results) == 1
        assert list((await about(vault, "x"))["versions"]) == ["1", "2", "3", "4", "5"]

    play(scenario)


def test_writers_on_two_nodes_neither_lose_nor_share_a_version(tmp_path):
    place = Place(tmp_path)

    async def main():
        async with place.open() as one, place.open() as two:
            await one.ask("update", "secret/config", {"max_versions": 1000})
            for number in range(6):  # the first write of a secret is a race as well
                made = await asyncio.gather(*(put(node, f"s{number}", "x") for _ in range(4) for node in (one, two)))
                assert sorted(made) == list(range(1, 9))
            results = await asyncio.gather(*(refusal(put(n, "new", "x", cas=0)) for _ in range(5) for n in (one, two)))
            assert sum(error is None for error in results) == 1

    asyncio.run(main())


def test_delete_undelete_and_destroy():
    async def scenario(vault):
        for n in range(1, 4):
            await put(vault, "x", f"v{n}")
        await vault.ask("delete", "secret/data/x")
        gone = await get(vault, "x")
        assert (gone.found, gone.data["data"], gone.data["metadata"]["version"]) == (False, None, 3)
        when = gone.data["metadata"]["deletion_time"]
        assert when
        await vault.ask("delete", "secret/data/x")
        assert (await get(vault, "x")).data["metadata"]["deletion_time"] == when
        await vault.ask("update", "secret/undelete/x", {"versions": [3]})
        assert await value(vault, "x") == {"value": "v3"}
        await vault.ask("update", "secret/delete/x", {"versions": "1,2"})
        assert not (await get(vault, "x", 1)).found
        await vault.ask("update", "secret/destroy/x", {"versions": [1, 1, 3, 77]})
        await vault.ask("update", "secret/undelete/x", {"versions": [1, 2, 3]})
        for number, there in ((1, False), (2, True), (3, False)):
            reply = await get(vault, "x", number)
            assert (reply.found, reply.data["metadata"]["destroyed"]) == (there, not there)
        assert await put(vault, "x", "v4") == 4
        for path in ("delete", "undelete", "destroy"):
            for versions in (None, [], "x", [-1], [{}], ["9" * 5000], 1):
                error = await refusal(vault.ask("update", f"secret/{path}/x", {"versions": versions}))
                assert error.code == "invalid_request"
            await vault.ask("update", f"secret/{path}/none", {"versions": [1]})

    play(scenario)


def test_old_versions_are_pruned_and_numbers_go_on():
    async def scenario(vault):
        for n in range(1, 14):
            await put(vault, "x", f"v{n}")
        data = await about(vault, "x")
        assert (list(map(int, data["versions"])), data["oldest_version"]) == (list(range(4, 14)), 4)
        await vault.ask("update", "secret/metadata/x", {"max_versions": 2})
        await put(vault, "x", "v14")
        assert list((await about(vault, "x"))["versions"]) == ["13", "14"]
        assert await value(vault, "x", 13) == {"value": "v13"}
        storage = vault.vault.storage(vault.vault.root_org, "kv")
        assert await storage.list("v", recursive=True) == ["13/x"]
        await vault.ask("update", "secret/metadata/x", {"max_versions": 1})
        await put(vault, "x", "v15")
        assert await storage.list("v", recursive=True) == []

    play(scenario)


def test_deleting_the_metadata_removes_everything_and_a_new_secret_begins_at_one():
    async def scenario(vault):
        for n in range(3):
            await put(vault, "x", f"v{n}", owner="me")
        await vault.ask("delete", "secret/metadata/x")
        assert isinstance(await refusal(get(vault, "x")), NotFound)
        assert await vault.vault.storage(vault.vault.root_org, "kv").list(recursive=True) == []
        assert await put(vault, "x", "new", cas=0) == 1
        assert (await about(vault, "x"))["owner"] == ""
        await vault.ask("delete", "secret/metadata/none")

    play(scenario)


def test_destroyed_values_are_gone_from_the_store(tmp_path):
    place = Place(tmp_path)

    async def write(vault):
        for n in range(2):
            await put(vault, "x", f"v{n}")

    def entries():
        with sqlite3.connect(place.file) as db:
            found = {bytes(v) for (v,) in db.execute("SELECT value FROM entry WHERE value IS NOT NULL")}
        db.close()
        return found

    place.play(write)
    before = entries()

    async def destroy(vault):
        await vault.ask("update", "secret/destroy/x", {"versions": [1, 2]})

    place.play(destroy)
    storage_left = before & entries()
    raw = b"".join(p.read_bytes() for p in place.file.parent.iterdir())
    changed = before - storage_left
    assert changed
    secrets = [blob for blob in changed if len(blob) > 150]
    assert secrets
    assert not any(blob[40:80] in raw for blob in secrets)


def test_merge_patch_changes_what_it_names():
    async def scenario(vault):
        await put(vault, "x", {"a": 1, "b": {"c": 2, "d": 3}, "e": 5})
        await vault.ask("patch", "secret/data/x", {"data": {"a": None, "b": {"c": 9}, "f": {"g": None, "h": 1}}})
        assert await value(vault, "x") == {"b": {"c": 9, "d": 3}, "e": 5, "f": {"h": 1}}
        error = await refusal(vault.ask("patch", "secret/data/x", {"data": {}, "options": {"cas": 1}}))
        assert error.code == "invalid_request"
        await vault.ask("delete", "secret/data/x")
        reply = await vault.ask("patch", "secret/data/x", {"data": {"a": 1}})
        assert (reply.found, reply.data["version"], bool(reply.data["deletion_time"])) == (False, 2, True)
        assert (await refusal(vault.ask("patch", "secret/data/none", {"data": {"a": 1}}))).code == "not_found"

    play(scenario)


def test_patches_made_at_once_all_hold():
    async def scenario(vault):
        await put(vault, "x", {})
        await asyncio.gather(*(vault.ask("patch", "secret/data/x", {"data": {f"k{n}": n}}) for n in range(15)))
        assert await value(vault, "x") == {f"k{n}": n for n in range(15)}

    play(scenario)


def test_versions_end_by_themselves_after_their_time():
    clock = FrozenClock()

    async def scenario(vault):
        await vault.ask("update", "secret/config", {"delete_version_after": "1h"})
        await put(vault, "x", "a")
        await put(vault, "y", "b")
        await vault.ask("update", "secret/metadata/y", {"delete_version_after": "30m"})
        await put(vault, "y", "c")
        await vault.ask("update", "secret/metadata/z", {"delete_version_after": "3h30m"})
        await put(vault, "z", "d")
        clock.advance(1801)
        assert not (await get(vault, "y")).found
        assert (await get(vault, "x")).found
        assert (await get(vault, "z")).found
        clock.advance(1800)
        assert not (await get(vault, "x")).found
        assert not (await get(vault, "z")).found, "the engine's setting bounds that of a secret"
        assert (await about(vault, "z"))["delete_version_after"] == "3h30m0s"
        assert (await vault.ask("read", "secret/config")).data["delete_version_after"] == "1h0m0s"

    play(scenario, clock=clock)


def test_a_secret_with_an_end_is_not_given_out_after_it():
    clock = FrozenClock()

    async def scenario(vault):
        await put(vault, "x", CANARY, expires_in="1h", type="api-key", owner="payments", tags=["a", "b"])
        data = await about(vault, "x")
        assert (data["type"], data["owner"], data["tags"]) == ("api-key", "payments", ["a", "b"])
        assert data["expires_at"]
        assert await value(vault, "x")
        clock.advance(3600)
        error = await refusal(get(vault, "x"))
        assert (error.code, CANARY in str(error)) == ("expired", False)
        await vault.ask("patch", "secret/metadata/x", {"expires_at": ""})
        assert await value(vault, "x")

    play(scenario, clock=clock)


def test_metadata_is_patched_where_there_is_some_and_null_takes_a_setting_back():
    async def scenario(vault):
        assert (await refusal(vault.ask("patch", "secret/metadata/x", {"max_versions": 3}))).code == "not_found"
        await put(vault, "x", "a")
        await vault.ask("update", "secret/metadata/x", {"max_versions": 3, "custom_metadata": {"a": "1", "b": "2"}})
        await vault.ask("patch", "secret/metadata/x", {"custom_metadata": {"a": None, "c": "3"}, "cas_required": True})
        data = await about(vault, "x")
        assert (data["custom_metadata"], data["max_versions"]) == ({"b": "2", "c": "3"}, 3)
        await vault.ask("patch", "secret/metadata/x", {"custom_metadata": None, "max_versions": None})
        data = await about(vault, "x")
        assert (data["custom_metadata"], data["max_versions"], data["cas_required"]) == (None, 0, True)
        await vault.ask("update", "secret/metadata/x", {"custom_metadata": {"d": "4"}})
        assert (await about(vault, "x"))["custom_metadata"] == {"d": "4"}, "a write replaces all of it"

    play(scenario)


def test_subkeys_show_the_names_of_fields_to_a_depth_and_never_values():
    async def scenario(vault):
        await put(vault, "x", {"a": {"b": {"c": CANARY}, "d": {}}, "e": [CANARY], "f": None})
        token = await policy_token(vault, 'path "secret/subkeys/*" { capabilities = ["read"] }')

        async def shown(**data):
            reply = await vault.ask("read", "secret/subkeys/x", data, token=token)
            assert CANARY not in repr(reply)
            return reply.data["subkeys"]

        assert await shown() == {"a": {"b": {"c": None}, "d": None}, "e": None, "f": None}
        assert await shown(depth="1") == {"a": None, "e": None, "f": None}
        assert await shown(depth=2) == {"a": {"b": None, "d": None}, "e": None, "f": None}
        await put(vault, "x", {})
        assert (await shown(), await shown(version="1", depth="1")) == ({}, {"a": None, "e": None, "f": None})
        await vault.ask("delete", "secret/data/x")
        gone = await vault.ask("read", "secret/subkeys/x")
        assert (gone.found, gone.data["subkeys"], gone.data["metadata"]["version"]) == (False, None, 2)
        assert (await refusal(vault.ask("read", "secret/subkeys/x", {"version": "7"}))).code == "not_found"
        for depth in ("x", "-1", "9" * 5000, "65"):
            assert (await refusal(vault.ask("read", "secret/subkeys/x", {"depth": depth}))).code == "invalid_request"

    play(scenario)


def test_a_detailed_listing_has_the_metadata_of_what_it_names():
    async def scenario(vault):
        for name in ("a", "a/b", "a/c/d"):
            await put(vault, name, CANARY)
        for path, keys in (("", ["a", "a/"]), ("/a", ["b", "c/"])):
            data = (await vault.ask("list", f"secret/detailed-metadata{path}")).data
            assert data["keys"] == keys
            assert list(data["key_info"]) == [keys[0]]
            assert data["key_info"][keys[0]]["current_version"] == 1
            assert CANARY not in repr(data)

    play(scenario)


def test_metadata_shows_names_of_fields_and_never_values():
    async def scenario(vault):
        await put(vault, "x", {"user": CANARY, "pass": CANARY})
        token = await policy_token(vault, 'path "secret/metadata/*" { capabilities = ["read"] }')
        data = (await vault.ask("read", "secret/metadata/x", token=token)).data
        assert data["fields"] == ["pass", "user"]
        assert CANARY not in repr(data)

    play(scenario)


@pytest.mark.parametrize(
    "metadata",
    [
        {"max_versions": -1},
        {"max_versions": "many"},
        {"max_versions": 10**9},
        {"max_versions": "9" * 5000},
        {"cas_required": [1]},
        {"cas_required": "perhaps"},
        {"delete_version_after": "soon"},
        {"custom_metadata": [1]},
        {"custom_metadata": {"a": 1}},
        {"custom_metadata": {"a": "x" * 513}},
        {"custom_metadata": {"x" * 129: "a"}},
        {"custom_metadata": {"a\n": "b"}},
        {"custom_metadata": {str(n): "x" for n in range(65)}},
        {"type": "nonsense"},
        {"type": 1},
        {"owner": "a\x1b[31m"},
        {"tags": 5},
        {"tags": {"a": 1}},
        {"tags": ["x"] * 65},
        {"tags": [1]},
        {"expires_at": "soon"},
        {"expires_at": [1]},
        {"expires_in": "x"},
    ],
)
def test_odd_metadata_is_a_bad_request_and_changes_nothing(metadata):
    async def scenario(vault):
        await put(vault, "x", "a")
        before = await about(vault, "x")
        for operation in ("update", "patch"):
            assert (await refusal(vault.ask(operation, "secret/metadata/x", metadata))).code == "invalid_request"
        assert await about(vault, "x") == before

    play(scenario)


@pytest.mark.parametrize(
    "data",
    [{}, {"data": None}, {"data": []}, {"data": "x"}, {"data": {}, "options": [1]}, {"data": {}, "options": "x"}],
)
def test_odd_writes_are_a_bad_request(data):
    async def scenario(vault):
        for operation in ("update", "patch"):
            assert (await refusal(vault.ask(operation, "secret/data/x", data))).code == (
                "invalid_request" if operation == "update" or data.get("data") != {} or data["options"] else ""
            )
        assert (await refusal(get(vault, "x"))).code == "not_found"

    play(scenario)


def test_listing_shows_the_names_below_and_nothing_of_other_folders():
    async def scenario(vault):
        for name in ("a", "a/b", "a/c/d", "b", "é/ü"):
            await put(vault, name, "x")

        async def names(path):
            return (await vault.ask("list", path)).data["keys"]

        assert await names("secret/metadata") == ["a", "a/", "b", "é/"]
        assert await names("secret/metadata/a") == await names("secret/metadata/a/") == ["b", "c/"]
        assert await names("secret/metadata/é") == ["ü"]
        for path in ("secret/metadata/b", "secret/metadata/none"):
            assert (await refusal(vault.ask("list", path))).code == "not_found"

    play(scenario)


def test_two_thousand_names_are_listed_in_order():
    async def scenario(vault):
        wanted = sorted(f"n{n}" for n in range(2100))
        await asyncio.gather(*(put(vault, f"many/{name}", "x") for name in wanted))
        assert (await vault.ask("list", "secret/metadata/many")).data["keys"] == wanted

    play(scenario)


def test_a_path_without_data_is_told_apart_from_a_missing_secret():
    async def scenario(vault):
        for operation, verb in (("read", "get"), ("update", "put"), ("delete", "delete"), ("list", "list")):
            for path in ("x", "x/data/y"):
                reply = await vault.ask(operation, f"secret/{path}", {"a": CANARY})
                assert (reply.found, reply.data) == (False, None)
                assert reply.warnings[0].startswith("Invalid path for a versioned K/V secrets engine")
                assert f"'vault kv {verb}'" in reply.warnings[0]
        assert await vault.vault.storage(vault.vault.root_org, "kv").list(recursive=True) == []

    play(scenario)


def test_what_a_known_path_does_not_take_is_an_unsupported_operation():
    async def scenario(vault):
        for operation, path in (
            ("list", "data/a"),
            ("list", "subkeys/a"),
            ("update", "subkeys/a"),
            ("read", "delete/a"),
        ):
            error = await refusal(vault.ask(operation, f"secret/{path}"))
            assert (error.status, error.reason) == (405, "unsupported operation")

    play(scenario)
