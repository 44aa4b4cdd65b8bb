"""``policy capture`` and ``policy replay``: what changed rules would have decided of calls that were made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from keyhole.cli.base import Session, group, pass_session
from keyhole.cli.names import agents, policies, services
from keyhole.core.errors import InvalidRequest
from keyhole.core.path import parse_name, parse_policy_name

_CAPTURE, _REPLAY = "sys/policy-capture", "sys/policy-replay"
DIFFERENT, CANNOT_TELL = 1, 2
_KINDS = {
    "newly_refused": "allowed, would be refused",
    "newly_allowed": "refused, would be allowed",
    "another_service": "would go through another service",
    "undecided": "cannot be told",
}


@group("capture", examples="keyhole policy capture on --for 7d\nkeyhole policy capture show")
def capture() -> None:
    """Note what calls ask of the rules, without any value, for policy replay."""


@capture.command("on", examples="keyhole policy capture on\nkeyhole policy capture on --for 7d --most 50000 --keep 14d")
@click.option("--for", "for_", metavar="DURATION", help="How long; 1d unless said, at most 30d.")
@click.option("--most", type=int, metavar="N", help="Calls at most; 20000 unless said.")
@click.option("--keep", metavar="DURATION", help="How long notes are kept; 7d unless said, at most 90d.")
@pass_session
def on(session: Session, /, *, for_: str | None, most: int | None, keep: str | None) -> None:
    """Begin to note calls of this org: who asked what of which host, and what was answered. It ends by itself."""
    asked = {"for": for_, "most": most, "keep": keep}
    data = session.client.write(_CAPTURE, {name: value for name, value in asked.items() if value is not None}).data
    bounds = f"until {data['until']}, {data['most']} at most"
    session.out.done(data, f"calls are noted {bounds}, and kept for {data['keep']}")


@capture.command("show", examples="keyhole policy capture show")
@pass_session
def show(session: Session, /) -> None:
    """What is noted and how many calls there are."""
    data = session.client.read(_CAPTURE).data
    state = "on" if data["on"] else "ended"
    lines = [f"{state}, since {data['since']} until {data['until']}, turned on by {data['by']}"]
    lines.append(f"{data['calls']} calls of at most {data['most']}, kept for {data['keep']}")
    if data["missed"]:
        lines.append(f"{data['missed']} calls came faster than they could be stored")
    session.out.result(data, lines)


@capture.command("off", examples="keyhole policy capture off\nkeyhole policy capture off --forget")
@click.option("--forget", is_flag=True, help="Remove what was noted.")
@pass_session
def off(session: Session, /, *, forget: bool) -> None:
    """Note no more calls. What was noted stays for its time, unless it is to be forgotten."""
    session.client.delete(f"{_CAPTURE}/calls" if forget else _CAPTURE)
    what = "no calls are noted, and what was noted is removed" if forget else "no more calls are noted"
    session.out.done({"on": False, "forgotten": forget}, what)


@click.option(
    "--policy",
    "changed",
    multiple=True,
    metavar="NAME=FILE",
    shell_complete=policies,
    help="As it would be.",
)
@click.option(
    "--without-policy", "removed", multiple=True, metavar="NAME", shell_complete=policies, help="As if it were removed."
)
@click.option(
    "--service",
    "services_",
    multiple=True,
    metavar="NAME=FILE",
    shell_complete=services,
    help="As it would be: JSON, as service show --json gives it.",
)
@click.option(
    "--without-service", "gone", multiple=True, metavar="NAME", shell_complete=services, help="As if it were removed."
)
@click.option("--egress", type=click.Choice(("deny", "allow", "log")), help="As the org's rule would be.")
@click.option("--agent", metavar="NAME", shell_complete=agents, help="Only calls of this agent.")
@click.option("--after", metavar="TIME", help="Only calls since then, such as 2026-11-20.")
@click.option("--examples", type=int, metavar="N", help="Calls of each kind that are shown; 5 unless said.")
@pass_session
def replay(session: Session, /, **options: Any) -> int:
    """What changed rules would have decided of the calls that were noted. Nothing is changed.

    Without a change the rules of today are held against the answers that were given then. What saw a value cannot be
    asked again and is named: conditions on bodies, parameters, GraphQL and git, rates, counts and approvals.

    Exit code 0 if every call would be decided as before, 1 if one would not, 2 if that cannot be told.
    """
    _require_once(options["changed"], options["removed"])
    _require_once(options["services_"], options["gone"])
    asked: dict[str, Any] = {
        "policies": {parse_policy_name(name): text for name, text in map(_file, options["changed"])}
        | {parse_policy_name(name): None for name in options["removed"]},
        "services": {parse_name(name): _service(name, text) for name, text in map(_file, options["services_"])}
        | {parse_name(name): None for name in options["gone"]},
    }
    asked |= {name: options[name] for name in ("egress", "agent", "after", "examples") if options[name] is not None}
    answer = session.client.write(_REPLAY, asked)
    data = answer.data
    session.out.result(data, _lines(data))
    for warning in answer.warnings:
        session.out.warn(warning)
    if not data["calls"]:
        session.out.warn("no calls are noted that could be asked about: keyhole policy capture show")
        return CANNOT_TELL
    if data["newly_refused"] or data["newly_allowed"] or data["another_service"]:
        return DIFFERENT
    return CANNOT_TELL if data["undecided"] else 0


def _require_once(changed: Sequence[str], removed: Sequence[str]) -> None:
    names = [text.partition("=")[0] for text in changed] + list(removed)
    for name in names:
        if names.count(name) > 1:
            raise InvalidRequest(f"{name[:80]} is changed twice", "say once what becomes of it")


def _file(text: str) -> tuple[str, str]:
    name, mark, path = text.partition("=")
    if not (name and mark and path):
        raise InvalidRequest("a change is written NAME=FILE", "keyhole policy replay --policy ops=ops.hcl")
    try:
        return name, Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise InvalidRequest(f"{path} cannot be read: {why}", "name a file that can be read") from None


def _service(name: str, text: str) -> Any:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        hint = f"begin with what there is: keyhole service show {name} --json"
        raise InvalidRequest(f"the file of the service {name} is not JSON", hint) from None
    return {key: value for key, value in data.items() if key != "name"} if isinstance(data, dict) else data


def _lines(data: dict[str, Any]) -> list[str]:
    same = data["calls"] - sum(data[kind] for kind in _KINDS)
    lines = [f"{data['calls']} calls" + (f" from {data['first']} to {data['last']}" if data["calls"] else "")]
    lines.append(f"{same:>7}  as before")
    lines += [f"{data[kind]:>7}  {words}" for kind, words in _KINDS.items() if data[kind]]
    if data["decided_otherwise_then"]:
        lines.append(f"{data['decided_otherwise_then']:>7}  were decided otherwise then than the rules of today would")
    if data["not_asked"]:
        lines.append(f"{data['not_asked']:>7}  have no path that could be kept")
    lines += [f"{number:>7}  also depend on {what}, which is not replayed" for what, number in data["depends"].items()]
    for kind, told in data["examples"].items():
        lines.append(f"{_KINDS[kind]}:")
        lines += [f"  {each['agent']} {each['method']} {each['url']}: {_answer(each['after'])}" for each in told]
    return lines


def _answer(answer: dict[str, Any]) -> str:
    if not answer["allowed"]:
        return f"{answer['code']}: {answer['reason']}"
    way = f"through {answer['service']}" if answer.get("service") else "without a service"
    return f"{way}, if {' and '.join(answer['depends'])} let it" if answer.get("depends") else way
