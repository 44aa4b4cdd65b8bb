"""``identity/oidc/role``: which key signs the identity tokens of a client, for how long, and with what claims."""

from __future__ import annotations

import json
import secrets
import string
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.lease import parse_duration
from keyhole.core.request import Operation, Reply
from keyhole.engines import Call, Context, Field, Route, StorageView
from keyhole.vault.identity import fields
from keyhole.vault.identity.oidc import keys
from keyhole.vault.identity.oidc.templates import read_template

if TYPE_CHECKING:
    from keyhole.vault.vault import Vault

_DAY = 24 * 3600
_CLIENT_ID = 26
_ALPHABET = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class Role:
    """A role.

    Attributes:
        key: name of the key.
        template: of further claims; empty for none.
        ttl: seconds that a token counts.
        client_id: claim ``aud``: for whom the tokens are.
    """

    key: str
    template: str
    ttl: int
    client_id: str


async def load(storage: StorageView, name: str) -> tuple[Role | None, int]:
    """A role and the revision that a write must expect."""
    item = await storage.get_one(_path(name))
    return (Role(**json.loads(item.data)) if item.data is not None else None), item.revision


class _Handlers:
    """Handlers of the role routes."""

    async def write(self, context: Context, call: Call) -> None:
        name, data = keys.read_name(call.params["name"]), call.data
        before, revision = await load(context.storage, name)
        key_name = fields.text(data, "key") or (before.key if before else "")
        if not key_name:
            raise InvalidRequest("the key parameter is required", "the name of a key: list identity/oidc/key")
        template = data.get("template")
        if template is not None and not isinstance(template, str):
            raise InvalidRequest("template is text: a JSON object with {{…}}")
        ttl = parse_duration(data["ttl"]) if data.get("ttl") is not None else before.ttl if before else _DAY
        key, _ = await keys.load(context.storage, key_name)
        if ttl <= 0:
            raise InvalidRequest("ttl is longer than nothing")
        if key is not None and ttl > key.verification_ttl:
            raise InvalidRequest(
                "a role's token ttl cannot be longer than the verification_ttl of the key it references"
            )
        client = fields.text(data, "client_id") or (before.client_id if before else _new_client_id())
        text = read_template(template) if template is not None else before.template if before else ""
        role = Role(key_name, text, ttl, client)
        await context.storage.change([(_path(name), json.dumps(asdict(role)).encode(), revision)])

    async def read(self, context: Context, call: Call) -> Reply:
        role, _ = await load(context.storage, call.params["name"])
        if role is None:
            raise NotFound("there is no such role", "list identity/oidc/role")
        return Reply(asdict(role))

    async def delete(self, context: Context, call: Call) -> None:
        role, revision = await load(context.storage, call.params["name"])
        if role is not None:
            await context.storage.change((), [(_path(call.params["name"]), revision)])

    async def names(self, context: Context, _call: Call) -> Reply:
        found = await context.storage.list("oidc/role")
        if not found:
            raise NotFound("there are no roles")
        return Reply({"keys": list(found)})


def _new_client_id() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(_CLIENT_ID))


def _path(name: str) -> str:
    return f"oidc/role/{name}"


def routes(_vault: Vault) -> tuple[Route, ...]:
    """The table."""
    r = _Handlers()
    body = (
        Field("key", "name of the key that signs", "string"),
        Field("template", "further claims: a JSON object with {{…}}, also in base64", "string"),
        Field("ttl", "duration that a token counts; 24h unless said", "duration"),
        Field("client_id", "claim aud; a random one unless said", "string"),
    )
    return (
        Route("oidc/role", {Operation.LIST: r.names}, help="Names of the roles of identity tokens."),
        Route(
            "oidc/role/{name}",
            {Operation.READ: r.read, Operation.CREATE: r.write, Operation.DELETE: r.delete},
            fields=body,
            help="What identity tokens of a client say, and who signs them.",
        ),
    )
