"""An org named in front of a path, as Vault names its namespaces: ``acme/secret/data/x`` for ``secret/data/x`` in acme.

What is judged is never in doubt, and no answer tells which orgs there are:

1. With an org named beside the path (a header) the path is a path; both together would name an org within an org.
2. A path that lies in a mount of the org of who asks is a path. Nobody can make it mean something else from outside.
3. Else the first segment names an org if it is the asker's own, or if the rest needs no token: a login, or a path
   that a stranger asks for. Whether there is such an org makes no difference to how it is read.

Everything else stays a path, to which there is no mount.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyhole.core.errors import KeyholeError
from keyhole.core.request import Anonymous, Operation, Request
from keyhole.vault.mounts import AUTH
from keyhole.vault.tokens import org_of

if TYPE_CHECKING:
    from keyhole.vault.vault import Vault

_WRITES = frozenset({Operation.CREATE, Operation.UPDATE})


def may_be_named(request: Request) -> bool:
    """Whether an org may be named in front of the path. Nearly no request is such a one.

    Raises:
        Unauthenticated: the credential is no token.
    """
    credential = request.credential
    org_id = org_of(credential) if isinstance(credential, bytes) else ""
    if org_id or isinstance(credential, Anonymous):
        return not request.org
    return not request.org and f"/{AUTH}" in request.path and request.operation in _WRITES


async def settle(vault: Vault, request: Request) -> Request:
    """The request as it is meant: with the org taken off its path, if one is named there.

    Raises:
        Unauthenticated: the credential is no token.
    """
    name, _, rest = request.path.partition("/")
    credential = request.credential
    stranger = isinstance(credential, Anonymous)
    org_id = org_of(credential) if isinstance(credential, bytes) else ""
    login = rest.startswith(AUTH) and request.operation in _WRITES
    if request.org or not rest or not (stranger or org_id or login):
        return request
    try:
        own = vault.compiled.current(org_id or vault.root_org) or await vault.compiled.state(org_id or vault.root_org)
    except KeyholeError:
        return request  # a guess at a token; the door refuses it
    if own.mounts.find(f"{request.path}/") is not None:
        return request
    if org_id and name == own.org.name:
        return request.but(path=rest)
    return request.but(path=rest, org=name) if stranger or login else request
