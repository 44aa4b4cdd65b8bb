"""``doctor``: what works here, what does not, and what to do about it."""

from __future__ import annotations

import asyncio
import platform
import shutil
import ssl
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import click

from keyhole.cli.base import Session, command, pass_session
from keyhole.cli.granted import DEFAULT_AGENT, granted
from keyhole.cli.names import agents, services
from keyhole.cli.names import clients as client_names
from keyhole.core.errors import InvalidRequest, KeyholeError, NotFound, PolicyDenied, Unreachable
from keyhole.core.sql import SQL
from keyhole.faces.run.child import run_child
from keyhole.faces.run.plan import RunPlan, SandboxReport

if TYPE_CHECKING:
    from keyhole.trial import KnownClient, Trial

_AGENTS = ("claude", "codex", "cursor-agent", "gemini", "opencode")  # programs that run is for; they are not started
_NOWHERE = "https://doctor.invalid/"  # a name that never exists (RFC 6761, section 6.4)
_MARKS = {"ok": "ok  ", "note": "note", "bad": "BAD "}
_VIOLATION = 1
_ESCAPES = "-"  # no agent's name


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what.
        state: ``ok``; ``note`` for what works less well; ``bad`` for what does not work.
        detail: in words, with the next step.
        data: for a script: what was found of a client or of a host.
    """

    name: str
    state: Literal["ok", "note", "bad"]
    detail: str
    data: dict[str, Any] | None = None


_Check = Callable[[Session], Iterator[Finding]]


@command(
    "doctor",
    examples="""
    keyhole doctor
    keyhole doctor --client node --client curl
    keyhole doctor --service stripe --agent coder --json
    keyhole run -- keyhole doctor --agent                      # from inside: which ways out are open?
    """,
)
@click.option(
    "--agent",
    shell_complete=agents,
    metavar="[NAME]",
    is_flag=False,
    flag_value=_ESCAPES,
    default="",
    help=f"Whose services are meant; {DEFAULT_AGENT} unless said. Without a name: try the ways out, as an agent would.",
)
@click.option(
    "--client",
    "clients",
    shell_complete=client_names,
    metavar="NAME",
    multiple=True,
    help="Try this client only; may be repeated.",
)
@click.option(
    "--service", shell_complete=services, metavar="NAME", default="", help="Look at the way to this service only."
)
@pass_session
def doctor_command(session: Session, /, *, agent: str, clients: tuple[str, ...], service: str) -> int:
    """Check this machine and this vault: seal, sandbox, proxy, CA, and every HTTP client that is here.

    Each client makes one request as a child of run would, to an API of our own on this machine: does it use the proxy,
    trust the CA, and get in with a key that it does not have? Nothing goes to the internet, and nothing is left behind.
    With --service the hosts of a service are connected to, without sending a credential or a request.

    With --agent and no name it tries the ways out of a sandbox, from where it is: as a command of run, or without one.

    Ends with 1 when something does not work, or a way is open.
    """
    if agent == _ESCAPES:
        return _escapes(session)
    known = _known(clients)
    checks: list[_Check] = []
    if not (clients or service):
        checks = [_system, _vault, _road, _ends, partial(_agent, agent), _sandbox, _agents]
    if service:
        checks += [partial(_service, service, agent)]
    if clients or not service:
        checks += [partial(_clients, known, bool(clients))]
    findings: list[Finding] = []
    for check in checks:
        findings += _guarded(check, session)
    data = [{name: value for name, value in asdict(finding).items() if value is not None} for finding in findings]
    session.out.result(data, [f"{_MARKS[f.state]} {f.name:<9} {f.detail}" for f in findings])
    return _VIOLATION if any(finding.state == "bad" for finding in findings) else 0


def _escapes(session: Session) -> int:
    """Try the ways out. The vault takes no part: it is one of the things that are not to be reached."""
    from keyhole.trial.escapes import tries  # noqa: PLC0415  # --help needs none

    found = list(tries())
    width = max(len(escape.name) for escape in found)
    marks = {"held": "held", "open": "OPEN", "not tried": "----"}
    lines = [f"{marks[escape.state]} {escape.name:<{width}}  {escape.detail}" for escape in found]
    session.out.result([asdict(escape) for escape in found], lines)
    return _VIOLATION if any(escape.state == "open" for escape in found) else 0


def _known(names: tuple[str, ...]) -> list[KnownClient]:
    from keyhole.trial.known import load_clients  # noqa: PLC0415  # --help needs none

    known = load_clients()
    for name in names:
        if name not in known:
            raise InvalidRequest("there is no client of this name that could be tried", f"one of: {' '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)] if names else list(known.values())


def _guarded(check: _Check, session: Session) -> list[Finding]:
    name = check.func.__name__ if isinstance(check, partial) else getattr(check, "__name__", "check")
    try:
        return list(check(session))
    except KeyholeError as error:
        return [Finding(name.strip("_").removesuffix("s"), "bad", _with_hint(error.reason, error.hint))]


def _with_hint(reason: str, hint: str) -> str:
    return f"{reason}: {hint}" if hint else reason


def _system(_session: Session) -> Iterator[Finding]:
    from keyhole.process import harden_process  # noqa: PLC0415  # --help needs no ctypes

    yield Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.release()}")
    if sys.platform != "linux":
        yield Finding("system", "note", "not tested here: Keyhole is tested on Linux")
    for missing in harden_process():
        yield Finding("memory", "note", missing)


def _vault(session: Session) -> Iterator[Finding]:
    status = session.client.read("sys/seal-status").data
    place = session.where.location
    if not status.get("initialized"):
        yield Finding("vault", "bad", f"there is none in {place}: keyhole init")
        return
    kind = status.get("type") or "unknown"
    if session.where.remote and status.get("sealed"):
        yield Finding("vault", "bad", f"{place} is sealed ({kind}): keyhole operator unseal")
        return
    session.client.read("sys/keyhole")  # opens a local vault
    yield Finding("vault", "ok", place)
    asks = kind == "shamir" or status.get("asks_for", kind == "passphrase")
    yield Finding("seal", "ok", f"{kind}: {'asks a person at each opening' if asks else 'opens without a person'}")


def _road(session: Session) -> Iterator[Finding]:
    data = session.client.read("sys/keyhole").data
    where = data["proxy"] if session.where.remote else "starts on a free port"
    try:
        session.client.call("GET", _NOWHERE)
    except Unreachable as error:
        yield Finding("proxy", "bad", str(error))
    except KeyholeError:  # the broker answers
        yield Finding("proxy", "ok", f"{where}; hosts without a service: {data['egress']}")
    else:
        yield Finding("proxy", "note", f"{where}; something answers for every name: {_NOWHERE}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=str(data["ca"]))
    [certificate] = context.get_ca_certs()
    yield Finding("ca", "ok", f"of the org {data['org']}, until {certificate['notAfter']}")


def _ends(session: Session) -> Iterator[Finding]:
    """What comes near its end. Who may not ask for that is not told."""
    try:
        data = session.client.write("sys/notices/check", {}).data
    except PolicyDenied:
        return
    for each in data["secrets"]:
        state: Literal["note", "bad"] = "bad" if each["past"] and each["what"] == "expires" else "note"
        said = "needs a new value by" if each["what"] == "rotation" else "has expired" if each["past"] else "expires"
        name = each["name"].removeprefix("secret/")
        yield Finding("expiry", state, f"{each['name']} {said} {each['at']}: keyhole set {name}", each)
    if data["waiting"]:
        yield Finding("notices", "note", f"{data['waiting']} could not be sent yet: keyhole notice list")


def _sandbox(_session: Session) -> Iterator[Finding]:
    reports: list[SandboxReport] = []
    plan = RunPlan(("true",), "http://agent@127.0.0.1:9", b"")
    asyncio.run(run_child(plan, on_sandbox=reports.append, on_message=lambda _message: None))
    if not reports:
        yield Finding("sandbox", "bad", "no command could be started")
        return
    yield Finding("sandbox", "ok" if reports[0].level == "full" else "note", reports[0].level)
    for line in reports[0].missing:
        yield Finding("sandbox", "note", line)


def _agent(name: str, session: Session) -> Iterator[Finding]:
    try:
        gets = granted(session.client, name or DEFAULT_AGENT)
    except NotFound as error:
        if name:
            raise
        yield Finding("agent", "note", _with_hint(error.reason, "keyhole add NAME makes one and grants it a service"))
        return
    if not gets.services:
        yield Finding("agent", "note", f"{gets.agent} may use nothing yet: keyhole grant {gets.agent} SERVICE")
        return
    variables = ", ".join(sorted(gets.placeholders)) or "none"
    yield Finding("agent", "ok", f"{gets.agent} may use {', '.join(sorted(gets.services))}; variables: {variables}")
    for hidden in gets.hidden:
        detail = f"{hidden.name} of the service {hidden.service} is taken by another service"
        yield Finding("agent", "note", f"{detail}: keyhole revoke {gets.agent} one of them")


def _agents(_session: Session) -> Iterator[Finding]:
    for program in filter(shutil.which, _AGENTS):
        yield Finding("program", "ok", f"{program} is here and was not started: keyhole run -- {program}")


def _service(name: str, agent: str, session: Session) -> Iterator[Finding]:
    """The way to a service: its hosts from where the vault is, and what an agent's call would meet."""
    for host in session.client.write("sys/reach", {"service": name}).data["hosts"]:
        place = f"{host['scheme']}://{host['host']}"
        if host["result"] == "pattern":
            yield Finding("host", "note", f"{place} stands for many names: ask with keyhole why GET https://NAME", host)
        elif host["result"] == "ok":
            proved = "resolves, is allowed, connects" + (", proves itself by TLS" if host["scheme"] == "https" else "")
            yield Finding("host", "ok", f"{place} {proved}; nothing was sent", host)
        else:
            detail = f"{place} {host['result']}: {_with_hint(host['reason'], host['hint'])}"
            yield Finding("host", "bad", detail, host)
    binding = session.client.read(f"services/{name}").data
    method, path = _harmless(binding)
    for scheme in binding["schemes"]:
        for host in binding["hosts"]:
            if host.startswith("*."):
                continue
            url = f"{scheme}://{host}{path}"
            question = {"method": method, "url": url, "agent": agent or DEFAULT_AGENT, "service": name}
            answer = session.client.write("sys/why", question).data
            who = f"{method} {url} as {answer['caller']}"
            if answer["allowed"]:
                yield Finding("why", "ok", f"{who} is allowed: {answer['inject']}", answer)
            else:
                error = answer["error"]
                yield Finding(
                    "why", "bad", f"{who} {error['code']}: {_with_hint(error['reason'], error['hint'])}", answer
                )


def _harmless(binding: dict[str, Any]) -> tuple[str, str]:
    """A call that the service is for, as far as its binding shows: its test, or what its rules name."""
    if binding["inject"]["kind"] == SQL:
        return "SESSION", "/"
    if test := binding.get("test"):
        return str(test.get("method", "GET")), str(test.get("path", "/")).partition("?")[0]
    methods = list(binding.get("methods") or ())
    path = next(iter(binding.get("paths") or ()), "/")
    return ("GET" if not methods or "GET" in methods else methods[0]), path.replace("**", "x").replace("*", "x")


def _clients(known: list[KnownClient], named: bool, session: Session) -> Iterator[Finding]:  # noqa: FBT001  # of a partial
    from keyhole.process import harden_process  # noqa: PLC0415  # --help needs no ctypes

    harden_process()
    found = asyncio.run(_try(known, session))
    for client in known:
        trial = found.get(client.name)
        if trial is not None:
            yield Finding("client", "ok" if trial.through else "bad", trial.describe(), asdict(trial))
        elif named:
            yield Finding("client", "bad", f"{client.name} is not here: {client.program} or its library is missing")


async def _try(known: list[KnownClient], session: Session) -> dict[str, Trial]:
    from keyhole.trial import Stage  # noqa: PLC0415  # loads all of Keyhole

    found = {}
    async with Stage.open() as stage:
        for client in known:
            if client.path and sys.stderr.isatty():
                session.out.say(f"trying {client.name} …")
            if (trial := await stage.attempt(client)) is not None:
                found[client.name] = trial
    return found
