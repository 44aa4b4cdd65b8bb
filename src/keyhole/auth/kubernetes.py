"""Kubernetes: pods log in with the token of their service account.

The cluster is asked whose token it is (TokenReview); with ``pem_keys`` the token is judged here, and nobody is asked.
Fields and texts are those of Vault's method.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from keyhole.auth import settings
from keyhole.auth.guesses import Guesses
from keyhole.auth.outside import asked_host, entity_name, pems
from keyhole.auth.roles import Roles
from keyhole.auth.settings import Setting, text, texts
from keyhole.core.cidr import within
from keyhole.core.claims import Leeway, require_audience, require_current
from keyhole.core.errors import InvalidRequest, NotFound, PolicyDenied
from keyhole.core.identity import Login
from keyhole.core.numbers import parse_flag
from keyhole.core.parameters import glob_matches
from keyhole.core.request import Operation, Reply
from keyhole.core.strict_json import JsonBounds, parse_object
from keyhole.crypto.foreign_jwt import Refused, key_of_pem, unverified_claims, verify
from keyhole.engines import Call, Context, Engine, Field, InvalidForVault, Route
from keyhole.engines.outside import is_trusted

_BOUNDS = JsonBounds(depth=16, string=65536, items=2000)
_REVIEW = "/apis/authentication.k8s.io/v1/tokenreviews"
_ACCOUNT = re.compile(r"system:serviceaccount:([a-z0-9.-]{1,253}):([a-z0-9.-]{1,253})")
_ALIASES = ("serviceaccount_uid", "serviceaccount_name")
_SKEW = Leeway(60, 60, 60)


def _ca(value: Any, name: str) -> str:
    """Certificates in PEM, by their looks: whether they prove the cluster is seen when it is asked."""
    if text(value, name) and "-----BEGIN CERTIFICATE-----" not in value:
        raise InvalidRequest(f"{name} is not in PEM form", "send the whole text, with its BEGIN and END")
    return str(value)


CONFIG = (
    Setting("kubernetes_host", text, "", "https:// URL of the cluster's API"),
    Setting("kubernetes_ca_cert", _ca, "", "CAs that prove it, in PEM"),
    Setting("pem_keys", pems, [], "public keys or certificates of the cluster, to judge tokens without asking it"),
    Setting("issuer", text, "", "what tokens must name as their issuer, unless that is left out"),
    Setting("disable_iss_validation", parse_flag, default=True, help="leave the issuer out; asking the cluster does"),
    Setting("disable_local_ca_jwt", parse_flag, default=False, help="taken for Vault's clients: nothing local is read"),
)


def _names(value: Any, name: str) -> list[str]:
    found = texts(value, name)
    if any(not re.fullmatch(r"[A-Za-z0-9.*_-]{1,253}", each) for each in found):
        raise InvalidRequest(f"{name} are names, in which * stands for any characters")
    return found


def _alias_source(value: Any, name: str) -> str:
    if value not in _ALIASES:
        raise InvalidRequest(f"invalid {name}: use {' or '.join(_ALIASES)}")
    return str(value)


def _selector(value: Any, name: str) -> str:
    if value != "":
        raise InvalidRequest(f"{name} is not known here", "name the namespaces")
    return ""


ROLE = (
    Setting("bound_service_account_names", _names, [], "accounts that may log in; * for all"),
    Setting("bound_service_account_namespaces", _names, [], "namespaces whose pods may log in; * for all"),
    Setting("bound_service_account_namespace_selector", _selector, "", "not known here"),
    Setting("audience", text, "", "what the token must be meant for"),
    Setting("alias_name_source", _alias_source, "serviceaccount_uid", "what names the entity"),
    *settings.TOKEN,
)


def _check(role: dict[str, Any], _name: str) -> None:
    for name in ("bound_service_account_names", "bound_service_account_namespaces"):
        if not role[name]:
            raise InvalidRequest(f'"{name}" can not be empty', f'"{name}": ["NAME"]')


ROLES = Roles(ROLE, _check)


class _Method:
    """The handlers of a mount."""

    def __init__(self, guesses: Guesses) -> None:
        self._guesses = guesses

    async def read_config(self, context: Context, _call: Call) -> Reply:
        item = await context.storage.get_one("config")
        if item.data is None:
            raise NotFound("nothing was configured")
        config = json.loads(item.data)
        return Reply(settings.show(CONFIG, config) | {"token_reviewer_jwt_set": bool(config["token_reviewer_jwt"])})

    async def write_config(self, context: Context, call: Call) -> None:
        item = await context.storage.get_one("config")
        config: dict[str, Any] = {each.name: each.default for each in CONFIG}
        for each in CONFIG:
            if call.data.get(each.name) is not None:
                config[each.name] = each.parse(call.data[each.name], each.name)
        if not config["kubernetes_host"]:
            raise InvalidRequest("no host provided", '"kubernetes_host": "https://HOST:6443"')
        if config["disable_local_ca_jwt"] and not config["kubernetes_ca_cert"]:
            raise InvalidRequest("kubernetes_ca_cert must be given when disable_local_ca_jwt is true")
        trusted = is_trusted(context, call)
        host = asked_host(config["kubernetes_host"], "kubernetes_host", trusted=trusted)
        reviewer = text(call.data.get("token_reviewer_jwt") or "", "token_reviewer_jwt")
        if reviewer:
            try:
                unverified_claims(reviewer)
            except Refused as error:
                raise InvalidForVault(
                    f"token_reviewer_jwt: {error.reason}", "give the token of a service account"
                ) from None
        config |= {"token_reviewer_jwt": reviewer, "allow": [host] if trusted else []}
        await context.storage.change([("config", json.dumps(config).encode(), item.revision)])

    async def login(self, context: Context, call: Call) -> Reply:
        token, name = call.data.get("jwt"), call.data.get("role")
        if not isinstance(name, str) or not name:
            raise InvalidRequest("missing role", 'send {"role": "NAME", "jwt": "…"}')
        if not isinstance(token, str) or not token:
            raise InvalidRequest("missing jwt", 'send {"role": "NAME", "jwt": "…"}')
        with self._guesses.one(call.remote, context.now):
            claims = unverified_claims(token)
            item = await context.storage.get_one("config")
            role = await ROLES.load(context, name)
            if item.data is None or role is None:
                raise _denied()
            config = json.loads(item.data)
            _require_expected(context, call, config, role, claims)
            account = await self._account(context, config, role, token)
            return Reply(login=_login(role, account, claims))

    async def _account(
        self, context: Context, config: Mapping[str, Any], role: Mapping[str, Any], token: str
    ) -> dict[str, str]:
        """Name, namespace and uid of the account that the token is proved to be of."""
        if config["pem_keys"]:
            claims = verify(token, [key_of_pem(each) for each in config["pem_keys"]])
            return _account_of(claims)
        told = await _review(context, config, role, token)
        claimed = _account_of(unverified_claims(token))
        if told["uid"] != claimed["uid"] or (told["name"], told["namespace"]) != (
            claimed["name"],
            claimed["namespace"],
        ):
            raise _denied()
        return told


async def _review(context: Context, config: Mapping[str, Any], role: Mapping[str, Any], token: str) -> dict[str, str]:
    """Ask the cluster whose token it is. Source: TokenReview of ``authentication.k8s.io/v1``."""
    wanted = {"audiences": [role["audience"]]} if role["audience"] else {}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token, **wanted}}
    try:
        heard = await context.net.ask(
            "POST",
            f"{config['kubernetes_host'].rstrip('/')}{_REVIEW}",
            headers=[
                ("Authorization", f"Bearer {config['token_reviewer_jwt'] or token}"),
                ("Content-Type", "application/json"),
                ("Accept", "application/json"),
            ],
            body=json.dumps(body).encode(),
            ca_pem=config["kubernetes_ca_cert"],
            allow=config["allow"],
        )
        status = parse_object(heard.body, _BOUNDS).get("status") if heard.status in (200, 201) else None
    except InvalidRequest as error:
        raise PolicyDenied("permission denied", f"the cluster cannot be asked: {error.reason}") from None
    user = status.get("user") if isinstance(status, dict) else None
    if not isinstance(status, dict) or status.get("authenticated") is not True or not isinstance(user, dict):
        raise _denied()
    audiences = status.get("audiences")
    if role["audience"] and (not isinstance(audiences, list) or role["audience"] not in audiences):
        raise _denied()
    match = _ACCOUNT.fullmatch(str(user.get("username")))
    if match is None or not isinstance(user.get("uid"), str) or not user["uid"]:
        raise _denied()
    return {"namespace": match[1], "name": match[2], "uid": user["uid"]}


def _account_of(claims: Mapping[str, Any]) -> dict[str, str]:
    """The account that a token names, in the form of bound tokens or in that of stored ones."""
    bound = claims.get("kubernetes.io")
    if isinstance(bound, dict) and isinstance(account := bound.get("serviceaccount"), dict):
        found = {"namespace": bound.get("namespace"), "name": account.get("name"), "uid": account.get("uid")}
    else:
        prefix = "kubernetes.io/serviceaccount"
        found = {
            "namespace": claims.get(f"{prefix}/namespace"),
            "name": claims.get(f"{prefix}/service-account.name"),
            "uid": claims.get(f"{prefix}/service-account.uid"),
        }
    if not all(isinstance(each, str) and each for each in found.values()):
        raise _denied()
    if claims.get("sub") != f"system:serviceaccount:{found['namespace']}:{found['name']}":
        raise _denied()
    return {name: str(value) for name, value in found.items()}


def _require_expected(
    context: Context, call: Call, config: Mapping[str, Any], role: Mapping[str, Any], claims: Mapping[str, Any]
) -> None:
    """What can be said before anything is proved, so that the cluster is not asked about everybody's tokens."""
    account = _account_of(claims)
    bounds = ((role["bound_service_account_names"], "name"), (role["bound_service_account_namespaces"], "namespace"))
    if not all(any(glob_matches(each, account[kind]) for each in allowed) for allowed, kind in bounds):
        raise _denied()
    if role["token_bound_cidrs"] and not within(call.remote, role["token_bound_cidrs"]):
        raise _denied()
    try:
        if not config["disable_iss_validation"] and claims.get("iss") != (
            config["issuer"] or "kubernetes/serviceaccount"
        ):
            raise _denied()
        if role["audience"]:
            require_audience(claims, [role["audience"]])
        if "exp" in claims:  # those that are stored in secrets have no end
            require_current(claims, context.now, _SKEW)
        elif config["pem_keys"]:
            raise _denied()
    except InvalidRequest as error:
        raise _denied() from error


def _login(role: Mapping[str, Any], account: Mapping[str, str], claims: Mapping[str, Any]) -> Login:
    name, namespace = account["name"], account["namespace"]
    meta = {
        "role": role["name"],
        "service_account_name": name,
        "service_account_namespace": namespace,
        "service_account_secret_name": str(claims.get("kubernetes.io/serviceaccount/secret.name") or ""),
        "service_account_uid": account["uid"],
    }
    alias = account["uid"] if role["alias_name_source"] == "serviceaccount_uid" else f"{namespace}/{name}"
    who = entity_name("kubernetes", f"{namespace}.{name}")
    return settings.login_of(who, role, meta, alias=alias, alias_meta=meta)


def _denied() -> PolicyDenied:
    return PolicyDenied("permission denied", "the role is not for this account, or its token does not count")


def make(guesses: Guesses) -> Engine:
    """The method, for one mount."""
    r = _Method(guesses)
    return Engine(
        "kubernetes",
        (
            Route(
                "login",
                {Operation.CREATE: r.login},
                open=True,
                fields=(Field("role", "which role"), Field("jwt", "the token of the service account")),
                help="A token for the token of a service account.",
            ),
            Route(
                "config",
                {Operation.READ: r.read_config, Operation.CREATE: r.write_config},
                fields=(*settings.fields(CONFIG), Field("token_reviewer_jwt", "with which the cluster is asked")),
                help="Which cluster.",
            ),
            *ROLES.routes(),
        ),
    )
