"""The ways of attaching a secret, as ``service add`` takes them: short options for common ones, and all by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

from keyhole.core.errors import InvalidRequest
from keyhole.core.inject import KINDS
from keyhole.core.kind import Kind
from keyhole.core.sql import SQL

F = TypeVar("F", bound=Callable[..., Any])
_OPTIONS = (
    click.option("--bearer", is_flag=True, help="As Authorization: Bearer."),
    click.option("--oauth2", is_flag=True, help="As Authorization: Bearer; the secret is /oauth/NAME."),
    click.option("--basic", is_flag=True, help="As Authorization: Basic; the value is user:password."),
    click.option("--digest", is_flag=True, help="As the answer to a Digest challenge; the value is user:password."),
    click.option("--user", metavar="NAME", help="For --basic and --digest, where the value is the password alone."),
    click.option("--header", metavar="NAME[=TEMPLATE]", help="As a header; the template has one {}."),
    click.option("--cookie", metavar="NAME", help="As a cookie."),
    click.option("--query", metavar="NAME", help="As a query parameter."),
    click.option("--body-field", metavar="A.B", help="As a field of a JSON body."),
    click.option("--form-field", metavar="F", help="As a field of a form."),
    click.option("--placeholder", metavar="TEXT", help="In place of a text that the agent sends."),
    click.option(
        "--in",
        "places",
        multiple=True,
        metavar="PLACE",
        help="Where: header (unless said), query, path, body, frame; may be repeated.",
    ),
    click.option("--sigv4", is_flag=True, help="Sign again what an AWS SDK signed with placeholder keys."),
    click.option("--region", metavar="R", help="For --sigv4: the only region; the client's unless said."),
    click.option("--aws-service", metavar="S", help="For --sigv4: the only AWS service; the client's unless said."),
    click.option("--sql", is_flag=True, help="As the login of a session; the secret has username and password."),
    click.option("--database", metavar="NAME", help="For --sql: the only database; the client's unless said."),
    click.option("--inject", metavar="KIND", help=f"In any way: {', '.join(KINDS)}. See: keyhole service kinds."),
    click.option("--option", "settings", multiple=True, metavar="NAME=VALUE", help="Of --inject; may be repeated."),
)


def way_options(function: F) -> F:
    """The options with which a way of attaching is named."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def inject_of(options: dict[str, Any]) -> dict[str, Any]:
    """The ``inject`` object of the one way that was named.

    Raises:
        InvalidRequest: none was named, or several, or an option belongs to another way.
    """
    ways = list(
        filter(
            None,
            (_login(options), _placed(options), _placeholder(options), _signed(options), _sql(options), _any(options)),
        )
    )
    ways += [{"kind": kind} for kind in ("bearer", "oauth2") if options[kind]]
    if len(ways) != 1 or (options["basic"] and options["digest"]):
        raise InvalidRequest(
            f"{'several ways' if ways else 'no way'} of attaching the secret",
            "say one of --bearer --basic --header --query --placeholder and their like: keyhole service add --help",
        )
    return ways[0]


def _login(options: dict[str, Any]) -> dict[str, Any] | None:
    kind = "basic" if options["basic"] else "digest" if options["digest"] else ""
    if not kind:
        return None
    return {"kind": kind, **({"user": options["user"]} if options["user"] else {})}


def _placed(options: dict[str, Any]) -> dict[str, Any] | None:
    ways: list[dict[str, Any]] = []
    if options["header"]:
        header, mark, template = options["header"].partition("=")
        ways.append({"kind": "header", "name": header, "template": template if mark else "{}"})
    for option, kind, name in (
        ("cookie", "cookie", "name"),
        ("query", "query", "name"),
        ("body_field", "body", "field"),
        ("form_field", "form", "field"),
    ):
        if options[option]:
            ways.append({"kind": kind, name: options[option]})
    if len(ways) > 1:
        raise InvalidRequest("several ways of attaching the secret", "make a service for each")
    return ways[0] if ways else None


def _placeholder(options: dict[str, Any]) -> dict[str, Any] | None:
    if not options["placeholder"]:
        if options["places"]:
            raise InvalidRequest("--in is about a placeholder", "say --placeholder TEXT as well")
        return None
    places = [place.strip() for said in options["places"] or ("header",) for place in said.split(",")]
    return {"kind": "placeholder", "text": options["placeholder"], "in": list(dict.fromkeys(places))}


def _signed(options: dict[str, Any]) -> dict[str, Any] | None:
    said = {"region": options["region"], "service": options["aws_service"]}
    if options["sigv4"]:
        return {"kind": "sigv4", **{name: value for name, value in said.items() if value}}
    if any(said.values()):
        raise InvalidRequest("--region and --aws-service are about requests to AWS", "say --sigv4 as well")
    return None


def _sql(options: dict[str, Any]) -> dict[str, Any] | None:
    if options["sql"]:
        return {"kind": SQL, **({"database": options["database"]} if options["database"] else {})}
    if options["database"]:
        raise InvalidRequest("--database is about a session with a database", "say --sql as well")
    return None


def _any(options: dict[str, Any]) -> dict[str, Any] | None:
    """``--inject KIND --option NAME=VALUE``, for every kind there is."""
    if not options["inject"]:
        if options["settings"]:
            raise InvalidRequest("--option is about --inject", "say --inject KIND as well: keyhole service kinds")
        return None
    data: dict[str, Any] = {"kind": options["inject"]}
    for text in options["settings"]:
        name, mark, value = text.partition("=")
        if not mark or not name or name in data:
            raise InvalidRequest("an option of --inject is not NAME=VALUE, or stands twice", "--option name=X-Api-Key")
        data[name] = _value(value)
    return data


def _value(text: str) -> Any:
    """A text, or an object or list where it is written as JSON; ``{}`` is the text of a template."""
    try:
        found = json.loads(text) if text[:1] in {"{", "["} else None
    except (ValueError, RecursionError):
        found = None
    return found or text


def described(name: str, kind: Kind) -> dict[str, Any]:
    """What is known of a kind, JSON-ready."""
    return {
        "kind": name,
        "help": kind.help,
        "options": {option.name: option.help for option in kind.options},
        "fields": [list(names) for names in kind.fields],
    }
