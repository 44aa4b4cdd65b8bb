"""New shares and new root tokens by a threshold of shares, over Vault's wire format."""

import asyncio
import base64
import contextlib
import json
from pathlib import Path

import pytest

from faces.api_client import Client
from faces.test_api_shares import FIELDS, Team, forge, play
from keyhole.core.errors import IntegrityError
from keyhole.stores import Batch, Delete, open_store
from keyhole.testing import MemorySeal, OpenVault
from keyhole.vault.node import Node
from vault.world import journal, rows

GOLDEN = Path(__file__).resolve().parents[1] / "data" / "vault-golden" / "rekey.jsonl"
ALREADY = "given key has already been provided during this generation operation"
PAD = "BMjzW3wAsEzINXCM05Wbas3u9zSl"


async def put(people, path, **body):
    return await people.put(body, path)


async def get(people, path):
    answer = await people.ask("GET", path, token=None)
    assert answer.status == 200, answer.body
    return answer.json


async def begin(people, shares=3, threshold=2, **more):
    answer = await put(people, "sys/rekey/init", secret_shares=shares, secret_threshold=threshold, **more)
    assert answer.status == 200, answer.body
    return answer.json["nonce"]


async def rekeyed(people, keys, **more):
    nonce = await begin(people, **more)
    for key in keys:
        answer = await put(people, "sys/rekey/update", key=key, nonce=nonce)
        assert answer.status == 200, answer.body
    return answer.json


async def opens(people, keys):
    await people.node.seal()
    await people.put({"reset": True})
    for key in keys:
        answer = await people.put({"key": key})
    return answer.status == 200 and not answer.json["sealed"]


async def write(people, value):
    assert (await people.ask("POST", "secret/data/a", {"data": {"v": value}}, token=people.root)).status == 200


async def read(people):
    return (await people.ask("GET", "secret/data/a", token=people.root)).json["data"]["data"]["v"]


def test_the_recorded_answers_of_a_real_vault():
    async def scenario(people):
        for line in GOLDEN.read_text().splitlines():
            theirs = json.loads(line)
            ours = await people.ask(theirs["method"], theirs["path"], theirs["body"], token=None)
            assert ours.status == theirs["status"], (theirs, ours.body)
            if theirs["json"] is None:
                assert ours.body == b""
                continue
            assert ours.json.keys() == theirs["json"].keys(), theirs["path"]
            for name, value in theirs["json"].items():
                if name not in {"nonce", "otp", "otp_length"}:  # random, and 28 since tokens begin with hvs.
                    assert ours.json[name] == value, (theirs["path"], name)
                assert bool(ours.json[name]) is bool(value)

    play(scenario)


def test_a_threshold_of_shares_gives_new_ones_and_the_old_ones_open_nothing_any_more():
    async def scenario(people):
        await write(people, "before")
        nonce = await begin(people)
        status = await get(people, "sys/rekey/init")
        assert (status["started"], status["n"], status["t"], status["required"]) == (True, 3, 2, 3)
        for count, key in enumerate(people.keys[:2], 1):
            answer = await put(people, "sys/rekey/update", key=key, nonce=nonce)
            assert (answer.json["progress"], answer.json["started"]) == (count, True)
        done = (await put(people, "sys/rekey/update", key=people.hex[4], nonce=nonce)).json
        assert (done["complete"], done["nonce"], done["verification_required"]) == (True, nonce, False)
        assert [base64.b64decode(key).hex() for key in done["keys_base64"]] == done["keys"]
        assert len(set(done["keys"])) == 3
        assert (await get(people, "sys/rekey/init"))["started"] is False
        assert await read(people) == "before"
        await write(people, "after")
        assert not await opens(people, people.keys[:3])
        assert await opens(people, done["keys"][1:])
        assert await read(people) == "after"
        status = await people.status()
        assert (status["n"], status["t"]) == (3, 2)

    play(scenario)


def test_old_shares_count_for_nothing_after_a_rekey():
    async def scenario(people):
        await rekeyed(people, people.keys[:3])
        nonce = await begin(people)
        for key in people.keys:
            answer = await put(people, "sys/rekey/update", key=key, nonce=nonce)
            assert answer.status == 400
            assert key not in answer.body.decode()
        assert (await get(people, "sys/rekey/init"))["progress"] == 0

    play(scenario)


def test_with_verification_the_old_shares_hold_until_the_new_ones_were_entered():
    async def scenario(people):
        done = await rekeyed(people, people.keys[:3], require_verification=True)
        assert (done["verification_required"], bool(done["verification_nonce"])) == (True, True)
        standing = await get(people, "sys/rekey/verify")
        assert standing == {"nonce": done["verification_nonce"], "started": True, "t": 2, "n": 3, "progress": 0}
        nonce = standing["nonce"]
        first = await put(people, "sys/rekey/verify", key=done["keys"][0], nonce=nonce)
        assert first.json["progress"] == 1
        again = await people.ask("DELETE", "sys/rekey/verify", token=None)
        assert again.json["progress"] == 0
        assert again.json["nonce"] != nonce
        assert (await put(people, "sys/rekey/verify", key=done["keys"][0], nonce=nonce)).status == 400
        nonce = again.json["nonce"]
        for wrong in (people.keys[0], forge(done["keys_base64"][0])[:-8] + "AAAAAAA="):
            assert (await put(people, "sys/rekey/verify", key=wrong, nonce=nonce)).status == 400
        for key in done["keys"][1:]:
            last = await put(people, "sys/rekey/verify", key=key, nonce=nonce)
        assert last.json == {"nonce": nonce, "complete": True}
        assert not await opens(people, people.keys[:3])
        assert await opens(people, done["keys"][:2])

    play(scenario)


def test_a_server_that_is_sealed_before_verification_keeps_the_old_shares():
    async def scenario(people):
        done = await rekeyed(people, people.keys[:3], require_verification=True)
        assert not await opens(people, done["keys"])
        assert await opens(people, people.keys[:3])
        assert (await get(people, "sys/rekey/init"))["started"] is False
        late = await put(people, "sys/rekey/verify", key=done["keys"][0], nonce=done["verification_nonce"])
        assert (late.status, late.json) == (400, {"errors": ["no rekey in progress"]})

    play(scenario)


def test_a_cancelled_rekey_leaves_everything_as_it_was():
    async def scenario(people):
        nonce = await begin(people)
        await put(people, "sys/rekey/update", key=people.keys[0], nonce=nonce)
        assert (await people.ask("DELETE", "sys/rekey/init", token=None)).status == 204
        answer = await put(people, "sys/rekey/update", key=people.keys[1], nonce=nonce)
        assert (answer.status, answer.json) == (400, {"errors": ["no rekey in progress"]})
        assert await opens(people, people.keys[:3])

    play(scenario)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "1 to 255"),
        ({"secret_shares": 3, "secret_threshold": 4}, "between 1"),
        ({"secret_shares": 3, "secret_threshold": 1}, "at least 2"),
        ({"secret_shares": "3", "secret_threshold": 2}, "whole number"),
        ({"secret_shares": True, "secret_threshold": True}, "whole number"),
        ({"secret_shares": 1, "secret_threshold": 1, "pgp_keys": ["x"]}, "not supported"),
        ({"secret_shares": 1, "secret_threshold": 1, "backup": True}, "not supported"),
    ],
)
def test_a_rekey_that_makes_no_sense_does_not_begin(body, says):
    async def scenario(people):
        answer = await put(people, "sys/rekey/init", **body)
        assert answer.status == 400
        assert says in answer.json["errors"][0]
        assert (await get(people, "sys/rekey/init"))["started"] is False

    play(scenario)


def test_only_the_nonce_of_the_attempt_counts_and_a_share_counts_once():
    async def scenario(people):
        nonce = await begin(people)
        assert (await put(people, "sys/rekey/init", secret_shares=1, secret_threshold=1)).json == {
            "errors": ["rekey already in progress"]
        }
        for wrong in ("", "bad"):
            answer = await put(people, "sys/rekey/update", key=people.keys[0], nonce=wrong)
            assert answer.json["errors"][0].startswith("incorrect nonce supplied")
        missing = await put(people, "sys/rekey/update", nonce=nonce)
        assert missing.json == {"errors": ["'key' must be specified in request body as JSON"]}
        await put(people, "sys/rekey/update", key=people.keys[0], nonce=nonce)
        twice = await put(people, "sys/rekey/update", key=people.hex[0], nonce=nonce)
        assert (twice.status, twice.json) == (400, {"errors": [ALREADY]})
        assert (await get(people, "sys/rekey/init"))["progress"] == 1

    play(scenario)


def test_a_forged_share_undoes_what_was_entered_and_gives_nothing():
    async def scenario(people):
        for path, start in (("sys/rekey", {"secret_shares": 1, "secret_threshold": 1}), ("sys/generate-root", {})):
            begin_at = f"{path}/{'init' if 'rekey' in path else 'attempt'}"
            nonce = (await put(people, begin_at, **start)).json["nonce"]
            for key in people.keys[:2]:
                await put(people, f"{path}/update", key=key, nonce=nonce)
            answer = await put(people, f"{path}/update", key=forge(people.keys[2]), nonce=nonce)
            assert answer.status == 400
            status = await get(people, begin_at)
            assert (status["started"], status["progress"]) == (True, 0)

    play(scenario)


def decode(encoded, pad):
    hidden = base64.b64decode(encoded + "=" * (-len(encoded) % 4))
    return bytes(left ^ right for left, right in zip(hidden, pad.encode(), strict=True)).decode()


@pytest.mark.parametrize("own", [True, False])
def test_a_threshold_of_shares_makes_a_root_token_that_only_the_pad_uncovers(own):
    async def scenario(people):
        begun = (await put(people, "sys/generate-root/attempt", **({"otp": PAD} if own else {}))).json
        assert (begun["started"], begun["required"], begun["otp_length"]) == (True, 3, 28)
        pad = PAD if own else begun["otp"]
        assert bool(begun["otp"]) is not own
        assert (await get(people, "sys/generate-root/attempt"))["otp"] == ""
        for key in people.keys[1:4]:
            answer = await put(people, "sys/generate-root/update", key=key, nonce=begun["nonce"])
        done = answer.json
        assert (done["complete"], done["progress"], done["otp"]) == (True, 3, "")
        assert done["encoded_token"] == done["encoded_root_token"]
        token = decode(done["encoded_root_token"], pad)
        assert token.startswith("hvs.")
        looked = await people.ask("GET", "auth/token/lookup-self", token=token)
        assert looked.json["data"]["policies"] == ["root"]
        assert (await get(people, "sys/generate-root/attempt"))["started"] is False
        found = [record for _, record in await journal(OpenVault(people.node, people.root))]
        assert {str(r.phase) for r in found if r.path == "sys/generate-root/update"} == {"intent", "outcome"}
        bodies = [row.body for row in await rows(OpenVault(people.node, people.root))]
        assert not any(token.encode() in body or pad.encode() in body for body in bodies)

    play(scenario)


@pytest.mark.parametrize("pad", ["short", PAD + "x", "ä" * 28, 5, ["x"]])
def test_a_pad_of_another_size_is_refused(pad):
    async def scenario(people):
        answer = await put(people, "sys/generate-root/attempt", otp=pad)
        assert answer.status == 400
        assert (await get(people, "sys/generate-root/attempt"))["started"] is False

    play(scenario)


def test_nothing_of_this_can_be_asked_of_a_sealed_vault():
    async def scenario(people):
        nonce = await begin(people)
        await people.seal()
        for method, path, body in (
            ("GET", "sys/rekey/init", None),
            ("PUT", "sys/rekey/init", {"secret_shares": 1, "secret_threshold": 1}),
            ("PUT", "sys/rekey/update", {"key": people.keys[0], "nonce": nonce}),
            ("GET", "sys/generate-root/attempt", None),
            ("PUT", "sys/generate-root/attempt", {}),
            ("DELETE", "sys/generate-root/attempt", None),
            ("GET", "sys/rekey/backup", None),
        ):
            assert (await people.ask(method, path, body, token=None)).status == 503, path

    play(scenario)


def test_there_is_no_backup_of_shares():
    async def scenario(people):
        for path in ("sys/rekey/backup", "sys/rekey/recovery-key-backup"):
            answer = await people.ask("GET", path, token=people.root)
            assert (answer.status, answer.json) == (400, {"errors": ["no backed-up keys found"]})
            assert (await people.ask("DELETE", path, token=people.root)).status == 204

    play(scenario)


# Recovery shares of a vault that opens without a person.


@contextlib.asynccontextmanager
async def unattended(recovery=(5, 3), store=None):
    seal, shares = MemorySeal(), []
    node = Node(store or await open_store("memory:", create=True))
    try:
        root = await node.init("memory", seal=seal, hand_out=shares.extend, recovery=recovery)
        texts = [share.reveal().decode() for share in shares]
        made = {"root_token": root, "keys_base64": texts, "keys": [base64.b64decode(text).hex() for text in texts]}
        people = Team(node, Client(node), made)
        people.opener = seal
        yield people
    finally:
        await node.close()


def play_unattended(scenario, **options):
    async def main():
        async with unattended(**options) as people:
            await scenario(people)

    asyncio.run(main())


def test_recovery_shares_are_told_by_the_status_and_open_nothing():
    async def scenario(people):
        status = await people.status()
        assert status.keys() >= FIELDS
        assert (status["recovery_seal"], status["n"], status["t"], status["type"]) == (True, 5, 3, "memory")
        header = (await people.node.store.get(["sys/vault"]))[0].value
        held = [(await people.node.store.get([key]))[0].value for key in await people.node.store.list("sys/")]
        for share in map(base64.b64decode, people.keys):
            assert not any(share[18:50] in (value or b"") for value in (header, *held))

    play_unattended(scenario)


def test_recovery_shares_make_a_root_token_and_a_new_root_key():
    async def scenario(people):
        await write(people, "kept")
        before = (await people.node.header()).root
        begun = (await put(people, "sys/generate-root/attempt", otp=PAD)).json
        for key in people.keys[:3]:
            answer = await put(people, "sys/generate-root/update", key=key, nonce=begun["nonce"])
        token = decode(answer.json["encoded_root_token"], PAD)
        assert (await people.ask("GET", "auth/token/lookup-self", token=token)).status == 200
        done = await rekeyed(people, people.keys[:3], shares=1, threshold=1)
        assert (done["complete"], done["keys"]) == (True, [])
        assert (await people.node.header()).root != before
        assert await read(people) == "kept"
        await people.node.seal()
        await people.node.unseal(seal=people.opener)
        assert await read(people) == "kept"

    play_unattended(scenario)


@pytest.mark.parametrize("verify", [True, False])
def test_recovery_shares_are_exchanged_for_new_ones(verify):
    async def scenario(people):
        prefix = "sys/rekey-recovery-key"
        body = {"secret_shares": 3, "secret_threshold": 2, "require_verification": verify}
        nonce = (await put(people, f"{prefix}/init", **body)).json["nonce"]
        for key in people.keys[:3]:
            done = (await put(people, f"{prefix}/update", key=key, nonce=nonce)).json
        assert done["complete"]
        if verify:
            assert (await people.status())["n"] == 5
            for key in done["keys"][:2]:
                last = await put(people, f"{prefix}/verify", key=key, nonce=done["verification_nonce"])
            assert last.json["complete"]
        status = await people.status()
        assert (status["n"], status["t"]) == (3, 2)
        nonce = (await put(people, "sys/generate-root/attempt", otp=PAD)).json["nonce"]
        assert (await put(people, "sys/generate-root/update", key=people.keys[0], nonce=nonce)).status == 400
        for key in done["keys"][:2]:
            answer = await put(people, "sys/generate-root/update", key=key, nonce=nonce)
        assert answer.json["complete"]

    play_unattended(scenario)


def test_a_vault_without_shares_says_that_nobody_has_any():
    async def scenario(people):
        assert (await get(people, "sys/rekey/init"))["required"] == 0
        for path in ("sys/rekey/init", "sys/rekey-recovery-key/init", "sys/generate-root/attempt"):
            answer = await put(people, path)
            assert answer.status == 400
            assert "shares" in answer.json["errors"][0]

    play_unattended(scenario, recovery=(0, 0))


# Several nodes over one store.


def two_nodes(scenario, tmp_path):
    """A team at one node, and another node over the same store that the same people opened."""

    async def main():
        location = f"sqlite:{tmp_path}/vault.db"
        one, two = Node(await open_store(location, create=True)), Node(await open_store(location))
        try:
            made = (await Client(one)("PUT", "sys/init", {"secret_shares": 5, "secret_threshold": 3}, token=None)).json
            await Client(one)("POST", "sys/mounts/secret", {"type": "kv-v2"}, token=made["root_token"])
            people, others = Team(one, Client(one), made), Team(two, Client(two), made)
            for key in people.keys[:3]:
                await others.enter(key)
            await scenario(people, others)
        finally:
            await one.close()
            await two.close()

    asyncio.run(main())


def test_another_node_follows_a_rekey_and_writes_under_the_new_key(tmp_path):
    async def scenario(people, others):
        await write(people, "one")
        done = await rekeyed(people, people.keys[:3])
        assert await read(others) == "one"
        assert (await others.ask("POST", "sys/namespaces/acme", {}, token=others.root)).status == 200
        assert (await others.ask("POST", "sys/rotate", token=others.root)).status in {200, 204}
        await write(others, "two")
        assert await read(people) == "two"
        nonce = await begin(others)
        assert (await put(others, "sys/rekey/update", key=people.keys[0], nonce=nonce)).status == 400
        assert (await put(others, "sys/rekey/update", key=done["keys"][0], nonce=nonce)).status == 200
        for team_ in (people, others):
            assert await opens(team_, done["keys"][:2])
            assert await read(team_) == "two"

    two_nodes(scenario, tmp_path)


def test_an_attempt_belongs_to_the_node_where_it_began(tmp_path):
    async def scenario(people, others):
        nonce = await begin(people)
        answer = await put(others, "sys/rekey/update", key=people.keys[0], nonce=nonce)
        assert (answer.status, answer.json) == (400, {"errors": ["no rekey in progress"]})
        assert "another server" in answer.headers["x-keyhole-hint"]

    two_nodes(scenario, tmp_path)


def test_of_two_nodes_that_rekey_at_once_one_wins_and_the_other_is_cancelled(tmp_path):
    async def scenario(people, others):
        mine = await rekeyed(people, people.keys[:3], require_verification=True)
        theirs = await rekeyed(others, people.keys[:3])
        for key in mine["keys"][:2]:
            answer = await put(people, "sys/rekey/verify", key=key, nonce=mine["verification_nonce"])
        assert answer.status == 409
        assert not await opens(people, mine["keys"][:2])
        assert await opens(people, theirs["keys"][:2])

    two_nodes(scenario, tmp_path)


def test_a_node_that_slept_too_long_to_follow_is_sealed(tmp_path):
    async def scenario(people, others):
        done = await rekeyed(people, people.keys[:3])
        [bridge] = await people.node.store.list("sys/handover/")
        [entry] = await people.node.store.get([bridge])
        await people.node.store.commit(Batch(deletes=[Delete(bridge, entry.revision)]))
        with pytest.raises(IntegrityError):
            await others.node.sweep()
        await asyncio.gather(others.node._sealing)
        assert (await others.status())["sealed"] is True
        for key in done["keys"][:2]:
            await others.enter(key)
        assert (await others.status())["sealed"] is False

    two_nodes(scenario, tmp_path)
