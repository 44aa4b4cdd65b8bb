"""``sys/policies/acl`` and the older ``sys/policy``."""

from __future__ import annotations

import base64

from keyhole.core.errors import InvalidRequest, NotFound, PolicyDenied
from keyhole.core.path import parse_policy_name
from keyhole.core.policy import ROOT
from keyhole.core.request import Operation, Reply
from keyhole.engines import Call, Context, Field, Route
from keyhole.vault import policies
from keyhole.vault.storage import Storage
from keyhole.vault.vault import Vault

_OLD = "sys/policy/"
_ROOT_TEXT = "# everything in this org is allowed; nothing can be added\n"


def routes(vault: Vault) -> tuple[Route, ...]:
    """The table."""

    def storage(context: Context) -> Storage:
        return vault.storage(context.caller.org_id, policies.MOUNT, configures=True)

    async def read(context: Context, call: Call) -> Reply:
        if not _can_be(call):
            raise NotFound("there is no policy of that name", "keyhole policy list")
        name = _name(context, call)
        stored = {"text": _ROOT_TEXT} if name == ROOT else await policies.read(storage(context), name)
        if stored is None:
            raise NotFound(f"there is no policy {name!r}", "keyhole policy list")
        return Reply({"name": name, "rules" if call.path.startswith(_OLD) else "policy": stored["text"]})

    async def write(context: Context, call: Call) -> None:
        name = _name(context, call)
        text = call.data.get("policy") or call.data.get("rules")
        if not isinstance(text, str) or not text.strip():
            raise InvalidRequest("'policy' parameter not supplied or empty")
        await policies.write(storage(context), name, decoded(text))

    async def delete(context: Context, call: Call) -> None:
        if _can_be(call):  # what cannot be is gone already
            await policies.delete(storage(context), _name(context, call))

    async def names(context: Context, call: Call) -> Reply:
        keys = await policies.names(storage(context))
        old = f"{call.path.rstrip('/')}/" == _OLD
        return Reply({"keys": keys, "policies": keys} if old else {"keys": keys})

    one = {Operation.READ: read, Operation.CREATE: write, Operation.DELETE: delete}
    fields = (Field("policy", "HCL, JSON, or base64 of either", "string"),)
    return tuple(
        route
        for prefix in ("policies/acl", "policy")
        for route in (
            Route(
                prefix,
                {Operation.LIST: names, **({Operation.READ: names} if prefix == "policy" else {})},
                help="Names of policies.",
            ),
            Route(f"{prefix}/{{name...}}", one, fields=fields, help="A policy."),
        )
    )


def _can_be(call: Call) -> bool:
    """Whether a policy can have this name at all."""
    try:
        parse_policy_name(call.params["name"])
    except InvalidRequest:
        return False
    return True


def _name(context: Context, call: Call) -> str:
    """The policy that is meant. Case does not count in its name, and does in the paths that rules are written for."""
    written = call.params["name"]
    name = parse_policy_name(written)
    path = call.path.removesuffix(written) + name
    if path != call.path and not context.caller.allows(call.operation.value, path):
        raise PolicyDenied("permission denied", f"no policy of yours gives {call.operation.value} on {path}")
    return name


def decoded(text: str) -> str:
    """Vault takes a policy as base64 too."""
    try:
        return base64.b64decode(text, validate=True).decode()
    except ValueError:  # not base64, or not of text
        return text
