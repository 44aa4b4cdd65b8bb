"""The kinds of injection that put a value into one place of a message. Pure. The table is in ``core.inject``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.kind import Kind, Option, header_name, placeholder_text, places, user_name
from keyhole.core.path import parse_field

_COOKIE = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_POINTER_ESCAPE = re.compile(r"~(?![01])")
_MOST = 16  # values that one injection sets, or names in the path to a field
_LONGEST_NAME = 128


def _text_in(where: tuple[str, ...], text: str) -> None:
    """Refuse a placeholder that clients write in too many ways for the places where it is replaced."""
    if where != ("header",) and set('%\\"') & set(text):
        raise InvalidRequest(
            "a placeholder outside of headers has no '%', backslash or double quote", "for example sk-placeholder-1"
        )
    if "path" in where and set("/;") & set(text):
        raise InvalidRequest("a placeholder in a path has no slash or semicolon", "it stands within one segment")


def _path_text(value: Any) -> str:
    text = placeholder_text(value)
    _text_in(("path",), text)
    return text


def _name(what: str, example: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        text = str(value or "")
        if not text.isprintable() or not 1 <= len(text.encode("utf-8", "replace")) <= _LONGEST_NAME:
            raise InvalidRequest(f"the name of a {what} is 1 to {_LONGEST_NAME} visible characters", example)
        return text

    return check


_parameter = _name("query parameter", "for example api_key")
_form_field = _name("form field", "for example client_secret")


def _cookie(value: Any) -> str:
    text = str(value or "")
    if not _COOKIE.fullmatch(text):
        raise InvalidRequest("the name of a cookie is 1 to 128 of the characters of a token", "for example session")
    return text


def field_path(text: str) -> tuple[str, ...]:
    """The names on the way to a field: of a JSON pointer (RFC 6901) when it begins with a slash, else between dots.

    Raises:
        InvalidRequest: it leads nowhere.
    """
    if text.startswith("/"):
        if _POINTER_ESCAPE.search(text):
            raise InvalidRequest("a JSON pointer has a '~' that is neither ~0 nor ~1", "see RFC 6901")
        return tuple(part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/"))
    names = tuple(text.split("."))
    if not all(names):
        raise InvalidRequest("the path to the field has an empty name", "write a.b, or a JSON pointer such as /a/b")
    return names


def _body_field(value: Any) -> str:
    text = str(value or "")
    if not text.isprintable() or len(text) > 512 or len(field_path(text)) > _MOST:
        raise InvalidRequest(
            f"the path to a field of the body is at most {_MOST} names, 512 visible characters", "for example auth.key"
        )
    return text


def _table(name: Callable[[Any], str], example: str) -> Callable[[Any], tuple[tuple[str, str], ...]]:
    """A check for a table of names to fields of the secret, also written ``NAME=FIELD,NAME=FIELD``."""

    def check(value: Any) -> tuple[tuple[str, str], ...]:
        if isinstance(value, str):
            pairs = [part.partition("=") for part in value.split(",")]
            value = {key.strip(): field.strip() for key, _, field in pairs}
        if not isinstance(value, Mapping) or not 1 <= len(value) <= _MOST:
            raise InvalidRequest(f"it takes 1 to {_MOST} names with the field of the secret for each", example)
        made = {name(key): parse_field(str(field)) for key, field in value.items()}
        if len(made) < len(value):
            raise InvalidRequest("a name stands twice", example)
        return tuple(made.items())

    return check


def _fields(option: str) -> Callable[[Any], tuple[str, ...]]:
    return lambda how: tuple(dict.fromkeys(field for _, field in how[option]))


def _check_query(how: Any) -> None:
    if bool(how["name"]) == bool(how["params"]):
        raise InvalidRequest(
            "the injection query takes one of name and params", 'for example {"kind": "query", "name": "api_key"}'
        )


def _describe_query(how: Any) -> str:
    return ", ".join(f"query {name}=***" for name in ([how["name"]] if how["name"] else dict(how["params"])))


BODY_METHODS = ("POST", "PUT", "PATCH")

PLACED: dict[str, Kind] = {
    "query": Kind(
        "as a query parameter, or several",
        _describe_query,
        (
            Option("name", _parameter, "", "the parameter"),
            Option(
                "params",
                _table(_parameter, 'for example {"key": "api_key", "token": "token"}'),
                (),
                "several parameters, each with the field of the secret that it takes",
            ),
        ),
        named=_fields("params"),
        check=_check_query,
    ),
    "path": Kind(
        "in the path, in place of a text that the client sends there",
        lambda how: f"{how['text']} -> *** in path",
        (Option("text", _path_text, help="what the client sends"),),
    ),
    "body": Kind(
        "as a field of a JSON body",
        lambda how: f"body {how['field']}=***",
        (Option("field", _body_field, help="the field: a.b, or a JSON pointer such as /a/0/b"),),
    ),
    "form": Kind(
        "as a field of a form, urlencoded or multipart",
        lambda how: f"form {how['field']}=***",
        (Option("field", _form_field, help="the field"),),
    ),
    "cookie": Kind(
        "as a cookie",
        lambda how: f"cookie {how['name']}=***",
        (Option("name", _cookie, help="the cookie"),),
    ),
    "headers": Kind(
        "as several headers",
        lambda how: ", ".join(f"{name}: ***" for name, _ in how["headers"]),
        (
            Option(
                "headers",
                _table(header_name, 'for example {"DD-API-KEY": "api_key", "DD-APPLICATION-KEY": "application_key"}'),
                help="the headers, each with the field of the secret that it takes",
            ),
        ),
        named=_fields("headers"),
    ),
    "digest": Kind(
        "as the answer to an HTTP Digest challenge (RFC 7616)",
        lambda how: f"authorization: Digest {how['user'] + ':' if how['user'] else ''}***",
        (Option("user", user_name, "", "the user name, where the value is the password alone"),),
        fields=(("username", "password"),),
        keeps=True,
    ),
    "placeholder": Kind(
        "in place of a text that the client sends",
        lambda how: f"{how['text']} -> *** in {', '.join(how['in'])}",
        (
            Option("text", placeholder_text, help="what the client sends"),
            Option("in", places, ("header",), "where it is replaced: header, query, path, body, frame"),
        ),
        check=lambda how: _text_in(how["in"], how["text"]),
    ),
}
