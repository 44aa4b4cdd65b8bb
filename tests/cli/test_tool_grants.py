"""Grants of tools from the command line, and the questions about them."""

import asyncio
import json

import pytest

from keyhole.core.errors import InvalidRequest, NotFound, PolicyDenied
from keyhole.testing import ROOT_TOKEN, OpenVault, open_keyhole

PIN = "a" * 64
RULES = {"create_*": {"conditions": [{"at": "/repo", "like": "acme/*"}], "approval": {"required": True}}}


def play(scenario):
    async def main():
        async with open_keyhole() as keyhole:
            opened = OpenVault(keyhole.node, ROOT_TOKEN)
            await opened.ask("update", "secret/data/github/token", {"data": {"value": "tok_0123456789"}})
            server = {"url": "https://tools.test/mcp", "headers": {"Authorization": "Bearer {github/token}"}}
            await opened.ask("update", "tools/servers/github", {**server, "deny": ["delete_*"], "rules": RULES})
            pins = dict.fromkeys(("create_issue", "get_issue", "delete_repo"), PIN)
            await opened.ask("update", "tools/servers/github/pins", {"approve": pins})
            await opened.ask("update", "agents/coder", {})
            await scenario(opened)

    asyncio.run(main())


async def why(opened, tool, **more):
    question = {"method": "USE", "url": f"tools/github/{tool}", "agent": "coder", **more}
    return (await opened.ask("update", "sys/why", question)).data


async def grant(opened, tool, **how):
    return (await opened.ask("update", "agents/coder/tools", {"tool": tool}, **how)).data


def test_a_tool_is_granted_in_one_step_and_one_can_ask_what_came_of_it():
    async def scenario(opened):
        answer = await why(opened, "create_issue")
        assert not answer["allowed"]
        assert answer["error"]["hint"].endswith("keyhole grant AGENT tools/github/create_issue")
        assert await grant(opened, "github/create_issue") == {
            "agent": "coder",
            "tool": "github/create_issue",
            "changed": True,
            "approved": ["create_issue"],
        }
        assert not (await grant(opened, "github/create_issue"))["changed"]
        answer = await why(opened, "create_issue")
        assert answer["allowed"]
        assert answer["secrets"] == ["github/token"]
        assert answer["approved"]["digest"] == PIN
        assert answer["checks"] == ["argument /repo: like acme/*", "approval by a person: every request"]
        assert (await why(opened, "create_issue", arguments={"repo": "acme/x"}))["allowed"]
        refused = await why(opened, "create_issue", arguments={"repo": "evil/x"})
        assert refused["error"]["code"] == "invalid_request"
        assert "evil" not in json.dumps(refused)
        can = await opened.get("sys/what-can/coder")
        assert can["tools"] == [{"server": "github", "tools": ["create_issue"], "secrets": ["github/token"]}]
        who = await opened.get("sys/who-can/github/token")
        assert who["agents"] == [{"agent": "coder", "uses_through": ["tools/github"], "may": []}]
        assert (await opened.get("agents/coder"))["tools"] == ["github/create_issue"]
        assert (await opened.get("agents/coder"))["services"] == []
        await grant(opened, "tools/github/*")
        assert (await opened.get("sys/what-can/coder"))["tools"][0]["tools"] == [
            "create_issue",
            "get_issue",
            "@prompts",
            "@resources",
        ]
        for tool in ("delete_repo", "unknown"):  # not offered, and never approved
            assert not (await why(opened, tool))["allowed"]
        for tool in ("github/*", "github/create_issue"):
            await opened.ask("update", "agents/coder/tools", {"tool": tool, "revoke": True})
        assert (await opened.get("sys/what-can/coder"))["tools"] == []

    play(scenario)


BAD = [
    ("github", InvalidRequest),
    ("github/", InvalidRequest),
    ("github/*x", InvalidRequest),
    ("github/a/b", InvalidRequest),
    ("github/\u0435cho", InvalidRequest),
    ("*/create_issue", InvalidRequest),
    ("servers/github", InvalidRequest),
    ("own/*", InvalidRequest),
    ("gitlab/*", NotFound),
]


def test_what_is_no_tool_of_a_server_is_not_granted():
    async def scenario(opened):
        for tool, error in BAD:
            with pytest.raises(error) as caught:
                await grant(opened, tool)
            assert caught.value.hint, tool

    play(scenario)


def test_nobody_grants_a_tool_that_they_may_not_use_themselves():
    async def scenario(opened):
        policy = 'path "agents/coder/tools" { capabilities = ["update", "create"] }\npath "tools/github/get_*" '
        policy += '{ capabilities = ["use"] }'
        await opened.ask("update", "sys/policies/acl/lead", {"policy": policy})
        lead = (await opened.ask("update", "auth/token/create", {"policies": ["lead"]})).auth["client_token"]
        assert (await grant(opened, "github/get_issue", token=lead))["changed"]
        for tool in ("github/create_issue", "github/*", "github/get_*"):
            with pytest.raises(PolicyDenied):
                await grant(opened, tool, token=lead)

    play(scenario)
