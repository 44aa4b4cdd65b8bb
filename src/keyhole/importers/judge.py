"""Is it a secret? Judged by names and shapes, to propose by: who insists on a name gets it taken whatever this says."""

from __future__ import annotations

import re
from dataclasses import dataclass

from keyhole.core.looks import ABOUT_WORDS, PUBLIC_WORDS, SECRET_WORDS, is_example, is_random, words

_PLAIN_VALUES = frozenset({"true", "false", "yes", "no", "on", "off", "null", "none", "undefined", "nil"})
_URL = re.compile(r"(?i)([a-z][a-z0-9+.-]*)://([^\s/?#]*)(.*)", re.DOTALL)
_PRIVATE_KEY = re.compile(r"-----BEGIN ([A-Z0-9 ]*)PRIVATE KEY-----")
_PATH = re.compile(r"(?:~|\.{1,2})?/|[A-Za-z]:\\")
_SHORT = 6
EXAMPLE = "looks like an example"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a value seems to be.

    Attributes:
        kind: type of the secret.
        doubt: why it is probably none; empty where it is one.
        stays: why a placeholder cannot stand in its place.
    """

    kind: str = "api-key"
    doubt: str = ""
    stays: str = ""


def judge(name: str, value: str) -> Judgement:
    """What the content of a variable seems to be, by its name and shape."""
    private = _PRIVATE_KEY.search(value)
    if private:
        kind = "ssh-key" if "OPENSSH" in private[1] else "certificate"
        return Judgement(kind, stays="a program signs with it itself")
    url = _URL.fullmatch(value)
    if url:
        return _of_url(name, url)
    doubt = example(value) or _by_name(name, value)
    kind = "password" if {"PASSWORD", "PASSWD", "PWD", "PASS"} & set(words(name)) else "api-key"
    return Judgement(kind, doubt)


def example(value: str) -> str:
    """Why the value looks as if it stood for another; empty where it does not."""
    return EXAMPLE if is_example(value) else ""


def _of_url(name: str, url: re.Match[str]) -> Judgement:
    userinfo, at, _ = url[2].rpartition("@")
    if not at or ":" not in userinfo or userinfo.endswith(":"):
        secret_name = bool({"WEBHOOK", "DSN"} & set(words(name))) and url[3].strip("/")
        return Judgement("connection-string", "" if secret_name else "is an address without a password", _IN_URL)
    return Judgement("connection-string", stays=_IN_URL)


_IN_URL = "it is an address, and programs read the password out of it themselves"


def _by_name(name: str, value: str) -> str:
    parts = words(name)
    if PUBLIC_WORDS & set(parts):
        return "is public, by its name"
    called = bool(SECRET_WORDS & set(parts)) or name.upper().endswith(("PASSWORD", "TOKEN", "SECRET", "APIKEY"))
    number = re.fullmatch(r"[-+]?[0-9.,:_]+[a-zA-Z%]{0,2}", value) and not (called and len(value) >= _SHORT)
    if value.lower() in _PLAIN_VALUES or number:
        return "is a number or a switch"
    if _PATH.match(value):
        return "is a path"
    if parts and parts[-1] in ABOUT_WORDS:
        return "is a setting, by its name"
    if called:
        return f"is shorter than {_SHORT} characters" if len(value) < _SHORT else ""
    return "" if is_random(value) else "is a setting, by its name and shape"
