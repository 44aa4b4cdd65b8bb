"""What a record says of a call, and what none says: in no record is a value, wherever in a request it stood."""

from __future__ import annotations

from typing import Any, NamedTuple

from keyhole.broker.directory import Match
from keyhole.broker.tripwires import Tripwires
from keyhole.broker.watch import Tripped
from keyhole.core.errors import KeyholeError
from keyhole.core.host import Authority
from keyhole.core.identity import Caller
from keyhole.core.message import Call
from keyhole.core.record import Phase, Record, clip, parameter_names
from keyhole.core.request import Operation, Request
from keyhole.scrub import Scrubber
from keyhole.vault.compiled import OrgState
from keyhole.vault.keys import new_request_id
from keyhole.vault.vault import Vault

RULE = "tripwire"


class Connecting(NamedTuple):
    """A CONNECT: with what, where to, through which service, and from which address."""

    credential: bytes
    authority: Authority
    service: str
    remote: str

    def request(self) -> Request:
        """As a record shows it. Of one that is granted there is none: what is asked in the tunnel is recorded."""
        data = {"host": str(self.authority), "method": "CONNECT"}
        return Request(self.credential, Operation.USE, "services", data, "", self.remote, new_request_id())


def egress(caller: Caller, request: Request, rule: str) -> Record:
    """The intent of a call to a host without any service, which the org's rule lets out."""
    fields: dict[str, Any] = {**request.data, **caller.run.as_data()}
    return Record(
        phase=Phase.INTENT,
        id=request.id,
        caller=caller.name,
        accessor=caller.accessor,
        operation="egress",
        path="services",
        rule=rule,
        remote=request.remote,
        **fields,
    )


def about(request: Request, match: Match) -> Request:
    """The request as the record of its refusal shows it: with the service that the refusal is about."""
    return request.but(data={**request.data, "service": match.about})


def summary(call: Call, authority: Authority, *, target: bool) -> dict[str, object]:
    """What the audit record says of a call: of a query only the parameter names, without ``target`` neither."""
    if not target:
        return {"host": str(authority), "method": clip(call.method)}
    path, _, query = call.target.decode("latin-1").partition("?")
    return {
        "host": str(authority),
        "method": clip(call.method),
        "target": clip(path),
        "parameters": parameter_names(query),
    }


async def record_refused(
    tripwires: Tripwires, vault: Vault, state: OrgState, caller: Caller, request: Request, error: KeyholeError
) -> None:
    """Record a refusal without the fields in which a value stands: it may have come before anything was looked for."""
    await vault.record_refusal(state, *await _recordable(tripwires, vault, state, caller, request), error)


async def record_tripped(
    tripwires: Tripwires,
    vault: Vault,
    state: OrgState,
    caller: Caller,
    request: Request,
    error: Tripped,
    service: str,
) -> None:
    """Record a refusal, without the target that a value may stand in, and raise the alarm, which names the service."""
    if error.of_value:
        request = request.but(data={**request.data, "target": "", "parameters": ()})
    caller, request = await _recordable(tripwires, vault, state, caller, request)
    await vault.record_refusal(state, caller, request, error, rule=RULE)
    if not error.alarmed:
        await vault.alarm(state, caller, request.id, service, error.what)


async def _recordable(
    tripwires: Tripwires, vault: Vault, state: OrgState, caller: Caller, request: Request
) -> tuple[Caller, Request]:
    if state.org.tripwire == "off":
        return caller, request
    try:
        values = await tripwires.learn(vault, state)
    except KeyholeError:
        return caller._replace(run=caller.run.unsaid()), request.but(data={})
    claims = "\n".join(caller.run.as_data().values())
    if _shows(values, claims):
        caller = caller._replace(run=caller.run.unsaid())
    data = request.data
    if _shows(values, "\n".join([str(data.get("host", "")), str(data.get("target", "")), *data.get("parameters", ())])):
        host = "" if _shows(values, str(data.get("host", ""))) else data.get("host", "")
        request = request.but(data={**data, "host": host, "target": "", "parameters": ()})
    return caller, request


def _shows(values: Scrubber, text: str) -> bool:
    raw = text.encode("utf-8", "surrogateescape")
    return not values.is_clean(raw) and values.text(raw) is not raw
