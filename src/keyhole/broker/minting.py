"""Answers with new credentials: kept in the vault before they are released, and found again by their placeholders.

An answer that should have a credential and cannot be read or stored is withheld: what was made may then have to be
revoked at its source, and the error says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass

from keyhole.broker.connections import UpstreamAnswer
from keyhole.broker.exchange import OwnAnswer
from keyhole.broker.held import LIMIT, HeldBody, hold
from keyhole.broker.loan import Loan, without_stale
from keyhole.broker.watch import foreign
from keyhole.core import minted_answer
from keyhole.core.capture import CaptureRule, rule_for
from keyhole.core.errors import BodyTooLarge, InvalidRequest, KeyholeError, ScrubFailedClosed
from keyhole.core.identity import Caller
from keyhole.core.inject import KINDS
from keyhole.core.message import Call, Headers, Heard
from keyhole.core.placeholder import MARK, marked
from keyhole.core.service import Service
from keyhole.core.target import canonical_target, readings
from keyhole.injections.placeholder import decode_basic
from keyhole.net.tasks import Tasks, heard
from keyhole.scrub import too_short
from keyhole.scrub.codings import decoded
from keyhole.vault import captured
from keyhole.vault.captured import Kept
from keyhole.vault.compiled import OrgState
from keyhole.vault.shares import Turn
from keyhole.vault.vault import Vault

_CODING = b"content-encoding"
_under_way = Tasks()


@dataclass(slots=True)
class Minting:
    """What new credentials mean for one call.

    Attributes:
        rule: the answer has one; ``None`` for any other call.
        kept: the credential for which the call shows a placeholder.
        key: of the org's placeholders.
    """

    rule: CaptureRule | None
    kept: Kept | None
    key: bytes

    def service(self, service: Service) -> Service:
        """The service as it is for this call."""
        return service if self.kept is None else self.kept.captured.as_service(service)


async def minting_of(
    vault: Vault,
    state: OrgState,
    caller: Caller,
    service: Service,
    call: Call,
    key: bytes,
    turn: Turn,
) -> Minting | None:
    """Look for placeholders of captured credentials in a call, and whether its answer has a new one.

    A small body is held for that, and there is room for such an answer until the call's ``turn`` ends. ``None`` where
    there is nothing of either.

    Raises:
        Tripped: a placeholder is not the caller's, or is meant for another service.
        InvalidRequest: it shows several that do not belong together.
        KeyholeError: there would be no place for what the answer has.
    """
    kept = await _shown(vault, state, caller, service, call, key, turn)
    rule = None
    if service.capture:
        rule = rule_for(service, call.method, readings(canonical_target(call.target)))
        if rule is not None:
            captured.require_place(state, rule)
            held = vault.shares.holding(state, caller)
            held.take(LIMIT)  # an answer that is there could not be refused any more
            turn.then(held.release)
    return None if rule is None and kept is None else Minting(rule, kept, key)


async def _shown(
    vault: Vault,
    state: OrgState,
    caller: Caller,
    service: Service,
    call: Call,
    key: bytes,
    turn: Turn,
) -> Kept | None:
    text = b"\n".join([call.target, *(decode_basic(value) or value for _, value in call.headers)])
    place = "header"
    if call.body is not None and not call.upgrade and (call.body.length or LIMIT + 1) <= LIMIT:
        content = await hold(call.body, taking=turn.take)
        call.body = HeldBody(content, call.body.trailers)
        text, place = b"\n".join([text, content]), "body"
    if MARK not in text:
        return None
    found: dict[bytes, Kept] = {}
    for end in set(marked(text, key)):
        kept = await captured.find(vault, state.org.id, caller, end)
        if kept is not None:
            found[end] = kept
    if not found:
        return None
    names = {each.captured.name for each in found.values()}
    if len(names) > 1 or (len(found) > 1 and not KINDS[service.inject.kind].signs):
        raise InvalidRequest(
            "the request shows several placeholders of credentials that were made", "send one of them in a request"
        )
    kept = next(iter(found.values()))
    if service.name not in kept.captured.through:
        raise foreign(place)
    return kept


async def answered(
    vault: Vault,
    state: OrgState,
    caller: Caller,
    service: Service,
    minting: Minting | None,
    loan: Loan,
    turn: Turn,
    sending: Awaitable[UpstreamAnswer | OwnAnswer],
) -> UpstreamAnswer | OwnAnswer:
    """The answer, with placeholders in the place of new credentials, which are in the vault by then.

    What is made for somebody who hangs up meanwhile is kept all the same, and counts as under way until then.

    Raises:
        ScrubFailedClosed: they could not be read or stored; nothing of the answer is released.
    """
    if minting is None or minting.rule is None:
        return await sending
    task = _under_way.begin(_kept(vault, state, caller, service, minting, loan, sending))
    task.add_done_callback(heard)  # a failure has its record
    turn.outlast(task)
    return await asyncio.shield(task)


async def _kept(
    vault: Vault,
    state: OrgState,
    caller: Caller,
    service: Service,
    minting: Minting,
    loan: Loan,
    sending: Awaitable[UpstreamAnswer | OwnAnswer],
) -> UpstreamAnswer | OwnAnswer:
    answer = await sending
    rule = minting.rule
    if rule is None or not rule.answers(answer.status) or isinstance(answer, OwnAnswer):
        return answer
    try:
        content = b"" if answer.body is None else await hold(answer.body)
        document, values = _read(content, answer.headers, rule)
    except (BodyTooLarge, ScrubFailedClosed, minted_answer.Unreadable) as error:
        raise _withheld(service, error.reason if isinstance(error, KeyholeError) else str(error)) from None
    finally:
        await answer.close()
    if document is not None and values:
        intent = loan.intent.record()
        try:
            texts = await captured.keep(
                vault, state, caller, service.name, rule, values, key=minting.key, intent=intent
            )
            for pointer, field in rule.fields:
                if field in values:
                    document.put(pointer, texts[field])
        except minted_answer.Unreadable as error:
            raise _withheld(service, str(error)) from None
        except KeyholeError as error:
            raise _withheld(service, f"it could not be stored: {error.reason}") from None
        content = document.encode()
        loan.hide([value.encode() for value in values.values()])
    headers = [pair for pair in without_stale(answer.headers) if pair[0] != _CODING]
    headers.append((b"content-length", str(len(content)).encode()))
    return OwnAnswer(Heard(answer.status, headers, content), answer.reason)


def _read(content: bytes, headers: Headers, rule: CaptureRule) -> tuple[minted_answer.Document | None, dict[str, str]]:
    """The answer and the credentials in it, by field. Raises ``Unreadable``, ``ScrubFailedClosed``."""
    plain = decoded(content, b", ".join(value for name, value in headers if name == _CODING), LIMIT)
    said = next((value for name, value in headers if name == b"content-type"), b"")
    media_type = said.partition(b";")[0].strip().lower().decode("latin-1")
    try:
        document = minted_answer.read(plain, media_type)
    except minted_answer.Unreadable:
        if rule.required or plain:
            raise
        return None, {}
    values = {field: value for pointer, field in rule.fields if (value := document.get(pointer)) is not None}
    if not values and not rule.required:
        return document, {}
    if rule.required and len(values) < len(rule.fields):
        raise minted_answer.Unreadable("nothing stands where the rule says")
    if any(too_short(value.encode()) for value in values.values()):
        raise minted_answer.Unreadable("what stands there is too short to be hidden")
    return document, values


def _withheld(service: Service, why: str) -> ScrubFailedClosed:
    return ScrubFailedClosed(
        f"the answer should have a new credential, and is withheld: {why}",
        f"see the capture rules of the service {service.name}; what was made may have to be revoked at its source",
    )
