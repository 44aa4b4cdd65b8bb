"""What was taken back or changed holds for the next request, also in a tunnel that stays open."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from broker.stack import HOST, Received, Reply, Stack, Streams, read_reply, until
from keyhole.broker import late

_numbers = itertools.count()


class Case:
    """An agent of its own with a service of its own, and an open tunnel through which one request went."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.name = f"n{next(_numbers)}"

    async def open(self, **token: object) -> Streams:
        stack, name = self.stack, self.name
        await stack.secret(f"{name}/key", f"first-value-of-{name}")
        await stack.service(name, secret=f"{name}/key", hosts=[f"{HOST}:{stack.secure}"])
        self.token = await stack.agent(name, name, **token)
        return await stack.tunnel(self.token)

    async def close(self) -> None:
        await self.stack.ask("delete", f"services/{self.name}")


CHANGES = {
    "token revoked": ("update", "agents/{name}/revoke", {}, 407, "unauthenticated"),
    "agent deleted": ("delete", "agents/{name}", {}, 407, "unauthenticated"),
    "entity disabled": ("update", "identity/entity/id/{entity}", {"disabled": True}, 407, "unauthenticated"),
    "entity deleted": ("delete", "identity/entity/id/{entity}", {}, 407, "unauthenticated"),
    "grant taken back": ("delete", "agents/{name}/services/{name}", {}, 403, "policy_denied"),
    "service deleted": ("delete", "services/{name}", {}, 403, "no_service"),
    "secret deleted": ("delete", "secret/data/{name}/key", {}, 404, "not_found"),
    "secret expired": ("update", "secret/metadata/{name}/key", {"expires_at": "2020-01-01T00:00:00Z"}, 403, "expired"),
    "policy deleted": ("delete", "sys/policies/acl/agent/{name}", {}, 403, "policy_denied"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_change_holds_for_the_next_request_of_an_open_tunnel(stack: Stack, run, change: str) -> None:
    operation, path, data, status, code = CHANGES[change]

    async def ask() -> tuple[Reply, Reply]:
        case = Case(stack)
        streams = await case.open()
        first = await stack.send(streams)
        await stack.ask(operation, path.format(name=case.name, entity=await stack.entity(case.name)), data)
        second = await stack.send(streams)
        await case.close()
        return first, second

    first, second = run(ask())
    assert first.status == 200
    assert (second.status, second.code) == (status, code)
    assert len(stack.upstream.requests) == 1


@pytest.mark.parametrize("change", [name for name in CHANGES if not name.startswith("secret")])
def test_change_holds_for_the_next_tunnel_to_where_there_were_others(stack: Stack, run, change: str) -> None:
    operation, path, data, status, code = CHANGES[change]

    async def ask() -> Reply:
        case = Case(stack)
        await case.open()
        await stack.tunnel(case.token)
        await stack.ask(operation, path.format(name=case.name, entity=await stack.entity(case.name)), data)
        reply, _ = await stack.connect(case.token, f"{HOST}:{stack.secure}")
        await case.close()
        return reply

    reply = run(ask())
    assert (reply.status, reply.code) == (status, code)


LATE = {name: change for name, change in CHANGES.items() if not name.startswith("secret")}
LATE["service changed"] = ("update", "services/{name}", {"hosts": ["other.test"]}, 403, "policy_denied")


@pytest.mark.parametrize("change", LATE)
def test_change_holds_for_a_request_whose_body_was_held_back(stack: Stack, run, change: str, monkeypatch) -> None:
    monkeypatch.setattr(late, "PATIENCE", 0.0)
    operation, path, data, status, _ = LATE[change]

    async def ask() -> tuple[Reply, str]:
        case = Case(stack)
        reader, writer = await case.open()
        lines = (
            f"POST /v1/x HTTP/1.1\r\nHost: {HOST}:{stack.secure}\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        writer.write(lines.encode())
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        if operation == "update" and path.startswith("services/"):
            await stack.service(case.name, secret=f"{case.name}/key", **data)
        else:
            await stack.ask(operation, path.format(name=case.name, entity=await stack.entity(case.name)), data)
        writer.write(b"ok")
        reply = await read_reply(reader, "POST")
        await case.close()
        [*_, outcome] = await stack.records(service=case.name)
        return reply, outcome["operation"]

    reply, operation_recorded = run(ask())
    assert (reply.status, operation_recorded) == (407 if status == 407 else 403, "use")
    assert not stack.upstream.requests


def test_last_use_of_a_token_may_have_a_late_body(stack: Stack, run, monkeypatch) -> None:
    monkeypatch.setattr(late, "PATIENCE", 0.0)

    async def ask() -> list[int]:
        case = Case(stack)
        streams = await case.open(num_uses=1)
        statuses = [(await stack.send(streams, method="POST", body=b"ok")).status for _ in range(2)]
        await case.close()
        return statuses

    assert run(ask()) == [200, 407]


def test_narrower_service_holds_for_the_next_request_of_an_open_tunnel(stack: Stack, run) -> None:
    async def ask() -> list[int]:
        case = Case(stack)
        streams = await case.open()
        statuses = [(await stack.send(streams, "/v1/admin")).status]
        await stack.service(case.name, secret=f"{case.name}/key", deny_paths=["/v1/admin/**", "/v1/admin"])
        statuses += [(await stack.send(streams, path)).status for path in ("/v1/admin", "/v1/x")]
        await stack.service(case.name, secret=f"{case.name}/key", hosts=[f"other.test:{stack.secure}"])
        statuses.append((await stack.send(streams)).status)
        await case.close()
        return statuses

    assert run(ask()) == [200, 403, 200, 403]


def test_new_value_is_used_on_the_very_next_request(stack: Stack, run) -> None:
    async def ask() -> tuple[str, Reply]:
        case = Case(stack)
        streams = await case.open()
        await stack.send(streams)
        await stack.secret(f"{case.name}/key", f"second-value-of-{case.name}")
        reply = await stack.send(streams)
        await case.close()
        return case.name, reply

    async def echo(request: Received, writer: asyncio.StreamWriter) -> None:
        [value] = request.values(b"authorization")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(value), value))

    stack.upstream.say = echo
    name, reply = run(ask())
    values = [request.values(b"authorization") for request in stack.upstream.requests]
    assert values == [[f"Bearer {which}-value-of-{name}".encode()] for which in ("first", "second")]
    assert b"value-of" not in reply.body


def test_grant_holds_for_the_next_request_of_an_open_tunnel(stack: Stack, run) -> None:
    async def ask() -> list[int]:
        case, other = Case(stack), Case(stack)
        streams = await case.open()
        await stack.service(other.name, secret=f"{case.name}/key", paths=["/v9/only"], methods=["GET"])
        before = await stack.send(streams, "/v9/only", headers=f"X-Keyhole-Service: {other.name}\r\n".encode())
        await stack.ask("update", f"agents/{case.name}/services/{other.name}", {})
        after = await stack.send(streams, "/v9/only", headers=f"X-Keyhole-Service: {other.name}\r\n".encode())
        await case.close()
        await other.close()
        return [before.status, after.status]

    assert run(ask()) == [403, 200]


def test_request_in_flight_ends_properly_when_its_token_is_revoked(stack: Stack, run) -> None:
    gate = asyncio.Event()

    async def slow(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        await gate.wait()
        writer.write(b"world")

    async def ask() -> tuple[Reply, Reply]:
        case = Case(stack)
        streams = await case.open()
        sending = asyncio.create_task(stack.send(streams))
        await until(lambda: bool(stack.upstream.requests))
        await stack.ask("update", f"agents/{case.name}/revoke", {})
        gate.set()
        first = await sending
        second = await stack.send(streams)
        await case.close()
        return first, second

    stack.upstream.say = slow
    first, second = run(ask())
    assert (first.status, first.body, first.whole) == (200, b"helloworld", True)
    assert second.code == "unauthenticated"


def test_token_for_two_uses_is_good_for_two_requests(stack: Stack, run) -> None:
    async def ask() -> list[int]:
        case = Case(stack)
        streams = await case.open(num_uses=2)
        statuses = [(await stack.send(streams)).status for _ in range(4)]
        reply, _ = await stack.connect(case.token, f"{HOST}:{stack.secure}")
        await case.close()
        return [*statuses, reply.status]

    assert run(ask()) == [200, 200, 407, 407, 407]
    assert len(stack.upstream.requests) == 2


def test_uses_are_counted_exactly_when_requests_race(stack: Stack, run) -> None:
    async def ask() -> list[int]:
        case = Case(stack)
        first = await case.open(num_uses=3)
        tunnels = [first, *[await stack.tunnel(case.token) for _ in range(7)]]
        replies = await asyncio.gather(*(stack.send(streams) for streams in tunnels))
        await case.close()
        return sorted(reply.status for reply in replies)

    assert run(ask()) == [200] * 3 + [407] * 5
    assert len(stack.upstream.requests) == 3


def test_expired_token_is_refused_in_an_open_tunnel(run) -> None:
    async def ask() -> Reply:
        async with Stack() as stack:
            streams = await Case(stack).open(ttl="1h")
            assert (await stack.send(streams)).status == 200
            clock = stack.keyhole.node.open_vault().clock
            later = clock.now() + 3601
            clock.now = lambda: later
            return await stack.send(streams)

    assert run(ask()).code == "unauthenticated"


def test_deleted_org_is_gone_from_the_next_request_on(stack: Stack, run) -> None:
    async def ask() -> tuple[Reply, Reply]:
        root = (await stack.ask("update", "sys/namespaces/short", {}))["root_token"]
        await stack.trust(root)
        await stack.secret("stripe/key", token=root)
        await stack.service("ours", token=root)
        token = await stack.agent("coder", "ours", token=root)
        streams = await stack.tunnel(token)
        first = await stack.send(streams)
        await stack.ask("delete", "sys/namespaces/short")
        return first, await stack.send(streams)

    first, second = run(ask())
    assert (first.status, second.code) == (200, "unauthenticated")


def test_sealed_vault_refuses_in_an_open_tunnel(run) -> None:
    async def ask() -> Reply:
        async with Stack() as stack:
            case = Case(stack)
            streams = await case.open()
            await stack.send(streams)
            await stack.keyhole.node.seal()
            reply = await stack.send(streams)
            assert len(stack.upstream.requests) == 1
            return reply

    reply = run(ask())
    assert (reply.status, reply.code) == (503, "sealed")


def test_proxy_token_can_call_and_do_nothing_else(stack: Stack, run) -> None:
    from keyhole.core.errors import PolicyDenied

    async def ask() -> Reply:
        case = Case(stack)
        streams = await case.open(scope="proxy")
        for operation, path in (
            ("read", f"secret/data/{case.name}/key"),
            ("read", "sys/keyhole"),
            ("list", "services"),
        ):
            with pytest.raises(PolicyDenied):
                await stack.ask(operation, path, token=case.token)
        reply = await stack.send(streams)
        await case.close()
        return reply

    assert run(ask()).status == 200


def test_new_secret_of_a_service_never_goes_to_its_old_host(stack: Stack, run, monkeypatch) -> None:
    resources = stack.keyhole.broker._resources
    directory = resources.directory

    async def ask() -> tuple[Reply, list[str], Reply]:
        case = Case(stack)
        streams = await case.open()
        await stack.secret(f"{case.name}/new", f"new-value-of-{case.name}")

        async def changed_meanwhile(vault, state):
            monkeypatch.setattr(resources, "directory", directory)
            found = await directory(vault, state)
            await stack.service(case.name, secret=f"{case.name}/new", hosts=[f"other.test:{stack.secure}"])
            await vault.compiled.state(state.org.id)
            return found

        monkeypatch.setattr(resources, "directory", changed_meanwhile)
        first = await stack.send(streams)
        results = [record.get("result", "") for record in await stack.records(service=case.name)]
        second = await stack.send(streams)
        await case.close()
        return first, results, second

    first, results, second = run(ask())
    assert (first.status, second.status) == (409, 403)
    assert results == ["", "conflict"]
    assert not stack.upstream.requests
