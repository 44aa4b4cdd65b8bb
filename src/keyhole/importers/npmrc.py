"""npm's configuration: ``//host/path/:_authToken=…``, ``_auth``, and ``username`` with ``_password``.

``_auth`` and ``_password`` are base64. ``${NAME}`` is filled in by npm from the environment and skipped here.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field

from keyhole.core.path import DEFAULT_FIELD
from keyhole.core.value import Secret
from keyhole.importers.collect import Collector, segment
from keyhole.importers.found import BASE64, PLAIN, Binding, Found, Origin, Report, Spot
from keyhole.importers.ini import Setting, settings
from keyhole.importers.text import decoded, scan

TITLE = "npm configuration"
PLACES = ("./.npmrc", "~/.npmrc", "$NPM_CONFIG_USERCONFIG")

_KEY = re.compile(
    r"(?://([^/\s]+)(/.*?)?/?:)?(_authToken|_auth|_password|username|tokenHelper|cert|key|certfile|keyfile)"
)
_FOLDERS = 6  # of a registry's path in the name of its secret, whose length has a limit
_DEFAULT_REGISTRY = ("registry", "npmjs", "org")  # labels, as the catalog writes some hosts
_REGISTRY = re.compile(r"(https?)://([^/\s]+)")
_ELSEWHERE = {
    "tokenHelper": "comes from a program",
    "certfile": "is a file of its own",
    "keyfile": "is a file of its own",
    "cert": "is a certificate in the file, which npm uses itself",
    "key": "is a private key in the file, which npm uses itself",
}


@dataclass(slots=True)
class _Registry:
    host: str
    path: str
    user: str = ""
    settings: dict[str, Setting] = field(default_factory=dict)


def parse(content: bytes, origin: Origin) -> Report:
    """See the contract of the shelf."""
    found = Collector(origin)
    scheme: dict[str, str] = {}
    default = ".".join(_DEFAULT_REGISTRY)
    registries: dict[tuple[str, str], _Registry] = {}
    for setting in settings(scan(content), colons=False):
        address = _REGISTRY.match(_unquoted(setting)[0])
        if address and (setting.name == "registry" or setting.name.endswith(":registry")):
            scheme[address[2].lower()] = address[1]
            default = address[2].lower() if setting.name == "registry" else default
            continue
        key = _KEY.fullmatch(setting.name)
        if key is None:
            continue
        at = ((key[1] or "").lower(), key[2] or "")
        registry = registries.setdefault(at, _Registry(*at))
        if key[3] in registry.settings:
            found.skip(setting.name, registry.settings[key[3]].where, f"is given again in {setting.where}")
        registry.settings[key[3]] = setting
    for registry in registries.values():
        registry.host = registry.host or default
        _take(registry, scheme.get(registry.host, "https"), found)
    return found.report()


def _take(registry: _Registry, scheme: str, found: Collector) -> None:
    user = registry.settings.get("username")
    registry.user = decoded(_unquoted(user)[0]) or "" if user else ""
    for key, setting in registry.settings.items():
        if key in _ELSEWHERE:
            found.skip(setting.name, setting.where, _ELSEWHERE[key])
        elif key != "username":
            _credential(registry, key, setting, scheme, found)


def _credential(registry: _Registry, key: str, setting: Setting, scheme: str, found: Collector) -> None:
    raw, start = _unquoted(setting)
    if found.refused(setting.name, decoded(raw), setting.where):
        return
    text = decoded(raw) or ""
    form, before, fields = PLAIN, "", {DEFAULT_FIELD: text}
    if key == "_auth":
        user, colon, password = _from_base64(text).partition(":")
        if not colon or not password:
            found.skip(setting.name, setting.where, "is not base64 of a name and a password")
            return
        form, before, fields = BASE64, f"{user}:", {"username": user, "password": password}
    elif key == "_password":
        password = _from_base64(text)
        if not password or not registry.user:
            why = "is not base64 of a text" if not password else "has no username beside it"
            found.skip(setting.name, setting.where, why)
            return
        form, fields = BASE64, {"username": registry.user, "password": password}
    if form == BASE64 and found.refused(setting.name, fields["password"], setting.where, references=False):
        return
    place = "password" if form == BASE64 else DEFAULT_FIELD
    inject = {"kind": "basic"} if form == BASE64 else {"kind": "bearer"}
    found.add(
        Found(
            name="/".join(["npm", *map(segment, filter(None, (registry.host, *registry.path.split("/")[:_FOLDERS])))]),
            fields={name: Secret(value) for name, value in fields.items()},
            where=setting.where,
            kind="password" if form == BASE64 else "api-key",
            binding=Binding(registry.host, inject, scheme),
            spots=(Spot(start, start + len(raw), place, form, before),),
        )
    )


def _unquoted(setting: Setting) -> tuple[str, int]:
    """The value without quotes around it, and where it begins. Without quotes, ``;`` and ``#`` end it."""
    raw = setting.raw
    if len(raw) >= 2 and raw[0] == raw[-1] and raw[0] in "\"'":
        return raw[1:-1], setting.start + 1
    return re.split("[;#]", raw, maxsplit=1)[0].rstrip(), setting.start


def _from_base64(text: str) -> str:
    """What a text in base64 says; empty where it is none."""
    try:
        return base64.b64decode(text.encode() + b"=" * (-len(text) % 4), validate=True).decode()
    except (binascii.Error, UnicodeError, ValueError):
        return ""
