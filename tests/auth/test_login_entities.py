"""Logins make an entity with an alias, and find it again."""

import asyncio

from faces.api_client import play
from keyhole.vault.identity.book import Book


async def approle(ask, name="app", **fields):
    """What proves the role, as a body for a login."""
    await ask("POST", f"auth/approle/role/{name}", {"token_policies": "app", **fields})
    role = (await ask("GET", f"auth/approle/role/{name}/role-id")).json["data"]["role_id"]
    secret = (await ask("POST", f"auth/approle/role/{name}/secret-id")).json["data"]["secret_id"]
    return {"role_id": role, "secret_id": secret}


async def login(ask, proof):
    answer = await ask("POST", "auth/approle/login", proof, token=None)
    assert answer.status == 200, answer.body
    return answer.json["auth"]


async def entities(vault):
    return await Book(vault.vault.orgs.identities(vault.vault.root_org)).entities()


def test_every_login_of_a_role_is_the_same_entity():
    async def scenario(ask, vault):
        proof = await approle(ask)
        first, second = await login(ask, proof), await login(ask, proof)
        assert first["entity_id"] == second["entity_id"] != ""
        other = await login(ask, await approle(ask, "other"))
        assert other["entity_id"] != first["entity_id"]
        data = (await ask("GET", "auth/token/lookup-self", token=first["client_token"])).json["data"]
        assert data["entity_id"] == first["entity_id"]
        found = {entity.id: entity for entity in await entities(vault)}
        alias = found[first["entity_id"]].aliases[0]
        assert (alias.name, alias.mount_type, alias.metadata) == (proof["role_id"], "approle", {"role_name": "app"})

    play(scenario, enabled=["sys/auth/approle"])


def test_many_first_logins_at_once_make_one_entity():
    async def scenario(ask, vault):
        proof = await approle(ask)
        made = await asyncio.gather(*(login(ask, proof) for _ in range(12)))
        assert len({auth["entity_id"] for auth in made}) == 1
        assert len(await entities(vault)) == 1

    play(scenario, enabled=["sys/auth/approle"])


def test_a_token_without_a_login_has_no_entity_and_a_child_has_its_parents():
    async def scenario(ask, _vault):
        made = (await ask("POST", "auth/token/create", {"policies": ["app"]})).json["auth"]
        assert made["entity_id"] == ""
        await ask("PUT", "sys/policies/acl/app", {"policy": 'path "auth/token/create*" { capabilities = ["update"] }'})
        auth = await login(ask, await approle(ask))
        child = (await ask("POST", "auth/token/create", {}, token=auth["client_token"])).json["auth"]
        assert child["entity_id"] == auth["entity_id"]

    play(scenario, enabled=["sys/auth/approle"])
