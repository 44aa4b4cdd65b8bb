"""``doctor``: what works here, what does not, and what to do about it."""

from __future__ import annotations

import asyncio
import platform
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from keyhole.cli.base import Session, command, pass_session
from keyhole.core.errors import KeyholeError, Unreachable
from keyhole.faces.run.child import run_child
from keyhole.faces.run.plan import RunPlan, SandboxReport

# Program -> what to know about it.
_CLIENTS = {
    "curl": "",
    "git": "over HTTPS; ssh goes around the broker",
    "node": "",
    "python3": "",
    "gh": "",
    "npm": "",
    "pip": "",
    "claude": "",
    "codex": "",
}
_NODE_WITH_PROXY = 22
_NOWHERE = "https://doctor.invalid/"  # a name that never exists (RFC 6761, section 6.4)
_MARKS = {"ok": "ok  ", "note": "note", "bad": "BAD "}
_VIOLATION = 1


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what.
        state: ``ok``; ``note`` for what works less well; ``bad`` for what does not work.
        detail: in words, with the next step.
    """

    name: str
    state: Literal["ok", "note", "bad"]
    detail: str


@command("doctor", examples="keyhole doctor\nkeyhole doctor --json")
@pass_session
def doctor_command(session: Session, /) -> int:
    """Check this machine and this vault: seal, sandbox, proxy, CA, and the clients that are here.

    Ends with 1 when something does not work.
    """
    findings: list[Finding] = []
    for check in (_system, _vault, _road, _sandbox, _clients):
        findings += _guarded(check, session)
    data = [asdict(finding) for finding in findings]
    session.out.result(data, [f"{_MARKS[f.state]} {f.name:<9} {f.detail}" for f in findings])
    return _VIOLATION if any(finding.state == "bad" for finding in findings) else 0


def _guarded(check: Callable[[Session], Iterator[Finding]], session: Session) -> list[Finding]:
    try:
        return list(check(session))
    except KeyholeError as error:
        return [Finding(check.__name__.strip("_"), "bad", str(error))]


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
    unattended = "opens without a person" if kind in {"keychain", "keyfile"} else "asks a person at each opening"
    yield Finding("seal", "ok", f"{kind}: {unattended}")


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


def _clients(_session: Session) -> Iterator[Finding]:
    for program, remark in _CLIENTS.items():
        path = shutil.which(program)
        if path is None:
            continue
        if program == "node" and (version := _node_version(path)) < _NODE_WITH_PROXY:
            yield Finding("client", "note", f"node {version}: its fetch ignores proxies; {_NODE_WITH_PROXY} does not")
        else:
            yield Finding("client", "ok", f"{program}{f' ({remark})' if remark else ''}")


def _node_version(path: str) -> int:
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout  # noqa: S603  # the user's own
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.match(r"v(\d+)\.", said)
    return int(found[1]) if found else 0
