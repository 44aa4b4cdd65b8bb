"""What a text says when it is decoded, in the ways in which texts hide or are carried. Pure."""

from __future__ import annotations

import base64
import binascii
import html
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import unquote

_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{12,8192}={0,2}")
_HEX = re.compile(r"(?:(?:0x)?[0-9a-fA-F]{2}[:,\s]{0,2}){8,4096}")
_ESCAPES = re.compile(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})")
_QUOTED = re.compile(r"=([2-7][0-9A-Fa-f])")
_SPACED = re.compile(r"(?:[!-~]([\s.,;:|/_-])(?:[!-~]\1){10,})[!-~]")  # each character by itself
_MARKS = frozenset({"Cf", "Mn", "Me"})
_GROUPS = re.compile(r"[!-~]{2,64}(?:\s+[!-~]{1,64}){2,4096}")


def views(text: str) -> Iterator[tuple[str, str]]:
    """What the text says when parts of it are decoded."""
    if not text.isascii() or _SPACED.search(text):
        plain = "".join(
            char for char in unicodedata.normalize("NFKC", text) if unicodedata.category(char) not in _MARKS
        )
        plain = _SPACED.sub(lambda match: match[0][::2], plain)
        if plain != text:
            yield "other characters", plain
    if "%" in text and (plain := unquote(text)) != text:
        yield "percent", plain
    if "&" in text and (plain := html.unescape(text)) != text:
        yield "HTML", plain
    if "\\" in text and (plain := _ESCAPES.sub(lambda m: chr(int(m[1] or m[2], 16)), text)) != text:
        yield "escapes", plain
    if "=" in text and (plain := _QUOTED.sub(lambda m: chr(int(m[1], 16)), text)) != text:
        yield "quoted-printable", plain
    whole = re.sub(r"[\r\n]+\s*", "", text)
    if joined := _in_groups(text):
        whole = joined
        yield "groups", joined
    for match in _ENCODED.finditer(whole):
        word = match[0].rstrip("=").replace("-", "+").replace("_", "/")
        with_end = word + "=" * (-len(word) % 4)
        try:
            plain = _as_text(base64.b64decode(with_end, validate=True))
        except (binascii.Error, ValueError):
            continue
        if len(plain) >= 6 and plain.isprintable():
            yield "base64", plain
    for match in _HEX.finditer(text):
        try:
            plain = _as_text(bytes.fromhex(re.sub(r"0x|[:,\s]", "", match[0])))
        except ValueError:
            continue
        if plain.isprintable():
            yield "hex", plain


def of_numbers(values: Sequence[Any]) -> str:
    """The text that a list of character codes is; empty for none."""
    codes = [each for each in values if isinstance(each, int) and not isinstance(each, bool) and 32 <= each < 127]
    return "".join(map(chr, codes)) if len(codes) == len(values) >= 8 else ""


def _as_text(raw: bytes) -> str:
    """Text in UTF-8 or UTF-16. Raises ``ValueError``."""
    return raw.replace(b"\0", b"").decode().rstrip("\r\n")


def _in_groups(text: str) -> str:
    """A text that is written in groups of one length, put together; empty for none."""
    groups = text.split() if _GROUPS.fullmatch(text.strip()) else []
    even = len({len(group) for group in groups[:-1]}) == 1 and len(groups[-1]) <= len(groups[0])
    return "".join(groups) if even else ""
