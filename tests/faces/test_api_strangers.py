"""What the API does for strangers: who may undo a seal, and how much of a body is read."""

import asyncio
import os

import pytest

from faces.api_client import Client
from keyhole.faces.api.app import Api
from keyhole.stores import open_store
from keyhole.testing import open_vault
from keyhole.vault.node import Node
from vault.world import journal


def test_a_seal_that_needs_nobody_is_undone_only_by_who_may_seal(tmp_path):
    key = tmp_path / "keys" / "unseal.key"
    key.parent.mkdir(mode=0o700)
    key.write_bytes(os.urandom(32))
    key.chmod(0o600)
    text = 'path "sys/seal" { capabilities = ["update", "sudo"] }'

    async def main():
        node = Node(await open_store("memory:", create=True))
        root = await node.init(f"keyfile:{key}")
        ask = Client(node)
        await ask("PUT", "sys/policies/acl/operator", {"policy": text}, token=root)
        tokens = {}
        for name, fields in {
            "weak": {"policies": ["default"]},
            "operator": {"policies": ["operator"]},
            "proxy": {"policies": ["operator"], "scope": "proxy"},
        }.items():
            made = await ask("POST", "auth/token/create", fields, token=root)
            tokens[name] = made.json["auth"]["client_token"]
        tenant = (await ask("POST", "sys/namespaces/acme", {}, token=root)).json["data"]["root_token"]
        assert (await ask("PUT", "sys/seal", {}, token=tokens["operator"])).status == 204
        await node.seal()  # returns when it is sealed
        for token in (None, "guess", tokens["weak"], tokens["proxy"], tenant):
            answer = await ask("PUT", "sys/unseal", {"key": "x"} if token else {}, token=token)
            assert (answer.status, node.vault) == (403, None)
        assert (await ask("GET", "sys/seal-status", token=None)).json["sealed"]
        assert (await ask("PUT", "sys/unseal", {}, token=tokens["operator"])).json["sealed"] is False
        assert (await ask("GET", "auth/token/lookup-self", token=tokens["weak"])).status == 200
        assert (await ask("PUT", "sys/unseal", {}, token=None)).json["sealed"] is False
        await node.close()

    asyncio.run(main())


@pytest.mark.parametrize("token", ["guess", None, "hvs." + "x" * 44])
@pytest.mark.parametrize("path", ["/v1/secret/data/x", "/v1/nowhere", "/v1/sys/unseal", "/v1/auth/approle/login"])
def test_a_stranger_cannot_fill_the_memory_with_a_long_body(path, token):
    async def main():
        async with open_vault() as vault:
            await vault.ask("update", "sys/auth/approle", {"type": "approle"})
            api, sent, pieces = Api(vault.node), [], 0

            async def receive():
                nonlocal pieces
                pieces += 1
                return {"type": "http.request", "body": b" " * 16_384, "more_body": pieces < 1000}

            async def send(message):
                sent.append(message)

            scope = {"type": "http", "method": "PUT", "path": path, "query_string": b"", "headers": []}
            scope["headers"] = [(b"x-vault-token", token.encode())] if token else []
            await api(scope, receive, send)
            open_to_all = path.endswith(("unseal", "login"))
            assert sent[0]["status"] == (413 if open_to_all else 403)
            assert pieces < 10
            found = [record.result for _, record in await journal(vault)]
            assert found.count("unauthenticated") == (0 if open_to_all else 1)

    asyncio.run(main())


def test_a_query_with_too_many_fields_is_refused_and_not_logged(caplog):
    async def main():
        async with open_vault() as vault:
            answer = await Client(vault.node)("GET", "sys/health?" + "a=1&" * 5_000, token=None)
            assert answer.status == 400
            assert not caplog.records

    asyncio.run(main())
