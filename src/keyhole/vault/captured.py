"""Credentials that agents' own calls made: stored before anybody sees the answer, and named by placeholders.

``c/END`` says what a placeholder stands for, by the end of it that has the tag. A secret in ``secret/`` is named; what
lives with the token alone is in the entry itself. Nothing here is routed.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyhole.core.capture import Captured, CaptureRule
from keyhole.core.errors import Conflict, Expired, KeyholeError
from keyhole.core.identity import Caller
from keyhole.core.inject import KINDS
from keyhole.core.placeholder import end_of, session_placeholder
from keyhole.core.record import Record
from keyhole.core.request import Operation
from keyhole.core.service import Service
from keyhole.core.value import Secret
from keyhole.engines import Call
from keyhole.vault.compiled import OrgState
from keyhole.vault.dispatch import answer
from keyhole.vault.keys import new_request_id

if TYPE_CHECKING:
    from keyhole.vault.vault import Vault

MOUNT = "captured"
OPERATION = "capture"
_ATTEMPTS = 8
_AFTER = 30 * 86_400  # seconds for which a placeholder that is no longer good is told from one that was stolen
_LETTERS = 32
_PREFIX = re.compile(r"(?:[A-Za-z]{1,10}[_-]){1,2}")  # such as ghp_ or sk_live_, which says whose it is and no more


@dataclass(frozen=True, slots=True)
class Kept:
    """A stored entry: what it stands for, for whom, and the values that lie in it."""

    captured: Captured
    holder: str
    until: float
    values: Mapping[str, Secret]

    def of(self, service: Service) -> dict[str, Secret]:
        """Of the values that lie in the entry those that a loan of this service, as it is for the call, opens."""
        signs = KINDS[service.inject.kind].signs
        return dict(self.values) if signs else {self.captured.field: self.values[self.captured.field]}


def require_place(state: OrgState, rule: CaptureRule) -> None:
    """Raise ``NotFound`` or ``InvalidRequest`` before anything is sent, where there is no place for what comes."""
    if rule.into:
        state.mounts.resolve(Operation.CREATE, f"secret/data/{rule.place('agent/x', 'x', 'x')}")


async def keep(
    vault: Vault,
    state: OrgState,
    caller: Caller,
    service: str,
    rule: CaptureRule,
    values: Mapping[str, str],
    *,
    key: bytes,
    intent: Record,
) -> dict[str, str]:
    """Store new credentials, with a record of its own that names where.

    Args:
        vault: open.
        state: of the caller's org.
        caller: whose call made them.
        service: of the rule.
        rule: says where they go.
        values: by field.
        key: of the org's placeholders.
        intent: of the call.

    Returns:
        The placeholder of each field.

    Raises:
        KeyholeError: they could not be stored.
    """
    mark = secrets.token_hex(8)
    path = rule.place(caller.name, service, mark)
    name = path or f"{MOUNT}/{mark}"
    record = intent._replace(
        id=new_request_id(), operation=OPERATION, path=f"secret/data/{path}" if path else name, secrets=(name,)
    )
    await vault.journal.intend(record, state.org.id)
    try:
        texts = {field: session_placeholder(_shape(rule, value), key, mark, field) for field, value in values.items()}
        if path:
            await _write(vault, state, path, values, rule.ttl)
        await _note(vault, state, caller, rule, Captured(name, path, "", rule.through or (service,), texts), values)
    except BaseException as error:
        vault.conclude(state, record, error.code if isinstance(error, KeyholeError) else "aborted")
        raise
    vault.conclude(state, record, "ok")
    return texts


async def find(vault: Vault, org_id: str, caller: Caller, end: bytes) -> Kept | None:
    """What a placeholder stands for, by its end; ``None`` where it is none of the caller's. Raises ``Expired``."""
    item = await vault.storage(org_id, MOUNT).get_one(f"c/{end.decode()}")
    if item.data is None:
        return None
    data = json.loads(item.data)
    if data["holder"] != _holder(caller, data["path"]):
        return None
    if data["until"] <= vault.clock.now():
        raise Expired(
            "the placeholder of a credential that was made is no longer good", "make a new one in the same way"
        )
    captured = Captured(data["name"], data["path"], data["field"], tuple(data["through"]), data["texts"])
    values = {field: Secret(value) for field, value in data["values"].items()}
    return Kept(captured, data["holder"], data["until"], values)


async def _write(vault: Vault, state: OrgState, path: str, values: Mapping[str, str], ttl: int) -> None:
    """A new version of a secret, written by the door itself: whoever made the rule was allowed to."""
    target = state.mounts.resolve(Operation.CREATE, f"secret/data/{path}")
    nobody = Caller(state.org.name, state.org.id, "", "", "full", (), await vault.compiled.acl(state, ()))
    data = {"data": dict(values), "options": {"expires_in": ttl}}
    call = Call(Operation.UPDATE, f"secret/data/{path}", target.params, data)
    for attempt in range(_ATTEMPTS):
        try:
            await answer(vault, state, nobody, target, call)
        except Conflict:
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return


async def _note(
    vault: Vault, state: OrgState, caller: Caller, rule: CaptureRule, captured: Captured, values: Mapping[str, str]
) -> None:
    until = vault.clock.now() + rule.ttl
    common = {
        "name": captured.name,
        "path": captured.path,
        "through": captured.through,
        "texts": captured.texts,
        "holder": _holder(caller, captured.path),
        "until": until,
        "values": {} if captured.path else dict(values),
    }
    writes = [
        (f"c/{end_of(text).decode()}", json.dumps({**common, "field": field}).encode(), 0, until + _AFTER)
        for field, text in captured.texts.items()
    ]
    await vault.storage(state.org.id, MOUNT).change(writes)


def _holder(caller: Caller, path: str) -> str:
    """Whose placeholder it is: an agent's or a person's, and of what lives with a token that token's."""
    named = path and caller.name.partition("/")[0] in {"agent", "user"}
    return caller.name if named else f"{caller.name} {caller.token_id}"


def _shape(rule: CaptureRule, value: str) -> str:
    if rule.placeholder:
        return rule.placeholder
    prefix = _PREFIX.match(value)
    return f"{prefix[0] if prefix else ''}keyhole_{'0' * _LETTERS}"
