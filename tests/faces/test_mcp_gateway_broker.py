"""A server's program reaches services through the broker, as an agent of its own, and holds no credential at all."""

import asyncio
import json
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import pytest
import trustme

from e2e.world import API, KEY, Upstream
from faces.test_mcp_gateway import Stage, nobody
from faces.test_mcp_gateway_apart import ask, nosy
from keyhole import app
from keyhole.cli.mcp.through import Throughs
from keyhole.config import Config
from keyhole.core.errors import Unauthenticated
from keyhole.faces.mcp.gateway import child
from keyhole.faces.mcp.gateway.gateway import Gateway
from keyhole.faces.mcp.gateway.reach import Ways
from keyhole.faces.mcp.inside import Door, Inside
from keyhole.testing import ROOT_TOKEN, OpenVault, open_keyhole


class Asks(Inside):
    def close(self):
        pass


class Kept(Throughs):
    """Keeps the tokens that it makes."""

    def __init__(self, tokens, *given):
        super().__init__(*given)
        self.tokens = tokens

    def _made(self, server):
        made, plan = super()._made(server)
        self.tokens.append(made["token"])
        return made, plan


def client(door, token):
    """What a command has of a vault, over one in this process."""

    def road(of):
        return replace(asyncio.run_coroutine_threadsafe(door.road(token), door.loop).result(), token=of)

    return SimpleNamespace(client=SimpleNamespace(party=lambda: Asks(door, token), road=road))


def test_a_program_calls_through_the_broker_as_its_agent_and_its_calls_are_recorded_with_its_name(
    tmp_path, monkeypatch
):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("HTTPS_PROXY", "http://of-the-gateway.test:1")
    config = Config(vault=app.MEMORY, upstream_ca=str(tmp_path / "ca.pem"), resolve=(f"{API}:127.0.0.1",))
    with closing(Upstream(authority, API)) as upstream:
        asyncio.run(_main(config, upstream))


async def _main(config, upstream):
    async with open_keyhole(config) as keyhole:
        door = Door(keyhole.node, lambda: app.listen_for_calls(keyhole, "127.0.0.1:0"))
        stage = Stage(OpenVault(keyhole.node, ROOT_TOKEN), nobody)
        told = []
        env = child.environment({}, {"PATH": "/usr/bin:/bin"})
        stage.tokens = []
        ways = Ways(nobody, broker=Kept(stage.tokens, client(door, ROOT_TOKEN), env, told.append), tell=told.append)
        stage.door, stage.gateway = door, Gateway(Inside(door, ROOT_TOKEN), ways)
        try:
            await _scenario(stage, upstream)
        finally:
            await stage.gateway.close()
            await door.close()


async def _scenario(stage, upstream):
    await stage.write("secret/data/api/key", {"data": {"value": KEY}})
    service = {"hosts": [f"{API}:{upstream.port}"], "secret": "api/key", "inject": {"kind": "bearer"}}
    service |= {"paths": ["/v1/**", "/echo"], "allow_addresses": ["127.0.0.1/32"]}
    await stage.write("services/api", service)
    for agent in ("coder", "crm"):
        await stage.write(f"agents/{agent}", {})
    stage.agent = Inside(stage.door, (await stage.write("agents/coder/token", {}))["token"])
    await stage.grant("tools/*")
    url = f"https://{API}:{upstream.port}/v1/things"
    await nosy(stage, agent="crm", env={}, settings={"PLACEHOLDER": "none"})
    assert "403" in await ask(stage, "ask", url)  # its agent may use nothing yet
    assert upstream.seen == []
    await stage.write("agents/crm/services/api", {})
    status, body, proxy = await ask(stage, "ask", url)
    assert (status, json.loads(body)) == (200, {"ok": True, "got": 0})
    assert "of-the-gateway" not in proxy
    assert "*" * 20 in proxy  # its token is its own: agents do not see it
    assert upstream.seen[0].headers["Authorization"] == f"Bearer {KEY}"
    assert "403" in await ask(stage, "ask", f"https://{API}:{upstream.port}/other")
    used = await stage.records("services/api")
    assert {record["tool"] for record in used if record.get("caller") == "agent/crm"} == {"nosy"}
    [token] = stage.tokens
    assert token not in json.dumps(await ask(stage, "read", "/proc/self/environ"))
    await stage.gateway.close()
    with pytest.raises(Unauthenticated):  # it ended with the program
        await asyncio.to_thread(Inside(stage.door, token).ask, "read", "auth/token/lookup-self")
