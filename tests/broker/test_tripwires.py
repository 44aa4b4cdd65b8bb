"""What must not leave is stopped, recorded and raises an alarm: placeholders out of place, and values anywhere."""

from __future__ import annotations

import asyncio
import base64
import gzip
import itertools
import json
from typing import Any
from urllib.parse import quote

import pytest

from broker.stack import HOST, SECRET, Stack, reset, until
from keyhole.broker import tripwires, watched
from keyhole.core.errors import AuditUnavailable, InvalidRequest
from keyhole.core.value import Secret
from keyhole.vault.sys import agents
from keyhole.vault.vault import Vault

_numbers = itertools.count()
STATIC = "ghp_keyholeabcdefghijklmnopqrstuvwxyz012"
OTHER = "c.test"


async def service(stack: Stack, **more: Any) -> str:
    name = f"t{next(_numbers)}"
    await stack.secret(f"{name}/key", more.pop("value", f"{SECRET}-{name}"))
    await stack.service(name, secret=f"{name}/key", placeholder=STATIC, **more)
    return name


async def session(stack: Stack, name: str, *services: str) -> tuple[str, dict[str, str]]:
    """A token with placeholders of its own; by service."""
    await stack.ask("update", f"agents/{name}", {})
    for each in services:
        await stack.ask("update", f"agents/{name}/services/{each}", {})
    made = await stack.ask("update", f"agents/{name}/token", {"scope": "proxy", "placeholders": True})
    return str(made["token"]), {each: made["placeholders"][each][STATIC] for each in services}


async def alarms(stack: Stack) -> list[str]:
    found = (await stack.ask("read", "sys/audit-log", {"limit": 1000, "operation": "alarm"}))["records"]
    return [record["result"] for record in found]


async def clear(stack: Stack, *names: str) -> None:
    for name in names:
        await stack.ask("delete", f"services/{name}")


def test_placeholder_of_the_session_is_taken_out_and_the_call_made(stack: Stack, run) -> None:
    async def go() -> None:
        name = await service(stack)
        token, own = await session(stack, name, name)
        assert own[name] != STATIC
        before = await alarms(stack)
        for line in (
            f"Authorization: Bearer {own[name]}\r\n".encode(),
            b"Authorization: Basic " + base64.b64encode(b"u:" + own[name].encode()) + b"\r\n",
            b"",
        ):
            assert (await stack.get(token, headers=line)).status == 200
            assert stack.upstream.last.values(b"authorization") == [f"Bearer {SECRET}-{name}".encode()]
        assert own[name].encode() not in stack.upstream.received
        assert await alarms(stack) == before
        await clear(stack, name)

    run(go())


def test_placeholder_kind_replaces_the_session_s_text_and_no_other(stack: Stack, run) -> None:
    async def go() -> None:
        name = await service(stack, inject={"kind": "placeholder", "text": STATIC})
        token, own = await session(stack, name, name)
        assert (await stack.get(token, headers=f"X-Key: {own[name]}\r\n".encode())).status == 200
        assert stack.upstream.last.values(b"x-key") == [f"{SECRET}-{name}".encode()]
        assert (await stack.get(token, headers=f"X-Key: {STATIC}\r\n".encode())).status == 200
        assert stack.upstream.last.values(b"x-key") == [STATIC.encode()]
        await clear(stack, name)

    run(go())


async def stopped(stack: Stack, token: str, **request: Any) -> None:
    """The request is refused, recorded, alarmed, and nothing of it went upstream."""
    before = len(await alarms(stack))
    stack.upstream.forget()
    reply = await stack.get(token, **request)
    assert (reply.status, reply.code) == (403, "policy_denied"), reply.raw
    assert not stack.upstream.requests
    assert len(await alarms(stack)) == before + 1
    refused = [r for r in await stack.records() if r["phase"] == "refused"]
    assert refused[-1]["rule"] == "tripwire"


def test_placeholder_of_another_service_or_session_is_stopped(stack: Stack, run) -> None:
    async def go() -> None:
        one, two = await service(stack), await service(stack, hosts=[f"{OTHER}:{stack.secure}"])
        token, own = await session(stack, one, one, two)
        _, foreign = await session(stack, two, one, two)
        for text in (own[two], foreign[one], foreign[two]):
            await stopped(stack, token, headers=f"Authorization: Bearer {text}\r\n".encode())
        await stopped(stack, token, path=f"/v1/x?note={own[two]}")
        basic = base64.b64encode(b"user:" + own[two].encode())
        await stopped(stack, token, headers=b"Authorization: Basic " + basic + b"\r\n")
        await clear(stack, one, two)

    run(go())


def test_services_of_one_secret_take_one_another_s_placeholder(stack: Stack, run) -> None:
    async def go() -> None:
        api = await service(stack)
        git = f"t{next(_numbers)}"
        await stack.service(
            git,
            secret=f"{api}/key",
            placeholder=STATIC,
            hosts=[f"{OTHER}:{stack.secure}"],
            inject={"kind": "basic", "user": "x"},
        )
        token, own = await session(stack, git, api, git)
        line = b"Authorization: Basic " + base64.b64encode(own[api].encode() + b":") + b"\r\n"
        assert (await stack.get(token, host=OTHER, headers=line)).status == 200
        expected = b"Basic " + base64.b64encode(f"x:{SECRET}-{api}".encode())
        assert stack.upstream.last.values(b"authorization") == [expected]
        await clear(stack, api, git)

    run(go())


def test_a_token_from_a_stand_in_may_be_shown_to_the_services_that_it_is_for(stack: Stack, run) -> None:
    async def go() -> None:
        name, login = await service(stack), f"t{next(_numbers)}"
        how = {"kind": "stand-in", "text": STATIC}
        await stack.service(
            login, secret="", hosts=[f"{OTHER}:{stack.secure}"], inject=how, methods=["POST"], paths=["/token"]
        )
        token, _ = await session(stack, login, name, login)
        given = json.loads((await stack.get(token, "/token", host=OTHER, method="POST", body=b"x")).body)
        line = f"Authorization: Bearer {given['access_token']}\r\n".encode()
        assert (await stack.get(token, headers=line)).status == 200
        assert stack.upstream.last.values(b"authorization") == [f"Bearer {SECRET}-{name}".encode()]
        await clear(stack, name, login)

    run(go())


def test_placeholder_in_a_place_where_its_service_attaches_nothing_is_stopped(stack: Stack, run) -> None:
    async def go() -> None:
        name = await service(stack)
        token, own = await session(stack, name, name)
        await stopped(stack, token, path=f"/v1/{own[name]}")
        before = len(await alarms(stack))
        body = b'{"issue": "my key is %b, keep it"}' % own[name].encode()
        reply = await stack.get(token, method="POST", body=body)
        assert reply.code == "policy_denied"
        assert own[name].encode() not in stack.upstream.received
        assert len(await alarms(stack)) == before + 1
        outcome = [r for r in await stack.records(service=name) if r["phase"] == "outcome"][-1]
        assert outcome["result"] == "policy_denied"
        await clear(stack, name)

    run(go())


@pytest.mark.parametrize(
    "form",
    [
        lambda value: value,
        lambda value: base64.b64encode(value.encode()).decode(),
        lambda value: value.encode().hex(),
        lambda value: "".join(f"%{byte:02x}" for byte in value.encode()),
        lambda value: base64.urlsafe_b64encode(b"x" + value.encode()).decode(),
    ],
)
def test_value_of_a_secret_is_stopped_in_every_place_and_form(stack: Stack, run, form) -> None:
    async def go() -> None:
        name = await service(stack)
        other = await service(stack, hosts=[f"{OTHER}:{stack.secure}"], value="other-secret/value+of=the-org-77")
        token, _ = await session(stack, name, name)
        text = form("other-secret/value+of=the-org-77")
        await stopped(stack, token, headers=f"X-Note: {text}\r\n".encode())
        await stopped(stack, token, path=f"/v1/x?q={quote(text)}")
        await clear(stack, name, other)

    run(go())


@pytest.mark.parametrize("encoded", [False, True])
def test_value_in_a_body_never_leaves_as_a_whole(stack: Stack, run, encoded: bool) -> None:
    async def go() -> None:
        value = "value-in-a-body/0123456789abcdef"
        name = await service(stack, value=value)
        token, _ = await session(stack, name, name)
        before = len(await alarms(stack))
        body = b"x" * 70_000 + value.encode() + b"y" * 70_000
        headers = b""
        if encoded:
            body, headers = gzip.compress(body), b"Content-Encoding: gzip\r\n"
        reply = await stack.get(token, method="POST", body=body, headers=headers)
        assert reply.code == "policy_denied"
        assert value.encode() not in stack.upstream.received.replace(b"Authorization: Bearer " + value.encode(), b"")
        assert len(await alarms(stack)) == before + 1
        await clear(stack, name)

    run(go())


@pytest.mark.parametrize("headers", [b"", b"Content-Encoding: gzip\r\n", b"Content-Encoding: x-unknown\r\n"])
def test_clean_bodies_pass_byte_for_byte(stack: Stack, run, headers: bytes) -> None:
    async def go() -> None:
        name = await service(stack)
        token, _ = await session(stack, name, name)
        for body in (bytes(range(256)) * 300, gzip.compress(bytes(range(256)) * 300), b"{", b"keyhole" * 40):
            assert (await stack.get(token, method="POST", body=body, headers=headers)).status == 200
            assert stack.upstream.last.body == body
        await clear(stack, name)

    run(go())


def test_own_value_in_the_header_of_its_service_is_replaced_by_itself(stack: Stack, run) -> None:
    async def go() -> None:
        name = await service(stack)
        token, _ = await session(stack, name, name)
        value = f"{SECRET}-{name}"
        assert (await stack.get(token, headers=f"Authorization: Bearer {value}\r\n".encode())).status == 200
        await stopped(stack, token, headers=f"X-Copy: {value}\r\n".encode())
        await clear(stack, name)

    run(go())


def test_changed_secret_is_looked_for_after_its_first_loan(stack: Stack, run) -> None:
    async def go() -> None:
        name = await service(stack)
        token, _ = await session(stack, name, name)
        assert (await stack.get(token)).status == 200
        await stack.secret(f"{name}/key", "a-new-value-of-the-secret-88")
        assert (await stack.get(token)).status == 200
        assert (await stack.get(token)).status == 200
        await stopped(stack, token, headers=b"X-Note: a-new-value-of-the-secret-88\r\n")
        await clear(stack, name)

    run(go())


def test_secret_that_many_services_lend_is_opened_once_to_be_looked_for(stack: Stack, run, monkeypatch) -> None:
    async def go() -> None:
        name = await service(stack)
        more = [f"{name}-{number}" for number in range(20)]
        for each in more:
            await stack.service(each, secret=f"{name}/key", hosts=[f"{OTHER}:{stack.secure}"])
        token, _ = await session(stack, name, name)
        opened: list[str] = []
        watched = Vault.watched

        async def counted(vault: Vault, state: Any, each: Any) -> Any:
            opened.append(each.name)
            return await watched(vault, state, each)

        monkeypatch.setattr(Vault, "watched", counted)
        await stopped(stack, token, path=f"/v1/x?note={SECRET}-{name}")
        assert len([each for each in opened if each == name or each in more]) == 1
        own = f"Authorization: Bearer {SECRET}-{name}\r\n".encode()
        assert (await stack.get(token, headers=own)).status == 200
        await clear(stack, name, *more)

    run(go())


def test_org_may_revoke_the_session_or_look_at_nothing(stack: Stack, run) -> None:
    async def go() -> None:
        name = await service(stack)
        token, _ = await session(stack, name, name)
        _, foreign = await session(stack, f"{name}x", name)
        await stack.ask("update", "sys/org", {"tripwire": "off"})
        line = f"X-Note: {foreign[name]}\r\n".encode()
        assert (await stack.get(token, headers=line)).status == 200
        await stack.ask("update", "sys/org", {"tripwire": "revoke"})
        streams = await stack.tunnel(token)
        assert (await stack.send(streams, headers=line)).code == "policy_denied"
        again = await stack.tunnel(await stack.agent(f"{name}y", name))
        assert (await stack.send(again)).status == 200
        reply, _ = await stack.connect(token, f"{HOST}:{stack.secure}")
        assert reply.status == 407
        await stack.ask("update", "sys/org", {"tripwire": "stop"})
        await clear(stack, name)

    run(go())


def test_honey_secret_works_and_raises_an_alarm(stack: Stack, run) -> None:
    async def go() -> None:
        name = await service(stack)
        await stack.ask("update", f"sys/honey/{name}/key")
        token, _ = await session(stack, name, name)
        before = len(await alarms(stack))
        assert (await stack.get(token)).status == 200
        assert len(await alarms(stack)) == before + 1
        read = await stack.ask("read", f"secret/data/{name}/key")
        assert json.loads(read["data"].reveal()) == {"value": f"{SECRET}-{name}"}
        found = await alarms(stack)
        assert len(found) == before + 2
        assert found[-1] == f"the honey secret {name}/key was touched"
        await stack.ask("delete", f"sys/honey/{name}/key")
        assert (await stack.get(token)).status == 200
        assert len(await alarms(stack)) == before + 2
        await clear(stack, name)

    run(go())


def test_record_of_a_value_that_was_stopped_does_not_repeat_it(stack: Stack, run) -> None:
    async def go() -> None:
        name = await service(stack)
        token, _ = await session(stack, name, name)
        value = f"{SECRET}-{name}"
        for path in (f"/v1/{value}", f"/v1/x?{value}=1", f"/v1/x?q={quote(value[:4])}%{ord(value[4]):02x}{value[5:]}"):
            assert (await stack.get(token, path)).code == "policy_denied"
        found = (await stack.ask("read", "sys/audit-log", {"limit": 1000}))["records"]
        assert value[5:] not in json.dumps(found)
        await clear(stack, name)

    run(go())


def test_value_in_a_host_or_in_what_is_said_of_the_work_is_stopped(stack: Stack, run) -> None:
    async def go() -> None:
        value = f"only-small-letters-{next(_numbers)}"
        name = await service(stack, value=value)
        token, _ = await session(stack, name, name)
        before = await alarms(stack)
        assert (await stack.absolute(token, f"http://{value}.evil.test/")).code == "policy_denied"
        for claim in (f"run={value}", f"step=1;tool=%6f{value[1:]}", f"workflow=of-{value}-"):
            assert (await stack.get(token, headers=f"X-Keyhole-Context: {claim}\r\n".encode())).code == "policy_denied"
        assert (await alarms(stack))[len(before) :] == ["value in the host", *["value in the context"] * 3]
        assert value not in json.dumps((await stack.ask("read", "sys/audit-log", {"limit": 1000}))["records"])
        await clear(stack, name)

    run(go())


def test_no_refusal_on_record_has_a_value_whatever_it_is_refused_for(stack: Stack, run) -> None:
    async def go() -> None:
        value = f"only-small-letters-{next(_numbers)}"
        name = await service(stack, value=value)
        token, _ = await session(stack, name, name)
        elsewhere, _ = await stack.connect(token, f"{value}.evil.test:443")
        twice = await stack.get(token, f"/v1/{value}/../x")
        person = await stack.get(token, f"/v1/{value}", headers=b"X-Keyhole-Context: on_behalf_of=bob\r\n")
        itself = await stack.get(token, headers=f"X-Keyhole-Context: run={token}\r\n".encode())
        assert [each.code for each in (elsewhere, twice, person, itself)] == [
            "no_service",
            "invalid_request",
            "policy_denied",
            "policy_denied",
        ]
        records = (await stack.ask("read", "sys/audit-log", {"limit": 1000}))["records"]
        assert {str(twice.get(b"x-keyhole-request-id"), "ascii")} <= {record["id"] for record in records}
        said = json.dumps(records)
        assert value not in said
        assert token not in said
        await clear(stack, name)

    run(go())


def test_value_in_the_name_of_a_header_or_in_one_that_looks_like_our_own_is_stopped(stack: Stack, run) -> None:
    async def go() -> None:
        value = f"only-small-letters-{next(_numbers)}"
        name = await service(stack, value=value)
        token, _ = await session(stack, name, name)
        before = len(stack.upstream.requests)
        for line in (f"{value}: 1", f"X-Note: 1.1 keyhole-{value}", f"Via: 1.1 keyhole-{value}"):
            assert (await stack.get(token, headers=f"{line}\r\n".encode())).code == "policy_denied"
        assert len(stack.upstream.requests) == before
        await clear(stack, name)

    run(go())


def test_hanging_up_is_no_way_around_an_alarm(stack: Stack, run) -> None:
    async def go() -> None:
        name = await service(stack)
        token, _ = await session(stack, name, name)
        assert (await stack.get(token)).status == 200
        store = stack.keyhole.node.open_vault().store
        gate, reached, commit = asyncio.Event(), asyncio.Event(), store.commit

        async def slow(batch: Any) -> Any:
            reached.set()
            await gate.wait()
            return await commit(batch)

        _, writer = await stack.tunnel(token)
        store.commit = slow
        try:
            writer.write(
                f"GET /v1/x HTTP/1.1\r\nHost: {HOST}:{stack.secure}\r\nX-Hung-Up: {SECRET}-{name}\r\n\r\n".encode()
            )
            await reached.wait()
            connections = stack.proxy.connections
            reset(writer)
            await until(lambda: stack.proxy.connections < connections)
        finally:
            del store.commit
            gate.set()
        for _ in range(100):
            if "value in x-hung-up" in await alarms(stack):
                break
        assert "value in x-hung-up" in await alarms(stack)
        await clear(stack, name)

    run(go())


def test_use_whose_alarm_cannot_be_raised_is_refused_and_has_an_outcome(stack: Stack, run, monkeypatch) -> None:
    async def go() -> None:
        name = await service(stack)
        await stack.ask("update", f"sys/honey/{name}/key")
        token, _ = await session(stack, name, name)
        vault = stack.keyhole.node.open_vault()

        async def fail(*_about: object) -> None:
            raise AuditUnavailable("no")

        before = len(stack.upstream.requests)
        with monkeypatch.context() as patch:
            patch.setattr(vault, "alarm", fail)
            assert (await stack.get(token)).code == "audit_unavailable"
            with pytest.raises(AuditUnavailable):
                await stack.ask("read", f"secret/data/{name}/key")
        assert len(stack.upstream.requests) == before
        found = (await stack.ask("read", "sys/audit-log", {"limit": 1000}))["records"]
        touched = [
            r for r in found if r.get("secrets") and f"{name}/key" in r["secrets"] and r["operation"] != "create"
        ]
        phases = sorted((r["operation"], r["phase"], r.get("result", "")) for r in touched)
        assert phases == [
            ("read", "intent", ""),
            ("read", "outcome", "audit_unavailable"),
            ("use", "intent", ""),
            ("use", "outcome", "audit_unavailable"),
        ]
        await stack.ask("delete", f"sys/honey/{name}/key")
        await clear(stack, name)

    run(go())


def test_session_whose_services_have_more_placeholders_than_one_gets_is_refused_before_a_token_is_made(
    stack: Stack, run, monkeypatch
) -> None:
    async def go() -> None:
        monkeypatch.setattr(agents, "MOST_PLACEHOLDERS", 2)
        first, second, third = [await service(stack) for _ in range(3)]
        _, own = await session(stack, first, first, second)
        assert len(own) == 2
        with pytest.raises(InvalidRequest, match="3 services with 3 placeholders; one session gets at most 2") as told:
            await session(stack, first, third)
        assert "keyhole agent token --service NAME" in told.value.hint
        assert (await stack.ask("read", f"agents/{first}"))["tokens"] == 1
        await stack.ask("update", f"agents/{first}/token", {"scope": "proxy"})  # one that takes the services' own
        await clear(stack, first, second, third)

    run(go())


def shown(value: str) -> bytes:
    return f"X-Note: {value}\r\n".encode()


@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_value_is_known_from_the_next_call_on_once_a_service_binds_it(stack: Stack, run, elsewhere: bool) -> None:
    async def go() -> None:
        number = next(_numbers)
        values = [f"bound-later-{number}-{each}-0123456789" for each in range(3)]
        for each, value in enumerate(values):
            await stack.secret(f"later{number}/{each}", value)
        name = await service(stack)
        token, _ = await session(stack, name, name)
        other, hosts = f"t{next(_numbers)}", [f"{OTHER}:{stack.secure}"]
        for value in values:  # nobody can use it yet
            assert (await stack.get(token, headers=shown(value))).status == 200
        await stack.service(other, secret=f"later{number}/0", hosts=hosts)
        await stopped(stack, token, headers=shown(values[0]))
        assert (await stack.get(token, headers=shown(values[1]))).status == 200
        how = {"secret": f"later{number}/1", "hosts": hosts}
        if elsewhere:  # it stands in another header, too
            how |= {"inject": {"kind": "header", "name": "x-key"}}
        await stack.service(other, **how)
        await stopped(stack, token, headers=shown(values[1]))
        assert (await stack.get(token, headers=shown(values[0]))).status == 200
        assert (await stack.get(token, headers=shown(values[2]))).status == 200
        await clear(stack, other)
        assert (await stack.get(token, headers=shown(values[1]))).status == 200
        await clear(stack, name)

    run(go())


def test_a_value_that_was_written_is_known_from_the_next_change_of_anything_on(stack: Stack, run) -> None:
    async def go() -> None:
        name, late = await service(stack), f"t{next(_numbers)}"
        other = await service(stack, hosts=[f"{OTHER}:{stack.secure}"])
        await stack.service(
            late, secret=f"{late}/key", hosts=[f"a.test:{stack.secure}"]
        )  # of a secret that is not there
        token, _ = await session(stack, name, name)
        assert (await stack.get(token)).status == 200
        for each in (other, late):
            value = f"written-later-{each}-0123456789"
            await stack.secret(f"{each}/key", value)
            await stack.ask("update", f"agents/{each}-of-nothing")
            await stopped(stack, token, headers=shown(value))
        await clear(stack, name, other, late)

    run(go())


def test_a_value_that_was_written_is_known_from_its_first_loan_on(stack: Stack, run) -> None:
    async def go() -> None:
        name, late = await service(stack), f"t{next(_numbers)}"
        other = await service(stack, hosts=[f"{OTHER}:{stack.secure}"])
        how = {"hosts": [f"{OTHER}:{stack.secure}"], "paths": ["/late/**"], "placeholder": STATIC}
        await stack.service(late, secret=f"{late}/key", **how)
        token, _ = await session(stack, name, name, other, late)
        assert (await stack.get(token)).status == 200
        for each, path in ((other, "/v1/x"), (late, "/late/x")):
            value = f"written-later-{each}-0123456789"
            await stack.secret(f"{each}/key", value)
            headers = f"X-Keyhole-Service: {each}\r\n".encode()
            assert (await stack.get(token, path, host=OTHER, headers=headers)).status == 200
            await stopped(stack, token, headers=shown(value))
        await clear(stack, name, other, late)

    run(go())


def test_both_values_are_known_while_a_secret_is_rotated(stack: Stack, run, monkeypatch) -> None:
    async def go() -> None:
        name, token_of = await service(stack), f"t{next(_numbers)}"
        token, _ = await session(stack, name, name)
        assert (await stack.get(token)).status == 200
        vault = stack.keyhole.node.open_vault()
        value = f"not-yet-the-value-{token_of}"
        former = {(f"{name}/key", "value"): (Secret(value),)}

        async def rotating(_org: str) -> Any:
            return former

        monkeypatch.setattr(vault.rotations, "former", rotating)
        await stack.ask("update", f"agents/{token_of}")
        await stopped(stack, token, headers=shown(value))
        former.clear()
        await stack.ask("update", f"agents/{token_of}-again")
        assert (await stack.get(token, headers=shown(value))).status == 200
        await clear(stack, name)

    run(go())


def test_more_values_than_are_looked_for_leave_room_once_a_service_has_gone(monkeypatch) -> None:
    async def go() -> None:
        monkeypatch.setattr(watched, "MOST_VALUES", 2)
        monkeypatch.setattr(tripwires, "MOST_VALUES", 2)
        async with Stack() as stack:
            for name in "abc":
                await stack.secret(f"{name}/key", f"the-value-of-{name * 8}-0123456789")
                await stack.service(name, secret=f"{name}/key", hosts=[f"{name}.test:{stack.secure}"])
            token = await stack.agent("coder", "a")

            async def told() -> list[int]:
                lines = [shown(f"the-value-of-{name * 8}-0123456789") for name in "abc"]
                return [(await stack.get(token, host="a.test", headers=line)).status for line in lines]

            assert await told() == [403, 403, 200]
            await stack.secret("a/key", "another-value-of-aaaaaaaa-0123456789")
            await stack.ask("update", "agents/other")
            assert await told() == [200, 403, 200]
            line = shown("another-value-of-aaaaaaaa-0123456789")
            assert (await stack.get(token, host="a.test", headers=line)).status == 403
            await clear(stack, "b")
            assert await told() == [200, 200, 403]

    asyncio.run(asyncio.wait_for(go(), 60))
