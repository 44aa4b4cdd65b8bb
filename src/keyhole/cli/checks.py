"""Options of ``service add`` that say what a call must be: conditions, limits, approval.

A condition is written ``NAME=VALUE``, ``NAME=ONE|OTHER``, ``NAME=dev-*``, ``NAME<=100``, ``NAME>=1``, or ``NAME!`` for
one that must not be there; ``?`` behind the name lets it be absent. Names are those of query parameters, or JSON
pointers into the body, where ``5``, ``true`` and ``null`` are themselves and ``"5"`` is a text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from keyhole.core.checks.rules import FIELDS, Checks
from keyhole.core.errors import InvalidRequest

F = TypeVar("F", bound=Callable[..., Any])
_FORM = re.compile(r"(?P<name>[^=<>!?]+)(?P<optional>\?)?(?:(?P<absent>!)|(?P<sign>=|<=|>=)(?P<value>.*))", re.DOTALL)
_LITERAL = re.compile(r'-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?|true|false|null|".*"', re.DOTALL)
_HINT = "write NAME=VALUE, NAME=ONE|OTHER, NAME=dev-*, NAME<=100, NAME>=1 or NAME!; NAME?… where it may be absent"
_LARGEST = 1024 * 1024  # bytes of a file


def check_options(function: F) -> F:
    """The options."""
    options = (
        click.option(
            "--query-condition", "query_conditions", metavar="TEST", help="amount<=100, dry_run=true", multiple=True
        ),
        click.option(
            "--body-condition", "body_conditions", metavar="TEST", help="/amount<=5000, /to/admin!", multiple=True
        ),
        click.option(
            "--graphql", metavar="TYPE", help="query, mutation or subscription; nothing else passes.", multiple=True
        ),
        click.option(
            "--graphql-field", "graphql_fields", metavar="FIELD", help="Allowed with all below it.", multiple=True
        ),
        click.option(
            "--graphql-deny", "graphql_denied", metavar="FIELD", help="Denied: viewer.email, **.email", multiple=True
        ),
        click.option("--git", type=click.Choice(["fetch", "push"]), help="Requests of git only; push may fetch too."),
        click.option(
            "--hours", metavar="HOURS", help="'Mon-Fri 08:00-18:00 Europe/Berlin'; may be repeated.", multiple=True
        ),
        click.option("--until", metavar="TIME", help="Closed from this time on."),
        click.option("--rate", metavar="N/TIME", help="Calls of each agent, evenly: 10/m."),
        click.option("--count", metavar="N/TIME", help="Calls of each agent in all: 100/d."),
        click.option("--concurrent", type=click.IntRange(1), metavar="N", help="Calls of each agent at once."),
        click.option(
            "--approve", "approvals", metavar="WHAT", help="'POST /v1/charges': a person decides.", multiple=True
        ),
        click.option("--approval-wait", metavar="TIME", help="Hold such calls so long instead of refusing them."),
        click.option("--approval-ttl", metavar="TIME", help="How long a request waits; 1h unless said."),
        click.option("--conditions-from", metavar="FILE", help="Conditions, limits and approval as JSON."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def read_checks(options: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a service that the options and the file say. Raises ``InvalidRequest``."""
    found = _from_file(options["conditions_from"]) if options["conditions_from"] else {}
    if condition := _condition(options):
        known = found.get("conditions") or []
        found["conditions"] = [*(known if isinstance(known, list) else [known]), condition]
    limits = {name: options[name] for name in ("rate", "count", "concurrent") if options[name]}
    if limits:
        found["limits"] = limits
    if options["approvals"]:
        found["approval"] = _approval(options)
    elif options["approval_wait"] or options["approval_ttl"]:
        raise InvalidRequest("nothing is to be approved", "say what: --approve 'POST /v1/charges', or --approve all")
    return found


def lines(data: Mapping[str, Any]) -> list[str]:
    """What the checks of a stored service ask, in words."""
    checks = Checks.from_data(data)
    return [] if checks is None else checks.lines()


def without_checks(data: Mapping[str, Any]) -> dict[str, Any]:
    """The other fields of a stored service."""
    return {name: value for name, value in data.items() if name not in FIELDS}


def _condition(options: Mapping[str, Any]) -> dict[str, Any]:
    condition: dict[str, Any] = {}
    if options["query_conditions"]:
        condition["query"] = _tests(options["query_conditions"], literals=False)
    if options["body_conditions"]:
        condition["body"] = body_tests(options["body_conditions"])
    if options["graphql"] or options["graphql_fields"] or options["graphql_denied"]:
        said = {"fields": options["graphql_fields"], "deny_fields": options["graphql_denied"]}
        condition["graphql"] = {"operations": list(options["graphql"] or ["query"])}
        condition["graphql"] |= {name: list(fields) for name, fields in said.items() if fields}
    return condition | {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in ((name, options[name]) for name in ("git", "hours", "until"))
        if value
    }


def body_tests(texts: Sequence[str]) -> list[dict[str, Any]]:
    """Conditions on members of a document, such as ``/amount<=5000``. Raises ``InvalidRequest``."""
    return [{"at": name, **test} for name, test in _tests(texts, literals=True).items()]


def _tests(texts: Sequence[str], *, literals: bool) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        match = _FORM.fullmatch(text)
        if match is None:
            raise InvalidRequest("a condition is not written as one", _HINT)
        test = _test(match, literals=literals)
        known = found.setdefault(match["name"], {})
        if known.keys() & (test.keys() - {"optional"}):
            raise InvalidRequest(f"there are two conditions of one kind on {match['name']!r}", _HINT)
        known.update(test)
    return found


def _test(match: re.Match[str], *, literals: bool) -> dict[str, Any]:
    optional = {"optional": True} if match["optional"] else {}
    if match["absent"]:
        return {"absent": True}
    value = match["value"]
    if match["sign"] != "=":
        return {"max" if match["sign"] == "<=" else "min": value, **optional}
    if "*" in value:
        return {"like": value, **optional}
    return {"in": [_literal(each) if literals else each for each in value.split("|")], **optional}


def _literal(text: str) -> Any:
    if not _LITERAL.fullmatch(text):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _approval(options: Mapping[str, Any]) -> dict[str, Any]:
    rules = []
    for text in options["approvals"]:
        words = text.split()
        methods = [word for word in words if not word.startswith("/")]
        rules.append({"methods": ",".join(methods).split(","), "paths": [word for word in words if word[0] == "/"]})
        if len(methods) > 1 or not words:
            raise InvalidRequest("what is to be approved is not written as METHODS PATHS", "--approve 'POST /v1/pay'")
        if not methods or methods == ["all"]:
            rules[-1]["methods"] = []
    said = {"wait": options["approval_wait"], "ttl": options["approval_ttl"]}
    scope = [{name: values for name, values in rule.items() if values} for rule in rules]
    return {
        "required": True,
        **({"for": scope} if all(scope) else {}),  # one that names nothing is for everything
        **{name: value for name, value in said.items() if value},
    }


def _from_file(name: str) -> dict[str, Any]:
    try:
        with Path(name).open("rb") as file:
            text = file.read(_LARGEST + 1)
        data = json.loads(text) if len(text) <= _LARGEST else None
    except OSError as error:
        raise InvalidRequest(f"{name}: {error.strerror}", "check --conditions-from") from None
    except (ValueError, RecursionError):
        raise InvalidRequest(f"{name}: not JSON", 'for example {"limits": {"rate": "10/m"}}') from None
    if isinstance(data, dict) and data.keys() <= set(FIELDS):
        return data
    if isinstance(data, dict | list):
        return {"conditions": data}
    raise InvalidRequest(f"{name}: neither conditions nor an object with {', '.join(FIELDS)}", "see docs/service.md")
