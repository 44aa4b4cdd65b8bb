"""Credentials that an agent's own calls make: in the vault before the agent has the answer, with placeholders."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import json
import re
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest

from broker.stack import HOST, SECRET, Reply, Stack, reset
from keyhole.core.errors import InvalidRequest, NotFound, PolicyDenied
from keyhole.vault import captured

NEW = "sk_live_9f2c7d51b8e64a03c6"
RULE = {"method": "POST", "path": "/v1/keys", "fields": {"/key": "value"}, "into": "made/{service}/{id}"}
_numbers = itertools.count()


def said(body: bytes, *headers: bytes, kind: bytes = b"application/json", status: bytes = b"201 Created") -> bytes:
    lines = [b"HTTP/1.1 " + status, b"Content-Type: " + kind, b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def made(stack: Stack, rule: dict[str, Any] | None = None, **more: Any) -> tuple[str, str]:
    """A service with a rule, and a token of an agent that may use it."""
    name = f"n{next(_numbers)}"
    await stack.secret("stripe/key")
    await stack.service(name, capture=[rule or RULE], **more)
    token = await stack.agent(name, name)
    return name, token


async def mint(stack: Stack, token: str, answer: bytes, path: str = "/v1/keys") -> Reply:
    stack.upstream.say = answer
    return await stack.get(token, path, method="POST", body=b"{}")


async def kept(stack: Stack, service: str) -> list[dict[str, Any]]:
    try:
        names = (await stack.ask("list", f"secret/metadata/made/{service}"))["keys"]
    except NotFound:
        return []
    return [json.loads((await read(stack, f"made/{service}/{name}")).decode()) for name in names]


async def read(stack: Stack, name: str) -> bytes:
    found = (await stack.ask("read", f"secret/data/{name}"))["data"]
    return bytes(found.reveal())


async def drop(stack: Stack, *names: str) -> None:
    for name in names:
        await stack.ask("delete", f"services/{name}")


def test_a_new_key_goes_into_the_vault_and_its_placeholder_works(stack: Stack, run) -> None:
    async def go() -> None:
        name, token = await made(stack)
        reply = await mint(stack, token, said(json.dumps({"id": 7, "key": NEW}).encode()))
        assert reply.status == 201
        shown = json.loads(reply.body)
        assert shown["id"] == 7
        assert re.fullmatch(r"sk_live_keyhole_[a-z2-7]{32}", shown["key"])
        assert await kept(stack, name) == [{"value": NEW}]
        with pytest.raises(PolicyDenied):
            await stack.ask("list", f"secret/metadata/made/{name}", token=token)

        stack.upstream.say = said(b"you sent " + NEW.encode(), kind=b"text/plain")
        reply = await stack.get(token, headers=f"Authorization: Bearer {shown['key']}\r\n".encode())
        assert stack.upstream.last.values(b"authorization") == [f"Bearer {NEW}".encode()]
        assert reply.body == b"you sent " + b"*" * len(NEW)
        for more, body in ((f"?key={shown['key']}", b""), ("", json.dumps({"key": shown["key"]}).encode())):
            headers = b"Content-Type: application/json\r\n" if body else b""
            await stack.get(token, f"/v1/x{more}", method="POST", headers=headers, body=body)
            assert NEW.encode() in stack.upstream.last.target + stack.upstream.last.body
            assert SECRET.encode() not in stack.upstream.last.head
        await stack.get(token)
        assert stack.upstream.last.values(b"authorization") == [f"Bearer {SECRET}".encode()]
        await drop(stack, name)

    run(go())


def test_the_journal_names_the_secret_and_never_the_value(stack: Stack, run) -> None:
    async def go() -> None:
        name, token = await made(stack)
        shown = json.loads((await mint(stack, token, said(json.dumps({"key": NEW}).encode()))).body)["key"]
        await stack.get(token, headers=f"Authorization: Bearer {shown}\r\n".encode())
        found = (await stack.ask("read", "sys/audit-log", {"limit": 1000, "service": name}))["records"]
        capture = [record for record in found if record["operation"] == "capture"]
        assert {record["phase"] for record in capture} == {"intent", "outcome"}
        [secret] = {record["secrets"][0] for record in capture}
        assert secret.startswith(f"made/{name}/")
        uses = [record for record in found if record["operation"] == "use" and secret in record["secrets"]]
        assert uses
        assert NEW not in json.dumps(found)
        await drop(stack, name)

    run(go())


def test_what_the_answer_repeats_elsewhere_is_masked(stack: Stack, run) -> None:
    async def go() -> None:
        name, token = await made(stack)
        body = json.dumps({"key": NEW, "curl": f"curl -H 'Bearer {NEW}'", "hex": NEW.encode().hex()}).encode()
        answer = said(body, b"X-New-Key: " + NEW.encode(), b"Location: /keys?key=" + NEW.encode())
        reply = await mint(stack, token, answer)
        assert reply.status == 201
        assert NEW.encode() not in reply.raw
        assert NEW.encode().hex().encode() not in reply.raw
        assert reply.get(b"x-new-key") == b"*" * len(NEW)
        await drop(stack, name)

    run(go())


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (
            said(urlencode({"access_token": NEW, "scope": "repo"}).encode(), kind=b"application/x-www-form-urlencoded"),
            lambda body: parse_qs(body.decode())["access_token"][0],
        ),
        (
            said(
                b'<?xml version="1.0"?><access_token xmlns="https://x.test/"><!-- k --><v>%b</v></access_token>'
                % NEW.encode(),
                kind=b"text/xml",
            ),
            lambda body: re.search(rb"<v>(.*)</v>", body)[1].decode(),
        ),
        (
            said(
                gzip.compress(json.dumps({"access_token": NEW}).encode()),
                b"Content-Encoding: gzip",
                b'ETag: "1"',
            ),
            lambda body: json.loads(body)["access_token"],
        ),
    ],
    ids=["form", "xml", "gzip"],
)
def test_forms_xml_and_compressed_answers_are_read_too(stack: Stack, run, answer, shown) -> None:
    async def go() -> None:
        pointer = "/access_token/v" if b"text/xml" in answer else "/access_token"
        name, token = await made(stack, {**RULE, "fields": {pointer: "value"}})
        reply = await mint(stack, token, answer)
        assert reply.status == 201
        assert reply.get(b"content-encoding") is None
        assert reply.get(b"etag") is None
        assert NEW.encode() not in reply.body
        text = shown(reply.body)
        stack.upstream.say = said(b"{}")
        await stack.get(token, headers=f"Authorization: Bearer {text}\r\n".encode())
        assert stack.upstream.last.values(b"authorization") == [f"Bearer {NEW}".encode()]
        await drop(stack, name)

    run(go())


@pytest.mark.parametrize(
    "answer",
    [
        said(json.dumps({"secret": NEW}).encode()),
        said(json.dumps({"key": {"v": NEW}}).encode()),
        said(json.dumps({"key": "short"}).encode()),
        said(f'{{"key": "{NEW}"'.encode()),
        said(b'"\xff' + NEW.encode()),
        said(json.dumps({"key": NEW, "pad": "x" * 1_100_000}).encode()),
        said(gzip.compress(json.dumps({"key": NEW, "pad": "x" * 3_000_000}).encode()), b"Content-Encoding: gzip"),
        said(json.dumps({"key": NEW}).encode(), b"Content-Encoding: gzip"),
        said(json.dumps({"key": NEW}).encode(), b"Content-Encoding: rot13"),
        said(gzip.compress(json.dumps({"key": NEW}).encode())),
        said(f'<!DOCTYPE a [<!ENTITY k "{NEW}">]><key>&k;</key>'.encode(), kind=b"text/xml"),
        said(f"<key>{NEW}</key><key>x</key>".encode(), kind=b"text/xml"),
        said(f"key={NEW}&key=another-value".encode(), kind=b"application/x-www-form-urlencoded"),
        said(b"[" * 100_000),
        said(b""),
    ],
    ids=[
        "elsewhere",
        "object",
        "short",
        "cut",
        "not UTF-8",
        "huge",
        "bomb",
        "no gzip",
        "unknown coding",
        "undeclared gzip",
        "entity",
        "two elements",
        "two fields",
        "deep",
        "empty",
    ],
)
def test_an_answer_that_cannot_be_read_is_withheld(stack: Stack, run, answer) -> None:
    async def go() -> None:
        name, token = await made(stack)
        reply = await mint(stack, token, answer)
        assert (reply.status, reply.code) == (502, "scrub_failed_closed")
        assert NEW.encode() not in reply.raw
        assert b"revoked at its source" in reply.raw
        assert await kept(stack, name) == []
        [record] = [r for r in await stack.records(service=name) if r["phase"] == "outcome"]
        assert record["result"] == "scrub_failed_closed"
        await drop(stack, name)

    run(go())


def test_a_credential_that_cannot_be_stored_is_withheld(stack: Stack, run, monkeypatch) -> None:
    async def go() -> None:
        name, token = await made(stack)

        async def full(*_: object, **__: object) -> None:
            raise InvalidRequest("the mount is full")

        monkeypatch.setattr("keyhole.vault.captured.answer", full)
        reply = await mint(stack, token, said(json.dumps({"key": NEW}).encode()))
        assert (reply.status, reply.code) == (502, "scrub_failed_closed")
        assert b"could not be stored" in reply.raw
        assert NEW.encode() not in reply.raw
        await drop(stack, name)

    run(go())


def test_answers_of_other_calls_and_refusals_pass(stack: Stack, run) -> None:
    async def go() -> None:
        name, token = await made(stack)
        refused = said(b'{"error": "no"}', status=b"403 Forbidden")
        assert (await mint(stack, token, refused)).body == b'{"error": "no"}'
        assert (await mint(stack, token, said(b'{"a": 1}'), "/v1/other")).body == b'{"a": 1}'
        await drop(stack, name)
        pending = said(b'{"error": "authorization_pending"}', status=b"200 OK")
        name, token = await made(stack, {**RULE, "required": False})
        assert json.loads((await mint(stack, token, pending)).body) == {"error": "authorization_pending"}
        assert NEW.encode() not in (await mint(stack, token, said(json.dumps({"key": NEW}).encode()))).body
        await drop(stack, name)

    run(go())


def test_a_placeholder_of_one_agent_or_service_is_nothing_to_another(stack: Stack, run) -> None:
    async def go() -> None:
        name, token = await made(stack, paths=["/v1/**"])
        await stack.service("elsewhere", paths=["/other/**"])
        await stack.ask("update", f"agents/{name}/services/elsewhere", {})
        shown = json.loads((await mint(stack, token, said(json.dumps({"key": NEW}).encode()))).body)["key"]
        stack.upstream.say = said(b"{}")
        stranger = await stack.agent("stranger", name)
        header = f"Authorization: Bearer {shown}\r\n".encode()
        stack.upstream.forget()
        for who, path in ((stranger, "/v1/x"), (token, "/other/x")):
            reply = await stack.get(who, path, headers=header)
            assert (reply.status, reply.code) == (403, "policy_denied")
        assert stack.upstream.requests == []
        await drop(stack, name, "elsewhere")

    run(go())


def test_a_rule_may_let_it_be_used_through_another_service(stack: Stack, run) -> None:
    async def go() -> None:
        name, token = await made(stack, {**RULE, "through": ["data"]}, paths=["/v1/keys"])
        await stack.secret("data/key", "another-key-of-this-host")
        await stack.service("data", secret="data/key", paths=["/data/**"])
        await stack.ask("update", f"agents/{name}/services/data", {})
        shown = json.loads((await mint(stack, token, said(json.dumps({"key": NEW}).encode()))).body)["key"]
        stack.upstream.say = said(b"{}")
        await stack.get(token, "/data/x", headers=f"Authorization: Bearer {shown}\r\n".encode())
        assert stack.upstream.last.values(b"authorization") == [f"Bearer {NEW}".encode()]
        await drop(stack, name, "data")

    run(go())


def test_what_lives_with_the_token_alone_is_no_secret_of_the_vault(stack: Stack, run) -> None:
    async def go() -> None:
        name, token = await made(stack, {**RULE, "into": ""})
        shown = json.loads((await mint(stack, token, said(json.dumps({"key": NEW}).encode()))).body)["key"]
        assert await kept(stack, name) == []
        stack.upstream.say = said(b"{}")
        header = f"Authorization: Bearer {shown}\r\n".encode()
        await stack.get(token, headers=header)
        assert stack.upstream.last.values(b"authorization") == [f"Bearer {NEW}".encode()]
        other = str((await stack.ask("update", f"agents/{name}/token", {"ttl": "1h"}))["token"])
        assert (await stack.get(other, headers=header)).code == "policy_denied"
        await drop(stack, name)

    run(go())


def test_a_placeholder_that_is_no_longer_good_says_so_and_raises_no_alarm(stack: Stack, run, monkeypatch) -> None:
    async def go() -> None:
        name, token = await made(stack, {**RULE, "ttl": "10m"})
        shown = json.loads((await mint(stack, token, said(json.dumps({"key": NEW}).encode()))).body)["key"]
        vault = stack.keyhole.node.open_vault()
        now = vault.clock.now()
        monkeypatch.setattr(vault.clock, "now", lambda: now + 700)
        reply = await stack.get(token, headers=f"Authorization: Bearer {shown}\r\n".encode())
        assert (reply.status, reply.code) == (403, "expired")
        monkeypatch.undo()
        await drop(stack, name)

    run(go())


def test_new_keys_of_aws_sign_later_calls(stack: Stack, run) -> None:
    async def go() -> None:
        below = "/CreateAccessKeyResponse/CreateAccessKeyResult/AccessKey"
        fields = {f"{below}/AccessKeyId": "access_key_id", f"{below}/SecretAccessKey": "secret_access_key"}
        rule = {"method": "POST", "path": "/", "fields": fields, "into": "made/{service}/{id}", "required": False}
        old = {"access_key_id": "AKIAOLDOLDOLDOLDOLDO", "secret_access_key": "old-secret-access-key-000000"}
        await stack.secret("aws/old", old)
        inject = {"kind": "sigv4", "credentials": "allow"}
        await stack.service("aws", secret="aws/old", inject=inject, capture=[rule])
        token = await stack.agent("aws", "aws")
        new = {"AccessKeyId": "AKIANEWNEWNEWNEWNEWN", "SecretAccessKey": "new/secret+access/key/0000000"}
        inner = "".join(f"<{name}>{value}</{name}>" for name, value in new.items())
        body = "<CreateAccessKeyResponse xmlns='https://iam.amazonaws.com/doc/2010-05-08/'><CreateAccessKeyResult>"
        body += f"<AccessKey>{inner}</AccessKey></CreateAccessKeyResult></CreateAccessKeyResponse>"
        stack.upstream.say = said(body.encode(), kind=b"text/xml", status=b"200 OK")

        def signed(key_id: str) -> bytes:
            scope = "20261126/us-east-1/iam/aws4_request"
            lines = f"Authorization: AWS4-HMAC-SHA256 Credential={key_id}/{scope}, SignedHeaders=host, Signature=00\r\n"
            return (lines + "Content-Type: application/x-www-form-urlencoded\r\n").encode()

        reply = await stack.get(token, "/", method="POST", headers=signed("AKIAX"), body=b"Action=CreateAccessKey")
        assert reply.status == 200, reply.raw
        assert not any(value.encode() in reply.body for value in new.values())
        found = re.search(rb"<AccessKeyId>(.*)</AccessKeyId>", reply.body)
        assert found is not None
        stack.upstream.say = said(b"<ok/>", kind=b"text/xml")
        headers = signed(found[1].decode())
        await stack.get(token, "/", method="POST", headers=headers, body=b"Action=ListUsers")
        [shown] = stack.upstream.last.values(b"authorization")
        assert f"Credential={new['AccessKeyId']}/".encode() in shown
        await drop(stack, "aws")

    run(go())


def test_who_writes_such_a_service_needs_read_and_update_where_it_keeps_things(stack: Stack, run) -> None:
    async def go() -> None:
        await stack.secret("stripe/key")
        policy = 'path "services/*" { capabilities = ["create", "update", "sudo"] } '
        policy += 'path "secret/data/stripe/key" { capabilities = ["read"] } '
        await stack.ask("update", "sys/policies/acl/binder", {"policy": policy})
        token = str((await stack.ask("update", "auth/token/create", {"policies": ["binder"]}))["client_token"])
        with pytest.raises(PolicyDenied):
            await stack.service("bound", token=token, capture=[RULE])
        for capability in ("update", "read"):  # a placeholder lends what lies there, whoever writes it later
            more = policy + f'path "secret/data/made/bound/*" {{ capabilities = ["{capability}"] }}'
            await stack.ask("update", "sys/policies/acl/binder", {"policy": more})
            with pytest.raises(PolicyDenied):
                await stack.service("bound", token=token, capture=[RULE])
        more = policy + 'path "secret/data/made/bound/*" { capabilities = ["update", "read"] }'
        await stack.ask("update", "sys/policies/acl/binder", {"policy": more})
        await stack.service("bound", token=token, capture=[RULE])
        assert (await stack.ask("read", "services/bound"))["capture"][0]["into"] == RULE["into"]
        await stack.service("bound", token=token, capture=[{**RULE, "into": ""}])
        await drop(stack, "bound")

    run(go())


@pytest.mark.parametrize(
    "change",
    [
        {"fields": {}},
        {"fields": {"key": "value"}},
        {"fields": {"/a": "value", "/b": "value"}},
        {"into": "made/{agent}"},
        {"into": "made/{who}/{id}"},
        {"into": "../x"},
        {"status": [100]},
        {"placeholder": "no-mark-000000000000000000000000"},
        {"methods": ["POST"]},
        {"method": "post"},
        {"path": ""},
    ],
)
def test_rules_that_cannot_work_are_refused(stack: Stack, run, change) -> None:
    async def go() -> None:
        with pytest.raises(InvalidRequest):
            await stack.service("never", capture=[{**RULE, **change}])

    run(go())


@pytest.mark.parametrize("when", ["asked", "stored"])
def test_a_client_that_hangs_up_meanwhile_loses_no_credential(stack: Stack, run, monkeypatch, when) -> None:
    async def go() -> None:
        name, token = await made(stack)
        reached, go_on = asyncio.Event(), asyncio.Event()
        write = captured.answer

        async def wait(place: str) -> None:
            if when == place:
                reached.set()
                await go_on.wait()

        async def slow(*asked: Any) -> Any:
            await wait("stored")
            return await write(*asked)

        async def say(_request: object, writer: asyncio.StreamWriter) -> None:
            await wait("asked")
            writer.write(said(json.dumps({"key": NEW}).encode()))
            await writer.drain()

        monkeypatch.setattr(captured, "answer", slow)
        stack.upstream.say = say
        streams = await stack.tunnel(token)
        call = asyncio.create_task(stack.send(streams, "/v1/keys", method="POST", body=b"{}"))
        await reached.wait()
        reset(streams[1])
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await call
        found = await stack.records(service=name)
        while len(found) < 2:
            await asyncio.sleep(0.01)
            found = await stack.records(service=name)
        assert found[-1]["result"] == "aborted"
        assert stack.keyhole.node.open_vault().shares._all.calls  # or many who hang up would have any number made
        go_on.set()
        there = await kept(stack, name)
        while not there:
            await asyncio.sleep(0.01)
            there = await kept(stack, name)
        assert there == [{"value": NEW}]
        monkeypatch.undo()
        await drop(stack, name)

    run(go())


def test_asking_for_a_websocket_is_no_way_around(stack: Stack, run) -> None:
    """An upstream may pass over the upgrade, and answer the call as ever."""

    async def go() -> None:
        name, token = await made(stack, {**RULE, "method": "GET"})
        stack.upstream.say = said(json.dumps({"key": NEW}).encode())
        asks = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        asks += b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        reply = await stack.get(token, "/v1/keys", headers=asks)
        assert NEW.encode() not in reply.raw
        assert await kept(stack, name) == [{"value": NEW}]
        await drop(stack, name)

    run(go())


@pytest.mark.parametrize("path", ["/v1/%6Beys", "/v1/keys/", "/V1/Keys", "/v1/keys;a=b", "/v1/keys."])
def test_another_spelling_is_no_way_around(stack: Stack, run, path) -> None:
    """An upstream may take another spelling of the path for the same call."""

    async def go() -> None:
        name, token = await made(stack)
        reply = await mint(stack, token, said(json.dumps({"key": NEW}).encode()), path)
        assert NEW.encode() not in reply.raw
        assert reply.status in {201, 400}, HOST
        await drop(stack, name)

    run(go())
