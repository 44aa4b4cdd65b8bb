"""Logins make an entity with an alias, and find it again."""

import asyncio

from faces.api_client import Client, play
from keyhole.vault.identity.book import Book
from vault.identities import login, machine
from vault.world import Place


async def entities(vault):
    return await Book(vault.vault.orgs.identities(vault.vault.root_org)).entities()


def test_every_login_of_a_role_is_the_same_entity():
    async def scenario(ask, vault):
        proof = await machine(ask)
        first, second = await login(ask, proof), await login(ask, proof)
        assert first["entity_id"] == second["entity_id"] != ""
        other = await login(ask, await machine(ask, "other"))
        assert other["entity_id"] != first["entity_id"]
        data = (await ask("GET", "auth/token/lookup-self", token=first["client_token"])).json["data"]
        assert data["entity_id"] == first["entity_id"]
        found = {entity.id: entity for entity in await entities(vault)}
        alias = found[first["entity_id"]].aliases[0]
        assert (alias.name, alias.mount_type, alias.metadata) == (proof.role_id, "approle", {"role_name": "app"})

    play(scenario, enabled=["sys/auth/approle"])


def test_many_first_logins_at_once_make_one_entity():
    async def scenario(ask, vault):
        proof = await machine(ask)
        made = await asyncio.gather(*(login(ask, proof) for _ in range(12)))
        assert len({auth["entity_id"] for auth in made}) == 1
        assert len(await entities(vault)) == 1

    play(scenario, enabled=["sys/auth/approle"])


def test_first_logins_at_two_nodes_at_once_make_one_entity(tmp_path):
    async def scenario():
        place = Place(tmp_path)
        async with place.open() as first, place.open() as second:
            here, there = Client(first.node), Client(second.node)
            for turn in range(4):
                proof = await machine(here, f"app{turn}")
                asked = [login(ask, proof) for ask in (here, there) * 3]
                made = {auth["entity_id"] for auth in await asyncio.gather(*asked)}
                assert len(made) == 1
            assert len(await entities(second)) == 4

    asyncio.run(scenario())


def test_a_token_without_a_login_has_no_entity_and_a_child_has_its_parents():
    async def scenario(ask, _vault):
        made = (await ask("POST", "auth/token/create", {"policies": ["app"]})).json["auth"]
        assert made["entity_id"] == ""
        await ask("PUT", "sys/policies/acl/app", {"policy": 'path "auth/token/create*" { capabilities = ["update"] }'})
        auth = await login(ask, await machine(ask))
        child = (await ask("POST", "auth/token/create", {}, token=auth["client_token"])).json["auth"]
        assert child["entity_id"] == auth["entity_id"]

    play(scenario, enabled=["sys/auth/approle"])
