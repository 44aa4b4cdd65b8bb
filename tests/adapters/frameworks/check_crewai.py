"""CrewAI's own tools, with the adapter and with its decorator on top of ours."""

import contextlib
import io

from crewai.tools import BaseTool
from crewai.tools import tool as theirs

from keyhole import Client
from keyhole.adapters.crewai import tool
from keyhole.core.errors import KeyholeError

VALUE = "xoxb-0123456789"
kh = Client()
needs = {"token": "slack/bot-token"}


@tool("Send a message")
@kh.tool("slack.send", needs=needs)
def send(channel: str, text: str, *, credentials) -> str:
    """Send a message to a channel."""
    assert credentials.token == VALUE
    return f"sent {text} to {channel} with {credentials.token}"


@tool
@kh.tool("slack.stream", needs=needs)
async def stream(channel: str, *, credentials):
    """Follow a channel."""
    for char in f"{channel} {credentials.token}":
        yield char


@tool
@kh.tool("slack.fail", needs=needs)
def fail(*, credentials) -> str:
    """Fail."""
    raise ValueError(f"bad token {credentials.token}")


def run(tool, **arguments):
    with contextlib.redirect_stdout(io.StringIO()):  # it says on stdout what it uses
        return tool.run(**arguments)


def check_the_schema_is_without_credentials():
    assert isinstance(send, BaseTool)
    assert (send.name, stream.name) == ("Send a message", "stream")
    assert set(send.args_schema.model_json_schema()["properties"]) == {"channel", "text"}
    assert "redentials" not in send.description


def check_results_are_scrubbed():
    assert run(send, channel="general", text="hi") == f"sent hi to general with {'*' * 15}"
    assert run(stream, channel="c") == f"c {'*' * 15}"
    structured = send.to_structured_tool()
    assert structured.invoke({"channel": "c", "text": "t"}) == f"sent t to c with {'*' * 15}"


def check_errors_have_no_value():
    said = ""
    try:
        run(fail)
    except KeyholeError as error:
        said = repr(error)
    assert f"ValueError: bad token {'*' * 15}" in said


def check_their_own_decorator_is_enough():
    @theirs("own")
    @kh.tool("slack.own", needs=needs)
    def own(channel: str, *, credentials) -> str:
        """Send."""
        return f"{channel} {credentials.token}"

    assert run(own, channel="c") == f"c {'*' * 15}"
