"""Docker's ``config.json``: names and passwords of registries in base64, identity tokens, and who else keeps them."""

from __future__ import annotations

import base64
import binascii
import json
import re

from keyhole.core.errors import InvalidRequest
from keyhole.core.path import DEFAULT_FIELD
from keyhole.core.value import Secret
from keyhole.importers.collect import Collector, segment
from keyhole.importers.found import BASE64, Binding, Found, Origin, Report, Spot
from keyhole.importers.text import scan
from keyhole.importers.tree import Node, Text, read

TITLE = "Docker configuration"
PLACES = ("~/.docker/config.json", "$DOCKER_CONFIG/config.json")

_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HUB = ("index.docker.io", "docker.io", "registry-1.docker.io")
_HUB_TOKENS = "auth.docker.io"
_TOKEN_USER = "<token>"  # noqa: S105  # the word by which a helper says that the secret is an identity token


def parse(content: bytes, origin: Origin) -> Report:
    """See the contract of the shelf."""
    found = Collector(origin)
    tree = read(scan(content))
    if not isinstance(tree, dict):
        raise InvalidRequest("it is no configuration of Docker: not an object", "name another file")
    helpers = _texts(tree.get("credHelpers"))
    store = tree.get("credsStore")
    auths = tree.get("auths")
    for server, entry in auths.items() if isinstance(auths, dict) else ():
        if isinstance(entry, dict) and not _take(server, entry, found):
            helper = helpers.pop(server, None) or (store.value if isinstance(store, Text) else None)
            if helper:
                _kept(server, helper, found)
            else:
                found.skip(server, "auths", "has neither a password nor a token")
    for server, helper in helpers.items():
        _kept(server, helper, found)
    return found.report()


def parse_helper(content: bytes, server: str, origin: Origin) -> Report:
    """What ``docker-credential-NAME get`` printed for a server: an object with ``Username`` and ``Secret``.

    Raises:
        InvalidRequest: it printed something else.
    """
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict) or not all(isinstance(data.get(key), str) for key in ("Username", "Secret")):
        raise InvalidRequest("the credential helper printed no name and secret", "docker login, then again")
    found = Collector(origin)
    user, secret = data["Username"], data["Secret"]
    if not found.refused(server, secret, "credential helper", references=False):
        found.add(_found(server, user if user != _TOKEN_USER else "", secret, "credential helper", ()))
    return found.report()


def _texts(node: Node) -> dict[str, str]:
    items = node.items() if isinstance(node, dict) else ()
    return {key: text.value for key, text in items if isinstance(text, Text) and text.value}


def _kept(server: str, helper: str, found: Collector) -> None:
    if not _HELPER.fullmatch(helper):
        found.skip(server, "credHelpers", "names a credential helper that cannot be a program's name")
        return
    found.skip(server, "auths", f"is kept by docker-credential-{helper}; add --helpers to ask it")
    found.ask(helper, server)


def _take(server: str, entry: dict[str, Node], found: Collector) -> bool:
    """Take what an entry holds itself; false if it holds nothing."""
    taken = False
    for key in ("identitytoken", "registrytoken"):
        token = entry.get(key)
        if isinstance(token, Text) and token.raw:
            taken = True
            if not found.refused(server, token.value, f"auths: {key}", references=False):
                spots = (Spot(*token.span(0, len(token.value or ""))),)
                found.add(_found(server, "", token.value or "", f"auths: {key}", spots))
    auth = entry.get("auth")
    user, password = entry.get("username"), entry.get("password")
    if isinstance(auth, Text) and auth.raw:
        taken = True
        name, _, secret = _from_base64(auth.value or "").partition(":")
        secret = secret.rstrip("\0")
        if not secret:
            if not any(isinstance(entry.get(key), Text) for key in ("identitytoken", "registrytoken")):
                found.skip(server, "auths: auth", "is not base64 of a name and a password")
        elif not found.refused(server, secret, "auths: auth", references=False):
            places = [Spot(*auth.span(0, len(auth.value or "")), "password", BASE64, f"{name}:")]
            if isinstance(password, Text) and password.value == secret:
                places.append(Spot(*password.span(0, len(secret)), "password"))
            found.add(_found(server, name, secret, "auths: auth", tuple(places)))
    elif isinstance(user, Text) and isinstance(password, Text) and password.raw:
        taken = True
        if not found.refused(server, password.value, "auths: password", references=False):
            spot = Spot(*password.span(0, len(password.value or "")), "password")
            found.add(_found(server, user.value or "", password.value or "", "auths: password", (spot,)))
    return taken


def _found(server: str, user: str, secret: str, where: str, spots: tuple[Spot, ...]) -> Found:
    host = re.sub(r"^https?://", "", server.lower()).split("/")[0]
    # A registry names the place where its password is exchanged for tokens; only that of Docker Hub is known here.
    binding = Binding(_HUB_TOKENS, {"kind": "basic"}) if host in _HUB and user else None
    fields = {"username": user, "password": secret} if user else {DEFAULT_FIELD: secret}
    return Found(
        name=f"docker/{segment(host)}",
        fields={key: Secret(value) for key, value in fields.items()},
        where=where,
        kind="password" if user else "oauth-token",
        binding=binding,
        spots=spots,
    )


def _from_base64(text: str) -> str:
    try:
        return base64.b64decode(text.encode(), validate=True).decode()
    except (binascii.Error, UnicodeError, ValueError):
        return ""
