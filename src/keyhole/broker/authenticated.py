"""Who asks for something on the road."""

from __future__ import annotations

from keyhole.core.errors import Unauthenticated
from keyhole.core.identity import Caller
from keyhole.core.request import Request
from keyhole.vault.compiled import OrgState
from keyhole.vault.vault import Vault


async def authenticate(vault: Vault, request: Request, *, spend: bool = True) -> tuple[OrgState, Caller]:
    """Find who asks. Who is unknown is recorded.

    Args:
        vault: open; it does not ``recognise`` the credential.
        request: with the credential, as its record shows it.
        spend: it costs one of the token's uses.

    Raises:
        Unauthenticated: the credential is not, or no longer, good.
    """
    try:
        return await vault.authenticate(request.credential, spend=spend, remote=request.remote)
    except Unauthenticated as error:
        error.request_id = request.id
        await vault.record_unknown(request, error)
        raise
