"""Is it a secret? Judged by names and shapes, to propose by: who insists on a name gets it taken whatever this says."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass

# What a secret is called, word by word of a variable's name.
_CALLED = """
    KEY APIKEY TOKEN SECRET SECRETS PASSWORD PASSWD PASS PASSPHRASE PWD CREDENTIAL CREDENTIALS CREDS AUTH
    AUTHORIZATION PAT DSN BEARER JWT COOKIE SIGNATURE PRIVATE
"""
# What stands at the end of the name of something about a secret.
_ABOUT_ONE = """
    ID IDS SID NAME FILE PATH DIR URL URI HOST PORT USER USERNAME EMAIL EXPIRY EXPIRES TTL REGION TYPE ALGORITHM ALG
    LENGTH SIZE ENABLED DISABLED HEADER PREFIX LIMIT TIMEOUT ROUNDS COUNT ENV MODE SOCK VERSION METHOD
"""
_SECRET_WORDS = frozenset(_CALLED.split())
_ABOUT = frozenset(_ABOUT_ONE.split())
_PUBLIC = frozenset({"PUBLIC", "PUBLISHABLE", "PUBKEY"})
_PLAIN_VALUES = frozenset({"true", "false", "yes", "no", "on", "off", "null", "none", "undefined", "nil"})
_EXAMPLE = re.compile(
    r"(?i)(?:x{3,}|\*+|\.{2,}|…+|<.*>|\[.*\]|change[-_ ]?(?:me|it|this).*|(?:your|my|insert|enter|put|replace)[-_ ].*|"
    r"to[-_ ]?do|tbd|example.*|dummy.*|sample.*|placeholder|secret|password|passwd|foo|bar|test|.*[-_]here)"
)
_URL = re.compile(r"(?i)([a-z][a-z0-9+.-]*)://([^\s/?#]*)(.*)", re.DOTALL)
_PRIVATE_KEY = re.compile(r"-----BEGIN ([A-Z0-9 ]*)PRIVATE KEY-----")
_UUID = re.compile(r"(?i)[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_VISIBLE = re.compile(r"[!-~]{20,}")
_PATH = re.compile(r"(?:~|\.{1,2})?/|[A-Za-z]:\\")
_RANDOM_BITS = 3.6  # a character of English prose or of a dotted name has less (Shannon 1951)
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


def words(name: str) -> list[str]:
    """The words of ``API_KEY``, ``api-key`` and ``apiKey``, in upper case."""
    return [word.upper() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name)]


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
    return EXAMPLE if _EXAMPLE.fullmatch(value.strip()) else ""


def _of_url(name: str, url: re.Match[str]) -> Judgement:
    userinfo, at, _ = url[2].rpartition("@")
    if not at or ":" not in userinfo or userinfo.endswith(":"):
        secret_name = bool({"WEBHOOK", "DSN"} & set(words(name))) and url[3].strip("/")
        return Judgement("connection-string", "" if secret_name else "is an address without a password", _IN_URL)
    return Judgement("connection-string", stays=_IN_URL)


_IN_URL = "it is an address, and programs read the password out of it themselves"


def _by_name(name: str, value: str) -> str:
    parts = words(name)
    if _PUBLIC & set(parts):
        return "is public, by its name"
    called = bool(_SECRET_WORDS & set(parts)) or name.upper().endswith(("PASSWORD", "TOKEN", "SECRET", "APIKEY"))
    number = re.fullmatch(r"[-+]?[0-9.,:_]+[a-zA-Z%]{0,2}", value) and not (called and len(value) >= _SHORT)
    if value.lower() in _PLAIN_VALUES or number:
        return "is a number or a switch"
    if _PATH.match(value):
        return "is a path"
    if parts and parts[-1] in _ABOUT:
        return "is a setting, by its name"
    if called:
        return f"is shorter than {_SHORT} characters" if len(value) < _SHORT else ""
    return "" if _random(value) else "is a setting, by its name and shape"


def _random(value: str) -> bool:
    """Long, without spaces, of letters and digits in no order: what nobody types."""
    if not _VISIBLE.fullmatch(value) or _UUID.fullmatch(value) or "://" in value or value.count(".") > 2:
        return False
    if not re.search("[0-9]", value) or not re.search("[A-Za-z]", value):
        return False
    counts = Counter(value).values()
    return -sum(n / len(value) * math.log2(n / len(value)) for n in counts) >= _RANDOM_BITS
