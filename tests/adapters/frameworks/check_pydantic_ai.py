"""Pydantic AI with its models for tests."""

from pydantic_ai import Agent, ModelRetry, RunContext
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.models.test import TestModel

from keyhole import Client
from keyhole.adapters.pydantic_ai import tool

VALUE = "xoxb-0123456789"
kh = Client()
needs = {"token": "slack/bot-token"}


@tool
@kh.tool("slack.send", needs=needs)
async def send(channel: str, text: str, *, credentials) -> dict:
    """Send a message.

    Args:
        channel: Where to.
        text: What.
        credentials: Of the call.
    """
    assert credentials.token == VALUE
    return {"sent": channel, "with": credentials.token}


@tool(name="follow")
@kh.tool("slack.stream", needs=needs)
def stream(ctx: RunContext[str], channel: str, *, credentials):
    """Follow a channel."""
    yield from f"{ctx.deps} {channel} {credentials.token}"


@tool
@kh.tool("slack.none", needs={"token": "slack/none"})
def none(*, credentials) -> str:
    """Never called."""
    return credentials.token


def returned(result):
    return {
        part.tool_name: part.content
        for message in result.all_messages()
        for part in message.parts
        if part.part_kind == "tool-return"
    }


async def check_the_schema_is_without_credentials():
    model = TestModel(call_tools=[])
    await Agent(model, tools=[send, stream], deps_type=str).run("x", deps="d")
    schemas = {each.name: each.parameters_json_schema for each in model.last_model_request_parameters.function_tools}
    assert set(schemas["send"]["properties"]) == {"channel", "text"}
    assert schemas["send"]["properties"]["channel"]["description"] == "Where to."
    assert set(schemas["follow"]["properties"]) == {"channel"}


async def check_a_run_never_sees_a_value_and_is_told_of_refusals():
    result = await Agent(TestModel(), tools=[send, stream, none], deps_type=str).run("x", deps="d")
    said = returned(result)
    assert said["send"] == {"sent": "a", "with": "*" * 15}
    assert said["follow"] == f"d a {'*' * 15}"
    assert "slack/none" in str(said["none"])
    assert VALUE not in repr(result.all_messages())


async def check_a_retry_that_a_tool_asks_for_stays_one():
    tries = []

    @tool(max_retries=1)
    @kh.tool("slack.again", needs=needs)
    def again(*, credentials) -> str:
        """Ask again, once."""
        tries.append(1)
        if len(tries) == 1:
            raise ModelRetry(f"not with {credentials.token}")
        return "second"

    seen = []

    def model(messages, info):
        seen.append(repr(messages))
        return ModelResponse([TextPart("done") if len(tries) == 2 else ToolCallPart("again", {})])

    result = await Agent(FunctionModel(model), tools=[again]).run("x")
    assert (result.output, len(tries)) == ("done", 2)
    assert f"not with {'*' * 15}" in seen[1]
    assert VALUE not in "".join(seen)


async def check_their_own_decorator_is_enough():
    agent = Agent(TestModel())

    @agent.tool_plain
    @kh.tool("slack.own", needs=needs)
    def own(channel: str, *, credentials) -> str:
        """Send."""
        return f"{channel} {credentials.token}"

    assert returned(await agent.run("x")) == {"own": f"a {'*' * 15}"}
