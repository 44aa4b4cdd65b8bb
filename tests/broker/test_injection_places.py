"""Secrets in queries, paths, bodies, forms and cookies: what the upstream received, and what the client saw of it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import html
import itertools
import json
import re
from urllib.parse import parse_qs, quote, quote_plus, unquote_to_bytes

import pytest

from broker.stack import HOST, SECRET, Received, Reply, Stack, read_reply, vectors

_numbers = itertools.count()
TEXT = "sk-{holder}/0001"
PLAIN = "sk-holder-0001"
JSON = b"Content-Type: application/json\r\n"
FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"
ODD = 'p"w\\<é>&=+%/?#\U0001f511;, x'
EVERYWHERE = {"kind": "placeholder", "text": PLAIN, "in": ["header", "query", "path", "body"]}


async def send(
    stack: Stack, value: str | dict, inject: dict, path: str = "/v1/x", *, more: dict | None = None, **options
):
    """One request through a new service with this secret and injection; POST unless said."""
    name = f"p{next(_numbers)}"
    await stack.secret(f"{name}/key", value)
    await stack.service(name, secret=f"{name}/key", inject=inject, **(more or {}))
    token = await stack.agent(name, name)
    try:
        return await stack.get(token, path, **{"method": "POST", **options})
    finally:
        await stack.ask("delete", f"services/{name}")


# Where it stands.


@pytest.mark.parametrize(
    ("inject", "value", "path", "expected"),
    [
        ({"kind": "query", "name": "key"}, SECRET, "/v1?b=%2f&a=1&key=mine&k%65y=2", f"/v1?b=%2f&a=1&key={SECRET}"),
        ({"kind": "query", "name": "key"}, ODD, "/v1", f"/v1?key={quote(ODD, safe='')}"),
        (
            {"kind": "query", "params": {"key": "api", "token": "user"}},
            {"api": "KEY-OF-APP", "user": "TOKEN-OF-USER"},
            "/1/boards?token=x&a=1",
            "/1/boards?token=TOKEN-OF-USER&a=1&key=KEY-OF-APP",
        ),
        (
            {"kind": "path", "text": PLAIN},
            "123456:AAF-x_y",
            f"/bot{PLAIN}/getMe?x={PLAIN}",
            f"/bot123456:AAF-x_y/getMe?x={PLAIN}",
        ),
        ({"kind": "path", "text": "{holder}"}, "a?b#c", "/bot%7bholder%7D/getMe", "/bota%3Fb%23c/getMe"),
        (
            {"kind": "placeholder", "text": TEXT, "in": ["query"]},
            ODD,
            f"/v1?x=1&a={quote(TEXT, safe='')}&b={TEXT}2&c={quote(TEXT, safe='').lower()}&d=%7B",
            "/v1?x=1&a=V&b=V2&c=V&d=%7B".replace("V", quote(ODD, safe="")),
        ),
    ],
)
def test_secret_stands_in_the_target_and_the_rest_keeps_its_bytes(
    stack: Stack, run, inject: dict, value, path: str, expected: str
) -> None:
    assert run(send(stack, value, inject, path, method="GET")).status == 200
    assert stack.upstream.last.target == expected.encode()


@pytest.mark.parametrize(
    ("inject", "headers", "body", "expected"),
    [
        (
            {"kind": "body", "field": "auth.key"},
            JSON,
            b' {"n": 1.0e5,"auth":{"key":""} }',
            ' {"n": 1.0e5,"auth":{"key":V} }',
        ),
        ({"kind": "body", "field": "/auth/1"}, JSON, b'{"auth":[0,1]}', '{"auth":[0,V]}'),
        ({"kind": "body", "field": "a.b"}, b"", b"", '{"a": {"b": V}}'),
        ({"kind": "form", "field": "key"}, FORM, b"a=%2f&key=x&b=+", "a=%2f&key=E&b=+"),
        ({"kind": "form", "field": "key"}, b"", b"", "key=E"),
        ({**EVERYWHERE, "in": ["body"]}, JSON, f'{{"a":"{PLAIN}","b":"x{PLAIN}"}}'.encode(), '{"a":V,"b":"xV'),
        ({**EVERYWHERE, "in": ["body"]}, FORM, f"a=1&k={PLAIN}".encode(), "a=1&k=E"),
        ({**EVERYWHERE, "in": ["body"]}, b"Content-Type: text/plain\r\n", f"k: {PLAIN}\r\n".encode(), f"k: {ODD}\r\n"),
        ({**EVERYWHERE, "in": ["body"]}, b"", PLAIN.encode(), ODD),
    ],
)
def test_secret_stands_in_the_body_with_the_length_made_anew(
    stack: Stack, run, inject: dict, headers: bytes, body: bytes, expected: str
) -> None:
    stale = b"Content-MD5: x\r\nContent-Digest: sha-256=:x:\r\n"
    assert run(send(stack, ODD, inject, headers=headers + stale, body=body)).status == 200
    received = stack.upstream.last
    wanted = expected.replace('"xV', '"x' + json.dumps(ODD)[1:] + "}").replace("E", quote(ODD, safe=""))
    assert received.body == wanted.replace("V", json.dumps(ODD)).encode()
    assert received.values(b"content-length") == [b"%d" % len(received.body)]
    assert received.values(b"content-md5") == received.values(b"content-digest") == []
    assert len(received.values(b"content-type")) == (0 if not headers and body else 1)


def test_field_of_a_multipart_body_is_set_and_the_file_beside_it_is_untouched(stack: Stack, run) -> None:
    every = bytes(range(256)) * 20
    file = b'--b1\r\nContent-Disposition: form-data; name="f"; filename="x.bin"\r\n\r\n%b\r\n' % every
    mine = b'--b1\r\nContent-Disposition: form-data; name="key"\r\n\r\n%b\r\n'
    headers = b"Content-Type: multipart/form-data; boundary=b1\r\n"
    body = mine % b"mine" + file + b"--b1--\r\n"
    assert run(send(stack, ODD, {"kind": "form", "field": "key"}, headers=headers, body=body)).status == 200
    assert stack.upstream.last.body == mine % ODD.encode() + file + b"--b1--\r\n"
    body = mine % PLAIN.encode() + file + b"--b1--\r\n"
    assert run(send(stack, SECRET, EVERYWHERE, headers=headers, body=body)).status == 200
    assert stack.upstream.last.body == mine % SECRET.encode() + file + b"--b1--\r\n"


def test_cookie_is_set_and_others_are_untouched(stack: Stack, run) -> None:
    headers = b"Cookie: a=1; sid=mine; b=2\r\nX-Other: sid=1\r\n"
    assert run(send(stack, SECRET, {"kind": "cookie", "name": "sid"}, headers=headers)).status == 200
    assert stack.upstream.last.values(b"cookie") == [f"a=1; sid={SECRET}; b=2".encode()]


def test_every_header_takes_its_field(stack: Stack, run) -> None:
    inject = {"kind": "headers", "headers": {"DD-API-KEY": "api", "DD-APPLICATION-KEY": "app"}}
    value = {"api": "KEY-OF-API-1", "app": "KEY-OF-APP-2", "unused": "SOMETHING-ELSE"}
    assert run(send(stack, value, inject, headers=b"dd-api-key: mine\r\n")).status == 200
    received = stack.upstream.last
    assert (received.values(b"dd-api-key"), received.values(b"dd-application-key")) == (
        [b"KEY-OF-API-1"],
        [b"KEY-OF-APP-2"],
    )
    assert b"SOMETHING-ELSE" not in stack.upstream.received


# Where it does not stand.


@pytest.mark.parametrize("place", ["header", "query", "path", "body"])
def test_placeholder_stays_literal_where_the_service_does_not_allow_it(stack: Stack, run, place: str) -> None:
    inject = {**EVERYWHERE, "in": [place]}
    headers = JSON + f"X-Key: {PLAIN}\r\nAuthorization: Basic {_b64(f'u:{PLAIN}')}\r\n".encode()
    body = f'{{"k": "{PLAIN}"}}'.encode()
    assert run(send(stack, "VALUE-OF-KEY", inject, f"/v1/{PLAIN}?k={PLAIN}", headers=headers, body=body)).status == 200
    received = stack.upstream.last
    path, _, query = received.target.partition(b"?")
    [credentials] = received.values(b"authorization")
    found = {
        "header": received.values(b"x-key") == [b"VALUE-OF-KEY"]
        and b"VALUE-OF-KEY" in base64.b64decode(credentials[6:]),
        "query": query == b"k=VALUE-OF-KEY",
        "path": path == b"/v1/VALUE-OF-KEY",
        "body": received.body == b'{"k": "VALUE-OF-KEY"}',
    }
    assert [name for name, is_there in found.items() if is_there] == [place]
    literal = {"header": b"X-Key: VALUE", "query": b"?k=VALUE", "path": b"/v1/VALUE", "body": b'"VALUE'}
    for name, mark in literal.items():
        assert (mark.lower() in stack.upstream.received.lower()) == (name == place)


def test_rules_are_judged_on_the_path_with_the_placeholder_and_the_record_shows_that(stack: Stack, run) -> None:
    inject = {"kind": "path", "text": PLAIN}
    rules = {"paths": [f"/bot{PLAIN}/*"], "deny_paths": [f"/bot{PLAIN}/deleteWebhook"]}
    path = f"/bot{PLAIN}/getMe?a={SECRET[:4]}"
    assert run(send(stack, SECRET, inject, path, more=rules, method="GET")).status == 200
    assert stack.upstream.last.target.startswith(f"/bot{SECRET}/getMe".encode())
    for path in (f"/bot{PLAIN}/deleteWebhook", "/botother/getMe", f"/bot{PLAIN}/../getMe"):
        assert run(send(stack, SECRET, inject, path, more=rules, method="GET")).status in {400, 403}
    assert len(stack.upstream.requests) == 1
    records = json.dumps(run(stack.records()))
    assert f"/bot{PLAIN}/getMe" in records
    assert SECRET not in records


def test_tie_is_settled_by_the_placeholder_in_the_query(stack: Stack, run) -> None:
    async def ask() -> list[int]:
        for name in ("first", "second"):
            await stack.secret(f"{name}/key", f"VALUE-OF-{name}")
            inject = {"kind": "placeholder", "text": f"holder-of-{name}", "in": ["query"]}
            await stack.service(name, secret=f"{name}/key", inject=inject)
        token = await stack.agent("torn", "first", "second")
        replies = [
            await stack.get(token, path) for path in ("/?k=holder%2dof-second", "/?k=holder-of-first", "/?k=other")
        ]
        for name in ("first", "second"):
            await stack.ask("delete", f"services/{name}")
        return [reply.status for reply in replies]

    assert run(ask()) == [200, 200, 409]
    assert [request.target for request in stack.upstream.requests] == [b"/?k=VALUE-OF-second", b"/?k=VALUE-OF-first"]


@pytest.mark.parametrize(
    "inject",
    [
        {"kind": "bearer"},
        {"kind": "query", "name": "key"},
        {"kind": "cookie", "name": "sid"},
        {"kind": "form", "field": "k"},
    ],
)
def test_what_an_sdk_sent_with_its_placeholder_does_not_arrive(stack: Stack, run, inject: dict) -> None:
    headers = f"X-Api-Key: {PLAIN}\r\nCookie: a=1; s={PLAIN}\r\nAuthorization: Bearer {PLAIN}\r\n".encode()
    path = f"/v1?token={PLAIN}&a=1&t2=sk%2Dholder-0001"
    assert run(send(stack, SECRET, inject, path, headers=headers, more={"placeholder": PLAIN})).status == 200
    received = stack.upstream.last
    assert PLAIN.encode() not in unquote_to_bytes(received.head)
    assert b"a=1" in received.target
    assert b"a=1" in received.values(b"cookie")[0]
    assert SECRET.encode() in received.head + received.body


# Values that would break out.

HOSTILE = [case["stored_secret"] for case in vectors("proxy/secret_value_header_injection.jsonl")]
HOSTILE += ["v\0x", "v\rX-Evil: 1", "v\nX-Evil: 1", "v&admin=1", 'v","admin":"1', "v</k><admin/>", "v; admin=1"]
HOSTILE += [
    "../admin",
    "v/../admin",
    "%2e%2e%2fadmin",
    "v\\admin",
    "v?admin=1#x",
    "\r\n--b1\r\n",
    'v"; name="admin',
    "v v",
    "..",
]
WAYS = {
    "query": ({"kind": "query", "name": "key"}, "/v1?a=1", b"", b""),
    "path": ({"kind": "path", "text": PLAIN}, f"/v1/{PLAIN}/x", b"", b""),
    "body": ({"kind": "body", "field": "key"}, "/v1", JSON, b'{"a": 1}'),
    "form": ({"kind": "form", "field": "key"}, "/v1", FORM, b"a=1"),
    "multipart": (
        {"kind": "form", "field": "key"},
        "/v1",
        b"Content-Type: multipart/form-data; boundary=b1\r\n",
        b'--b1\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b1--\r\n',
    ),
    "cookie": ({"kind": "cookie", "name": "key"}, "/v1", b"", b""),
    "header": (EVERYWHERE, "/v1", f"X-Key: {PLAIN}\r\n".encode(), b""),
    "cookies": (EVERYWHERE, "/v1", f"Cookie: a=1; key={PLAIN}\r\n".encode(), b""),
    "in query": (EVERYWHERE, f"/v1?a=1&key={PLAIN}", b"", b""),
    "in path": (EVERYWHERE, f"/v1/{PLAIN}/x", b"", b""),
    "in JSON": (EVERYWHERE, "/v1", JSON, f'{{"key": "{PLAIN}"}}'.encode()),
    "in a form": (EVERYWHERE, "/v1", FORM, f"key={PLAIN}".encode()),
    "in XML": (EVERYWHERE, "/v1", b"Content-Type: application/xml\r\n", f"<k>{PLAIN}</k>".encode()),
    "in multipart": (
        EVERYWHERE,
        "/v1",
        b"Content-Type: multipart/form-data; boundary=b1\r\n",
        f'--b1\r\nContent-Disposition: form-data; name="key"\r\n\r\n{PLAIN}\r\n--b1--\r\n'.encode(),
    ),
}


def _structure(way: str, received: Received, value: str) -> None:
    """The value is one piece of the message as a server reads it, and changed nothing around it."""
    path, _, query = received.target.partition(b"?")
    assert path.count(b"/") == (3 if "path" in way else 1)
    if way in {"query", "in query"}:
        assert parse_qs(query.decode(), keep_blank_values=True) == {"a": ["1"], "key": [value]}
    elif "path" in way:
        assert unquote_to_bytes(path) == f"/v1/{value}/x".encode()
        assert not re.search(rb"%(2[Ff]|5[Cc])", path)
    elif way in {"body", "in JSON"}:
        assert json.loads(received.body)["key"] == value
        assert "admin" not in json.loads(received.body)
    elif way in {"form", "in a form"}:
        assert parse_qs(received.body.decode())["key"] == [value]
        assert "admin" not in parse_qs(received.body.decode())
    elif way == "in XML":
        assert received.body.count(b"<") == 2
        assert html.unescape(received.body.decode()[3:-4]) == value
    elif "multipart" in way:
        assert received.body.count(b"--b1") == (3 if way == "multipart" else 2)
        assert value.encode() in received.body
    else:
        [content] = received.values(b"x-key" if way == "header" else b"cookie")
        assert content.rpartition(b"=")[2].decode() == value or value in content.decode()
        assert way == "header" or content.count(b";") == (way == "cookies")


@pytest.mark.parametrize("value", HOSTILE, ids=[ascii(value)[:24] for value in HOSTILE])
@pytest.mark.parametrize("way", WAYS)
def test_no_value_changes_what_it_is_put_into(stack: Stack, run, way: str, value: str) -> None:
    inject, path, headers, body = WAYS[way]
    reply = run(send(stack, value, inject, path, headers=headers, body=body))
    if reply.status == 200:
        received = stack.upstream.last
        assert not {b"x-evil", b"admin"} & {name for name, _ in received.headers}
        _structure(way, received, value)
    else:
        assert (reply.status, reply.code) == (400, "invalid_request")
        assert json.loads(reply.body)["error"]["hint"]
        assert stack.upstream.requests == []
        assert len(value) < 4 or value.encode() not in reply.body


@pytest.mark.parametrize("value", ["plain-value-1", 'quote"back\\slash', "é\U0001f511-unicode", "semi;colon&amp=1"])
def test_ordinary_odd_values_do_arrive(stack: Stack, run, value: str) -> None:
    for way in ("query", "path", "body", "form", "multipart", "in query", "in JSON", "in a form", "in XML"):
        if way == "path" and "\\" in value:
            continue
        inject, path, headers, body = WAYS[way]
        assert run(send(stack, value, inject, path, headers=headers, body=body)).status == 200, way
        _structure(way, stack.upstream.last, value)


@pytest.mark.parametrize(("value", "around"), [("p%41ss-word", "x{}"), ("41-and-more", "a%25{}"), ("..\\12345", "{}")])
def test_a_value_that_would_give_a_path_another_meaning_is_refused(stack: Stack, run, value: str, around: str) -> None:
    inject, _, headers, body = WAYS["in path"]
    reply = run(send(stack, value, inject, "/v1/" + around.format(PLAIN), headers=headers, body=body))
    assert (reply.status, reply.code) == (400, "invalid_request")
    assert stack.upstream.requests == []


@pytest.mark.parametrize(
    ("inject", "headers", "body", "method"),
    [
        ({"kind": "body", "field": "k"}, JSON, b'{"k":1,"k":2}', "POST"),
        ({"kind": "body", "field": "k"}, JSON, b"not JSON", "POST"),
        ({"kind": "body", "field": "k"}, FORM, b"k=1", "POST"),
        ({"kind": "body", "field": "k"}, JSON + b"Content-Encoding: gzip\r\n", b"\x1f\x8b", "POST"),
        ({"kind": "form", "field": "k"}, FORM + b"Content-Encoding: gzip\r\n", b"\x1f\x8b", "POST"),
        ({"kind": "form", "field": "k"}, JSON, b"{}", "POST"),
        ({"kind": "form", "field": "k"}, b"Content-Type: multipart/form-data\r\n", b"--b--", "POST"),
        ({"kind": "body", "field": "k"}, b"", b"", "GET"),
    ],
)
def test_body_in_which_the_field_has_no_place_is_refused_with_a_reason(
    stack: Stack, run, inject: dict, headers: bytes, body: bytes, method: str
) -> None:
    reply = run(send(stack, SECRET, inject, headers=headers, body=body, method=method))
    assert (reply.status, reply.code) == (400, "invalid_request")
    assert json.loads(reply.body)["error"]["hint"]
    assert stack.upstream.requests == []


def test_body_too_long_to_be_worked_on_is_refused_before_it_is_read(stack: Stack, run) -> None:
    body = b'{"k": "%b"}' % (b"x" * (1 << 20))
    reply = run(send(stack, SECRET, {"kind": "body", "field": "k"}, headers=JSON, body=body))
    assert (reply.status, reply.code) == (413, "body_too_large")
    assert stack.upstream.requests == []


# What comes back.


async def _echo(request: Received, writer: asyncio.StreamWriter) -> None:
    """Every form in which an API shows what it received."""
    value = ODD_SECRET
    forms = [
        *(value, quote(value, safe=""), quote_plus(value), json.dumps(value), json.dumps(value, ensure_ascii=False)),
        *(html.escape(value), _b64(value), base64.urlsafe_b64encode(value.encode()).decode(), value.encode().hex()),
        request.target.decode(),
    ]
    location = "".join(char if " " < char <= "~" else "" for char in request.target.decode())
    body = "\n".join(forms).encode() + b"\n" + request.body
    writer.write(
        b"HTTP/1.1 302 Found\r\nLocation: https://x.test%b\r\nContent-Length: %d\r\n\r\n%b"
        % (location.encode(), len(body), body)
    )


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


ODD_SECRET = 'kv"9Zq<é>&=+%x7Lm2'


@pytest.mark.parametrize(
    "way", ["query", "path", "body", "form", "multipart", "in query", "in path", "in JSON", "in a form", "in XML"]
)
def test_answer_that_echoes_any_form_of_the_secret_is_masked(stack: Stack, run, way: str) -> None:
    stack.upstream.say = _echo
    inject, path, headers, body = WAYS[way]
    reply = run(send(stack, ODD_SECRET, inject, path, headers=headers, body=body))
    assert reply.status == 302
    for form in (
        ODD_SECRET,
        quote(ODD_SECRET, safe=""),
        quote_plus(ODD_SECRET),
        json.dumps(ODD_SECRET)[1:-1],
        html.escape(ODD_SECRET),
        _b64(ODD_SECRET)[:20],
        ODD_SECRET.encode().hex(),
        "9Zq",
        "x7Lm2",
    ):
        assert form.encode() not in reply.raw, form
    assert b"*****" in reply.body


@pytest.mark.parametrize(
    "inject", [{"kind": "cookie", "name": "sid"}, {"kind": "headers", "headers": {"X-A": "value"}}]
)
def test_answer_that_echoes_a_header_is_masked(stack: Stack, run, inject: dict) -> None:
    async def echo(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nSet-Cookie: sid=%b\r\nContent-Length: %d\r\n\r\n%b"
            % (SECRET.encode(), len(request.head), request.head)
        )

    stack.upstream.say = echo
    reply = run(send(stack, SECRET, inject))
    assert reply.status == 200
    assert SECRET.encode() not in reply.raw


# Digest.


class DigestServer:
    """Asks for an answer to its challenge, and says what it was told."""

    def __init__(self, user: str, password: str) -> None:
        self.user, self.password = user, password
        self.nonce = 1
        self.statuses: list[int] = []

    async def __call__(self, request: Received, writer: asyncio.StreamWriter) -> None:
        shown = dict(re.findall(r'(\w+)="?([^",]*)"?', (request.values(b"authorization") or [b""])[0].decode()))
        ha1, ha2 = (
            hashlib.sha256(text.encode()).hexdigest()
            for text in (f"{self.user}:r:{self.password}", f"{request.method}:{request.target.decode()}")
        )
        wanted = f"{ha1}:n{self.nonce}:{shown.get('nc')}:{shown.get('cnonce')}:auth:{ha2}"
        right = shown.get("response") == hashlib.sha256(wanted.encode()).hexdigest()
        self.statuses.append(200 if right else 401)
        body = f"{shown} {request.body.decode()}".encode()
        challenge = (
            f'WWW-Authenticate: Digest realm="r", qop="auth", algorithm=SHA-256, nonce="n{self.nonce}", stale=true\r\n'
        )
        writer.write(
            b"HTTP/1.1 %d X\r\n%bContent-Length: %d\r\n\r\n%b"
            % (self.statuses[-1], b"" if right else challenge.encode(), len(body), body)
        )


def test_digest_challenge_is_answered_with_the_body_again_and_kept_for_later(stack: Stack, run) -> None:
    server = DigestServer("bot", "p:ässword-1")
    stack.upstream.say = server
    sdk = f'Authorization: Digest username="bot", response="made of {PLAIN}"\r\n'.encode()

    async def ask() -> list[Reply]:
        await stack.secret("digest/login", {"username": "bot", "password": "p:ässword-1"})
        await stack.service("digest", secret="digest/login", inject={"kind": "digest"})
        token = await stack.agent("digester", "digest")
        options = {"method": "POST", "headers": sdk, "body": b"body of it"}
        replies = [await stack.get(token, f"/x?n={number}", **options) for number in range(3)]
        server.nonce = 2
        replies.append(await stack.get(token, "/x", **options))
        await stack.ask("delete", "services/digest")
        return replies

    replies = run(ask())
    assert [reply.status for reply in replies] == [200] * 4
    assert server.statuses == [401, 200, 200, 200, 401, 200]
    assert all(reply.body.endswith(b"body of it") for reply in replies)
    assert {request.body for request in stack.upstream.requests} == {b"body of it"}
    assert PLAIN.encode() not in stack.upstream.received
    for reply in replies:
        [response] = re.findall(r"'response': '([^']*)'", reply.body.decode())
        assert set(response) == {"*"}
    uses = [record for record in run(stack.records(service="digest")) if record["phase"] == "outcome"]
    assert [record["status"] for record in uses] == [200] * 4


def test_digest_password_that_is_refused_gives_the_servers_own_401(stack: Stack, run) -> None:
    server = DigestServer("bot", "other")
    stack.upstream.say = server
    reply = run(send(stack, "bot:password-1", {"kind": "digest"}, method="GET"))
    assert reply.status == 401
    assert 1 < len(server.statuses) <= 3


# Bodies that pass by.


def test_compressed_and_binary_bodies_pass_a_body_placeholder_untouched(stack: Stack, run) -> None:
    body = bytes(range(256)) + PLAIN.encode() + bytes(range(256))
    for headers in (
        b"Content-Encoding: gzip\r\n",
        b"Content-Type: application/x-git-receive-pack-request\r\n",
        b"Content-Type: application/octet-stream\r\n",
        b"Content-Type: image/png\r\n",
    ):
        digest = b"Content-MD5: kept\r\n"
        assert run(send(stack, SECRET, EVERYWHERE, headers=headers + digest, body=body)).status == 200
        assert stack.upstream.last.body == body
        assert stack.upstream.last.values(b"content-md5") == [b"kept"]
        assert stack.upstream.last.values(b"content-length") == [b"%d" % len(body)]


@pytest.mark.parametrize(
    "headers", [b"", JSON, FORM, b"Content-Type: text/plain\r\n", b"Content-Type: multipart/x; boundary=b\r\n"]
)
def test_body_of_every_byte_value_without_the_placeholder_is_untouched(stack: Stack, run, headers: bytes) -> None:
    body = bytes(range(256)) * 100 + PLAIN.encode()[:-1]
    assert run(send(stack, SECRET, EVERYWHERE, headers=headers, body=body)).status == 200
    assert stack.upstream.last.body == body
    assert stack.upstream.last.values(b"content-length") == [b"%d" % len(body)]


@pytest.mark.parametrize("chunked", [False, True])
def test_placeholder_in_a_body_that_streams_is_found_across_chunks(stack: Stack, run, chunked: bool) -> None:
    filler = b"x" * 65_536
    pieces = [filler] * 20 + [b"<" + PLAIN.encode()[:5], PLAIN.encode()[5:] + b">", PLAIN.encode()] + [filler] * 3

    async def ask() -> Reply:
        await stack.secret("streams/key")
        await stack.service("streams", secret="streams/key", inject={**EVERYWHERE, "text": PLAIN})
        reader, writer = await stack.tunnel(await stack.agent("streamer", "streams"))
        length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % sum(map(len, pieces))
        writer.write(f"POST /up HTTP/1.1\r\nHost: {HOST}:{stack.secure}\r\n".encode() + length + b"\r\n\r\n")
        for piece in pieces:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            await writer.drain()
        if chunked:
            writer.write(b"0\r\n\r\n")
        try:
            return await read_reply(reader, "POST")
        finally:
            writer.close()
            await stack.ask("delete", "services/streams")

    assert run(ask()).status == 200
    assert stack.upstream.last.body == b"".join(pieces).replace(PLAIN.encode(), SECRET.encode())


SPECIAL = "sk/live <51>&Hx\"Key'9Zq7%25~tail"
IN_BODY = {"method": "POST", "body": b'{"q":"phkeyhole1234567"}', "headers": b"Content-Type: application/json\r\n"}
WRITTEN = [
    ({"kind": "query", "name": "k"}, SPECIAL, {}),
    (
        {"kind": "path", "text": "phkeyhole1234567"},
        SPECIAL.replace("/", "-").replace("%", "-"),
        {"path": "/v1/phkeyhole1234567"},
    ),
    ({"kind": "body", "field": "k"}, SPECIAL, IN_BODY),
    ({"kind": "form", "field": "k"}, SPECIAL, {"method": "POST"}),
    (
        {"kind": "placeholder", "text": "phkeyhole1234567", "in": ["query"]},
        SPECIAL,
        {"path": "/v1/?q=phkeyhole1234567"},
    ),
    ({"kind": "placeholder", "text": "phkeyhole1234567", "in": ["body"]}, SPECIAL, IN_BODY),
]


@pytest.mark.parametrize(("how", "value", "request_"), WRITTEN)
def test_escaped_form_that_an_injection_wrote_is_masked_when_it_comes_back_in_base64(
    stack: Stack, run, how: dict, value: str, request_: dict
) -> None:
    async def echo(request: Received, writer: asyncio.StreamWriter) -> None:
        content = base64.b64encode(request.target + b"\n" + request.body)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content))

    async def go() -> None:
        stack.upstream.say = echo
        await stack.secret("written/key", value)
        await stack.service("written", secret="written/key", inject=how)
        reply = await stack.get(await stack.agent("written", "written"), **request_)
        assert reply.status == 200
        assert b"9Zq7" in stack.upstream.last.target + stack.upstream.last.body
        assert b"*" * 16 in reply.body
        await stack.ask("delete", "services/written")

    run(go())
