"""AWS: machines log in with a signed question to AWS, who it is that asks (``sts:GetCallerIdentity``).

The question is sent on as it was signed, to AWS and nobody else, and the answer says whose signature it is; the secret
key never comes here. Logins by the documents of EC2 instances are not known. Fields and texts are those of Vault's
method.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from keyhole.auth import settings
from keyhole.auth.guesses import Guesses
from keyhole.auth.outside import asked_host, entity_name
from keyhole.auth.roles import Roles
from keyhole.auth.settings import Setting, text, texts
from keyhole.core.cidr import within
from keyhole.core.errors import InvalidRequest, NotFound, PolicyDenied
from keyhole.core.identity import Login
from keyhole.core.numbers import parse_flag
from keyhole.core.request import Operation, Reply
from keyhole.core.strict_json import JsonBounds, parse_json, parse_object
from keyhole.engines import Call, Context, Engine, Field, Route
from keyhole.engines.outside import is_trusted
from keyhole.net.ask import parse_https

DEFAULT_ENDPOINT = "https://sts.amazonaws.com"
_SERVER_ID = "x-vault-aws-iam-server-id"
_BOUNDS = JsonBounds(depth=8, string=16384, items=500)
_LONGEST = 16 * 1024
_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+){1,3}-[0-9]{1,2}")
_ARN = re.compile(r"arn:(aws[a-z-]*):(iam|sts)::([0-9]{12}):(user|role|assumed-role|federated-user)/([!-~]{1,512})")
_BOUND = re.compile(r"arn:aws[a-z-]*:(?:iam|sts)::[0-9*]{1,12}:[!-~]{1,512}")
# Whole, so that each part stands once: of two, AWS might read the one and we the other.
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=[^/,\s=]{1,128}/[0-9]{8}/([a-z0-9-]{1,32})/sts/aws4_request, *"
    r"SignedHeaders=([a-z0-9;-]{1,1024}), *Signature=[0-9a-f]{64}"
)
# What may be sent on to AWS: nothing that could make it answer for somebody else.
_SENT_ON = frozenset(
    {"accept", "authorization", "content-type", "user-agent", "x-amz-date", "x-amz-security-token"}
    | {"amz-sdk-invocation-id", "amz-sdk-request", "x-amz-content-sha256", "x-amz-user-agent", _SERVER_ID}
)
_OURS = frozenset({"accept-encoding", "connection", "content-length", "host"})
_METADATA = (
    "account_id",
    "auth_type",
    "canonical_arn",
    "client_arn",
    "client_user_id",
    "inferred_aws_region",
    "inferred_entity_id",
    "inferred_entity_type",
)
_EC2_METADATA = ("account_id", "ami_id", "instance_id", "region", "auth_type")
_ALIASES = ("role_id", "unique_id", "canonical_arn", "full_arn")
_EC2_ALIASES = ("role_id", "instance_id", "image_id")


def _region(value: Any, name: str) -> str:
    if value != "" and (not isinstance(value, str) or not _REGION.fullmatch(value)):
        raise InvalidRequest(f"{name} is not a region of AWS", f'"{name}": "eu-central-1"')
    return str(value)


CLIENT = (
    Setting("sts_endpoint", text, "", f"where AWS is asked; {DEFAULT_ENDPOINT} unless said"),
    Setting("sts_region", _region, "", "the region of that endpoint"),
    Setting("iam_server_id_header_value", text, "", "what the signed header X-Vault-AWS-IAM-Server-ID must say"),
    Setting("allowed_sts_header_values", texts, [], "headers that may be sent on besides"),
    Setting("use_sts_region_from_client", parse_flag, default=False, help="ask the region that the client signed for"),
    Setting("endpoint", text, "", "taken for Vault's clients: EC2 is not asked"),
    Setting("iam_endpoint", text, "", "taken for Vault's clients: IAM is not asked"),
    Setting("max_retries", lambda value, _name: value, -1, "taken for Vault's clients: nothing is tried again"),
)


def _fields(kind: str, default: tuple[str, ...], known: tuple[str, ...]) -> Setting:
    def parse(value: Any, name: str) -> list[str]:
        found = texts(value, name)
        if found == ["default"]:
            return [*default]
        if unknown := set(found) - set(known):
            shown = ", ".join(sorted(unknown))[:200]
            raise InvalidRequest(f"{shown} contains an unavailable field, please select from {', '.join(known)}")
        return found

    return Setting(f"{kind}_metadata", parse, [*default], "what the alias keeps")


def _alias(kind: str, known: tuple[str, ...]) -> Setting:
    def parse(value: Any, name: str) -> str:
        if value not in known:
            raise InvalidRequest(f"invalid {name}: use {', '.join(known)}")
        return str(value)

    return Setting(f"{kind}_alias", parse, "role_id", "what names the entity")


IDENTITY = (
    _alias("iam", _ALIASES),
    _fields("iam", ("account_id", "auth_type"), _METADATA),
    _alias("ec2", _EC2_ALIASES),
    _fields("ec2", ("account_id", "auth_type"), _EC2_METADATA),
)


def _bounds(value: Any, name: str) -> list[str]:
    found = texts(value, name)
    if any(not _BOUND.fullmatch(each) or "*" in each[:-1] for each in found):
        raise InvalidRequest(f"{name} are ARNs; * may stand at the end", '"arn:aws:iam::123456789012:role/app"')
    return found


def _accounts(value: Any, name: str) -> list[str]:
    found = texts(value, name)
    if any(not re.fullmatch("[0-9]{12}", each) for each in found):
        raise InvalidRequest(f"{name} are numbers of 12 digits")
    return found


def _type(value: Any, name: str) -> str:
    if value != "iam":
        raise InvalidRequest(f"{name} is iam: documents of EC2 instances are not known here")
    return "iam"


ROLE = (
    Setting("auth_type", _type, "iam", "iam"),
    Setting("bound_iam_principal_arn", _bounds, [], "users and roles that may log in; * at the end for the rest"),
    Setting("bound_account_id", _accounts, [], "accounts whose users and roles may log in"),
    Setting("resolve_aws_unique_ids", parse_flag, default=False, help="taken for Vault's clients: ARNs are compared"),
    Setting("inferred_entity_type", lambda _value, _name: "", "", "not known here"),
    Setting("inferred_aws_region", lambda _value, _name: "", "", "not known here"),
    *settings.TOKEN,
)


def _check(role: dict[str, Any], name: str) -> None:
    if not role["bound_iam_principal_arn"] and not role["bound_account_id"]:
        raise InvalidRequest("at least one bound parameter should be specified on the role", "bound_iam_principal_arn")
    role.setdefault("role_id", f"role-{name}")


ROLES = Roles(ROLE, _check)


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom AWS names.

    Attributes:
        arn: as it says.
        canonical: of the role that was assumed, or the same.
        account: number of the account.
        unique_id: of the user or role; another one where a name is used again.
    """

    arn: str
    canonical: str
    account: str
    unique_id: str


class _Method:
    """The handlers of a mount."""

    def __init__(self, guesses: Guesses) -> None:
        self._guesses = guesses

    async def login(self, context: Context, call: Call) -> Reply:
        config = await _load(context, "client", CLIENT)
        with self._guesses.one(call.remote, context.now):
            asked = _read(config, call.data)
            name = call.data.get("role") or ""
            who = await _ask(context, config, asked)
            name = name or who.canonical.rpartition("/")[2].lower()
            role = await ROLES.load(context, name) if isinstance(name, str) else None
            if role is None or not _fits(role, who, call.remote):
                raise _denied()
            return Reply(login=_login(role, who, await _load(context, "identity", IDENTITY)))

    async def write_client(self, context: Context, call: Call) -> None:
        before = await context.storage.get_one("config/client")
        config = await _load(context, "client", CLIENT)
        for each in CLIENT:
            if call.data.get(each.name) is not None:
                config[each.name] = each.parse(call.data[each.name], each.name)
        if config["sts_endpoint"]:
            trusted = is_trusted(context, call)
            host = asked_host(config["sts_endpoint"], "sts_endpoint", trusted=trusted)
            config["allow"] = [host] if trusted else []
        await context.storage.change([("config/client", json.dumps(config).encode(), before.revision)])

    async def read_client(self, context: Context, _call: Call) -> Reply:
        if (await context.storage.get_one("config/client")).data is None:
            raise NotFound("nothing was configured")
        return Reply(settings.show(CLIENT, await _load(context, "client", CLIENT)) | {"access_key": ""})

    async def delete_client(self, context: Context, _call: Call) -> None:
        item = await context.storage.get_one("config/client")
        if item.data is not None:
            await context.storage.change((), [("config/client", item.revision)])

    async def write_identity(self, context: Context, call: Call) -> None:
        before = await context.storage.get_one("config/identity")
        config = await _load(context, "identity", IDENTITY)
        for each in IDENTITY:
            if call.data.get(each.name) not in (None, ""):
                config[each.name] = each.parse(call.data[each.name], each.name)
        await context.storage.change([("config/identity", json.dumps(config).encode(), before.revision)])

    async def read_identity(self, context: Context, _call: Call) -> Reply:
        return Reply(settings.show(IDENTITY, await _load(context, "identity", IDENTITY)))


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question as it was signed."""

    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


def _read(config: Mapping[str, Any], data: Mapping[str, Any]) -> _Asked:
    """The question, if it is one to AWS, for nothing but who asks, and meant for us. Raises ``InvalidRequest``."""
    if data.get("iam_http_request_method") != "POST":
        raise InvalidRequest("iam_http_request_method must be POST", "sign a POST of GetCallerIdentity")
    body = _base64(data, "iam_request_body")
    pairs = sorted(parse_qsl(body.decode("latin-1"), keep_blank_values=True))
    if pairs != [("Action", "GetCallerIdentity"), ("Version", "2011-06-15")]:
        raise InvalidRequest("iam_request_body asks for something else", "sign Action=GetCallerIdentity")
    headers = _headers(data)
    signature = _AUTHORIZATION.fullmatch(headers["authorization"])
    if signature is None:
        raise InvalidRequest("Authorization in iam_request_headers is no signature for STS", "sign it with version 4")
    region, covered = signature[1], signature[2].split(";")
    url = _base64(data, "iam_request_url").decode("latin-1")
    place = parse_https(url, plain=config.get("allow", ()))
    endpoint = parse_https(_endpoint(config, region), plain=config.get("allow", ()))
    if (place.scheme, place.host, place.port) != (endpoint.scheme, endpoint.host, endpoint.port):
        raise InvalidRequest("iam_request_url is not the endpoint of AWS that this mount asks", f"use {endpoint.host}")
    if place.target != "/" or headers.get("host", place.host).partition(":")[0] != place.host:
        raise InvalidRequest("iam_request_url has a path or another host", "sign a request to /")
    wanted = config["iam_server_id_header_value"]
    named = _SERVER_ID in covered and hmac.compare_digest(headers.get(_SERVER_ID, "").encode(), wanted.encode())
    if wanted and not named:
        raise InvalidRequest("missing or wrong header X-Vault-AWS-IAM-Server-ID", "sign the request with it")
    also = {each.lower() for each in config["allowed_sts_header_values"]}
    if unknown := headers.keys() - _SENT_ON - _OURS - also:
        raise InvalidRequest(f"a header cannot be sent on: {', '.join(sorted(unknown))[:200]}", "sign without it")
    sent = [(name, value) for name, value in headers.items() if name not in _OURS and name != "accept"]
    return _Asked(url, (*sent, ("Accept", "application/json")), body)


def _endpoint(config: Mapping[str, Any], signed_for: str) -> str:
    if config["sts_endpoint"]:
        return str(config["sts_endpoint"])
    region = config["sts_region"]
    if config["use_sts_region_from_client"]:
        region = signed_for if _REGION.fullmatch(signed_for) else region
    return f"https://sts.{region}.amazonaws.com" if region else DEFAULT_ENDPOINT


def _headers(data: Mapping[str, Any]) -> dict[str, str]:
    """Headers as an object of texts or lists, or that object in base64."""
    given = data.get("iam_request_headers")
    if isinstance(given, str):
        raw = given.encode() if given.lstrip().startswith("{") else _base64(data, "iam_request_headers")
        given = parse_json(raw, _BOUNDS)
    found: dict[str, str] = {}
    for name, value in given.items() if isinstance(given, dict) else ():
        values = value if isinstance(value, list) else [value]
        if len(values) != 1 or not isinstance(values[0], str | int) or name.lower() in found:
            raise InvalidRequest("iam_request_headers has a header that is not one text", "send each once")
        found[name.lower()] = str(values[0])
    if "authorization" not in found:
        raise InvalidRequest("missing Authorization in iam_request_headers", "sign the request")
    return found


def _base64(data: Mapping[str, Any], name: str) -> bytes:
    value = data.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST:
        raise InvalidRequest(f"missing {name}", f"{name} is base64")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"failed to base64 decode {name}") from None


async def _ask(context: Context, config: Mapping[str, Any], asked: _Asked) -> Principal:
    """Whom AWS names. Raises ``PolicyDenied`` where it names nobody."""
    heard = await context.net.ask(
        "POST", asked.url, headers=asked.headers, body=asked.body, allow=config.get("allow", ())
    )
    if heard.status != 200:
        raise PolicyDenied("permission denied", f"AWS answered with the status {heard.status}: sign it anew")
    arn, account, user = _answer(heard.body)
    match = _ARN.fullmatch(arn)
    if match is None or match[3] != account:
        raise _denied()
    canonical = arn
    if match[4] == "assumed-role":
        canonical = f"arn:{match[1]}:iam::{account}:role/{match[5].partition('/')[0]}"
    return Principal(arn, canonical, account, user.partition(":")[0])


def _answer(body: bytes) -> tuple[str, str, str]:
    """ARN, account and user id, from JSON or from XML, in which each stands once and has no mark-up."""
    if body.lstrip().startswith(b"{"):
        found: Any = parse_object(body, _BOUNDS)
        for name in ("GetCallerIdentityResponse", "GetCallerIdentityResult"):
            found = found.get(name) if isinstance(found, dict) else None
        values = [found.get(name) if isinstance(found, dict) else None for name in ("Arn", "Account", "UserId")]
    else:
        said = body.decode("utf-8", "replace")
        all_of = [re.findall(rf"<{name}>([^<>&]*)</{name}>", said) for name in ("Arn", "Account", "UserId")]
        values = [each[0] if len(each) == 1 else None for each in all_of]
    if not all(isinstance(each, str) and each for each in values):
        raise _denied()
    return str(values[0]), str(values[1]), str(values[2])


def _fits(role: Mapping[str, Any], who: Principal, remote: str) -> bool:
    if role["token_bound_cidrs"] and not within(remote, role["token_bound_cidrs"]):
        return False
    if role["bound_account_id"] and who.account not in role["bound_account_id"]:
        return False
    bounds = role["bound_iam_principal_arn"]
    return not bounds or any(_is_bound(each, who) for each in bounds)


def _is_bound(bound: str, who: Principal) -> bool:
    if bound.endswith("*"):
        return who.arn.startswith(bound[:-1]) or who.canonical.startswith(bound[:-1])
    if ":role/" in bound:  # the path of a role is not in the name of whoever assumed it
        first, _, rest = bound.partition(":role/")
        bound = f"{first}:role/{rest.rpartition('/')[2]}"
    return bound in (who.arn, who.canonical)


def _login(role: Mapping[str, Any], who: Principal, identity: Mapping[str, Any]) -> Login:
    known = {
        "account_id": who.account,
        "auth_type": "iam",
        "canonical_arn": who.canonical,
        "client_arn": who.arn,
        "client_user_id": who.unique_id,
    }
    alias = {
        "role_id": role["role_id"],
        "unique_id": who.unique_id,
        "canonical_arn": who.canonical,
        "full_arn": who.arn,
    }[identity["iam_alias"]]
    kept = {name: known[name] for name in identity["iam_metadata"] if name in known}
    name = entity_name("aws", f"{who.account}.{who.canonical.rpartition('/')[2]}")
    return settings.login_of(name, role, {**known, "role_id": role["role_id"]}, alias=alias, alias_meta=kept)


def _denied() -> PolicyDenied:
    return PolicyDenied("permission denied", "the role is not for whoever signed the request")


async def _load(context: Context, name: str, known: tuple[Setting, ...]) -> dict[str, Any]:
    item = await context.storage.get_one(f"config/{name}")
    stored = json.loads(item.data) if item.data is not None else {}
    return {each.name: each.default for each in known} | stored


def make(guesses: Guesses) -> Engine:
    """The method, for one mount."""
    r = _Method(guesses)
    read, write, delete = Operation.READ, Operation.CREATE, Operation.DELETE
    return Engine(
        "aws",
        (
            Route(
                "login",
                {write: r.login},
                open=True,
                fields=(
                    Field("role", "which role; the name of the user or role of AWS unless said"),
                    Field("iam_http_request_method", "POST"),
                    Field("iam_request_url", "base64 of the URL that was signed for"),
                    Field("iam_request_body", "base64 of the body"),
                    Field("iam_request_headers", "the headers as an object, or that in base64"),
                ),
                help="A token for a signed question who it is that asks.",
            ),
            Route(
                "config/client",
                {read: r.read_client, write: r.write_client, delete: r.delete_client},
                fields=settings.fields(CLIENT),
                help="How AWS is asked.",
            ),
            Route(
                "config/identity",
                {read: r.read_identity, write: r.write_identity},
                fields=settings.fields(IDENTITY),
                help="What names an entity.",
            ),
            Route("roles", {Operation.LIST: ROLES.list_all}, help="Names of the roles."),
            *ROLES.routes(),
        ),
    )
