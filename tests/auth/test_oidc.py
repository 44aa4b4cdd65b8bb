"""People who log in with a browser at an issuer: who began a login ends it, and the code is theirs alone."""

from __future__ import annotations

import time
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from auth.issuer import CLIENT, URL, Issuer
from faces.api_client import play
from keyhole.vault.clock import Clock

BACK = "http://localhost:8250/oidc/callback"
CONFIG = {
    "oidc_discovery_url": URL,
    "oidc_client_id": CLIENT[0],
    "oidc_client_secret": CLIENT[1],
    "default_role": "people",
}


def scene(scenario, **role):
    """``scenario(ask, issuer, begin, end)`` where the role ``people`` believes the issuer."""

    async def go(ask, vault):
        issuer = vault.vault.net = Issuer()
        assert (await ask("POST", "auth/oidc/config", CONFIG)).status == 204
        wanted = {"user_claim": "sub", "allowed_redirect_uris": [BACK], "oidc_scopes": ["groups"], **role}
        assert (await ask("POST", "auth/oidc/role/people", wanted)).status == 204

        async def begin(**body):
            made = await ask("POST", "auth/oidc/oidc/auth_url", {"redirect_uri": BACK, **body}, token=None)
            assert made.status == 200, made.body
            return made.json["data"]["auth_url"]

        async def end(**query):
            return await ask("GET", f"auth/oidc/oidc/callback?{urlencode(query)}", token=None)

        return await scenario(ask, issuer, begin, end)

    return play(go, enabled=("sys/auth/oidc",))


def test_a_person_logs_in_with_a_browser():
    async def scenario(ask, issuer, begin, end):
        url = await begin()
        asked = parse_qs(urlsplit(url).query)
        assert url.startswith(f"{URL}/authorize?")
        assert (asked["scope"], asked["code_challenge_method"]) == (["openid groups"], ["S256"])
        assert CLIENT[1] not in url
        answer = await end(**issuer.authorize(url, {"sub": "ann"}))
        assert answer.status == 200, answer.body
        assert answer.json["auth"]["metadata"] == {"role": "people"}
        read = (await ask("GET", "auth/oidc/config")).body.decode()
        assert CLIENT[1] not in read
        assert CLIENT[0] in read

    scene(scenario)


def test_where_a_login_cannot_begin_nothing_is_said():
    async def scenario(_ask, issuer, begin, _end):
        assert await begin(role="nobody") == ""
        assert await begin(redirect_uri="https://evil.test/") == ""
        assert await begin(redirect_uri="http://localhost:8250/other") == ""
        assert await begin(redirect_uri="http://localhost@evil.test/oidc/callback") == ""
        assert await begin(redirect_uri="http://localhost:1/oidc/callback") != ""  # any port of this machine

    scene(scenario)


def test_an_issuer_without_a_page_for_logins_gets_the_query_alone():
    async def scenario(_ask, issuer, begin, _end):
        document = {name: value for name, value in issuer.document().items() if name != "authorization_endpoint"}
        issuer.answers["/.well-known/openid-configuration"] = (200, document)
        assert (await begin()).startswith(f"?client_id={CLIENT[0]}&")
        assert await begin(role="nobody") == ""

    scene(scenario)


def test_a_login_is_ended_once_by_whoever_began_it_and_soon():
    async def scenario(_ask, issuer, begin, end):
        back = issuer.authorize(await begin(client_nonce="mine"))
        assert (await end(**back)).status == 400
        assert (await end(**back, client_nonce="other")).status == 400
        assert (await end(**back, client_nonce="mine")).status == 200
        assert (await end(**back, client_nonce="mine")).status == 400
        late = issuer.authorize(await begin())
        with pytest.MonkeyPatch.context() as patch:
            moment = time.time() + 601
            patch.setattr(Clock, "now", lambda _self: moment)
            answer = await end(**late)
        assert answer.json["errors"] == ["Expired or missing OAuth state."]

    scene(scenario)


@pytest.mark.parametrize(
    "claims", [{"aud": "another"}, {"nonce": "x"}, {"iss": "https://other.test"}, {"azp": "another"}, {"nonce": None}]
)
def test_a_token_that_was_not_made_for_this_login_is_refused(claims):
    async def scenario(_ask, issuer, begin, end):
        assert (await end(**issuer.authorize(await begin(), claims))).status == 400

    scene(scenario)


def test_audiences_of_a_role_hold_for_people_too():
    async def scenario(_ask, issuer, begin, end):
        for audience, status in ((CLIENT[0], 400), ([CLIENT[0], "staff"], 200)):
            assert (await end(**issuer.authorize(await begin(), {"aud": audience}))).status == status

    scene(scenario, bound_audiences=["staff"])


def test_a_code_of_another_login_or_a_made_up_state_gives_nothing():
    async def scenario(_ask, issuer, begin, end):
        first, second = issuer.authorize(await begin()), issuer.authorize(await begin())
        assert (await end(code=first["code"], state=second["state"])).status == 400
        for state in ("", "x", "A" * 400, second["state"][:-4] + "AAAA"):
            assert (await end(code=second["code"], state=state)).status == 400
        assert (await end(error="access_denied", state=second["state"])).status == 400

    scene(scenario)


def test_an_old_proof_of_the_person_is_refused_where_the_role_wants_a_new_one():
    async def scenario(_ask, issuer, begin, end):
        for age, status in ((10, 200), (1000, 400)):
            url = await begin()
            assert "max_age=300" in url
            assert (await end(**issuer.authorize(url, {"auth_time": int(time.time()) - age}))).status == status

    scene(scenario, max_age=300)
