"""What the APIs of `internet` answer, once they have verified the credential."""

import base64
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from e2e.world import Said, Seen

OPENAI = "sk-proj-9f8e7d6c5b4aZm9x7Q0123456789abcdef"
ANTHROPIC = "sk-ant-api03-7Qx9f8e7d6c5b4aZm9x7Q0123456789abcdefAA"
STRIPE = "sk_test_51Zm9x7Qf8e7d6c5b4a0123456789"
GITHUB = "ghp_Zm9x7Qf8e7d6c5b4a01234567890123456789"
AZURE = "Zm9~x7Qf8e7d6c5b4a.0123456789_abcdef-Qx"
AZURE_TOKEN = "eyJ0eXAiOiJKV1QifQ.eyJhcHAiOiJyZWFsIn0.cmVhbC1zaWduYXR1cmU"
GOOGLE_TOKEN = "ya29.c.real0123456789abcdefghijklmnop"
REGISTRY = "npm_Zm9x7Qf8e7d6c5b4a0123456789abcdefghij"
PACKAGES = "pkg-Zm9x7Qf8e7d6c5b4a0123456789"
TENANT = "11111111-2222-4333-8444-555555555555"
CLIENT = "66666666-7777-4888-9999-aaaaaaaaaaaa"
ACCOUNT = "agent@p.iam.gserviceaccount.com"
REGISTRY_HOST = "registry.example.test"
PACKAGES_HOST = "packages.example.test"
CRATES_HOST = "crates.example.test"
EVENTS = [f"part {number} " for number in range(20)]


@dataclass
class Keys:
    account: rsa.RSAPublicKey


def all_sites(keys: Keys) -> dict[str, Callable[[Seen], Said]]:
    return {
        "api.openai.com": _openai,
        "api.anthropic.com": _anthropic,
        "api.stripe.com": _stripe,
        "api.github.com": _github,
        "oauth2.googleapis.com": lambda seen: _google_token(seen, keys.account),
        "cloudresourcemanager.googleapis.com": _google,
        "login.microsoftonline.com": _azure_login,
        "graph.microsoft.com": _azure,
        REGISTRY_HOST: _registry,
        PACKAGES_HOST: _packages,
        CRATES_HOST: _crates,
    }


def _json(data: object, status: int = 200) -> Said:
    return Said(json.dumps(data).encode(), status)


def _refused() -> Said:
    return _json({"error": {"message": "unknown key", "type": "invalid_request_error"}, "message": "no"}, 401)


def _has(seen: Seen, name: str, value: str) -> bool:
    return [text for key, text in seen.headers.items() if key.lower() == name] == [value]


def _events(*events: tuple[str, object]) -> Said:
    parts = [
        (f"event: {name}\n" if name else "").encode() + b"data: " + (text if isinstance(text, bytes) else b"") + b"\n\n"
        for name, text in (
            (name, data if isinstance(data, bytes) else json.dumps(data).encode()) for name, data in events
        )
    ]
    return Said(parts, 200, {"Content-Type": "text/event-stream"})


def _openai(seen: Seen) -> Said:
    if not _has(seen, "authorization", f"Bearer {OPENAI}"):
        return _refused()
    common = {"id": "c1", "created": 1, "model": "gpt-test"}
    if seen.path == "/v1/models":
        return _json({"object": "list", "data": [{"id": "gpt-test", "object": "model", "created": 1, "owned_by": "t"}]})
    asked = json.loads(seen.body)
    if not asked.get("stream"):
        message = {"role": "assistant", "content": "hello"}
        choices = [{"index": 0, "finish_reason": "stop", "message": message}]
        return _json(common | {"object": "chat.completion", "choices": choices})
    chunk = common | {"object": "chat.completion.chunk"}
    parts = [chunk | {"choices": [{"index": 0, "delta": {"content": text}}]} for text in EVENTS]
    return _events(*(("", part) for part in parts), ("", b"[DONE]"))


def _anthropic(seen: Seen) -> Said:
    if not _has(seen, "x-api-key", ANTHROPIC) or any(name.lower() == "authorization" for name in seen.headers):
        return _refused()
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": "m1", "type": "message", "role": "assistant", "model": "claude-test", "content": []}
    message |= {"stop_reason": None, "stop_sequence": None, "usage": usage}
    if not json.loads(seen.body).get("stream"):
        return _json(message | {"content": [{"type": "text", "text": "hello"}], "stop_reason": "end_turn"})
    deltas = [
        (
            "content_block_delta",
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}},
        )
        for text in EVENTS
    ]
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    ended = {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": usage}
    return _events(
        ("message_start", {"type": "message_start", "message": message}),
        ("content_block_start", block),
        *deltas,
        ("content_block_stop", {"type": "content_block_stop", "index": 0}),
        ("message_delta", ended),
        ("message_stop", {"type": "message_stop"}),
    )


def _stripe(seen: Seen) -> Said:
    if not _has(seen, "authorization", f"Bearer {STRIPE}"):
        return _refused()
    if seen.path == "/v1/customers":
        return _json({"id": "cus_1", "object": "customer", "email": parse_qs(seen.body.decode())["email"][0]})
    return _json({"object": "balance", "available": [{"amount": 4200, "currency": "eur"}], "livemode": False})


def _github(seen: Seen) -> Said:
    if not _has(seen, "authorization", f"Bearer {GITHUB}"):
        return _refused()
    if seen.method == "POST":
        return _json({"number": 7, "title": json.loads(seen.body)["title"]}, 201)
    return _json({"login": "octocat", "id": 1})


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _google_token(seen: Seen, account: rsa.RSAPublicKey) -> Said:
    """Raises unless the real account signed the assertion."""
    assertion = parse_qs(seen.body.decode())["assertion"][0]
    signed, _, signature = assertion.rpartition(".")
    account.verify(_decoded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    assert json.loads(_decoded(signed.partition(".")[2]))["iss"] == ACCOUNT
    return _json({"access_token": GOOGLE_TOKEN, "token_type": "Bearer", "expires_in": 3600})


def _google(seen: Seen) -> Said:
    if not _has(seen, "authorization", f"Bearer {GOOGLE_TOKEN}"):
        return _refused()
    return _json({"projects": [{"projectId": "p"}]})


def _azure_login(seen: Seen) -> Said:
    base = f"https://login.microsoftonline.com/{TENANT}"
    if seen.path.startswith("/common/discovery/instance"):
        return _json({"tenant_discovery_endpoint": f"{base}/v2.0/.well-known/openid-configuration", "metadata": []})
    if seen.path.startswith(f"/{TENANT}/v2.0/.well-known/"):
        urls = {"authorization_endpoint": "authorize", "token_endpoint": "token"}
        return _json({"issuer": f"{base}/v2.0"} | {name: f"{base}/oauth2/v2.0/{end}" for name, end in urls.items()})
    asked = {name: values[0] for name, values in parse_qs(seen.body.decode()).items()}
    if (asked["client_id"], asked["client_secret"]) != (CLIENT, AZURE):
        return _refused()
    return _json({"access_token": AZURE_TOKEN, "token_type": "Bearer", "expires_in": 3600})


def _azure(seen: Seen) -> Said:
    if not _has(seen, "authorization", f"Bearer {AZURE_TOKEN}"):
        return _refused()
    return _json({"displayName": "Agent"})


def _packed(files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


TARBALL = _packed(
    {
        "package/package.json": json.dumps({"name": "@acme/thing", "version": "1.0.0", "main": "index.js"}),
        "package/index.js": "module.exports = 'installed';\n",
    }
)


def _registry(seen: Seen) -> Said:
    """The packument of one package and its archive, as npm asks for them."""
    if not _has(seen, "authorization", f"Bearer {REGISTRY}"):
        return _refused()
    if seen.path == "/-/whoami":
        return _json({"username": "agent"})
    if seen.path.endswith(".tgz"):
        return Said(TARBALL, 200, {"Content-Type": "application/octet-stream"})
    digest = base64.b64encode(hashlib.sha512(TARBALL).digest()).decode()
    dist = {"tarball": f"https://{REGISTRY_HOST}/@acme/thing/-/thing-1.0.0.tgz", "integrity": f"sha512-{digest}"}
    version = {"name": "@acme/thing", "version": "1.0.0", "main": "index.js", "dist": dist}
    return _json({"name": "@acme/thing", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}})


def _wheel() -> bytes:
    about = "acme_thing-1.0.0.dist-info"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("acme_thing.py", "SAID = 'installed'\n")
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: acme-thing\nVersion: 1.0.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(
            f"{about}/RECORD", "".join(f"{name},,\n" for name in archive.namelist()) + f"{about}/RECORD,,\n"
        )
    return out.getvalue()


WHEEL = _wheel()
WHEEL_NAME = "acme_thing-1.0.0-py3-none-any.whl"


def _packages(seen: Seen) -> Said:
    """A simple index (PEP 503)."""
    basic = base64.b64encode(f"ci:{PACKAGES}".encode()).decode()
    if not _has(seen, "authorization", f"Basic {basic}"):
        return Said(b"", 401, {"WWW-Authenticate": 'Basic realm="packages"'})
    path = urlsplit(seen.path).path
    if path == f"/files/{WHEEL_NAME}":
        return Said(WHEEL, 200, {"Content-Type": "application/octet-stream"})
    if path == "/simple/acme-thing/":
        digest = hashlib.sha256(WHEEL).hexdigest()
        page = f'<!DOCTYPE html><a href="/files/{WHEEL_NAME}#sha256={digest}">{WHEEL_NAME}</a>'
        return Said(page.encode(), 200, {"Content-Type": "text/html"})
    return Said(b"", 404)


CRATE = _packed(
    {
        "acme_thing-1.0.0/Cargo.toml": '[package]\nname = "acme_thing"\nversion = "1.0.0"\n',
        "acme_thing-1.0.0/src/lib.rs": "",
    }
)


def _crates(seen: Seen) -> Said:
    """A sparse index with one crate."""
    if not _has(seen, "authorization", f"Bearer {REGISTRY}"):
        return _refused()
    if seen.path == "/index/config.json":
        return _json({"dl": f"https://{CRATES_HOST}/crates"})
    if seen.path == "/index/ac/me/acme_thing":
        about = {"name": "acme_thing", "vers": "1.0.0", "deps": [], "features": {}, "yanked": False}
        return _json(about | {"cksum": hashlib.sha256(CRATE).hexdigest()})
    if seen.path == "/crates/acme_thing/1.0.0/download":
        return Said(CRATE, 200, {"Content-Type": "application/gzip"})
    return Said(b"", 404)
