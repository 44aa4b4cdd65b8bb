"""Stand-ins for the key services of Google Cloud and Azure. Neither has an emulator: these are small programs of ours.

They speak the REST paths that the seals use, check the credentials that Google's and Azure's own libraries bring, and
answer refusals in the form that the services document. What the services do besides is not here.
"""

import base64
import contextlib
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

RING = "projects/p/locations/l/keyRings/r/cryptoKeys"


class StandIn:
    """What the two have in common: a loopback server, keys by name, keys that are disabled, and a log of requests."""

    def __init__(self):
        self.keys, self.disabled, self.forbidden, self.asked = {}, set(), False, []

    @contextlib.contextmanager
    def running(self, context=None):
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self._answer(b"")

            def do_POST(self):
                self._answer(self.rfile.read(int(self.headers.get("content-length") or 0)))

            def _answer(self, body):
                stand_in.asked.append(self.path)
                status, data = stand_in.answer(self.path, self.headers, body)
                content = json.dumps(data).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        self.url = f"http{'s' if context is not None else ''}://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class GoogleStandIn(StandIn):
    """Cloud KMS v1 ``:encrypt`` and ``:decrypt``, and the token endpoint of a service account."""

    token = "ya29.stand-in"

    def environment(self, folder):
        """Application default credentials: the file of a service account with a key of its own."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        account = {"type": "service_account", "project_id": "p", "private_key_id": "1", "private_key": pem}
        account |= {"client_email": "keyhole@p.iam.gserviceaccount.com", "token_uri": f"{self.url}/token"}
        (folder / "account.json").write_text(json.dumps(account))
        return {"GOOGLE_APPLICATION_CREDENTIALS": str(folder / "account.json")}

    def make_key(self, name):
        self.keys[f"{RING}/{name}"] = AESGCM(os.urandom(32))

    def answer(self, path, headers, body):
        if path == "/token":
            assert b"grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer" in body
            return 200, {"access_token": self.token, "expires_in": 3600, "token_type": "Bearer"}
        if headers.get("authorization") != f"Bearer {self.token}":
            return 401, {"error": {"code": 401, "status": "UNAUTHENTICATED"}}
        name, _, verb = path.removeprefix("/v1/").partition(":")
        if self.forbidden:
            return 403, {"error": {"code": 403, "status": "PERMISSION_DENIED"}}
        if name not in self.keys:
            return 404, {"error": {"code": 404, "status": "NOT_FOUND"}}
        if name in self.disabled:
            return 400, {"error": {"code": 400, "status": "FAILED_PRECONDITION"}}
        sent = {field: base64.b64decode(value) for field, value in json.loads(body).items()}
        aad, key = sent["additionalAuthenticatedData"], self.keys[name]
        if verb == "encrypt":
            nonce = os.urandom(12)
            sealed = nonce + key.encrypt(nonce, sent["plaintext"], aad)
            return 200, {"name": f"{name}/cryptoKeyVersions/1", "ciphertext": base64.b64encode(sealed).decode()}
        try:
            plain = key.decrypt(sent["ciphertext"][:12], sent["ciphertext"][12:], aad)
        except (InvalidTag, ValueError):
            return 400, {"error": {"code": 400, "status": "INVALID_ARGUMENT"}}
        return 200, {"plaintext": base64.b64encode(plain).decode()}


class AzureStandIn(StandIn):
    """Key Vault 7.4 ``wrapkey`` and ``unwrapkey`` with RSA-OAEP-256, and the identity endpoint of an App Service."""

    token = "eyJ.stand-in"
    _OAEP = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)

    def environment(self, _folder):
        """A managed identity, as an App Service gives it to its processes."""
        return {"IDENTITY_ENDPOINT": f"{self.url}/identity", "IDENTITY_HEADER": "stand-in"}

    def make_key(self, name):
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.keys.setdefault(name, []).append((os.urandom(16).hex(), key))

    def answer(self, path, headers, body):
        path, _, query = path.partition("?")
        if path == "/identity":
            assert headers.get("x-identity-header") == "stand-in"
            assert "resource=https" in query
            later = str(int(time.time()) + 3600)
            return 200, {"access_token": self.token, "expires_on": later, "resource": "", "token_type": "Bearer"}
        assert query == "api-version=7.4"
        if headers.get("authorization") != f"Bearer {self.token}":
            return 401, {"error": {"code": "Unauthorized"}}
        if self.forbidden:
            return 403, {"error": {"code": "Forbidden", "innererror": {"code": "ForbiddenByRbac"}}}
        _, _, name, *rest = path.split("/")
        verb = rest[-1]
        versions = dict(self.keys.get(name, []))
        version = rest[0] if len(rest) == 2 else next(reversed(versions), "")
        if version not in versions:
            return 404, {"error": {"code": "KeyNotFound"}}
        if name in self.disabled:
            return 403, {"error": {"code": "Forbidden", "innererror": {"code": "KeyDisabled"}}}
        sent = json.loads(body)
        assert sent["alg"] == "RSA-OAEP-256"
        value = base64.urlsafe_b64decode(sent["value"] + "==")
        kid = f"{self.url}/keys/{name}/{version}"
        if verb == "wrapkey":
            result = versions[version].public_key().encrypt(value, self._OAEP)
        else:
            try:
                result = versions[version].decrypt(value, self._OAEP)
            except ValueError:
                return 400, {"error": {"code": "BadParameter"}}
        return 200, {"kid": kid, "value": base64.urlsafe_b64encode(result).decode().rstrip("=")}
