"""Whether a single certificate is good, to who asks by OCSP (RFC 6960). An answer is signed anew each time."""

from __future__ import annotations

import base64
import binascii

from keyhole.core.errors import InvalidRequest
from keyhole.core.fields import parse_text
from keyhole.core.request import Reply
from keyhole.crypto import pki
from keyhole.crypto.pki import ocsp
from keyhole.engines import Call, Context
from keyhole.engines.pki import revoking, store

_CONTENT_TYPE = "application/ocsp-response"
_GOOD_FOR = 12 * 3600  # seconds


async def ask(context: Context, call: Call) -> Reply:
    """Good, revoked or unknown, from a request in base64: in the path of a read, or in the body of a write."""
    text = call.params.get("request") or parse_text(call.data.get("request"), "request")
    try:
        question = ocsp.Question.read(base64.b64decode(text, validate=True))
    except (InvalidRequest, binascii.Error, ValueError):
        return _said(ocsp.refusal(unauthorized=False))
    for issuer in (await store.load_issuers(context)).values():
        if issuer.key and "ocsp-signing" in issuer.usage and question.is_about(issuer.certificate):
            return _said(await _answer(context, issuer, question))
    return _said(ocsp.refusal(unauthorized=True))


async def _answer(context: Context, issuer: store.Issuer, question: ocsp.Question) -> bytes:
    serial = store.serial_text(question.serial)
    stored = await store.load_certificate(context, serial)
    known = stored is not None and stored.issuer == issuer.id
    now = int(context.now)
    key = await store.find_key(context, issuer.key)
    return question.answer(
        pki.Issuer(key.der, issuer.certificate),
        now=now,
        end=now + _GOOD_FOR,
        revoked=await revoking.revoked_by(context, serial, issuer.id),
        known=known,
    )


def _said(der: bytes) -> Reply:
    return Reply(raw=der, content_type=_CONTENT_TYPE)  # what is wrong stands in the answer itself
