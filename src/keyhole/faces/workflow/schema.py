"""The JSON Schema of the document, for editors and other programs. What is no matter of form is the linter's."""

from __future__ import annotations

from typing import Any

from keyhole.faces.workflow import loading
from keyhole.faces.workflow.reference import NAME

_NAME = {"type": "string", "pattern": f"^{NAME}$"}
_TEXT = {"type": "string", "minLength": 1, "maxLength": 2000}
_TIME = {
    "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": "^([0-9]+(\\.[0-9]+)?[smhd])+$"}],
    "description": "A time: 30s, 5m, or a number of seconds.",
}
_FLAT = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
_SCALAR = {"type": ["string", "number", "boolean", "null"]}
_TEST: dict[str, Any] = {
    "description": "What a value must be: a text with * for anything, a list of values, or a range.",
    "anyOf": [
        {"type": "string", "minLength": 1, "maxLength": 512},
        {"type": "array", "items": _SCALAR, "minItems": 1, "maxItems": 64},
        {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": False,
            "properties": {
                "in": {"type": "array", "items": _SCALAR, "minItems": 1, "maxItems": 64},
                "like": {"type": "string", "minLength": 1, "maxLength": 512},
                "min": {"type": ["number", "string"]},
                "max": {"type": ["number", "string"]},
                "absent": {"type": "boolean"},
                "optional": {"type": "boolean"},
            },
        },
    ],
}
_AT = {"type": "string", "pattern": "^/[a-z][a-z0-9_-]*(/[^/]*){1,15}$", "maxLength": 256}
_TEST_AT = {**_TEST["anyOf"][2], "properties": {"at": _AT, **_TEST["anyOf"][2]["properties"]}, "required": ["at"]}
_CONDITIONS = {"type": "array", "items": {"$ref": "#/$defs/condition"}, "minItems": 1, "maxItems": 32}
_CONDITION = {
    "description": "What a member of what is known must be, or several of these put together.",
    "oneOf": [
        {**_TEST_AT, "minProperties": 2},
        *(
            {"type": "object", "required": [kind], "additionalProperties": False, "properties": {kind: inner}}
            for kind, inner in (
                ("any", _CONDITIONS),
                ("all", _CONDITIONS),
                ("not", {"$ref": "#/$defs/condition"}),
            )
        ),
    ],
}
_CALL = {
    "type": "object",
    "description": "A call over HTTP. The service attaches the credential.",
    "required": ["url"],
    "additionalProperties": False,
    "properties": {
        "method": {"enum": list(loading.METHODS)},
        "url": {"type": "string", "pattern": "^https?://[^/?#${}\\s\\\\@]{1,255}([/?][^\\s\\\\#]{0,4000})?$"},
        "service": {"type": "string", "minLength": 1},
        "headers": {"type": "object", "maxProperties": loading.MOST_NAMES, "additionalProperties": {"type": "string"}},
        "query": _FLAT,
        "json": {},
        "form": _FLAT,
        "text": {"type": "string"},
        "expect": {
            "type": "array",
            "items": {"type": "integer", "minimum": 100, "maximum": 599},
            "minItems": 1,
            "maxItems": 32,
        },
    },
    "not": {"anyOf": [{"required": [a, b]} for a, b in (("json", "form"), ("json", "text"), ("form", "text"))]},
}
_RETRY = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "attempts": {"type": "integer", "minimum": 1, "maximum": loading.MOST_ATTEMPTS},
        "wait": _TIME,
        "most": _TIME,
        "on": {"type": "array", "items": {"type": ["string", "integer"]}, "minItems": 1, "maxItems": 32},
    },
}
_STEP = {
    "type": "object",
    "required": ["id"],
    "additionalProperties": False,
    "properties": {
        "id": _NAME,
        "description": _TEXT,
        "tool": {"type": "string", "pattern": "^[a-z0-9][a-z0-9-]*/[A-Za-z0-9][A-Za-z0-9_.-]*$"},
        "arguments": {"type": "object"},
        "call": _CALL,
        "when": {**_CONDITIONS, "description": "The step is done when all of these hold."},
        "retry": _RETRY,
        "timeout": _TIME,
        "idempotent": {"type": "boolean"},
        "idempotency_key": {"type": "string", "minLength": 1, "maxLength": 64},
        "on_failure": {"enum": ["stop", "continue"]},
        "keep": {
            "type": "object",
            "maxProperties": loading.MOST_NAMES,
            "propertyNames": _NAME,
            "additionalProperties": {"type": "string", "pattern": "^(/[^/{}$]{0,200}){1,16}$"},
        },
    },
    "oneOf": [{"required": ["tool"]}, {"required": ["call"], "not": {"required": ["arguments"]}}],
}
_PARALLEL = {
    "type": "object",
    "required": ["parallel"],
    "additionalProperties": False,
    "properties": {
        "description": _TEXT,
        "parallel": {
            "type": "object",
            "minProperties": 1,
            "maxProperties": loading.MOST_BRANCHES,
            "propertyNames": _NAME,
            "additionalProperties": {"$ref": "#/$defs/steps"},
        },
    },
}
_INPUT = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "type": {"enum": ["text", "number", "boolean"]},
        "default": {"type": ["string", "number", "boolean"]},
        "must": _TEST,
        "description": _TEXT,
    },
}


def schema() -> dict[str, Any]:
    """The schema (JSON Schema 2020-12)."""
    named = {"type": "object", "maxProperties": loading.MOST_NAMES, "propertyNames": _NAME}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A workflow of Keyhole",
        "description": "Steps that name tools and services, and never a credential.",
        "type": "object",
        "required": ["workflow", "steps"],
        "additionalProperties": False,
        "properties": {
            "$schema": {"type": "string"},
            "version": {"const": 1},
            "workflow": _NAME,
            "description": _TEXT,
            "inputs": {**named, "additionalProperties": {"$ref": "#/$defs/input"}},
            "steps": {"$ref": "#/$defs/steps"},
            "outputs": {**named, "additionalProperties": {}},
            "harmless": {
                "type": "array",
                "items": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
                "minItems": 1,
                "maxItems": 100,
            },
        },
        "$defs": {
            "steps": {
                "type": "array",
                "minItems": 1,
                "maxItems": loading.MOST_STEPS,
                "items": {
                    "if": {"required": ["parallel"]},
                    "then": {"$ref": "#/$defs/parallel"},
                    "else": {"$ref": "#/$defs/step"},
                },
            },
            "step": _STEP,
            "parallel": _PARALLEL,
            "input": _INPUT,
            "condition": _CONDITION,
        },
    }
