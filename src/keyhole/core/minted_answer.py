"""Answers that have a credential in them: JSON, forms and XML, in which one text is read and replaced. Pure."""

from __future__ import annotations

import html
import json
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl, urlencode

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

FORM = "application/x-www-form-urlencoded"
_MOST_FIELDS = 1000


class Unreadable(ValueError):
    """It is no such answer, or the credential does not stand there as a text. Quotes nothing."""


class Document(Protocol):
    """An answer as it was read."""

    def get(self, pointer: str) -> str | None:
        """The text at a place; ``None`` where nothing is. Raises ``Unreadable`` where something else is."""

    def put(self, pointer: str, text: str) -> None:
        """Replace a text that is there."""

    def encode(self) -> bytes:
        """The answer again."""


def read(content: bytes, media_type: str) -> Document:
    """Read an answer.

    Args:
        content: decoded from its content codings.
        media_type: without parameters; empty where it was not said.

    Raises:
        Unreadable: it is none of the forms, or is not UTF-8.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unreadable("it is not UTF-8") from None
    begins = text.lstrip()[:1]
    if media_type == FORM:
        return _Form(text)
    if media_type.endswith(("/xml", "+xml")) or begins == "<":
        return _Xml(text)
    if media_type.endswith(("/json", "+json")) or begins in {"{", "["}:
        return _Json(text)
    raise Unreadable("it is neither JSON, a form nor XML")


def _segments(pointer: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


class _Json:
    def __init__(self, text: str) -> None:
        try:
            self._data = json.loads(text)
        except (ValueError, RecursionError):
            raise Unreadable("it is not JSON") from None

    def get(self, pointer: str) -> str | None:
        found = self._data
        for part in _segments(pointer):
            found = _step(found, part)
        if found is None:
            return None
        if not isinstance(found, str):
            raise Unreadable("what stands there is not a text")
        return found

    def put(self, pointer: str, text: str) -> None:
        *way, last = _segments(pointer)
        inner: Any = self._data
        for part in way:
            inner = _step(inner, part)
        inner[last if isinstance(inner, dict) else int(last)] = text

    def encode(self) -> bytes:
        return json.dumps(self._data, ensure_ascii=True, separators=(",", ":")).encode()


def _step(inner: Any, part: str) -> Any:
    if isinstance(inner, dict):
        return inner.get(part)
    if isinstance(inner, list) and part.isascii() and part.isdecimal() and len(part) < 9 and int(part) < len(inner):
        return inner[int(part)]
    return None


class _Form:
    def __init__(self, text: str) -> None:
        try:
            self._pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
        except ValueError:
            raise Unreadable("it is not a form") from None

    def get(self, pointer: str) -> str | None:
        found = {value for name, value in self._pairs if name == pointer[1:]}
        if len(found) > 1:
            raise Unreadable("it says the same field in several ways")
        return next(iter(found), None)

    def put(self, pointer: str, text: str) -> None:
        self._pairs = [(name, text if name == pointer[1:] else value) for name, value in self._pairs]

    def encode(self) -> bytes:
        return urlencode(self._pairs).encode()


class _Xml:
    """XML without a document type, so that nothing in it expands. A pointer has names without their namespaces."""

    def __init__(self, text: str) -> None:
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise Unreadable("it declares a document type")
        self._text = text
        self._root = self._parsed()

    def _parsed(self) -> Element:
        from xml.etree import ElementTree as ET  # noqa: PLC0415  # few answers are XML

        try:
            return ET.fromstring(self._text)  # noqa: S314 - nothing can be declared that expands
        except (ET.ParseError, ValueError, RecursionError):
            raise Unreadable("it is not XML") from None

    def get(self, pointer: str) -> str | None:
        first, *rest = _segments(pointer)
        found = [self._root] if _local(self._root) == first else []
        for part in rest:
            found = [child for each in found for child in each if _local(child) == part]
        if len(found) > 1 or (found and len(found[0])):
            raise Unreadable("it has several such elements, or others within")
        return (found[0].text or None) if found else None

    def put(self, pointer: str, text: str) -> None:
        before = self.get(pointer) or ""
        written = html.escape(before, quote=False)
        if written not in self._text:
            raise Unreadable("the text is escaped in a way of its own")
        self._text = self._text.replace(written, html.escape(text, quote=False))
        self._root = self._parsed()
        if self.get(pointer) != text:
            raise Unreadable("the text is escaped in a way of its own")

    def encode(self) -> bytes:
        return self._text.encode()


def _local(element: Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""
