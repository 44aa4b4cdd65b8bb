"""An API that makes keys, in memory: what a rotation talks to, and where the tests can break it."""

import json
import secrets
from urllib.parse import urlsplit

from keyhole.core.errors import UpstreamUnreachable
from keyhole.net.ask import Heard

FIRST = "first-value-0123456789"
SETTINGS = {
    "secrets": {"admin": "acme/admin#token"},
    "create": {
        "method": "POST",
        "url": "https://acme.example.com/keys",
        "headers": {"Authorization": "Bearer {{secrets.admin}}"},
        "json": {"name": "keyhole-{{attempt}}"},
        "fields": {"value": "$.key.secret"},
        "handle": {"id": "$.key.id"},
    },
    "verify": {"url": "https://acme.example.com/me", "headers": {"Authorization": "Bearer {{new.value}}"}},
    "revoke": {
        "method": "DELETE",
        "url": "https://acme.example.com/keys/{{handle.id}}",
        "headers": {"Authorization": "Bearer {{secrets.admin}}"},
    },
    "abandon": {
        "method": "DELETE",
        "url": "https://acme.example.com/named/keyhole-{{attempt}}",
        "headers": {"Authorization": "Bearer {{secrets.admin}}"},
    },
}


class Died(BaseException):
    """The process is gone."""


class Source:
    """``keys`` are the live ones, by id, each with its name and value."""

    def __init__(self):
        self.keys = {"0": ("first", FIRST)}
        self.asked = []
        self.not_yet = 0  # answers to verify before the new key is known
        self.answers = {}  # what -> status to answer with instead
        self.down = False
        self.dies = None  # (what, "before" or "after")

    @property
    def values(self):
        return {value for _, value in self.keys.values()}

    async def addresses(self, *_, **__):
        return ["192.0.2.1"]

    async def ask(self, method, url, *, headers=(), body=b"", ca_pem="", allow=()):
        path, token = urlsplit(url).path, dict(headers)["Authorization"].removeprefix("Bearer ")
        what = {"POST": "create", "GET": "verify"}.get(method) or ("revoke" if path.startswith("/keys/") else "abandon")
        self.asked.append(what)
        if self.down:
            raise UpstreamUnreachable("nobody there")
        if self.dies == (what, "before"):
            raise Died
        status, answer = self.answers.get(what) or self._do(what, path, token, body)
        if self.dies == (what, "after"):
            raise Died
        return Heard(status, {}, json.dumps(answer).encode())

    def _do(self, what, path, token, body):
        if what == "verify":
            if self.not_yet:
                self.not_yet -= 1
                return 401, {}
            return (200 if token in self.values else 403), {}
        if token != "the-admin-token-1234":
            return 403, {"message": f"unknown token {token}"}
        if what == "create":
            number, value = secrets.token_hex(4), "made-" + secrets.token_hex(12)
            self.keys[number] = (json.loads(body)["name"], value)
            return 201, {"key": {"id": number, "secret": value}}
        name = path.rpartition("/")[2]
        gone = [number for number, (named, _) in self.keys.items() if name in {number, named}]
        for number in gone:
            del self.keys[number]
        return (204 if gone else 404), {}
