"""The tools of the MCP server: what an agent can ask of its vault, and the one that makes a call.

Each tool asks as the agent, so that it can do what the agent's grants let it do and nothing else. No answer of theirs
has a value in it, but that of ``reveal_secret``, which is offered only where somebody has said so.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from keyhole.client.core import Result
from keyhole.client.travel import Answered, Trip
from keyhole.core.errors import InvalidRequest, KeyholeError
from keyhole.core.path import fields_of, parse_shown_ref, revealing

_TEXT = 256 * 1024  # bytes of an answer that a model is given, unless it asks for more
_MOST = 4 * 1024 * 1024


class Asker(Protocol):
    """A vault, asked as one agent."""

    def ask(self, operation: str, path: str, data: Mapping[str, Any] | None = None) -> Result:
        """Ask the vault. Raises what it refuses."""

    def call(self, trip: Trip) -> Answered:
        """Make a call through the broker. Raises what it refuses."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a tool gives back.

    Attributes:
        data: the result for programs, JSON-ready.
        text: the result for a model.
        failed: it is an error.
    """

    data: dict[str, Any]
    text: str
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool.

    Attributes:
        name: unique among them.
        description: for the model.
        properties: of its arguments, as JSON Schema.
        required: those that have to be there.
        run: does it. It may block.
        reads: it changes nothing.
    """

    name: str
    description: str
    properties: Mapping[str, Mapping[str, Any]]
    run: Callable[[Asker, Mapping[str, Any]], Outcome]
    required: tuple[str, ...] = ()
    reads: bool = True

    def schema(self) -> dict[str, Any]:
        """Of its arguments."""
        return {
            "type": "object",
            "properties": {name: dict(each) for name, each in self.properties.items()},
            "required": list(self.required),
            "additionalProperties": False,
        }

    def checked(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Arguments that are of its schema. Raises ``InvalidRequest``, which names the argument and not what it is.

        ``null`` is as if it were left out: some models say so of what they do not want.
        """
        arguments = {name: value for name, value in arguments.items() if value is not None}
        for name in arguments.keys() - self.properties.keys():
            known = ", ".join(self.properties)
            raise InvalidRequest(f"{self.name} takes no argument {name[:40]!r}", f"it takes {known or 'none'}")
        for name in self.required:
            if not arguments.get(name):
                raise InvalidRequest(f"{self.name} needs the argument {name!r}")
        for name, value in arguments.items():
            if not _is(value, str(self.properties[name]["type"])):
                raise InvalidRequest(f"the argument {name!r} of {self.name} is no {self.properties[name]['type']}")
        return arguments


def _is(value: Any, kind: str) -> bool:
    if kind == "string":
        return isinstance(value, str)
    if kind == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, str) for k, v in value.items())


def _list_services(asker: Asker, _arguments: Mapping[str, Any]) -> Outcome:
    found = asker.ask("read", "sys/what-can").data["services"]
    services = [{**each, "secret": each["secret"].removesuffix("#value")} for each in found]
    lines = [f"{each['name']}: {', '.join(each['hosts'])} (secret {each['secret']})" for each in services]
    return Outcome({"services": services}, "\n".join(lines) or "no service is granted; request_access asks for one")


def _list_secrets(asker: Asker, _arguments: Mapping[str, Any]) -> Outcome:
    found = asker.ask("read", "sys/what-can").data["services"]
    names = sorted({str(each["secret"]).removesuffix("#value") for each in found})
    return Outcome({"secrets": names}, "\n".join(names) or "no service is granted; request_access asks for one")


def _call(asker: Asker, arguments: Mapping[str, Any]) -> Outcome:
    body, fields = arguments.get("body"), arguments.get("body_field") or arguments.get("form_field")
    trip = Trip(
        str(arguments.get("method") or ("POST" if body is not None or fields else "GET")).upper(),
        arguments["url"],
        bearer=arguments.get("bearer") or "",
        basic=arguments.get("basic") or "",
        header=arguments.get("header") or {},
        query=arguments.get("query") or {},
        body_field=arguments.get("body_field") or {},
        form_field=arguments.get("form_field") or {},
        service=arguments.get("service") or "",
        headers=arguments.get("headers") or {},
        body=body,
        keep=min(max(int(arguments.get("max_bytes", _TEXT)), 0), _MOST),
    )
    answer = asker.call(trip)
    cut, left = answer.body[: trip.keep], len(answer.body[trip.keep :]) + answer.left
    data: dict[str, Any] = {
        "status": answer.status,
        "headers": [list(pair) for pair in answer.headers],
        "service": answer.service,
        "truncated": left > 0,
    }
    try:
        text = data["body"] = cut.decode(errors="replace" if left else "strict")
    except UnicodeDecodeError:
        data["body_base64"] = base64.b64encode(cut).decode()
        text = f"({len(cut)} bytes that are no text; see body_base64)"
    return Outcome(data, f"HTTP {answer.status}\n\n{text}" + (f"\n… {left} bytes more" if left else ""))


def _why(asker: Asker, arguments: Mapping[str, Any]) -> Outcome:
    question = {"method": str(arguments.get("method") or "GET").upper(), "url": arguments["url"]}
    if arguments.get("service"):
        question["service"] = arguments["service"]
    answer = asker.ask("update", "sys/why", question).data
    if answer["allowed"]:
        through = f"through the service {answer['service']}" if answer["service"] else "as it is, without a credential"
        return Outcome(answer, f"allowed, {through}")
    error = answer["error"]
    return Outcome(answer, f"refused: {error['code']}: {error['reason']}; {error['hint']}".rstrip("; "))


def _status(asker: Asker, _arguments: Mapping[str, Any]) -> Outcome:
    me = asker.ask("read", "auth/token/lookup-self").data
    services = asker.ask("read", "sys/what-can").data
    agent, count, ttl = services["agent"], len(services["services"]), me.get("ttl", 0)
    drift = asker.ask("read", "sys/own/drift").data["drift"]
    data = {"agent": agent, "services": count, "token_ttl_seconds": ttl, "drift": drift}
    lines = [f"you are {agent}", f"services that you may use: {count}", f"your token ends in {ttl} s"]
    lines += [f"{each['service']} does not work now: {each['code']}: {each['reason']}" for each in drift]
    return Outcome(data, "\n".join(lines))


def _request_access(asker: Asker, arguments: Mapping[str, Any]) -> Outcome:
    wish = {"service": arguments["service"], "reason": arguments.get("reason") or ""}
    data = asker.ask("update", "sys/own/requests", wish).data
    return Outcome(data, f"asked: {data['id']} is {data['state']}; a person decides: keyhole approve {data['id']}")


def _my_requests(asker: Asker, _arguments: Mapping[str, Any]) -> Outcome:
    data = asker.ask("read", "sys/own/requests").data
    lines = [f"{each['id']} {each['state']} {each['service']} until {each['expires']}" for each in data["requests"]]
    return Outcome(data, "\n".join(lines) or "you wait for nothing")


def _my_leases(asker: Asker, _arguments: Mapping[str, Any]) -> Outcome:
    data = asker.ask("read", "sys/own/leases").data
    lines = [f"{each['lease_id']} until {each['expires']}" for each in data["leases"]]
    return Outcome(data, "\n".join(lines) or "nothing is leased to you")


def _my_audit(asker: Asker, arguments: Mapping[str, Any]) -> Outcome:
    wanted = {name: value for name, value in arguments.items() if value not in ("", None)}
    data = asker.ask("read", "sys/own/audit-log", {"limit": 50, **wanted}).data
    lines = [
        " ".join(str(record.get(name) or "-") for name in ("time", "result", "operation", "service", "path"))
        for record in data["records"]
    ]
    return Outcome(data, "\n".join(lines) or "no records")


def _reveal(asker: Asker, arguments: Mapping[str, Any]) -> Outcome:
    path, name = parse_shown_ref(arguments["secret"])
    fields = fields_of(asker.ask("read", revealing(path)).data)
    if name not in fields:
        raise InvalidRequest(f"{path} has no field {name!r}")
    return Outcome({"secret": f"{path}#{name}", "value": fields[name]}, str(fields[name]))


_SECRETS: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "string"}}
_NAME: dict[str, Any] = {"type": "string"}


@dataclass(frozen=True, slots=True)
class Shelf:
    """The tools that a server offers.

    Args:
        reveal: offer the one that gives values to who may read them.
    """

    reveal: bool = False
    tools: Mapping[str, Tool] = field(init=False)

    def __post_init__(self) -> None:
        found = (*_TOOLS, _REVEAL) if self.reveal else _TOOLS
        object.__setattr__(self, "tools", {tool.name: tool for tool in found})

    def use(self, asker: Asker, name: str, arguments: Mapping[str, Any]) -> Outcome:
        """Run a tool. A refusal is an outcome with its code, its reason and the next step."""
        try:
            tool = self.tools.get(name)
            if tool is None:
                raise InvalidRequest(f"there is no tool {name[:60]!r}", f"there are {', '.join(self.tools)}")
            return tool.run(asker, tool.checked(arguments))
        except KeyholeError as error:
            return refused(error)


def refused(error: KeyholeError) -> Outcome:
    """What a tool gives back that did not do it."""
    detail = {"code": error.code, "reason": error.reason, "hint": error.hint, "request_id": error.request_id}
    text = f"{error.code}: {error.reason}" + (f"\nnext: {error.hint}" if error.hint else "")
    return Outcome({"error": detail}, text, failed=True)


def _described(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": text, **more}


_TOOLS = (
    Tool(
        "list_services",
        "The services you may use: names, hosts, and the name of the secret of each.",
        {},
        _list_services,
    ),
    Tool("list_secrets", "Names of the secrets that your services attach. Values are never shown.", {}, _list_secrets),
    Tool(
        "call",
        "Make an HTTP request with a credential attached to it on the way, so that you need not have it. Name a "
        "service, or a secret and where it goes (one of bearer, basic, header, query, body_field, form_field). Write "
        "no key or token into url, headers or body.",
        {
            "url": _described("absolute URL"),
            "method": _described("GET unless said; POST with a body"),
            "headers": {**_SECRETS, "description": "headers without a secret"},
            "body": _described("the body, as text"),
            "service": _described("name of the service to use"),
            "bearer": _described("name of the secret for Authorization: Bearer"),
            "basic": _described("name of the secret for Authorization: Basic"),
            "header": {**_SECRETS, "description": "header name to name of a secret"},
            "query": {**_SECRETS, "description": "query parameter to name of a secret"},
            "body_field": {**_SECRETS, "description": "path in the JSON body, such as auth.key, to name of a secret"},
            "form_field": {**_SECRETS, "description": "form field to name of a secret"},
            "max_bytes": {"type": "integer", "description": f"of the answer's body; {_TEXT} unless said"},
        },
        _call,
        required=("url",),
        reads=False,
    ),
    Tool(
        "why",
        "Whether a request would be let through, and by which service, or exactly why not. Nothing is sent.",
        {"url": _described("absolute URL"), "method": _NAME, "service": _NAME},
        _why,
        required=("url",),
    ),
    Tool(
        "status",
        "Who you are here, how many services you may use, which of them do not work now, and when your token ends.",
        {},
        _status,
    ),
    Tool(
        "request_access",
        "Ask a person to let you use a service. See my_requests for what became of it.",
        {"service": _described("its name"), "reason": _described("what you need it for")},
        _request_access,
        required=("service",),
        reads=False,
    ),
    Tool("my_requests", "What you have asked for, and what was decided.", {}, _my_requests),
    Tool("my_leases", "What was leased to you, and until when.", {}, _my_leases),
    Tool(
        "my_audit",
        "Your own records in the audit trail.",
        {
            **dict.fromkeys(("service", "result", "secret"), _NAME),
            **{name: _described(f"of this {name} only") for name in ("workflow", "run", "step", "tool")},
            "after": _described("a time, such as 2027-01-31T12:00:00Z"),
            "before": _described("a time"),
            "limit": {"type": "integer"},
        },
        _my_audit,
    ),
)
_REVEAL = Tool(
    "reveal_secret",
    "The value of a secret. It is recorded as a reveal, and takes the right to read it. Prefer call.",
    {"secret": _described("its name, such as stripe/api-key, db/prod#password or /team/data/stripe/api-key")},
    _reveal,
    required=("secret",),
)
