"""Credentials known by what they are assigned to, and judged: ``password = "…"``, a header, ``curl -u``."""

from __future__ import annotations

import base64
import binascii
import functools
import re

from keyhole.core.looks import ABOUT_WORDS, PUBLIC_WORDS, entropy, is_example, is_uuid, words

from .shape import Shape

_NAME = re.compile(rb"[A-Za-z0-9_.-]{0,40}\Z")
_BEFORE = 40  # bytes of a name before the word in it
_NOT_SECRET = ABOUT_WORDS | PUBLIC_WORDS | {"CSRF", "XSRF", "AUTHENTICITY", "PAGE", "NEXT", "CONTINUATION", "SYNC"}
_PASSWORDS = {"PASSWORD", "PASSWD", "PASS", "PASSPHRASE", "PWD"}
_SEQUENCE = re.compile("0123-?4567|1234-?5678|2345-?6789|3456-?7890|abcdefgh")  # in an order that nobody draws
_SHORT, _LONG = 8, 16
_TYPED_BITS, _DRAWN_BITS = 2.6, 3.2
_SEAM = re.compile(r"[.:>/_-]+")
_CALL = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,60}[(\[]")
_NAMES = re.compile(r"[A-Za-z0-9_$.:>/-]+")
_SYMBOL = re.compile(r"[^A-Za-z0-9_.:/-]")
_DIGIT, _LETTER = re.compile(r"\d"), re.compile(r"[^\W\d_]")
_WORD = re.compile(r"[A-Za-z$]*[0-9]{0,2}")
_JOINED_WORDS = re.compile(r"(?:[A-Za-z$]*[0-9]{0,2}[.:>/_-]+)*+[A-Za-z$]*[0-9]{0,2}")
_NO_VALUE = re.compile(r"(?i)(?:https?:)?//|\./|/|~/|\\\\|\$|%|\{|\[|<|@|&|arn:|file:|env\b|os\.|process\.|!|\*|==|\(")
_COMMON = {
    *(
        "pass",
        "password",
        "passwd",
        "pwd",
        "secret",
        "changeme",
        "test",
        "user",
        "username",
        "admin",
        "root",
        "example",
    ),
    *(
        "postgres",
        "mysql",
        "token",
        "foo",
        "bar",
        "baz",
        "key",
        "xxx",
        "yyy",
        "mypassword",
        "guest",
        "hunter2",
        "letmein",
    ),
    *(
        "apikey",
        "default",
        "none",
        "null",
        "redacted",
        "hidden",
        "dummy",
        "passphrase",
        "userpass",
        "rabbitmq",
        "mongo",
    ),
}


@functools.lru_cache(maxsize=256)
def _judged(name: bytes) -> tuple[bool, bool, bool]:
    """Of a name: does it call a secret so, may a person have chosen that, and may a UUID be one?"""
    found = words(name.decode("latin-1"))
    if not found or found[-1] in ABOUT_WORDS or _NOT_SECRET & set(found) - ABOUT_WORDS:
        return False, False, False
    return True, bool(_PASSWORDS & set(found)), found[-1] in {"TOKEN", "SECRET", "KEY"}


def _before(match: re.Match[bytes]) -> bytes:
    """What of the name stands before the literal."""
    found = _NAME.search(match.string[max(match.start() - _BEFORE, 0) : match.start()])
    return found[0] if found else b""


def _is_assigned(match: re.Match[bytes]) -> bool:
    """Does the name call it a secret, and does the value look like one?"""
    before = _before(match)
    secret, typed, uuid = _judged(before + match["name"])
    if not secret:
        return False
    value = match["v"].decode("latin-1")
    if is_uuid(value):
        return uuid
    return is_secret(value, typed=typed, quoted=bool(match["quote"]) or _in_quotes(match, before))


def _in_quotes(match: re.Match[bytes], before: bytes) -> bool:
    """Of ``"Name: value"``, as headers stand in commands."""
    first = match.start() - len(before)
    opening, closing = match.string[max(first - 1, 0) : first], match.string[match.end() : match.end() + 1]
    return bool(opening) and opening in b"\"'`" and opening == closing


def is_secret(value: str, *, typed: bool, quoted: bool) -> bool:
    """Does the value look like a secret and not like code, a sentence, a path or an example?

    Args:
        value: without its quotes.
        typed: a person may have chosen it, so that it need not look drawn.
        quoted: it stood in quotes; what does not must look more like one, because code has no quotes either.
    """
    if len(value) < _SHORT or is_common(value) or _NO_VALUE.match(value) or _is_code(value):
        return False
    digits, letters = _DIGIT.search(value), _LETTER.search(value)
    if not (digits and letters) and not (typed and letters and _SYMBOL.search(value)):
        return False
    if typed:
        return entropy(value) >= _TYPED_BITS and (quoted or not re.search(r"[()\[\]{}]", value))
    if len(value) < (_LONG if not quoted else _SHORT + 2) or _dotted(value):
        return False
    return entropy(value) >= _DRAWN_BITS - (0.6 if len(value) < 2 * _SHORT + 4 else 0)


def _is_code(value: str) -> bool:
    """A word, or words joined as programs join them, none of which was drawn."""
    if _SEAM.search(value) is None:
        return value.isalpha() or bool(_CALL.match(value))
    if _CALL.match(value):
        return True
    if value[0].isdigit() or not _NAMES.fullmatch(value):
        return False
    if _JOINED_WORDS.fullmatch(value):
        return True
    return all(_WORD.fullmatch(part) or not _is_drawn(part) for part in _SEAM.split(value))


def _is_drawn(part: str) -> bool:
    return len(part) >= _SHORT - 2 and len(re.findall(r"[0-9]+", part)) > 1 and entropy(part) >= _TYPED_BITS - 0.4


def _dotted(value: str) -> bool:
    """A name with dots, dashes or colons in it, such as a host, a version, a file or a constant."""
    parts = re.split(r"[.\-:/_]", value)
    return len(parts) > 1 and max(map(len, parts)) < _SHORT + 4 and not re.search(r"[a-z][0-9][A-Za-z0-9]{4}", value)


def is_common(value: str) -> bool:
    """What stands in a manual: an example, one of the usual words, letters in their order."""
    lower = value.lower()
    if lower in _COMMON or is_example(value) or len(set(value)) <= 3:  # xxx, 0000, ----
        return True
    return bool(_SEQUENCE.search(lower))


def _is_image_variable(match: re.Match[bytes]) -> bool:
    """Of ``ENV NAME VALUE``, the older form in a Dockerfile: on a line of its own, and judged as an assignment is."""
    at = match.start()
    if match.string[match.string.rfind(b"\n", 0, at) + 1 : at].strip():
        return False
    secret, typed, uuid = _judged(match["name"])
    value = match["v"].decode("latin-1")
    return secret and (uuid if is_uuid(value) else is_secret(value, typed=typed, quoted=bool(match["quote"])))


def _is_basic(match: re.Match[bytes]) -> bool:
    """Name and password of RFC 7617."""
    try:
        told = base64.b64decode(match["v"] + b"=" * (-len(match["v"]) % 4))
    except (ValueError, binascii.Error):
        return False
    user, colon, password = told.decode("latin-1").partition(":")
    return bool(colon) and user.isprintable() and not is_common(password or user)


def _is_bearer(match: re.Match[bytes]) -> bool:
    value = match["v"].decode("latin-1")
    if is_uuid(value):
        return True
    return bool(_DIGIT.search(value) and _LETTER.search(value)) and not is_common(value) and value[:5] != "AWS4-"


def _is_curl(match: re.Match[bytes]) -> bool:
    """Of ``-u NAME:PASSWORD`` after ``curl``; some put a key in the place of the name and leave the password empty."""
    at = match.start()
    line = match.string[max(at - 400, match.string.rfind(b"\n", 0, at) + 1, 0) : at]
    if b"curl" not in line:
        return False
    value = match["v"].decode("latin-1").strip("{}")
    return len(value) >= _SHORT and not is_common(value) and not _is_code(value) and not _NO_VALUE.match(value)


# Words that make the name of what they stand in the name of a secret.
_WORDS = (
    *("password", "passwd", "passphrase", "_pass", "pwd", "secret", "token", "credential"),
    *(
        "apikey",
        "api_key",
        "api-key",
        "api.key",
        "accesskey",
        "access_key",
        "access-key",
        "authkey",
        "auth_key",
        "auth-key",
    ),
    *("privatekey", "private_key", "private-key", "secretkey", "encryptionkey", "encryption_key", "encryption-key"),
    *("signingkey", "signing_key", "signing-key", "masterkey", "master_key", "master-key", "accountkey", "account_key"),
    *("storagekey", "storage_key", "license_key", "licensekey", "service_key", "app_key", "appkey", "application_key"),
)
_AFTER = r"(?P<name>(?>[A-Za-z_-][A-Za-z0-9_.-]{2,40}))"
_SIGN = r"(?:\\?[\"'\]]{0,2}\s{0,12}(?::\s{0,2}[A-Za-z][\w.\[\]| ]{0,24}\s?=|:=|=>|==?|:)|>)\s{0,12}"

ASSIGNMENTS = (
    Shape(
        "assigned-secret",
        "secret in an assignment",
        _WORDS,
        _AFTER + _SIGN + r"[brufL]{0,2}\\?(?P<quote>[\"'`]?)(?P<v>[^\"'`\s,;&<>\\]{8,256})",
        (
            'password = "<m4>-<m8>!"',
            "DB_PASSWORD=<m12>",
            '"api_key": "<m32>"',
            "my-token: <m32>",
            "<clientSecret><m40></clientSecret>",
            "const authToken: string = '<m40>';",
            "--api-key=<m32>",
            "SECRET_KEY => '<m50>'",
            '{\\"password\\":\\"<m16>\\"}',
        ),
        (
            "password = get_password()",
            'password = "changeme"',
            "token = request.headers['token']",
            'password = os.environ["DB_PASSWORD"]',
            "secret: ${SECRET_FROM_ELSEWHERE}",
            'secret_name = "team/stripe-key-2"',
            'public_key = "<m43>"',
            "token_url = https://auth.example.net/oauth2/token1",
            'password: "keyhole_placeholder_<a16>"',
            "api_key: <your-api-key-0001>",
            "api_key = 'abcdefghijklmnop0123456789'",
            "COMMUNICATION_API_VERSION=rc0.13.0_20230412_0712-SNAPSHOT",
            "credentialsId: 'ff083f76-7804-4ef1-80e4-fe975bb9141b'",
            'next_page_token = "<m40>"',
        ),
        edge=False,
        bits=0,
        check=_is_assigned,
        generic=True,
    ),
    Shape(
        "assigned-secret",
        "secret in a variable of an image",
        ("env ",),
        r"(?i:env)[ \t]{1,8}(?P<name>(?>[A-Za-z_][A-Za-z0-9_]{2,60}))[ \t]{1,8}(?P<quote>[\"']?)"
        r"(?P<v>(?>[^\"'\s=\\]{8,256}))[\"']?[ \t]{0,8}\r?(?:\n|\Z)",
        ("ENV API_TOKEN <m32>", '    ENV DB_PASSWORD "<m4>-<m8>!"'),
        (
            "ENV API_TOKEN=",
            "ENV DB_PASSWORD is-asked-for",
            "ENV DB_PASSWORD $ARG_PASSWORD_1",
            "ENV PUBLIC_KEY <m32>",
            "run env API_TOKEN <m32>",
        ),
        edge=False,
        bits=0,
        check=_is_image_variable,
        generic=True,
    ),
    Shape(
        "basic-authorization",
        "name and password in a header",
        ("basic ",),
        r"(?i:basic) (?P<v>[A-Za-z0-9+/]{8,400}={0,2})",
        ("Authorization: Basic dXNlcjpkMkxrVjc4ekx4IXQ=",),
        ("Authorization: Basic dXNlcjpwYXNzd29yZA==", "basic understanding of things", "Basic ${AUTH}"),
        bits=2.5,
        check=_is_basic,
        generic=True,
    ),
    Shape(
        "authorization",
        "credential in a header",
        ("authorization",),
        r"(?i:authorization)[\"'\]]{0,2}\s{0,4}[:=,]\s{0,4}[\"'`]?(?:(?:Bearer|Token|Api-?Token|ApiKey|Key|Bot) {1,3})?"
        r"(?P<v>[A-Za-z0-9_~@.+/-][A-Za-z0-9_~@.+/=-]{15,2048})",
        (
            'curl -H "Authorization: Bearer <h32>"',
            '{"Authorization": "Token <h40>"}',
            "authorization: <h8>-<h4>-<h4>-<h4>-<h12>",
        ),
        (
            "Authorization: Bearer $(print-token)",
            "Authorization: Bearer XXXXXXXXXXXXXXXXXXXX",
            "authorization: requiresAuthenticationAlways",
        ),
        edge=False,
        check=_is_bearer,
        generic=True,
    ),
    Shape(
        "curl-user",
        "name and password for curl",
        (" -u", "--user"),
        r"(?: -u|--user)[ =]{0,3}(?>[\"']?[^\"'\s:]{0,80})[\"']?:[\"']?"
        r"(?P<v>(?>[^\"'\s]{8,100}))[\"']?(?:\s|\Z)",
        ('curl -u elastic:"<m12>" https://localhost:9200', "curl -s --user 'johns:<m6>~<m4>' https://x"),
        (
            "curl -u username:password https://x",
            'curl -u "$USER:$PASSWORD1" x',
            "sudo -u root:wheel-group-7 x",
            "curl -u neo4j:[PASSWORD] x",
        ),
        edge=False,
        bits=2.2,
        check=_is_curl,
        generic=True,
    ),
    Shape(
        "curl-user",
        "key in the place of a name for curl",
        (" -u", "--user"),
        r"(?: -u|--user)[ =]{0,3}[\"']?(?P<v>(?>[^\"'\s:]{8,100})):[\"']?(?:\s|\Z)",
        ('curl -u "<m4>78z<m4>:" https://localhost:9200',),
        ('curl -u "myusername:" https://x',),
        edge=False,
        bits=2.2,
        check=_is_curl,
        generic=True,
    ),
)
