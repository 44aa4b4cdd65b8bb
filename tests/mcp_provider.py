"""A server of tools behind OAuth and the issuer of its tokens, over HTTPS on loopback, in this process.

It publishes itself (RFC 9728, RFC 8414), registers clients (RFC 7591) and gives tokens for a resource (RFC 8707). What
it does wrong is said by its attributes.
"""

import base64
import json
import secrets
import ssl
from urllib.parse import parse_qs, urlencode, urlsplit

import oauth_provider
from keyhole.net.ask import Asker, AskLimits

ISSUER = "/.well-known/oauth-authorization-server"
RESOURCE = "/.well-known/oauth-protected-resource"


class Server(oauth_provider.Provider):
    """Its books, and what it is told to do wrong.

    Attributes:
        described: over what it says of itself as a resource; ``None`` for a member takes it away.
        published: over what it says as an issuer.
        pages: ``(status, headers, body)`` by path, instead of its own.
        challenge: over the parameters of its ``WWW-Authenticate``.
        needs: scopes that a tool needs, by its name.
        clients: what was registered, by client id.
        given: ``id:secret`` of clients that are known without that.
        told: what was registered as, over what it answers.
        refuses: access tokens that it takes no more, although its issuer says otherwise.
        seen: ``(path, headers)`` of all requests.
    """

    def __init__(self):
        super().__init__()
        self.described, self.published, self.pages, self.told = {}, {}, {}, {}
        self.challenge, self.needs, self.clients, self.given = {}, {}, {}, set()
        self.refuses, self.seen, self.path = set(), [], "/mcp"
        self.bound = {}

    @property
    def resource(self):
        return f"{self.url}{self.path}"

    def handle(self, path, headers, body):
        self.seen.append((path, headers))
        if path in self.pages:
            return self.pages[path]
        if path == f"{RESOURCE}{self.path}":
            said = {"resource": self.resource, "authorization_servers": [self.url], "scopes_supported": ["read"]}
            return answer(200, {**said, **self.described})
        if path == ISSUER:
            return answer(200, {**self.own(), **self.published})
        if path == "/register":
            return self.register(json.loads(body))
        if path == self.path:
            return self.serve(headers, body)
        if path in {"/token", "/revoke"}:
            form = {name: values[0] for name, values in parse_qs(body.decode(), keep_blank_values=True).items()}
            self.forms.append((path, form))
            if path == "/revoke":
                return answer(*self.revoke(form))
            basic = base64.b64decode(headers.get("Authorization", "").removeprefix("Basic ")).decode()
            if form.get("client_id") not in self.clients and basic not in self.given:
                return answer(401, {"error": "invalid_client"})
            status, said = self.token(form)
            if status == 200:
                self.bound[said["access_token"]] = (form.get("resource"), said["scope"].split())
            return answer(status, said)
        return answer(404, {})

    def own(self):
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "revocation_endpoint": f"{self.url}/revoke",
            "registration_endpoint": f"{self.url}/register",
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["none"],
            "scopes_supported": ["read", "write", "offline_access"],
            "authorization_response_iss_parameter_supported": True,
        }

    def register(self, wanted):
        client = f"client-{secrets.token_hex(4)}"
        self.clients[client] = wanted
        return answer(201, {**wanted, "client_id": client, **self.told})

    def agree(self, url, **changes):
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query, strict_parsing=True).items()}
        assert asked["code_challenge_method"] == "S256"
        known = self.clients.get(asked["client_id"], {}).get("redirect_uris", [asked["redirect_uri"]])
        assert asked["redirect_uri"] in known
        code = f"code-{secrets.token_urlsafe(16)}"
        self.codes[code] = asked
        said = {"code": code, "state": asked["state"], "iss": self.url, **changes}
        said = {name: text for name, text in said.items() if text is not None}
        return f"{asked['redirect_uri']}?{urlencode(said)}"

    def serve(self, headers, body):
        token = headers.get("Authorization", "").removeprefix("Bearer ")
        resource, scopes = self.bound.get(token, ("", []))
        if not self.knows(token) or token in self.refuses or resource != self.resource:
            return self.challenged(401, error="invalid_token" if token else None)
        asked = json.loads(body or b"{}")
        name = asked.get("params", {}).get("name")
        if missing := set(self.needs.get(name, ())) - set(scopes):
            return self.challenged(403, error="insufficient_scope", scope=" ".join(sorted(missing)))
        if asked.get("method") == "initialize":
            version = asked["params"]["protocolVersion"]
            info = {"name": "r", "version": "1"}
            found = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
        elif asked.get("method") == "tools/list":
            found = {"tools": [{"name": each, "inputSchema": {"type": "object"}} for each in ("whoami", "write")]}
        elif asked.get("method") == "tools/call":
            found = {"content": [{"type": "text", "text": f"you are {token}"}]}
        elif "id" not in asked:
            return 202, {}, b""
        else:
            return answer(200, {"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32601, "message": "no"}})
        return answer(200, {"jsonrpc": "2.0", "id": asked["id"], "result": found})

    def challenged(self, status, **says):
        says = {"resource_metadata": f"{self.url}{RESOURCE}{self.path}", **says, **self.challenge}
        text = ", ".join(f'{name}="{value}"' for name, value in says.items() if value is not None)
        return status, {"WWW-Authenticate": f"Bearer {text}"}, b""

    def asked_of(self, path):
        """The headers of the requests at a path."""
        return [headers for where, headers in self.seen if where == path]


def answer(status, data):
    return status, {"Content-Type": "application/json"}, json.dumps(data).encode()


def asker(seconds=10.0):
    """What trusts the stand-ins and nobody else."""
    context = ssl.create_default_context(cadata=oauth_provider.ca_pem())
    return Asker(context=lambda: context, limits=AskLimits(seconds))
