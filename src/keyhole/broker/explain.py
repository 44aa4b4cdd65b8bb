"""``sys/why`` and ``sys/keyhole``: what would happen to a call, and where the road begins."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from keyhole import __version__
from keyhole.broker.broker import Broker
from keyhole.broker.checks import foresee
from keyhole.broker.directory import Match, Wanted
from keyhole.broker.nearly import nearly
from keyhole.core.errors import Expired, InvalidRequest, KeyholeError, NoService, NotFound, PolicyDenied
from keyhole.core.host import parse_authority
from keyhole.core.identity import Caller
from keyhole.core.minted import MINTED
from keyhole.core.passthrough import SCHEMES as PASSED
from keyhole.core.record import clip
from keyhole.core.request import Operation, Reply, Request
from keyhole.core.service import PORTS
from keyhole.core.sql import SCHEMES as DATABASES
from keyhole.core.target import canonical_target, readings
from keyhole.core.url import split_url
from keyhole.engines import Call, Context, Field, Route
from keyhole.vault.compiled import OrgState
from keyhole.vault.keys import new_request_id
from keyhole.vault.sys.agents import agent_now, require_agent
from keyhole.vault.sys.tool_grants import explain_tool
from keyhole.vault.vault import Vault

SESSIONS = (*DATABASES, *PASSED)


class _Handlers:
    def __init__(self, broker: Broker, vault: Vault, proxy_url: Callable[[], str]) -> None:
        self._broker = broker
        self._vault = vault
        self._proxy_url = proxy_url

    async def why(self, context: Context, call: Call) -> Reply:
        method = str(call.data.get("method") or "GET")
        url = call.data.get("url")
        if not isinstance(url, str):
            raise InvalidRequest("url is missing", "keyhole why GET https://api.example.com/v1/x --agent NAME")
        caller = await self._of(context, str(call.data.get("agent") or ""))
        if url.startswith("tools/"):
            state, arguments = await self._vault.compiled.state(context.caller.org_id), call.data.get("arguments")
            asked = arguments if isinstance(arguments, dict) else None
            return Reply(await explain_tool(self._vault, state, caller, url, asked))
        answer: dict[str, Any] = {"caller": caller.name, "method": method, "url": url.partition("?")[0]}
        state, said = await self._vault.compiled.state(context.caller.org_id), dict[str, object]()
        refused = partial(self._refused, context, call, state, answer)
        try:
            if url.partition("://")[0] in SESSIONS:
                return await self._why_session(state, caller, answer, url, str(call.data.get("service") or ""))
            scheme, authority, written = split_url(url)
            said |= {"host": str(authority), "method": clip(method)}  # its own token may stand in the target
            target = canonical_target(written)
            wanted = Wanted(scheme, authority, method, readings(target), str(call.data.get("service") or ""))
            match = await self._broker.explain(self._vault, state, caller, wanted)
            said["service"] = match.about if match.service is None else match.service.name
            checks = foresee(match, wanted, target, context.now)
        except KeyholeError as error:
            return await refused(said, error)
        if match.refusal is not None:
            near = await self._near(context, caller, wanted)
            return await refused(said, match.refusal, **({"near": near} if near else {}))
        if match.service is None:
            return Reply({**answer, "allowed": True, "service": None, "inject": None, "egress": state.org.egress})
        service = match.service
        answer |= {"service": service.name, "secret": service.secret, "tripwire": state.org.tripwire}
        if service.certified:
            answer["certificate"] = service.certificate or service.secret
        if service.inject.kind in MINTED:
            answer["minted"] = True
        try:
            await self._vault.check_loan(state, caller, service)
        except (Expired, NotFound, PolicyDenied) as error:
            return await refused(said, error)
        return Reply(
            {
                **answer,
                "allowed": True,
                "inject": service.inject.describe(),
                "paths": [glob.pattern for glob in service.paths],
                "methods": sorted(service.methods),
                **({"checks": checks} if checks else {}),
            }
        )

    async def _refused(
        self,
        context: Context,
        call: Call,
        state: OrgState,
        answer: dict[str, Any],
        said: dict[str, object],
        error: KeyholeError,
        **more: Any,
    ) -> Reply:
        """The answer of a refusal; recorded as that of a call where its own caller gives one up for it."""
        if call.data.get("given_up") is True and not call.data.get("agent"):
            request = Request(b"", Operation.USE, "services", said, "", call.remote, new_request_id())
            await self._broker.record_refused(self._vault, state, context.caller, request, error)
        return Reply({**answer, "allowed": False, **_refusal(error), **more})

    async def _why_session(self, state: OrgState, caller: Caller, answer: dict[str, Any], url: str, name: str) -> Reply:
        """The same of a session with a database, or of a tunnel that is passed on."""
        scheme, _, rest = url.partition("://")
        authority = parse_authority(rest.partition("/")[0].rpartition("@")[2], PORTS[scheme])
        answer["url"] = f"{scheme}://{authority}"  # a connection string may have a password in it
        directory = await self._broker.directory(self._vault, state)
        match = directory.session(caller, scheme, name, authority)
        service = match.service
        if scheme in PASSED and service is not None and directory.passed_at(authority) != scheme:
            match = Match(
                refusal=NoService(f"a service of https means {authority} too", "so the tunnel is looked into")
            )
        if match.refusal is not None or service is None:
            return Reply({**answer, "allowed": False, **(_refusal(match.refusal) if match.refusal is not None else {})})
        answer |= {"service": service.name, "secret": service.secret}
        await self._vault.check_loan(state, caller, service)
        return Reply({**answer, "allowed": True, "inject": service.inject.describe()})

    async def _near(self, context: Context, caller: Caller, wanted: Wanted) -> list[dict[str, Any]]:
        """Services that the call nearly means, among those that the agent may use or the reader may look at."""
        state = await self._vault.compiled.state(context.caller.org_id)
        known = (
            service
            for service in (await self._vault.services(state)).values()
            if caller.acl.decide("use", f"services/{service.name}")
            or context.caller.allows("read", f"services/{service.name}")
        )
        return nearly(known, wanted)

    async def _of(self, context: Context, agent: str) -> Caller:
        """The agent that is asked about; asking about another than oneself needs read on it."""
        name = f"agent/{agent.removeprefix('agent/')}" if agent else context.caller.name
        if name == context.caller.name:
            return context.caller
        if not context.caller.allows("read", f"agents/{name.removeprefix('agent/')}"):
            raise PolicyDenied(f"asking about {name} needs read on it", "ask about yourself, or ask an administrator")
        await require_agent(self._vault, context.caller.org_id, name.removeprefix("agent/"))
        state = await self._vault.compiled.state(context.caller.org_id)
        return await agent_now(self._vault, state, name.removeprefix("agent/"))

    async def keyhole(self, context: Context, _call: Call) -> Reply:
        state = await self._vault.compiled.state(context.caller.org_id)
        authority = await self._broker.authorities(self._vault).get(state)
        return Reply(
            {
                "version": __version__,
                "org": state.org.name,
                "egress": state.org.egress,
                "proxy": self._proxy_url(),
                "ca": authority.cert_pem.decode(),
            }
        )


def routes(broker: Broker, vault: Vault, proxy_url: Callable[[], str]) -> tuple[Route, ...]:
    """The table."""
    handlers = _Handlers(broker, vault, proxy_url)
    return (
        Route(
            "why",
            {Operation.CREATE: handlers.why},
            fields=(
                Field("method", "GET unless said"),
                Field("url", "absolute URL, or tools/SERVER/TOOL"),
                Field("agent", "who would call"),
                Field("given_up", "true: the asker makes no call that is refused; the refusal is recorded as one"),
                Field("arguments", "object: of a tool"),
            ),
            help="Which service a call would go through and what would be injected, or why not.",
        ),
        Route("keyhole", {Operation.READ: handlers.keyhole}, help="Where the proxy is, and its CA."),
    )


def _refusal(error: KeyholeError) -> dict[str, Any]:
    return {"error": {"code": error.code, "reason": error.reason, "hint": error.hint}}
