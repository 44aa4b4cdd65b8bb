"""Tools of the Claude Agent SDK: an ``SdkMcpTool`` for ``create_sdk_mcp_server`` out of a function with credentials."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

from keyhole.adapters.adapted import adapted, framework
from keyhole.core.errors import KeyholeError

_PACKAGE = "claude-agent-sdk"


def tool(
    function: Callable[..., Any] | None = None,
    *,
    name: str = "",
    description: str = "",
    annotations: Any = None,
) -> Any:
    """An ``SdkMcpTool`` out of a function that was made with ``@kh.tool``.

        @tool
        @kh.tool("slack.send", needs={"token": "slack/bot-token"})
        async def send(channel: str, text: str, *, credentials) -> str: ...

        server = create_sdk_mcp_server("slack", tools=[send])

    The schema of its input is that of the parameters. What it returns becomes a text, or is taken as it is where it is
    a mapping with ``content``; what the vault refuses, and what was held back, is an error that the model reads.

    Args:
        function: the function, blocking or not; nothing for a decorator.
        name: of the tool; the function's where it is empty.
        description: for the model; the docstring where it is empty.
        annotations: hints for the client, ``ToolAnnotations`` of MCP.

    Raises:
        InvalidRequest: the SDK is not installed, or the function was not made with ``@kh.tool``.
    """
    sdk = framework("claude_agent_sdk", _PACKAGE, extra=_PACKAGE)

    def make(function: Callable[..., Any]) -> Any:
        ready = adapted(function)
        takes = _model(ready)
        about = description or inspect.getdoc(ready) or ready.__name__
        decorate = sdk.tool(name or ready.__name__, about, takes.model_json_schema(), annotations=annotations)
        return decorate(_handler(ready, takes))

    return make if function is None else make(function)


def _model(function: Callable[..., Any]) -> Any:
    """A model of Pydantic, which comes with the SDK, of what a function takes."""
    pydantic = framework("pydantic", _PACKAGE, extra=_PACKAGE)
    fields = {
        name: (
            Any if each.annotation is each.empty else each.annotation,
            ... if each.default is each.empty else each.default,
        )
        for name, each in inspect.signature(function).parameters.items()
        if each.kind not in {each.VAR_POSITIONAL, each.VAR_KEYWORD}
    }
    return pydantic.create_model(function.__name__, **fields)


def _handler(function: Callable[..., Any], takes: Any) -> Callable[[dict[str, Any]], Any]:
    waits = inspect.iscoroutinefunction(function)

    async def handler(arguments: dict[str, Any]) -> dict[str, Any]:
        import asyncio  # noqa: PLC0415  # slow to import, and there by now

        read = takes.model_validate(arguments)
        given = {name: getattr(read, name) for name in takes.model_fields}
        try:
            result = await function(**given) if waits else await asyncio.to_thread(function, **given)
        except KeyholeError as error:
            return {"content": [{"type": "text", "text": str(error)}], "is_error": True}
        return _content(result)

    return handler


def _content(result: Any) -> dict[str, Any]:
    if isinstance(result, Mapping) and isinstance(result.get("content"), list):
        return dict(result)
    if isinstance(result, bytes):
        result = result.decode(errors="replace")
    text = result if isinstance(result, str) else json.dumps(result, default=_plain, ensure_ascii=False)
    return {"content": [{"type": "text", "text": text}]}


def _plain(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json")
    return list(value) if isinstance(value, set | frozenset) else str(value)
