"""``sources/NAME``: where another manager is, and what proves to it who asks.

A write replaces all of a source, its credentials too, so that a credential never goes to another place than the one for
which it was given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from keyhole.core.errors import InvalidRequest, NotFound, PolicyDenied
from keyhole.core.fields import parse_map, parse_text
from keyhole.core.identity import ROOT_ORG
from keyhole.core.path import parse_name, parse_secret_ref
from keyhole.core.request import Reply
from keyhole.engines import Call, Context, settings
from keyhole.engines.external import kinds
from keyhole.engines.external.logins import Logins
from keyhole.engines.external.source import Source
from keyhole.engines.outside import is_trusted
from keyhole.net.tls import client_context

_OWN = ("kind", "credentials", "credentials_from", "ca_cert")
_MOST_CREDENTIALS = 32


def _entry(name: str) -> str:
    return f"s/{name}"


async def exists(context: Context, params: Mapping[str, str]) -> bool:
    """Whether there is a source of this name."""
    return (await context.storage.get_one(_entry(params["name"]))).data is not None


async def load(context: Context, name: str) -> tuple[dict[str, Any], int]:
    """A stored source, and its revision. Raises ``NotFound``."""
    item = await context.storage.get_one(_entry(name))
    if item.data is None:
        raise NotFound(f"there is no source {name!r}", "keyhole external list")
    data: dict[str, Any] = json.loads(item.data)
    return data, item.revision


async def opened(context: Context, name: str, logins: Logins) -> tuple[kinds.Kind, Source]:
    """A source, ready to be asked, with the credentials that lie in other secrets.

    Raises:
        NotFound: there is no such source, or a secret that it names is gone.
        Expired: that secret has expired.
    """
    data, revision = await load(context, name)
    found = dict(data["credentials"])
    for field, reference in data["credentials_from"].items():
        secret = await context.lend(*parse_secret_ref(reference))
        found[field] = secret.reveal().decode("utf-8", "replace")
    source = Source(name, revision, data["options"], found, data["ca_cert"], data["allow"], context, logins)
    return kinds.load(data["kind"]), source


async def write(context: Context, call: Call) -> Reply | None:
    """Makes or replaces a source."""
    name = parse_name(call.params["name"])
    kind_name = parse_text(call.data.get("kind"), "kind")
    kind = kinds.load(kind_name)
    known = {setting.name for setting in kind.SETTINGS}
    unknown = call.data.keys() - known - {*_OWN, "name"}
    if unknown:
        raise InvalidRequest(f"unknown field {min(unknown)[:40]!r}", f"known: {', '.join(sorted(known | {*_OWN}))}")
    options = settings.read(kind.SETTINGS, call.data)
    given, referred = _credentials(context, call, kind)
    kind.check(options, [*given, *referred])
    trusted = is_trusted(context, call)
    if why := kinds.needs_sudo(kind, options):
        if context.caller.org != ROOT_ORG:  # what the server has belongs to no org that lives on it
            raise PolicyDenied(f"{why} is for the org root alone", "ask an administrator of the server")
        if not trusted:
            raise PolicyDenied(f"{why} needs sudo on {call.path}", "ask an administrator")
    ca_cert = parse_text(call.data.get("ca_cert"), "ca_cert")
    if ca_cert:
        client_context(only=ca_cert)
    allow = sorted({kinds.host_of(url) for url in kind.hosts(options)}) if trusted else []
    for url in kind.hosts(options):
        kinds.check_address(url, allow)
    item = await context.storage.get_one(_entry(name))
    call.require_new(stored=item.data is not None)
    stored = {
        "kind": kind_name,
        "options": options,
        "credentials": given,
        "credentials_from": referred,
        "ca_cert": ca_cert,
        "allow": allow,
    }
    await context.storage.change([(_entry(name), json.dumps(stored).encode(), item.revision)])
    return None


def _credentials(context: Context, call: Call, kind: kinds.Kind) -> tuple[dict[str, str], dict[str, str]]:
    """Credentials that were sent, and those that are named. Raises ``InvalidRequest``, ``PolicyDenied``."""
    given = parse_map(call.data.get("credentials"), "credentials", most=_MOST_CREDENTIALS)
    referred = parse_map(call.data.get("credentials_from"), "credentials_from", most=_MOST_CREDENTIALS)
    known = set(kind.CREDENTIALS)
    if known and not {*given, *referred} <= known:
        raise InvalidRequest(
            "this kind of source has no such credential", f"its credentials: {', '.join(kind.CREDENTIALS)}"
        )
    if given.keys() & referred.keys():
        raise InvalidRequest("a credential is both sent and named", "leave one of the two out")
    for reference in referred.values():
        path, _ = parse_secret_ref(reference)
        if path.startswith("/"):
            raise InvalidRequest("the credentials of a source lie in secret/", "name them like vault/token#value")
        if not context.caller.allows("read", f"secret/data/{path}"):
            raise PolicyDenied(
                f"naming a secret needs read on it, and you may not read {path!r}",
                "ask its owner to make the source, or to grant you read",
            )
    return given, referred


async def read(context: Context, call: Call) -> Reply:
    """A source, with the names of its credentials only."""
    data, _ = await load(context, call.params["name"])
    shown = {"name": call.params["name"], "kind": data["kind"], **data["options"]}
    shown |= {"credentials": sorted(data["credentials"]), "credentials_from": data["credentials_from"]}
    return Reply({**shown, "ca_cert": data["ca_cert"], "private": bool(data["allow"])})


async def delete(context: Context, call: Call) -> None:
    """Forget a source. What lies there stays; services that name it are refused from now on."""
    item = await context.storage.get_one(_entry(call.params["name"]))
    if item.data is not None:
        await context.storage.change((), [(_entry(call.params["name"]), item.revision)])


async def list_names(context: Context, _call: Call) -> Reply:
    """Names of all sources."""
    names = await context.storage.list("s")
    if not names:
        raise NotFound("there are no sources", "keyhole external add NAME --kind KIND …")
    return Reply({"keys": list(names)})
