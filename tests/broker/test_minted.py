"""Tokens that are made with a secret for a call, client certificates, and services without a secret: whole stack."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import ssl
import sys
from typing import Any
from urllib.parse import parse_qs

import trustme

from broker.stack import HOST, OK, Received, Stack, authority, reset, until

_numbers = itertools.count()
SECRET = "client-secret-of-the-app-77"
EXPIRED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
ENDPOINT = "b.test"


def answer(data: dict, status: str = "200 OK") -> bytes:
    body = json.dumps(data).encode()
    return b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        status.encode(),
        len(body),
        body,
    )


class Endpoint:
    """A token endpoint and an API in one: it gives tokens for the right secret and takes the last one only."""

    def __init__(self) -> None:
        self.minted = 0
        self.good = ""
        self.wait = asyncio.Event()
        self.wait.set()
        self.refuse = b""

    async def __call__(self, request: Received, writer: asyncio.StreamWriter) -> None:
        if request.target != b"/token":
            right = request.values(b"authorization") == [f"Bearer {self.good}".encode()]
            writer.write(OK if right else EXPIRED)
            return
        await self.wait.wait()
        self.minted += 1
        if self.refuse:
            writer.write(self.refuse)
            return
        form = parse_qs(request.body.decode())
        if form.get("client_secret") != [SECRET]:
            writer.write(answer({"error": "invalid_client"}, "401 Unauthorized"))
            return
        self.good = f"minted-token-number-{self.minted}"
        writer.write(answer({"access_token": self.good, "expires_in": 3600, "token_type": "Bearer"}))


async def service(stack: Stack, endpoint: Endpoint, value: str = SECRET) -> tuple[str, str]:
    """A service with a token endpoint, and the token of an agent that may use it."""
    stack.upstream.say = endpoint
    name = f"m{next(_numbers)}"
    await stack.secret(f"{name}/key", value)
    how = {
        "kind": "client-credentials",
        "token_url": f"https://{ENDPOINT}:{stack.secure}/token",
        "client_id": "app",
    }
    await stack.service(name, secret=f"{name}/key", inject=how, paths=["/v1/**"])
    return name, await stack.agent(name, name)


def calls(stack: Stack, target: bytes) -> list[Received]:
    return [request for request in stack.upstream.requests if request.target == target]


def test_call_carries_a_token_and_the_secret_goes_to_the_endpoint_alone(stack: Stack, run) -> None:
    async def go() -> None:
        endpoint = Endpoint()
        name, token = await service(stack, endpoint)
        reply = await stack.get(token, headers=b"Authorization: Bearer placeholder\r\n")
        assert reply.status == 200
        [asked] = calls(stack, b"/token")
        assert SECRET in asked.body.decode()
        [called] = calls(stack, b"/v1/x")
        assert called.values(b"authorization") == [b"Bearer minted-token-number-1"]
        assert SECRET.encode() not in called.head
        found = (await stack.ask("read", "sys/audit-log", {"limit": 1000, "service": name}))["records"]
        minted = [(r["phase"], r.get("host"), r.get("result", "")) for r in found if r["operation"] == "mint"]
        host = f"{ENDPOINT}:{stack.secure}"
        assert sorted(minted) == [("intent", host, ""), ("outcome", host, "ok")]
        assert "minted-token" not in json.dumps(found)
        await stack.ask("delete", f"services/{name}")

    run(go())


def test_many_calls_at_once_make_one_token(stack: Stack, run) -> None:
    async def go() -> None:
        endpoint = Endpoint()
        endpoint.wait.clear()
        name, token = await service(stack, endpoint)
        calling = [asyncio.create_task(stack.get(token)) for _ in range(20)]
        await until(lambda: bool(calls(stack, b"/token")))
        endpoint.wait.set()
        assert {(await call).status for call in calling} == {200}
        assert endpoint.minted == 1
        await stack.ask("delete", f"services/{name}")

    run(go())


def test_whoever_hangs_up_in_the_middle_of_making_a_token_leaves_it_to_one_other(stack: Stack, run) -> None:
    async def go() -> None:
        endpoint = Endpoint()
        endpoint.wait.clear()
        name, token = await service(stack, endpoint)
        first = await stack.tunnel(token)
        first[1].write(f"GET /v1/x HTTP/1.1\r\nHost: {HOST}:{stack.secure}\r\n\r\n".encode())
        await until(lambda: bool(calls(stack, b"/token")))
        calling = [asyncio.create_task(stack.get(token)) for _ in range(8)]
        [room] = [room for key, room in stack.keyhole.broker._resources.kept._rooms.items() if key[1] == name]
        await until(lambda: len(room.errand._waiters or ()) == 8)
        reset(first[1])
        await until(lambda: len(calls(stack, b"/token")) == 2)
        endpoint.wait.set()
        assert {(await call).status for call in calling} == {200}
        assert len(calls(stack, b"/token")) == 2
        await stack.ask("delete", f"services/{name}")

    run(go())


def test_client_that_hangs_up_while_the_intent_of_an_errand_is_written_leaves_an_outcome_too(stack: Stack, run) -> None:
    async def go() -> None:
        endpoint = Endpoint()
        name, token = await service(stack, endpoint)
        vault = stack.keyhole.node.open_vault()
        store, gate, minting, reached = vault.store, asyncio.Event(), asyncio.Event(), asyncio.Event()
        intend, commit = vault.journal.intend, store.commit

        def noted(record: Any, org_id: str) -> Any:
            if getattr(record, "operation", "") == "mint":
                minting.set()
            return intend(record, org_id)

        async def slow(batch: Any) -> Any:
            if minting.is_set():
                reached.set()
                await gate.wait()
            return await commit(batch)

        _, writer = await stack.tunnel(token)
        store.commit, vault.journal.intend = slow, noted
        try:
            writer.write(f"GET /v1/x HTTP/1.1\r\nHost: {HOST}:{stack.secure}\r\n\r\n".encode())
            await reached.wait()
            connections = stack.proxy.connections
            reset(writer)
            await until(lambda: stack.proxy.connections < connections)
        finally:
            del store.commit, vault.journal.intend
            gate.set()
        await asyncio.sleep(0)
        found = (await stack.ask("read", "sys/audit-log", {"limit": 1000, "service": name}))["records"]
        minted = sorted((r["phase"], r.get("result", "")) for r in found if r["operation"] == "mint")
        assert minted == [("intent", ""), ("outcome", "aborted")]
        assert not calls(stack, b"/token")
        await stack.ask("delete", f"services/{name}")

    run(go())


def test_endpoint_that_refuses_is_asked_once_for_all_who_wait_and_nothing_is_called(stack: Stack, run) -> None:
    async def go() -> None:
        endpoint = Endpoint()
        endpoint.wait.clear()
        name, token = await service(stack, endpoint, "wrong-secret-of-the-app")
        calling = [asyncio.create_task(stack.get(token)) for _ in range(5)]
        await until(lambda: bool(calls(stack, b"/token")))
        endpoint.wait.set()
        replies = [await call for call in calling]
        assert {reply.status for reply in replies} == {502}
        assert b"invalid_client" in replies[0].body
        assert b"wrong-secret" not in replies[0].body
        assert not calls(stack, b"/v1/x")
        assert endpoint.minted < 5
        await stack.ask("delete", f"services/{name}")

    run(go())


def test_token_that_the_api_refuses_is_made_anew_for_a_request_that_can_be_sent_again(stack: Stack, run) -> None:
    async def go() -> None:
        endpoint = Endpoint()
        name, token = await service(stack, endpoint)
        assert (await stack.get(token)).status == 200
        endpoint.good = "revoked-at-the-source"
        assert (await stack.get(token)).status == 200
        endpoint.good = "revoked-at-the-source"
        assert (await stack.get(token, method="POST", body=b"pay twice?")).status == 401
        assert endpoint.minted == 2
        await stack.ask("delete", f"services/{name}")

    run(go())


def test_changed_secret_counts_for_the_next_call(stack: Stack, run) -> None:
    async def go() -> None:
        endpoint = Endpoint()
        name, token = await service(stack, endpoint)
        assert (await stack.get(token)).status == 200
        await stack.secret(f"{name}/key", "another-wrong-secret-99")
        assert (await stack.get(token)).status == 502
        await stack.secret(f"{name}/key", SECRET)
        assert (await stack.get(token)).status == 200
        await stack.ask("delete", f"services/{name}")

    run(go())


def test_denied_call_makes_no_token(stack: Stack, run) -> None:
    async def go() -> None:
        endpoint = Endpoint()
        name, token = await service(stack, endpoint)
        assert (await stack.get(token, "/v2/x")).code == "policy_denied"
        assert not stack.upstream.requests
        await stack.ask("delete", f"services/{name}")

    run(go())


def test_minted_token_in_an_answer_is_masked(stack: Stack, run) -> None:
    async def go() -> None:
        endpoint = Endpoint()
        name, token = await service(stack, endpoint)
        assert (await stack.get(token)).status == 200
        stack.upstream.say = answer({"you sent": endpoint.good})
        reply = await stack.get(token)
        assert reply.status == 200
        assert endpoint.good.encode() not in reply.raw
        await stack.ask("delete", f"services/{name}")

    run(go())


def test_stand_in_answers_and_nothing_goes_upstream(stack: Stack, run) -> None:
    async def go() -> None:
        how = {"kind": "stand-in", "text": "keyhole-placeholder-token"}
        await stack.service("stand-in", secret="", inject=how, methods=["POST"], paths=["/oauth/token"])
        token = await stack.agent("stand-in", "stand-in")
        reply = await stack.get(token, "/oauth/token", method="POST", body=b"client_secret=x&grant_type=y")
        assert json.loads(reply.body)["access_token"] == "keyhole-placeholder-token"
        assert not stack.upstream.requests
        [record] = [r for r in await stack.records(service="stand-in") if r["phase"] == "outcome"]
        assert record["result"] == "ok"
        await stack.ask("delete", "services/stand-in")

    run(go())


def test_service_without_a_secret_lets_a_call_through_as_it_is(stack: Stack, run) -> None:
    async def go() -> None:
        await stack.service("docs", secret="", inject={"kind": "none"}, paths=["/docs/**"])
        token = await stack.agent("docs", "docs")
        assert (await stack.get(token, "/docs/a", headers=b"Authorization: Bearer own\r\n")).status == 200
        assert stack.upstream.last.values(b"authorization") == [b"Bearer own"]
        assert (await stack.get(token, "/other")).code == "policy_denied"
        await stack.ask("delete", "services/docs")

    run(go())


def mutual() -> ssl.SSLContext:
    """A server's side that wants a certificate of the tests' CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(HOST, key_type=trustme.KeyType.ECDSA).configure_cert(context)
    authority().configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_pem(name: str) -> str:
    made = authority().issue_cert(name, key_type=trustme.KeyType.ECDSA)
    return b"".join([*(blob.bytes() for blob in made.cert_chain_pems), made.private_key_pem.bytes()]).decode()


def test_client_certificate_is_shown_and_lies_in_no_file(stack: Stack, run) -> None:
    written: list[str] = []
    watching = [True]

    def watch(event: str, arguments: tuple) -> None:
        if watching and event == "open" and isinstance(arguments[0], str) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            written.append(arguments[0])

    async def go() -> None:
        names: list[str | None] = []

        async def say(_request: Received, writer: asyncio.StreamWriter) -> None:
            shown = writer.get_extra_info("peercert")
            names.append(dict(shown["subjectAltName"]).get("DNS") if shown else None)
            writer.write(OK)

        stack.upstream.say = say
        port = await stack.listen(stack.upstream, mutual())
        hosts = [f"{HOST}:{port}"]
        await stack.secret("bank/client", client_pem("client.bank.test"))
        await stack.secret("bank/key", "api-key-beside-the-certificate")
        await stack.service("bank", hosts=hosts, secret="bank/client", inject={"kind": "mtls"})
        token = await stack.agent("bank", "bank")
        sys.addaudithook(watch)
        for _ in range(2):
            assert (await stack.get(token, port=port)).status == 200
        watching.clear()
        assert names == ["client.bank.test"] * 2
        assert not [path for path in written if "/proc/self/fd" not in path]
        await stack.service("bank", hosts=hosts, secret="bank/key", certificate="bank/client")
        assert (await stack.get(token, port=port)).status == 200
        assert stack.upstream.last.values(b"authorization") == [b"Bearer api-key-beside-the-certificate"]
        await stack.secret("bank/client", client_pem("renewed.bank.test"))
        assert (await stack.get(token, port=port)).status == 200
        assert names[-1] == "renewed.bank.test"
        [intent] = [r for r in await stack.records(service="bank") if r["phase"] == "intent"][-1:]
        assert list(intent["secrets"]) == ["bank/client", "bank/key"]
        await stack.secret("bank/client", "no certificate at all")
        refused = await stack.get(token, port=port)
        assert refused.code == "invalid_request"
        assert b"certificate with its key" in refused.body
        await stack.ask("delete", "services/bank")

    run(go())


def test_upstream_that_wants_a_certificate_says_so_when_none_is_bound(stack: Stack, run) -> None:
    async def go() -> None:
        port = await stack.listen(stack.upstream, mutual())
        await stack.service("bare", hosts=[f"{HOST}:{port}"], secret="bank/key")
        token = await stack.agent("bare", "bare")
        assert (await stack.get(token, port=port)).status == 502
        await stack.ask("delete", "services/bare")

    run(go())


def test_certificate_in_fields_of_their_own(stack: Stack, run) -> None:
    async def go() -> None:
        port = await stack.listen(stack.upstream, mutual())
        made = authority().issue_cert("fields.bank.test", key_type=trustme.KeyType.ECDSA)
        chain = b"".join(blob.bytes() for blob in made.cert_chain_pems).decode()
        pair = {"certificate": chain, "private_key": made.private_key_pem.bytes().decode()}
        await stack.secret("bank/pair", pair)
        await stack.service("pair", hosts=[f"{HOST}:{port}"], secret="bank/pair", inject={"kind": "mtls"})
        token = await stack.agent("pair", "pair")
        assert (await stack.get(token, port=port)).status == 200
        await stack.ask("delete", "services/pair")

    run(go())


def test_nothing_is_minted_for_a_call_that_waits_or_is_refused(stack: Stack, run) -> None:
    async def go() -> None:
        endpoint = Endpoint()
        name, token = await service(stack, endpoint)
        bound = await stack.ask("read", f"services/{name}")
        checks = {"approval": {"required": True}, "conditions": {"query": {"a": ["b"]}}, "limits": {"count": "1/52w"}}
        await stack.ask("update", f"services/{name}", {**bound, **checks})
        connections = len(stack.upstream.raw)
        refused = await stack.get(token, "/v1/x")
        waits = await stack.get(token, "/v1/x?a=b")
        request_id = json.loads(waits.body)["error"]["hint"].split()[2].rstrip(",")
        assert [refused.code, waits.code] == ["policy_denied", "approval_required"]
        assert (endpoint.minted, len(stack.upstream.raw)) == (0, connections)
        await stack.ask("update", f"approvals/requests/{request_id}/approve")
        assert (await stack.get(token, "/v1/x?a=b")).status == 200
        assert endpoint.minted == 1

    run(go())


def test_token_for_one_host_is_not_sent_to_another_that_wants_its_own(stack: Stack, run) -> None:
    async def say(request: Received, writer: asyncio.StreamWriter) -> None:
        if request.target.endswith(b"/token"):
            [scope] = parse_qs(request.body.decode())["scope"]
            writer.write(answer({"access_token": f"token-for-{scope.split('/')[2]}", "expires_in": 3600}))
        else:
            writer.write(OK)

    async def go() -> None:
        stack.upstream.say = say
        await stack.secret("entra/key", SECRET)
        how = {"kind": "azure", "tenant": "t.example", "client_id": "app", "login": f"https://b.test:{stack.secure}/"}
        await stack.service(
            "entra", secret="entra/key", inject=how, hosts=[f"a.test:{stack.secure}", f"c.test:{stack.secure}"]
        )
        token = await stack.agent("entra", "entra")
        for host in ("a.test", "c.test", "a.test"):
            assert (await stack.get(token, host=host)).status == 200
            assert stack.upstream.last.values(b"authorization") == [f"Bearer token-for-{host}".encode()]
        assert sum(request.target.endswith(b"/token") for request in stack.upstream.requests) == 2
        await stack.ask("delete", "services/entra")

    run(go())
