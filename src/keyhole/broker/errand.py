"""An errand: a request that an injection makes for itself, such as one for a token, with a record of its own."""

from __future__ import annotations

import asyncio

from keyhole.broker.connections import UpstreamAnswer
from keyhole.broker.held import HeldBody, hold
from keyhole.broker.upstream import Pool
from keyhole.core.errors import BodyTooLarge, InternalError, KeyholeError, UpstreamUnreachable
from keyhole.core.host import Authority
from keyhole.core.message import Heard, Message
from keyhole.core.record import Record, clip
from keyhole.core.service import Service
from keyhole.net.guard import Guard
from keyhole.vault.compiled import OrgState
from keyhole.vault.keys import new_request_id
from keyhole.vault.vault import Vault

OPERATION = "mint"


async def run_errand(
    vault: Vault, state: OrgState, pool: Pool, guard: Guard, service: Service, intent: Record, message: Message
) -> Heard:
    """Send a message of the injection's own, and read its answer.

    Args:
        vault: records it before anything is sent, and how it ended.
        state: of the org.
        pool: the only outgoing connections.
        guard: of the service.
        service: whose injection it is.
        intent: the call that it is for.
        message: complete, with its body as ``content``.

    Raises:
        KeyholeError: it could not be recorded or sent, or its answer cannot be read.
    """
    authority = Authority(message.host, message.port)
    record = intent._replace(
        id=new_request_id(),
        operation=OPERATION,
        host=str(authority),
        method=message.method,
        target=clip(message.target.decode("latin-1").partition("?")[0]),
        parameters=(),
    )
    durable = vault.journal.intend(record, state.org.id)
    try:
        await durable
    except asyncio.CancelledError:  # it is written all the same
        vault.conclude(state, record, "aborted")
        raise
    heard = Heard(0, [])
    try:
        message.set(b"accept-encoding", b"identity")
        key = (state.org.id, service.name, service.allow_addresses, OPERATION)
        lease = pool.reserve(key, message.scheme, message.host, message.port, guard)
        answer = await lease.send(message, None if message.content is None else HeldBody(message.content))
        heard = Heard(answer.status, answer.headers)
        heard.content = await _content(answer)
    except BaseException as error:
        code = error.code if isinstance(error, KeyholeError) else InternalError.code
        result = "aborted" if isinstance(error, asyncio.CancelledError) else code
        vault.conclude(state, record, result, status=heard.status)
        raise
    vault.conclude(state, record, "ok", status=heard.status, received=len(heard.content))
    return heard


async def _content(answer: UpstreamAnswer) -> bytes:
    try:
        if any(name == b"content-encoding" and value != b"identity" for name, value in answer.headers):
            raise UpstreamUnreachable("the answer to the request for a token is encoded without having been asked to")
        return b"" if answer.body is None else await hold(answer.body)
    except BodyTooLarge as error:
        raise UpstreamUnreachable("the answer to the request for a token is too long") from error
    finally:
        await answer.close()
