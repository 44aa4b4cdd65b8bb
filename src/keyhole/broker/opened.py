"""A tunnel like one that was opened before: judged anew, and without waiting for anything."""

from __future__ import annotations

import ssl

from keyhole.broker.ca import Authorities
from keyhole.broker.directory import Directory
from keyhole.core.host import Authority
from keyhole.core.message import Seat
from keyhole.vault.vault import Vault


def opened_before(
    vault: Vault, authorities: Authorities, credential: bytes, authority: Authority, service: str, seat: Seat | None
) -> ssl.SSLContext | None:
    """The server's side of TLS for a host, where all that a tunnel to it is judged by is at hand.

    Args:
        vault: an open one.
        authorities: its CAs.
        credential: of who asks.
        authority: where the tunnel leads.
        service: that its client chose, or ``""``.
        seat: the client's connection, which counts for who asks.

    Returns:
        ``None`` where anything has to be read, made, recorded or waited for, and for whatever is refused.
    """
    known = vault.recognise(credential)
    if known is None:
        return None
    state, caller = known
    directory: Directory | None = state.bindings.derived.get(Directory)
    if directory is None or not directory.opened(caller, authority, service):
        return None
    context = authorities.kept(state, authority.host)
    return context if context is not None and vault.shares.at_once(seat, state, caller) else None
