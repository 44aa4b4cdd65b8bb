"""Parts of Vault's ``identity/`` that are not there: they say so, and what there is in their place."""

from __future__ import annotations

from typing import NoReturn

from keyhole.core.errors import NotFound
from keyhole.core.request import Operation
from keyhole.engines import Call, Context, Route

_PROVIDER = "Keyhole is no OpenID provider for browsers; services get signed tokens at identity/oidc/token/ROLE"
_MFA = "there are no second factors for logins"
_OLDER = "write entity-alias instead: the older name of these routes is not served"
_PARTS = {
    "oidc/provider": _PROVIDER,
    "oidc/client": _PROVIDER,
    "oidc/scope": _PROVIDER,
    "oidc/assignment": _PROVIDER,
    "mfa": _MFA,
    "alias": _OLDER,
    "persona": _OLDER,
}


async def _refuse(context: Context, call: Call) -> NoReturn:
    below = call.path.removeprefix(context.mount)
    hint = next((hint for part, hint in _PARTS.items() if below == part or below.startswith(f"{part}/")), "")
    raise NotFound(f"no handler for route '{call.path}': not supported", hint)


def routes() -> tuple[Route, ...]:
    """The table."""
    operations = (Operation.READ, Operation.LIST, Operation.CREATE, Operation.DELETE)
    handlers = dict.fromkeys(operations, _refuse)
    patterns = (pattern for part in _PARTS for pattern in (part, f"{part}/{{rest...}}"))
    return tuple(Route(pattern, handlers, help="Not supported.") for pattern in patterns)
