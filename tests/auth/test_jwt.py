"""Machines that log in with a token of an issuer: whose tokens count, for which role, and what is never asked."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from auth.issuer import URL, Issuer
from faces.api_client import play
from keyhole.vault.clock import Clock

ATTACKS = Path(__file__).parents[1] / "data/jwt"
ROLE = {
    "role_type": "jwt",
    "user_claim": "sub",
    "bound_audiences": ["vault"],
    "bound_subject": "agent-1",
    "token_policies": ["app"],
}


def scene(scenario, *, source=None, **role):
    """``scenario(ask, issuer, login)`` where the role ``ci`` believes the issuer."""

    async def go(ask, vault):
        issuer = vault.vault.net = Issuer()
        await ask("PUT", "sys/policies/acl/app", {"policy": 'path "secret/data/app/*" { capabilities = ["read"] }'})
        made = await ask("POST", "auth/jwt/config", source or {"oidc_discovery_url": URL})
        assert made.status == 204, made.body
        if role is not None:
            made = await ask("POST", "auth/jwt/role/ci", {**ROLE, **role})
            assert made.status == 204, made.body

        async def login(token, name="ci", **options):
            return await ask("POST", "auth/jwt/login", {"role": name, "jwt": token}, token=None, **options)

        return await scenario(ask, issuer, login)

    return play(go, enabled=("sys/auth/jwt",))


def reason(answer):
    return answer.json["errors"][0]


def test_a_token_of_the_issuer_gives_what_the_role_says_and_makes_one_entity():
    async def scenario(ask, issuer, login):
        first, second = await login(issuer.sign(team="red")), await login(issuer.sign(team="red"))
        auth = first.json["auth"]
        assert auth["token_policies"] == ["app", "default"]
        assert auth["metadata"] == {"role": "ci", "team": "red"}
        assert auth["lease_duration"] == 600
        assert auth["entity_id"] == second.json["auth"]["entity_id"] != ""
        own = (await ask("GET", "auth/token/lookup-self", token=auth["client_token"])).json["data"]
        assert own["path"] == "auth/jwt/login"
        entity = (await ask("GET", f"identity/entity/id/{auth['entity_id']}")).json["data"]
        assert [alias["name"] for alias in entity["aliases"]] == ["agent-1"]

    scene(scenario, claim_mappings={"team": "team"}, token_ttl="10m")


def test_who_is_in_a_group_of_the_issuer_has_the_policies_of_the_group_here():
    async def scenario(ask, issuer, login):
        accessor = (await ask("GET", "sys/auth")).json["data"]["jwt/"]["accessor"]
        group = await ask("POST", "identity/group", {"name": "dev", "type": "external", "policies": ["wide"]})
        await ask(
            "POST",
            "identity/group-alias",
            {"name": "developers", "mount_accessor": accessor, "canonical_id": group.json["data"]["id"]},
        )
        auth = (await login(issuer.sign(groups=["developers", "others"]))).json["auth"]
        assert auth["identity_policies"] == ["wide"]
        auth = (await login(issuer.sign(groups=[]))).json["auth"]
        assert not auth.get("identity_policies")
        assert (await login(issuer.sign(groups={"a": 1}))).status == 400

    scene(scenario, groups_claim="groups")


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"aud": "other"}, "aud claim does not match"),
        ({"aud": None}, "aud claim does not match"),
        ({"sub": "agent-2"}, "sub claim does not match"),
        ({"iss": "https://other.test"}, "invalid issuer"),
        ({"iss": None}, "invalid issuer"),
        ({"exp": 1000}, "expired"),
        ({"exp": None}, "no end"),
        ({"nbf": 4_000_000_000, "exp": 4_000_000_300}, "not valid yet"),
        ({"iat": 4_000_000_000, "exp": 4_000_000_300}, "in the future"),
        ({"env": "test"}, "bound claim"),
        ({"env": None}, "missing"),
        ({"env": ["stage"]}, "bound claim"),
    ],
)
def test_a_token_that_says_something_else_is_refused(claims, words):
    async def scenario(_ask, issuer, login):
        assert (await login(issuer.sign(env=["x", "prod-7"]))).status == 200
        answer = await login(issuer.sign({"env": "prod-1", **claims}))
        assert (answer.status, words in reason(answer)) == (400, True), answer.body

    scene(scenario, bound_claims={"env": ["prod-*"]}, bound_claims_type="glob")


def test_only_who_has_a_token_of_the_issuer_learns_which_roles_there_are():
    async def scenario(ask, issuer, login):
        stranger = Issuer()
        assert (await ask("POST", "sys/auth/fresh", {"type": "jwt"})).status == 204
        refused = [await login(stranger.sign(), name) for name in ("ci", "nobody")]
        assert len({(answer.status, answer.body) for answer in refused}) == 1
        assert "could not be found" in reason(await login(issuer.sign(), "nobody"))
        assert reason(await login("", "ci")) == "missing token"
        assert reason(await ask("POST", "auth/jwt/login", {"jwt": issuer.sign()}, token=None)) == "missing role"
        unknown = [
            await ask(
                "POST", f"auth/{mount}/login", {"role": "ci", "jwt": stranger.sign()}, token=None, headers=headers
            )
            for mount, headers in (("jwt", []), ("fresh", []), ("jwt", [(b"x-vault-namespace", b"nowhere")]))
        ]
        assert len({(answer.status, answer.body) for answer in unknown}) == 1

    scene(scenario)


def test_guessing_is_bounded_by_address():
    async def scenario(_ask, issuer, login):
        stranger = Issuer().sign()
        statuses = [(await login(stranger, remote="203.0.113.5")).status for _ in range(62)]
        assert statuses[-1] == 429
        assert (await login(issuer.sign(), remote="203.0.113.77")).status == 200

    scene(scenario)


def test_a_new_key_of_the_issuer_is_learnt_and_strangers_cannot_make_us_ask_again_and_again():
    async def scenario(_ask, issuer, login):
        assert (await login(issuer.sign())).status == 200
        asked = len(issuer.asked)
        issuer.add_key("two")
        assert (await login(issuer.sign(key="two", algorithm="ES256"))).status == 400  # it was asked a moment ago
        assert len(issuer.asked) == asked
        moment = time.time() + 11
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Clock, "now", lambda _self: moment)
            assert (await login(issuer.sign(key="two", algorithm="ES256"))).status == 200
            asked = len(issuer.asked)
            stranger = Issuer()
            stranger.add_key("three")
            for _ in range(5):
                assert (await login(stranger.sign(key="three", algorithm="ES256"))).status == 400
            assert len(issuer.asked) == asked

    scene(scenario)


def test_an_issuer_that_is_away_is_said_to_be_away_and_keys_that_are_known_still_count():
    async def scenario(_ask, issuer, login):
        assert (await login(issuer.sign())).status == 200
        issuer.away = True
        assert (await login(issuer.sign())).status == 200
        with pytest.MonkeyPatch.context() as patch:
            moment = time.time() + 700
            patch.setattr(Clock, "now", lambda _self: moment)
            assert (await login(issuer.sign())).status == 502

    scene(scenario)


def test_an_issuer_that_is_away_is_not_asked_by_every_stranger_also_when_it_never_answered():
    async def scenario(_ask, issuer, login):
        issuer.away, asked = True, len(issuer.asked)
        for _ in range(5):
            assert (await login(issuer.sign())).status == 502
        assert len(issuer.asked) == asked + 1
        issuer.away = False
        with pytest.MonkeyPatch.context() as patch:
            moment = time.time() + 11
            patch.setattr(Clock, "now", lambda _self: moment)
            assert (await login(issuer.sign())).status == 200

    scene(scenario)


def test_who_hangs_up_keeps_nobody_from_the_keys_of_an_issuer():
    async def scenario(_ask, issuer, login):
        issuer.held = asyncio.Event()
        first = asyncio.create_task(login(issuer.sign()))
        await asyncio.wait_for(issuer.begun.wait(), 5)
        first.cancel()
        await asyncio.wait([first])
        second = asyncio.create_task(login(issuer.sign()))
        await asyncio.sleep(0)
        issuer.held.set()
        answer = await second
        assert answer.status == 200, answer.body

    scene(scenario)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "exactly one of"),
        ({"jwks_url": f"{URL}/keys", "oidc_discovery_url": URL}, "exactly one of"),
        ({"jwks_url": "http://issuer.test/keys"}, "jwks_url: this is not the https://"),
        ({"jwks_url": "ftp://issuer.test/keys"}, "jwks_url"),
        ({"jwks_url": f"{URL}/nothing"}, "error checking jwks URL"),
        ({"oidc_discovery_url": f"{URL}/"}, "names another issuer"),
        ({"jwt_validation_pubkeys": ["-----BEGIN PUBLIC KEY-----"]}, "not a public key"),
        ({"jwks_url": f"{URL}/keys", "jwt_supported_algs": ["none"]}, "unsupported"),
        ({"jwks_url": f"{URL}/keys", "jwt_supported_algs": ["HS256"]}, "unsupported"),
        ({"oidc_discovery_url": URL, "oidc_client_id": "x"}, "must be set for OIDC"),
    ],
)
def test_settings_that_cannot_work_are_refused_and_change_nothing(body, words):
    async def scenario(ask, _issuer, _login):
        before = (await ask("GET", "auth/jwt/config")).json["data"]
        answer = await ask("POST", "auth/jwt/config", body)
        assert (answer.status, words in reason(answer)) == (400, True), answer.body
        assert (await ask("GET", "auth/jwt/config")).json["data"] == before

    scene(scenario)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"user_claim": ""}, "a user claim must be defined"),
        ({"bound_audiences": [], "bound_subject": ""}, "at least one bound constraint"),
        ({"role_type": "oidc"}, "'allowed_redirect_uris' must be set"),
        ({"role_type": "x"}, "invalid 'role_type'"),
        ({"bound_claims": {"a": {"b": 1}}}, "bound_claims"),
        ({"claim_mappings": {"a": "x", "b": "x"}}, "maps two claims"),
        ({"token_policies": ["root"]}, "root"),
    ],
)
def test_a_role_that_would_let_anybody_in_is_refused(body, words):
    async def scenario(ask, _issuer, _login):
        answer = await ask("POST", "auth/jwt/role/other", {**ROLE, **body})
        assert (answer.status, words in reason(answer)) == (400, True), answer.body

    scene(scenario)


def test_private_addresses_are_named_by_who_has_sudo_only():
    async def scenario(ask, issuer, _login):
        policy = 'path "auth/jwt/config" { capabilities = ["update", "create", "read"%s] }'
        tokens = []
        for name, more in (("weak", ""), ("strong", ', "sudo"')):
            await ask("PUT", f"sys/policies/acl/{name}", {"policy": policy % more})
            made = await ask("POST", "auth/token/create", {"policies": [name]})
            tokens.append(made.json["auth"]["client_token"])
        local = {"jwks_url": "http://127.0.0.1:9/keys"}
        assert (await ask("POST", "auth/jwt/config", local, token=tokens[0])).status == 400
        assert (await ask("POST", "auth/jwt/config", local, token=tokens[1])).status == 204
        assert issuer.asked[-1] == "GET http://127.0.0.1:9/keys"

    scene(scenario)


def test_keys_themselves_can_be_given_and_nobody_is_asked():
    key = Issuer()
    pem = key.keys["one"].as_pem(private=False).decode()

    async def scenario(_ask, issuer, login):
        issuer.keys = key.keys
        assert (await login(issuer.sign(iss="anybody"))).status == 200
        assert (await login(Issuer().sign())).status == 400
        assert issuer.asked == []

    scene(scenario, source={"jwt_validation_pubkeys": [pem]})


def attacks():
    for line in (ATTACKS / "attacks.jsonl").read_text().splitlines():
        case = json.loads(line)
        if case["token"] == "__GENERATE_1MB__":
            case["token"] = "a" * (1 << 20)
        yield pytest.param(case, id=case["name"])


@pytest.mark.parametrize("case", [*attacks()])
def test_known_attacks_on_tokens(case, monkeypatch):
    async def scenario(_ask, issuer, login):
        answer = await login(case["token"], remote="198.51.100.7")
        assert answer.status in (200, 400, 413)
        assert {*issuer.asked} == {f"GET {URL}/keys"}, "whatever a token names, nobody else is asked"
        if case["must"] in ("accept", "reject"):
            assert (answer.status == 200) == (case["must"] == "accept"), answer.body
        elif answer.status == 200:  # it may count, as what it is: no longer than the role says
            assert answer.json["auth"]["lease_duration"] <= 2764800

    monkeypatch.setattr(Clock, "now", lambda _self: float(case["now"]))
    monkeypatch.setattr(Issuer, "ask", _keys_of_the_corpus)
    scene(scenario, source={"jwks_url": f"{URL}/keys", "bound_issuer": "https://idp.test"})


async def _keys_of_the_corpus(self, method, url, **_more):
    from keyhole.net.ask import Heard

    self.asked.append(f"{method} {url}")
    return Heard(200, {}, (ATTACKS / "jwks.json").read_bytes())


def test_an_issuer_without_keys_yet_has_signed_nothing():
    async def scenario(_ask, issuer, login):
        token = issuer.sign()
        issuer.keys = {}
        answers = [await login(token), await login(token)]
        assert {(answer.status, "no known key" in reason(answer)) for answer in answers} == {(400, True)}

    scene(scenario)


@pytest.mark.parametrize("odd", [[], {}, 7, True, "x" * 40_000, ["a", 1]])
def test_odd_values_of_settings_are_refused_or_taken_and_never_a_fault(odd):
    async def scenario(ask, _issuer, _login):
        for path, names in (
            ("config", ("oidc_response_mode", "oidc_response_types", "jwt_supported_algs", "provider_config")),
            ("role/x", ("role_type", "bound_claims", "claim_mappings", "user_claim", "allowed_redirect_uris")),
        ):
            for name in names:
                base = {"oidc_discovery_url": URL} if path == "config" else ROLE
                answer = await ask("POST", f"auth/jwt/{path}", {**base, name: odd})
                assert answer.status in (204, 400), (name, answer.body)

    scene(scenario)


def test_a_set_of_keys_that_was_tampered_with_confuses_nobody():
    """Keys of other kinds, two of one id, and a set that is no set: only who has a key of the issuer gets in."""

    async def scenario(_ask, issuer, login):
        first, second = issuer.sign(), Issuer()
        issuer.keys["two"] = second.keys["one"]
        shown = [key.as_dict(private=False) for key in issuer.keys.values()]
        secret = {"kty": "oct", "kid": "one", "alg": "HS256", "k": "c2VjcmV0LXRoYXQtZXZlcnlib2R5LWNhbi1yZWFk"}
        encrypting = {**shown[1], "kid": "one", "key_ops": ["encrypt"]}
        issuer.answers["/keys"] = 200, {"keys": [secret, encrypting, "no key", {"kty": "RSA"}, shown[0]]}
        assert (await login(first)).status == 200
        asked = [*issuer.asked]
        forged = jwt.encode(
            {"alg": "HS256", "kid": "one"}, jwt_claims(), OctKey.import_key(secret), algorithms=["HS256"]
        )
        assert (await login(forged)).status == 400
        assert (await login(second.sign())).status == 400, "a key for encryption signs nothing"
        assert issuer.asked == asked, "what is known is not asked for again"

    scene(scenario)


@pytest.mark.parametrize(
    "keys", ["none", {"keys": "x"}, {"keys": [{}] * 65}, {"keys": [{"kty": "RSA", "n": "A" * 70_000}]}]
)
def test_what_is_no_set_of_keys_lets_nobody_in_and_is_no_fault(keys):
    async def scenario(_ask, issuer, login):
        token = issuer.sign()
        issuer.answers["/keys"] = 200, keys
        assert 400 <= (await login(token)).status < 500

    scene(scenario)


def test_two_keys_of_one_id_are_both_the_issuers():
    async def scenario(_ask, issuer, login):
        other = Issuer()
        both = [issuer.keys["one"], other.keys["one"]]
        issuer.answers["/keys"] = 200, {"keys": [key.as_dict(private=False) for key in both]}
        assert [(await login(each.sign())).status for each in (issuer, other, Issuer())] == [200, 200, 400]

    scene(scenario)


def jwt_claims():
    now = int(time.time())
    return {"iss": URL, "aud": "vault", "sub": "agent-1", "iat": now, "exp": now + 300}
