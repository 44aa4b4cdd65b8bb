"""Approval by a person: for one digest, one agent, one use; and nothing is lent before it."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import pytest

from broker.stack import HOST, SECRET, Reply, Stack, reset, until
from keyhole.core.errors import Conflict, KeyholeError, NotFound, PolicyDenied
from keyhole.vault import approvals as stored

_numbers = itertools.count()
JSON = b"Content-Type: application/json\r\n"
REQUIRED = {"required": True}
BODY = b'{"amount": 4200, "note": "canary-of-the-body", "to": {"iban": "DE00"}}'


async def begin(stack: Stack, approval: Any = None, **fields: Any) -> tuple[str, str]:
    """A new agent with one service at a path of its own that wants approvals; its name and token."""
    name = f"p{next(_numbers)}"
    await stack.secret(f"{name}/key")
    given = {"secret": f"{name}/key", "paths": [f"/{name}/**"], "approval": approval or REQUIRED}
    await stack.service(name, **{**given, **fields})
    return name, await stack.agent(name, name)


async def post(stack: Stack, token: str, path: str, body: bytes = BODY, headers: bytes = JSON, **more: Any) -> Reply:
    return await stack.get(token, path, method="POST", headers=headers, body=body, **more)


async def waiting(stack: Stack, name: str = "") -> list[dict[str, Any]]:
    try:
        found = (await stack.ask("list", "approvals/requests"))["key_info"].values()
    except NotFound:
        return []
    return [each for each in found if not name or each["agent"] == f"agent/{name}"]


async def approve(stack: Stack, request_id: str, token: bytes | str = b"root", **fields: Any) -> dict[str, Any]:
    return await stack.ask("update", f"approvals/requests/{request_id}/approve", fields, token)


async def records(stack: Stack, name: str) -> list[dict[str, Any]]:
    found = (await stack.ask("read", "sys/audit-log", {"limit": 1000, "agent": name}))["records"]
    return sorted(found, key=lambda record: (record["time"], record["sequence"]))


def shape(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(str(record["phase"]), record["operation"]) for record in found]


def id_of(reply: Reply) -> str:
    """The id that the refusal names."""
    assert reply.code == "approval_required", reply.raw
    assert reply.status == 403
    return json.loads(reply.body)["error"]["hint"].split()[2].rstrip(",")


def test_a_request_waits_is_approved_and_made_once(stack: Stack, run) -> None:
    async def ask() -> tuple[Reply, list[Any], Reply, Reply, list[Any], str]:
        name, token = await begin(stack)
        before = len(stack.upstream.raw)
        first = await post(stack, token, f"/{name}/pay?x=1")
        assert not stack.upstream.requests
        assert len(stack.upstream.raw) == before, "no connection was made"
        early = await records(stack, name)
        await approve(stack, id_of(first))
        second = await post(stack, token, f"/{name}/pay?x=1")
        third = await post(stack, token, f"/{name}/pay?x=1")
        return first, early, second, third, await records(stack, name), name

    first, early, second, third, found, name = run(ask())
    assert shape(early) == [("event", "approval"), ("refused", "use")], "nothing was intended, so nothing was lent"
    assert {record["approval"] for record in early} == {id_of(first)}
    assert second.status == 200
    assert [request.body for request in stack.upstream.requests] == [BODY]
    assert stack.upstream.last.values(b"authorization") == [b"Bearer " + SECRET.encode()]
    assert id_of(third) != id_of(first), "an approval is used up by its use"
    assert [(str(r["phase"]), r.get("approval")) for r in found[2:4]] == [
        ("intent", id_of(first)),
        ("outcome", id_of(first)),
    ]
    assert found[0]["path"] == f"approvals/requests/{id_of(first)}"
    assert found[0]["service"] == name


@pytest.mark.parametrize(
    "change",
    [
        {"path": "/pay?x=2"},
        {"path": "/pay"},
        {"path": "/pay/?x=1"},
        {"method": "PUT"},
        {"body": BODY.replace(b"4200", b"4201")},
        {"body": BODY + b" "},
        {"body": b""},
        {"headers": JSON + b"X-Account: other\r\n"},
        {"headers": b"Content-Type: text/plain\r\n"},
        {"host": "b.test"},
    ],
)
def test_an_approval_is_good_for_exactly_the_request_that_was_seen(stack: Stack, run, change: dict[str, Any]) -> None:
    async def ask() -> tuple[Reply, Reply]:
        hosts = [f"{HOST}:{stack.secure}", f"b.test:{stack.secure}"]
        name, token = await begin(stack, hosts=hosts)
        asked = {"path": "/pay?x=1", "method": "POST", "headers": JSON, "body": BODY}
        await approve(stack, id_of(await stack.get(token, f"/{name}{asked['path']}", **_rest(asked))))
        other = {**asked, **change}
        return (
            await stack.get(token, f"/{name}{other['path']}", **_rest(other)),
            await stack.get(token, f"/{name}{asked['path']}", **_rest(asked)),
        )

    other, same = run(ask())
    assert other.code == "approval_required"
    assert same.status == 200, "the approval was not spent on another request"
    assert len(stack.upstream.requests) == 1


def _rest(asked: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in asked.items() if key != "path"}


def test_what_clients_make_anew_for_each_attempt_does_not_count(stack: Stack, run) -> None:
    async def ask() -> Reply:
        name, token = await begin(stack)
        first = await post(stack, token, f"/{name}/pay", headers=JSON + b"Idempotency-Key: a\r\nDate: x\r\n")
        await approve(stack, id_of(first))
        return await post(stack, token, f"/{name}/pay", headers=JSON + b"Idempotency-Key: b\r\nTraceparent: 0\r\n")

    assert run(ask()).status == 200


def test_of_fifty_uses_of_one_approval_one_is_made(stack: Stack, run) -> None:
    async def ask() -> list[Reply]:
        name, token = await begin(stack, limits={"count": "5/52w"})
        await approve(stack, id_of(await post(stack, token, f"/{name}/pay")))
        replies = await asyncio.gather(*(post(stack, token, f"/{name}/pay") for _ in range(50)))
        assert len(stack.upstream.requests) == 1
        for _ in range(4):  # those that lost were not counted
            await approve(stack, id_of(await post(stack, token, f"/{name}/pay")))
            assert (await post(stack, token, f"/{name}/pay")).status == 200
        return list(replies)

    replies = run(ask())
    assert sorted(reply.status for reply in replies) == [200] + [403] * 49
    assert {reply.code for reply in replies if reply.status == 403} == {"approval_required"}


def test_a_call_that_loses_its_approval_to_another_one_is_not_counted(stack: Stack, run, monkeypatch) -> None:
    async def ask() -> tuple[Reply, Reply]:
        name, token = await begin(stack, limits={"count": "1/52w", "concurrent": 1})
        await approve(stack, id_of(await post(stack, token, f"/{name}/pay")))
        with monkeypatch.context() as patch:

            async def taken_before(*which: Any) -> None:
                await take(*which)
                raise Conflict("somebody else was first")

            take = stored.take
            patch.setattr(stored, "take", taken_before)
            lost = await post(stack, token, f"/{name}/pay")
        await approve(stack, id_of(await post(stack, token, f"/{name}/pay")))
        return lost, await post(stack, token, f"/{name}/pay")

    lost, made = run(ask())
    assert lost.code == "approval_required"
    assert "used up" in json.loads(lost.body)["error"]["reason"]
    assert made.status == 200
    assert len(stack.upstream.requests) == 1


def test_the_same_request_asks_once_however_often_it_is_sent(stack: Stack, run) -> None:
    async def ask() -> tuple[set[str], list[dict[str, Any]]]:
        name, token = await begin(stack)
        replies = await asyncio.gather(*(post(stack, token, f"/{name}/pay") for _ in range(8)))
        return {id_of(reply) for reply in replies}, await waiting(stack, name)

    ids, found = run(ask())
    assert len(ids) == len(found) == 1


def test_an_approver_sees_names_and_digests_and_no_value(stack: Stack, run) -> None:
    async def ask() -> tuple[dict[str, Any], str]:
        name, token = await begin(stack)
        await post(stack, token, f"/{name}/pay?card=canary-of-the-query")
        [found] = await waiting(stack, name)
        return await stack.ask("read", f"approvals/requests/{found['id']}"), name

    found, name = run(ask())
    assert "canary" not in json.dumps(found)
    assert found["shape"] == ["/amount", "/note", "/to", "/to/iban"]
    assert (found["method"], found["target"], found["parameters"]) == ("POST", f"/{name}/pay", ["card"])
    assert (found["size"], found["content_type"], found["agent"]) == (len(BODY), "application/json", f"agent/{name}")
    assert len(found["digest"]) == len(found["body_sha256"]) == 64


def test_another_login_of_who_asked_cannot_approve_it(stack: Stack, run) -> None:
    async def ask() -> tuple[int, str]:
        name, token = await begin(stack)
        request_id = id_of(await post(stack, token, f"/{name}/pay"))
        own = (await stack.ask("read", "auth/token/lookup-self", token=token))["entity_id"]
        policy = 'path "approvals/requests/+/approve" { capabilities = ["create", "update"] }'
        await stack.ask("update", "sys/policies/acl/approver", {"policy": policy})
        role = {"allowed_policies": ["approver"], "allowed_entity_aliases": ["boss"]}
        await stack.ask("update", "auth/token/roles/boss", role)
        boss = await stack.ask("update", "auth/token/create/boss", {"entity_alias": "boss"})
        merge = {"from_entity_ids": [boss["entity_id"]], "to_entity_id": own}
        await stack.ask("update", "identity/entity/merge", merge)
        with pytest.raises(PolicyDenied):
            await approve(stack, request_id, boss["client_token"])
        await approve(stack, request_id)
        return (await post(stack, token, f"/{name}/pay")).status, own

    status, own = run(ask())
    assert (status, bool(own)) == (200, True)


def test_an_approver_sees_the_body_where_the_service_says_so(stack: Stack, run) -> None:
    async def ask() -> list[dict[str, Any]]:
        name, token = await begin(stack, {"preview": True})
        await post(stack, token, f"/{name}/pay")
        return await waiting(stack, name)

    assert "canary-of-the-body" in run(ask())[0]["preview"]


def test_a_denied_request_stays_denied_and_another_one_asks_anew(stack: Stack, run) -> None:
    async def ask() -> tuple[Reply, Reply, list[Any]]:
        name, token = await begin(stack)
        request_id = id_of(await post(stack, token, f"/{name}/pay"))
        await stack.ask("update", f"approvals/requests/{request_id}/deny", {})
        again = await post(stack, token, f"/{name}/pay")
        return again, await post(stack, token, f"/{name}/pay", b"{}"), await records(stack, name)

    again, other, found = run(ask())
    assert again.code == "policy_denied"
    assert "denied this request" in json.loads(again.body)["error"]["reason"]
    assert other.code == "approval_required"
    assert not any(str(record["phase"]) == "intent" for record in found)
    assert not stack.upstream.requests


def test_only_the_requests_that_an_approval_is_for_wait(stack: Stack, run) -> None:
    approval = {"for": [{"methods": ["POST"], "paths": ["/*/pay", "/*/refund"]}]}

    async def ask() -> list[str]:
        name, token = await begin(stack, approval)
        return [
            (await stack.get(token, f"/{name}/pay")).code,
            (await post(stack, token, f"/{name}/quote")).code,
            (await post(stack, token, f"/{name}/pay")).code,
            (await post(stack, token, f"/{name}/Pay/")).code,
        ]

    assert run(ask()) == ["", "", "approval_required", "approval_required"]


def test_conditions_refuse_before_anybody_is_asked(stack: Stack, run) -> None:
    async def ask() -> tuple[Reply, list[dict[str, Any]]]:
        name, token = await begin(stack, conditions={"body": [{"at": "/amount", "max": 100}]})
        return await post(stack, token, f"/{name}/pay"), await waiting(stack, name)

    reply, found = run(ask())
    assert reply.code == "policy_denied"
    assert not found


def test_a_more_specific_service_is_no_way_around_an_approval(stack: Stack, run) -> None:
    async def ask() -> list[Reply]:
        name, _ = await begin(stack)
        more = {"paths": [f"/{name}/pay"], "methods": ["POST"]}
        await stack.service(f"{name}-same", secret=f"{name}/key", **more)
        await stack.secret(f"{name}/other")
        await stack.service(f"{name}-other", secret=f"{name}/other", **more)
        both = await stack.agent(name, f"{name}-same")
        named = await post(
            stack, both, f"/{name}/pay", headers=JSON + b"X-Keyhole-Service: %b-same\r\n" % name.encode()
        )
        alone = await stack.agent(f"{name}-b", f"{name}-same")
        other = await stack.agent(f"{name}-c", name, f"{name}-other")
        return [
            await post(stack, both, f"/{name}/pay"),
            named,
            await post(stack, alone, f"/{name}/pay"),
            await post(stack, other, f"/{name}/pay"),
        ]

    codes = [reply.code for reply in run(ask())]
    # Who was granted only the service without approval, or one with another secret, was granted that.
    assert codes == ["approval_required", "approval_required", "", ""]


def test_nobody_approves_their_own_request(stack: Stack, run) -> None:
    policy = 'path "approvals/*" { capabilities = ["read", "list", "update", "delete"] }\n'
    policy += 'path "auth/token/create" { capabilities = ["update"] }\n'

    async def ask() -> list[str]:
        name, token = await begin(stack)
        text = policy + f'path "services/{name}" {{ capabilities = ["use"] }}'
        await stack.ask("update", f"sys/policies/acl/agent/{name}", {"policy": text})
        token = str((await stack.ask("update", f"agents/{name}/token", {}))["token"])
        proxy = str((await stack.ask("update", f"agents/{name}/token", {"scope": "proxy"}))["token"])
        request_id = id_of(await post(stack, token, f"/{name}/pay"))
        made = (await stack.ask("update", "auth/token/create", {"display_name": "me"}, token))["client_token"]
        outcomes = []
        for who in (token, made, proxy):
            for fields in ({}, {"for": "1h", "kind": "path"}):
                try:
                    await approve(stack, request_id, who, **fields)
                except PolicyDenied as error:
                    outcomes.append(error.code)
        assert (await post(stack, token, f"/{name}/pay")).code == "approval_required"
        await stack.agent(f"{name}-boss")
        await stack.ask("update", f"sys/policies/acl/agent/{name}-boss", {"policy": policy})
        boss = str((await stack.ask("update", f"agents/{name}-boss/token", {}))["token"])
        await approve(stack, request_id, boss)
        outcomes.append((await post(stack, token, f"/{name}/pay")).code)
        return outcomes

    assert run(ask()) == ["policy_denied"] * 6 + [""]


def test_an_approval_of_one_agent_is_none_of_another(stack: Stack, run) -> None:
    async def ask() -> list[str]:
        name, token = await begin(stack)
        other = await stack.agent(f"{name}-b", name)
        await approve(stack, id_of(await post(stack, token, f"/{name}/pay")), **{"for": "1h", "kind": "path"})
        return [(await post(stack, each, f"/{name}/pay")).code for each in (other, token, token)]

    assert run(ask()) == ["approval_required", "", ""]


@pytest.mark.parametrize(
    ("kind", "codes"),
    [
        ("exact", ["", "approval_required", "approval_required", "approval_required", "approval_required"]),
        ("target", ["", "", "approval_required", "approval_required", "approval_required"]),
        ("path", ["", "", "", "approval_required", "approval_required"]),
    ],
)
def test_a_standing_approval_reaches_as_far_as_it_says(stack: Stack, run, kind: str, codes: list[str]) -> None:
    async def ask() -> tuple[list[str], list[str], str]:
        name, token = await begin(stack)
        request_id = id_of(await post(stack, token, f"/{name}/pay?x=1"))
        rule = await approve(stack, request_id, **{"for": "1h", "kind": kind})
        assert not await waiting(stack, name)
        sent = [
            await post(stack, token, f"/{name}/pay?x=1"),
            await post(stack, token, f"/{name}/pay?x=1", b"{}", b"X-Other: 1\r\n"),
            await post(stack, token, f"/{name}/pay?x=2"),
            await post(stack, token, f"/{name}/pay/more?x=1"),
            await stack.get(token, f"/{name}/pay?x=1"),
        ]
        listed = (await stack.ask("list", "approvals/standing"))["key_info"][rule["id"]]
        assert (listed["kind"], listed["agent"], listed["by"]) == (kind, f"agent/{name}", "user/root")
        again = await post(stack, token, f"/{name}/pay?x=1")
        await stack.ask("delete", f"approvals/standing/{rule['id']}")
        gone = await post(stack, token, f"/{name}/pay?x=1")
        used = [record.get("approval") for record in await records(stack, name) if str(record["phase"]) == "intent"]
        assert set(used) == {rule["id"]}
        return [reply.code for reply in sent], [again.code, gone.code], kind

    found, after, _ = run(ask())
    assert found == codes
    assert after == ["", "approval_required"]


def test_a_standing_approval_of_more_than_one_request_needs_an_end(stack: Stack, run) -> None:
    async def ask(**fields: Any) -> None:
        name, token = await begin(stack)
        await approve(stack, id_of(await post(stack, token, f"/{name}/pay")), **fields)

    for fields in ({"kind": "path"}, {"kind": "all", "for": "1h"}, {"for": "31d"}, {"for": "soon"}):
        with pytest.raises(KeyholeError) as caught:
            run(ask(**fields))
        assert caught.value.code == "invalid_request"


def test_a_held_call_goes_on_when_it_is_approved(stack: Stack, run) -> None:
    async def ask() -> tuple[Reply, list[Any]]:
        name, token = await begin(stack, {"wait": 60})
        call = asyncio.create_task(post(stack, token, f"/{name}/pay"))
        [found] = await _until_waiting(stack, name)
        assert not stack.upstream.requests
        await approve(stack, found["id"])
        return await call, await records(stack, name)

    reply, found = run(ask())
    assert reply.status == 200
    assert stack.upstream.last.body == BODY
    assert shape(found) == [("event", "approval"), ("intent", "use"), ("outcome", "use")]


@pytest.mark.parametrize("how", ["denied", "revoked", "taken back", "service changed"])
def test_a_held_call_ends_when_there_is_nothing_to_wait_for(stack: Stack, run, how: str) -> None:
    async def ask() -> tuple[Reply, list[Any]]:
        name, token = await begin(stack, {"wait": 60})
        call = asyncio.create_task(post(stack, token, f"/{name}/pay"))
        [found] = await _until_waiting(stack, name)
        if how == "denied":
            await stack.ask("update", f"approvals/requests/{found['id']}/deny", {})
        elif how == "revoked":
            await stack.ask("update", f"agents/{name}/revoke", {})
        elif how == "taken back":
            await stack.ask("delete", f"agents/{name}/services/{name}")
        else:
            await stack.service(name, secret=f"{name}/key", paths=[f"/{name}/**"], approval={"wait": 59})
        return await call, await records(stack, name)

    reply, found = run(ask())
    assert reply.code == ("unauthenticated" if how == "revoked" else "policy_denied")
    assert shape(found) == [("event", "approval"), ("refused", "use")]
    assert not stack.upstream.requests


def test_a_held_call_is_refused_when_its_time_is_over(stack: Stack, run) -> None:
    async def ask() -> Reply:
        name, token = await begin(stack, {"wait": 1})
        return await post(stack, token, f"/{name}/pay")

    id_of(run(ask()))


def test_a_client_that_hangs_up_waits_no_longer_and_may_come_again(stack: Stack, run) -> None:
    async def ask() -> Reply:
        name, token = await begin(stack, {"wait": 600})
        _, writer = await stack.tunnel(token)
        head = f"POST /{name}/pay HTTP/1.1\r\nHost: {HOST}:{stack.secure}\r\nContent-Length: {len(BODY)}\r\n".encode()
        before = len(asyncio.all_tasks())
        writer.write(head + JSON + b"\r\n" + BODY)
        [found] = await _until_waiting(stack, name)
        reset(writer)
        await until(lambda: len(asyncio.all_tasks()) < before)
        assert not stack.upstream.requests
        await approve(stack, found["id"])
        return await post(stack, token, f"/{name}/pay")

    assert run(ask()).status == 200


async def _until_waiting(stack: Stack, name: str) -> list[dict[str, Any]]:
    async with asyncio.timeout(60):
        while True:
            if found := await waiting(stack, name):
                return found
            await asyncio.sleep(0.01)


def test_a_body_that_is_too_large_to_be_held_is_refused(stack: Stack, run) -> None:
    async def ask() -> tuple[Reply, list[dict[str, Any]]]:
        name, token = await begin(stack)
        return await post(stack, token, f"/{name}/pay", bytes(1024 * 1024 + 1)), await waiting(stack, name)

    reply, found = run(ask())
    assert reply.code == "body_too_large"
    assert not found


def test_an_agent_cannot_fill_the_desk(stack: Stack, run) -> None:
    async def ask() -> list[str]:
        name, token = await begin(stack)
        streams = await stack.tunnel(token)
        return [(await stack.send(streams, f"/{name}/pay?{number}")).code for number in range(101)]

    codes = run(ask())
    assert codes == ["approval_required"] * 100 + ["rate_limited"]


def test_a_compressed_body_is_approved_by_its_digest(stack: Stack, run) -> None:
    async def ask() -> tuple[dict[str, Any], Reply]:
        name, token = await begin(stack)
        headers = JSON + b"Content-Encoding: gzip\r\n"
        first = await post(stack, token, f"/{name}/pay", b"\x1f\x8b anything", headers)
        [found] = await waiting(stack, name)
        await approve(stack, id_of(first))
        return found, await post(stack, token, f"/{name}/pay", b"\x1f\x8b anything", headers)

    found, reply = run(ask())
    assert "shape" not in found
    assert reply.status == 200


def test_other_orgs_neither_see_nor_decide(stack: Stack, run) -> None:
    async def ask() -> None:
        name, token = await begin(stack)
        request_id = id_of(await post(stack, token, f"/{name}/pay"))
        stranger = str((await stack.ask("update", f"sys/namespaces/{name}"))["root_token"])
        with pytest.raises(NotFound):
            await stack.ask("list", "approvals/requests", {}, stranger)
        with pytest.raises(NotFound):
            await approve(stack, request_id, stranger)

    run(ask())


def test_nothing_goes_over_a_websocket_that_nobody_could_approve(stack: Stack, run) -> None:
    async def ask() -> Reply:
        name, token = await begin(stack)
        upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        return await stack.get(
            token, f"/{name}/ws", headers=upgrade + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        )

    assert run(ask()).code == "policy_denied"


def test_why_says_that_a_person_is_asked(stack: Stack, run) -> None:
    async def ask() -> dict[str, Any]:
        name, token = await begin(stack, {"wait": 30, "for": [{"methods": ["POST"]}]})
        url = f"https://{HOST}:{stack.secure}/{name}/pay"
        return await stack.ask("update", "sys/why", {"method": "POST", "url": url}, token)

    assert run(ask())["checks"] == ["approval by a person: POST, held for 30 s"]
