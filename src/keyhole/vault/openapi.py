"""The API as an OpenAPI document (3.0), made from the route tables. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from keyhole.core.request import Operation
from keyhole.engines import Field, Route

_PARAMETER = re.compile(r"\{(\w+)(?:\.\.\.)?\}")
_WORD = re.compile(r"[A-Za-z0-9]+")
_JSON = "application/json"
_MERGE_PATCH = "application/merge-patch+json"
_METHODS = {Operation.READ: "get", Operation.CREATE: "post", Operation.PATCH: "patch", Operation.DELETE: "delete"}

_INTEGER: dict[str, Any] = {"type": "integer"}
_STRING: dict[str, Any] = {"type": "string"}
_TYPES: dict[str, dict[str, Any]] = {
    "any": {},
    "string": _STRING,
    "integer": _INTEGER,
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "duration": {"anyOf": [_INTEGER, _STRING], "format": "seconds"},
    "list": {"anyOf": [{"type": "array", "items": {}}, _STRING]},
    "map": {"type": "object"},
}


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "nullable": True}


SCHEMAS: dict[str, Any] = {
    "Answer": {
        "type": "object",
        "required": [
            "request_id",
            "lease_id",
            "renewable",
            "lease_duration",
            "data",
            "wrap_info",
            "warnings",
            "auth",
        ],
        "properties": {
            "request_id": _STRING,
            "lease_id": _STRING,
            "renewable": {"type": "boolean"},
            "lease_duration": _INTEGER,
            "data": _nullable({"type": "object"}),
            "wrap_info": _nullable({"type": "object"}),
            "warnings": _nullable({"type": "array", "items": _STRING}),
            "auth": _nullable({"type": "object"}),
        },
    },
    "Errors": {
        "type": "object",
        "required": ["errors"],
        "properties": {
            "errors": {"type": "array", "items": _STRING},
            "error": {
                "type": "object",
                "properties": {"code": _STRING, "reason": _STRING, "hint": _STRING, "request_id": _STRING},
            },
        },
    },
}


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {_JSON: {"schema": schema}}


_ANSWER = {"$ref": "#/components/schemas/Answer"}
_ERRORS = {"$ref": "#/components/schemas/Errors"}
_REFUSED = {"description": "Refused, or not there.", "content": _content({"anyOf": [_ERRORS, _ANSWER]})}
_BARE = {"description": "OK", "content": {"*/*": {"schema": {}}}}


def document(mounts: Iterable[tuple[str, str, Iterable[Route]]], version: str) -> dict[str, Any]:
    """The document.

    Args:
        mounts: of each its path with a trailing slash, its type, and its routes in their order of precedence.
        version: of the API.
    """
    paths: dict[str, dict[str, Any]] = {}
    for mount, kind, routes in mounts:
        known: dict[str, str] = {}
        for route in routes:
            template = _PARAMETER.sub(r"{\1}", route.pattern)
            # Two templates that differ only in the names of their parameters would be one path twice.
            template = known.setdefault(_PARAMETER.sub("{}", route.pattern), template)
            _add(paths.setdefault(f"/{mount}{template}".rstrip("/"), {}), route, mount + template, kind)
    return {
        "openapi": "3.0.2",
        "info": {
            "title": "Keyhole API",
            "description": "The HTTP API of Keyhole, in Vault's wire format. All routes are below /v1/.",
            "version": version,
        },
        "servers": [{"url": "/v1"}],
        "security": [{"token": []}, {}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": "X-Vault-Token"}},
        },
    }


def schema(fields: Iterable[Field]) -> dict[str, Any]:
    """The schema of an object with these fields."""
    named = {field.name: {**_TYPES[field.type], "description": field.help} for field in fields}
    return {"type": "object", "properties": named}


def _add(item: dict[str, Any], route: Route, template: str, kind: str) -> None:
    """Put what a route knows into a path; what an earlier one said stays."""
    item.setdefault("description", route.help)
    names = _PARAMETER.findall(template)
    if names:
        item["parameters"] = [{"name": name, "in": "path", "required": True, "schema": _STRING} for name in names]
    if route.sudo:
        item["x-vault-sudo"] = True
    if route.open:
        item["x-vault-unauthenticated"] = True
    if route.exists is not None:
        item["x-vault-createSupported"] = True
    for operation in route.handlers:
        if operation is Operation.LIST:
            _add_list(item, template, route, kind)
        else:
            method = _METHODS[operation]
            item.setdefault(method, _operation(method, template, route, kind))


def _add_list(item: dict[str, Any], template: str, route: Route, kind: str) -> None:
    """A listing is a read with ``list``; where there is no read it must say so."""
    reads = "get" in item
    made = item.setdefault("get", _operation("list", template, route, kind))
    only = {"type": "string", "enum": ["true"]}
    made.setdefault("parameters", []).append(
        {"name": "list", "in": "query", "required": not reads and Operation.READ not in route.handlers, "schema": only}
    )


def _operation(method: str, template: str, route: Route, kind: str) -> dict[str, Any]:
    words = [method, *_WORD.findall(template)]
    made: dict[str, Any] = {
        "summary": route.help,
        "operationId": words[0] + "".join(word[:1].upper() + word[1:] for word in words[1:]),
        "tags": [kind],
        "responses": _responses(route),
    }
    if method in {"post", "patch"} and route.fields:
        body = {"schema": schema(route.fields)}
        made["requestBody"] = {"content": {_MERGE_PATCH if method == "patch" else _JSON: body}}
    return made


def _responses(route: Route) -> dict[str, Any]:
    answer = _BARE if route.bare else {"description": "OK", "content": _content(_ANSWER)}
    empty = {"description": "Done; there is nothing to say."}
    return {"200": answer, "202": answer, "204": empty, "default": _REFUSED}
