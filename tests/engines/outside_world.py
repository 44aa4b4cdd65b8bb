"""Stand-ins for managers of secrets that have no server to be had here: small programs of ours, named as such.

They speak the REST paths that the sources use, check the credentials, and answer refusals in the form that the makers
document. What those services do besides is not here.
"""

import base64
import json
import time
from urllib.parse import parse_qs, unquote, urlsplit

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import jwt
from joserfc.jwk import RSAKey

from keyhole.net.ask import Asker
from keyhole.net.dial import Dialer
from keyhole.net.resolve import Resolver
from seals.clouds import StandIn

VALUE = "outside-canary-8d1f02"


class Manager(StandIn):
    """A stand-in with one bearer token, which a login may give."""

    token = "token-of-the-stand-in"
    logins = 0

    def answer(self, path, headers, body):
        parts = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if self.forbidden:
            return 403, {"message": VALUE}
        login = self.log_in(parts.path, body)
        if login is not None:
            return login
        if headers.get("authorization") != f"Bearer {self.token}":
            return 401, {"message": f"{VALUE} is not for you"}
        return self.tell(unquote(parts.path), query)

    def log_in(self, path, body):
        return None

    def grant(self, **named):
        self.logins += 1
        self.token = f"{Manager.token}-{self.logins}"
        return 200, dict.fromkeys(named, self.token) | {"expires_in": 3600, "expiresIn": 3600}


class AzureStandIn(Manager):
    """Key Vault 7.4 ``GET /secrets/NAME`` and the token endpoint of an application."""

    def source(self):
        settings = {"address": self.url, "authority": self.url, "tenant": "example.com", "client_id": "app"}
        return {"kind": "azure-key-vault", **settings, "credentials": {"client_secret": "of the app"}}

    def log_in(self, path, body):
        if path != "/example.com/oauth2/v2.0/token":
            return None
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        if form.get("client_secret") != "of the app" or form.get("grant_type") != "client_credentials":
            return 401, {"error": "invalid_client"}
        return self.grant(access_token=True)

    def tell(self, path, query):
        assert query == {"api-version": "7.4"}
        if path.lower() == "/secrets/app-db":  # names there are the same in either case
            return 200, {"value": VALUE, "id": f"{self.url}/secrets/app-db/1", "attributes": {"enabled": True}}
        return 404, {"error": {"code": "SecretNotFound"}}


class GoogleStandIn(Manager):
    """Secret Manager v1 ``:access`` and the token endpoint, which checks what the service account signed."""

    def __init__(self):
        super().__init__()
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def source(self):
        form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        account = {"client_email": "a@p.iam.example", "private_key": self.key.private_bytes(*form).decode()}
        settings = {"project": "p-1", "endpoint": self.url, "token_url": f"{self.url}/token"}
        return {"kind": "google-secret-manager", **settings, "credentials": {"service_account": json.dumps(account)}}

    def log_in(self, path, body):
        if path != "/token":
            return None
        [assertion] = parse_qs(body.decode())["assertion"]
        claims = jwt.decode(assertion, RSAKey.import_key(self.key.public_key()), algorithms=["RS256"]).claims
        assert claims["aud"] == f"{self.url}/token"
        assert claims["iat"] <= time.time() < claims["exp"]
        return self.grant(access_token=True)

    def tell(self, path, query):
        if path == "/v1/projects/p-1/secrets/app-db/versions/latest:access":
            return 200, {"name": path, "payload": {"data": base64.b64encode(VALUE.encode()).decode()}}
        return 404, {"error": {"code": 404, "status": "NOT_FOUND"}}


class DopplerStandIn(Manager):
    """Doppler v3 ``/configs/config/secret``."""

    def source(self):
        return self.of(self.url)

    def of(self, url):
        settings = {"address": url, "project": "shop", "config": "prd"}
        return {"kind": "doppler", **settings, "credentials": {"token": self.token}}

    def tell(self, path, query):
        assert path == "/v3/configs/config/secret"
        if query == {"project": "shop", "config": "prd", "name": "APP_DB"}:
            return 200, {"name": "APP_DB", "value": {"raw": "${OTHER}", "computed": VALUE}}
        return 404, {"success": False}


class InfisicalStandIn(Manager):
    """Infisical v3 ``/secrets/raw`` with universal auth."""

    def source(self):
        settings = {"address": self.url, "project_id": "w1", "environment": "prod", "client_id": "machine"}
        return {"kind": "infisical", **settings, "credentials": {"client_secret": "of the machine"}}

    def log_in(self, path, body):
        if path != "/api/v1/auth/universal-auth/login":
            return None
        if json.loads(body) != {"clientId": "machine", "clientSecret": "of the machine"}:
            return 401, {"message": "no"}
        return self.grant(accessToken=True)

    def tell(self, path, query):
        wanted = {"workspaceId": "w1", "environment": "prod", "secretPath": "/app", "type": "shared"}
        if path == "/api/v3/secrets/raw/DB" and query == wanted:
            return 200, {"secret": {"secretKey": "DB", "secretValue": VALUE}}
        return 404, {"message": "not found"}


class ConnectStandIn(Manager):
    """1Password Connect v1: vaults, items by title, and one item with its fields. Its filters pass over letter case."""

    def source(self):
        return {"kind": "onepassword-connect", "address": self.url, "credentials": {"token": self.token}}

    def tell(self, path, query):
        kept = [{"id": "i1", "title": "db"}, {"id": "i2", "title": "two"}, {"id": "i3", "title": "two"}]
        found = {
            "/v1/vaults": [{"id": "v1", "name": "app"}],
            "/v1/vaults/v1/items": kept,
        }.get(path)
        if found is not None:
            text = query.get("filter", "").partition(" eq ")[2].strip('"').lower()
            return 200, [each for each in found if not text or text in (each.get("name"), each.get("title"))]
        if path == "/v1/vaults/v1/items/i1":
            fields = [
                {"id": "username", "label": "username", "value": "app", "purpose": "USERNAME"},
                {"id": "password", "label": "password", "value": VALUE, "purpose": "PASSWORD"},
            ]
            return 200, {"id": "i1", "title": "db", "fields": fields}
        return 404, {"status": 404}


class BitwardenStandIn(Manager):
    """The local API of ``bw serve``, which asks for no credential."""

    item = "0f0e0d0c-0b0a-4908-8706-050403020100"

    def source(self):
        return {"kind": "bitwarden-serve", "address": self.url}

    def answer(self, path, headers, body):
        if path == "/status":
            return 200, {"success": True, "data": {"template": {"status": "unlocked"}}}
        if self.forbidden:
            return 403, {"success": False, "message": VALUE}
        if path == f"/object/item/{self.item}":
            login = {"username": "app", "password": VALUE}
            return 200, {"success": True, "data": {"id": self.item, "login": login, "fields": None, "notes": None}}
        return 404, {"success": False, "message": "Not found."}


STAND_INS = {  # each with a path where the canary lies, and paths that are refused because they would be second names
    "azure": (AzureStandIn, "app-db", ["APP-DB", "app-db/1"]),
    "google": (GoogleStandIn, "app-db", ["app-db/versions/1"]),
    "doppler": (DopplerStandIn, "APP_DB", ["app_db"]),
    "infisical": (InfisicalStandIn, "app/DB", []),
    "onepassword": (ConnectStandIn, "app/db", ["app", 'app/d" or title eq "db', "app/db/password"]),
    "bitwarden": (BitwardenStandIn, BitwardenStandIn.item, [BitwardenStandIn.item.upper(), "db"]),
}


async def connect(vault):
    """Mount the engine in a vault that asks servers as a process does."""
    vault.vault.net = Asker(Dialer(Resolver()))
    await vault.ask("update", "sys/mounts/external", {"type": "external"})
