"""Tools of Pydantic AI: a ``Tool`` for ``Agent(tools=[…])`` out of a function with credentials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keyhole.adapters.adapted import adapted, framework


def tool(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """A ``pydantic_ai.Tool`` out of a function that was made with ``@kh.tool``.

        @tool
        @kh.tool("slack.send", needs={"token": "slack/bot-token"})
        async def send(channel: str, text: str, *, credentials) -> str: ...

        agent = Agent(model, tools=[send])

    The function may take a ``RunContext`` first. What the vault refuses, and what was held back, is a ``ToolFailed``,
    which the model is told and which asks for no retry.

    Args:
        function: the function; nothing for a decorator.
        options: as of ``pydantic_ai.Tool``.

    Raises:
        InvalidRequest: Pydantic AI is not installed, or the function was not made with ``@kh.tool``.
    """
    ai = framework("pydantic_ai", "pydantic-ai-slim", extra="pydantic-ai")
    failed = framework("pydantic_ai.exceptions", "pydantic-ai-slim", extra="pydantic-ai").ToolFailed

    def make(function: Callable[..., Any]) -> Any:
        return ai.Tool(adapted(function, failure=failed, kept=[ai.ModelRetry, failed]), **options)

    return make if function is None else make(function)
