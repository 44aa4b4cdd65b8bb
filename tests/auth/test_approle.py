"""Machines that log in with a role id and a secret id: who gets a token, how often, from where, and what is kept."""

import asyncio
import functools
import json

import pytest

from faces.api_client import Client, enable, play
from keyhole import auth
from keyhole.auth.approle import secret_ids
from keyhole.testing import open_vault
from vault.world import Place, journal

POLICY = """
path "secret/data/app/*" { capabilities = ["read"] }
path "auth/token/create" { capabilities = ["update"] }
"""


scene = functools.partial(play, enabled=("sys/auth/approle", "sys/auth/userpass"))


async def role(ask, name="ci", **fields):
    await ask("PUT", "sys/policies/acl/app", {"policy": POLICY})
    made = await ask("POST", f"auth/approle/role/{name}", {"token_policies": "app", **fields})
    assert made.status == 204, made.body
    return (await ask("GET", f"auth/approle/role/{name}/role-id")).json["data"]["role_id"]


async def secret(ask, name="ci", **fields):
    return (await ask("POST", f"auth/approle/role/{name}/secret-id", fields)).json["data"]


async def login(ask, role_id, secret_id, **options):
    return await ask("POST", "auth/approle/login", {"role_id": role_id, "secret_id": secret_id}, token=None, **options)


@pytest.mark.parametrize("metadata", ["[" * 50_000, '{"a":' * 50_000, '{"a": 1}', "x"])
def test_metadata_that_is_no_object_of_texts_is_refused(metadata):
    async def scenario(ask, _vault):
        await role(ask)
        refused = await ask("POST", "auth/approle/role/ci/secret-id", {"metadata": metadata})
        assert (refused.status, b"metadata is a JSON object" in refused.body) == (400, True)

    scene(scenario)


def test_a_machine_gets_a_token_with_the_policies_of_its_role_and_nothing_more():
    async def scenario(ask, _vault):
        role_id = await role(ask, token_ttl="20m", token_max_ttl="30m")
        await ask("POST", "secret/data/app/db", {"data": {"password": "x"}})
        made = await secret(ask, metadata=json.dumps({"host": "h1"}))
        auth = (await login(ask, role_id, made["secret_id"])).json["auth"]
        assert auth["policies"] == ["app", "default"]
        assert auth["metadata"] == {"host": "h1", "role_name": "ci"}
        assert (auth["lease_duration"], auth["orphan"], auth["renewable"]) == (1200, True, True)
        token = auth["client_token"]
        assert (await ask("GET", "secret/data/app/db", token=token)).status == 200
        assert (await ask("GET", "secret/data/other", token=token)).status == 403
        assert (await ask("GET", "auth/approle/role/ci", token=token)).status == 403
        own = (await ask("GET", "auth/token/lookup-self", token=token)).json["data"]
        assert (own["display_name"], own["path"]) == ("approle-ci", "auth/approle/login")
        renewed = (await ask("POST", "auth/token/renew-self", {"increment": "5h"}, token=token)).json
        assert renewed["auth"]["lease_duration"] <= 1800
        assert renewed["warnings"]

    scene(scenario)


def test_what_is_wrong_is_not_said():
    async def scenario(ask, _vault):
        role_id = await role(ask)
        good = (await secret(ask))["secret_id"]
        answers = [
            await login(ask, role_id, "guess"),
            await login(ask, "guess", good),
            await login(ask, "guess", "guess"),
            await login(ask, role_id, good, headers=[(b"x-vault-namespace", b"nowhere")]),
            await login(ask, role_id, good, headers=[(b"x-vault-namespace", b"acme")]),
        ]
        assert {(a.status, a.body) for a in answers} == {(400, b'{"errors":["invalid role or secret id"]}')}
        for known in (role_id, "guess"):
            missing = await ask("POST", "auth/approle/login", {"role_id": known}, token=None)
            assert (missing.status, missing.json["errors"]) == (400, ["missing secret_id"])

    async def with_org(ask, vault):
        made = await ask("POST", "sys/namespaces/acme", {})
        await enable(ask, "sys/auth/approle", token=made.json["data"]["root_token"])
        await scenario(ask, vault)

    scene(with_org)


def test_an_unknown_role_costs_the_same_reads_and_hashes(monkeypatch):
    counted = []
    digest = secret_ids.digest
    monkeypatch.setattr(secret_ids, "digest", lambda *args: counted.append("hash") or digest(*args))

    async def scenario(ask, vault):
        role_id = await role(ask)
        get = vault.node.store.get

        async def reading(keys):
            counted.append("read")
            return await get(keys)

        monkeypatch.setattr(vault.node.store, "get", reading)
        work = []
        for guess in ("warm", role_id, "guess", role_id, "other"):
            counted.clear()
            await login(ask, guess, "guess")
            work.append(sorted(counted))
        assert work[1] == work[2] == work[3] == work[4]
        assert "hash" in work[1]

    scene(scenario)


def test_fifty_logins_at_once_with_ten_uses_give_ten_tokens():
    async def scenario(ask, _vault):
        role_id = await role(ask, secret_id_num_uses=10)
        made = await secret(ask)
        answers = await asyncio.gather(*(login(ask, role_id, made["secret_id"]) for _ in range(50)))
        good = [a.json["auth"]["client_token"] for a in answers if a.status == 200]
        assert len(set(good)) == len(good) == 10
        assert sorted({a.status for a in answers}) == [200, 400]
        assert (await ask("LIST", "auth/approle/role/ci/secret-id")).status == 404

    scene(scenario)


@pytest.mark.parametrize("bound", [{"cidr_list": ["10.0.0.0/8"]}, {"cidr_list": ["::/0"]}])
def test_a_secret_id_counts_from_its_addresses_only_and_a_try_takes_a_use(bound):
    async def scenario(ask, _vault):
        role_id = await role(ask)
        made = await secret(ask, num_uses=2, **bound)
        assert (await login(ask, role_id, made["secret_id"])).status == 400
        left = await ask("POST", "auth/approle/role/ci/secret-id/lookup", {"secret_id": made["secret_id"]})
        assert left.json["data"]["secret_id_num_uses"] == 1
        near = await secret(ask, cidr_list=["127.0.0.0/8"])
        assert (await login(ask, role_id, near["secret_id"])).status == 200

    scene(scenario)


def test_a_token_counts_from_its_addresses_only():
    async def scenario(ask, vault):
        role_id = await role(ask, token_bound_cidrs=["127.0.0.1"])
        token = (await login(ask, role_id, (await secret(ask))["secret_id"])).json["auth"]["client_token"]
        for _ in range(2):
            assert (await ask("GET", "auth/token/lookup-self", token=token)).status == 200
        child = (await ask("POST", "auth/token/create", {}, token=token)).json["auth"]["client_token"]
        elsewhere = Client(vault.node)
        elsewhere.api._node = _Elsewhere(vault.node)
        for bound in (token, child):
            assert (await elsewhere("GET", "auth/token/lookup-self", token=bound)).status == 403
        assert (await elsewhere("GET", "auth/token/lookup-self", token="root")).status == 200

    scene(scenario)


class _Elsewhere:
    """A node that is asked from another address."""

    def __init__(self, node):
        self._node = node

    def __getattr__(self, name):
        return getattr(self._node, name)

    async def handle(self, request):
        return await self._node.handle(request.but(remote="192.0.2.7"))


def test_a_role_that_is_narrowed_narrows_also_what_comes_of_older_secret_ids():
    async def scenario(ask, _vault):
        role_id = await role(ask, token_bound_cidrs=["127.0.0.0/8", "10.0.0.0/8"])
        made = await secret(ask, token_bound_cidrs=["127.0.0.1", "10.1.0.0/16"])
        await ask("POST", "auth/approle/role/ci", {"token_bound_cidrs": ["127.0.0.0/30"]})
        token = (await login(ask, role_id, made["secret_id"])).json["auth"]["client_token"]
        own = (await ask("GET", "auth/token/lookup-self", token=token)).json["data"]
        assert own["bound_cidrs"] == ["127.0.0.0/30"]

    scene(scenario)


def test_a_role_may_bind_to_addresses_alone_but_not_to_nothing():
    async def scenario(ask, _vault):
        refused = await ask("POST", "auth/approle/role/open", {"bind_secret_id": False})
        assert refused.status == 400
        role_id = await role(ask, "near", bind_secret_id=False, secret_id_bound_cidrs="127.0.0.0/8")
        far_id = await role(ask, "far", bind_secret_id=False, secret_id_bound_cidrs="10.0.0.0/8")
        for known, status in ((role_id, 200), (far_id, 400)):
            assert (await ask("POST", "auth/approle/login", {"role_id": known}, token=None)).status == status
        assert (await ask("DELETE", "auth/approle/role/near/secret-id-bound-cidrs")).status == 400

    scene(scenario)


def test_a_deleted_role_ends_its_secret_ids_also_under_the_same_name():
    async def scenario(ask, _vault):
        role_id = await role(ask, role_id="fixed")
        made = await secret(ask)
        assert (await ask("DELETE", "auth/approle/role/ci")).status == 204
        assert (await login(ask, role_id, made["secret_id"])).status == 400
        assert await role(ask, role_id="fixed") == role_id
        assert (await login(ask, role_id, made["secret_id"])).status == 400

    scene(scenario)


def test_a_secret_id_ends_by_itself_by_its_accessor_and_with_time():
    async def scenario(ask, vault):
        role_id = await role(ask, secret_id_ttl="1h")
        first, second, third = [await secret(ask) for _ in range(3)]
        base = "auth/approle/role/ci"
        assert (await ask("POST", f"{base}/secret-id/destroy", {"secret_id": first["secret_id"]})).status == 204
        accessor = {"secret_id_accessor": second["secret_id_accessor"]}
        assert (await ask("POST", f"{base}/secret-id-accessor/lookup", accessor)).status == 200
        assert (await ask("POST", f"{base}/secret-id-accessor/destroy", accessor)).status == 204
        assert (await ask("POST", f"{base}/secret-id-accessor/lookup", accessor)).status == 404
        keys = (await ask("LIST", f"{base}/secret-id")).json["data"]["keys"]
        assert keys == [third["secret_id_accessor"]]
        for ended in (first, second):
            assert (await login(ask, role_id, ended["secret_id"])).status == 400
        now = vault.vault.clock.now
        vault.vault.clock.now = lambda: now() + 3601
        again = await ask("POST", "auth/approle/login", {"role_id": role_id, **third}, token=None)
        assert again.status == 400
        assert (await ask("POST", "auth/approle/tidy/secret-id")).status == 202
        assert (await ask("LIST", f"{base}/secret-id")).status == 404

    scene(scenario)


def test_a_secret_id_never_gets_more_than_its_role_gives():
    async def scenario(ask, _vault):
        await role(ask, secret_id_ttl=600, secret_id_num_uses=3, secret_id_bound_cidrs="10.0.0.0/8")
        for more in ({"ttl": 601}, {"ttl": 0}, {"num_uses": 4}, {"num_uses": 0}, {"cidr_list": "192.0.2.0/24"}):
            refused = await ask("POST", "auth/approle/role/ci/secret-id", more)
            assert refused.status == 400, more
        own = await ask("POST", "auth/approle/role/ci/custom-secret-id", {"secret_id": "mine"})
        assert own.json["data"]["secret_id"] == "mine"
        assert (await ask("POST", "auth/approle/role/ci/custom-secret-id", {"secret_id": "mine"})).status == 400

    scene(scenario)


def test_every_setting_has_a_path_of_its_own():
    changes = {
        "policies": ("token_policies", ["other"], []),
        "secret-id-num-uses": ("secret_id_num_uses", 5, 0),
        "secret-id-ttl": ("secret_id_ttl", 60, 0),
        "secret-id-bound-cidrs": ("secret_id_bound_cidrs", ["10.0.0.0/8"], []),
        "token-bound-cidrs": ("token_bound_cidrs", ["10.0.0.0/8"], []),
        "period": ("token_period", 60, 0),
        "token-ttl": ("token_ttl", 60, 0),
        "token-max-ttl": ("token_max_ttl", 60, 0),
        "token-num-uses": ("token_num_uses", 7, 0),
        "bind-secret-id": ("bind_secret_id", True, True),
    }

    async def scenario(ask, _vault):
        await role(ask)
        for path, (name, value, default) in changes.items():
            where = f"auth/approle/role/ci/{path}"
            assert (await ask("POST", where, {name: value})).status == 204
            assert (await ask("GET", where)).json["data"] == {name: value}
            assert (await ask("DELETE", where)).status == 204
            assert (await ask("GET", where)).json["data"] == {name: default}
        assert (await ask("POST", "auth/approle/role/ci/role-id", {"role_id": "rid"})).status == 204
        assert (await login(ask, "rid", (await secret(ask))["secret_id"])).status == 200
        await role(ask, "two")
        assert (await ask("POST", "auth/approle/role/two/role-id", {"role_id": "rid"})).status == 400

    scene(scenario)


def test_nobody_gives_a_role_what_it_has_not_itself():
    text = 'path "auth/approle/role/*" { capabilities = ["create", "read", "update"] }'

    async def scenario(ask, _vault):
        await ask("PUT", "sys/policies/acl/roles", {"policy": text})
        fields = {"policies": ["roles"]}
        token = (await ask("POST", "auth/token/create", fields)).json["auth"]["client_token"]
        for path, data in (("mine", {"token_policies": "app"}), ("mine", {"token_policies": "root"})):
            assert (await ask("POST", f"auth/approle/role/{path}", data, token=token)).status in (400, 403)
        assert (await ask("POST", "auth/approle/role/mine", {"token_policies": "roles"}, token=token)).status == 204
        more = await ask("POST", "auth/approle/role/mine/policies", {"token_policies": "app"}, token=token)
        assert more.status == 403
        for reserved in ("root", "response-wrapping"):
            assert (await ask("POST", "auth/approle/role/any", {"token_policies": reserved})).status == 400

    scene(scenario)


def test_logins_are_recorded_without_what_was_sent():
    async def scenario(ask, vault):
        role_id = await role(ask)
        made = await secret(ask)
        token = (await login(ask, role_id, made["secret_id"])).json["auth"]["client_token"]
        await login(ask, role_id, "wrong-secret-id")
        records = [record for _, record in await journal(vault)]
        logins = [record for record in records if record.path == "auth/approle/login"]
        said = [(record.caller, record.phase.value, record.result) for record in logins]
        good = [("approle/ci", "intent", ""), ("approle/ci", "outcome", "ok")]
        assert said == [*good, ("", "refused", "invalid_request")]
        assert {record.remote for record in logins} == {"127.0.0.1"}
        text = repr(records)
        assert not [value for value in (role_id, made["secret_id"], token, "wrong-secret-id") if value in text]

    scene(scenario)


def test_an_address_that_guesses_is_stopped():
    async def scenario(ask, _vault):
        role_id = await role(ask)
        good = (await secret(ask))["secret_id"]
        answers = [(await login(ask, role_id, "guess")).status for _ in range(80)]
        assert answers[:50] == [400] * 50
        assert answers[-1] == 429
        assert (await login(ask, role_id, good)).status == 429
        assert (await ask("GET", "auth/token/lookup-self")).status == 200

    scene(scenario)


def test_a_role_belongs_to_its_org():
    async def scenario(ask, _vault):
        made = await ask("POST", "sys/namespaces/acme", {})
        admin, org = made.json["data"]["root_token"], [(b"x-vault-namespace", b"acme")]

        async def there(method, path, body=None, **options):
            return await ask(method, path, body, **{"token": admin, "headers": org} | options)

        await enable(there, "sys/auth/approle")
        role_id = await role(there)
        good = (await secret(there))["secret_id"]
        assert (await login(ask, role_id, good)).status == 400
        token = (await login(there, role_id, good)).json["auth"]["client_token"]
        assert (await there("GET", "auth/token/lookup-self", token=token)).status == 200
        assert (await ask("GET", "auth/approle/role/ci")).status == 404

    scene(scenario)


def test_roles_and_secret_ids_outlive_a_restart(tmp_path):
    place = Place(tmp_path)

    async def main():
        async with place.open() as vault:
            ask = Client(vault.node)
            await enable(ask, "sys/auth/approle")
            role_id = await role(ask, secret_id_num_uses=2)
            made = await secret(ask)
            assert (await login(ask, role_id, made["secret_id"])).status == 200
        async with place.open() as vault:
            ask = Client(vault.node)
            assert (await login(ask, role_id, made["secret_id"])).status == 200
            assert (await login(ask, role_id, made["secret_id"])).status == 400
        assert not [f for f in tmp_path.rglob("*") if f.is_file() and made["secret_id"].encode() in f.read_bytes()]

    asyncio.run(main())


def test_a_proxy_token_learns_nothing_at_any_route():
    async def scenario(ask, _vault):
        role_id = await role(ask)
        made = await secret(ask)
        await ask("POST", "auth/userpass/users/ann", {"password": "canary-password"})
        fields = {"policies": ["default"], "scope": "proxy"}
        proxy = (await ask("POST", "auth/token/create", fields)).json["auth"]["client_token"]
        for member in ("approle", "userpass"):
            for route in auth.load(member).routes:
                path = f"auth/{member}/" + route.pattern.replace("{role}", "ci").replace("{name}", "ann")
                for method in ("GET", "LIST", "POST", "DELETE"):
                    answer = await ask(method, path, {"secret_id": made["secret_id"]}, token=proxy)
                    assert answer.status == (400 if route.open and method == "POST" else 403), (method, path)
                    assert role_id.encode() not in answer.body
                    assert made["secret_id"].encode() not in answer.body

    scene(scenario)


def test_a_sealed_vault_lets_nobody_in():
    async def main():
        async with open_vault() as vault:
            ask = Client(vault.node)
            await enable(ask, "sys/auth/approle")
            role_id = await role(ask)
            made = await secret(ask)
            await vault.node.seal()
            assert (await login(ask, role_id, made["secret_id"])).status == 503

    asyncio.run(main())


@pytest.mark.parametrize(
    "odd", ['"\\ud800"', "7", "null", '["x"]', '{"a": 1}', '"' + "x" * 9000 + '"', '"\\u0000/../"']
)
def test_odd_proofs_are_refused_and_break_nothing(odd):
    async def scenario(ask, _vault):
        role_id = await role(ask)
        for body in (f'{{"role_id": "{role_id}", "secret_id": {odd}}}', f'{{"role_id": {odd}, "secret_id": {odd}}}'):
            answer = await ask("POST", "auth/approle/login", token=None, raw=body.encode())
            assert answer.status == 400, answer.body
        answer = await ask("POST", "auth/userpass/login/ann", token=None, raw=f'{{"password": {odd}}}'.encode())
        assert answer.status == 400, answer.body

    scene(scenario)
