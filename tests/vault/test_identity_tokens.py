"""Identity tokens: what they say, who can prove it, and how long. They are verified by another library than signs."""

import asyncio
import base64
import json
import warnings

import pytest
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from faces.api_client import Client, play
from keyhole.testing import FrozenClock, open_vault
from vault.identities import accessor_of, login, machine, make, read

ISSUER = "https://keyhole.example.com:8200"


async def ready(ask, *, algorithm="ES256", **role):
    """A key, a role ``app`` and the login of a machine that may ask for its tokens."""
    await ask("POST", "identity/oidc/config", {"issuer": ISSUER})
    made = await ask("POST", "identity/oidc/key/main", {"algorithm": algorithm, "allowed_client_ids": "*"})
    assert made.status == 204, made.body
    made = await ask("POST", "identity/oidc/role/app", {"key": "main", "ttl": "10m", **role})
    assert made.status == 204, made.body
    await ask("PUT", "sys/policies/acl/app", {"policy": 'path "identity/oidc/token/*" { capabilities = ["read"] }'})
    return await login(ask, await machine(ask))


async def token_of(ask, auth, role="app"):
    answer = await ask("GET", f"identity/oidc/token/{role}", token=auth["client_token"])
    assert answer.status == 200, answer.body
    return answer.json["data"]


async def published(ask):
    answer = await ask("GET", "identity/oidc/.well-known/keys", token=None)
    assert answer.status == 200, answer.body
    return answer.json["keys"]


def verified(token, keys):
    """Header and claims, as another library reads them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it prefers a newer name for EdDSA, which Vault's clients do not know
        found = jwt.decode(token, KeySet.import_key_set({"keys": keys}), algorithms=[key["alg"] for key in keys])
    return found.header, found.claims


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA"])
def test_anybody_can_prove_a_token_with_the_published_keys(algorithm):
    async def scenario(ask, vault):
        auth = await ready(ask, algorithm=algorithm)
        data = await token_of(ask, auth)
        header, claims = verified(data["token"], await published(ask))
        assert header["alg"] == algorithm
        now = vault.vault.clock.now()
        assert (claims["sub"], claims["aud"]) == (auth["entity_id"], data["client_id"])
        assert (claims["iss"], claims["namespace"]) == (f"{ISSUER}/v1/identity/oidc", "root")
        assert claims["exp"] - claims["iat"] == data["ttl"] == 600
        assert abs(claims["iat"] - now) < 5

    play(scenario)


def test_discovery_leads_to_the_keys_without_a_token():
    async def scenario(ask, _vault):
        await ready(ask)
        found = (await ask("GET", "identity/oidc/.well-known/openid-configuration", token=None)).json
        assert found["issuer"] == f"{ISSUER}/v1/identity/oidc"
        assert found["jwks_uri"] == f"{ISSUER}/v1/identity/oidc/.well-known/keys"
        assert "ES256" in found["id_token_signing_alg_values_supported"]
        assert (await ask("GET", "identity/oidc/config", token=None)).status == 403
        keys = await published(ask)
        assert len(keys) == 2  # the one that signs, and the next one
        assert not any({"d", "p", "q"} & set(key) for key in keys)

    play(scenario)


def test_claims_come_from_a_template():
    async def scenario(ask, vault):
        accessor = await accessor_of(vault)
        parts = {
            "name": "identity.entity.name",
            "team": "identity.entity.metadata.team",
            "all": "identity.entity.metadata",
            "groups": "identity.entity.groups.names",
            "role": f"identity.entity.aliases.{accessor}.metadata.role_name",
            "none": "identity.entity.metadata.unknown",
            "later": "time.now.plus.1h",
        }
        text = "{" + ", ".join(f'"{claim}": {{{{{selector}}}}}' for claim, selector in parts.items()) + "}"
        auth = await ready(ask, template=base64.b64encode(text.encode()).decode())
        assert (await read(ask, "oidc/role/app"))["template"] == text
        hostile = '","sub":"someone else'
        await make(ask, f"entity/id/{auth['entity_id']}", name="ann", metadata={"team": hostile})
        await make(ask, "group", name="g", member_entity_ids=[auth["entity_id"]])
        _, claims = verified((await token_of(ask, auth))["token"], await published(ask))
        assert (claims["name"], claims["team"], claims["all"]) == ("ann", hostile, {"team": hostile})
        assert (claims["groups"], claims["role"], claims["none"]) == (["g"], "app", "")
        assert claims["later"] == claims["iat"] + 3600
        assert claims["sub"] == auth["entity_id"]

    play(scenario)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ('{"sub": "x"}', "top level key"),
        ('{"a": {{identity.entity.unknown}}}', "unknown parameter"),
        ('{"a": "{{identity.entity.name}}"}', "error parsing template"),
        ('{"a": "{{identity.entity.groups.names}}"}', "error parsing template"),
        ('{"a": "{{identity.entity.metadata}}"}', "error parsing template"),
        ('{"a": 1', "error parsing template"),
        ("[1]", "error parsing template"),
        ('{"a": 1, "a": 2}', "error parsing template"),
    ],
)
def test_a_template_that_could_say_something_else_is_refused(template, text):
    async def scenario(ask, _vault):
        await ask("POST", "identity/oidc/key/main", {"algorithm": "EdDSA"})
        answer = await ask("POST", "identity/oidc/role/app", {"key": "main", "template": template})
        assert (answer.status, answer.json["errors"][0].startswith(text)) == (400, True), answer.body

    play(scenario)


def test_tokens_from_before_a_rotation_count_until_their_key_is_forgotten():
    async def scenario():
        clock = FrozenClock()
        async with open_vault(clock=clock) as vault:
            ask = Client(vault.node)
            auth = await ready(ask, ttl="10m")
            before = await published(ask)
            first = (await token_of(ask, auth))["token"]
            await ask("POST", "identity/oidc/key/main/rotate", {"verification_ttl": "1h"})
            second = (await token_of(ask, auth))["token"]
            keys = await published(ask)
            kid = verified(second, keys)[0]["kid"]
            assert kid != verified(first, keys)[0]["kid"]
            assert kid in {key["kid"] for key in before}  # verifiers knew it before it signed
            clock.advance(3601)
            keys = await published(ask)
            assert len(keys) == 2
            with pytest.raises((JoseError, ValueError)):
                verified(first, keys)
            clock.advance(24 * 3600)
            auth = await login(ask, await machine(ask))
            third = (await token_of(ask, auth))["token"]
            assert verified(third, await published(ask))[0]["kid"] not in {kid, verified(second, keys)[0]["kid"]}

    asyncio.run(scenario())


async def introspection(ask, token, **fields):
    return (await ask("POST", "identity/oidc/introspect", {"token": token, **fields})).json


def test_introspection_knows_what_a_signature_cannot_say():
    async def scenario():
        clock = FrozenClock()
        async with open_vault(clock=clock) as vault:
            ask = Client(vault.node)
            auth = await ready(ask)
            data = await token_of(ask, auth)
            token = data["token"]
            assert await introspection(ask, token) == {"active": True}
            assert await introspection(ask, token, client_id=data["client_id"]) == {"active": True}
            assert (await introspection(ask, token, client_id="another"))["active"] is False
            await make(ask, f"entity/id/{auth['entity_id']}", disabled=True)
            assert await introspection(ask, token) == {"active": False, "error": "entity is disabled"}
            await make(ask, f"entity/id/{auth['entity_id']}", disabled=False)
            assert await introspection(ask, token) == {"active": True}
            clock.advance(601)
            assert await introspection(ask, token) == {"active": False, "error": "the token has expired"}
            clock.advance(-601)
            await ask("DELETE", f"identity/entity/id/{auth['entity_id']}")
            assert await introspection(ask, token) == {"active": False, "error": "entity was not found"}

    asyncio.run(scenario())


def test_a_token_that_was_changed_is_not_good():
    async def scenario(ask, _vault):
        auth = await ready(ask)
        token = (await token_of(ask, auth))["token"]
        header, claims, signature = token.split(".")
        said = json.loads(base64.urlsafe_b64decode(claims + "=="))
        other = base64.urlsafe_b64encode(json.dumps({**said, "sub": "x"}).encode()).rstrip(b"=").decode()
        none = base64.urlsafe_b64encode(b'{"alg":"none","kid":"x"}').rstrip(b"=").decode()
        kid = json.loads(base64.urlsafe_b64decode(header + "=="))["kid"]
        hmac = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": kid}).encode()).rstrip(b"=").decode()
        forged = [
            f"{header}.{other}.{signature}",
            f"{header}.{claims}.",
            f"{none}.{claims}.",
            f"{hmac}.{claims}.{signature}",
            f"{header}.{claims}.{signature}=",
            f"{header}.{claims}",
            "x.y.z",
            "é.é.é",
            "a" * 70_000,
        ]
        for each in forged:
            assert (await introspection(ask, each))["active"] is False
        assert (await introspection(ask, token))["active"] is True

    play(scenario)


def test_a_key_signs_for_the_clients_that_it_names():
    async def scenario(ask, _vault):
        auth = await ready(ask)
        await ask("POST", "identity/oidc/key/narrow", {"algorithm": "EdDSA", "allowed_client_ids": ["other"]})
        await ask("POST", "identity/oidc/role/app", {"key": "narrow"})
        client = (await read(ask, "oidc/role/app"))["client_id"]
        answer = await ask("GET", "identity/oidc/token/app", token=auth["client_token"])
        assert (answer.status, "allowed client ID" in answer.json["errors"][0]) == (400, True)
        await ask("POST", "identity/oidc/key/narrow", {"allowed_client_ids": ["other", client]})
        assert (await token_of(ask, auth))["client_id"] == client
        answer = await ask("DELETE", "identity/oidc/key/narrow")
        assert (answer.status, "referenced by these roles: app" in answer.json["errors"][0]) == (400, True)
        await ask("DELETE", "identity/oidc/role/app")
        assert (await ask("DELETE", "identity/oidc/key/narrow")).status == 204
        assert (await ask("LIST", "identity/oidc/key")).json["data"]["keys"] == ["main"]
        assert (await ask("LIST", "identity/oidc/role")).status == 404

    play(scenario)


def test_who_has_no_entity_gets_no_identity_token():
    async def scenario(ask, _vault):
        await ready(ask)
        answer = await ask("GET", "identity/oidc/token/app")
        assert (answer.status, answer.json["errors"]) == (400, ["no entity associated with the request's token"])
        answer = await ask("GET", "identity/oidc/token/none")
        assert (answer.status, answer.json["errors"]) == (400, ['role "none" not found'])

    play(scenario)


@pytest.mark.parametrize(
    ("path", "fields", "text"),
    [
        ("config", {"issuer": "https://example.com/path"}, "invalid issuer"),
        ("config", {"issuer": "ftp://example.com"}, "invalid issuer"),
        ("config", {"issuer": "https://u@example.com"}, "invalid issuer"),
        ("key/x", {"rotation_period": "30s"}, "rotation_period must be at least one minute"),
        ("key/x", {"rotation_period": "1m", "verification_ttl": "11m"}, "verification_ttl cannot be longer"),
        ("key/x", {"algorithm": "HS256"}, "unknown signing algorithm"),
        ("key/none/rotate", {}, "no named key found"),
        ("role/x", {}, "the key parameter is required"),
        ("role/x", {"key": "main", "ttl": "25h"}, "a role's token ttl cannot be longer"),
        ("introspect", {}, "missing token"),
    ],
)
def test_what_makes_no_sense_is_refused(path, fields, text):
    async def scenario(ask, _vault):
        await ask("POST", "identity/oidc/key/main", {"algorithm": "EdDSA"})
        answer = await ask("POST", f"identity/oidc/{path}", fields)
        assert (answer.status, answer.json["errors"][0].startswith(text)) == (400, True), answer.body

    play(scenario)


def test_a_key_and_a_role_say_what_they_are_and_never_a_private_key():
    async def scenario(ask, _vault):
        await ready(ask)
        key = await read(ask, "oidc/key/main")
        day = 24 * 3600
        expected = {"algorithm": "ES256", "allowed_client_ids": ["*"], "rotation_period": day, "verification_ttl": day}
        assert key == expected
        role = await read(ask, "oidc/role/app")
        assert (role["key"], role["template"], role["ttl"], len(role["client_id"])) == ("main", "", 600, 26)
        answer = await ask("POST", "identity/oidc/config", {"issuer": ISSUER})
        assert (answer.status, len(answer.json["warnings"])) == (200, 1)
        assert await read(ask, "oidc/config") == {"issuer": ISSUER}

    play(scenario)


def test_another_algorithm_signs_from_then_on_and_older_tokens_stay_good():
    async def scenario(ask, _vault):
        auth = await ready(ask, algorithm="ES256")
        first = (await token_of(ask, auth))["token"]
        await ask("POST", "identity/oidc/key/main", {"algorithm": "EdDSA"})
        second = (await token_of(ask, auth))["token"]
        assert [verified(token, await published(ask))[0]["alg"] for token in (first, second)] == ["ES256", "EdDSA"]
        assert (await introspection(ask, first))["active"] is True

    play(scenario)


def test_tokens_of_one_org_are_nothing_in_another():
    async def scenario(ask, _vault):
        auth = await ready(ask)
        token = (await token_of(ask, auth))["token"]
        other = (await ask("POST", "sys/namespaces/other")).json["data"]["root_token"]
        answer = await ask("POST", "identity/oidc/introspect", {"token": token}, token=other)
        assert answer.json["active"] is False
        there = [(b"x-vault-namespace", b"other")]
        answer = await ask("GET", "identity/oidc/.well-known/keys", token=None, headers=there)
        assert answer.json == {"keys": []}
        await ask("POST", "identity/oidc/config", {"issuer": ISSUER}, token=other)
        path = "identity/oidc/.well-known/openid-configuration"
        found = (await ask("GET", path, token=None, headers=there)).json
        assert found["issuer"] == f"{ISSUER}/v1/other/identity/oidc"
        path = found["jwks_uri"].removeprefix(f"{ISSUER}/v1/")
        assert (await ask("GET", path, token=None)).json == {"keys": []}

    play(scenario)
