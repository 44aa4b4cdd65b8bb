"""An org in front of a path: what it means, and that nobody learns from it which orgs there are."""

import pytest

from faces.api_client import play
from vault.world import journal


def named(org):
    return [(b"x-vault-namespace", org.encode())]


async def tenants(ask):
    """The root tokens of two orgs; in acme ann can log in with a password."""
    made = {}
    for name in ("acme", "other"):
        made[name] = (await ask("POST", f"sys/namespaces/{name}", {})).json["data"]["root_token"]
    token = made["acme"]
    assert (await ask("POST", "acme/sys/auth/userpass", {"type": "userpass"}, token=token)).status == 204
    user = {"password": "correct horse", "token_policies": "default"}
    assert (await ask("POST", "auth/userpass/users/ann", user, token=token)).status == 204
    return made


def test_the_own_org_in_front_of_a_path_changes_nothing_of_what_it_means():
    async def scenario(ask, vault):
        acme = (await tenants(ask))["acme"]
        assert (await ask("PUT", "acme/secret/data/a/b", {"data": {"v": 1}}, token=acme)).status == 200
        assert (await ask("GET", "secret/data/a/b", token=acme)).json["data"]["data"] == {"v": 1}
        assert (await ask("LIST", "acme/secret/metadata/a", token=acme)).json["data"]["keys"] == ["b"]
        assert (await ask("GET", "acme/secret/metadata/a?list=true", token=acme)).json["data"]["keys"] == ["b"]
        mounts = (await ask("GET", "acme/sys/mounts", token=acme)).json
        assert mounts["secret/"] == mounts["data"]["secret/"]  # beside the envelope, as at sys/mounts
        policy = 'path "secret/data/a/*" { capabilities = ["read"] }'
        await ask("PUT", "acme/sys/policies/acl/reader", {"policy": policy}, token=acme)
        made = await ask("POST", "acme/auth/token/create", {"policies": ["reader"]}, token=acme)
        reader = made.json["auth"]["client_token"]
        assert (await ask("GET", "acme/secret/data/a/b", token=reader)).status == 200
        assert (await ask("GET", "acme/secret/data/c", token=reader)).status == 403
        assert (await ask("DELETE", "acme/secret/data/a/b", token=acme)).status == 204
        paths = {record.path for _, record in await journal(vault)}
        assert "secret/data/a/b" in paths
        assert not [path for path in paths if path.startswith("acme/")]

    play(scenario)


def test_a_mount_of_that_name_is_meant_before_the_org():
    async def scenario(ask, _vault):
        acme = (await tenants(ask))["acme"]
        await ask("POST", "sys/mounts/acme", {"type": "kv", "options": {"version": "1"}}, token=acme)
        assert (await ask("PUT", "acme/secret/data/x", {"k": "v"}, token=acme)).status == 204
        assert (await ask("GET", "acme/secret/data/x", token=acme)).json["data"] == {"k": "v"}
        assert (await ask("GET", "secret/data/x", token=acme)).status == 404

    play(scenario)


def test_a_login_names_the_org_by_header_or_in_its_path():
    async def scenario(ask, _vault):
        tokens = await tenants(ask)
        login = {"password": "correct horse"}
        for path, headers in (("acme/auth/userpass/login/ann", []), ("auth/userpass/login/ann", named("acme"))):
            for token in (None, "root", tokens["other"], "hvs.nobody"):
                answer = await ask("POST", path, login, token=token, headers=headers)
                assert answer.status == 200, (path, token, answer.body)
                own = answer.json["auth"]["client_token"]
                assert (await ask("GET", "acme/auth/token/lookup-self", token=own)).status == 200
        assert (await ask("POST", "auth/userpass/login/ann", login, token=None)).status in {400, 403}

    play(scenario)


@pytest.mark.parametrize("token", ["root", "other", None, "hvs.nobody"])
def test_whether_an_org_is_there_shows_in_no_answer(token):
    asked = [
        ("GET", "secret/data/a", None),
        ("LIST", "secret/metadata", None),
        ("PUT", "secret/data/a", {"data": {}}),
        ("GET", "sys/mounts", None),
        ("GET", "sys/internal/ui/mounts", None),
        ("GET", "sys/internal/ui/mounts/secret", None),
        ("GET", "sys/internal/specs/openapi", None),
        ("GET", "sys/health", None),
        ("GET", "identity/oidc/.well-known/keys", None),
        ("GET", "nothing/x", None),
        ("POST", "auth/userpass/login/ann", {"password": "wrong"}),
        ("POST", "auth/userpass/login/bob", {"password": "wrong"}),
        ("POST", "auth/approle/login", {"role_id": "a", "secret_id": "b"}),
        ("POST", "auth/token/create", {}),
        ("DELETE", "auth/userpass/users/ann", None),
    ]

    async def scenario(ask, _vault):
        tokens = await tenants(ask)
        who = tokens.get(token, token)
        for method, path, body in asked:
            for form in ("prefix", "header"):
                answers = []
                for org in ("acme", "nobody"):
                    target = f"{org}/{path}" if form == "prefix" else path
                    answer = await ask(method, target, body, token=who, headers=named(org) if form == "header" else [])
                    text = answer.body.decode().replace(org, "ORG")
                    answers.append((answer.status, text.partition('"request_id"')[0] or text, sorted(answer.headers)))
                assert answers[0] == answers[1], (form, method, path)
        assert (await ask("GET", "auth/userpass/users/ann", token=tokens["acme"])).status == 200

    play(scenario)


def test_what_lies_elsewhere_is_a_path_without_a_mount():
    async def scenario(ask, _vault):
        tokens = await tenants(ask)
        await ask("PUT", "secret/data/a", {"data": {}}, token=tokens["acme"])
        for token in ("root", tokens["other"]):
            answer = await ask("GET", "acme/secret/data/a", token=token)
            assert (answer.status, answer.json["errors"]) == (404, ["no handler for route 'acme/secret/data/a'"])

    play(scenario)


def test_there_is_no_org_within_an_org_and_no_state_of_the_server():
    async def scenario(ask, _vault):
        acme = (await tenants(ask))["acme"]
        await ask("PUT", "secret/data/a", {"data": {}}, token=acme)
        both = await ask("GET", "acme/secret/data/a", token=acme, headers=named("acme"))
        assert (both.status, both.json["errors"]) == (404, ["no handler for route 'acme/secret/data/a'"])
        assert (await ask("GET", "acme/acme/secret/data/a", token=acme)).status == 404
        for name in ("acme/team", "acme/acme", "root/acme"):
            assert (await ask("GET", "secret/data/a", token=acme, headers=named(name))).status == 403
        for path in ("acme/sys/health", "acme/sys/seal-status", "acme/sys/init"):
            answer = await ask("GET", path, token=acme)
            assert (answer.status, answer.json["errors"]) == (400, ["operation unavailable in namespaces"])
        assert (await ask("GET", "acme/", token=acme)).status == 404
        assert (await ask("GET", "acme", token=acme)).status == 404

    play(scenario)
