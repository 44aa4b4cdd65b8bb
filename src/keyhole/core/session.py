"""A service as one session sees it: with placeholders that are the session's own. Pure."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from dataclasses import replace

from keyhole.core.inject import KINDS
from keyhole.core.placeholder import session_placeholder
from keyhole.core.service import Service


def placeholder_key(token_key: bytes, org_id: str) -> bytes:
    """The key of an org's placeholders, from that of its tokens. It proves where one came from, and opens nothing."""
    return hmac.digest(token_key, b"keyhole placeholders 1\0" + org_id.encode(), "sha256")


def service_of_session(service: Service, key: bytes, token_id: str) -> Service:
    """The service with the session's placeholders in place of its own.

    Services that lend one secret share them: a token of GitHub goes to its API, and inside a URL to git. What a kind
    answers with is left as it is: an SDK takes it for its token, and sends it to the services that it uses.

    Args:
        service: as it is stored.
        key: see ``placeholder_key``.
        token_id: of the session.
    """

    def own(text: str, field: str) -> str:
        return session_placeholder(text, key, token_id, service.secret or service.name, field) if text else text

    inject = service.inject
    replaced = "" if KINDS[inject.kind].answers else "text"
    options = tuple((name, own(value, "") if name == replaced else value) for name, value in inject.options)
    return replace(
        service,
        placeholder=own(service.placeholder, ""),
        placeholders={field: own(text, field) for field, text in service.placeholders.items()},
        inject=replace(inject, options=options),
    )


def pairs(service: Service, own: Service) -> Iterator[tuple[str, str]]:
    """Each placeholder of a service, with the one that a session has in its place."""
    yield from ((text, own.placeholders[field]) for field, text in service.placeholders.items())
    for text, mine in ((service.placeholder, own.placeholder), (service.inject.text, own.inject.text)):
        if text:
            yield text, mine
