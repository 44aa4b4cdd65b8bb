"""Looks for credentials in a document: in values, names, keys, defaults and comments, plain and encoded.

A workflow names tools and services; the broker attaches what they need. So nothing in a document has a reason to be a
credential, and what could be one is refused: a text in its shape, a text in a place that is called after one, a text
that nobody types, a reference to the environment or to another manager. A value is never repeated.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from keyhole.core.looks import ABOUT_WORDS, PUBLIC_WORDS, entropy, is_random, is_uuid, words
from keyhole.faces.workflow.decoding import of_numbers, views
from keyhole.faces.workflow.problem import Problem
from keyhole.faces.workflow.reading import Node
from keyhole.faces.workflow.reference import INPUT, Reference, marks
from keyhole.scrub import Scrubber
from keyhole.scrub.shapes import finder

_ENVIRONMENT = (
    re.compile(r"(?<![\w$\\])\$(?:[A-Z_][A-Z0-9_]{2,}|\([^)]{1,80}\))"),
    re.compile(r"%(?![0-9A-Fa-f]{2})[A-Z][A-Z0-9_]{2,40}%"),
    re.compile(r"\$env:\w|\$\{\{|\{\{\s*(?:env|secrets?|vault|vars)\b|\benv\(|!ENV\b", re.IGNORECASE),
    re.compile(r"\b(?:process\.env|os\.environ|os\.getenv|getenv\(|System\.getenv)"),
    re.compile(r"^(?:env|environment)(?:://|:)[A-Za-z_]", re.IGNORECASE),
)
# Forms in which other systems write variables; too common in texts to be refused whatever the name is.
_VARIABLES = re.compile(
    r"\{\{-?\s*\.?([A-Za-z_]\w{1,60})\s*-?\}\}|<([A-Za-z_]\w{1,60})>|\b(?:env|ENV)\.([A-Za-z_]\w{1,60})|(?<![\w$\\])\$([a-z_]\w{1,60})"
)
_ELSEWHERE = re.compile(
    r"(?:^|[\s\"'=(])(?:op|bws?|secret|secrets|vault|keychain|keyring|doppler|infisical|gcpsm|awssm|awsssm|azkv|sops|pass)://"
    r"|\bfile://|\bref\+[a-z]+://|\barn:aws[a-z-]*:(?:secretsmanager|ssm):|/var/run/secrets/|/run/secrets/"
    r"|^(?:secret|vault|keyhole|file|fd):[^\s]"
    r"|\bprojects/[^/\s]+/secrets/|\.vault\.azure\.net/",
    re.IGNORECASE,
)
_USERINFO = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]{1,20}://[^\s/?#@]{1,400}@")
_PARTS = re.compile(r"[\s/?&=#,;:|<>()\[\]{}\"'`]+")
_SEAMS = re.compile(r"[-_.~]+")
_MARK = re.compile(r"\$\{[^{}]*\}")
_NEVER = frozenset({"env", "secret", "secrets", "vault"})  # heads of references that other systems know
_NAME = r"[A-Za-z][A-Za-z0-9_.-]{1,80}"
_QUOTE = r"\\{0,4}[\"']"
_ASSIGNED = re.compile(
    rf"(?<![A-Za-z0-9_.-])(?:({_NAME})\s{{0,3}}=\s{{0,3}}|--({_NAME})\s{{1,3}}(?!-)|{_QUOTE}({_NAME}){_QUOTE}\s{{0,3}}:\s{{0,3}}"
    rf"(?:{_QUOTE})?)(?!null\b|true\b|false\b)([^\s&;,\"'<>\\={{\[][^\s&;,\"'<>\\]{{0,4095}})"
)
_TOKEN68 = r"[A-Za-z0-9._~+/-]{6,4096}={0,2}"  # RFC 9110, section 11.2
_SCHEME = re.compile(
    rf"^(?:Bearer|ApiKey)\s{{1,3}}{_TOKEN68}$|^(?:Basic|Token)\s{{1,3}}(?=\S*[0-9]){_TOKEN68}$"
    rf"|authorization[\"']?\s{{0,3}}[:=]\s{{0,3}}[\"']?[A-Za-z]{{3,20}}\s{{1,3}}{_TOKEN68}",
    re.IGNORECASE,
)
_OPTION = re.compile(rf"--?({_NAME})")
_COMMENT = re.compile(r"(?:^|\s)#(.*)")
_OF_COMMENTS = frozenset({"address", "name", "encoded", "random"})  # a comment may tell of the environment
_DEEPEST = 3
_EACH, _MOST = 200, 2_000_000  # what a part costs besides its size, and how much is looked at in one text
_DRAWN = 16  # characters of a part that was drawn
# The last word of a name that is a credential's, whatever stands there.
_NAMES = {"PASSWORD", "PASSWD", "PASSPHRASE", "PWD", "PASS", "SECRET", "CREDENTIAL", "CREDENTIALS", "CREDS", "APIKEY"}
_NAMES |= {"AUTHORIZATION", "BEARER", "TOKEN", "JWT", "COOKIE", "PAT", "PASSCODE", "PASSWORT", "KENNWORT"}
# Members that say how another member of the same object is called, and members that have its value.
_CALLED = frozenset({"name", "key", "header", "field", "param", "parameter", "variable", "option"})
_HOLDERS = frozenset({"value", "val", "text", "default", "content", "data", "plain", "plaintext", "raw"})
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
    if any(pattern.search(text) for pattern in _ENVIRONMENT) or _odd_mark(text) or _variable(text):
        yield "environment", "it refers to the environment"
    if _ELSEWHERE.search(text):
        yield "elsewhere", "it refers to a secret, which a workflow does not"
    if _assigned(text) or _SCHEME.search(_MARK.sub("", text)):
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


def holds_value(name: str) -> bool:
    """Whether a member of this name has the value of what its object is about."""
    return name.lower() in _HOLDERS


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
    found |= {problem for problem in _in_text(text, accepted) if problem.line not in lines}
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
        if where.startswith("/harmless"):
            continue
        value = node.value
        if where == "/$schema" and isinstance(value, str):  # of an address that somebody else has chosen
            found = ((rule, reason) for rule, reason in find_in(value, accepted) if rule != "random")
            yield from _at(node.line, node.column, where, found)
            continue
        if isinstance(value, str):
            yield from _at(node.line, node.column, where, find_in(value, accepted))
            whole = _joined(value, inputs)
            if whole != value:
                yield from _at(node.line, node.column, where, find_in(whole, accepted))
        elif isinstance(value, list):
            yield from _at(node.line, node.column, where, _in_list(value, accepted))
        elif isinstance(value, dict):
            yield from _in_object(where, node, value, accepted)


def _in_object(where: str, node: Node, value: dict[str, Node], accepted: frozenset[str]) -> Iterator[Problem]:
    declares = where == "/inputs"
    for name, each in value.items():
        line, column = node.keys[name]
        yield from _at(line, column, where, find_in(name, accepted))
        if not names_credential(name) and not (where.endswith("/call/headers") and words(name)[-1:] == ["AUTH"]):
            continue
        if declares:
            yield from _at(line, column, f"{where}/{name}", [("name", "an input is called after a credential")])
        elif _is_literal(each) or _holds_literal(each):
            reason = "a member that is called after a credential has a text of its own"
            yield from _at(each.line, each.column, f"{where}/{name}", [("name", reason)])
    called = [each.value for name, each in value.items() if name.lower() in _CALLED and isinstance(each.value, str)]
    for name, each in value.items():
        if holds_value(name) and _is_literal(each) and any(map(names_credential, called)):
            reason = "what is called after a credential has a text of its own"
            yield from _at(each.line, each.column, f"{where}/{name}", [("name", reason)])
    texts = [each.value for each in value.values() if isinstance(each.value, str)]
    if len(texts) > 1:
        yield from _at(node.line, node.column, where, _only_sure("".join(texts)))


def _in_list(value: list[Node], accepted: frozenset[str]) -> Iterator[tuple[str, str]]:
    """What the elements of a list are together."""
    texts = [each.value for each in value if isinstance(each.value, str)]
    if len(texts) > 1:
        yield from _only_sure("".join(texts))
    if plain := of_numbers([each.value for each in value]):
        yield from find_in(plain, accepted)
    for option, following in itertools.pairwise(value):
        match = _OPTION.fullmatch(option.value) if isinstance(option.value, str) else None
        if match is not None and names_credential(match[1]) and _is_literal(following):
            yield "name", "an option that is called after a credential has a text of its own"


def _holds_literal(node: Node) -> bool:
    return isinstance(node.value, dict) and any(
        holds_value(name) and (_is_literal(each) or _holds_literal(each)) for name, each in node.value.items()
    )


def _is_literal(node: Node) -> bool:
    value = node.value
    if isinstance(value, list):
        return any(map(_is_literal, value))
    if isinstance(value, bool) or value is None or isinstance(value, dict) or value == "":
        return False
    if isinstance(value, str) and _MARK.fullmatch(value):  # an input is a text of whoever writes, or starts, it
        reference = Reference.parse(value[2:-1])
        return reference is not None and reference.head == INPUT
    return True


def _in_text(text: str, accepted: frozenset[str]) -> Iterator[Problem]:
    """What the document has as it lies there: comments are in no value."""
    raw, shaped = text.encode(), set()
    for match in finder().find(raw):
        before = raw[: match.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode(errors="replace")) + 1
        shaped.add(line)
        yield from _at(line, column, "", [("shape", f"it has a {match.shape.title} in it")])
    whole, begin = "", 0
    for number, line_text in enumerate([*text.split("\n"), ""], 1):
        comment = _COMMENT.search(line_text)
        if comment is None:
            if number - begin > 1 and shaped.isdisjoint(range(begin, number)):
                yield from _at(begin, 1, "", _only_sure(whole))
            whole = ""
            continue
        begin = begin if whole else number
        whole += comment[1].strip()
        if number not in shaped:
            found = ((rule, why) for rule, why in find_in(comment[1], accepted) if rule in _OF_COMMENTS)
            yield from _at(number, comment.start() + 1, "", found)


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
    return next(_assignments(_MARK.sub("", text)), None) is not None


def _assignments(text: str) -> Iterator[tuple[int, int]]:
    """Where texts stand that are given to something which is called after a credential."""
    for match in _ASSIGNED.finditer(text):
        if names_credential(match[1] or match[2] or match[3]):
            yield match.span(4)


def assigned_in(raw: bytes) -> list[tuple[int, int]]:
    """Where in a text values stand that are given to something which is called after a credential, as bytes."""
    return list(_assignments(raw.decode("latin-1")))


def _variable(text: str) -> bool:
    """Whether it names a variable, in a form of other systems, that is called after a credential."""
    return any(names_credential(next(filter(None, match.groups()))) for match in _VARIABLES.finditer(text))


def _odd_mark(text: str) -> bool:
    found = [Reference.parse(mark) for mark in marks(text)]
    return any(each is None or each.head in _NEVER for each in found)


def _joined(text: str, inputs: Mapping[str, Any]) -> str:
    """The text with inputs put in, and nothing in the place of other references."""

    def known(match: re.Match[str]) -> str:
        reference = Reference.parse(match[0][2:-1])
        if reference is None or reference.head != INPUT:
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
        for how, plain in views(now):
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
