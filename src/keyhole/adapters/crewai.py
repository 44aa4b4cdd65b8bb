"""Tools of CrewAI: ``@tool`` as in ``crewai.tools``, for functions with credentials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keyhole.adapters.adapted import adapted, framework


def tool(*names: Any, **options: Any) -> Any:
    """A ``BaseTool`` of CrewAI out of a function that was made with ``@kh.tool``.

        @tool("Send a message")
        @kh.tool("slack.send", needs={"token": "slack/bot-token"})
        def send(channel: str, text: str, *, credentials) -> str: ...

    What the vault refuses reaches the agent as CrewAI tells it of any error.

    Args:
        names: the function; or the name of the tool, for a decorator.
        options: as of ``crewai.tools.tool``.

    Raises:
        InvalidRequest: CrewAI is not installed, or the function was not made with ``@kh.tool``.
    """
    tools = framework("crewai.tools", "crewai")

    def make(function: Callable[..., Any]) -> Any:
        ready = adapted(function)
        return tools.tool(*(given or (ready.__name__,)), **options)(ready)

    given = () if names and callable(names[0]) else names
    return make(names[0]) if names and not given else make
