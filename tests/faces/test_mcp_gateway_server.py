"""The gateway in front of servers of tools that a vault on a server knows: everything goes through its API."""

import asyncio

import pytest

from faces.test_mcp_gateway import OTHER, TOKEN, Stage, nobody
from keyhole.client.http import HttpTransport
from keyhole.client.party import Party
from keyhole.core.errors import PolicyDenied
from keyhole.faces.api.app import Api
from keyhole.faces.api.server import ApiServer
from keyhole.faces.mcp.gateway.gateway import Gateway
from keyhole.faces.mcp.gateway.upstream import Ways
from keyhole.testing import open_vault

# What whoever runs a gateway needs at a server, as docs/mcp-gateway.md says.
RUNS = """
path "tools/servers" { capabilities = ["list"] }
path "tools/servers/*" { capabilities = ["read", "update"] }
path "secret/data/evil/*" { capabilities = ["read"] }
path "agents/coder/token" { capabilities = ["create", "update", "sudo"] }
"""
RULES = {
    "add": {"conditions": [{"at": "/a", "max": 5.5}], "limits": {"rate": "3/h"}},
    "echo": {"approval": {"required": True, "wait": "60s"}},
}


def test_a_vault_on_a_server_decides_lends_and_has_calls_approved_through_its_api():
    async def main():
        async with open_vault() as opened:
            server = ApiServer(Api(opened.node))
            host, port = await server.listen("127.0.0.1", 0)
            url = f"http://{host}:{port}"
            stage = Stage(opened, nobody)
            for name, value in (("evil/token", TOKEN), ("other/token", OTHER)):
                await stage.write(f"secret/data/{name}", {"data": {"value": value}})
            await stage.write("agents/coder", {})
            await stage.write("sys/policies/acl/gateway", {"policy": RUNS})
            runs = (await opened.ask("update", "auth/token/create", {"policies": ["gateway"]})).auth["client_token"]
            own, agent = Party(HttpTransport(url, token=runs)), None
            stage.gateway = Gateway(own, Ways(nobody))
            try:
                await stage.add(rules=RULES)
                await stage.grant("tools/evil/*")
                token = (await asyncio.to_thread(own.ask, "update", "agents/coder/token", {})).data["token"]
                stage.agent = agent = Party(HttpTransport(url, token=token))
                await scenario(stage)
                await stage.add("other", env={"EVIL_TOKEN": "other/token"}, approve=False)
                with pytest.raises(PolicyDenied):  # a secret that whoever runs the gateway may not read
                    await stage.gateway.listing("other")
                await opened.ask("update", "auth/token/revoke", {"token": token})
                assert "permission denied" in await stage.call("env")
            finally:
                await stage.gateway.close()
                for party in (own, agent):
                    if party is not None:
                        party.close()
                await server.close()

    asyncio.run(main())


async def scenario(stage):
    assert {"evil__add", "evil__echo"} <= set(await stage.shown())
    assert '"3.5"' in await stage.call("add", {"a": 1.5, "b": 2})
    assert '"7.5"' in await stage.call("add", {"a": 5.5, "b": 2})
    assert "invalid_request" in await stage.call("add", {"a": 5.6, "b": 2})
    assert '"1"' in await stage.call("add", {"a": 0, "b": 1})
    assert "rate_limited" in await stage.call("add", {"a": 0, "b": 1})
    told = []

    async def progress(*about):
        told.append(about[2])

    async with stage.client() as client:
        call = asyncio.create_task(client.call_tool("evil__echo", {"x": 1}, progress_callback=progress))
        async with asyncio.timeout(60):
            while not told:  # noqa: ASYNC110  # nobody tells a test
                await asyncio.sleep(0.01)
        await stage.write(f"approvals/requests/{told[0].rpartition(' ')[2]}/approve", {})
        text = (await call).model_dump_json()
    assert TOKEN not in text
    assert "*" * len(TOKEN) in text
    done = [record for record in await stage.records("tools/evil/echo") if record["phase"] == "outcome"]
    assert [(record["caller"], record["result"]) for record in done] == [("agent/coder", "ok")]
