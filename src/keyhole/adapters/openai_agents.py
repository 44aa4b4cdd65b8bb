"""Tools of the OpenAI Agents SDK: ``@function_tool`` as in ``agents``, for functions with credentials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keyhole.adapters.adapted import adapted, framework
from keyhole.adapters.cleaned import ToolFailed
from keyhole.core.errors import KeyholeError


def function_tool(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """A ``FunctionTool`` out of a function that was made with ``@kh.tool``.

        @function_tool
        @kh.tool("slack.send", needs={"token": "slack/bot-token"})
        async def send(channel: str, text: str, *, credentials) -> str: ...

    The SDK says nothing of an error to the model but that there was one. Here it says what the vault refuses.

    Args:
        function: the function; nothing for a decorator.
        options: as of ``agents.function_tool``; a ``failure_error_function`` decides what the model is told.

    Raises:
        InvalidRequest: the SDK is not installed, or the function was not made with ``@kh.tool``.
    """
    agents = framework("agents", "openai-agents", extra="openai-agents")

    def told(context: Any, error: Exception) -> str:
        refused = isinstance(error, KeyholeError) and not isinstance(error, ToolFailed)
        return str(error) if refused else str(agents.default_tool_error_function(context, error))

    def make(function: Callable[..., Any]) -> Any:
        return agents.function_tool(adapted(function), **{"failure_error_function": told, **options})

    return make if function is None else make(function)
