"""The OpenAPI document is the API: what it describes answers as it says, and gives nothing away."""

import asyncio
import base64
import itertools
import re
import uuid

import pytest

from compat.fuzz import fuzz, operations
from faces.api_client import asking, furnish
from keyhole.core.request import Operation
from keyhole.faces.api import status
from keyhole.vault.sys.node_routes import NODE_ROUTES
from vault.world import CANARY, SERVICE, agent, stripe

EXAMPLES = 1
BODY = {"data": {"value": "x"}, "policy": 'path "x" {}', "name": "x", "token": "x", "path": "x", "type": "kv"}


@pytest.mark.timeout(400)
def test_made_up_requests_get_no_server_error_and_the_answers_that_are_described(vault):
    vault.furnish()
    assert len(operations(vault.url, vault.token)) > 400
    assert fuzz(vault.url, vault.token, examples=EXAMPLES) == []


def test_a_wrong_answer_would_be_noticed(vault, monkeypatch):
    from compat import fuzz as module

    def nothing(*_):
        raise AssertionError("noticed")

    monkeypatch.setattr(module, "checks", lambda: [nothing])
    kept = operations(vault.url, vault.token)[:2]
    monkeypatch.setattr(module, "operations", lambda *_: kept)
    assert len(fuzz(vault.url, vault.token, examples=1)) == 2


def test_what_a_server_answers_by_itself_is_described():
    described = {f"sys/{route.pattern}": route for route in NODE_ROUTES}
    assert set(described) == set(status.ROUTES)
    for path, (methods, _) in status.ROUTES.items():
        assert ("GET" in methods) == (Operation.READ in described[path].handlers), path
        assert ("PUT" in methods) == (Operation.CREATE in described[path].handlers), path
        assert ("DELETE" in methods) == (Operation.DELETE in described[path].handlers), path


async def paths_of(ask):
    document = (await ask("GET", "sys/internal/specs/openapi")).json
    return {path.removeprefix("/") for path in document["paths"]}


def filled(path, value="stripe/api-key"):
    """A path of the document with its parameters filled in."""
    parts = [value if "{path}" in part else "x" if part.startswith("{") else part for part in path.split("/")]
    return "/".join(parts)


METHODS = ("GET", "HEAD", "LIST", "HELP", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
MERGE = [(b"content-type", b"application/merge-patch+json")]


def test_a_token_of_the_proxy_gets_no_value_by_any_route_and_method():
    async def main():
        async with asking() as (ask, vault):
            await stripe(vault)
            await furnish(ask)
            token = await agent(vault, services=["stripe"], scope="proxy")
            await ask("PUT", "cubbyhole/x", {"value": CANARY})
            await ask("PUT", "kv/x", {"value": CANARY})
            await ask("PUT", "totp/keys/x", {"key": base64.b32encode(CANARY.encode()).decode(), "issuer": CANARY})
            document = (await ask("GET", "sys/internal/specs/openapi")).json["paths"]
            public = {path.removeprefix("/") for path, item in document.items() if "x-vault-unauthenticated" in item}
            asked = 0
            for path in sorted(await paths_of(ask)):
                for method in METHODS:
                    for body in (None, BODY) if method in {"POST", "PUT", "PATCH"} else (None,):
                        answer = await ask(method, filled(path), body, token=token, headers=MERGE)
                        assert CANARY not in answer.body.decode() + str(answer.headers), (method, path)
                        assert answer.status >= 400 or path in public, (method, path, answer.status, answer.body)
                        asked += 1
            assert asked > 1000
            assert (await ask("GET", "secret/data/stripe/api-key")).json["data"]["data"] == {"value": CANARY}

    asyncio.run(main())


async def tenant(ask, name):
    """The root token of a new org."""
    return (await ask("POST", f"sys/namespaces/{name}", {})).json["data"]["root_token"]


async def things(ask, token):
    """Names and ids of what an org has, of every kind that can be named in a request."""
    put = "PUT"
    await ask(put, "secret/data/theirs", {"data": {"value": CANARY}}, token=token)
    await ask(put, "services/theirs", {**SERVICE, "secret": "theirs"}, token=token)
    await ask(put, "sys/policies/acl/theirs", {"policy": 'path "x" { capabilities = ["read"] }'}, token=token)
    await ask(put, "agents/theirs", {}, token=token)
    await ask("POST", "sys/auth/approle", {"type": "approle"}, token=token)
    await ask(put, "auth/approle/role/theirs", {}, token=token)
    await ask("POST", "sys/mounts/theirs", {"type": "kv"}, token=token)
    await ask("POST", "sys/mounts/ssh", {"type": "ssh"}, token=token)
    role = {"key_type": "otp", "default_user": "ann", "cidr_list": "10.0.0.0/8"}
    await ask("POST", "ssh/roles/theirs", role, token=token)
    lease = (await ask("POST", "ssh/creds/theirs", {"ip": "10.0.0.5"}, token=token)).json["lease_id"]
    made = (await ask("POST", "auth/token/create", {"policies": ["theirs"]}, token=token)).json["auth"]
    entity = (await ask("POST", "identity/entity", {"name": "theirs"}, token=token)).json["data"]["id"]
    wrap = [(b"x-vault-wrap-ttl", b"60")]
    wrapped = (await ask("GET", "secret/data/theirs", token=token, headers=wrap)).json["wrap_info"]["token"]
    return ["theirs", lease, made["client_token"], made["accessor"], entity, wrapped]


def like(thing):
    """Something of the same form that nobody has."""
    if thing == "theirs":
        return "nobody"
    if thing.startswith("ssh/"):
        return f"ssh/creds/nobody/{'n' * 24}"
    if thing.count("-") == 4:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, thing))
    head, tail = thing[: -len(thing) // 2], thing[-len(thing) // 2 :]
    return head + tail[::-1].swapcase()


FIELDS = {"accessor", "canonical_id", "entity_id", "from_entity_ids", "id", "lease_id", "member_entity_ids", "name"}
FIELDS |= {"path", "policies", "role_id", "secret", "token"}


def test_what_another_org_has_is_answered_as_if_it_were_not_there():
    async def main():
        async with asking() as (ask, _vault):
            root = await tenant(ask, "acme")
            theirs = await things(ask, root)
            own = await tenant(ask, "other")
            for kind in ("approle", "userpass"):
                await ask("POST", f"sys/auth/{kind}", {"type": kind}, token=own)
            for kind in ("ssh", "kv", "transit"):
                await ask("POST", f"sys/mounts/{kind}", {"type": kind}, token=own)
            document = (await ask("GET", "sys/internal/specs/openapi", token=own)).json["paths"]
            for path, item in sorted(document.items()):
                if path.removeprefix("/") in LEFT | set(status.ROUTES):
                    continue
                body = item.get("post", {}).get("requestBody", {"content": {}})["content"].get(JSON, {})
                fields = FIELDS & set(body.get("schema", {}).get("properties", {}))
                for thing in theirs:
                    await same(ask, path.removeprefix("/"), thing, own, sorted(fields))
            after = await ask("GET", "secret/data/theirs", token=root)
            assert after.json["data"]["data"] == {"value": CANARY}
            assert (await ask("GET", "auth/token/lookup-self", token=theirs[2])).status == 200

    asyncio.run(main())


# These end the run, answer at random, or are for whoever holds the token, as sys/wrapping/lookup is.
LEFT = {
    "sys/wrapping/lookup",
    "sys/seal",
    "auth/token/revoke-self",
    "sys/audit-log",
    "sys/step-down",
    "sys/tools/random",
    "transit/random",
}


async def same(ask, path, thing, token, fields):
    """The thing of another org and something that nobody has, in each place of a request: one answer for both."""
    tries = [("POST", field) for field in fields]
    tries += [(method, "") for method in ("GET", "LIST", "DELETE") if "{" in path]
    for method, field in tries:
        answers = []
        for each in (thing, like(thing)):
            target = re.sub(r"\{\w+\}", f"n{next(FRESH)}" if field else each, path)
            answer = await ask(method, target, {field: each} if field else None, token=token)
            assert CANARY not in answer.body.decode()
            said = " ".join(answer.json.get("errors") or []) if answer.headers.get("content-type") == JSON else ""
            cut = next((each[:length] for length in range(len(each), 3, -1) if each[:length] in said), each)
            answers.append((answer.status, QUOTED.sub("…", said.replace(cut, "…"))))
        assert answers[0] == answers[1], (method, path, field, thing)


FRESH = itertools.count()
JSON = "application/json"
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|\bn\d+\b")  # what was sent is repeated, sometimes cut
