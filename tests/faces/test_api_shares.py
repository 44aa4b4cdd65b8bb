"""A vault that several people open with shares, over Vault's wire format."""

import asyncio
import base64
import contextlib
import hashlib
import logging

import pytest

from faces.api_client import Client
from keyhole.core.errors import InvalidRequest
from keyhole.stores import open_store
from keyhole.testing import OpenVault
from keyhole.vault.node import Node
from vault.world import journal, rows

FIELDS = {"type", "initialized", "sealed", "t", "n", "progress", "nonce", "version", "migration", "recovery_seal"}
HEX_OR_BASE64 = "'key' must be a valid hex or base64 string"
NO_KEY = "'key' must be specified in request body as JSON, or 'reset' set to true"


class Team:
    """An API over a new vault, its root token and its shares."""

    def __init__(self, node, ask, made):
        self.node, self.ask = node, ask
        self.root, self.keys, self.hex = made["root_token"], made["keys_base64"], made["keys"]

    async def put(self, body, path="sys/unseal"):
        return await self.ask("PUT", path, body, token=None)

    async def enter(self, share):
        answer = await self.put({"key": share})
        assert answer.status == 200, answer.body
        return answer.json

    async def status(self):
        return (await self.ask("GET", "sys/seal-status", token=None)).json

    async def seal(self):
        assert (await self.ask("PUT", "sys/seal", token=self.root)).status == 204
        await self.node.seal()


@contextlib.asynccontextmanager
async def team(shares=5, threshold=3):
    node = Node(await open_store("memory:", create=True))
    ask = Client(node)
    try:
        made = await ask("PUT", "sys/init", {"secret_shares": shares, "secret_threshold": threshold}, token=None)
        assert made.status == 200, made.body
        mounted = await ask("POST", "sys/mounts/secret", {"type": "kv-v2"}, token=made.json["root_token"])
        assert mounted.status == 204, mounted.body
        yield Team(node, ask, made.json)
    finally:
        await node.close()


def play(scenario, **options):
    async def main():
        async with team(**options) as people:
            await scenario(people)

    asyncio.run(main())


def test_init_answers_with_the_shares_once_in_both_forms():
    async def scenario(people):
        assert len(set(people.keys)) == 5
        assert [base64.b64decode(key).hex() for key in people.keys] == people.hex
        again = await people.put({"secret_shares": 1, "secret_threshold": 1}, "sys/init")
        assert (again.status, again.json) == (400, {"errors": ["Vault is already initialized"]})
        status = await people.status()
        assert status.keys() >= FIELDS
        assert (status["type"], status["sealed"], status["t"], status["n"]) == ("shamir", False, 3, 5)

    play(scenario)


def test_the_threshold_opens_it_one_share_at_a_time_and_it_keeps_what_it_had():
    async def scenario(people):
        await people.ask("POST", "secret/data/a", {"data": {"v": "kept"}}, token=people.root)
        await people.seal()
        assert (await people.ask("GET", "secret/data/a", token=people.root)).status == 503
        first = await people.enter(people.keys[4])
        assert (first["sealed"], first["progress"], bool(first["nonce"])) == (True, 1, True)
        assert first.keys() >= FIELDS
        second = await people.enter(people.hex[0])
        assert (second["progress"], second["nonce"]) == (2, first["nonce"])
        twice = await people.enter(people.keys[0])
        assert (twice["sealed"], twice["progress"]) == (True, 2)
        last = await people.enter(people.keys[2])
        assert (last["sealed"], last["progress"], last["nonce"]) == (False, 0, "")
        read = await people.ask("GET", "secret/data/a", token=people.root)
        assert read.json["data"]["data"] == {"v": "kept"}
        assert (await people.enter(people.keys[1]))["sealed"] is False

    play(scenario)


def test_reset_begins_anew_and_sealing_forgets_what_was_entered():
    async def scenario(people):
        await people.seal()
        nonce = (await people.enter(people.keys[0]))["nonce"]
        reset = await people.put({"reset": True})
        assert (reset.status, reset.json["progress"], reset.json["nonce"]) == (200, 0, "")
        again = await people.enter(people.keys[0])
        assert again["progress"] == 1
        assert again["nonce"] != nonce

    play(scenario)


@pytest.mark.parametrize("key", ["zz", "abc", "ä", 5, ["x"], {"a": 1}, True])
def test_what_is_neither_hex_nor_base64_is_refused_as_vault_does(key):
    async def scenario(people):
        await people.seal()
        await people.enter(people.keys[0])
        answer = await people.put({"key": key})
        assert (answer.status, answer.json) == (400, {"errors": [HEX_OR_BASE64]})
        assert (await people.status())["progress"] == 1

    play(scenario)


def test_no_key_is_refused_as_vault_does():
    async def scenario(people):
        await people.seal()
        for body in ({}, {"key": ""}, {"key": None}, {"reset": False}):
            answer = await people.put(body)
            assert (answer.status, answer.json) == (400, {"errors": [NO_KEY]})

    play(scenario)


def test_a_mistyped_share_or_one_with_another_threshold_does_not_undo_what_was_entered():
    async def scenario(people):
        await people.seal()
        await people.enter(people.keys[0])
        typo = people.keys[1][:30] + ("A" if people.keys[1][30] != "A" else "B") + people.keys[1][31:]
        async with team(shares=5, threshold=2) as others:
            for wrong in (typo, others.keys[1], "00" * 54, "00", "A" * 4000):
                answer = await people.put({"key": wrong})
                assert answer.status == 400
                assert wrong not in answer.body.decode()
        assert (await people.status())["progress"] == 1
        await people.enter(people.keys[1])
        assert (await people.enter(people.keys[2]))["sealed"] is False

    play(scenario)


def forge(share):
    """A share of the right set with a wrong value, made by one who holds the real one."""
    head = bytearray(base64.b64decode(share)[:-3])
    head[30] ^= 1
    return base64.b64encode(bytes(head) + hashlib.sha256(head).digest()[:3]).decode()


def test_a_wrong_set_of_shares_says_so_forgets_them_and_leaves_it_sealed():
    async def scenario(people):
        await people.seal()
        async with team() as others:
            for wrong in (
                [people.keys[0], others.keys[1]],
                [people.keys[0], people.keys[1], forge(people.keys[2])],
                [people.keys[0], forge(people.keys[0])],
                others.keys[:3],
            ):
                *before, last = wrong
                for key in before:
                    await people.enter(key)
                answer = await people.put({"key": last})
                assert answer.status == 400
                assert "all are forgotten" in str(answer.body)
                assert not any(key in answer.body.decode() for key in wrong)
                status = await people.status()
                assert (status["sealed"], status["progress"], status["nonce"]) == (True, 0, "")
        for key in people.keys[2:]:
            status = await people.enter(key)
        assert status["sealed"] is False

    play(scenario)


def test_the_journal_says_that_it_was_sealed_and_unsealed_and_how_many_sets_were_wrong():
    async def scenario(people):
        await people.seal()
        for key in (*people.keys[:2], forge(people.keys[2]), *people.keys[:3]):
            await people.put({"key": key})
        vault = OpenVault(people.node, people.root)
        found = [record for _, record in await journal(vault)]
        assert any((r.operation, r.path, r.phase) == ("update", "sys/seal", "outcome") for r in found)
        [opened] = [r for r in found if r.operation == "unseal"]
        assert (opened.phase, opened.result, opened.count) == ("event", "ok", 1)
        texts = [str(r.as_data()) for r in found]
        assert not any(key in text for key in (*people.keys, *people.hex) for text in texts)

    play(scenario)


def test_no_share_is_left_in_the_store_the_log_or_any_error(caplog):
    caplog.set_level(logging.DEBUG)

    async def scenario(people):
        await people.seal()
        for key in (people.keys[0], people.keys[1], forge(people.keys[2]), people.keys[0]):
            await people.put({"key": key})
        assert people.keys[0][24:60] not in repr(vars(people.node))
        for key in people.keys[1:4]:
            await people.put({"key": key})
        store = people.node.store
        header = (await store.get(["sys/vault"]))[0].value
        bodies = [row.body for row in await rows(OpenVault(people.node, people.root))]
        for share in map(base64.b64decode, people.keys):
            for piece in (share[1:17], share[18:34], share[34:50]):
                assert not any(piece in body for body in (header, base64.b64encode(header), *bodies))
        assert not any(key in caplog.text for key in (*people.keys, *people.hex))

    play(scenario)


@pytest.mark.parametrize(
    "body",
    [
        {"secret_shares": 5},
        {"secret_threshold": 3},
        {"secret_shares": 3, "secret_threshold": 4},
        {"secret_shares": 2, "secret_threshold": 1},
        {"secret_shares": 256, "secret_threshold": 3},
        {"secret_shares": 0, "secret_threshold": 0},
        {"secret_shares": -5, "secret_threshold": 3},
        {"secret_shares": True, "secret_threshold": True},
        {"secret_shares": "5", "secret_threshold": "3:9"},
        {"secret_shares": 10**300, "secret_threshold": 3},
        {"secret_shares": 5, "secret_threshold": 3, "seal": "keychain"},
        {"secret_shares": 1, "secret_threshold": 1, "pgp_keys": ["x"]},
        {"seal": "keyfile:/etc/hostname"},
        {"seal": "age:/etc/hostname"},
        {"seal": ["keychain"]},
        {},
        {"seal": "shares"},
        {"seal": "shares:5:3:1"},
    ],
)
def test_an_init_that_makes_no_sense_makes_no_vault(body):
    async def main():
        node = Node(await open_store("memory:", create=True))
        answer = await Client(node)("PUT", "sys/init", body, token=None)
        assert answer.status == 400, answer.body
        assert await node.header() is None
        await node.close()

    asyncio.run(main())


def test_one_share_of_one_is_enough():
    async def scenario(people):
        await people.seal()
        assert (await people.enter(people.keys[0]))["sealed"] is False

    play(scenario, shares=1, threshold=1)


def test_a_vault_whose_shares_nobody_would_get_is_not_made():
    async def main():
        node = Node(await open_store("memory:", create=True))
        with pytest.raises(InvalidRequest, match="in passing"):
            await node.init("shares:5:3")
        assert await node.header() is None
        await node.close()

    asyncio.run(main())


def test_shares_that_arrive_together_open_it_once():
    async def scenario(people):
        await people.seal()
        answers = await asyncio.gather(*(people.put({"key": key}) for key in people.keys))
        assert {answer.status for answer in answers} == {200}
        assert (await people.status())["sealed"] is False
        found = [record for _, record in await journal(OpenVault(people.node, people.root))]
        assert sum(record.operation == "unseal" for record in found) == 1

    play(scenario)


def test_a_vault_that_a_client_of_vault_makes_has_no_secrets_mounted_until_it_mounts_them():
    async def scenario():
        for body, there in (
            ({"secret_shares": 1, "secret_threshold": 1}, False),
            ({"seal": "passphrase", "passphrase": "correct horse battery"}, True),
        ):
            node = Node(await open_store("memory:", create=True))
            ask = Client(node)
            root = (await ask("PUT", "sys/init", body, token=None)).json["root_token"]
            assert ("secret/" in (await ask("GET", "sys/mounts", token=root)).json["data"]) is there
            mounted = await ask("POST", "sys/mounts/secret", {"type": "kv"}, token=root)
            assert mounted.status == (400 if there else 204)
            written = await ask("POST", "secret/foo", {"zap": "zip"}, token=root)
            assert written.status == (404 if there else 204), written.body
            await node.close()

    asyncio.run(scenario())
