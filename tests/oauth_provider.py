"""A provider of OAuth tokens as the tests meet one, over HTTPS on loopback, in this process.

Refresh tokens are single-use. One that is shown a second time ends its whole family, unless it was the last one that
was used and ``grace`` is on: then the answer of that use is given again.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import secrets
import ssl
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit

import trustme

CLIENT, CLIENT_SECRET = "keyhole-test", "client-secret-3f9c55d1"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
JWT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


@functools.cache
def authority():
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@functools.cache
def ca_pem():
    return authority().cert_pem.bytes().decode()


class Provider:
    """Its books, and what it is told to do wrong.

    Attributes:
        asked: number of requests by path, and by ``grant_type`` for the token endpoint.
        life: seconds of an access token; ``None`` to say nothing of it.
        grace: the last refresh token that was used gives the same answer again.
        rotates: every refresh gives another refresh token.
        say: answers of the token endpoint instead of its own: ``(status, headers, body)`` once for each item.
        hold: set to let token requests go on that ``held`` says have come.
    """

    def __init__(self):
        self.asked, self.lock = Counter(), threading.Lock()
        self.forms, self.auth = [], []
        self.life, self.grace, self.rotates = 3600, False, True
        self.say, self.scope, self.extra = [], None, {}
        self.codes, self.devices, self.refresh, self.dead = {}, {}, {}, set()
        self.last, self.access = {}, {}
        self.agreed, self.interval, self.polls = set(), 1, []
        self.hold = self.held = None
        self.lose = False  # do all there is to do, and answer nothing

    def issue(self, family, scope):
        access = f"at-{secrets.token_urlsafe(24)}"
        self.access[access] = family
        answer = {"access_token": access, "token_type": "Bearer", "scope": self.scope or scope, **self.extra}
        if self.life is not None:
            answer["expires_in"] = self.life
        if family and self.rotates:
            refresh = f"rt-{secrets.token_urlsafe(24)}"
            self.refresh[refresh] = (family, scope)
            answer["refresh_token"] = refresh
        return answer

    def consent(self, scope="read write"):
        """A family of tokens as somebody got it elsewhere; the refresh token."""
        return self.issue(secrets.token_hex(4), scope)["refresh_token"]

    def agree(self, url):
        """A person agrees in the browser; the address that the browser is sent to."""
        parts = urlsplit(url)
        asked = {name: values[0] for name, values in parse_qs(parts.query, strict_parsing=True).items()}
        assert asked["code_challenge_method"] == "S256"
        assert asked["client_id"] == CLIENT
        code = f"code-{secrets.token_urlsafe(16)}"
        self.codes[code] = asked
        answer = {"code": code, "state": asked["state"], "iss": self.url}
        return f"{asked['redirect_uri']}?{urlencode(answer)}"

    def token(self, form):
        """Status and answer of the token endpoint."""
        grant = form.get("grant_type")
        self.asked[grant] += 1
        if grant == "authorization_code":
            asked = self.codes.pop(form.get("code"), None)
            verifier = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
            challenge = base64.urlsafe_b64encode(verifier).decode().rstrip("=")
            if asked is None or asked["redirect_uri"] != form.get("redirect_uri"):
                return 400, {"error": "invalid_grant"}
            if asked["code_challenge"] != challenge:
                return 400, {"error": "invalid_grant", "error_description": "PKCE"}
            return 200, self.issue(secrets.token_hex(4), asked.get("scope", ""))
        if grant == "refresh_token":
            return self.renew(form.get("refresh_token"))
        if grant == DEVICE:
            return self.poll(form.get("device_code"))
        if grant in {"client_credentials", JWT}:
            return 200, self.issue("", form.get("scope", ""))
        return 400, {"error": "unsupported_grant_type"}

    def renew(self, refresh):
        family, scope = self.refresh.get(refresh, (None, ""))
        if family is None or family in self.dead:
            return 400, {"error": "invalid_grant", "error_description": f"unknown {refresh}"}
        if not self.rotates:
            return 200, self.issue(family, scope)
        used = self.last.setdefault(family, {})
        if refresh in used:
            if self.grace and list(used)[-1] == refresh:
                return 200, used[refresh]
            self.dead.add(family)
            return 400, {"error": "invalid_grant", "error_description": "reuse"}
        used[refresh] = answer = self.issue(family, scope)
        return 200, answer

    def poll(self, code):
        self.polls.append(time.monotonic())
        if code not in self.devices:
            return 400, {"error": "expired_token"}
        if code not in self.agreed:
            return 400, {"error": "authorization_pending"}
        return 200, self.issue(secrets.token_hex(4), self.devices.pop(code))

    def device(self, form):
        code = f"dev-{secrets.token_urlsafe(16)}"
        self.devices[code] = form.get("scope", "")
        said = {"device_code": code, "user_code": "BDSD-HQMK", "verification_uri": f"{self.url}/activate"}
        return 200, {**said, "interval": self.interval, "expires_in": 300}

    def revoke(self, form):
        token = form.get("token")
        family = self.refresh.get(token, (self.access.get(token), ""))[0]
        if family:
            self.dead.add(family)
        self.access.pop(token, None)
        return 200, {}

    def knows(self, access):
        """Is this access token good?"""
        return access in self.access and self.access[access] not in self.dead

    def settings(self, **changes):
        """What a connection to it is made with."""
        return {
            "issuer": self.url,
            "authorize_url": f"{self.url}/authorize",
            "token_url": f"{self.url}/token",
            "device_url": f"{self.url}/device",
            "revoke_url": f"{self.url}/revoke",
            "client_id": CLIENT,
            "client_secret": CLIENT_SECRET,
            "client_auth": "basic",
            "scopes": "read write",
            "ca_pem": ca_pem(),
            **changes,
        }

    def handle(self, path, headers, body):
        """``(status, headers, body)``; ``None`` for a connection that is closed without an answer."""
        form = {name: values[0] for name, values in parse_qs(body.decode(), keep_blank_values=True).items()}
        if path == "/.well-known/oauth-authorization-server":
            return self.document()
        if path == "/token" and self.hold is not None:
            self.held.set()
            self.hold.wait(20)
        with self.lock:
            self.asked[path] += 1
            self.forms.append((path, form))
            self.auth.append(headers.get("Authorization", ""))
            basic = base64.b64encode(f"{CLIENT}:{CLIENT_SECRET}".encode()).decode()
            post = (form.get("client_id"), form.get("client_secret")) == (CLIENT, CLIENT_SECRET)
            signed = "client_assertion" in form or "assertion" in form
            if path == "/token" and self.say:
                return self.say.pop(0)
            if not (headers.get("Authorization") == f"Basic {basic}" or post or signed):
                return 401, {}, b'{"error": "invalid_client"}'
            does = {"/token": self.token, "/device": self.device, "/revoke": self.revoke}.get(path)
            if does is None:
                return 404, {}, b"{}"
            status, answer = does(form)
            if self.lose and path == "/token":
                return None
            return status, {"Content-Type": "application/json"}, json.dumps(answer).encode()

    def document(self):
        document = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "revocation_endpoint": f"{self.url}/revoke",
            "device_authorization_endpoint": f"{self.url}/device",
            "authorization_response_iss_parameter_supported": True,
        }
        return 200, {}, json.dumps(document).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    provider: Provider

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        said = self.provider.handle(self.path, dict(self.headers), self.rfile.read(length))
        self.close_connection = True
        if said is None:
            return
        status, headers, body = said
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST  # noqa: N815 - as the base class spells it

    def log_message(self, *_about):
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_about):
        """Whoever asked may go away, or be killed."""


@contextmanager
def running(provider=None):
    """A provider that answers until the block ends."""
    provider = provider or Provider()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"provider": provider}))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("127.0.0.1", "localhost", key_type=trustme.KeyType.ECDSA).configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    provider.url = f"https://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
