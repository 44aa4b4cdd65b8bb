"""Tools of LangChain and LangGraph: ``@tool`` as in ``langchain_core.tools``, for functions with credentials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keyhole.adapters.adapted import adapted, framework


def tool(*names: Any, handle_tool_error: Any = True, **options: Any) -> Any:
    """A tool of LangChain out of a function that was made with ``@kh.tool``.

        @tool
        @kh.tool("slack.send", needs={"token": "slack/bot-token"})
        def send(channel: str, text: str, *, credentials) -> str: ...

    What the vault refuses, and what was held back, is a ``ToolException``.

    Args:
        names: the function; or nothing, or the name of the tool, for a decorator.
        handle_tool_error: as of ``BaseTool``: by default the model is told of a ``ToolException``, and goes on.
        options: as of ``langchain_core.tools.tool``.

    Raises:
        InvalidRequest: LangChain is not installed, or the function was not made with ``@kh.tool``.
    """
    tools = framework("langchain_core.tools", "langchain-core", extra="langchain")

    def make(function: Callable[..., Any]) -> Any:
        ready = adapted(function, failure=tools.ToolException, kept=[tools.ToolException])
        made = tools.tool(*given, **options)(ready) if given or options else tools.tool(ready)
        made.handle_tool_error = handle_tool_error
        return made

    given = () if names and callable(names[0]) else names
    return make(names[0]) if names and not given else make
