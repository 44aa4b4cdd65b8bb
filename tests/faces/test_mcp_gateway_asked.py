"""What a server asks before it answers, of clients that a request reaches, and of those that come back with answers."""

import asyncio
import contextlib

import mcp_types as types
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError

from faces.asking_mcp import Asking, Far
from faces.test_mcp_gateway import TOKEN, nobody, play
from faces.test_mcp_gateway_sides import clean, until
from faces.test_mcp_http import post
from keyhole.faces.mcp.gateway import front
from keyhole.faces.mcp.gateway.gateway import Gateway
from keyhole.faces.mcp.gateway.questions import QuestionLimits
from keyhole.faces.mcp.gateway.upstream import Ways
from keyhole.faces.mcp.http import McpApp
from keyhole.faces.mcp.inside import Inside

ACCEPTED = types.ElicitResult(action="accept", content={"hour": "nine"})
RHYME = types.CreateMessageResult(role="assistant", content=types.TextContent(text="fine"), model="m")
BOTH = [("old", "auto"), ("new", "auto"), ("new", "legacy"), ("old", "legacy")]


class Person:
    """Who is asked through a client."""

    def __init__(self):
        self.asked = []

    async def sampled(self, _context, params):
        self.asked.append(params)
        return RHYME

    async def elicited(self, _context, params):
        self.asked.append(params)
        return ACCEPTED


@contextlib.asynccontextmanager
async def visiting(stage, mode="auto", agent=None, person=None):
    """A client that can be asked."""
    person = person or Person()
    server = front.build(stage.gateway, lambda _context: agent or stage.agent)
    callbacks = {"sampling_callback": person.sampled, "elicitation_callback": person.elicited}
    async with Client(server, mode=mode, cache=None, **callbacks) as client:
        yield client


@pytest.fixture
def asking(monkeypatch):
    return Asking(monkeypatch, TOKEN)


async def ready(stage, *names, **limits):
    stage.gateway = Gateway(Inside(stage.door, stage.opened.token), Ways(nobody, questions=QuestionLimits(**limits)))
    for name in names or ("old", "new"):
        await stage.add(name, asks=["sampling", "elicitation"])
    await stage.grant("tools/*")


def asks(client, tool, arguments=None, **more):
    """A call whose rounds the test goes through by itself."""
    return client.session.call_tool(tool, arguments or {}, allow_input_required=True, **more)


async def parked(client, tool, arguments=None):
    """A call that waits: its state, and answers to what was asked."""
    found = await asks(client, tool, arguments)
    assert isinstance(found, types.InputRequiredResult)
    clean(found)
    answers = {
        name: ACCEPTED if each.method.startswith("elicit") else RHYME for name, each in found.input_requests.items()
    }
    return {"request_state": found.request_state, "input_responses": answers}


async def refusal(work):
    with pytest.raises(MCPError) as caught:
        await work
    return caught.value.error


async def outcomes(stage, path):
    return [each["result"] for each in await stage.records(path) if each["phase"] == "outcome"]


@pytest.mark.parametrize(("server", "mode"), BOTH)
def test_what_a_server_asks_reaches_its_client_and_the_answer_the_server(asking, server, mode):
    person = Person()

    async def scenario(stage):
        await ready(stage, server)
        async with visiting(stage, mode, person=person) as client:
            assert (client.protocol_version == "2026-07-28") == (mode == "auto")
            found = await client.call_tool(f"{server}__book", {"day": "monday"})
            assert "{'day': 'monday'} accept {'hour': 'nine'} fine" in clean(found)
            got = await client.get_prompt(f"{server}__plan", {"day": "friday"})
            assert "{'day': 'friday'} accept {'hour': 'nine'} fine" in clean(got)
            read = await client.read_resource(f"mcp://{server}/note%3A%2F%2Fa")
            assert "accept {'hour': 'nine'} fine" in clean(read)
            assert "accept {'hour': 'nine'} fine" in clean(await client.call_tool(f"{server}__both", {}))
            assert "{} " in clean(await client.call_tool(f"{server}__patient", {}))
        assert len(person.asked) == 8
        said, who = clean(*person.asked), f"The server of tools '{server}' asks"
        assert said.count(f"{who} (never give it a key or password): which hour? ****") == 3
        assert said.count(f"{who} this, and not the user.") == 4
        assert [type(each) for each in asking.heard] == [types.ElicitResult, types.CreateMessageResult] * 4
        for path, calls in (("book", 1), ("@prompts", 1), ("@resources", 1), ("both", 1), ("plain", 0)):
            records = await stage.records(f"tools/{server}/{path}")
            assert [(each["phase"], each.get("result")) for each in records] == [("intent", None), ("outcome", "ok")][
                : 2 * calls
            ]

    play(scenario)


@pytest.mark.parametrize("server", ["old", "new"])
def test_a_state_is_good_once_for_one_call_of_one_agent_and_says_nothing_of_any_other(asking, server):
    async def scenario(stage):
        await ready(stage, server)
        await stage.write("agents/other", {})
        await stage.write("sys/policies/acl/agent/other", {"policy": 'path "tools/*" { capabilities = ["use"] }'})
        other = Inside(stage.door, (await stage.write("agents/other/token", {}))["token"])
        again = Inside(stage.door, (await stage.write("agents/coder/token", {}))["token"])
        call, arguments = f"{server}__book", {"day": "caf\u00e9", "n": 1}
        async with visiting(stage) as client:
            back = await parked(client, call, arguments)
            state = back["request_state"]
            bad = [
                asks(client, call, arguments, **{**back, "request_state": text})
                for text in ("", "x", state[:-1], state + "=", state.upper(), "\u00e9" * 9, "A" * 100_000, TOKEN)
            ]
            bad += [
                asks(client, call, other_arguments, **back)
                for other_arguments in (
                    {},
                    {"day": "cafe\u0301", "n": 1},
                    {"day": "caf\u00e9", "n": 1.0},
                    {"day": "caf\u00e9", "n": True},
                    {**arguments, "m": None},
                )
            ]
            bad.append(asks(client, call, arguments, input_responses=back["input_responses"]))
            bad.append(asks(client, f"{server}__both", arguments, **back))
            bad.append(asks(client, "nobody__book", arguments, **back))
            bad.append(client.session.get_prompt(f"{server}__plan", {"day": "x"}, allow_input_required=True, **back))
            uri = f"mcp://{server}/note%3A%2F%2Fa"
            bad.append(client.session.read_resource(uri, allow_input_required=True, **back))
            refused = [await refusal(each) for each in bad]
            for agent in (other, again):
                async with visiting(stage, agent=agent) as stranger:
                    refused.append(await refusal(asks(stranger, call, arguments, **back)))
                    refused.append(await refusal(asks(stranger, call, arguments, **{**back, "request_state": "x"})))
            async with visiting(stage, "legacy") as early:
                params = types.CallToolRequestParams(name=call, arguments=arguments, **back)
                asked = types.CallToolRequest(params=params)
                refused.append(await refusal(early.session.send_request(asked, types.CallToolResult)))
            assert len({repr(each) for each in refused}) == 1
            assert refused[0].code == types.INVALID_PARAMS
            assert refused[0].data == {"reason": "invalid_request_state"}
            # None of it has used it up; of two that come with it at once, one goes on.
            both = await asyncio.gather(
                *(asks(client, call, arguments, **back) for _ in range(2)), return_exceptions=True
            )
            (second,) = [each for each in both if isinstance(each, types.InputRequiredResult)]
            (late,) = [each for each in both if isinstance(each, MCPError)]
            assert repr(late.error) == repr(refused[0])
            assert second.request_state != state
            assert (await refusal(asks(client, call, arguments, **back))) == refused[0]
            (name,) = second.input_requests
            assert name not in back["input_responses"]
            more = {"request_state": second.request_state, "input_responses": {name: RHYME}}
            found = await asks(client, call, dict(reversed(arguments.items())), **more)
            assert "accept {'hour': 'nine'} fine" in clean(found)
            assert (await refusal(asks(client, call, arguments, **more))) == refused[0]
        assert (await outcomes(stage, f"tools/{server}/book")).count("ok") == 1
        noted = [each for each in await stage.records(f"tools/{server}/book") if each["phase"] == "refused"]
        assert len(noted) == 22
        assert {each["result"] for each in noted} == {"invalid_request"}
        assert state not in repr(await stage.opened.get("sys/audit-log"))
        assert not stage.gateway.parking._parked
        assert not stage.gateway.parking._places

    play(scenario)


def test_what_a_server_keeps_for_itself_between_two_rounds_stays_here(asking):
    async def scenario(stage):
        await ready(stage, "new")
        async with visiting(stage) as client:
            found = await asks(client, "new__both", {})
            assert found.input_requests.keys() == {"1", "2"}  # the name of one of them had a credential in it
            assert asking.states == []
            answers, state = {"1": ACCEPTED, "2": RHYME}, found.request_state
            bad = ({}, {"1": ACCEPTED}, {**answers, "3": RHYME}, {"1": RHYME, "2": ACCEPTED}, {"a": ACCEPTED})
            for wrong in (*bad, {"1": ACCEPTED, "2": types.ListRootsResult(roots=[])}):
                error = await refusal(asks(client, "new__both", {}, request_state=state, input_responses=wrong))
                assert error.message in {
                    "answer each of the questions that were asked, and no other",
                    "an answer is none to its question",
                }
            content = types.TextContent(text="x" * 2_000_000)
            large = {"1": ACCEPTED, "2": types.CreateMessageResult(role="assistant", content=content, model="m")}
            error = await refusal(asks(client, "new__both", {}, request_state=state, input_responses=large))
            assert error.message == "the answers are too large"
            meta = {"1": ACCEPTED.model_copy(update={"meta": {"k": 1}}), "2": RHYME}
            ended = await asks(client, "new__both", {}, request_state=state, input_responses=meta)
            assert "accept {'hour': 'nine'} fine" in clean(ended)
            assert asking.states == [f"{TOKEN}|1|"]
            assert [each.meta for each in asking.heard] == [None, None]
            assert "'nine'" not in repr(await stage.records("tools/new/both"))

    play(scenario)


@pytest.mark.parametrize("server", ["old", "new"])
def test_who_comes_back_is_judged_as_who_calls_anew_and_the_server_does_not_hear_it(asking, server):
    async def scenario(stage):
        path, call = f"tools/servers/{server}", f"{server}__book"
        await ready(stage, server)
        bound = {"asks": ["sampling", "elicitation"]}

        async def ungrant():
            await stage.grant("tools/other/*")
            return "Unknown tool"

        async def forget():
            await stage.write(f"{path}/pins", {"forget": ["book"]})
            return "Unknown tool"

        async def condition():
            await stage.add(server, **bound, rules={"book": {"conditions": [{"at": "/day", "in": ["friday"]}]}})
            return "invalid_request"

        async def approval():
            await stage.add(server, **bound, rules={"book": {"approval": {"required": True}}})
            return "a person has to approve"

        async def deny():
            await stage.add(server, **bound, deny=["book"])
            return "Unknown tool"

        async def rebind():
            await stage.add(server, **bound, settings={"A": "b"})
            return "bound otherwise"

        async def revoke():
            await stage.opened.ask("update", "auth/token/revoke", {"token": stage.agent._token})
            return "unauthenticated"

        for change in (ungrant, forget, condition, approval, deny, rebind, revoke):
            await stage.add(server, **bound)
            await stage.grant("tools/*")
            async with visiting(stage) as client:
                back = await parked(client, call, {"day": "monday"})
                said = await change()
                try:
                    found = clean(await asks(client, call, {"day": "monday"}, **back))
                except MCPError as error:
                    found = error.error.message
                assert said in found, change.__name__
                if change is not revoke:
                    error = await refusal(asks(client, call, {"day": "monday"}, **back))
                    assert error.data == {"reason": "invalid_request_state"}
        assert asking.heard == []
        assert set(await outcomes(stage, f"tools/{server}/book")) == {"aborted"}
        if server == "old":
            await until(lambda: len(asking.gone) == 7)
        assert not stage.gateway.parking._places

    play(scenario)


def test_an_approval_is_for_a_whole_call_and_what_it_asks(asking):
    async def scenario(stage):
        await ready(stage, "old")
        await stage.add("old", asks=["elicitation", "sampling"], rules={"book": {"approval": {"required": True}}})
        async with visiting(stage) as client:
            assert "approval_required" in clean(await client.call_tool("old__book", {}))
            (request,) = (await stage.opened.ask("list", "approvals/requests")).data["keys"]
            await stage.write(f"approvals/requests/{request}/approve", {})
            assert "accept {'hour': 'nine'} fine" in clean(await client.call_tool("old__book", {}))
            assert "approval_required" in clean(await client.call_tool("old__book", {}))

    play(scenario)


@pytest.mark.parametrize("server", ["old", "new"])
def test_a_call_whose_client_does_not_come_back_is_given_up_and_leaves_nothing(asking, server):
    async def scenario(stage):
        await ready(stage, server, wait=0.05)
        parking = stage.gateway.parking
        async with visiting(stage) as client:
            back = await parked(client, f"{server}__once")
            await until(lambda: not parking._parked and not parking._places and not parking._tasks)
            error = await refusal(asks(client, f"{server}__once", {}, **back))
            assert error.data == {"reason": "invalid_request_state"}
        assert await outcomes(stage, f"tools/{server}/once") == ["aborted"]
        if server == "old":
            await until(lambda: asking.gone == ["once"])
        assert asking.heard == []

    play(scenario)


def test_calls_that_wait_are_bounded_for_each_agent_and_for_all(asking):
    async def scenario(stage):
        await ready(stage, "new", agent=3, total=5)
        await stage.write("agents/other", {})
        await stage.write("sys/policies/acl/agent/other", {"policy": 'path "tools/*" { capabilities = ["use"] }'})
        other = Inside(stage.door, (await stage.write("agents/other/token", {}))["token"])
        async with visiting(stage) as mine, visiting(stage, agent=other) as theirs:
            waiting = []
            for client, most in ((mine, 3), (theirs, 2)):
                at_once = [asks(client, "new__once", {"n": number}) for number in range(8)]
                found = await asyncio.gather(*at_once, return_exceptions=True)
                kept = [each for each in found if isinstance(each, types.InputRequiredResult)]
                assert len(kept) == most
                full = {each.error.message for each in found if isinstance(each, MCPError)}
                assert full == {"too many calls wait for their clients"}
                waiting.append((client, next(n for n, each in enumerate(found) if each is kept[0]), kept[0]))
                # What asks nothing goes on as before.
                assert not (await client.call_tool("new__plain", {})).is_error
            client, number, found = waiting[0]
            back = {"request_state": found.request_state, "input_responses": {"1": ACCEPTED}}
            assert "accept" in clean(await asks(client, "new__once", {"n": number}, **back))
            await parked(mine, "new__once")
        parking = stage.gateway.parking
        assert len(parking._parked) == 5
        await stage.gateway.close()
        assert not parking._parked
        assert not parking._places
        assert not parking._tasks
        assert sorted(await outcomes(stage, "tools/new/once")) == ["aborted"] * 5 + ["failed"] * 11 + ["ok"]
        # Another gateway knows nothing of it.
        await ready(stage, "new")
        async with visiting(stage) as client:
            error = await refusal(asks(client, "new__once", {"n": number}, **back))
            assert error.data == {"reason": "invalid_request_state"}

    play(scenario)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("server", ["old", "new"])
def test_a_server_asks_neither_without_end_nor_too_much_nor_what_it_may_not(asking, server, mode):
    person = Person()

    async def scenario(stage):
        await ready(stage, server, rounds=3)

        async def answer(client, tool, **arguments):
            try:
                return clean(await client.call_tool(f"{server}__{tool}", arguments))
            except MCPError as error:
                return clean(error.error)

        async with visiting(stage, mode, person=person) as client:
            tools = ["roots", "giant", "redos", *(["many"] if server == "new" else [])]
            said = [await answer(client, tool) for tool in tools]
            assert person.asked == []
            assert all("fine" not in each and "accept" not in each for each in said)
            await answer(client, "endless")
            assert len(person.asked) == 3
            if mode == "auto":  # for whom the call is kept meanwhile
                assert "passes this on to nobody" in await answer(client, "once", x="x" * 1_100_000)
            await stage.add(server, asks=["sampling"])
            await answer(client, "once")
            assert len(person.asked) == 3
        async with Client(front.build(stage.gateway, lambda _context: stage.agent), mode=mode, cache=None) as client:
            await stage.add(server, asks=["sampling", "elicitation"])
            await answer(client, "once")  # of a client that cannot be asked
        assert len(person.asked) == 3
        assert len(asking.heard) == len(person.asked)
        assert "ok" not in await outcomes(stage, f"tools/{server}/once")

    play(scenario)


def test_a_server_that_ends_or_gets_other_keys_while_a_call_waits(asking):
    async def scenario(stage):
        await ready(stage)
        async with visiting(stage) as client:
            back = await parked(client, "old__book")
            asking.stops["old"].set()
            parking = stage.gateway.parking
            await until(lambda: not parking._tasks)
            error = await refusal(asks(client, "old__book", {}, **back))
            assert error.message == "Connection closed"
            assert "accept {'hour': 'nine'} fine" in clean(await client.call_tool("old__book", {}))
            # Of the later revision, any life of the server can go on, and none says the keys of any other.
            back, lives = await parked(client, "new__once"), asking.lives
            await stage.write("secret/data/evil/token", {"data": {"value": "another-key-0815"}})
            found = await asks(client, "new__once", {}, **back)
            assert "accept {'hour': 'nine'}" in clean(found)
            assert asking.lives > lives
        assert await outcomes(stage, "tools/old/book") == ["failed", "ok"]

    play(scenario)


def test_progress_goes_to_who_waits_and_who_leaves_gives_the_call_up(asking):
    heard = []

    async def told(*about):
        heard.append(about)

    async def scenario(stage):
        await ready(stage, "old")
        async with visiting(stage) as client:
            back = await parked(client, "old__twice")
            found = await asks(client, "old__twice", {}, **back, progress_callback=told)
            await until(lambda: heard)
            assert [each[0] for each in heard] == [1.0]
            assert clean(*heard) == f"(1.0, None, 'asks {'*' * len(TOKEN)}')"
            (name,) = found.input_requests
            back = {"request_state": found.request_state, "input_responses": {name: ACCEPTED}}
            gate = asyncio.Event()
            begin = stage.agent.ask

            def waits(*about):
                asyncio.run_coroutine_threadsafe(gate.wait(), stage.door.loop).result()
                return begin(*about)

            stage.agent.ask = waits
            task = asyncio.create_task(asks(client, "old__twice", {}, **back))
            await until(lambda: not stage.gateway.parking._parked)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            gate.set()
            await until(lambda: asking.gone == ["twice"])
            await until(lambda: not stage.gateway.parking._tasks)
        assert len(asking.heard) == 1

    play(scenario)


def test_over_http_a_call_goes_on_for_the_token_that_it_was_made_with(asking):
    able = {"elicitation": {}, "sampling": {}}
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": able}

    async def scenario(stage):
        await ready(stage, "old")
        await stage.write("agents/other", {})
        await stage.write("sys/policies/acl/agent/other", {"policy": 'path "tools/*" { capabilities = ["use"] }'})
        other = (await stage.write("agents/other/token", {}))["token"]

        async def enter(token, remote):
            await stage.door.ask("read", "auth/token/lookup-self", {}, token=token, org="", remote=remote)
            return Inside(stage.door, token)  # another one for each request

        app = McpApp(lambda agent_of: front.build(stage.gateway, agent_of), enter, frozenset(), print)

        async def call(token, **params):
            named = {"mcp_method": "tools/call", "mcp_name": "old__once", "mcp_protocol_version": "2026-07-28"}
            body = {"name": "old__once", "arguments": {"day": "\U0001f511"}, "_meta": meta, **params}
            asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": body}
            accept = "application/json, text/event-stream"
            _, found = await post(app, asked, authorization=f"Bearer {token}", accept=accept, **named)
            return found.get("result", found.get("error"))

        async with app.running():
            found = await call(stage.agent._token)
            assert (found["resultType"], list(found["inputRequests"])) == ("input_required", ["1"])
            answer = {"action": "accept", "content": {"hour": "\u2668 \u202e"}}
            back = {"requestState": found["requestState"], "inputResponses": {"1": answer}}
            stolen = await call(other, **back)
            made_up = await call(other, **{**back, "requestState": "\u00e9"})
            assert stolen == made_up
            assert stolen["data"] == {"reason": "invalid_request_state"}
            assert await call(stage.agent._token, **{**back, "arguments": {"day": "x"}}) == stolen
            found = await call(stage.agent._token, **back)
            assert found["resultType"] == "complete"
            assert "\U0001f511" in found["content"][0]["text"]
            assert asking.heard[0].content == answer["content"]
            assert await call(stage.agent._token, **back) == stolen

    play(scenario)


@pytest.mark.parametrize("server", ["old", "new"])
def test_a_server_over_http_asks_while_it_answers_and_is_waited_for_no_longer_than_its_call(asking, server):
    far = Far(asking.server(), stateless=server == "new")

    async def scenario(stage):
        limits = QuestionLimits()
        stage.gateway = Gateway(Inside(stage.door, stage.opened.token), Ways(lambda _seconds: far, questions=limits))
        headers = {"Authorization": "Bearer {evil/token}"}
        bound = {"url": "https://tools.test/mcp", "headers": headers, "asks": ["sampling", "elicitation"]}
        async with far.manager.run():
            await stage.write(f"tools/servers/{server}", bound)
            await stage.approve(server)
            await stage.grant("tools/*")
            async with visiting(stage) as client:
                found = await client.call_tool(f"{server}__book", {"day": "monday"})
                assert "{'day': 'monday'} accept {'hour': 'nine'} fine" in clean(found)
                await parked(client, f"{server}__once")
                assert far.open == (1 if server == "old" else 0)
                for conversation in list(stage.gateway.parking._parked.values()):
                    conversation.end()  # as when its time is over
                await until(lambda: far.open == 0)
            await stage.gateway.close()
            await asyncio.gather(*far.tasks)

    play(scenario)
