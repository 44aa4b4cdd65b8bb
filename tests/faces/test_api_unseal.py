"""Who may undo a seal over the API."""

import asyncio
import os

from faces.api_client import Client
from keyhole.stores import open_store
from keyhole.vault.node import Node


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
