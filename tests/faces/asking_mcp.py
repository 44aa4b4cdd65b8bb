"""A server of tools that asks before it answers, by the official SDK, in this process.

To a client of an earlier revision it sends requests; to one of 2026-07-28 it answers with what it wants to know, and
with a state that has its credential in it.
"""

import asyncio
from contextlib import asynccontextmanager

import anyio
import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.memory import create_client_server_memory_streams
from mcp.shared.message import ServerMessageMetadata
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from keyhole.faces.mcp.gateway import reach, upstream
from keyhole.net.ask import Heard

FORM = {"type": "object", "properties": {"hour": {"type": "string"}}}


def elicitation(message):
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=message, requested_schema=FORM))


def sampling(text):
    said = types.SamplingMessage(role="user", content=types.TextContent(text=text))
    return types.CreateMessageRequest(params=types.CreateMessageRequestParams(messages=[said], max_tokens=5))


class Asking:
    """The server, whatever it is started as.

    Attributes:
        token: its credential, which it says wherever it can.
        heard: answers that it was given.
        gone: names of the calls that were given up.
        lives: how often it was started.
        stops: what ends its last life, by the name that it was bound under.
        rounds: what each tool asks, round by round.
    """

    def __init__(self, monkeypatch, token):
        self.token = token
        self.heard, self.gone, self.states = [], [], []
        self.lives = 0
        self.rounds = {
            "book": [{"which": elicitation(f"which hour? {token}")}, {"poem": sampling(f"rhyme on {token}")}],
            "both": [{"a": elicitation("a?"), f"b {token}": sampling("b?")}],
            "once": [{"x": elicitation("now?")}],
            "twice": [{"x": elicitation("now?")}, {"x": elicitation("and now?")}],
            "endless": [{"x": elicitation(str(number))} for number in range(100)],
            "many": [{str(number): elicitation("?") for number in range(20)}],
            "roots": [{"r": types.ListRootsRequest()}],
            "patient": [{} for _ in range(3)],
            "giant": [{"x": elicitation("x" * 300_000)}],
            "redos": [{"x": elicitation("x")}],
            "plain": [],
        }
        schema = {"type": "object", "properties": {"p": {"type": "string", "pattern": "^(a+)+$"}}}
        self.rounds["redos"][0]["x"].params.requested_schema = schema
        self.stops = {}
        life = self

        class Life(upstream.Session):
            def __init__(self, bound, ways, mode, *more):
                super().__init__(bound, ways, "legacy" if bound.server.name == "old" else mode, *more)

        monkeypatch.setattr(upstream, "Session", Life)
        connected = reach.Reach.connected

        def connects(reached):
            server = reached._bound.server
            if server.transport != "stdio":
                return connected(reached)
            return life.connected(server.name, reached._closed)

        monkeypatch.setattr(reach.Reach, "connected", connects)

    @asynccontextmanager
    async def connected(self, name, closed):
        self.lives += 1
        async with create_client_server_memory_streams() as (ours, theirs), anyio.create_task_group() as group:
            server = self.server()
            stop = anyio.Event()
            self.stops[name] = stop

            async def run():
                await server.run(*theirs, server.create_initialization_options())

            async def stops():
                await stop.wait()
                await theirs[1].aclose()
                closed()

            group.start_soon(run)
            group.start_soon(stops)
            yield ours
            group.cancel_scope.cancel()

    def server(self):
        async def tools(_context, _params):
            empty = {"type": "object"}
            return types.ListToolsResult(tools=[types.Tool(name=name, input_schema=empty) for name in self.rounds])

        async def call(context, params):
            text = await self.asks(context, params, params.name)
            if not isinstance(text, str):
                return text
            return types.CallToolResult(content=[types.TextContent(text=f"{params.arguments} {text} {self.token}")])

        async def prompts(_context, _params):
            return types.ListPromptsResult(prompts=[types.Prompt(name="plan")])

        async def prompt(context, params):
            text = await self.asks(context, params, "book")
            if not isinstance(text, str):
                return text
            content = types.TextContent(text=f"{params.arguments} {text} {self.token}")
            return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=content)])

        async def resources(_context, _params):
            return types.ListResourcesResult(resources=[types.Resource(uri="note://a", name="a")])

        async def read(context, params):
            text = await self.asks(context, params, "book")
            if not isinstance(text, str):
                return text
            found = types.TextResourceContents(uri=params.uri, text=f"{text} {self.token}")
            return types.ReadResourceResult(contents=[found])

        return Server(
            "asking",
            on_list_tools=tools,
            on_call_tool=call,
            on_list_prompts=prompts,
            on_get_prompt=prompt,
            on_list_resources=resources,
            on_read_resource=read,
        )

    async def asks(self, context, params, name):
        """The answers as a text; or, of the later revision, what it wants to know next."""
        if context.protocol_version in MODERN_PROTOCOL_VERSIONS:
            return self._asks_by_an_answer(params, name)
        try:
            return await self._asks_by_requests(context, name)
        except asyncio.CancelledError:
            self.gone.append(name)
            raise

    def _asks_by_an_answer(self, params, name):
        rounds, at, before = self.rounds[name], 0, ""
        if params.request_state is not None:
            secret, number, before = params.request_state.split("|", 2)
            assert secret == self.token
            self.states.append(params.request_state)
            at = int(number)
            wanted, given = rounds[at - 1], params.input_responses or {}
            assert wanted.keys() == given.keys()
            before += " ".join(self._text(each) for each in given.values()) + " "
        if at == len(rounds):
            return before
        state = f"{self.token}|{at + 1}|{before}"
        return types.InputRequiredResult(input_requests=rounds[at] or None, request_state=state)

    async def _asks_by_requests(self, context, name):
        said = {types.CreateMessageRequest: types.CreateMessageResult, types.ElicitRequest: types.ElicitResult}
        texts = []
        for wanted in self.rounds[name]:
            for each in wanted.values():
                await context.session.report_progress(len(texts), None, f"asks {self.token}")
                kind = said.get(type(each), types.ListRootsResult)
                about = ServerMessageMetadata(related_request_id=context.request_id)
                found = await context.session.send_request(each, kind, metadata=about)
                texts.append(self._text(found))
        return " ".join(texts)

    def _text(self, answer):
        self.heard.append(answer)
        if isinstance(answer, types.ElicitResult):
            return f"{answer.action} {answer.content}"
        return answer.content.text


class Far:
    """Asks a server of this process over HTTP, as it would be asked over a network.

    Attributes:
        open: requests that go on.
        tasks: of the server, for each request.
    """

    def __init__(self, server, *, stateless):
        self.manager = StreamableHTTPSessionManager(server, stateless=stateless)
        self.open = 0
        self.tasks = []

    async def ask(self, method, _url, *, headers=(), body=b"", ca_pem="", allow=(), heed=None):
        raw, sent, over, said = [body], [], asyncio.Event(), asyncio.Queue()
        scope = {
            "type": "http",
            "method": method,
            "path": "/mcp",
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
        }

        async def receive():
            if raw:
                return {"type": "http.request", "body": raw.pop()}
            await over.wait()
            return {"type": "http.disconnect"}

        async def serve():
            await self.manager.handle_request(scope, receive, said.put)
            await said.put(None)

        def head(content):
            named = {name.lower(): value for name, value in sent[0]["headers"]}
            return Heard(sent[0]["status"], named, content)

        self.open += 1
        self.tasks.append(asyncio.create_task(serve()))
        try:
            while (message := await said.get()) is not None:
                sent.append(message)
                content = message.get("body", b"") if heed is not None else b""
                for at in range(0, len(content), 7):  # as it may be cut on its way
                    await heed(head(b""), content[at : at + 7])
            return head(b"".join(each.get("body", b"") for each in sent[1:]))
        finally:
            over.set()
            self.open -= 1
