"""The OpenAI Agents SDK with a model that says what it is told to."""

import json

import agents
from agents import Agent, RunContextWrapper, Runner
from agents.items import ModelResponse
from agents.models.interface import Model
from agents.usage import Usage
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from keyhole import Client
from keyhole.adapters.openai_agents import function_tool

agents.set_tracing_disabled(disabled=True)
VALUE = "xoxb-0123456789"
kh = Client()
needs = {"token": "slack/bot-token"}


class Script(Model):
    """Calls each tool once, then ends. What it was sent is in ``seen``."""

    def __init__(self, *calls):
        self.calls, self.seen = calls, []

    async def get_response(self, system_instructions, *rest, **given):
        self.seen.append(repr((rest, given)))
        if len(self.seen) == 1:
            output = [
                ResponseFunctionToolCall(
                    type="function_call", call_id=name, name=name, arguments=json.dumps(arguments), id=name
                )
                for name, arguments in self.calls
            ]
        else:
            text = ResponseOutputText(type="output_text", text="done", annotations=[])
            output = [
                ResponseOutputMessage(id="m", type="message", role="assistant", status="completed", content=[text])
            ]
        return ModelResponse(output=output, usage=Usage(), response_id=None)

    def stream_response(self, *rest, **more):
        raise NotImplementedError


@function_tool
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


@function_tool(name_override="follow")
@kh.tool("slack.stream", needs=needs)
def stream(context: RunContextWrapper[str], channel: str, *, credentials):
    """Follow a channel."""
    yield from f"{context.context} {channel} {credentials.token}"


@function_tool(name_override="tell", failure_error_function=lambda context, error: repr(error))
@kh.tool("slack.fail", needs=needs)
def tell(*, credentials) -> str:
    """Fail, and let the model know why."""
    raise ValueError(f"bad token {credentials.token}")


@function_tool
@kh.tool("slack.fail", needs=needs)
def fail(*, credentials) -> str:
    """Fail."""
    raise ValueError(f"bad token {credentials.token}")


@function_tool
@kh.tool("slack.none", needs={"token": "slack/none"})
def none(*, credentials) -> str:
    """Never called."""
    return credentials.token


def check_the_schema_is_without_credentials():
    assert set(send.params_json_schema["properties"]) == {"channel", "text"}
    assert send.params_json_schema["properties"]["channel"]["description"] == "Where to."
    assert set(stream.params_json_schema["properties"]) == {"channel"}


async def check_a_run_never_sees_a_value():
    message = {"channel": "general", "text": "hi"}
    model = Script(("send", message), ("follow", {"channel": "c"}), ("fail", {}), ("tell", {}), ("none", {}))
    agent = Agent(name="a", model=model, tools=[send, stream, fail, tell, none])
    result = await Runner.run(agent, "say hi", context="ctx")
    assert result.final_output == "done"
    said = {each.raw_item["call_id"]: each.output for each in result.new_items if each.type == "tool_call_output_item"}
    assert said["send"] == {"sent": "general", "with": "*" * 15}
    assert said["follow"] == f"ctx c {'*' * 15}"
    assert "An error occurred" in said["fail"]
    assert f"ValueError: bad token {'*' * 15}" in said["tell"]
    assert "slack/none" in said["none"]
    assert VALUE not in "".join(model.seen)
    assert "redentials'" not in model.seen[0]


async def check_their_own_decorator_is_enough():
    @agents.function_tool
    @kh.tool("slack.own", needs=needs)
    def own(channel: str, *, credentials) -> str:
        """Send."""
        return f"{channel} {credentials.token}"

    model = Script(("own", {"channel": "c"}))
    result = await Runner.run(Agent(name="a", model=model, tools=[own]), "x")
    assert f"c {'*' * 15}" in [each.output for each in result.new_items if each.type == "tool_call_output_item"]
