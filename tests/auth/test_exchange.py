"""An agent that acts for a person: its token says so, and may no more than the agent."""

from __future__ import annotations

import time

import pytest

from auth.issuer import URL, Issuer
from faces.api_client import play
from keyhole.vault.clock import Clock
from vault.world import journal

TYPE = "urn:ietf:params:oauth:token-type:jwt"
GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
POLICY = """
path "secret/data/app" { capabilities = ["read"] }
path "auth/token/exchange" { capabilities = ["update"] }
"""


def scene(scenario):
    """``scenario(ask, issuer, exchange, vault)`` for an agent with the policy ``agent``."""

    async def go(ask, vault):
        issuer = vault.vault.net = Issuer()
        await ask("PUT", "sys/policies/acl/agent", {"policy": POLICY})
        await ask("POST", "secret/data/app", {"data": {"x": "y"}})
        assert (
            await ask("POST", "auth/jwt/config", {"oidc_discovery_url": URL, "default_role": "people"})
        ).status == 204
        role = {"role_type": "jwt", "user_claim": "email", "bound_audiences": ["vault"], "token_policies": ["admin"]}
        assert (await ask("POST", "auth/jwt/role/people", role)).status == 204
        agent = (await ask("POST", "auth/token/create", {"policies": ["agent"], "display_name": "bot"})).json["auth"]

        async def exchange(token=agent["client_token"], **body):
            fields = {"grant_type": GRANT, "subject_token_type": TYPE, "subject_token": issuer.sign(email="ann@x.test")}
            return await ask("POST", "auth/token/exchange", fields | body, token=token)

        return await scenario(ask, issuer, exchange, vault)

    return play(go, enabled=("sys/auth/jwt",))


def test_the_token_says_for_whom_it_acts_and_every_record_of_it_too():
    async def scenario(ask, _issuer, exchange, vault):
        answer = await exchange()
        assert answer.status == 200, answer.body
        got = answer.json
        assert (got["token_type"], got["issued_token_type"]) == ("Bearer", TYPE.replace(":jwt", ":access_token"))
        assert got["scope"] == "agent default"  # the agent's, not the person's
        assert 0 < got["expires_in"] <= 300  # the person's token counts no longer
        token = got["access_token"]
        assert (await ask("GET", "secret/data/app", token=token)).status == 200
        assert (await ask("GET", "secret/data/other", token=token)).status == 403
        own = (await ask("GET", "auth/token/lookup-self", token=token)).json["data"]
        assert own["on_behalf_of"] == got["on_behalf_of"] == "jwt/ann@x.test"
        assert (own["renewable"], own["orphan"]) == (False, False)
        found = [record for _, record in await journal(vault)]
        reads = [each for each in found if each.path == "secret/data/app" and each.operation == "read"]
        assert {each.on_behalf_of for each in reads} == {"jwt/ann@x.test"}

    scene(scenario)


def test_it_ends_with_the_agent_s_own_and_cannot_be_turned_to_another_person():
    async def scenario(ask, issuer, exchange, _vault):
        first = (await exchange()).json["access_token"]
        other = issuer.sign(email="bob@x.test")
        assert (await exchange(first, subject_token=other)).status == 403
        assert (await exchange(first)).status == 200
        parent = (await ask("POST", "auth/token/create", {"policies": ["agent"]})).json["auth"]["client_token"]
        child = (await exchange(parent)).json["access_token"]
        assert (await ask("POST", "auth/token/revoke", {"token": parent})).status == 204
        assert (await ask("GET", "auth/token/lookup-self", token=child)).status == 403

    scene(scenario)


def test_it_can_be_narrowed_and_never_widened():
    async def scenario(ask, _issuer, exchange, _vault):
        narrow = (await exchange(scope="default", ttl="1m", num_uses=2)).json
        assert (narrow["scope"], narrow["expires_in"]) == ("default", 60)
        assert (await ask("GET", "secret/data/app", token=narrow["access_token"])).status == 403
        assert (await exchange(scope="admin")).status == 400
        assert (await exchange(scope="root")).status == 400

    scene(scenario)


@pytest.mark.parametrize(
    "body",
    [
        {"subject_token": ""},
        {"subject_token": "x.y.z"},
        {"subject_token": Issuer().sign(email="ann@x.test")},
        {"subject_token_type": "urn:ietf:params:oauth:token-type:saml2"},
        {"grant_type": "password"},
        {"actor_token": "x"},
        {"mount": "nowhere"},
        {"mount": "token"},
        {"role": "nobody"},
        {"scope": ["agent"]},
    ],
)
def test_what_proves_nobody_gives_nothing(body):
    async def scenario(_ask, _issuer, exchange, _vault):
        assert (await exchange(**body)).status == 400

    scene(scenario)


def test_who_may_not_exchange_is_refused_and_a_proof_that_has_ended_counts_no_more():
    async def scenario(ask, issuer, exchange, _vault):
        nobody = (await ask("POST", "auth/token/create", {"policies": ["default"]})).json["auth"]["client_token"]
        assert (await exchange(nobody)).status == 403
        late = issuer.sign(email="ann@x.test")
        with pytest.MonkeyPatch.context() as patch:
            moment = time.time() + 400  # within the leeway that a login has
            patch.setattr(Clock, "now", lambda _self: moment)
            assert (await exchange(subject_token=late)).status == 400

    scene(scenario)


def test_nobody_acts_for_a_person_whose_entity_is_disabled():
    async def scenario(ask, issuer, exchange, _vault):
        proof = issuer.sign(email="ann@x.test")
        person = (await ask("POST", "auth/jwt/login", {"jwt": proof}, token="")).json["auth"]["entity_id"]
        assert (await ask("POST", f"identity/entity/id/{person}", {"disabled": True})).status == 204
        assert (await exchange()).status == 403
        assert (await exchange(subject_token=issuer.sign(email="bob@x.test"))).status == 200
        assert (await ask("POST", f"identity/entity/id/{person}", {"disabled": False})).status == 204
        assert (await exchange()).status == 200

    scene(scenario)


@pytest.mark.parametrize("person", ["jwt/ann@x.test", " JWT/ann@x.test"])
def test_nobody_says_that_it_acts_for_a_person_who_has_not_shown_a_token(person):
    async def scenario(ask, _issuer, exchange, _vault):
        policy = 'path "auth/token/create" { capabilities = ["update"] }'
        await ask("PUT", "sys/policies/acl/agent", {"policy": POLICY + policy})
        maker = (await ask("POST", "auth/token/create", {"policies": ["agent"]})).json["auth"]["client_token"]
        assert (await ask("POST", "auth/token/create", {"on_behalf_of": person}, token=maker)).status == 400
        assert (await ask("POST", "agents/bot/token", {"on_behalf_of": person})).status in (400, 404)
        proved = (await exchange(maker)).json["access_token"]
        child = await ask("POST", "auth/token/create", {"on_behalf_of": "jwt/bob@x.test"}, token=proved)
        own = await ask("GET", "auth/token/lookup-self", token=child.json["auth"]["client_token"])
        assert own.json["data"]["on_behalf_of"] == "jwt/ann@x.test"

    scene(scenario)
