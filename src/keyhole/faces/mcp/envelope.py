"""Whether a text is one message of JSON-RPC 2.0, before the SDK reads it.

The SDK takes a request with an odd id for a notification, and says nothing of what it cannot read over stdio: whoever
asked would wait for ever. Batches are gone from MCP since the revision 2025-06-18.
"""

from __future__ import annotations

import mcp_types as types
from pydantic_core import from_json

_ONE = "a message is one JSON-RPC 2.0 request, notification or response; batches are not taken"
_ID = "the id of a request is a text or a whole number"


def fault(text: bytes) -> types.JSONRPCError | None:
    """The answer to a text that is no message; ``None`` for one that is."""
    try:
        found = from_json(text)
    except ValueError:
        return _error(types.PARSE_ERROR, "this is no JSON, or too deep", None)
    if not isinstance(found, dict) or found.get("jsonrpc") != "2.0":
        return _error(types.INVALID_REQUEST, _ONE, None)
    number = found.get("id")
    is_id = isinstance(number, str | int) and not isinstance(number, bool)
    if "method" not in found:
        return None if "result" in found or "error" in found else _error(types.INVALID_REQUEST, _ONE, None)
    if "id" in found and not is_id:
        return _error(types.INVALID_REQUEST, _ID, None)
    if not isinstance(found["method"], str) or not isinstance(found.get("params", {}), dict):
        return _error(types.INVALID_REQUEST, "the method is a text and its params are an object", number)
    return None


def _error(code: int, message: str, number: str | int | None) -> types.JSONRPCError:
    return types.JSONRPCError(jsonrpc="2.0", id=number, error=types.ErrorData(code=code, message=message))
