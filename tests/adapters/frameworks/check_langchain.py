"""LangChain and LangGraph with the adapter, and with their own decorator on top of ours."""

import json

from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolCall
from langchain_core.tools import ToolException
from langchain_core.tools import tool as theirs
from langgraph.graph import MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from keyhole import Client
from keyhole.adapters.langchain import tool

VALUE = "xoxb-0123456789"
kh = Client()
needs = {"token": "slack/bot-token"}


@tool
@kh.tool("slack.send", needs=needs)
def send(channel: str, text: str = "hi", *, credentials) -> dict:
    """Send a message."""
    assert credentials.token == VALUE
    return {"sent": channel, "with": credentials.token}


@tool("slack_stream", parse_docstring=True)
@kh.tool("slack.stream", needs=needs)
async def stream(channel: str, *, credentials):
    """Follow a channel.

    Args:
        channel: Which one.
        credentials: Of the call.
    """
    for char in f"{channel} {credentials.token}":
        yield char


@tool(handle_tool_error=False)
@kh.tool("slack.none", needs={"token": "slack/none"})
def none(*, credentials) -> str:
    """Never called."""
    return credentials.token


@tool
@kh.tool("slack.fail", needs=needs)
def fail(*, credentials) -> str:
    """Fail."""
    raise ToolException(f"bad token {credentials.token}")


def check_the_schema_is_without_credentials():
    assert send.args_schema.model_json_schema()["required"] == ["channel"]
    assert set(send.args) == {"channel", "text"}
    assert stream.name == "slack_stream"
    assert "redentials" not in json.dumps(stream.args_schema.model_json_schema())
    assert stream.args["channel"]["description"] == "Which one."


def check_results_are_scrubbed():
    assert send.invoke({"channel": "general"}) == {"sent": "general", "with": "*" * 15}


async def check_what_a_stream_gives_is_gathered():
    assert await stream.ainvoke({"channel": "c"}) == f"c {'*' * 15}"
    assert await send.ainvoke({"channel": "c"}) == {"sent": "c", "with": "*" * 15}


def check_refusals_and_errors_are_exceptions_of_tools():
    said = ""
    try:
        none.invoke({})
    except ToolException as error:
        said = str(error)
    assert "slack/none" in said
    none.handle_tool_error = True
    assert "slack/none" in none.invoke({})
    assert fail.invoke({}) == f"bad token {'*' * 15}"


def check_an_agent_of_langgraph_never_sees_a_value():
    calls = [
        ToolCall(name=each, args={"channel": "general"} if each == "send" else {}, id=each) for each in ("send", "fail")
    ]
    model = GenericFakeChatModel(messages=iter([AIMessage("", tool_calls=calls), AIMessage("done")]))
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", ToolNode([send, fail]))
    graph.set_entry_point("model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    messages = graph.compile().invoke({"messages": [HumanMessage("say hi")]})["messages"]
    assert messages[-1].content == "done"
    assert {each.name: each.status for each in messages if each.type == "tool"} == {"send": "success", "fail": "error"}
    assert VALUE not in repr(messages)


def check_their_own_decorator_is_enough():
    @theirs
    @kh.tool("slack.own", needs=needs)
    def own(channel: str, *, credentials) -> str:
        """Send."""
        return f"{channel} {credentials.token}"

    assert set(own.args) == {"channel"}
    assert own.invoke({"channel": "c"}) == f"c {'*' * 15}"
