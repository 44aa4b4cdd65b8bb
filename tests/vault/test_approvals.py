"""Approvals as stored: they outlive a restart, hold on every node, end by themselves, and are used once."""

import asyncio
import json
from dataclasses import replace

import pytest

from keyhole.core.checks.approval import Subject
from keyhole.core.errors import Conflict, NotFound, PolicyDenied
from keyhole.core.request import Anonymous
from keyhole.testing import FrozenClock
from keyhole.vault import approvals
from keyhole.vault.approvals import Wish
from vault.world import Place, agent, org, play, refusal

SUBJECT = Subject("a" * 64, "b" * 64, "c" * 64)
WISH = Wish("agent/coder", SUBJECT, 600, {"service": "stripe", "method": "POST", "host": "api", "target": "/pay"})


def storage(vault):
    return vault.vault.storage(vault.vault.root_org, approvals.MOUNT)


async def ask(vault, wish=WISH):
    now = vault.vault.clock.now()
    return await approvals.ask(storage(vault), wish, now, await approvals.find(storage(vault), wish, now))


async def find(vault, wish=WISH):
    return await approvals.find(storage(vault), wish, vault.vault.clock.now())


def test_a_request_is_approved_after_a_restart_and_used_after_another(tmp_path):
    place = Place(tmp_path)

    async def begin(vault):
        return await ask(vault)

    async def approve(vault):
        return await vault.ask("update", f"approvals/requests/{request_id}/approve")

    async def use(vault):
        found = await find(vault)
        assert found.approved == request_id
        await approvals.take(storage(vault), WISH, found)
        assert not (await find(vault)).approved
        return await refusal(approvals.take(storage(vault), WISH, found))

    request_id = place.play(begin)
    place.play(approve)
    assert isinstance(place.play(use), Conflict)


def test_two_nodes_use_one_approval_once(tmp_path):
    place = Place(tmp_path)

    async def main():
        async with place.open() as first, place.open() as second:
            request_id = await ask(first)
            await second.ask("update", f"approvals/requests/{request_id}/approve")
            seen = [await find(node) for node in (first, second)]
            uses = [
                refusal(approvals.take(storage(node), WISH, found))
                for node, found in zip((first, second), seen, strict=True)
            ]
            return await asyncio.gather(*uses)

    outcome = asyncio.run(main())
    assert sorted(type(error).__name__ for error in outcome) == ["Conflict", "NoneType"]


@pytest.mark.parametrize("fields", [None, {}, {"for": "10m"}, {"for": "10m", "kind": "path"}])
def test_everything_ends_by_itself_and_leaves_nothing(fields):
    clock = FrozenClock()

    async def scenario(vault):
        request_id = await ask(vault)
        if fields is not None:
            await vault.ask("update", f"approvals/requests/{request_id}/approve", fields)
            assert (await find(vault)).approved
        clock.advance(599)
        found = await find(vault)
        assert found.approved or found.request
        clock.advance(2)
        found = await find(vault)
        assert not found.approved
        assert not found.request
        late = await refusal(vault.ask("update", f"approvals/requests/{request_id}/approve", {"for": "1h"}))
        assert isinstance(late, NotFound)
        assert isinstance(await refusal(vault.ask("list", "approvals/requests")), NotFound)
        assert isinstance(await refusal(vault.ask("list", "approvals/standing")), NotFound)
        await vault.node.sweep()
        assert await storage(vault).list(recursive=True) == []

    play(scenario, clock=clock)


def test_an_approval_is_good_from_when_it_was_given():
    clock = FrozenClock()

    async def scenario(vault):
        request_id = await ask(vault)
        clock.advance(599)
        await vault.ask("update", f"approvals/requests/{request_id}/approve")
        clock.advance(599)
        return (await find(vault)).approved == request_id

    assert play(scenario, clock=clock)


def test_a_request_can_be_asked_for_again_after_it_ended():
    clock = FrozenClock()

    async def scenario(vault):
        first = await ask(vault)
        clock.advance(601)
        second = await ask(vault)
        assert first != second
        await vault.ask("update", f"approvals/requests/{second}/approve")
        return (await find(vault)).approved == second

    assert play(scenario, clock=clock)


def test_a_standing_approval_is_made_longer_by_another():
    clock = FrozenClock()

    async def scenario(vault):
        for seconds in ("10m", "1h"):
            other = replace(WISH, subject=replace(SUBJECT, exact=seconds))
            request_id = await ask(vault, other)
            await vault.ask("update", f"approvals/requests/{request_id}/approve", {"for": seconds, "kind": "path"})
        rules = (await vault.ask("list", "approvals/standing")).data["keys"]
        clock.advance(1800)
        return len(rules), bool((await find(vault)).approved)

    assert play(scenario, clock=clock) == (1, True)


def test_an_agent_that_is_made_again_has_no_approvals_of_the_one_before():
    other = replace(WISH, agent="agent/other")

    async def scenario(vault):
        for name in ("coder", "other"):
            await vault.ask("update", f"agents/{name}")
        for wish in (WISH, other):
            request_id = await ask(vault, wish)
            await vault.ask("update", f"approvals/requests/{request_id}/approve", {"for": "1h", "kind": "path"})
            once = replace(wish, subject=Subject("d", "e", "f"))
            await vault.ask("update", f"approvals/requests/{await ask(vault, once)}/approve")
        await vault.ask("delete", "agents/coder")
        await vault.ask("update", "agents/coder")
        left = [bool((await find(vault, wish)).approved) for wish in (WISH, other)]
        once = replace(WISH, subject=Subject("d", "e", "f"))
        assert not (await find(vault, once)).approved
        assert await ask(vault, once)
        return left

    assert play(scenario) == [False, True]


def test_approvals_lie_encrypted_and_go_with_their_org():
    async def scenario(vault):
        root = await org(vault, "acme")
        await vault.ask("update", "agents/coder", token=root)
        state = await vault.vault.compiled.state(vault.vault.root_org)
        assert state is not None
        request_id = await ask(vault)
        keys = await vault.node.store.list(f"{vault.vault.root_org}/approvals/", limit=100)
        entries = await vault.node.store.get(keys)
        assert keys
        return request_id, b" ".join(entry.value or b"" for entry in entries) + " ".join(keys).encode()

    request_id, stored = play(scenario)
    for needle in (b"coder", b"stripe", b"/pay", request_id.encode()):
        assert needle not in stored


def test_who_asked_cannot_approve_under_another_name_of_the_same_entity():
    async def scenario(vault):
        policy = 'path "approvals/requests/+/approve" { capabilities = ["create", "update"] }'
        await vault.ask("update", "sys/policies/acl/approver", {"policy": policy})
        own = (await vault.ask("read", "auth/token/lookup-self", token=await agent(vault))).data["entity_id"]
        request_id = await ask(vault, replace(WISH, entity=own))
        await vault.ask("update", "sys/auth/approle", {"type": "approle"})
        await vault.ask("update", "auth/approle/role/boss", {"token_policies": ["approver"]})
        proof = (await vault.ask("read", "auth/approle/role/boss/role-id")).data
        made = await vault.ask("update", "auth/approle/role/boss/secret-id")
        proof["secret_id"] = json.loads(made.data["secret_id"].reveal())
        boss = (await vault.ask("update", "auth/approle/login", proof, token=Anonymous())).auth
        await vault.ask(
            "update", "identity/entity/merge", {"from_entity_ids": [boss["entity_id"]], "to_entity_id": own}
        )
        path = f"approvals/requests/{request_id}/approve"
        refused = await refusal(vault.ask("update", path, token=boss["client_token"]))
        assert isinstance(refused, PolicyDenied)
        assert "entity" not in (await vault.ask("read", f"approvals/requests/{request_id}")).data
        await vault.ask("update", path)

    play(scenario)
