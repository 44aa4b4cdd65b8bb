"""What passes a gateway besides tools, of a server that means ill: prompts, logs, changes, questions, approvals."""

import asyncio
import contextlib
import json

import mcp_types as types
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError

from faces.test_mcp_gateway import OTHER, TOKEN, Remote, play
from keyhole.core.errors import InvalidRequest, UpstreamUnreachable
from keyhole.faces.mcp.gateway import front
from keyhole.faces.mcp.inside import Inside

FORMS = (TOKEN, TOKEN.encode().hex(), "NDkxNTAyODM3NDY1MDkx", "%34%39", "\\u0034", TOKEN[6:], OTHER)


def clean(*heard):
    """The text of it, in which no form of a credential stands."""
    text = " ".join(each.model_dump_json() if hasattr(each, "model_dump_json") else repr(each) for each in heard)
    assert not [form for form in FORMS if form in text]
    return text


@contextlib.asynccontextmanager
async def talking(stage, **how):
    """A client of an earlier revision, which has a session and can be asked."""
    server = front.build(stage.gateway, lambda _context: stage.agent)
    async with Client(server, mode="legacy", cache=None, **how) as client:
        yield client


async def until(ready):
    async with asyncio.timeout(60):
        while not ready():  # noqa: ASYNC110  # it comes from another process
            await asyncio.sleep(0.01)


def test_an_echo_comes_back_from_no_corner_of_an_answer():
    async def scenario(stage):
        await stage.add(timeout="5s")
        await stage.grant("tools/evil/*")
        async with stage.client() as client:
            found = await client.call_tool("evil__corners", {})
            text = clean(found)
            assert [each.meta for each in found.content] == [None] * 4
            assert '"audience":["user"]' in text
            assert found.structured_content["deep"] == [[{"a": {"b": "*" * len(TOKEN)}}]]
            deep = await client.call_tool("evil__bomb", {"depth": 100})
            assert not deep.is_error
            deeper = await client.call_tool("evil__bomb", {"depth": 230})
            assert deeper.is_error
            # Nobody tries the patterns of a server's own schema on its own answers, neither the gateway nor the client.
            shown = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert shown["evil__redos"].output_schema is None
            async with asyncio.timeout(60):
                assert not (await client.call_tool("evil__redos", {})).is_error

    play(scenario)


def test_prompts_and_templates_are_named_after_their_server_and_need_their_own_grant():
    async def scenario(stage):
        await stage.add(settings={"PROMPTS": '["\u0440lan", "p1an"]'})
        await stage.grant("tools/evil/echo")
        async with stage.client() as client:
            assert (await client.list_prompts()).prompts == []
            assert (await client.list_resource_templates()).resource_templates == []
            for asking in (client.get_prompt("evil__plan"), client.read_resource("mcp://evil/+note://a")):
                with pytest.raises(MCPError):
                    await asking
            await stage.grant("tools/evil/@*", "tools/evil/add")
            names = [prompt.name for prompt in (await client.list_prompts()).prompts]
            assert names == []  # plan and p1an look alike, as review and Review do
        await stage.add(approve=False)
        await stage.call("add", {"a": 1, "b": 2})  # which starts it as it is bound now
        async with stage.client() as client:
            listed = await client.list_prompts()
            assert [prompt.name for prompt in listed.prompts] == ["evil__plan"]
            got = await client.get_prompt("evil__plan", {"a": "{{vault:other/token}}"})
            templates = await client.list_resource_templates()
            assert [each.uri_template for each in templates.resource_templates] == ["mcp://evil/+note://{name}"]
            read = await client.read_resource("mcp://evil/+note://b%2Fc")
            assert "note://b%2Fc" in clean(listed, got, templates, read)
            assert "{{vault:other/token}}" in got.model_dump_json()
            bad = ["mcp://evil/+file:///etc/passwd", "mcp://evil/+FILE:///etc/passwd", "mcp://evil/+other://x",
                   "mcp://evil/file%3A%2F%2F%2Fetc%2Fpasswd", "mcp://other/+note://a", "file:///etc/passwd",
                   "mcp://evil/+note://a/b/../c", "mcp://evil/+note://" + "a" * 9000, ""]  # fmt: skip
            for uri in bad:
                with pytest.raises(MCPError) as caught:
                    await client.read_resource(uri)
                assert caught.value.error.message == "Resource not found", uri
            with pytest.raises(MCPError):
                await client.get_prompt("evil__Review")
            ref = types.PromptReference(name="evil__plan")
            completed = await client.complete(ref, {"name": "a", "value": "x"})
            assert '{\\"type\\": \\"ref/prompt\\", \\"name\\": \\"plan\\"}' in clean(completed).replace("\\\\", "\\")
            uri = types.ResourceTemplateReference(uri="mcp://evil/+note://{name}")
            assert len((await client.complete(uri, {"name": "name", "value": ""})).completion.values) == 100
        records = await stage.records("tools/evil/@prompts")
        assert {record["result"] for record in records if record["phase"] == "outcome"} == {"ok", "failed"}

    play(scenario)


def test_what_a_server_logs_comes_to_the_client_whose_call_goes_on_and_to_no_other():
    async def scenario(stage):
        heard = []

        async def logged(params):
            heard.append(params)

        await stage.add()
        await stage.grant("tools/evil/*")
        async with talking(stage, logging_callback=logged) as client:
            await client.call_tool("evil__log", {})
            await until(lambda: heard)
            assert [each.level for each in heard] == ["warning"]
            assert "evil/l ****************" in clean(*heard)
            await client.session.send_request(
                types.SetLevelRequest(params=types.SetLevelRequestParams(level="debug")), types.EmptyResult
            )
            await client.call_tool("evil__log", {})
            await until(lambda: len(heard) == 3)
            # While another call goes on, nobody can tell for whom it is.
            hanging = asyncio.create_task(client.call_tool("evil__hang", {}))
            await until(lambda: len(heard) == 4)
            await client.call_tool("evil__log", {})
            assert len(heard) == 4
            hanging.cancel()
            await asyncio.gather(hanging, return_exceptions=True)
            # The server hears that the call was given up, and the journal how it ended.
            hung = []
            async with asyncio.timeout(60):
                while not hung:
                    hung = json.loads((await client.call_tool("evil__hung", {})).content[0].text)
        outcomes = [record for record in await stage.records("tools/evil/hang") if record["phase"] == "outcome"]
        assert [record["result"] for record in outcomes] == ["aborted"]

    play(scenario)


async def watch(client, uri):
    params = types.SubscribeRequestParams(uri=uri)
    await client.session.send_request(types.SubscribeRequest(params=params), types.EmptyResult)


def test_clients_hear_that_lists_have_changed_and_a_flood_of_it_comes_as_one():
    async def scenario(stage):
        heard = []

        async def told(message):
            heard.append(message)

        await stage.add()
        await stage.grant("tools/evil/*")
        async with talking(stage, message_handler=told) as client:
            capabilities = client.server_capabilities
            assert [capabilities.tools.list_changed, capabilities.prompts.list_changed] == [True, True]
            await watch(client, "mcp://evil/note%3A%2F%2Fa")
            with pytest.raises(MCPError):
                await watch(client, "mcp://evil/file%3A%2F%2F%2Fetc%2Fpasswd")
            await client.call_tool("evil__change", {})
            await until(lambda: len(heard) >= 4)
            await until(lambda: len({type(message) for message in heard}) == 4)
            assert {type(message).__name__ for message in heard} == {
                "PromptListChangedNotification",
                "ResourceListChangedNotification",
                "ResourceUpdatedNotification",
                "ToolListChangedNotification",
            }
            assert len(heard) < 60, "of 180"
            assert "mcp://evil/note%3A%2F%2Fa" in clean(*heard)
            params = types.UnsubscribeRequestParams(uri="mcp://evil/note%3A%2F%2Fa")
            await client.session.send_request(types.UnsubscribeRequest(params=params), types.EmptyResult)
            assert not stage.gateway._upstreams["evil"].watched

    play(scenario)


def test_a_stream_of_changes_ends_with_the_token_of_its_agent(monkeypatch):
    monkeypatch.setattr("keyhole.faces.mcp.gateway.streams._AGAIN", 0.02)

    async def scenario(stage):
        await stage.add()
        await stage.grant("tools/evil/*")
        async with stage.client() as client:
            watched = ["mcp://evil/note%3A%2F%2Fa"]
            async with client.listen(tools_list_changed=True, resource_subscriptions=watched) as events:
                await client.call_tool("evil__change", {})
                async with asyncio.timeout(60):
                    while "note%3A%2F%2Fa" not in clean(await anext(events)):
                        pass
                await stage.opened.ask("update", "auth/token/revoke", {"token": stage.agent._token})
                async with asyncio.timeout(60):
                    clean([event async for event in events])
            assert not stage.gateway._upstreams["evil"].watched

    play(scenario)


@pytest.mark.parametrize("kind", ["sample", "question"])
def test_a_server_asks_only_what_it_may_and_the_client_sees_who_asks_it(kind):
    seen = []

    async def sampled(_context, params):
        seen.append(params)
        return types.CreateMessageResult(role="assistant", content=types.TextContent(text="no"), model="m")

    async def elicited(_context, params):
        seen.append(params)
        return types.ElicitResult(action="decline")

    async def scenario(stage):
        await stage.add()
        await stage.grant("tools/evil/*")
        async with talking(stage, sampling_callback=sampled, elicitation_callback=elicited) as client:
            assert '\\"error\\"' in (await client.call_tool(f"evil__{kind}", {})).model_dump_json()
            assert not seen
        await stage.add(asks=["sampling", "elicitation"])
        async with talking(stage) as client:  # a client that cannot be asked
            assert '\\"error\\"' in (await client.call_tool(f"evil__{kind}", {})).model_dump_json()
        async with talking(stage, sampling_callback=sampled, elicitation_callback=elicited) as client:
            assert '\\"result\\"' in (await client.call_tool(f"evil__{kind}", {})).model_dump_json()
        assert len(seen) == 1
        assert "The server of tools 'evil' asks" in clean(*seen)

    play(scenario)


def test_a_call_waits_for_a_person_and_is_made_when_it_is_approved():
    rules = {"add": {"approval": {"required": True, "wait": "60s"}}, "echo": {"approval": {"required": True}}}

    async def scenario(stage):
        told = []

        async def progress(*about):
            told.append(about[2])

        await stage.add(rules=rules)
        await stage.grant("tools/evil/*")
        async with stage.client() as client:
            call = asyncio.create_task(client.call_tool("evil__add", {"a": 1, "b": 2}, progress_callback=progress))
            await until(lambda: told)
            request = told[0].rpartition(" ")[2]
            assert told == [f"waits for a person: keyhole approve {request}"]
            await stage.write(f"approvals/requests/{request}/approve", {})
            assert (await call).content[0].text == "3"
            refused = (await client.call_tool("evil__echo", {})).model_dump_json()
            assert "approval_required" in refused
            request = (await stage.opened.ask("list", "approvals/requests")).data["keys"][0]
            await stage.write(f"approvals/requests/{request}/deny", {})
            assert "denied this call" in (await client.call_tool("evil__echo", {})).model_dump_json()
        intents = [record for record in await stage.records("tools/evil/add") if record["phase"] == "intent"]
        assert len(intents) == 1
        assert intents[0]["approval"]

    play(scenario)


def test_a_server_over_http_has_what_it_has_and_two_agents_get_what_is_theirs():
    async def scenario(stage):
        body = {"url": "https://tools.test/mcp", "headers": {"Authorization": "Bearer {evil/token}"}}
        await stage.write("tools/servers/far", body)
        await stage.add()
        await stage.approve("far")
        await stage.grant("tools/*")
        await stage.write("agents/other", {})
        other = Inside(stage.door, (await stage.write("agents/other/token", {}))["token"])
        async with stage.client() as client:
            assert [prompt.name for prompt in (await client.list_prompts()).prompts] == ["evil__plan"]
        assert await stage.gateway.tools(other) == []

    play(scenario, lambda _seconds: Remote())


def test_a_credential_comes_back_in_no_number_and_in_no_two_pieces():
    half = len(TOKEN) // 2

    async def scenario(stage):
        heard, told = [], []

        async def logged(params):
            heard.append(params)

        async def progress(*about):
            told.append(about)

        await stage.add()
        await stage.grant("tools/evil/*")
        async with talking(stage, logging_callback=logged) as client:
            found = await client.call_tool("evil__parted", {})
            assert TOKEN[:half] not in clean(found)
            assert TOKEN[half:] not in clean(found)
            assert found.content[1].resource.meta is None
            assert "scrub_failed_closed" in clean(await client.call_tool("evil__numbers", {}))
            with pytest.raises(MCPError) as caught:
                await client.call_tool("evil__code", {})
            assert caught.value.error.code == types.INTERNAL_ERROR
            await client.call_tool("evil__bits", {}, progress_callback=progress)
            await until(lambda: len(heard) == 3 and len(told) == 3)
            # The first piece has left before anybody can know that it is one.
            assert [each.data for each in heard] == [TOKEN[:half], "*" * (len(TOKEN) - half), "cut"]
            assert [each[2] for each in told] == [TOKEN[:half], "*" * (len(TOKEN) - half), None]
            assert told[2][:2] == (0.0, None)
            assert TOKEN[:half] not in heard[2].logger

    play(scenario)


def test_numbers_that_no_schema_can_judge_are_refused_before_they_are_sent():
    async def scenario(stage):
        await stage.add(rules={"add": {"schema": {"properties": {"a": {"type": "number", "maximum": 5}}}}})
        await stage.grant("tools/evil/*")
        assert '"3"' in await stage.call("add", {"a": 1, "b": 2})
        upstream = (await stage.gateway.servers())["evil"]
        listed = (await upstream.tools())["add"]
        for odd in (float("nan"), float("-inf")):
            facts = {"server": "evil", "tool": "add", "digest": listed.digest, "arguments": {"a": odd, "b": 1}}
            with pytest.raises(InvalidRequest):
                await asyncio.to_thread(stage.agent.ask, "update", "tools/own/begin", facts)

    play(scenario)


def test_an_answer_of_too_many_parts_costs_nothing_and_a_server_that_answers_no_more_is_begun_anew():
    async def scenario(stage):
        await stage.add()
        await stage.grant("tools/evil/*")
        assert (await stage.refused("many")).message == "the answer of the server has too many parts"
        session = await (await stage.gateway.servers())["evil"].session()
        for in_time in (False, False, True, False, False):
            session.answered(in_time=in_time)
        assert not session.ended
        session.answered(in_time=False)
        assert session.ended
        assert '"3"' in await stage.call("add", {"a": 1, "b": 2})
        assert await (await stage.gateway.servers())["evil"].session() is not session

    play(scenario)


def test_a_list_without_end_is_given_up_and_takes_no_other_list_with_it(monkeypatch):
    monkeypatch.setattr("keyhole.faces.mcp.gateway.sides.LARGEST_LIST", 100)
    monkeypatch.setattr("keyhole.faces.mcp.gateway.upstream.LARGEST_LIST", 100)

    async def scenario(stage):
        await stage.add(approve=False)
        await stage.grant("tools/evil/*")
        with pytest.raises(UpstreamUnreachable, match="too large"):
            await stage.gateway.listing("evil")
        async with stage.client() as client:
            assert (await client.list_prompts()).prompts == []
            assert (await client.list_tools()).tools == []

    play(scenario)


def test_tools_that_have_changed_are_asked_for_again_when_that_failed_or_its_client_went(monkeypatch):
    async def scenario(stage):
        await stage.add()
        upstream = (await stage.gateway.servers())["evil"]
        before = await upstream.tools()
        (await upstream.session()).stale = True
        list_tools, outcomes = upstream._list, [UpstreamUnreachable("the list is too large"), asyncio.CancelledError()]

        async def failing(*about):
            if outcomes:
                raise outcomes.pop(0)
            return await list_tools(*about)

        monkeypatch.setattr(upstream, "_list", failing)
        for kind in (UpstreamUnreachable, asyncio.CancelledError):
            with pytest.raises(kind):
                await upstream.tools()
        after = await upstream.tools()
        assert after.keys() == before.keys()
        assert after is not before

    play(scenario)
