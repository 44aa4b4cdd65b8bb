"""Tokens: made once, shown once, and dead for good when they are revoked, used up or expired."""

import asyncio
import sqlite3

import pytest

from keyhole.core.errors import InvalidRequest, NotFound, PolicyDenied, Unauthenticated
from keyhole.testing import FrozenClock
from keyhole.vault.tokens import MOUNT
from vault.world import Place, agent, child, play, policy_token, refusal

CREATE = 'path "auth/token/create" { capabilities = ["update"] }\n'
ORPHANS = 'path "auth/token/create-orphan" { capabilities = ["update", "sudo"] }\n'


async def alive(vault, token):
    error = await refusal(vault.ask("read", "auth/token/lookup-self", token=token))
    assert error is None or isinstance(error, Unauthenticated)
    return error is None


async def entries(vault, prefix="t"):
    return await vault.vault.storage(vault.vault.root_org, MOUNT).list(prefix, recursive=True)


def test_a_token_ends_with_its_time_and_is_swept():
    clock = FrozenClock()

    async def scenario(vault):
        token = await child(vault, policies=["default"], ttl="1h")
        below = await child(vault, token=await child(vault, policies=["root"], ttl="2h"), policies=["x"], ttl="30m")
        clock.advance(3599)
        assert await alive(vault, token)
        clock.advance(1)
        assert not await alive(vault, token)
        assert not await alive(vault, below)
        before = len(await entries(vault))
        assert await vault.node.sweep() == 2
        assert len(await entries(vault)) == before - 2

    play(scenario, clock=clock)


def test_expired_tokens_are_swept_also_after_the_vault_was_sealed_and_unsealed(monkeypatch, tmp_path):
    monkeypatch.setattr("keyhole.vault.node._SWEEP_EVERY", 0.01)
    clock, place = FrozenClock(), Place(tmp_path)

    async def scenario(vault):
        vault.node.start_sweeper()
        await child(vault, policies=["default"], ttl="1h")
        before = len(await entries(vault))
        await vault.node.seal()
        await vault.node.unseal(seal=place.seal)
        clock.advance(3601)
        async with asyncio.timeout(60):
            while len(await entries(vault)) >= before:  # noqa: ASYNC110 - nothing announces a sweep
                await asyncio.sleep(0.01)

    place.play(scenario, clock=clock)


def test_an_expired_token_is_not_renewed_back_to_life_nor_looked_up():
    clock = FrozenClock()

    async def scenario(vault):
        made = (await vault.ask("update", "auth/token/create", {"policies": ["default"], "ttl": "1h"})).auth
        clock.advance(3601)
        by_token, by_accessor = {"token": made["client_token"]}, {"accessor": made["accessor"]}
        for path, data, reason in (
            ("renew", by_token, "token not found"),
            ("renew-accessor", by_accessor, "invalid accessor"),
            ("lookup", by_token, "bad token"),
            ("lookup-accessor", by_accessor, "invalid accessor"),
        ):
            error = await refusal(vault.ask("update", f"auth/token/{path}", data))
            assert error is not None, path
            assert error.reason == reason
        assert not await alive(vault, made["client_token"])

    play(scenario, clock=clock)


def test_the_children_of_an_expired_token_go_with_it():
    clock = FrozenClock()

    async def scenario(vault):
        parent = await child(vault, policies=["root"], ttl="1h")
        below = await child(vault, token=parent, policies=["root"], ttl="10h")
        clock.advance(3601)
        await vault.node.sweep()
        assert not await alive(vault, below)

    play(scenario, clock=clock)


def test_ten_uses_are_ten_for_fifty_at_once():
    async def scenario(vault):
        token = await child(vault, policies=["default"], num_uses=10)
        answers = await asyncio.gather(*(alive(vault, token) for _ in range(50)))
        assert sum(answers) == 10
        assert await vault.node.sweep() == 1

    play(scenario)


def test_ten_uses_are_ten_on_two_nodes_of_one_store(tmp_path):
    place = Place(tmp_path)

    async def main():
        async with place.open() as one, place.open() as two:
            token = await child(one, policies=["default"], num_uses=10)
            answers = await asyncio.gather(*(alive(node, token) for _ in range(20) for node in (one, two)))
            assert sum(answers) == 10

    asyncio.run(main())


def test_a_use_limited_token_makes_no_children():
    async def scenario(vault):
        token = await policy_token(vault, CREATE, num_uses=5)
        error = await refusal(vault.ask("update", "auth/token/create", token=token))
        assert isinstance(error, InvalidRequest)
        assert error.reason == "restricted use token cannot generate child tokens"

    play(scenario)


def test_an_accessor_names_a_token_without_being_it():
    async def scenario(vault):
        made = (await vault.ask("update", "auth/token/create", {"policies": ["default"]})).auth
        found = (await vault.ask("update", "auth/token/lookup-accessor", {"accessor": made["accessor"]})).data
        assert (found["id"], found["accessor"]) == ("", made["accessor"])
        assert made["accessor"] in (await vault.ask("list", "auth/token/accessors")).data["keys"]
        with pytest.raises(Unauthenticated):
            await vault.ask("read", "auth/token/lookup-self", token=made["accessor"])
        await vault.ask("update", "auth/token/revoke-accessor", {"accessor": made["accessor"]})
        assert not await alive(vault, made["client_token"])
        assert made["accessor"] not in (await vault.ask("list", "auth/token/accessors")).data["keys"]

    play(scenario)


def test_revoking_a_token_ends_its_whole_tree_and_nothing_else():
    async def scenario(vault):
        top = await policy_token(vault, CREATE + ORPHANS)
        tree = [top]
        for parent in range(6):
            tree += [await child(vault, token=tree[parent], policies=["given"]) for _ in range(2)]
        orphan = await child(vault, token=top, path="auth/token/create-orphan", policies=["given"])
        sibling = await policy_token(vault, CREATE)
        await vault.ask("update", "auth/token/revoke", {"token": top})
        assert not any([await alive(vault, token) for token in tree])
        assert await alive(vault, orphan)
        assert await alive(vault, sibling)
        assert len(await entries(vault)) == 3  # with the root token
        assert len(await entries(vault, "a")) == 3
        assert await entries(vault, "c") != []  # those of the root token
        assert len(await entries(vault, "c")) == 1

    play(scenario)


def test_a_chain_of_any_length_is_revoked():
    async def scenario(vault):
        top = token = await policy_token(vault, CREATE)
        for _ in range(1200):
            token = await child(vault, token=token, policies=["given"])
        await vault.ask("update", "auth/token/revoke", {"token": top})
        assert not await alive(vault, token)
        assert len(await entries(vault)) == 1

    play(scenario)


def test_revoke_orphan_ends_one_and_frees_its_children_from_it():
    async def scenario(vault):
        top = await policy_token(vault, CREATE + 'path "cubbyhole/*" { capabilities = ["create", "list"] }')
        below = await child(vault, token=top, policies=["given"])
        lowest = await child(vault, token=below, policies=["given"])
        await vault.ask("update", "cubbyhole/x", {"a": "b"}, token=below)
        await vault.ask("update", "auth/token/revoke-orphan", {"token": below})
        assert not await alive(vault, below)
        assert await alive(vault, lowest)
        assert (await vault.ask("read", "auth/token/lookup-self", token=lowest)).data["orphan"]
        assert await vault.vault.storage(vault.vault.root_org, "cubbyhole").list() == []
        await vault.ask("update", "auth/token/revoke", {"token": top})
        assert await alive(vault, lowest)
        assert len(await entries(vault, "c")) == 0

    play(scenario)


def test_a_child_made_while_its_parent_is_revoked_does_not_live():
    async def scenario(vault):
        for _ in range(100):
            parent = await policy_token(vault, CREATE)
            made = await asyncio.gather(
                *(_try_child(vault, parent) for _ in range(4)),
                refusal(vault.ask("update", "auth/token/revoke", {"token": parent})),
                *(_try_child(vault, parent) for _ in range(4)),
            )
            for token in filter(lambda item: isinstance(item, str), made):
                assert not await alive(vault, token)
        assert len(await entries(vault)) == 1

    play(scenario)


def test_a_child_made_on_another_node_while_its_parent_is_revoked_does_not_live(tmp_path):
    place = Place(tmp_path)

    async def main():
        async with place.open() as one, place.open() as two:
            for _ in range(12):
                parent = await policy_token(one, CREATE)
                made = await asyncio.gather(
                    *(_try_child(two, parent) for _ in range(3)),
                    refusal(one.ask("update", "auth/token/revoke", {"token": parent})),
                    *(_try_child(two, parent) for _ in range(3)),
                )
                for token in filter(lambda item: isinstance(item, str), made):
                    assert not await alive(two, token)
            assert len(await entries(one)) == 1

    asyncio.run(main())


async def _try_child(vault, parent):
    try:
        return await child(vault, token=parent, policies=["given"])
    except (Unauthenticated, PolicyDenied, InvalidRequest):
        return None


def test_a_half_revoked_tree_is_ended_by_the_sweep(monkeypatch):
    async def scenario(vault):
        top = await policy_token(vault, CREATE)
        below = await child(vault, token=top, policies=["given"])

        async def crash(*_):
            raise RuntimeError("killed")

        with monkeypatch.context() as patch:
            patch.setattr(vault.vault.tokens, "remove", crash)
            assert (await refusal(vault.ask("update", "auth/token/revoke", {"token": top}))).code == "internal"
        assert not await alive(vault, top)
        assert not await alive(vault, below)
        assert len(await entries(vault)) == 3
        assert await vault.node.sweep() == 2
        assert len(await entries(vault)) == 1

    play(scenario)


def test_a_revoked_token_is_dead_at_once_here_and_for_the_next_request_elsewhere(tmp_path):
    place = Place(tmp_path)

    async def main():
        async with place.open() as one, place.open() as two:
            token = await agent(one)
            for node in (one, two, two):
                assert await alive(node, token)
            await one.ask("update", "agents/coder/revoke")
            assert not await alive(one, token)
            assert not await alive(two, token)

    asyncio.run(main())


def test_a_change_of_policy_holds_for_the_next_request_on_every_node(tmp_path):
    place = Place(tmp_path)

    async def main():
        async with place.open() as one, place.open() as two:
            token = await policy_token(one, 'path "secret/metadata/*" { capabilities = ["list"] }')
            await one.ask("update", "secret/data/a/b", {"data": {}})
            for node in (one, two):
                assert (await node.ask("list", "secret/metadata/a", token=token)).data
            await two.ask("delete", "sys/policies/acl/given")
            for node in (one, two):
                assert isinstance(await refusal(node.ask("list", "secret/metadata/a", token=token)), PolicyDenied)

    asyncio.run(main())


def test_tokens_are_stored_as_keyed_hashes_only(tmp_path):
    place = Place(tmp_path)

    async def make(vault):
        token = await child(vault, policies=["default"])
        accessor = (await vault.ask("read", "auth/token/lookup-self", token=token)).data["accessor"]
        return token.encode(), accessor.encode()

    wanted = place.play(make)
    with sqlite3.connect(place.file) as db:
        values = [bytes(v) for (v,) in db.execute("SELECT value FROM entry WHERE value IS NOT NULL")]
        keys = [k.encode() for (k,) in db.execute("SELECT key FROM entry")]
    db.close()
    assert not any(text in blob for text in wanted for blob in values + keys)


def test_renewal_gives_the_increment_up_to_the_caps():
    clock = FrozenClock()

    async def scenario(vault):
        made = await child(vault, policies=["default"], ttl="1h", explicit_max_ttl="3h")
        clock.advance(1800)
        renewed = (await vault.ask("update", "auth/token/renew-self", {"increment": "2h"}, token=made)).auth
        assert renewed["lease_duration"] == 7200
        clock.advance(7000)
        reply = await vault.ask("update", "auth/token/renew-self", {"increment": "2h"}, token=made)
        assert reply.auth["lease_duration"] == 3 * 3600 - 8800
        assert "exceeded the effective max_ttl" in reply.warnings[0]
        clock.advance(2001)
        assert not await alive(vault, made)

    play(scenario, clock=clock)


def test_a_periodic_token_lives_as_long_as_it_is_renewed():
    clock = FrozenClock()

    async def scenario(vault):
        token = await child(vault, policies=["default"], period="1h")
        for _ in range(1000):
            clock.advance(3000)
            assert (await vault.ask("update", "auth/token/renew-self", token=token)).auth["lease_duration"] == 3600
        clock.advance(3601)
        assert not await alive(vault, token)

    play(scenario, clock=clock)


def test_what_cannot_be_renewed_says_why():
    async def scenario(vault):
        fixed = await child(vault, policies=["default"], renewable=False)
        assert (await refusal(vault.ask("update", "auth/token/renew-self", token=fixed))).reason == (
            "lease is not renewable"
        )
        assert (await refusal(vault.ask("update", "auth/token/renew-self"))).reason == "invalid lease ID"

    play(scenario)


def test_a_child_is_never_more_than_its_parent():
    async def scenario(vault):
        await vault.ask("update", "sys/policies/acl/other", {"policy": 'path "x" { capabilities = ["read"] }'})
        parent = await policy_token(vault, CREATE)
        for fields in (
            {"policies": ["other"]},
            {"policies": ["given", "other"]},
            {"policies": ["root"]},
            {"no_parent": True},
            {"period": "1h"},
            {"policies": "given,other"},
            {"policies": ["Root"]},
        ):
            error = await refusal(vault.ask("update", "auth/token/create", fields, token=parent))
            assert isinstance(error, (InvalidRequest, PolicyDenied)), fields
        made = (await vault.ask("update", "auth/token/create", {}, token=parent)).auth
        assert made["policies"] == ["default", "given"]

    play(scenario)


def test_a_proxy_token_has_no_way_to_a_full_one():
    async def scenario(vault):
        token = await child(vault, policies=["root"], scope="proxy")
        for scope in ("full", "proxy", None):
            assert await refusal(vault.ask("update", "auth/token/create", {"scope": scope}, token=token))

    play(scenario)


def test_a_root_token_that_ends_makes_none_without_end():
    async def scenario(vault):
        ending = await child(vault, policies=["root"], ttl="1h")
        for path in ("auth/token/create", "auth/token/create-orphan"):
            error = await refusal(vault.ask("update", path, {}, token=ending))
            assert isinstance(error, InvalidRequest)
            assert "expiring root tokens" in error.reason
        assert await child(vault, token=ending, ttl="30m")

    play(scenario)


@pytest.mark.parametrize(
    "fields",
    [
        {"num_uses": -1},
        {"num_uses": "many"},
        {"num_uses": [1]},
        {"num_uses": "9" * 5000},
        {"num_uses": True},
        {"ttl": "-1s"},
        {"ttl": {"a": 1}},
        {"policies": 7},
        {"policies": [{}]},
        {"scope": ["full"]},
        {"scope": "everything"},
        {"renewable": {}},
        {"no_parent": [1]},
        {"policies": ["default"], "no_default_policy": {"a": 1}},
        {"meta": {"a": 1}},
        {"meta": ["a"]},
        {"workflow": "a\nb"},
        {"run": "x" * 1000},
    ],
)
def test_odd_fields_of_a_new_token_are_a_bad_request(fields):
    async def scenario(vault):
        await vault.ask("update", "agents/coder")
        errors = [await refusal(vault.ask("update", "auth/token/create", fields))]
        if fields.keys() & {"num_uses", "ttl", "scope", "workflow", "run"}:
            errors.append(await refusal(vault.ask("update", "agents/coder/token", fields)))
        assert all(isinstance(error, InvalidRequest) for error in errors), errors

    play(scenario)


@pytest.mark.parametrize("meta", [{"team": "red", "site": "a=b"}, ["team=red", "site=a=b"]])
def test_the_meta_of_a_token_is_an_object_or_pairs(meta):
    async def scenario(vault):
        made = await vault.ask("update", "auth/token/create", {"policies": ["default"], "meta": meta})
        assert made.auth["metadata"] == {"team": "red", "site": "a=b"}

    play(scenario)


def test_a_display_name_is_plain_text_of_one_segment():
    async def scenario(vault):
        for given, shown in (
            ("bob", "token-bob"),
            ("../a\nb/ö", "token----a-b--"),
            ("x" * 10**6, "token-" + "x" * 128),
        ):
            token = await child(vault, policies=["default"], display_name=given)
            assert (await vault.ask("read", "auth/token/lookup-self", token=token)).data["display_name"] == shown

    play(scenario)


def test_the_drawer_of_a_token_is_its_own_and_goes_with_it():
    async def scenario(vault):
        one, two = await child(vault, policies=["default"]), await child(vault, policies=["default"])
        await vault.ask("update", "cubbyhole/a/b", {"k": "mine"}, token=one)
        assert (await vault.get("cubbyhole/a/b", token=one)) == {"k": "mine"}
        for token in (two, vault.token):
            assert (await refusal(vault.ask("read", "cubbyhole/a/b", token=token))).code == "not_found"
            assert (await refusal(vault.ask("list", "cubbyhole", token=token))).code == "not_found"
        await vault.ask("update", "auth/token/revoke-self", token=one)
        assert await vault.vault.storage(vault.vault.root_org, "cubbyhole").list() == []

    play(scenario)


def test_tokens_of_a_deleted_agent_are_dead_and_do_not_come_back_with_it():
    async def scenario(vault):
        token = await agent(vault)
        await vault.ask("delete", "agents/coder")
        assert not await alive(vault, token)
        await vault.ask("update", "agents/coder")
        assert not await alive(vault, token)
        assert (await vault.ask("read", "agents/coder")).data["tokens"] == 0

    play(scenario)


def test_a_token_made_while_its_agent_is_deleted_does_not_live():
    async def scenario(vault):
        for _ in range(30):
            await vault.ask("update", "agents/coder")
            made = await asyncio.gather(
                *(_try_agent_token(vault) for _ in range(3)),
                vault.ask("delete", "agents/coder"),
                *(_try_agent_token(vault) for _ in range(3)),
            )
            for token in filter(lambda item: isinstance(item, str), made):
                assert not await alive(vault, token)

    play(scenario)


async def _try_agent_token(vault):
    try:
        return (await vault.ask("update", "agents/coder/token")).data["token"]
    except NotFound:
        return None


def test_grants_made_and_taken_back_at_once_on_two_nodes_all_hold(tmp_path):
    place = Place(tmp_path)

    async def main():
        async with place.open() as one, place.open() as two:
            await one.ask("update", "secret/data/stripe/api-key", {"data": {"value": "x"}})
            names = [f"s{n}" for n in range(8)]
            for name in names:
                service = {"hosts": [f"{name}.example.com"], "secret": "stripe/api-key", "inject": {"kind": "bearer"}}
                await one.ask("update", f"services/{name}", service)
            await one.ask("update", "agents/coder")
            nodes = [one, two] * 4
            for operation, left in (("update", names), ("delete", names[4:])):
                chosen = names if operation == "update" else names[:4]
                await asyncio.gather(
                    *(n.ask(operation, f"agents/coder/services/{s}") for n, s in zip(nodes, chosen, strict=False))
                )
                assert sorted((await two.ask("read", "agents/coder")).data["services"]) == left

    asyncio.run(main())
