"""What a text looks like: the words of a name, an example that stands for a value, what no person types. Pure."""

from __future__ import annotations

import math
import re

# What a secret is called, word by word of a name.
_CALLED = """
    KEY APIKEY TOKEN SECRET SECRETS PASSWORD PASSWD PASS PASSPHRASE PWD CREDENTIAL CREDENTIALS CREDS AUTH
    AUTHORIZATION PAT DSN BEARER JWT COOKIE SIGNATURE PRIVATE
"""
# What stands at the end of the name of something about a secret.
_ABOUT_ONE = """
    ID IDS SID NAME FILE PATH DIR URL URI HOST PORT USER USERNAME EMAIL EXPIRY EXPIRES TTL REGION TYPE ALGORITHM ALG
    LENGTH SIZE ENABLED DISABLED HEADER PREFIX LIMIT TIMEOUT ROUNDS COUNT ENV MODE SOCK VERSION METHOD
"""
SECRET_WORDS = frozenset(_CALLED.split())
ABOUT_WORDS = frozenset(_ABOUT_ONE.split())
PUBLIC_WORDS = frozenset({"PUBLIC", "PUBLISHABLE", "PUBKEY"})
_EXAMPLE = re.compile(
    r"(?i)(?:x{3,}|\*+|\.{2,}|…+|<.*>|\[.*\]|change[-_ ]?(?:me|it|this).*|(?:your|my|insert|enter|put|replace)[-_ ].*|"
    r"to[-_ ]?do|tbd|example.*|dummy.*|sample.*|placeholder|secret|password|passwd|foo|bar|test|.*[-_]here)"
)
_UUID = re.compile(r"(?i)[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_VISIBLE = re.compile(r"[!-~]{20,}")
_TABLE = 256
_N_LOG_N = (0.0, *(n * math.log2(n) for n in range(1, _TABLE)))
RANDOM_BITS = 3.6
"""Bits a character above which a long text is drawn, not written: English prose and dotted names have less (Shannon,
Prediction and Entropy of Printed English, 1951)."""


def words(name: str) -> list[str]:
    """The words of ``API_KEY``, ``api-key`` and ``apiKey``, in upper case."""
    return [word.upper() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name)]


def is_example(value: str) -> bool:
    """Does the value look as if it stood for another?"""
    return bool(_EXAMPLE.fullmatch(value.strip()))


def entropy(value: str | bytes) -> float:
    """Bits a character, by how often each stands in the value."""
    size = len(value)
    if not size:
        return 0.0
    counts = [value.count(each) for each in set(value)]  # type: ignore[arg-type]  # of its own kind
    return math.log2(size) - sum([_N_LOG_N[n] if n < _TABLE else n * math.log2(n) for n in counts]) / size


def is_uuid(value: str) -> bool:
    """Is it a UUID (RFC 9562), which names something more often than it opens something?"""
    return bool(_UUID.fullmatch(value))


def is_random(value: str) -> bool:
    """Long, without spaces, of letters and digits in no order: what nobody types."""
    if not _VISIBLE.fullmatch(value) or is_uuid(value) or "://" in value or value.count(".") > 2:
        return False
    if not re.search("[0-9]", value) or not re.search("[A-Za-z]", value):
        return False
    return entropy(value) >= RANDOM_BITS
