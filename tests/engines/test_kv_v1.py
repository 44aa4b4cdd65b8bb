"""Secrets without versions: what is written is what is there, in as many mounts as one likes."""

import json

import pytest

from engines.mounting import mount
from keyhole.core.errors import InvalidRequest
from keyhole.faces.api.envelope import render
from keyhole.testing import FrozenClock
from vault.world import CANARY, play, policy_token, refusal


async def shown(vault, path, **who):
    """Status and body of a read, as a client sees them."""
    status, _, body = render(await vault.ask("read", path, **who))
    return status, json.loads(body)


def test_a_write_replaces_all_that_was_there():
    async def scenario(vault):
        await mount(vault, "kv1", "kv", version="1")
        assert await vault.ask("update", "kv1/a/b", {"k": "v", "nest": {"x": [1, None]}})
        assert (await shown(vault, "kv1/a/b"))[1]["data"] == {"k": "v", "nest": {"x": [1, None]}}
        await vault.ask("update", "kv1/a/b", {"other": 1})
        assert (await shown(vault, "kv1/a/b"))[1]["data"] == {"other": 1}
        await vault.ask("delete", "kv1/a/b")
        assert (await refusal(vault.ask("read", "kv1/a/b"))).code == "not_found"
        await vault.ask("delete", "kv1/a/b")
        error = await refusal(vault.ask("update", "kv1/a/b", {}))
        assert error.reason == "missing data fields"

    play(scenario)


@pytest.mark.parametrize(
    ("data", "seconds"),
    [
        ({"ttl": "30s"}, 30),
        ({"ttl": 90}, 90),
        ({"lease": "1h"}, 3600),
        ({"ttl": "soon", "lease": "5m"}, 300),
        ({"ttl": "soon"}, 2764800),
        ({"ttl": {"a": 1}}, 2764800),
        ({"k": "v"}, 2764800),
    ],
)
def test_a_secret_says_how_long_to_rely_on_it(data, seconds):
    async def scenario(vault):
        await mount(vault, "kv1", "kv", version="1")
        await vault.ask("update", "kv1/x", data)
        body = (await shown(vault, "kv1/x"))[1]
        assert (body["lease_duration"], body["lease_id"], body["renewable"]) == (seconds, "", False)

    play(scenario)


def test_names_are_listed_folder_by_folder():
    async def scenario(vault):
        await mount(vault, "kv1", "kv", version="1")
        for name in ("a", "a/b", "a/c/d", "b"):
            await vault.ask("update", f"kv1/{name}", {"k": "v"})
        assert (await vault.ask("list", "kv1/")).data["keys"] == ["a", "a/", "b"]
        assert (await vault.ask("list", "kv1/a")).data["keys"] == ["b", "c/"]
        assert (await refusal(vault.ask("list", "kv1/none"))).code == "not_found"

    play(scenario)


def test_create_and_update_are_told_apart():
    async def scenario(vault):
        await mount(vault, "kv1", "kv", version="1")
        token = await policy_token(vault, 'path "kv1/*" { capabilities = ["create"] }')
        await vault.ask("update", "kv1/x", {"k": "v"}, token=token)
        error = await refusal(vault.ask("update", "kv1/x", {"k": "w"}, token=token))
        assert error.code == "policy_denied"
        assert (await shown(vault, "kv1/x"))[1]["data"] == {"k": "v"}

    play(scenario)


def test_two_mounts_of_each_version_keep_their_secrets_apart():
    async def scenario(vault):
        for path, version in (("one", "1"), ("two", "1"), ("three", "2"), ("four", "2")):
            await mount(vault, path, "kv", version=version)
        for path in ("one", "two"):
            await vault.ask("update", f"{path}/x", {"at": path})
        for path in ("three", "four", "secret"):
            await vault.ask("update", f"{path}/data/x", {"data": {"at": path}})
        await vault.ask("delete", "two/x")
        await vault.ask("delete", "four/metadata/x")
        assert (await shown(vault, "one/x"))[1]["data"] == {"at": "one"}
        for path in ("three", "secret"):
            assert (await shown(vault, f"{path}/data/x"))[1]["data"]["data"] == {"at": path}
        for path in ("two/x", "four/data/x"):
            assert (await refusal(vault.ask("read", path))).code == "not_found"

    play(scenario)


def test_a_value_is_masked_until_a_face_shows_it():
    async def scenario(vault):
        await mount(vault, "kv1", "kv", version="1")
        await vault.ask("update", "kv1/x", {"k": CANARY})
        assert CANARY not in repr(await vault.ask("read", "kv1/x"))

    play(scenario, clock=FrozenClock())


def test_there_is_no_third_version():
    async def scenario(vault):
        with pytest.raises(InvalidRequest):
            await mount(vault, "kv3", "kv", version="3")

    play(scenario)
