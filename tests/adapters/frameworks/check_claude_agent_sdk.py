"""The Claude Agent SDK: its server in this process, asked by a client of MCP as Claude Code does."""

import dataclasses
import json
from typing import Annotated

import claude_agent_sdk
from claude_agent_sdk import create_sdk_mcp_server
from mcp import Client as McpClient
from pydantic import Field

from keyhole import Client
from keyhole.adapters.claude_agent_sdk import tool

VALUE = "xoxb-0123456789"
kh = Client()
needs = {"token": "slack/bot-token"}


@dataclasses.dataclass
class Place:
    channel: str
    thread: int = 0


@tool
@kh.tool("slack.send", needs=needs)
async def send(to: Place, text: Annotated[str, Field(description="What")] = "hi", *, credentials) -> dict:
    """Send a message."""
    assert credentials.token == VALUE
    return {"sent": to.channel, "thread": to.thread, "text": text, "with": credentials.token}


@tool(name="follow", description="Follow it.")
@kh.tool("slack.stream", needs=needs)
def stream(channel: str, *, credentials):
    yield from f"{channel} {credentials.token}"


@tool
@kh.tool("slack.fail", needs=needs)
def fail(*, credentials) -> str:
    """Fail."""
    raise ValueError(f"bad token {credentials.token}")


@tool
@kh.tool("slack.none", needs={"token": "slack/none"})
def none(*, credentials) -> str:
    """Never called."""
    return credentials.token


@claude_agent_sdk.tool("own", "Send.", {"channel": str})
@kh.tool("slack.own", needs=needs)
async def own(args, *, credentials):
    return {"content": [{"type": "text", "text": f"{args['channel']} {credentials.token}"}]}


async def asked(name, arguments):
    server = create_sdk_mcp_server("slack", tools=[send, stream, fail, none, own])
    async with McpClient(server["instance"]) as client:
        result = await client.call_tool(name, arguments)
    [content] = result.content
    assert VALUE not in content.text
    return bool(result.is_error), content.text


async def check_the_schema_is_without_credentials():
    server = create_sdk_mcp_server("slack", tools=[send, stream])
    async with McpClient(server["instance"]) as client:
        tools = {each.name: each for each in (await client.list_tools()).tools}
    assert tools["send"].description == "Send a message."
    assert set(tools["send"].input_schema["properties"]) == {"to", "text"}
    assert tools["send"].input_schema["required"] == ["to"]
    assert tools["send"].input_schema["properties"]["text"]["description"] == "What"
    assert (set(tools["follow"].input_schema["properties"]), tools["follow"].description) == ({"channel"}, "Follow it.")


async def check_arguments_have_their_types_and_results_are_scrubbed():
    wrong, text = await asked("send", {"to": {"channel": "general", "thread": 7}})
    assert not wrong
    assert json.loads(text) == {"sent": "general", "thread": 7, "text": "hi", "with": "*" * 15}
    assert await asked("follow", {"channel": "c"}) == (False, f"c {'*' * 15}")
    assert await asked("own", {"channel": "c"}) == (False, f"c {'*' * 15}")


async def check_errors_and_refusals_are_errors_that_the_model_reads():
    wrong, text = await asked("fail", {})
    assert wrong
    assert f"ValueError: bad token {'*' * 15}" in text
    wrong, text = await asked("none", {})
    assert wrong
    assert "slack/none" in text
    wrong, text = await asked("send", {"text": 5})
    assert wrong
