"""Leases, wrapping and drawers as HTTP shows them."""

import pytest

from faces.api_client import Client, play
from keyhole.testing import FrozenClock
from vault.lab import Lab
from vault.world import play as play_vault

EMPTY = {"request_id": "", "lease_id": "", "renewable": False, "lease_duration": 0, "data": None, "warnings": None}


def wrapping(ttl):
    return [(b"x-vault-wrap-ttl", str(ttl).encode())]


def test_an_envelope_has_the_lease_and_a_renewal_has_nothing_else():
    clock = FrozenClock()

    async def scenario(vault):
        Lab(ttl=3600, max_ttl=7200).mount(vault)
        ask = Client(vault.node)
        made = (await ask("GET", "lab/creds/reader")).json
        assert (made["renewable"], made["lease_duration"]) == (True, 3600)
        clock.advance(100)
        for method, path, body in (
            ("PUT", f"sys/leases/renew/{made['lease_id']}", None),
            ("POST", f"sys/renew/{made['lease_id']}", {"increment": "1h"}),
            ("PUT", "sys/leases/renew", {"lease_id": made["lease_id"], "increment": 3600}),
        ):
            answer = await ask(method, path, body)
            assert answer.status == 200
            said = answer.json
            assert (said["lease_id"], said["lease_duration"], said["data"]) == (made["lease_id"], 3600, None)
        answer = await ask("PUT", "sys/leases/revoke", {"lease_id": made["lease_id"]})
        assert (answer.status, answer.body) == (204, b"")

    play_vault(scenario, clock=clock)


@pytest.mark.parametrize(("text", "seconds"), [("60", 60), ("60s", 60), ("5m", 300), ("1h30m", 5400)])
def test_the_wrap_header_takes_seconds_and_durations(text, seconds):
    async def scenario(ask, _vault):
        await ask("POST", "secret/data/x", {"data": {"a": "b"}})
        answer = await ask("GET", "secret/data/x", headers=wrapping(text))
        assert answer.status == 200
        assert EMPTY.items() <= answer.json.items()
        info = answer.json["wrap_info"]
        assert (info["ttl"], info["creation_path"]) == (seconds, "secret/data/x")
        assert answer.headers["x-keyhole-request-id"]
        opened = await ask("POST", "sys/wrapping/unwrap", token=info["token"])
        assert opened.json["data"]["data"] == {"a": "b"}
        assert opened.json["request_id"]
        assert opened.json["wrap_info"] is None

    play(scenario)


@pytest.mark.parametrize("text", ["abc", "-1", "1x", "1e9", "99999999999999999999", "10y"])
def test_a_wrap_header_that_is_no_duration_is_refused_before_anything_is_done(text):
    async def scenario(ask, _vault):
        answer = await ask("POST", "secret/data/x", {"data": {"a": "b"}}, headers=wrapping(text))
        assert answer.status == 400
        assert "X-Vault-Wrap-TTL" in answer.json["errors"][0]
        assert (await ask("GET", "secret/data/x")).status == 404

    play(scenario)


def test_an_empty_answer_and_a_refusal_stay_as_they_are():
    async def scenario(ask, _vault):
        header = wrapping(60)
        policy = {"policy": 'path "a" { capabilities = ["read"] }'}
        assert (await ask("PUT", "sys/policies/acl/x", policy, headers=header)).status == 204
        assert (await ask("GET", "secret/data/none", headers=header)).json == {"errors": []}
        assert (await ask("GET", "secret/data/none", token="wrong", headers=header)).status == 403

    play(scenario)


def test_a_deleted_version_cannot_be_wrapped():
    async def scenario(ask, _vault):
        await ask("POST", "secret/data/x", {"data": {"a": "b"}})
        await ask("DELETE", "secret/data/x")
        assert (await ask("GET", "secret/data/x")).status == 404
        assert (await ask("GET", "secret/data/x", headers=wrapping(60))).json == {"errors": []}

    play(scenario)


def test_a_drawer_belongs_to_its_token_and_goes_with_it():
    async def scenario(ask, vault):
        tokens = [(await ask("POST", "auth/token/create", {"policies": []})).json["auth"]["client_token"] for _ in "ab"]
        one, two = tokens
        for path, value in (("a", "1"), ("deep/b", {"c": [1, None, True]}), ("a", "2")):
            assert (await ask("POST", f"cubbyhole/{path}", {"k": value}, token=one)).status == 204
        assert (await ask("GET", "cubbyhole/a", token=one)).json["data"] == {"k": "2"}
        assert (await ask("GET", "cubbyhole/deep/b", token=one)).json["data"] == {"k": {"c": [1, None, True]}}
        assert (await ask("LIST", "cubbyhole", token=one)).json["data"] == {"keys": ["a", "deep/"]}
        assert (await ask("GET", "cubbyhole/deep?list=true", token=one)).json["data"] == {"keys": ["b"]}
        for method, path in (("GET", "a"), ("LIST", ""), ("LIST", "deep")):
            answer = await ask(method, f"cubbyhole/{path}", token=two)
            assert (answer.status, answer.json) == (404, {"errors": []})
        assert (await ask("DELETE", "cubbyhole/a", token=two)).status == 204
        assert (await ask("GET", "cubbyhole/a", token=one)).status == 200
        assert (await ask("DELETE", "cubbyhole/a", token=one)).status == 204
        assert (await ask("DELETE", "cubbyhole/a", token=one)).status == 204
        assert (await ask("GET", "cubbyhole/a", token=one)).status == 404
        answer = await ask("POST", "cubbyhole/a", {}, token=one)
        assert (answer.status, answer.json) == (400, {"errors": ["missing data fields"]})
        await ask("POST", "auth/token/revoke-self", token=one)
        assert await vault.vault.storage(vault.vault.root_org, "cubbyhole").list(recursive=True) == []

    play(scenario)
