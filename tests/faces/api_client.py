"""Asks the API as an ASGI server would, without a socket."""

import asyncio
import contextlib
import json
from dataclasses import dataclass
from urllib.parse import quote

from keyhole.config import ApiLimits
from keyhole.faces.api.app import Api
from keyhole.testing import open_vault


@dataclass
class Answer:
    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body) if self.body else {}


class Client:
    def __init__(self, node, *, limits=None, **options):
        self.api = Api(node, limits or ApiLimits(), **options)

    async def __call__(
        self, method, path, body=None, *, token="root", headers=(), raw=None, remote="127.0.0.1", certificate=b""
    ):
        """``path`` below ``/v1/`` unless it begins with a slash; ``raw`` are the bytes of a body."""
        target, _, query = path.partition("?")
        target = target if target.startswith("/") else f"/v1/{quote(target, safe='/%')}"
        sent = [(b"host", b"127.0.0.1:8200")] if not any(name == b"host" for name, _ in headers) else []
        sent += [(b"x-vault-token", token.encode())] if token is not None else []
        scope = {
            "type": "http",
            "method": method,
            "path": target,
            "raw_path": target.encode(),
            "query_string": query.encode(),
            "headers": [*sent, *headers],
            "client": (remote, 5),
            "peer_certificate": certificate,
        }
        content = raw if raw is not None else json.dumps(body).encode() if body is not None else b""
        messages = [
            {"type": "http.request", "body": content[i : i + 65536], "more_body": True}
            for i in range(0, len(content), 65536)
        ] + [{"type": "http.request", "body": b"", "more_body": False}]
        answer = []

        async def receive():
            return messages.pop(0)

        async def send(message):
            answer.append(message)

        await self.api(scope, receive, send)
        start, end = answer
        return Answer(start["status"], {k.decode(): v.decode() for k, v in start["headers"]}, end["body"])


async def furnish(ask):
    """Enable every engine and login method that there is, at its usual path."""
    catalog = (await ask("GET", "sys/plugins/catalog")).json["data"]
    for kind in catalog["secret"]:
        await ask("POST", f"sys/mounts/{kind}", {"type": kind})
    await ask("POST", "sys/mounts/kv2", {"type": "kv", "options": {"version": "2"}})
    for kind in catalog["auth"]:
        await ask("POST", f"sys/auth/{kind}", {"type": kind})
    found = (await ask("GET", "sys/internal/ui/mounts")).json["data"]
    assert {f"{kind}/" for kind in catalog["secret"]} <= set(found["secret"])
    assert {f"{kind}/" for kind in catalog["auth"]} <= set(found["auth"])


@contextlib.asynccontextmanager
async def asking(**options):
    async with open_vault() as vault:
        yield Client(vault.node, **options), vault


async def enable(ask, *paths, **options):
    """Mounts ``sys/mounts/TYPE`` or ``sys/auth/TYPE`` at their usual places."""
    for path in paths:
        made = await ask("POST", path, {"type": path.rpartition("/")[2]}, **options)
        assert made.status == 204, made.body


def play(scenario, *, enabled=(), **options):
    """Run ``scenario(ask, vault)`` on a vault of its own, with these mounts besides."""

    async def main():
        async with asking(**options) as (ask, vault):
            await enable(ask, *enabled)
            return await scenario(ask, vault)

    return asyncio.run(main())
