"""What the door writes down of a request. Pure; from the request as it was asked, before anything of ours is in it."""

from __future__ import annotations

from typing import Any, TypedDict, Unpack

from keyhole.core.errors import ApprovalRequired, KeyholeError
from keyhole.core.identity import Caller
from keyhole.core.record import NO_CALL, CallFacts, Intent, IntentForm, Phase, Record, clip
from keyhole.core.request import Operation, Reply, Request

_CALL_FIELDS = ("host", "method", "target", "parameters", "approval")
_FORMS = 256  # of one caller


def intent_of(
    caller: Caller, request: Request, operation: Operation, path: str, rule: str, secrets: tuple[str, ...] = ()
) -> Intent:
    """The intent of a request that was allowed.

    Args:
        caller: who asked.
        request: what was asked.
        operation: with create and update told apart.
        path: canonical; of a use ``services/NAME``.
        rule: that decided. One list decides one operation on one path by one rule.
        secrets: names of those that are read or lent.
    """
    uses = operation is Operation.USE
    form = caller.forms.get((operation, path, secrets))
    if form is None:
        service = path.partition("/")[2] if uses else ""
        record = Record(
            phase=Phase.INTENT,
            id=request.id,
            operation=operation.value,
            path=path,
            rule=rule,
            service=service,
            secrets=secrets,
            **_identity(caller),
        )
        if len(caller.forms) >= _FORMS:
            caller.forms.clear()
        form = caller.forms[operation, path, secrets] = IntentForm(record)
    data = request.data
    facts = NO_CALL
    if uses and data:
        facts = CallFacts(
            data.get("host", ""),
            data.get("method", ""),
            data.get("target", ""),
            data.get("parameters", ()),
            data.get("approval", ""),
        )
    return form.fill(request.id, request.remote, facts)


def given_out(reply: Reply) -> dict[str, str]:
    """What an outcome says of an answer: which lease it gave out, and for which token it was wrapped."""
    said = {}
    if reply.lease is not None:
        said["lease"] = reply.lease.id
    if reply.wrap is not None:
        said["wrapped"] = reply.wrap.accessor
    return said


class About(TypedDict, total=False):
    """What is known of a request that is refused.

    Attributes:
        path: canonical, where it could be read.
        rule: that decided.
        secrets: names of those that would have been read, written or lent.
    """

    path: str
    rule: str
    secrets: tuple[str, ...]


def refusal_of(caller: Caller | None, request: Request, error: KeyholeError, **about: Unpack[About]) -> Record:
    """The one record of a request that was refused; without a caller of one who is unknown."""
    fields: dict[str, Any] = {} if caller is None else _identity(caller)
    if request.stated is not None and request.stated.trace is not None:
        fields |= {"trace": request.stated.trace.trace, "span": request.stated.trace.span}
    if caller is not None and request.operation is Operation.USE:
        fields |= {name: request.data[name] for name in _CALL_FIELDS if name in request.data}
        fields["service"] = str(request.data.get("service", ""))
        if isinstance(error, ApprovalRequired):
            fields["approval"] = error.approval
    return Record(
        phase=Phase.REFUSED,
        id=request.id,
        operation=request.operation.value,
        path=about.get("path") or clip(request.path),
        result=error.code,
        rule=about.get("rule", ""),
        secrets=about.get("secrets", ()),
        remote=request.remote,
        **fields,
    )


def _identity(caller: Caller) -> dict[str, Any]:
    return {"caller": caller.name, "accessor": caller.accessor, **caller.run.as_data()}
