"""The endpoint `/mcp`: who is turned away before a tool is asked for, and what the journal says of it."""

import asyncio
import json

from keyhole.faces.mcp.beside import nothing
from keyhole.faces.mcp.inside import beside
from keyhole.testing import open_vault

PING = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}


async def no_proxy():
    raise AssertionError("nobody makes a call here")


async def post(app, body=PING, *, method="POST", path="/mcp", **headers):
    """Status and body of one request."""
    sent, answer = {"content_type": "application/json", "host": "127.0.0.1:8200", **headers}, []
    raw = [json.dumps(body).encode()]
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "client": ("192.0.2.7", 5000),
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in sent.items()],
    }

    async def receive():
        return {"type": "http.request", "body": raw.pop()} if raw else {"type": "http.disconnect"}

    async def send(message):
        answer.append(message)

    await app(scope, receive, send)
    assert not [name for name, _ in answer[0]["headers"] if name.lower().startswith(b"access-control")]
    return answer[0]["status"], json.loads(answer[1]["body"] or "{}")


def test_strangers_pages_and_strange_names_are_refused_and_each_is_in_the_journal():
    async def main():
        async with open_vault() as opened:
            await opened.ask("update", "agents/coder", {})
            token = (await opened.ask("update", "agents/coder/token", {})).data["token"]
            app = beside(nothing, opened.node, frozenset({"127.0.0.1"}), no_proxy)
            bearer = f"Bearer {token}"
            try:
                turned_away = [
                    (401, "unauthenticated", await post(app)),
                    (401, "unauthenticated", await post(app, authorization="Basic abc")),
                    (401, "unauthenticated", await post(app, authorization="Bearer hvs.guessed")),
                    (403, "policy_denied", await post(app, authorization=bearer, origin="http://evil.test")),
                    (403, "policy_denied", await post(app, authorization=bearer, sec_fetch_site="cross-site")),
                    (403, "policy_denied", await post(app, authorization=bearer, host="evil.test:8200")),
                    (405, "invalid_request", await post(app, method="GET", authorization=bearer)),
                ]
            finally:
                await app.close()
            await opened.vault.journal.drain()
            records = (await opened.get("sys/audit-log"))["records"]
            refused = {record["id"]: record for record in records if record["phase"] == "refused"}
            for status, code, (said, body) in turned_away:
                assert (said, body["error"]["code"]) == (status, code)
                record = refused.pop(body["error"]["request_id"])
                assert record["result"] == code
                assert record["remote"] == "192.0.2.7"
                assert not {"evil.test", "hvs.guessed"} & {str(value) for value in record.values()}
            assert not refused

    asyncio.run(main())
