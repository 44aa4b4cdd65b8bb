"""What whoever starts a run says, as the workflow wants it."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.faces.workflow.credentials import refuse_in
from keyhole.faces.workflow.document import NO_DEFAULT, Input, Workflow
from keyhole.faces.workflow.loading import is_of
from keyhole.faces.workflow.reading import parse_plain

_LONGEST = 4096
_REFUSED = frozenset({"shape", "address", "encoded", "environment", "elsewhere"})


def take_inputs(workflow: Workflow, given: Iterable[str]) -> dict[str, Any]:
    """Inputs by name, with defaults.

    Args:
        workflow: says what there is.
        given: ``NAME=TEXT`` each.

    Raises:
        InvalidRequest: one is missing, unknown, of another type, or a credential. What was said is not repeated.
    """
    said: dict[str, str] = {}
    for each in given:
        name, found, text = each.partition("=")
        if not found or name not in workflow.inputs or name in said:
            known = ", ".join(workflow.inputs) or "none"
            raise InvalidRequest("an input is not known, or stands twice", f"--input NAME=TEXT; known: {known}")
        said[name] = text
    return {name: _take(each, said.get(name)) for name, each in workflow.inputs.items()}


def _take(each: Input, text: str | None) -> Any:
    if text is None:
        if each.default is NO_DEFAULT:
            raise InvalidRequest(f"the workflow asks for {each.name}", f"--input {each.name}=…")
        return each.default
    value: Any = text if each.type == "text" else parse_plain(text)
    if len(text) > _LONGEST or not is_of(value, each.type) or (isinstance(value, str) and not value.isprintable()):
        raise InvalidRequest(f"the input {each.name} is no {each.type}", f"--input {each.name}=…")
    if each.must is not None:
        exact = Decimal(repr(value)) if isinstance(value, float) else value
        if not each.must.holds_json(exact):
            raise InvalidRequest(f"the input {each.name} is not as the workflow wants it", f"it must be {each.must}")
    if reason := refuse_in(value, _REFUSED):
        raise InvalidRequest(f"the input {each.name} is no place for this: {reason}", "let a service attach it")
    return value
