"""The gateway over HTTP: what two clients may get of each other's, and what of a request is none."""

import asyncio
import json

from faces.test_mcp_gateway import play
from faces.test_mcp_http import post
from keyhole.faces.mcp.gateway import front
from keyhole.faces.mcp.http import McpApp
from keyhole.faces.mcp.inside import Inside

HEADERS = {"accept": "application/json, text/event-stream", "mcp_protocol_version": "2025-06-18"}
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJodHRwczovL290aGVyLnRlc3QvbWNwIn0.c2ln"


def called(number, tool, **arguments):
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}


def test_clients_of_one_endpoint_get_what_is_theirs_whatever_ids_and_sessions_they_name():
    async def scenario(stage):
        await stage.add()
        await stage.grant("tools/evil/*")
        await stage.write("agents/other", {})
        await stage.write("agents/other/tools", {"tool": "evil/echo"})
        other = (await stage.write("agents/other/token", {}))["token"]

        async def enter(token, remote):
            await stage.door.ask("read", "auth/token/lookup-self", {}, token=token, org="", remote=remote)
            return Inside(stage.door, token)

        def served(agent_of):
            return front.build(stage.gateway, agent_of)

        app = McpApp(served, enter, frozenset({"127.0.0.1"}), stage.opened.node.note_refusal)
        coder = {**HEADERS, "authorization": f"Bearer {stage.agent._token}"}
        others = {**HEADERS, "authorization": f"Bearer {other}"}
        async with app.running():
            both = [(coder, "mine"), (others, "theirs")] * 4
            found = await asyncio.gather(
                *(post(app, called(7, "evil__echo", x=f"{word}-{n}"), **who) for n, (who, word) in enumerate(both))
            )
            for number, ((_, word), (status, body)) in enumerate(zip(both, found, strict=True)):
                assert (status, body["id"]) == (200, 7)
                assert f"{word}-{number}" in body["result"]["content"][-1]["text"]
            # What one agent may use, the other may not, under any session that it names.
            guessed = {**others, "mcp_session_id": "0" * 32, "last_event_id": "1"}
            status, body = await post(app, called(8, "evil__add", a=1, b=2), **guessed)
            assert (status, body["error"]["message"]) == (200, "Unknown tool: evil__add")
            assert (await post(app, {}, method="GET", **guessed))[0] == 405
            assert (await post(app, {}, method="DELETE", **guessed))[0] == 405
            for bearer in ({}, {"authorization": f"Bearer {JWT}"}):  # a token that was made for another resource
                status, _ = await post(
                    app, called(9, "evil__echo"), **{**HEADERS, **bearer, "mcp_session_id": "0" * 32}
                )
                assert status == 401
            before = len(await stage.records("tools/evil/echo"))
            for number in (None, 1.5, True, {}, [1]):
                status, body = await post(app, {**called(1, "evil__echo"), "id": number}, **coder)
                assert status == 400 or not body or body["error"]["code"] == -32600, number
            assert len(await stage.records("tools/evil/echo")) == before, "nothing was called"
            for odd in ([called(1, "evil__echo")] * 100, json.loads("[" * 500 + "]" * 500), "x", 7):
                assert (await post(app, odd, **coder))[0] == 400
            assert (await post(app, called(10, "evil__add", a=1, b=2), **coder))[0] == 200

    play(scenario)
