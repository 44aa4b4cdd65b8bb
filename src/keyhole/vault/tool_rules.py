"""Whether the arguments of a tool meet the rules that its server was bound with. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.tool_server import Rule

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def check_rules(rules: Sequence[Rule]) -> None:
    """Raises ``InvalidRequest`` for a schema that is none, or one that names others."""
    for rule in rules:
        if rule.schema:
            from jsonschema.exceptions import SchemaError  # noqa: PLC0415  # slow to import, and few have a schema

            try:
                _validator(rule.schema).check_schema(rule.schema)
            except SchemaError:
                raise InvalidRequest(f"the schema for {rule.tools} is no JSON Schema", "see json-schema.org") from None
            if _refers(rule.schema):
                raise InvalidRequest(f"the schema for {rule.tools} refers to another document", "write it out")


def require_arguments(rules: Sequence[Rule], arguments: Mapping[str, Any]) -> None:
    """Raises ``InvalidRequest``, which names the argument and never what it is."""
    for rule in rules:
        for name, glob in rule.arguments.items():
            value = arguments.get(name)
            said = str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
            if said is None or not fnmatchcase(said, glob):
                raise InvalidRequest(
                    f"the argument {name!r} is not one that this tool may be used with", f"it must match {glob}"
                )
        if rule.schema:
            error = next(_validator(rule.schema).iter_errors(dict(arguments)), None)
            if error is not None:
                place = "/".join(str(part)[:60] for part in list(error.absolute_path)[:8]) or "the arguments"
                raise InvalidRequest(
                    f"the rule {error.validator!r} for {place} is not met", "see the rules of the tool's server"
                )


def _validator(schema: Mapping[str, Any]) -> Any:
    from jsonschema import Draft202012Validator  # noqa: PLC0415  # as above

    return Draft202012Validator(dict(schema))


def _refers(schema: Any) -> bool:
    if isinstance(schema, Mapping):
        refs = (schema.get(name) for name in ("$ref", "$dynamicRef"))
        return any(isinstance(ref, str) and not ref.startswith("#") for ref in refs) or any(
            map(_refers, schema.values())
        )
    return isinstance(schema, list) and any(map(_refers, schema))
