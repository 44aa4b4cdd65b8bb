"""What entities and groups give to tokens that exist already, and what they take away: with the next request."""

import asyncio

import pytest

from faces.api_client import Client, play
from keyhole.core.errors import InvalidRequest
from keyhole.core.identity import Login
from keyhole.testing import open_vault
from keyhole.vault.identity.entering import enter
from vault.identities import accessor_of, login, machine, make, read
from vault.world import Place

PATH = "secret/data/app/db"


async def prepare(ask):
    """A secret, a policy that reads it, and the login of a machine that has not got it."""
    await ask("POST", PATH, {"data": {"password": "x"}})
    await ask("PUT", "sys/policies/acl/reader", {"policy": 'path "secret/data/app/*" { capabilities = ["read"] }'})
    who = await machine(ask, token_policies="none")
    return who, await login(ask, who)


def test_a_policy_of_the_entity_or_of_a_group_counts_without_a_new_login():
    async def scenario(ask, _vault):
        who, auth = await prepare(ask)
        token, entity = auth["client_token"], auth["entity_id"]

        async def status():
            return (await ask("GET", PATH, token=token)).status

        assert (await status(), auth["policies"]) == (403, ["default", "none"])
        await make(ask, f"entity/id/{entity}", policies=["reader"])
        assert await status() == 200
        own = (await ask("GET", "auth/token/lookup-self", token=token)).json["data"]
        assert (own["policies"], own["identity_policies"]) == (["default", "none"], ["reader"])
        assert own["external_namespace_policies"] == {}
        again = await login(ask, who)
        assert (again["policies"], again["identity_policies"]) == (["default", "none", "reader"], ["reader"])
        assert again["token_policies"] == ["default", "none"]
        may = await ask("POST", "sys/capabilities", {"token": token, "paths": [PATH]})
        assert may.json["data"][PATH] == ["read"]
        await make(ask, f"entity/id/{entity}", policies=[])
        assert await status() == 403
        inner = await make(ask, "group", name="inner", member_entity_ids=[entity])
        outer = await make(ask, "group", name="outer", policies=["reader"], member_group_ids=[inner["id"]])
        assert await status() == 200
        found = await read(ask, f"entity/id/{entity}")
        assert (found["direct_group_ids"], found["inherited_group_ids"]) == ([inner["id"]], [outer["id"]])
        await make(ask, "group/name/inner", member_entity_ids=[])
        assert await status() == 403

    play(scenario)


def test_a_disabled_entity_is_refused_at_once_and_cannot_log_in():
    async def scenario(ask, _vault):
        who, auth = await prepare(ask)
        token, entity = auth["client_token"], auth["entity_id"]
        assert (await ask("GET", "auth/token/lookup-self", token=token)).status == 200
        await make(ask, f"entity/id/{entity}", disabled=True)
        assert (await ask("GET", "auth/token/lookup-self", token=token)).status == 403
        assert (await ask("POST", "auth/approle/login", who.proof, token=None)).status == 403
        await make(ask, f"entity/id/{entity}", disabled=False)
        assert (await ask("GET", "auth/token/lookup-self", token=token)).status == 200
        assert (await login(ask, who))["entity_id"] == entity

    play(scenario)


def test_tokens_of_a_deleted_entity_are_refused_and_a_new_login_is_somebody_new():
    async def scenario(ask, _vault):
        who, auth = await prepare(ask)
        await make(ask, f"entity/id/{auth['entity_id']}", policies=["reader"])
        assert (await ask("GET", PATH, token=auth["client_token"])).status == 200
        await ask("DELETE", f"identity/entity/id/{auth['entity_id']}")
        assert (await ask("GET", "auth/token/lookup-self", token=auth["client_token"])).status == 403
        again = await login(ask, who)
        assert again["entity_id"] != auth["entity_id"]
        assert (await ask("GET", PATH, token=again["client_token"])).status == 403

    play(scenario)


def test_tokens_of_merged_entities_are_those_of_the_one_that_stays():
    async def scenario(ask, _vault):
        _, auth = await prepare(ask)
        stays = await make(ask, "entity", name="stays", policies=["reader"])
        await make(ask, "entity/merge", from_entity_ids=[auth["entity_id"]], to_entity_id=stays["id"])
        assert (await ask("GET", PATH, token=auth["client_token"])).status == 200
        await make(ask, "entity/name/stays", disabled=True)
        assert (await ask("GET", PATH, token=auth["client_token"])).status == 403

    play(scenario)


def test_every_node_refuses_with_the_next_request(tmp_path):
    async def scenario():
        place = Place(tmp_path)
        async with place.open() as first, place.open() as second:
            here, there = Client(first.node), Client(second.node)
            _, auth = await prepare(here)
            token, path = auth["client_token"], f"entity/id/{auth['entity_id']}"
            await make(there, path, policies=["reader"])
            assert (await here("GET", PATH, token=token)).status == 200
            assert (await there("GET", PATH, token=token)).status == 200
            await make(here, path, disabled=True)
            assert (await there("GET", PATH, token=token)).status == 403

    asyncio.run(scenario())


def test_the_groups_that_a_login_names_are_those_of_its_latest_login():
    async def scenario(ask, vault):
        inner = vault.vault
        accessor = await accessor_of(vault)
        state = await inner.compiled.state(inner.root_org)
        mount = state.mounts.at("auth/approle/")
        for name in ("Admins", "readers"):
            group = await make(ask, "group", name=name, type="external", policies=[name.lower()])
            await make(ask, "group-alias", name=name, canonical_id=group["id"], mount_accessor=accessor)

        async def entered(*groups):
            login = Login(name="user/ann", policies=(), alias="ann", groups=groups)
            entity = await enter(inner, state, mount, login)
            state_now = await inner.compiled.state(inner.root_org)
            person = await state_now.known.person(inner.orgs.identities(inner.root_org), entity)
            return entity, person.policies

        entity, policies = await entered("Admins", "readers", "READERS", "unknown")
        assert policies == ("admins", "readers")
        assert (await read(ask, "group/name/admins"))["member_entity_ids"] == [entity]
        assert await entered("readers") == (entity, ("readers",))
        assert (await read(ask, "group/name/admins"))["member_entity_ids"] is None
        alias = (await read(ask, "group/name/readers"))["alias"]
        await ask("DELETE", f"identity/group-alias/id/{alias['id']}")
        assert (await read(ask, "group/name/readers"))["member_entity_ids"] is None
        assert await entered("readers") == (entity, ())
        with pytest.raises(InvalidRequest):
            await enter(inner, state, mount, Login(name="user/ann", policies=(), alias="a" * 1025))

    play(scenario)


def test_a_template_in_a_policy_is_filled_in_for_the_entity():
    async def scenario(ask, _vault):
        _, auth = await prepare(ask)
        await ask("POST", "secret/data/team/red/x", {"data": {"v": "1"}})
        text = 'path "secret/data/team/{{identity.entity.metadata.team}}/*" { capabilities = ["read"] }'
        await ask("PUT", "sys/policies/acl/team", {"policy": text})
        path = f"entity/id/{auth['entity_id']}"
        await make(ask, path, policies=["team"])
        seen = []
        for team in ("blue", "red", "*", "blue"):
            await make(ask, path, metadata={"team": team})
            seen.append((await ask("GET", "secret/data/team/red/x", token=auth["client_token"])).status)
        assert seen == [403, 200, 403, 403]

    play(scenario)


def test_what_a_request_costs_does_not_grow_with_entities():
    async def scenario():
        async with open_vault() as vault:
            ask = Client(vault.node)
            _, auth = await prepare(ask)
            await make(ask, f"entity/id/{auth['entity_id']}", policies=["reader"])
            await make(ask, "group", name="g", policies=["reader"], member_entity_ids=[auth["entity_id"]])
            token = auth["client_token"].encode()
            await vault.vault.authenticate(token)
            _, caller = vault.vault.recognise(token)
            reads = []
            store = vault.node.store
            get = store.get

            async def counted(keys):
                reads.extend(keys)
                return await get(keys)

            store.get = counted
            assert vault.vault.recognise(token)[1] is caller
            assert (await vault.vault.authenticate(token))[1] is caller
            assert reads == []

    asyncio.run(scenario())


def test_every_token_may_look_at_its_own_entity_and_at_no_other():
    async def scenario(ask, _vault):
        _, auth = await prepare(ask)
        other = await login(ask, await machine(ask, "other"))
        token, entity = auth["client_token"], auth["entity_id"]
        name = (await read(ask, f"entity/id/{entity}", token=token))["name"]
        assert (await read(ask, f"entity/name/{name}", token=token))["id"] == entity
        answer = await ask("GET", f"identity/entity/id/{other['entity_id']}", token=token)
        assert answer.status == 403
        assert (await ask("POST", f"identity/entity/id/{entity}", {"policies": ["reader"]}, token=token)).status == 403

    play(scenario)
