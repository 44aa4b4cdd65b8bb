"""Whether the arguments of a tool meet the rules that its server was bound with. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.tool_server import Rule

_FEW = 2
_STEPS = 10_000_000  # of matching one text
_ESCAPED = re.compile(r"\\.", re.DOTALL)
_CLASS = re.compile(r"\[\^?\]?[^\]]*\]")
_REPEATED = re.compile(r"(?:[*+]|\{[0-9]*,\}|\{[0-9]*,?[0-9]{2,}\})[?+]?")


def check_rules(rules: Sequence[Rule]) -> None:
    """Raises ``InvalidRequest`` for a schema that is none, or one that names others."""
    for rule in rules:
        if rule.schema:
            from jsonschema.exceptions import SchemaError  # noqa: PLC0415  # slow to import, and few have a schema

            try:
                _validator(rule.schema).check_schema(rule.schema)
            except SchemaError:
                raise InvalidRequest(f"the schema for {rule.tools} is no JSON Schema", "see json-schema.org") from None
            except RecursionError:
                raise InvalidRequest(f"the schema for {rule.tools} is nested too deep", "make it flatter") from None
            if _refers(rule.schema):
                raise InvalidRequest(f"the schema for {rule.tools} refers to another document", "write it out")
            _longest(rule.schema)


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
            if _any_longer(arguments, _longest(rule.schema)):
                raise InvalidRequest("a text in the arguments is too long for the patterns of this tool", "send less")
            try:
                error = next(_validator(rule.schema).iter_errors(dict(arguments)), None)
            except RecursionError:
                raise InvalidRequest("the arguments are nested too deep for the rules of this tool") from None
            if error is not None:
                place = "/".join(str(part)[:60] for part in list(error.absolute_path)[:8]) or "the arguments"
                raise InvalidRequest(
                    f"the rule {error.validator!r} for {place} is not met", "see the rules of the tool's server"
                )


def _validator(schema: Mapping[str, Any]) -> Any:
    from jsonschema import Draft202012Validator  # noqa: PLC0415  # as above

    return Draft202012Validator(dict(schema))


def is_bounded(schema: Any) -> bool:
    """Whether the patterns of a schema can be tried on any text of some length in bounded time."""
    try:
        return all(repetitions(text) <= _FEW for text in _patterns(schema))
    except (InvalidRequest, RecursionError):
        return False


def _longest(schema: Mapping[str, Any]) -> int:
    """The longest text that the patterns of a schema can be tried on in bounded time.

    Raises:
        InvalidRequest: one has a repetition within a repetition, which may take for ever on any text.
    """
    return min((int(_STEPS ** (1 / max(1, repetitions(text)))) for text in _patterns(schema)), default=_STEPS)


def _patterns(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        if isinstance(schema.get("pattern"), str):
            yield schema["pattern"]
        if isinstance(schema.get("patternProperties"), Mapping):
            yield from schema["patternProperties"]
        for inner in schema.values():
            yield from _patterns(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _patterns(inner)


def repetitions(pattern: str) -> int:
    """How many repetitions without a small bound stand in a regular expression.

    Raises:
        InvalidRequest: one stands within another, or a repeated group has alternatives.
    """
    plain = _CLASS.sub("c", _ESCAPED.sub("e", pattern))
    nested = [False]  # of each open group: whether it has a repetition or alternatives
    found = 0
    at = 0
    while at < len(plain):
        repeated = _REPEATED.match(plain, at + 1)
        char, closed = plain[at], False
        if char == "(":
            nested.append(False)
        elif char == ")" and len(nested) > 1:
            closed = nested.pop()
            nested[-1] |= closed
        if char == "|" or (char != "(" and plain.startswith("?", at + 1)):
            nested[-1] = True
        if repeated is not None and char not in "(|":
            if closed:
                raise InvalidRequest(
                    "a pattern repeats what has repetitions or alternatives in it, which may take for ever",
                    "write it without, such as [a-z/]+ for ([a-z]+/)+",
                )
            nested[-1] = True
            found += 1
        at = repeated.end() if repeated is not None and char not in "(|" else at + 1
    return found


def _any_longer(value: Any, longest: int) -> bool:
    if isinstance(value, str):
        return len(value) > longest
    if isinstance(value, Mapping):
        return any(_any_longer(each, longest) for pair in value.items() for each in pair)
    return isinstance(value, list) and any(_any_longer(each, longest) for each in value)


def _refers(schema: Any) -> bool:
    if isinstance(schema, Mapping):
        refs = (schema.get(name) for name in ("$ref", "$dynamicRef"))
        return any(isinstance(ref, str) and not ref.startswith("#") for ref in refs) or any(
            map(_refers, schema.values())
        )
    return isinstance(schema, list) and any(map(_refers, schema))
