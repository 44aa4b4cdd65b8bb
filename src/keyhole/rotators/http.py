"""Any API that makes keys: a recipe of requests, sent through the guard.

::

    {"secrets": {"admin": "acme/admin#token"},
     "create": {"method": "POST", "url": "https://api.acme.example/keys",
                "headers": {"Authorization": "Bearer {{secrets.admin}}"}, "json": {"name": "keyhole-{{attempt}}"},
                "fields": {"value": "$.secret"}, "handle": {"id": "$.id"}},
     "verify": {"url": "https://api.acme.example/me", "headers": {"Authorization": "Bearer {{new.value}}"}},
     "revoke": {"method": "DELETE", "url": "https://api.acme.example/keys/{{handle.id}}",
                "headers": {"Authorization": "Bearer {{secrets.admin}}"}, "gone": [404]},
     "abandon": {…}}

A template has ``{{attempt}}``, ``{{secrets.NAME}}``, and fields of ``old`` (in ``create`` and ``abandon``), ``new`` (in
``verify``), ``value``, ``by`` and ``handle`` (in ``revoke``). In a URL what is put in is percent-encoded, and the host
has no template, so that no value chooses where it goes. A path like ``$.data.keys[0].secret`` picks a text out of an
answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from keyhole.core.errors import InvalidRequest
from keyhole.core.fields import parse_map, parse_text, parse_texts
from keyhole.core.numbers import parse_count
from keyhole.core.path import parse_field, parse_name, parse_secret_ref
from keyhole.core.value import Secret
from keyhole.net.ask import Heard, parse_https
from keyhole.rotators import Nameless, Needs, NotYet, Settings, Value, World, failed

_STEPS = {
    "create": ("old",),
    "verify": ("new",),
    "revoke": ("value", "by", "handle"),
    "abandon": ("old",),
}
_REQUEST = frozenset({"method", "url", "headers", "json", "form", "status", "gone", "later", "fields", "handle"})
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_PART = re.compile(r"\{\{\s*(attempt|(?:secrets|old|new|value|by|handle)\.[^{}\s]{1,255})\s*\}\}")
_PATH = re.compile(r"\$(?:\.[A-Za-z_][A-Za-z0-9_-]*|\[\d{1,4}\])+")
_PIECE = re.compile(r"\.([A-Za-z_][A-Za-z0-9_-]*)|\[(\d{1,4})\]")
_LATER = [401, 403, 404, 429, 500, 502, 503, 504]  # what a source says that does not know a new value everywhere yet
_LONGEST = 4096
_DEEPEST = 16

Fill = Callable[[str], Awaitable[str]]


def read(data: Mapping[str, Any]) -> dict[str, Any]:
    """``secrets``, the requests by step, and ``allow_addresses``."""
    unknown = data.keys() - _STEPS.keys() - {"secrets", "allow_addresses", "ca_pem"}
    if unknown:
        raise InvalidRequest(f"unknown setting {min(unknown)[:40]!r}", f"known: secrets, {', '.join(_STEPS)}")
    allow = parse_texts(data.get("allow_addresses"), "allow_addresses", most=64)
    secrets = {parse_name(name): _reference(text) for name, text in parse_map(data.get("secrets"), "secrets").items()}
    found: dict[str, Any] = {"secrets": secrets, "allow_addresses": allow}
    found["ca_pem"] = parse_text(data.get("ca_pem"), "ca_pem")
    for step in _STEPS:
        if data.get(step) is not None:
            found[step] = _request(step, data[step], secrets, allow)
        elif step != "abandon":
            raise InvalidRequest(f"the recipe has no request for the step {step}", f'send {{"{step}": {{"url": …}}}}')
    if not found["create"]["fields"]:
        raise InvalidRequest("create does not say where the new value is", '{"fields": {"value": "$.secret"}}')
    return found


def needs(settings: Settings) -> Needs:
    """The secrets that it names, and ``sudo`` for private addresses."""
    sudo = "naming addresses that the guard refuses" if settings["allow_addresses"] else ""
    return Needs(secrets=tuple(settings["secrets"].values()), sudo=sudo)


async def prepare(_world: World, _old: Value) -> dict[str, Any]:
    """Nothing: what an attempt made is known by its ``{{attempt}}``."""
    return {}


async def create(world: World, old: Value) -> Value:
    """Send it, and pick the new value out of the answer."""
    request = world.settings["create"]
    answer = await _send(world, "create", {"old": old})
    try:
        data = json.loads(answer.body)
    except (ValueError, RecursionError):
        raise failed("the answer to create is not JSON") from None
    fields = {name: Secret(_pick(data, path)) for name, path in request["fields"].items()}
    return Value(fields, {name: _pick(data, path) for name, path in request["handle"].items()})


async def verify(world: World, new: Value) -> None:
    """Send it; an answer that may mean "not yet" is asked for again."""
    await _send(world, "verify", {"new": new})


async def revoke(world: World, value: Value, by: Value) -> None:
    """Send it. What the recipe counts as gone is done."""
    await _send(world, "revoke", {"value": value, "by": by, "handle": value})


async def abandon(world: World, old: Value) -> bool:
    """Send it, if the recipe has it."""
    if "abandon" not in world.settings:
        return False
    await _send(world, "abandon", {"old": old})
    return True


def _reference(text: str) -> str:
    path, field = parse_secret_ref(text)
    if path.startswith("/"):
        raise InvalidRequest("a recipe names secrets of secret/", "name one such as acme/admin#token")
    return f"{path}#{field}"


def _request(step: str, data: Any, secrets: Mapping[str, str], allow: list[str]) -> dict[str, Any]:
    if not isinstance(data, Mapping) or data.keys() - _REQUEST:
        raise InvalidRequest(f"{step} is an object", f"with {', '.join(sorted(_REQUEST))}")
    method = str(data.get("method") or ("GET" if step == "verify" else "POST"))
    if method not in _METHODS:
        raise InvalidRequest(f"{step}: the method is none of {', '.join(_METHODS)}")
    if data.get("json") is not None and data.get("form") is not None:
        raise InvalidRequest(f"{step} has two bodies", "send json or form")
    url = parse_text(data.get("url"), f"{step}.url", most=_LONGEST)
    request: dict[str, Any] = {
        "method": method,
        "url": url,
        "headers": parse_map(data.get("headers"), f"{step}.headers", most=32),
        "json": data.get("json"),
        "form": parse_map(data.get("form"), f"{step}.form", most=64),
        "status": _statuses(data.get("status"), [200, 201, 202, 204]),
        "gone": _statuses(data.get("gone"), [404, 410] if step in {"revoke", "abandon"} else []),
        "later": _statuses(data.get("later"), _LATER if step == "verify" else []),
        "fields": {parse_field(name): _path(text) for name, text in parse_map(data.get("fields"), "fields").items()},
        "handle": {parse_name(name): _path(text) for name, text in parse_map(data.get("handle"), "handle").items()},
    }
    for text in _texts([request["url"], request["headers"], request["json"], request["form"]]):
        _check_template(step, text, secrets)
    one, other = (parse_https(_PART.sub(text, url), plain=allow) for text in "xy")
    if (one.host, one.port) != (other.host, other.port):
        raise InvalidRequest(f"{step}.url has a template in its host", "write the host as it is")
    return request


def _statuses(value: Any, usual: list[int]) -> list[int]:
    if value is None:
        return list(usual)
    items = value if isinstance(value, list) else [value]
    return [parse_count(item, "status", least=100, most=599) for item in items[:32]]


def _path(text: str) -> str:
    if not _PATH.fullmatch(text):
        raise InvalidRequest("this is not a path into an answer", "write like $.data.keys[0].secret")
    return text


def _texts(value: Any, depth: int = 0) -> list[str]:
    if depth > _DEEPEST:
        raise InvalidRequest(f"a body is nested deeper than {_DEEPEST} levels")
    if isinstance(value, str):
        return [value]
    items = [*value, *value.values()] if isinstance(value, Mapping) else value if isinstance(value, list) else []
    return [text for item in items for text in _texts(item, depth + 1)]


def _check_template(step: str, text: str, secrets: Mapping[str, str]) -> None:
    if "{{" in _PART.sub("", text):
        raise InvalidRequest(f"{step} has a template that is not known", "{{attempt}}, {{secrets.NAME}}, {{new.value}}")
    for part in _PART.findall(text):
        head, _, name = part.partition(".")
        if head == "secrets" and name not in secrets:
            raise InvalidRequest(f"{step} names the secret {name[:40]!r}, which the recipe does not list")
        if head not in {"attempt", "secrets", *_STEPS[step]}:
            raise InvalidRequest(f"{step} knows nothing of {head!r}", f"it has {', '.join(_STEPS[step])}")


def _filler(world: World, values: Mapping[str, Value]) -> Fill:
    async def fill(part: str) -> str:
        head, _, name = part.partition(".")
        if head == "attempt":
            return world.attempt
        if head == "secrets":
            return (await world.secret(world.settings["secrets"][name])).reveal().decode("utf-8", "replace")
        if head == "handle":
            if name not in values["handle"].handle:
                raise Nameless(f"nobody knows the {name} of this value at its source", "take it back there by hand")
            return values["handle"].handle[name]
        secret = values[head].fields.get(name)
        if secret is None:
            raise failed(f"the value has no field {name!r}")
        return secret.reveal().decode("utf-8", "replace")

    return fill


async def _filled(text: str, fill: Fill, encode: Callable[[str], str] = str) -> str:
    found, at = "", 0
    for match in _PART.finditer(text):
        found += text[at : match.start()] + encode(await fill(match[1]))
        at = match.end()
    return found + text[at:]


async def _body(value: Any, fill: Fill) -> Any:
    if isinstance(value, str):
        return await _filled(value, fill)
    if isinstance(value, Mapping):
        return {await _filled(str(name), fill): await _body(each, fill) for name, each in value.items()}
    return [await _body(each, fill) for each in value] if isinstance(value, list) else value


async def _send(world: World, step: str, values: Mapping[str, Value]) -> Heard:
    request, settings = world.settings[step], world.settings
    fill = _filler(world, values)
    url = await _filled(request["url"], fill, lambda text: quote(text, safe=""))
    headers = [(name, await _filled(text, fill)) for name, text in request["headers"].items()]
    known, body = {name.lower() for name, _ in headers}, b""
    if request["json"] is not None:
        body = json.dumps(await _body(request["json"], fill)).encode()
        headers += [] if "content-type" in known else [("Content-Type", "application/json")]
    elif request["form"]:
        body = urlencode(await _body(request["form"], fill)).encode()
        headers += [] if "content-type" in known else [("Content-Type", "application/x-www-form-urlencoded")]
    headers += [] if "accept" in known else [("Accept", "application/json")]
    method, ca_pem, allow = request["method"], settings["ca_pem"], settings["allow_addresses"]
    answer = await world.net.ask(method, url, headers=headers, body=body, ca_pem=ca_pem, allow=allow)
    if answer.status in request["status"] or answer.status in request["gone"]:
        return answer
    if answer.status in request["later"]:
        raise NotYet(f"the source answers {answer.status} to {step}")
    raise failed(f"the source answers {answer.status} to {step}")


def _pick(data: Any, path: str) -> str:
    for name, index in _PIECE.findall(path):
        try:
            data = data[name] if name else data[int(index)]
        except (KeyError, IndexError, TypeError):
            raise failed(f"the answer has nothing at {path}") from None
    if isinstance(data, bool) or not isinstance(data, str | int) or data == "":
        raise failed(f"what the answer has at {path} is no text")
    return str(data)
