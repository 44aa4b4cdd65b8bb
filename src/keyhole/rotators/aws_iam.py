"""Access keys of an IAM user of AWS: the fields ``access_key_id`` and ``secret_access_key``.

A user has two keys at most, so it may have one when a rotation begins. IAM needs some seconds until a new key works
everywhere, for which ``verify`` asks STS who it is. An old key is made inactive and then deleted. Without ``admin`` the
user replaces its own key, for which its policy has to allow ``iam:ListAccessKeys``, ``CreateAccessKey``,
``UpdateAccessKey`` and ``DeleteAccessKey`` on itself.

The actions are those of the IAM API Reference, 2010-05-08.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from keyhole.core.errors import InvalidRequest
from keyhole.core.fields import parse_text, parse_texts
from keyhole.core.path import parse_secret_ref
from keyhole.core.value import Secret
from keyhole.crypto.sigv4 import authorization_of_post
from keyhole.net.ask import Heard, parse_https
from keyhole.rotators import Needs, NotYet, Settings, Value, World, failed, field_of

_ID, _KEY = "access_key_id", "secret_access_key"
_IAM, _STS = "https://iam.amazonaws.com", "https://sts.amazonaws.com"
_REGION = "us-east-1"  # of both global endpoints
_USER = re.compile(r"[\w+=,.@-]{1,64}")
_CODE = re.compile(rb"<Code>([A-Za-z]{1,64})</Code>")
_UNKNOWN = frozenset({"InvalidClientTokenId", "SignatureDoesNotMatch", "AccessDenied"})  # until IAM has told everybody


def read(data: Mapping[str, Any]) -> dict[str, Any]:
    """``user``, ``admin`` (a secret with keys that may manage it), ``region``, endpoints, ``allow_addresses``."""
    user = parse_text(data.get("user"), "user", most=64)
    if user and not _USER.fullmatch(user):
        raise InvalidRequest("this is not the name of an IAM user", "letters, digits and +=,.@_-")
    admin = parse_text(data.get("admin"), "admin", most=512)
    if admin:
        path, _ = parse_secret_ref(admin)
        if path.startswith("/"):
            raise InvalidRequest("admin names a secret with fields", "for example aws/admin")
        admin = path
        if not user:
            raise InvalidRequest("admin needs to know whose keys it replaces", "send user")
    allow = parse_texts(data.get("allow_addresses"), "allow_addresses", most=64)
    found: dict[str, Any] = {"user": user, "admin": admin, "allow_addresses": allow}
    found["region"] = parse_text(data.get("region"), "region", most=32) or _REGION
    for name, usual in (("endpoint", _IAM), ("sts_endpoint", _STS)):
        found[name] = parse_text(data.get(name), name, most=512) or usual
        parse_https(found[name], plain=allow)
    return found


def needs(settings: Settings) -> Needs:
    """The keys of the administrator, and ``sudo`` for private addresses and other endpoints."""
    admin = settings["admin"]
    sudo = ""
    if settings["allow_addresses"] or (settings["endpoint"], settings["sts_endpoint"]) != (_IAM, _STS):
        sudo = "sending keys to an endpoint of one's own"
    return Needs(secrets=(f"{admin}#{_ID}", f"{admin}#{_KEY}") if admin else (), sudo=sudo)


async def prepare(world: World, old: Value) -> dict[str, Any]:
    """The ids of the keys that the user has."""
    ids = await _ids(world, old)
    if len(ids) > 1:
        raise failed("the user has two access keys already, and AWS allows no third: delete the one that is not used")
    return {"ids": ids}


async def create(world: World, old: Value) -> Value:
    """One key more."""
    answer = await _iam(world, old, "CreateAccessKey")
    if answer.status != 200:
        raise _refused("no key could be made", answer)
    found = {name: _element(answer.body, tag) for name, tag in ((_ID, "AccessKeyId"), (_KEY, "SecretAccessKey"))}
    if not all(found.values()):
        raise failed("the answer of AWS has no key")
    return Value({name: Secret(text) for name, text in found.items()}, {"id": found[_ID]})


async def verify(world: World, new: Value) -> None:
    """Ask STS who it is."""
    answer = await _signed(world, new, world.settings["sts_endpoint"], "sts", {"Action": "GetCallerIdentity"})
    if answer.status == 200:
        return
    if _code(answer) in _UNKNOWN or answer.status >= 500:
        raise NotYet("AWS does not know the new key yet")
    raise _refused("the new key does not work", answer)


async def revoke(world: World, value: Value, by: Value) -> None:
    """Make it inactive, then delete it."""
    key = value.handle.get("id") or field_of(value, _ID).reveal().decode()
    for action, more in (("UpdateAccessKey", {"Status": "Inactive"}), ("DeleteAccessKey", {})):
        answer = await _iam(world, by, action, AccessKeyId=key, **more)
        if answer.status != 200 and _code(answer) != "NoSuchEntity":
            raise _refused("the key could not be deleted", answer)


async def abandon(world: World, old: Value) -> bool:
    """Delete the key that is there now and was not before."""
    for key in set(await _ids(world, old)) - set(world.note.get("ids", ())):
        await revoke(world, Value({}, {"id": key}), old)
    return True


async def _ids(world: World, by: Value) -> list[str]:
    answer = await _iam(world, by, "ListAccessKeys")
    if answer.status != 200:
        raise _refused("the user's keys cannot be listed", answer)
    return re.findall(r"<AccessKeyId>\s*([A-Z0-9]{16,128})\s*</AccessKeyId>", answer.body.decode("utf-8", "replace"))


async def _iam(world: World, by: Value, action: str, **more: str) -> Heard:
    settings = world.settings
    if settings["admin"]:
        by = Value({name: await world.secret(f"{settings['admin']}#{name}") for name in (_ID, _KEY)})
    asked = {"Action": action, "Version": "2010-05-08", **more}
    if settings["user"]:
        asked["UserName"] = settings["user"]
    return await _signed(world, by, settings["endpoint"], "iam", asked)


async def _signed(world: World, by: Value, url: str, service: str, asked: Mapping[str, str]) -> Heard:
    """One signed POST of a form."""
    allow = world.settings["allow_addresses"]
    place = parse_https(url, plain=allow)
    body = urlencode({"Version": "2011-06-15", **asked}).encode()
    key_id, secret = (field_of(by, name).reveal().strip() for name in (_ID, _KEY))
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(world.now))
    headers = {"content-type": "application/x-www-form-urlencoded; charset=utf-8", "x-amz-date": moment}
    headers["authorization"] = authorization_of_post(
        {**headers, "host": place.header},
        place.target,
        body,
        key_id=key_id.decode("ascii", "replace"),
        secret=secret,
        region=world.settings["region"],
        service=service,
    )
    return await world.net.ask("POST", url, headers=tuple(headers.items()), body=body, allow=allow)


def _element(body: bytes, tag: str) -> str:
    found = re.search(rf"<{tag}>\s*([A-Za-z0-9+/=]{{8,256}})\s*</{tag}>", body.decode("utf-8", "replace"))
    return found[1] if found else ""


def _code(answer: Heard) -> str:
    found = _CODE.search(answer.body)
    return found[1].decode() if found else ""


def _refused(what: str, answer: Heard) -> Exception:
    return failed(f"{what}: AWS answers {_code(answer) or answer.status}")
