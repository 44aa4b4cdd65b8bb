"""Services: bindings of secrets to destinations. The engine stores the binding only; it never sees a value.

Who may bind may leak: writing a service needs ``read`` on every secret that it names, and ``sudo`` on the service to
name private addresses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from keyhole.core.errors import InvalidRequest, NotFound, PolicyDenied
from keyhole.core.path import parse_name
from keyhole.core.request import Operation, Reply
from keyhole.core.service import Service
from keyhole.engines import Call, Context, Engine, Field, Route

SECRETS = "secret/"
FIELDS = (
    Field("hosts", "list of host[:port]; *.host for one more label"),
    Field("schemes", "list of https, http; https unless said; or one of postgres, mysql"),
    Field("methods", "list of methods; all unless said"),
    Field("paths", "list of globs: * within a segment, ** across; all unless said"),
    Field("deny_paths", "list of globs that win over paths"),
    Field("secret", "path#field of the secret, or /path#field of a source such as /database/creds/NAME"),
    Field("inject", 'object: {"kind": …} with the options of that kind'),
    Field("allow_addresses", "list of networks that may be dialled although they are private"),
    Field("placeholder", "text that stands for the secret in an agent's environment"),
    Field("variables", "environment variables that hold the placeholder; or an object: variable to field"),
    Field("placeholders", "object: field to text, for secrets of several fields"),
    Field("settings", "object: environment variable to text, for what an agent may know, such as a region"),
    Field("files", "object: environment variable to the text of a file that it names, with placeholders only"),
    Field("test", 'object: a harmless call, {"method", "path", …}'),
    Field("certificate", "path#field of the client's certificate and key, for TLS with the upstream"),
    Field("conditions", "object or list of objects: query, body, graphql, git, hours, until, and what they are for"),
    Field("limits", 'object: {"rate": "10/m", "count": "100/d", "concurrent": 4}, for each agent'),
    Field(
        "capture", 'list of objects: {"method", "path", "fields": {pointer: field}, "into", …}, of calls that make keys'
    ),
    Field("approval", 'object: {"required": true, "for": […], "wait": seconds, "ttl": duration, "preview": bool}'),
)
_KNOWN = {field.name for field in FIELDS} | {"name"}


def secret_path(path: str) -> str:
    """The API path whose ``read`` reveals the secret or the source that a reference names."""
    source = path.removeprefix("/")
    if source != path and f"{source}/".startswith(SECRETS):
        raise InvalidRequest("a secret is named without a leading slash", "name it like stripe/api-key")
    return source if source != path else f"{SECRETS}data/{path}"


async def _exists(context: Context, params: Mapping[str, str]) -> bool:
    return (await context.storage.get_one(params["name"])).data is not None


async def write(context: Context, call: Call) -> None:
    """Makes or replaces a service."""
    name = parse_name(call.params["name"])
    unknown = call.data.keys() - _KNOWN
    if unknown:  # a misspelt limit that is passed over would leave the service wider than it was meant
        raise InvalidRequest(f"unknown field {min(unknown)[:40]!r}", f"known: {', '.join(sorted(_KNOWN))}")
    if call.data.get("name", name) != name:
        raise InvalidRequest("the name in the body is not the one in the path", "leave it out")
    service = Service.from_data(name, call.data)
    if service.checks is not None:
        service.checks.require_usable()
    for path, _ in service.secret_refs():
        if not context.caller.allows("read", secret_path(path)):
            raise PolicyDenied(
                f"binding a secret needs read on it, and you may not read {path!r}",
                "ask its owner to make the service, or to grant you read",
            )
    await context.require_lendable(service)
    if service.allow_addresses and not context.caller.allows("update", call.path, sudo=True):
        raise PolicyDenied("naming addresses that the guard refuses needs sudo on the service", "ask an administrator")
    _require_captures(context, service)
    item = await context.storage.get_one(name)
    call.require_new(stored=item.data is not None)
    await context.storage.change([(name, json.dumps(service.as_data()).encode(), item.revision)])


def _require_captures(context: Context, service: Service) -> None:
    """Whoever lets calls write secrets may write there, and read: a placeholder lends what lies there at its use."""
    for rule in service.capture:
        path = rule.place("agent/some-agent", service.name, "some-id")
        for capability in ("update", "read") if path else ():
            if not context.caller.allows(capability, f"{SECRETS}data/{path}"):
                raise PolicyDenied(
                    f"keeping credentials at {rule.into!r} needs {capability} there, and you have not",
                    "ask for it, or let them live with the token: leave into out",
                )


async def read(context: Context, call: Call) -> Reply:
    """One service."""
    item = await context.storage.get_one(call.params["name"])
    if item.data is None:
        raise NotFound(f"there is no service {call.params['name']!r}", "keyhole service list")
    return Reply({"name": call.params["name"], **json.loads(item.data)})


async def delete(context: Context, call: Call) -> None:
    """Removes a service; calls through it are refused from the next request on."""
    item = await context.storage.get_one(call.params["name"])
    if item.data is not None:
        await context.storage.change((), [(call.params["name"], item.revision)])


async def list_names(context: Context, _call: Call) -> Reply:
    """Names of all services."""
    keys = await context.storage.list()
    if not keys:
        raise NotFound("there are no services", "keyhole add stripe, or keyhole service add NAME …")
    return Reply({"keys": list(keys)})


ENGINE = Engine(
    "services",
    (
        Route("", {Operation.LIST: list_names}, help="Names of all services."),
        Route(
            "{name}",
            {Operation.READ: read, Operation.CREATE: write, Operation.DELETE: delete},
            exists=_exists,
            fields=FIELDS,
            help="Where a secret may go, and how it is attached.",
        ),
    ),
    configures=True,
)
