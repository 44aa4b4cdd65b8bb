"""Looks for credentials in a document: in values, names, keys, defaults and comments, plain and encoded.

A workflow names tools and services; the broker attaches what they need. So nothing in a document has a reason to be a
credential, and what could be one is refused: a text in its shape, a text in a place that is called after one, a text
that nobody types, a reference to the environment or to another manager. A value is never repeated.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import html
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from keyhole.core.looks import ABOUT_WORDS, PUBLIC_WORDS, entropy, is_random, is_uuid, words
from keyhole.faces.workflow.problem import Problem
from keyhole.faces.workflow.reading import Node
from keyhole.faces.workflow.reference import Reference, marks
from keyhole.scrub import Scrubber
from keyhole.scrub.shapes import finder

_ENVIRONMENT = (
    re.compile(r"(?<![\w$\\])\$(?:[A-Z_][A-Z0-9_]{2,}|\([^)]{1,80}\))"),
    re.compile(r"%(?![0-9A-Fa-f]{2})[A-Z][A-Z0-9_]{2,40}%"),
    re.compile(r"\$env:\w|\$\{\{|\{\{\s*(?:env|secrets?|vault|vars)\b|\benv\(|!ENV\b", re.IGNORECASE),
    re.compile(r"\b(?:process\.env|os\.environ|os\.getenv|getenv\(|System\.getenv)"),
    re.compile(r"^(?:env|environment)(?:://|:)[A-Za-z_]", re.IGNORECASE),
)
_ELSEWHERE = re.compile(
    r"(?:^|[\s\"'=(])(?:op|bws?|secret|secrets|vault|keychain|keyring|doppler|infisical|gcpsm|awssm|awsssm|azkv|sops|pass)://"
    r"|\bref\+[a-z]+://|\barn:aws[a-z-]*:(?:secretsmanager|ssm):|/var/run/secrets/|/run/secrets/"
    r"|^(?:secret|vault|keyhole|file|fd):[^\s]"
    r"|\bprojects/[^/\s]+/secrets/|\.vault\.azure\.net/",
    re.IGNORECASE,
)
_USERINFO = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]{1,20}://[^\s/?#@]{1,400}@")
_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{12,8192}={0,2}")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}[:\s]?){8,4096}")
_ESCAPES = re.compile(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})")
_PARTS = re.compile(r"[\s/?&=#,;:|<>()\[\]{}\"'`]+")
_SEAMS = re.compile(r"[-_.~]+")
_MARK = re.compile(r"\$\{[^{}]*\}")
_NEVER = frozenset({"env", "secret", "secrets", "vault"})  # heads of references that other systems know
_ASSIGNED = re.compile(
    r"([A-Za-z][A-Za-z0-9_.-]{1,40})=[^\s&;,=\"'<>]|\\?[\"']([A-Za-z][A-Za-z0-9_.-]{1,40})\\?[\"']\s?:\s?\\?[\"'0-9][^\"'\\]"
)
_SPACED = re.compile(r"(?:[!-~] ){11,}[!-~]")
_DEEPEST = 3
_EACH, _MOST = 200, 2_000_000  # what a part costs besides its size, and how much is looked at in one text
_DRAWN = 16  # characters of a part that was drawn
# The last word of a name that is a credential's, whatever stands there.
_NAMES = {"PASSWORD", "PASSWD", "PASSPHRASE", "PWD", "PASS", "SECRET", "CREDENTIAL", "CREDENTIALS", "CREDS", "APIKEY"}
_NAMES |= {"AUTHORIZATION", "BEARER", "TOKEN", "JWT", "COOKIE", "PAT"}
_KEYS = {"API", "ACCESS", "PRIVATE", "SECRET", "AUTH", "SIGNING", "ENCRYPTION", "MASTER", "ACCOUNT", "APP", "SERVICE"}
_HARMLESS = {"PAGE", "NEXT", "CONTINUATION", "SYNC", "CSRF", "XSRF", "IDEMPOTENCY", "CANCEL", "CURSOR"} | PUBLIC_WORDS
_SERVICE = "take it out: keep it in the vault, and let a service or a tool's server attach it (keyhole service add)"
_HINTS = {
    "known": _SERVICE,
    "shape": _SERVICE,
    "name": _SERVICE,
    "address": _SERVICE,
    "encoded": _SERVICE,
    "random": f"{_SERVICE}; if it is none, add its fingerprint to harmless",
    "environment": "take it out: nothing is expanded here, and a service attaches credentials (keyhole service add)",
    "elsewhere": "take it out: keyhole external add makes it a source, and a service lends it",
}


def fingerprint(text: str) -> str:
    """What a text is known by in ``harmless``."""
    return hashlib.sha256(b"keyhole workflow text\0" + text.encode()).hexdigest()[:16]


def find_in(text: str, accepted: frozenset[str] = frozenset()) -> Iterator[tuple[str, str]]:
    """What in a text is, or refers to, a credential: a rule and the reason, without the value.

    Args:
        text: a value or a key.
        accepted: fingerprints of words that look drawn and are no credentials.
    """
    if found := _shape(text):
        yield "shape", f"it has a {found} in it"
    if _USERINFO.search(text):
        yield "address", "it has a URL with a user or a password in it"
    if any(pattern.search(text) for pattern in _ENVIRONMENT) or _odd_mark(text):
        yield "environment", "it refers to the environment"
    if _ELSEWHERE.search(text):
        yield "elsewhere", "it refers to a secret, which a workflow does not"
    if _assigned(text):
        yield "name", "it gives a text to something that is called after a credential"
    if reason := _encoded(text):
        yield "encoded", reason
    for part in _drawn(text):
        if fingerprint(part) not in accepted:
            yield "random", f"it has a text in it that looks drawn, not written (fingerprint {fingerprint(part)})"
            return


def names_credential(name: str) -> bool:
    """Whether a member of this name holds a credential."""
    found = words(name)
    if not found or _HARMLESS & set(found) or found[-1] in ABOUT_WORDS - {"HEADER"}:
        return False
    if found[-1] in _NAMES:
        return True
    return found[-1] == "KEY" and len(found) > 1 and found[-2] in _KEYS


def problems(root: Node, text: str, inputs: Mapping[str, Any]) -> list[Problem]:
    """All that a document has of credentials.

    Args:
        root: its tree.
        text: of it, for what is in comments.
        inputs: their defaults, or what was said; put into texts that name them, so that parts cannot come together.
    """
    accepted = frozenset(_accepted(root))
    found = set(_in_tree(root, accepted, inputs))
    lines = {problem.line for problem in found}
    found |= {problem for problem in _in_text(text) if problem.line not in lines}
    return sorted(found)


def known_in(root: Node, text: str, known: Scrubber) -> Iterator[Problem]:
    """Where a value that is known stands, in any form.

    Args:
        root: the tree of a document.
        text: of it.
        known: finds the values.
    """

    def has(value: str) -> bool:
        raw = value.encode(errors="replace")
        return known.text(raw) != raw

    found = [(node, where) for where, node in root.walk() if isinstance(node.value, str) and has(node.value)]
    places = [(node.line, node.column, where) for node, where in found]
    for where, node in root.walk():
        if isinstance(node.value, dict):
            places += [(*node.keys[name], where) for name in node.value if has(name)]
    if not places and has(text):
        places = [(1, 1, "")]
    for line, column, where in places:
        yield from _at(line, column, where, [("known", "it has the value of a secret of the vault in it")])


def _accepted(root: Node) -> Iterator[str]:
    listed = root.value.get("harmless") if isinstance(root.value, dict) else None
    for each in listed.value if listed is not None and isinstance(listed.value, list) else ():
        if isinstance(each.value, str):
            yield each.value


def _in_tree(root: Node, accepted: frozenset[str], inputs: Mapping[str, Any]) -> Iterator[Problem]:
    for where, node in root.walk():
        if where.startswith("/harmless") or where == "/$schema":
            continue
        value = node.value
        if isinstance(value, str):
            yield from _at(node.line, node.column, where, find_in(value, accepted))
            whole = _joined(value, inputs)
            if whole != value:
                yield from _at(node.line, node.column, where, find_in(whole, accepted))
        elif isinstance(value, list):
            texts = [each.value for each in value if isinstance(each.value, str)]
            if len(texts) > 1:
                yield from _at(node.line, node.column, where, _only_sure("".join(texts)))
        elif isinstance(value, dict):
            yield from _in_object(where, node, value, accepted)


def _in_object(where: str, node: Node, value: dict[str, Node], accepted: frozenset[str]) -> Iterator[Problem]:
    declares = where == "/inputs"
    for name, each in value.items():
        line, column = node.keys[name]
        yield from _at(line, column, where, find_in(name, accepted))
        if not names_credential(name):
            continue
        if declares:
            yield from _at(line, column, f"{where}/{name}", [("name", "an input is called after a credential")])
        elif _is_literal(each):
            reason = "a member that is called after a credential has a text of its own"
            yield from _at(each.line, each.column, f"{where}/{name}", [("name", reason)])
    texts = [each.value for each in value.values() if isinstance(each.value, str)]
    if len(texts) > 1:
        yield from _at(node.line, node.column, where, _only_sure("".join(texts)))


def _is_literal(node: Node) -> bool:
    value = node.value
    if isinstance(value, list):
        return any(map(_is_literal, value))
    if isinstance(value, bool) or value is None or isinstance(value, dict) or value == "":
        return False
    return not (isinstance(value, str) and _MARK.fullmatch(value))


def _in_text(text: str) -> Iterator[Problem]:
    """Shapes in the document as it lies there: those in comments are in no value."""
    raw = text.encode()
    for match in finder().find(raw):
        before = raw[: match.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode(errors="replace")) + 1
        yield from _at(line, column, "", [("shape", f"it has a {match.shape.title} in it")])


def _at(line: int, column: int, where: str, found: Iterable[tuple[str, str]]) -> Iterator[Problem]:
    for rule, reason in found:
        yield Problem(line, column, where, f"credential-{rule}", reason, _HINTS[rule])


def _only_sure(text: str) -> Iterator[tuple[str, str]]:
    """Of texts put together only what is a credential for sure."""
    if found := _shape(text):
        yield "shape", f"its parts make a {found}"


def _shape(text: str) -> str:
    matches = finder().find(text.encode(errors="replace"))
    return matches[0].shape.title if matches else ""


def _assigned(text: str) -> bool:
    """Whether a part of the text is ``password=…``, as in queries and connection strings, or the same in JSON."""
    plain = _MARK.sub("", text)
    return any(names_credential(match[1] or match[2]) for match in _ASSIGNED.finditer(plain))


def _odd_mark(text: str) -> bool:
    found = [Reference.parse(mark) for mark in marks(text)]
    return any(each is None or each.head in _NEVER for each in found)


def _joined(text: str, inputs: Mapping[str, Any]) -> str:
    """The text with inputs put in, and nothing in the place of other references."""

    def known(match: re.Match[str]) -> str:
        reference = Reference.parse(match[0][2:-1])
        if reference is None or reference.head != "input":
            return ""
        found = inputs.get(reference.path[0])
        return str(found) if isinstance(found, str | int | float) else ""

    return _MARK.sub(known, text)


def _encoded(text: str) -> str:
    """Why an encoded part of the text is a credential; empty when none is."""
    waiting, looked = [(text, 0)], 0
    while waiting:
        now, depth = waiting.pop()
        drawn: set[str] | None = None
        for how, plain in _views(now):
            looked += len(plain) + _EACH
            if looked > _MOST:
                return "it has more encoded parts than can be looked at"
            if found := _shape(plain):
                return f"it has a {found} in it, encoded as {how}"
            if _USERINFO.search(plain) or _assigned(plain) or (how in {"base64", "hex"} and _is_login(plain)):
                return f"it has a name and a password in it, encoded as {how}"
            if fresh := set(_drawn(plain)):
                drawn = set(_drawn(now)) if drawn is None else drawn
                if fresh - drawn:
                    return f"it has a text in it that looks drawn, encoded as {how}"
            if depth + 1 < _DEEPEST:
                waiting.append((plain, depth + 1))
    return ""


def _views(text: str) -> Iterator[tuple[str, str]]:
    """What the text says when parts of it are decoded."""
    if not text.isascii() or _SPACED.search(text):
        plain = "".join(char for char in unicodedata.normalize("NFKC", text) if unicodedata.category(char) != "Cf")
        plain = _SPACED.sub(lambda match: match[0].replace(" ", ""), plain)
        if plain != text:
            yield "other characters", plain
    if "%" in text and (plain := unquote(text)) != text:
        yield "percent", plain
    if "&" in text and (plain := html.unescape(text)) != text:
        yield "HTML", plain
    if "\\" in text and (plain := _ESCAPES.sub(lambda m: chr(int(m[1] or m[2], 16)), text)) != text:
        yield "escapes", plain
    for match in _ENCODED.finditer(re.sub(r"[\r\n]+\s*", "", text)):
        word = match[0].rstrip("=").replace("-", "+").replace("_", "/")
        with_end = word + "=" * (-len(word) % 4)
        try:
            plain = base64.b64decode(with_end, validate=True).decode()
        except (binascii.Error, ValueError):
            continue
        if len(plain) >= 6 and plain.isprintable():
            yield "base64", plain
    for match in _HEX.finditer(text):
        try:
            plain = bytes.fromhex(re.sub(r"[:\s]", "", match[0])).decode()
        except ValueError:
            continue
        if plain.isprintable():
            yield "hex", plain


def _is_login(plain: str) -> bool:
    """Name and password (RFC 7617)."""
    user, colon, rest = plain.partition(":")
    return bool(colon) and 0 < len(user) <= 80 and len(rest) >= 4 and " " not in plain and not rest.startswith("//")


def _drawn(text: str) -> Iterator[str]:
    """Words of a text that were drawn: letters and digits in no order, or letters whose case changes in none."""
    for word in _PARTS.split(unquote(_MARK.sub(" ", text))):
        if len(word) < _DRAWN or is_uuid(word) or len(word) > 4096:
            continue
        if any(map(_is_drawn, _SEAMS.split(word))) or (is_random(word) and _changes(word) * 3 > len(word)):
            yield word


def _is_drawn(part: str) -> bool:
    if len(part) < _DRAWN:
        return False
    letters, digits = any(c.isalpha() for c in part), sum(c.isdigit() for c in part)
    if letters and digits > 1 and len(re.findall("[0-9]+", part)) > 1:
        return entropy(part) >= 3.0
    case = sum(a.isupper() != b.isupper() for a, b in itertools.pairwise(part))
    return part.isalpha() and len(part) >= _DRAWN + 4 and case * 5 >= len(part) * 2


def _changes(word: str) -> int:
    """How often one kind of character follows another."""
    kinds = ["d" if c.isdigit() else "u" if c.isupper() else "l" if c.isalpha() else "s" for c in word]
    return sum(a != b for a, b in itertools.pairwise(kinds))


def refuse_in(value: Any, rules: frozenset[str] = frozenset({"shape", "address"})) -> str:
    """Why a value cannot be sent; empty when it can. What looks drawn may be an id that was given."""
    stack = [value]
    while stack:
        each = stack.pop()
        if isinstance(each, dict):
            stack += [*each.keys(), *each.values()]
        elif isinstance(each, list):
            stack += each
        elif isinstance(each, str):
            for rule, reason in find_in(each):
                if rule in rules:
                    return reason
    return ""
