"""The broker's end of ``SSH_AUTH_SOCK``: keys that sign logins, for the users and hosts of their services only.

One connection of a client is one use of each key that it is shown:

1. the client binds its connection to a host (``session-bind@openssh.com``): the host key, and the host's signature over
   the identifier of the SSH connection, which is verified;
2. it asks for keys, and gets those of services that the caller may use and that know this host key; the intent of each
   is recorded before its secret is opened;
3. what it asks to have signed must be a login over that very connection, as a user that the service names. The caller
   is judged again before each signature.

A client that does not say whose host key it has seen is shown nothing, and so is one that forwards its agent.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterable
from dataclasses import dataclass

from keyhole.broker.authenticated import authenticate
from keyhole.broker.late import require_still
from keyhole.broker.loan import Loan
from keyhole.broker.resources import Resources
from keyhole.core.errors import Conflict, InternalError, KeyholeError, NoService, PolicyDenied, Sealed
from keyhole.core.identity import Caller
from keyhole.core.record import clip
from keyhole.core.request import Operation, Request
from keyhole.core.service import Service
from keyhole.core.ssh import AGENT, CERT_AUTHORITY
from keyhole.crypto.ssh_auth import certificate_blob, proof, public_blob, sign, verify
from keyhole.net import ssh_agent
from keyhole.net.ssh_agent import Bind, Login, WrongMessage
from keyhole.vault.compiled import OrgState
from keyhole.vault.keys import new_request_id
from keyhole.vault.node import Node
from keyhole.vault.vault import Vault

_MOST_SIGNATURES = 64  # of one connection; a login takes one or two
_FAILED = ssh_agent.message(ssh_agent.FAILURE)


@dataclass(slots=True)
class _Held:
    """One key that the connection was shown."""

    service: Service
    loan: Loan
    private: bytes
    state: OrgState
    caller: Caller
    signatures: int = 0


class SshAgents:
    """Makes agents for clients.

    Args:
        node: where the door is.
        resources: what agents and calls have in common.
    """

    def __init__(self, node: Node, resources: Resources) -> None:
        self.node = node
        self.resources = resources
        self._open: weakref.WeakSet[SshAgent] = weakref.WeakSet()

    def open(self, token: bytes, remote: str) -> SshAgent:
        """The agent of one connection."""
        agent = SshAgent(self, token, remote)
        self._open.add(agent)
        return agent

    def forget(self) -> None:
        """The vault was sealed: no key that came out of it stays here."""
        for agent in list(self._open):
            agent.close()


class SshAgent:
    """One connection of a client. ``close`` it, whatever happened."""

    def __init__(self, agents: SshAgents, token: bytes, remote: str) -> None:
        self._agents = agents
        self._token = token
        self._remote = remote
        self._bind: Bind | None = None
        self._held: dict[bytes, _Held] | None = None
        self._error: BaseException | None = None
        self._closed = False
        self._vault: Vault | None = None

    async def answer(self, kind: int, content: bytes) -> bytes:
        """The answer to a message. Refusals are recorded, and in the words of the protocol a failure."""
        try:
            if kind == ssh_agent.EXTENSION:
                return await self._bound(content)
            if kind == ssh_agent.LIST:
                return await self._listed()
            if kind == ssh_agent.SIGN:
                return await self._signed(content)
        except KeyholeError as error:
            self._error = self._error or error
        except WrongMessage:
            pass
        return _FAILED

    async def _bound(self, content: bytes) -> bytes:
        bind = ssh_agent.read_bind(content)
        if bind is None:
            return _FAILED
        if self._bind is not None or bind.forwarding or self._held is not None:
            await self._refuse(PolicyDenied("the agent is not forwarded", "log in from here, with ProxyJump"))
        if not await asyncio.to_thread(verify, bind.host_key, bind.signature, bind.session):
            await self._refuse(PolicyDenied("the host has not proved its key", "see who answers at this address"))
        self._bind = bind
        return ssh_agent.message(ssh_agent.SUCCESS)

    async def _listed(self) -> bytes:
        if self._held is None:
            self._held = {}
            if self._bind is not None:
                await self._lend(self._bind)
        return ssh_agent.keys([(key, held.service.name) for key, held in self._held.items()])

    async def _lend(self, bind: Bind) -> None:
        request = self._request()
        vault, state, caller = await self._who(request)
        directory = await self._agents.resources.directory(vault, state)
        known = await asyncio.to_thread(_knowing, directory.logins(), bind.host_key, vault.clock.now())
        granted = [service for service in known if caller.acl.decide("use", f"services/{service.name}")]
        if not granted:
            error: KeyholeError = NoService("no service of SSH knows the key of this host", "keyhole service list")
            if known:
                first = min(service.name for service in known)
                error = PolicyDenied(f"{caller.name} may not use the service {first!r}", "ask for a grant")
                request = request.but(data={**request.data, "service": first})
            await vault.record_refusal(state, caller, request, error)
            raise error
        for service in granted:
            asked = self._request(service)
            lent = await vault.use(state, caller, asked, f"services/{service.name}")
            loan = Loan(service, lent.secrets, lent.intent, self._agents.resources.scrubbers)
            try:
                _require_same(service, lent.service)
                private, blob = await asyncio.to_thread(_key, loan)
                self._require_open()
            except BaseException as error:
                vault.conclude(state, loan.intent, _result(error))
                raise
            if self._held is not None and blob not in self._held:
                self._held[blob] = _Held(service, loan, private, state, caller)
            else:
                vault.conclude(state, loan.intent, "ok")

    async def _signed(self, content: bytes) -> bytes:
        key, data = ssh_agent.read_sign(content)
        held = (self._held or {}).get(key)
        bind = self._bind
        if held is None or bind is None or self._vault is None:
            return _FAILED
        try:
            login = ssh_agent.read_login(data)
        except WrongMessage:
            error = PolicyDenied("what is to be signed is no login by SSH", "the key signs nothing else")
            await self._refuse(error, held)
            raise error from None
        why = _unfit(login, bind, held, key)
        if why:
            await self._refuse(PolicyDenied(why, f"keyhole service show {held.service.name}"), held)
        try:
            self._agents.node.open_vault()
            await require_still(self._vault, held.caller, held.service)
        except KeyholeError as error:
            await self._refuse(error, held)
        held.signatures += 1
        return ssh_agent.signature(await asyncio.to_thread(sign, held.private, data, login.algorithm))

    def _require_open(self) -> None:
        if self._closed:
            raise Sealed("the vault was sealed meanwhile", "log in again")

    def _request(self, service: Service | None = None) -> Request:
        host = str(service.hosts[0]) if service is not None else str(AGENT)
        data = {"method": "SSH", "host": host, "target": "/"}
        if service is not None:
            data["service"] = clip(service.name)
        return Request(self._token, Operation.USE, "services", data, "", self._remote, new_request_id())

    async def _who(self, request: Request) -> tuple[Vault, OrgState, Caller]:
        vault = self._vault = self._agents.node.open_vault()
        state, caller = vault.recognise(self._token) or await authenticate(vault, request)
        return vault, state, caller

    async def _refuse(self, error: KeyholeError, held: _Held | None = None) -> None:
        """Record a refusal, and raise it."""
        request = self._request(held.service if held is not None else None)
        vault, state, caller = await self._who(request)
        await vault.record_refusal(state, caller, request, error)
        raise error

    def close(self) -> None:
        """The client has gone, or the vault was sealed: record how often each key has signed, and forget it."""
        self._closed = True
        for held in (self._held or {}).values():
            if self._vault is not None:
                self._vault.conclude(held.state, held.loan.intent, _result(self._error), statements=held.signatures)
        self._held = {}


def _knowing(services: Iterable[Service], host_key: bytes, now: float) -> list[Service]:
    """The services of which one of the host keys is this one, or has certified it; signatures take time."""
    found: dict[str, str] = {}
    for host in {service.hosts[0].host for service in services}:
        said = proof(host_key, host, now)
        if said is not None:
            found[host] = f"{CERT_AUTHORITY} {said.line}" if said.certified else said.line
    return [each for each in services if found.get(each.hosts[0].host) in each.inject["host_keys"]]


def _require_same(matched: Service, lent: Service) -> None:
    if lent is not matched and lent.as_data() != matched.as_data():
        raise Conflict(f"the service {matched.name!r} was changed meanwhile", "log in again")


def _key(loan: Loan) -> tuple[bytes, bytes]:
    """The private key of a loan, and what the client sees of it."""
    values = loan.values
    certificate = values.get("signed_key")
    private = values.get("private_key") or next((v for k, v in values.items() if k != "signed_key"), b"")
    blob = certificate_blob(certificate, private) if certificate else public_blob(private)
    return private, blob


def _unfit(login: Login, bind: Bind, held: _Held, key: bytes) -> str:
    """Why something is not signed; empty where it is."""
    if login.session != bind.session or login.key != key or login.host_key not in {b"", bind.host_key}:
        return "the login is for another connection than the client has said"
    if login.user not in held.service.inject["user"]:
        return f"the service {held.service.name!r} logs in as {', '.join(held.service.inject['user'])} only"
    if held.signatures >= _MOST_SIGNATURES:
        return "one connection has asked for too many signatures"
    return ""


def _result(error: BaseException | None) -> str:
    if error is None:
        return "ok"
    return error.code if isinstance(error, KeyholeError) else InternalError.code
