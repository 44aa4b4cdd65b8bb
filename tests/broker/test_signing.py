"""Keys that sign and are never sent: what the upstream receives of them, and what comes back."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import re

import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from broker.stack import HOST, Reply, Stack

KEY = "0123456789abcdef/secret+signing-key"
KEY_ID = "AKIAREALREALREAL0001"
AWS = {"access_key_id": KEY_ID, "secret_access_key": KEY}
SIGV4 = {"kind": "sigv4", "region": "eu-central-1", "service": "s3"}
SLACK = {"kind": "hmac", "recipe": "slack-webhook"}
MIB = 1024 * 1024
_numbers = itertools.count()


async def send(stack: Stack, value: str | dict, inject: dict, *, times: int = 1, **request) -> Reply:
    """Requests through a new service with this secret and injection; the last reply."""
    name = f"signing{next(_numbers)}"
    await stack.secret(f"{name}/key", value)
    await stack.service(name, secret=f"{name}/key", inject=inject)
    token = await stack.agent(name, name)
    try:
        for _ in range(times):
            reply = await stack.get(token, **request)
        return reply
    finally:
        await stack.ask("delete", f"services/{name}")


def test_the_whole_body_is_signed_and_sent_as_it_was(stack, run):
    body = bytes(range(256)) * 64
    run(send(stack, KEY, SLACK, method="POST", body=body, headers=b"X-Slack-Signature: v0=fake\r\n"))
    received = stack.upstream.last
    [timestamp] = received.values(b"x-slack-request-timestamp")
    expected = hmac.new(KEY.encode(), b"v0:" + timestamp + b":" + body, hashlib.sha256).hexdigest()
    assert received.values(b"x-slack-signature") == [f"v0={expected}".encode()]
    assert received.body == body


def test_every_call_has_a_nonce_of_its_own(stack, run):
    options = {"kind": "hmac", "message": "{nonce}", "header": "x-s", "headers": ["x-nonce={nonce}"]}
    run(send(stack, KEY, options, times=2))
    nonces = [received.values(b"x-nonce")[0] for received in stack.upstream.requests]
    assert len(set(nonces)) == 2
    assert all(re.fullmatch(rb"[0-9a-f]{32}", nonce) for nonce in nonces)


@pytest.mark.parametrize(
    ("value", "inject"),
    [
        (KEY, SLACK),
        (AWS, SIGV4),
        ({"consumer_key": "the-consumer", "consumer_secret": KEY}, {"kind": "oauth1"}),
        ({"account_name": "account", "account_key": "MDEyMzQ1Njc4OWFiY2RlZi9zZWNyZXQ="}, {"kind": "azure-storage"}),
    ],
)
def test_the_key_is_never_sent_and_is_masked_where_a_server_knows_it(stack, run, value, inject):
    secret = value if isinstance(value, str) else list(value.values())[1]
    echo = f"key={secret} ".encode()
    stack.upstream.say = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(echo), echo)
    reply = run(send(stack, value, inject))
    assert secret.encode() not in stack.upstream.received
    assert reply.body == b"key=" + b"*" * len(secret) + b" "


def test_the_id_of_a_key_is_no_secret(stack, run):
    echo = f"<AWSAccessKeyId>{KEY_ID}</AWSAccessKeyId>".encode()
    stack.upstream.say = b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%b" % (len(echo), echo)
    assert run(send(stack, AWS, SIGV4)).body == echo


def test_a_part_of_an_object_may_be_asked_for_where_the_secret_is_not_sent(stack, run):
    headers = b"Range: bytes=5-9\r\nIf-Range: x\r\n"
    run(send(stack, AWS, SIGV4, headers=headers))
    assert stack.upstream.last.values(b"range") == [b"bytes=5-9"]
    run(send(stack, KEY, SLACK, headers=headers))
    assert stack.upstream.last.values(b"range") == []


@pytest.mark.parametrize(
    ("value", "inject", "limit"),
    [(KEY, SLACK, MIB), (AWS, {**SIGV4, "service": "dynamodb"}, 16 * MIB)],
)
def test_a_body_that_is_too_long_to_be_signed_whole_is_refused_before_it_is_read(stack, run, value, inject, limit):
    headers = b"Content-Length: %d\r\n" % (limit + 1)
    reply = run(send(stack, value, inject, method="POST", headers=headers))
    assert (reply.status, reply.code) == (413, "body_too_large")
    assert stack.upstream.requests == []


def test_what_is_signed_is_what_is_sent_after_all_that_was_changed_on_the_way(stack, run):
    signed = "accept-encoding;content-length;host;x-amz-date;x-custom;x-forwarded-for"
    headers = (
        b"Authorization: AWS4-HMAC-SHA256 Credential=AKIAPLACEHOLDER00001/20260101/eu-central-1/execute-api/"
        b"aws4_request, SignedHeaders=%b, Signature=%b\r\nX-Amz-Date: 20260101T000000Z\r\n"
        b"Accept-Encoding: compress, gzip\r\n"
        b"X-Forwarded-For: 1.2.3.4\r\nX-Custom: a   b\r\n" % (signed.encode(), b"0" * 64)
    )
    run(
        send(stack, AWS, {"kind": "sigv4"}, path="/a%20b/%7Ec?z=1&a=%C3%A9", method="POST", body=b"{}", headers=headers)
    )
    received = stack.upstream.last
    fields = dict(received.headers)
    covered = fields[b"authorization"].decode().partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert covered == ["accept-encoding", "host", "x-amz-date", "x-custom"]
    made = AWSRequest("POST", f"https://{fields[b'host'].decode()}{received.target.decode()}", data=received.body)
    for name in covered:
        made.headers[name] = fields[name.encode()].decode()
    made.context["timestamp"] = fields[b"x-amz-date"].decode()
    oracle = auth.SigV4Auth(Credentials(KEY_ID, KEY), "execute-api", "eu-central-1")
    signature = oracle.signature(oracle.string_to_sign(made, oracle.canonical_request(made)), made)
    assert fields[b"authorization"].decode().endswith(f"Signature={signature}")


def test_an_object_of_any_size_streams_when_nothing_needs_its_digest(stack, run):
    body = bytes(3 * MIB)
    run(send(stack, AWS, SIGV4, method="PUT", path="/bucket/key", body=body))
    received = stack.upstream.last
    assert received.values(b"x-amz-content-sha256") == [b"UNSIGNED-PAYLOAD"]
    assert received.body == body
    assert b"Credential=" + KEY_ID.encode() in received.values(b"authorization")[0]
    assert HOST.encode() in received.head


def test_the_id_of_a_key_may_stand_in_a_request_and_the_key_may_not(stack, run):
    run(send(stack, AWS, SIGV4, times=2, path=f"/?Action=DeleteAccessKey&AccessKeyId={KEY_ID}"))
    assert KEY_ID.encode() in stack.upstream.last.target
    reply = run(send(stack, AWS, SIGV4, headers=f"X-Leak: {KEY}\r\n".encode()))
    assert (reply.status, reply.code) == (403, "policy_denied")
