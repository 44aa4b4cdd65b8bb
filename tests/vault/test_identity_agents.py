"""Agents as entities: what groups give them, who may hand that out, and what ends with them."""

import pytest

from keyhole.core.errors import PolicyDenied, Unauthenticated
from vault.world import agent, child, play, policy_token, refusal, stripe, use

PATH = "secret/data/stripe/api-key"
READER = 'path "secret/data/stripe/*" { capabilities = ["read"] }'


async def entity(vault, name="coder"):
    """The entity of an agent; ``None`` when there is none."""
    mounts = (await vault.vault.compiled.state(vault.vault.root_org)).mounts
    asked = {"alias_name": name, "alias_mount_accessor": mounts.at("agents/").accessor}
    return (await vault.ask("update", "identity/lookup/entity", asked)).data


async def give(vault, policy="reader", text=READER, name="coder"):
    """Put the agent into a group with a policy."""
    await vault.ask("update", f"sys/policies/acl/{policy}", {"policy": text})
    member = (await entity(vault, name))["id"]
    await vault.ask("update", f"identity/group/name/{policy}", {"policies": [policy], "member_entity_ids": [member]})


async def reads(vault, token):
    return await refusal(vault.ask("read", PATH, token=token)) is None


def test_all_tokens_of_an_agent_are_one_entity_and_its_groups_count_for_all():
    async def scenario(vault):
        await stripe(vault)
        first, second = await agent(vault), await agent(vault)
        assert not await reads(vault, first)
        await give(vault)
        assert await reads(vault, first)
        assert await reads(vault, second)
        assert (await vault.ask("read", "sys/what-can/coder")).data["policies"] == ["default", "agent/coder", "reader"]
        found = (await vault.ask("read", "sys/who-can/stripe/api-key")).data["agents"]
        assert found == [{"agent": "coder", "uses_through": [], "may": ["read"]}]

    play(scenario)


def test_a_token_for_some_policies_has_no_others_and_ends_with_the_entity_all_the_same():
    async def scenario(vault):
        await stripe(vault)
        await agent(vault)
        await give(vault)
        task = await agent(vault, policies=["default"])
        assert not await reads(vault, task)
        own = (await vault.ask("read", "auth/token/lookup-self", token=task)).data
        assert (own["entity_id"], "identity_policies" in own) == ((await entity(vault))["id"], False)
        await vault.ask("update", f"identity/entity/id/{own['entity_id']}", {"disabled": True})
        assert isinstance(await refusal(vault.ask("read", "auth/token/lookup-self", token=task)), Unauthenticated)
        await vault.ask("update", f"identity/entity/id/{own['entity_id']}", {"disabled": False})
        allowed = 'path "auth/token/create" { capabilities = ["update"] }'
        await vault.ask("update", "sys/policies/acl/maker", {"policy": allowed})
        task = await agent(vault, policies=["maker"])
        assert not await reads(vault, await child(vault, token=task))

    play(scenario)


def test_a_disabled_agent_uses_nothing_and_gets_no_token():
    async def scenario(vault):
        await stripe(vault)
        token = await agent(vault, services=["stripe"])
        assert (await use(vault, "services/stripe", token)).lent
        member = (await entity(vault))["id"]
        await vault.ask("update", f"identity/entity/id/{member}", {"disabled": True})
        assert isinstance(await refusal(use(vault, "services/stripe", token)), Unauthenticated)
        assert isinstance(await refusal(vault.ask("update", "agents/coder/token")), PolicyDenied)
        assert (await vault.ask("read", "sys/what-can/coder")).data["services"] == []

    play(scenario)


@pytest.mark.parametrize("alias", [False, True])
def test_an_agent_that_is_deleted_is_nobody_and_a_later_one_is_somebody_else(alias):
    async def scenario(vault):
        await stripe(vault)
        await agent(vault)
        before = (await entity(vault))["id"]
        await give(vault)
        if alias:
            accessor = (await vault.ask("read", "sys/auth")).data["token/"]["accessor"]
            asked = {"name": "x", "canonical_id": before, "mount_accessor": accessor}
            await vault.ask("update", "identity/entity-alias", asked)
        await vault.ask("delete", "agents/coder")
        assert await entity(vault) is None
        kept = await refusal(vault.ask("read", f"identity/entity/id/{before}")) is None
        assert kept is alias
        token = await agent(vault)
        assert (await entity(vault))["id"] != before
        assert not await reads(vault, token)

    play(scenario)


def test_who_makes_a_token_of_an_agent_must_be_allowed_what_its_groups_are():
    async def scenario(vault):
        await stripe(vault)
        maker = await policy_token(vault, 'path "agents/+/token" { capabilities = ["create", "update"] }')
        await agent(vault)
        await give(vault)
        assert isinstance(await refusal(vault.ask("update", "agents/coder/token", token=maker)), PolicyDenied)
        await vault.ask("update", "agents/coder/token", {"policies": ["default"]}, token=maker)
        both = await child(vault, policies=["given", "reader"])
        await vault.ask("update", "agents/coder/token", token=both)

    play(scenario)


def test_a_refused_token_leaves_no_entity_behind():
    async def scenario(vault):
        await stripe(vault)
        await vault.ask("update", "agents/coder")
        await vault.ask("update", "agents/coder/services/stripe")
        maker = await policy_token(vault, 'path "agents/+/token" { capabilities = ["create", "update"] }')
        assert isinstance(await refusal(vault.ask("update", "agents/coder/token", token=maker)), PolicyDenied)
        assert await entity(vault) is None

    play(scenario)


def test_a_group_can_give_the_use_of_a_service():
    async def scenario(vault):
        await stripe(vault)
        token = await agent(vault)
        await give(vault, "user", 'path "services/stripe" { capabilities = ["use"] }')
        assert (await use(vault, "services/stripe", token)).lent
        answer = await vault.ask("read", "sys/what-can/coder")
        assert [service["name"] for service in answer.data["services"]] == ["stripe"]

    play(scenario)
