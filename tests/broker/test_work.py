"""Whatever face a request comes through, its records say which work it belongs to, and who it was for nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from broker.stack import HOST, Stack
from keyhole.adapters.tool import wrap
from keyhole.adapters.vault import ToolVault
from keyhole.app import serving_api
from keyhole.client import Client as Vault
from keyhole.faces.mcp import server
from keyhole.faces.mcp.gateway import front
from keyhole.faces.mcp.gateway.gateway import Gateway
from keyhole.faces.mcp.gateway.upstream import Ways
from keyhole.faces.mcp.inside import Door, Inside
from keyhole.faces.mcp.tools import Shelf

EVIL = [sys.executable, "-S", str(Path(__file__).parents[1] / "e2e" / "evil_mcp.py")]
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
STATE = "vendor=1,other=2"
HEADERS = f"traceparent: {PARENT}\r\ntracestate: {STATE}\r\nX-Keyhole-Context: run=r1;step=s%201\r\n".encode()
SAID = {"run": "r1", "step": "s 1"}
META = {"traceparent": PARENT, "baggage": "run=stolen", "keyhole/context": SAID}
NEXT = iter(range(1000))


class Office:
    """An agent with a service, a secret that it may read and a tool, and the faces through which it comes."""

    def __init__(self, stack: Stack, api: str) -> None:
        self.stack = stack
        self.api = api
        self.door = Door(stack.keyhole.node, self._never)

    @staticmethod
    async def _never() -> Any:
        raise AssertionError("the proxy that is there is used")

    async def hire(self, **context: str) -> str:
        """The token of a new agent, which is called ``agent/nNUMBER``."""
        name = f"n{next(NEXT)}"
        await self.stack.agent(name, "work")
        rules = 'path "secret/data/work/*" { capabilities = ["read"] } path "tools/*" { capabilities = ["use"] }'
        rules += ' path "services/work" { capabilities = ["use"] }'
        await self.stack.ask("update", f"sys/policies/acl/agent/{name}", {"policy": rules})
        return (await self.stack.ask("update", f"agents/{name}/token", context))["token"]

    async def proxy(self, token: str) -> None:
        assert (await self.stack.get(token, headers=HEADERS)).status == 200

    async def plain_proxy(self, token: str) -> None:
        url = f"http://{HOST}:{self.stack.plain}/v1/x"
        assert (await self.stack.absolute(token, url, headers=HEADERS)).status == 200

    async def client(self, token: str, act: Callable[[Vault], object]) -> None:
        def work() -> None:
            with Vault(self.api, token=token) as kh, kh.context(traceparent=PARENT, **SAID):
                act(kh)

        await asyncio.to_thread(work)

    async def http(self, token: str) -> None:
        await self.client(token, lambda kh: kh.read("secret/data/work/key"))

    async def call(self, token: str) -> None:
        await self.client(token, lambda kh: kh.call("GET", f"http://{HOST}:{self.stack.plain}/v1/x", service="work"))

    async def requests(self, token: str) -> None:
        url = f"http://{HOST}:{self.stack.plain}/v1/x"
        await self.client(token, lambda kh: kh.requests_session().get(url, timeout=20).raise_for_status())

    async def tool(self, token: str) -> None:
        def act(kh: Vault) -> None:
            source = ToolVault(kh)

            def send(*, credentials: Any) -> str:
                kh.call("GET", f"http://{HOST}:{self.stack.plain}/v1/x", service="work")
                return str(len(credentials.key))

            assert wrap(source, "crm.send", {"key": "work/key"})(send)()
            source.close()

        await self.client(token, act)

    async def mcp(self, token: str) -> None:
        made = server.build(Shelf(reveal=True), lambda _context: Inside(self.door, token))
        async with Client(made, cache=None) as client:
            found = await client.call_tool("reveal_secret", {"secret": "work/key"}, meta=META)
            assert not found.is_error

    async def gateway(self, token: str) -> None:
        async with self.standing(token) as client:
            found = await client.call_tool("evil__echo", {}, meta=META)
            assert not found.is_error

    @contextlib.asynccontextmanager
    async def standing(self, token: str) -> AsyncIterator[Client]:
        body = {"command": EVIL[0], "args": EVIL[1:], "env": {"EVIL_TOKEN": "work/key"}}
        await self.stack.ask("update", "tools/servers/evil", body)
        stands = Gateway(Inside(self.door, "root"), Ways(lambda _seconds: self._never))
        digests = {tool: each.digest for tool, each in (await stands.listing("evil")).items()}
        await self.stack.ask("update", "tools/servers/evil/pins", {"approve": digests})
        try:
            async with Client(front.build(stands, lambda _context: Inside(self.door, token)), cache=None) as client:
                yield client
        finally:
            await stands.close()


@pytest.fixture(scope="module")
def office(module_stack: Stack, runner: asyncio.Runner):
    async def begin() -> Office:
        await module_stack.secret("work/key")
        hosts = [f"{HOST}:{module_stack.secure}", f"{HOST}:{module_stack.plain}"]
        await module_stack.service("work", hosts=hosts, schemes=["https", "http"], secret="work/key")
        config = module_stack.config
        serving = serving_api(module_stack.keyhole, config._replace(listen="127.0.0.1:0"))
        return Office(module_stack, await module_stack._exit.enter_async_context(serving))

    return runner.run(begin())


FACES = ["proxy", "plain_proxy", "http", "call", "requests", "tool", "mcp", "gateway"]
TOOLS = {"tool": "crm.send", "mcp": "mcp/reveal_secret", "gateway": "evil/echo"}


async def work(office: Office, face: str, token: str) -> list[dict[str, Any]]:
    """The records of uses and reveals that the face makes for the agent."""
    who = (await office.stack.ask("read", "auth/token/lookup-self", token=token))["display_name"]
    await getattr(office, face)(token)
    found = (await office.stack.ask("read", "sys/audit-log", {"limit": 1000}))["records"]
    mine = [record for record in found if record.get("caller", "").replace("/", "-") == who]
    return [record for record in mine if record.get("secrets") and record["phase"] in {"intent", "outcome"}]


@pytest.mark.parametrize("face", FACES)
def test_records_of_every_face_say_the_run_the_step_and_the_trace(office, run, stack, face):
    async def scenario() -> None:
        token = await office.hire(workflow="nightly", on_behalf_of="alice@example.com")
        records = await work(office, face, token)
        assert {record["phase"] for record in records} == {"intent", "outcome"}
        for record in records:
            said = {name: record.get(name) for name in ("workflow", "run", "step", "on_behalf_of", "trace", "span")}
            assert said == {
                **SAID, "workflow": "nightly", "on_behalf_of": "alice@example.com", "trace": TRACE, "span": SPAN,
            }  # fmt: skip
            assert {"run", "step"} <= set(record["claimed"].split(","))
            assert record.get("tool", "") == TOOLS.get(face, "")

    run(scenario())


@pytest.mark.parametrize("face", ["proxy", "http", "tool", "gateway"])
def test_through_no_face_does_a_request_say_another_run_than_its_token(office, run, stack, face):
    async def scenario() -> None:
        token = await office.hire(run="of-the-token", step="one", tool="" if face == "gateway" else "fixed")
        records = await work(office, face, token)
        assert records
        for record in records:
            assert (record["run"], record["step"], record.get("claimed", "")) == ("of-the-token", "one", "")
            assert record["tool"] == TOOLS["gateway"] if face == "gateway" else "fixed"

    run(scenario())


def test_an_upstream_gets_the_trace_as_the_client_sent_it_and_nothing_of_ours(office, run, stack):
    async def scenario() -> None:
        token = await office.hire()
        for face in ("proxy", "plain_proxy"):
            await getattr(office, face)(token)
            [request] = stack.upstream.requests
            assert request.values(b"traceparent") == [PARENT.encode()]
            assert request.values(b"tracestate") == [STATE.encode()]
            assert b"keyhole-context" not in request.head.lower()
            stack.upstream.forget()
        for face in ("call", "requests", "tool"):
            await getattr(office, face)(token)
            assert b"traceparent" not in stack.upstream.received.lower()
            assert b"keyhole-context" not in stack.upstream.received.lower()

    run(scenario())


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        (b"X-Keyhole-Context: on_behalf_of=alice\r\n", "policy_denied"),
        (b"X-Keyhole-Context: on_behalf_of=jwt%2Falice\r\n", "policy_denied"),
        (b"X-Keyhole-Context: caller=agent%2Fother\r\n", "invalid_request"),
        (b"X-Keyhole-Context: run=%00\r\n", "invalid_request"),
        (b"X-Keyhole-Context: run=1\r\nX-Keyhole-Context: run=2\r\n", "invalid_request"),
        (b"traceparent: 00-0-0-00\r\ntraceparent: " + PARENT.encode() + b"\r\nbaggage: run=1\r\n", ""),
    ],
)
def test_what_a_request_may_not_say_is_refused_before_anything_is_sent(office, run, stack, headers, code):
    async def scenario() -> None:
        token = await office.hire()
        reply = await stack.get(token, headers=headers)
        assert (reply.code, bool(stack.upstream.requests)) == (code, not code)
        if not code:
            [*_, record] = await stack.records(service="work")
            assert not {"trace", "run", "claimed"} & record.keys()

    run(scenario())
