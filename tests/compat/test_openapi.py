"""The OpenAPI document is the API: what it describes answers as it says, and gives nothing away."""

import asyncio

from compat.fuzz import fuzz, operations
from faces.api_client import asking
from keyhole.core.request import Operation
from keyhole.faces.api import status
from keyhole.vault.sys.node_routes import NODE_ROUTES
from vault.world import CANARY, agent, stripe

EXAMPLES = 3
BODY = {"data": {"value": "x"}, "policy": 'path "x" {}', "name": "x", "token": "x", "path": "x", "type": "kv"}


def test_made_up_requests_get_no_server_error_and_the_answers_that_are_described(vault):
    assert len(operations(vault.url, vault.token)) > 150
    assert fuzz(vault.url, vault.token, examples=EXAMPLES) == []


def test_a_wrong_answer_would_be_noticed(vault, monkeypatch):
    from compat import fuzz as module

    def nothing(*_):
        raise AssertionError("noticed")

    monkeypatch.setattr(module, "CHECKS", [nothing])
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
            token = await agent(vault, services=["stripe"], scope="proxy")
            await ask("PUT", f"cubbyhole/{CANARY}", {"value": CANARY}, token="root")
            asked = 0
            for path in sorted(await paths_of(ask)):
                for method in METHODS:
                    for body in (None, BODY) if method in {"POST", "PUT", "PATCH"} else (None,):
                        answer = await ask(method, filled(path), body, token=token, headers=MERGE)
                        assert CANARY not in answer.body.decode() + str(answer.headers), (method, path)
                        assert answer.status >= 400 or path in OPEN, (method, path, answer.status, answer.body)
                        asked += 1
            assert asked > 1000
            assert (await ask("GET", "secret/data/stripe/api-key")).json["data"]["data"] == {"value": CANARY}

    asyncio.run(main())


# What anybody may ask, without a token too.
OPEN = set(status.ROUTES)
