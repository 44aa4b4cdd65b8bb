"""Services that lend the access token of a connection: the API sees the token, the agent sees nothing of it."""

import asyncio

import pytest

import oauth_provider
from broker.stack import OK, Stack
from keyhole.core.errors import PolicyDenied

REFUSED = b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Length: 2\r\n\r\nno"


async def connect(stack, provider, name="crm", **service):
    """A connection with a refresh token, and a service of the same name that lends it; the refresh token."""
    if (await stack.ask("read", "sys/mounts")).get("oauth/") is None:
        await stack.ask("update", "sys/mounts/oauth", {"type": "oauth"})
    refresh = provider.consent()
    settings = provider.settings(grant="refresh_token", refresh_token=refresh)
    await stack.ask("update", f"oauth/connections/{name}", settings)
    await stack.service(name, **{"secret": f"/oauth/{name}", "inject": {"kind": "oauth2"}, **service})
    return refresh


def played(scenario):
    def test():
        async def main(provider):
            async with Stack() as stack:
                await scenario(stack, provider)

        with oauth_provider.running() as provider:
            asyncio.run(main(provider))

    test.__doc__ = scenario.__doc__
    return test


def judge(provider):
    """An API that takes tokens which the provider knows."""

    async def say(request, writer):
        [value] = request.values(b"authorization")
        good = provider.knows(value.decode().removeprefix("Bearer "))
        writer.write(OK if good else REFUSED)
        await writer.drain()

    return say


def tokens_sent(stack):
    return [
        request.values(b"authorization")[0].removeprefix(b"Bearer ").decode() for request in stack.upstream.requests
    ]


@played
async def test_an_agent_calls_an_api_with_a_token_that_it_never_sees(stack, provider):
    refresh = await connect(stack, provider)
    token = await stack.agent("coder", "crm")

    async def echo(request, writer):
        [value] = request.values(b"authorization")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(value) + value)
        await writer.drain()

    stack.upstream.say = echo
    replies = await asyncio.gather(*(stack.get(token) for _ in range(20)))
    assert {reply.status for reply in replies} == {200}
    [sent] = set(tokens_sent(stack))
    assert provider.knows(sent)
    assert provider.asked["refresh_token"] == 1
    assert not any(sent.encode() in reply.raw for reply in replies)
    assert refresh.encode() not in stack.upstream.received
    assert {each["result"] for each in await stack.records(service="crm") if each["phase"] == "outcome"} == {"ok"}


@played
async def test_a_token_that_the_api_refuses_is_replaced_within_the_call(stack, provider):
    await connect(stack, provider)
    token = await stack.agent("coder", "crm")
    stack.upstream.say = judge(provider)
    assert (await stack.get(token)).status == 200
    first = tokens_sent(stack)[0]
    provider.access.pop(first)
    for method, body in (("POST", b'{"amount": 1}'), ("GET", b"")):
        stack.upstream.forget()
        reply = await stack.get(token, method=method, body=body)
        assert reply.status == 200
        assert {request.body for request in stack.upstream.requests} == {body}
    assert provider.asked["refresh_token"] == 2
    assert first.encode() not in reply.raw


@played
async def test_an_api_that_refuses_every_token_is_tried_twice_and_causes_no_storm(stack, provider):
    await connect(stack, provider)
    token = await stack.agent("coder", "crm")
    stack.upstream.say = REFUSED
    replies = [await stack.get(token) for _ in range(5)]
    assert {reply.status for reply in replies} == {401}
    assert provider.asked["refresh_token"] == 2
    assert len(stack.upstream.requests) == 6


@played
async def test_many_calls_with_a_dead_token_make_one_refresh(stack, provider):
    await connect(stack, provider)
    token = await stack.agent("coder", "crm")
    stack.upstream.say = judge(provider)
    await stack.get(token)
    provider.access.pop(tokens_sent(stack)[0])
    replies = await asyncio.gather(*(stack.get(token) for _ in range(20)))
    assert {reply.status for reply in replies} == {200}
    assert provider.asked["refresh_token"] == 2


@played
async def test_an_agent_is_told_when_a_person_has_to_consent(stack, provider):
    refresh = await connect(stack, provider)
    token = await stack.agent("coder", "crm")
    provider.dead.update(family for family, _ in provider.refresh.values())
    reply = await stack.get(token)
    assert (reply.status, reply.code) == (403, "consent_required")
    assert b"keyhole oauth add crm" in reply.body
    assert refresh.encode() not in reply.raw
    assert not stack.upstream.requests
    outcomes = [record["result"] for record in await stack.records() if record["phase"] == "outcome"]
    assert outcomes == ["consent_required"]


@played
async def test_a_long_body_is_sent_once_and_its_refusal_is_the_answer(stack, provider):
    await connect(stack, provider)
    token = await stack.agent("coder", "crm")
    stack.upstream.say = REFUSED
    reply = await stack.get(token, method="POST", body=b"x" * (1 << 18))
    assert reply.status == 401
    assert len(stack.upstream.requests) == 1
    assert provider.asked["refresh_token"] == 1


@played
async def test_two_accounts_at_one_api_are_two_services(stack, provider):
    await connect(stack, provider, "ann")
    await connect(stack, provider, "bob")
    token = await stack.agent("coder", "ann", "bob")
    assert (await stack.get(token)).code == "ambiguous_service"
    for name in ("ann", "bob"):
        assert (await stack.get(token, headers=f"X-Keyhole-Service: {name}\r\n".encode())).status == 200
    assert len(set(tokens_sent(stack))) == 2


@played
async def test_an_agent_at_the_token_endpoint_itself_learns_nothing(stack, provider):
    """A service that leads to the provider, which answers with all that it knows."""
    refresh = await connect(stack, provider, placeholder="oauth-placeholder-crm-1")
    token = await stack.agent("coder", "crm")
    stack.upstream.say = OK
    await stack.get(token)
    known = [*(each for each in provider.refresh if each != refresh), *tokens_sent(stack)]
    body = "\n".join(known).encode()
    stack.upstream.say = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    form = b"grant_type=refresh_token&refresh_token=oauth-placeholder-crm-1"
    reply = await stack.get(token, "/token", method="POST", body=form)
    assert reply.status == 200
    assert tokens_sent(stack)[-1] in body.decode()
    assert not any(value.encode() in reply.raw for value in known)
    told = str(await stack.ask("read", "sys/audit-log", {"limit": 1000}))
    assert not any(value in told for value in known)


@played
async def test_who_binds_a_connection_must_be_able_to_read_its_token(stack, provider):
    await connect(stack, provider)
    text = 'path "services/*" { capabilities = ["create", "update", "sudo"] }'
    await stack.ask("update", "sys/policies/acl/binder", {"policy": text})
    binder = (await stack.ask("update", "auth/token/create", {"policies": ["binder"]}))["client_token"]
    for source in ("/oauth/crm", "/oauth/token/crm"):
        with pytest.raises(PolicyDenied):
            await stack.service("x", secret=source, inject={"kind": "oauth2"}, token=binder)


@played
async def test_a_token_that_was_lent_is_stopped_everywhere_else_and_costs_later_calls_nothing(stack, provider):
    await connect(stack, provider)
    token = await stack.agent("coder", "crm")
    assert (await stack.get(token)).status == 200
    [lent] = tokens_sent(stack)
    assert (await stack.get(token, headers=f"X-Note: {lent}\r\n".encode())).code == "policy_denied"
    assert (await stack.get(token, headers=f"Authorization: Bearer {lent}\r\n".encode())).status == 200
    learned = await watch_records(stack)
    for _ in range(3):
        assert (await stack.get(token)).status == 200
    assert await watch_records(stack) == learned


async def watch_records(stack):
    """How often it was found out what to look for."""
    found = await stack.ask("read", "sys/audit-log", {"limit": 1000, "operation": "watch"})
    return len(found["records"])
