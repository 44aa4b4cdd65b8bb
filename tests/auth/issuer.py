"""An issuer of tokens, as login methods meet one: signs, shows its keys, and changes codes for tokens of people."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from keyhole.core.errors import UpstreamUnreachable
from keyhole.net.ask import Heard

URL = "https://issuer.test"
CLIENT = ("keyhole", "client-secret-5d1c")


class Issuer:
    """Answers what ``Context.net`` is asked, and keeps it."""

    def __init__(self) -> None:
        self.keys = {"one": RSAKey.generate_key(2048, {"kid": "one"})}
        self.asked: list[str] = []
        self.codes: dict[str, dict[str, Any]] = {}
        self.away = False
        self.begun = asyncio.Event()
        self.held: asyncio.Event | None = None
        self.answers: dict[str, tuple[int, Any]] = {}

    def sign(
        self, claims: Mapping[str, Any] | None = None, *, key: str = "one", algorithm: str = "RS256", **more
    ) -> str:
        now = int(time.time())
        whole = {"iss": URL, "aud": "vault", "sub": "agent-1", "iat": now, "exp": now + 300, **(claims or {}), **more}
        whole = {name: value for name, value in whole.items() if value is not None}
        return jwt.encode({"alg": algorithm, "kid": key}, whole, self.keys[key], algorithms=[algorithm])

    def add_key(self, name: str) -> None:
        self.keys[name] = ECKey.generate_key("P-256", {"kid": name})

    async def ask(self, method, url, *, headers=(), body=b"", ca_pem="", allow=()):
        self.asked.append(f"{method} {url}")
        if self.held is not None:
            self.begun.set()
            await self.held.wait()
        if self.away:
            raise UpstreamUnreachable("the issuer is away")
        path = urlsplit(url).path
        if path in self.answers:
            status, answer = self.answers[path]
        elif path == "/.well-known/openid-configuration":
            status, answer = 200, self.document()
        elif path == "/keys":
            status, answer = 200, {"keys": [key.as_dict(private=False) for key in self.keys.values()]}
        elif path == "/token":
            status, answer = self.change(dict(headers), body)
        else:
            status, answer = 404, {}
        return Heard(status, {}, json.dumps(answer).encode())

    def document(self) -> dict[str, Any]:
        return {
            "issuer": URL,
            "authorization_endpoint": f"{URL}/authorize",
            "token_endpoint": f"{URL}/token",
            "jwks_uri": f"{URL}/keys",
        }

    def authorize(self, url: str, claims: Mapping[str, Any] | None = None) -> dict[str, str]:
        """What the browser brings back after the person has said yes."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query, strict_parsing=True).items()}
        code = f"code-{len(self.codes)}"
        self.codes[code] = {"asked": asked, "claims": {"aud": CLIENT[0], "nonce": asked["nonce"], **(claims or {})}}
        return {"code": code, "state": asked["state"]}

    def change(self, headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        form = {name: values[0] for name, values in parse_qs(body.decode(), strict_parsing=True).items()}
        known = self.codes.pop(form["code"], None)
        basic = base64.b64decode(headers["Authorization"].removeprefix("Basic ")).decode()
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).decode()
        if (
            known is None
            or basic != ":".join(CLIENT)
            or known["asked"]["code_challenge"] != challenge.rstrip("=")
            or known["asked"]["redirect_uri"] != form["redirect_uri"]
        ):
            return 400, {"error": "invalid_grant"}
        return 200, {"id_token": self.sign(known["claims"]), "access_token": "unused", "token_type": "Bearer"}
