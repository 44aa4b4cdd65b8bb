"""Kinds that send a token made with the secret: what they ask for, what they attach, and when they ask again."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jwt
from joserfc.jwk import import_key

from keyhole.core.errors import InvalidRequest, UpstreamUnreachable
from keyhole.core.inject import Inject
from keyhole.core.message import Heard, Message
from keyhole.injections import Terms, inject

NOW = 1_800_000_000.0
TOKEN = "ya29.minted-access-token-0001"


def pem_of(key: Any) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


RSA = rsa.generate_private_key(65537, 2048)
RSA_PEM = pem_of(RSA)
EC_PEM = pem_of(ec.generate_private_key(ec.SECP256R1()))
ACCOUNT = json.dumps(
    {
        "type": "service_account",
        "client_email": "bot@project.iam.example",
        "private_key": RSA_PEM.decode(),
        "private_key_id": "kid-1",
        "token_uri": "https://evil.example/token",
    }
).encode()


def message(method: str = "GET", **more: Any) -> Message:
    return Message(method, "https", "api.test", 443, b"/v1", [(b"authorization", b"Bearer placeholder-token")], **more)


def claims_of(token: bytes | str, pem: bytes = RSA_PEM, kind: str = "RSA", algorithm: str = "RS256") -> Any:
    text = token.decode() if isinstance(token, bytes) else token
    return jwt.decode(text, import_key(pem, kind), algorithms=[algorithm])


def begin(data: dict[str, Any], value: bytes | dict[str, bytes], kept: dict[str, Any] | None = None, **more: Any):
    values = value if isinstance(value, dict) else {"value": value}
    return inject(message(**more), Inject.from_data(data), Terms(values, NOW, {} if kept is None else kept))


def told(data: dict[str, Any], status: int = 200) -> Heard:
    return Heard(status, [], json.dumps(data).encode())


def bearer(sent: Message) -> str:
    return (sent.get(b"authorization") or b"").decode()


def test_jwt_is_signed_for_what_the_binding_says() -> None:
    data = {
        "kind": "jwt",
        "algorithm": "ES256",
        "issuer": "team-1",
        "audience": "appstoreconnect-v1",
        "key_id": "KEY1",
        "claims": {"bid": "app"},
        "lifetime": 600,
    }
    sent = next(begin(data, EC_PEM))
    token = bearer(sent).removeprefix("Bearer ")
    decoded = claims_of(token, EC_PEM, "EC", "ES256")
    assert decoded.header["kid"] == "KEY1"
    assert decoded.claims == {
        "bid": "app",
        "iss": "team-1",
        "aud": "appstoreconnect-v1",
        "iat": int(NOW) - 30,
        "exp": int(NOW) + 600,
    }
    assert token.encode() in sent.forms


def test_jwt_is_used_again_until_shortly_before_its_end() -> None:
    kept: dict[str, Any] = {}
    data = {"kind": "jwt", "issuer": "a", "lifetime": 300}
    how = Inject.from_data(data)
    first = bearer(next(inject(message(), how, Terms({"value": RSA_PEM}, NOW, kept))))
    assert bearer(next(inject(message(), how, Terms({"value": RSA_PEM}, NOW + 239, kept)))) == first
    assert bearer(next(inject(message(), how, Terms({"value": RSA_PEM}, NOW + 241, kept)))) != first


def test_key_in_one_line_is_read_as_the_file_it_was() -> None:
    one_line = RSA_PEM.strip().replace(b"\n", b"\\n")
    assert claims_of(bearer(next(begin({"kind": "jwt", "issuer": "a"}, one_line)))[7:]).claims["iss"] == "a"


@pytest.mark.parametrize("value", [b"", b"no key", EC_PEM, RSA_PEM[:200]])
def test_key_that_does_not_fit_is_refused_without_showing_it(value: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        next(begin({"kind": "jwt", "issuer": "a"}, value))
    assert "private key for RS256" in caught.value.reason
    assert not value or value.decode() not in str(caught.value)


def test_github_app_asks_for_an_installation_token_and_sends_it() -> None:
    data = {
        "kind": "github-app",
        "app_id": "12345",
        "installation_id": 678,
        "repositories": ["one"],
        "permissions": {"contents": "read"},
    }
    steps = begin(data, RSA_PEM)
    asked = next(steps)
    assert asked.errand
    assert (asked.method, asked.host, asked.target) == (
        "POST",
        "api.github.com",
        b"/app/installations/678/access_tokens",
    )
    assert json.loads(asked.content or b"") == {"repositories": ["one"], "permissions": {"contents": "read"}}
    claims = claims_of(bearer(asked)[7:]).claims
    assert claims["iss"] == "12345"
    assert claims["exp"] - claims["iat"] <= 600
    sent = steps.send(told({"token": "ghs_minted0123456789", "expires_at": "2027-01-15T09:00:00Z"}, 201))
    assert not sent.errand
    assert bearer(sent) == "Bearer ghs_minted0123456789"
    with pytest.raises(StopIteration):
        steps.send(Heard(200, []))


def test_github_app_token_is_the_password_of_git() -> None:
    data = {"kind": "github-app", "app_id": "1", "installation_id": "2", "as": "basic"}
    steps = begin(data, RSA_PEM)
    next(steps)
    sent = steps.send(told({"token": "ghs_minted0123456789", "expires_at": "2027-01-15T09:00:00Z"}, 201))
    encoded = bearer(sent).removeprefix("Basic ")
    assert base64.b64decode(encoded) == b"x-access-token:ghs_minted0123456789"
    assert encoded.encode() in sent.forms


def test_service_account_signs_for_the_endpoint_of_the_binding_and_not_for_one_in_its_key() -> None:
    steps = begin({"kind": "gcp", "scopes": "https://www.googleapis.com/auth/devstorage.read_only"}, ACCOUNT)
    asked = next(steps)
    assert (asked.host, asked.target) == ("oauth2.googleapis.com", b"/token")
    form = parse_qs((asked.content or b"").decode())
    assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    decoded = claims_of(form["assertion"][0])
    assert decoded.header["kid"] == "kid-1"
    assert decoded.claims["aud"] == "https://oauth2.googleapis.com/token"
    assert decoded.claims["scope"] == "https://www.googleapis.com/auth/devstorage.read_only"
    sent = steps.send(told({"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"}))
    assert bearer(sent) == f"Bearer {TOKEN}"


def test_service_account_can_make_an_id_token() -> None:
    steps = begin({"kind": "gcp", "id_token": "https://run.example"}, ACCOUNT)
    claims = claims_of(parse_qs((next(steps).content or b"").decode())["assertion"][0]).claims
    assert claims["target_audience"] == "https://run.example"
    assert bearer(steps.send(told({"id_token": TOKEN}))) == f"Bearer {TOKEN}"


@pytest.mark.parametrize("value", [b"", b"[]", b"{}", b'{"client_email": 1}', b"\xff", b"[" * 100_000])
def test_what_is_no_service_account_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidRequest, match="JSON key of a Google service account"):
        next(begin({"kind": "gcp"}, value))


def test_azure_asks_the_tenant_for_the_host_that_is_called() -> None:
    steps = begin({"kind": "azure", "tenant": "contoso.example", "client_id": "app-1"}, b"s3cr3t~value+&")
    asked = next(steps)
    assert (asked.host, asked.target) == ("login.microsoftonline.com", b"/contoso.example/oauth2/v2.0/token")
    assert parse_qs((asked.content or b"").decode()) == {
        "grant_type": ["client_credentials"],
        "scope": ["https://api.test/.default"],
        "client_id": ["app-1"],
        "client_secret": ["s3cr3t~value+&"],
    }
    sent = steps.send(told({"access_token": TOKEN, "expires_in": "3599", "token_type": "Bearer"}))
    assert bearer(sent) == f"Bearer {TOKEN}"


def test_client_credentials_may_go_as_basic_and_the_token_into_a_header_of_its_own() -> None:
    data = {
        "kind": "client-credentials",
        "token_url": "https://id.test/oauth/token",
        "auth": "basic",
        "scope": "a b",
        "name": "X-Token",
        "template": "{}",
    }
    steps = begin(data, {"client_id": b"id:1", "client_secret": b"s e"})
    asked = next(steps)
    assert base64.b64decode(bearer(asked)[6:]) == b"id%3A1:s+e"
    assert b"client_secret" not in (asked.content or b"")
    sent = steps.send(told({"access_token": TOKEN}))
    assert sent.get(b"x-token") == TOKEN.encode()


CLIENT = {"kind": "client-credentials", "token_url": "https://id.test/token", "client_id": "c"}


def test_kept_token_that_is_refused_is_made_anew_once() -> None:
    kept: dict[str, Any] = {}
    steps = begin(CLIENT, b"secret", kept)
    next(steps)
    steps.send(told({"access_token": "first-token", "expires_in": 3600}))
    again = begin(CLIENT, b"secret", kept)
    assert bearer(next(again)) == "Bearer first-token"
    asked = again.send(Heard(401, []))
    assert asked.errand
    assert bearer(again.send(told({"access_token": "second-token", "expires_in": 3600}))) == "Bearer second-token"
    with pytest.raises(StopIteration):
        again.send(Heard(401, []))


@pytest.mark.parametrize("how", [{"method": "POST"}, {"method": "PUT", "streams": True}])
def test_request_that_must_not_be_sent_twice_is_not(how: dict[str, Any]) -> None:
    kept: dict[str, Any] = {}
    steps = begin(CLIENT, b"secret", kept)
    next(steps)
    steps.send(told({"access_token": "first-token", "expires_in": 3600}))
    again = begin(CLIENT, b"secret", kept, **how)
    next(again)
    with pytest.raises(StopIteration):
        again.send(Heard(401, []))


@pytest.mark.parametrize(
    ("heard", "words"),
    [
        (told({"error": "invalid_client", "error_description": "the secret s3cr3t is wrong"}, 401), "invalid_client"),
        (told({"error": "s3cr3t value\n"}, 400), "status 400"),
        (Heard(500, [], b"<html>s3cr3t"), "status 500"),
        (Heard(200, [], b"not json s3cr3t"), "not a JSON object"),
        (told({"token_type": "bearer"}), "no access_token"),
        (told({"access_token": "x", "token_type": "mac"}), "another type"),
        (told({"access_token": "a\r\nX: s3cr3t"}), "no header can carry"),
        (told({"access_token": "\ud800"}), "no header can carry"),
    ],
)
def test_endpoint_that_gives_no_token_is_named_without_its_words(heard: Heard, words: str) -> None:
    steps = begin(CLIENT, b"secret")
    next(steps)
    with pytest.raises(UpstreamUnreachable) as caught:
        steps.send(heard)
    assert words in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


def test_stand_in_answers_an_sdk_with_a_placeholder() -> None:
    sent = next(
        inject(message("POST"), Inject.from_data({"kind": "stand-in", "text": "keyhole-placeholder-1"}), Terms({}))
    )
    assert sent.answered is not None
    said = json.loads(sent.answered.content)
    assert said["access_token"] == "keyhole-placeholder-1"
    assert said["token_type"] == "Bearer"
    assert said["expires_in"] == 3600


@pytest.mark.parametrize(
    "data",
    [
        {"kind": "jwt", "algorithm": "none"},
        {"kind": "jwt", "lifetime": 86400},
        {"kind": "jwt", "lifetime": True},
        {"kind": "jwt", "claims": {"exp": 1}},
        {"kind": "jwt", "claims": "[]"},
        {"kind": "github-app", "app_id": "1"},
        {"kind": "github-app", "app_id": "1", "installation_id": "../x"},
        {"kind": "github-app", "app_id": "1", "installation_id": "1", "api": "http://api.test"},
        {"kind": "azure", "tenant": "a/b", "client_id": "x"},
        {"kind": "azure", "client_id": "x"},
        {"kind": "client-credentials"},
        {"kind": "client-credentials", "token_url": "https://u:p@id.test/"},
        {"kind": "client-credentials", "token_url": "https://id.test/", "scope": "a\nb"},
        {"kind": "gcp", "scopes": [["x"]]},
        {"kind": "stand-in"},
        {"kind": "stand-in", "text": "short"},
        {"kind": "none", "text": "x"},
    ],
)
def test_binding_that_makes_no_sense_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        Inject.from_data(data)


@pytest.mark.parametrize("lifetime", ["9" * 5000, "-1", "", "1e9", "\u0665", True, None, [], 0, 10**12])
def test_lifetime_that_is_none_does_not_matter(lifetime: Any) -> None:
    how = {"kind": "client-credentials", "token_url": "https://id.example/token", "client_id": "app"}
    steps = begin(how, b"secret-of-the-app")
    next(steps)
    assert bearer(steps.send(told({"access_token": TOKEN, "expires_in": lifetime}))) == f"Bearer {TOKEN}"
