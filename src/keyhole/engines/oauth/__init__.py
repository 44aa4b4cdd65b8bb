"""Connections to providers of OAuth 2.0 tokens, which are refreshed here and lent to services. No other engine's.

``connections/NAME`` says which provider, client and grant; ``connections/NAME/authorize`` and ``callback``, or
``connections/NAME/device``, bring a person's consent; ``token/NAME`` is what a service names as its source.

Of a mount's storage ``c/`` holds connections, ``t/`` their tokens, ``s/`` and ``d/`` consents that have begun, ``e/``
tokens that are yet to be ended at their provider.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from keyhole.core.errors import NotFound
from keyhole.core.request import Operation, Reply
from keyhole.core.value import Secret
from keyhole.engines import Call, Context, Engine, Field, Route
from keyhole.engines.oauth import consent, device, ending, managing, providers, resource
from keyhole.engines.oauth.connection import CLIENT_SECRET, PRIVATE_KEY, REFRESH_TOKEN, SETTINGS
from keyhole.engines.oauth.refreshing import Refreshing
from keyhole.engines.oauth.tokens import hidden
from keyhole.engines.settings import fields

_ANSWER = (
    Field("url", "all of the address that the browser came back to, instead of the other fields", "string"),
    Field("state", "as it came back", "string"),
    Field("code", "as it came back", "string"),
    Field("iss", "as it came back, if it did (RFC 9207)", "string"),
    Field("error", "as it came back, if it did", "string"),
    Field("redirect_uri", "the address without its query", "string"),
)
_BEGIN = (
    Field(
        "redirect_uri", "where the browser comes back to: at http://127.0.0.1:PORT, or one of redirect_uris", "string"
    ),
    Field("params", "further parameters of this authorization request, such as login_hint", "map"),
)


def make(_options: Mapping[str, str]) -> Engine:
    """The engine of one mount, with the requests that it has under way."""
    refreshing = Refreshing()

    async def read_token(context: Context, call: Call) -> Reply:
        """The access token of this moment."""
        connection, found = await refreshing.current(context, call.params["path"])
        data = {
            "access_token": Secret(json.dumps(found.access)),
            "token_type": "Bearer",
            "expires_in": max(int(found.until - context.now), 0) if found.until else 0,
            "scopes": list(found.scopes),
        }
        return Reply(data, warnings=[found.why] if found.why and not connection.by_person else [])

    async def due(context: Context, path: str) -> str:
        kind, _, name = path.partition("/")
        works = {"s": consent.due, "d": device.due, "e": ending.due}
        if kind in works:
            return await works[kind](context, path)
        try:
            return await refreshing.due(context, name)
        except NotFound:  # removed meanwhile
            return ""

    token = {Operation.READ: read_token}
    routes = (
        *_routes(refreshing),
        Route("token/{path...}", token, source="access_token", help="The access token of this moment."),
        Route("{path}", token, source="access_token", help="The same as token/NAME."),
    )
    return Engine(
        "oauth",
        routes,
        lend=refreshing.lend,
        relend=refreshing.relend,
        hides=hidden,
        hosts=resource.limits,
        audience=resource.audience,
        due=due,
        settle=refreshing.settle,
    )


def _routes(refreshing: Refreshing) -> tuple[Route, ...]:
    one = "connections/{name}"
    about = fields((*SETTINGS, CLIENT_SECRET, PRIVATE_KEY, REFRESH_TOKEN))
    manage = {Operation.READ: managing.read, Operation.CREATE: managing.write, Operation.DELETE: managing.delete}
    start = {Operation.CREATE: device.begin, Operation.DELETE: device.cancel}
    return (
        Route("providers", {Operation.LIST: providers.list_names}, help="The providers that are known by name."),
        Route("providers/{name}", {Operation.READ: providers.show}, help="What is known of one."),
        Route("connections", {Operation.LIST: managing.list_names}, help="Names of connections, and how each stands."),
        Route(one, manage, exists=managing.exists, fields=about, help="A client of a provider, and how it stands."),
        Route(
            f"{one}/authorize", {Operation.CREATE: consent.begin}, fields=_BEGIN, help="Begins consent in a browser."
        ),
        Route(
            f"{one}/resource",
            {Operation.CREATE: resource.connect},
            fields=resource.FIELDS,
            help="A client for a protected resource, which says itself who gives tokens for it.",
        ),
        Route(f"{one}/device", start, help="Begins consent on another device, or cancels it."),
        Route(f"{one}/device/poll", {Operation.CREATE: device.poll}, help="Whether the person has agreed."),
        Route(f"{one}/refresh", {Operation.CREATE: refreshing.refresh}, help="Gets new tokens now."),
        Route(
            f"{one}/disconnect",
            {Operation.CREATE: managing.disconnect},
            help="Ends the tokens at the provider, and keeps the connection.",
        ),
        Route("callback", {Operation.CREATE: consent.finish}, fields=_ANSWER, help="Ends consent in a browser."),
    )
