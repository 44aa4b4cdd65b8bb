"""Among very many services, what a change makes the next call do is counted: it does not grow with them."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from broker.stack import HOST, Stack
from keyhole.broker import directory, lendings
from keyhole.broker.directory import Directory
from keyhole.broker.lendings import Lendings
from keyhole.core.service import Service
from keyhole.vault import bindings
from keyhole.vault.vault import Vault

KINDS: list[dict[str, Any]] = [
    {"inject": {"kind": "bearer"}},
    {"inject": {"kind": "header", "name": "x-key"}},
    {"inject": {"kind": "basic", "user": "x"}, "schemes": ["http"]},
    {"secret": "", "inject": {"kind": "none"}, "schemes": ["ssh"]},
    {"inject": {"kind": "bearer"}, "certificate": "client/one"},
]


def some(chance: random.Random, name: str) -> Service:
    hosts = [f"{chance.choice(['', '*.'])}{chance.choice('abc')}.example.com" for _ in range(chance.randrange(1, 3))]
    kind = chance.choice(KINDS)
    if kind.get("schemes") == ["ssh"]:
        hosts = hosts[:1]
    return Service.from_data(name, {"hosts": hosts, "secret": f"team/{chance.choice('xyz')}", **kind})


def test_what_is_compiled_of_changes_is_what_is_compiled_of_all() -> None:
    chance = random.Random(11)
    services = {name: some(chance, name) for name in "abcdefgh"}
    found, lent = Directory(services.values()), Lendings(services.values())
    for _ in range(300):
        names = chance.sample("abcdefghijkl", 2)
        gone = [services.pop(name) for name in names if name in services]
        come = [some(chance, name) for name in names if chance.random() < 0.7]
        services |= {service.name: service for service in come}
        found, lent = found.changed(gone, come), lent.changed(gone, come)
        whole, all_lent = Directory(services.values()), Lendings(services.values())
        assert dict(found._table) == dict(whole._table)
        assert found.captures == whole.captures
        assert dict(lent.of) == dict(all_lent.of)
        assert lent.services.keys() == all_lent.services.keys() == set(lent.of.values())
        assert {path: set(each) for path, each in lent.at.items()} == {
            path: set(each) for path, each in all_lent.at.items()
        }


class Looked:
    """How often something was done with a service."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at: list[str] = []
        for where, name in ((bindings, "decode"), (directory, "_places"), (lendings, "_lent"), (Vault, "watched")):
            self._count(monkeypatch, where, name)

    def _count(self, monkeypatch: pytest.MonkeyPatch, where: Any, name: str) -> None:
        original = getattr(where, name)

        def counted(*given: Any) -> Any:
            self.at.append(name)
            return original(*given)

        monkeypatch.setattr(where, name, counted)


async def agent(stack: Stack) -> None:
    await stack.ask("update", "agents/new", {})


async def policy(stack: Stack) -> None:
    await stack.ask("update", "sys/policies/acl/readers", {"policy": 'path "secret/*" { capabilities = ["read"] }'})


async def grant(stack: Stack) -> None:
    await stack.ask("update", "agents/coder/services/svc1", {})


async def revoked(stack: Stack) -> None:
    await grant(stack)
    await stack.ask("delete", "agents/coder/services/svc1", {})


async def mount(stack: Stack) -> None:
    await stack.ask("update", "sys/mounts/more", {"type": "kv"})


async def secret(stack: Stack) -> None:
    await stack.secret("team/other", "another-value-of-the-team-0123456789")


async def lent(stack: Stack) -> None:
    await stack.secret("stripe/key", "a-new-value-of-stripe-0123456789")
    assert (await stack.get(await stack.agent("lender", "mine"))).status == 200


async def changed(stack: Stack) -> None:
    await stack.service("svc1", hosts=["moved.example.com"])


async def new(stack: Stack) -> None:
    await stack.service("later", hosts=["later.example.com"])


async def rebound(stack: Stack) -> None:
    await stack.secret("team/third", "a-third-value-of-the-team-0123456789")
    await stack.service("svc1", hosts=["api1.example.com"], secret="team/third")


async def gone(stack: Stack) -> None:
    await stack.ask("delete", "services/svc1", {})


async def looked(monkeypatch: pytest.MonkeyPatch, count: int, change: Any) -> list[str]:
    async with Stack() as stack:
        await stack.secret("stripe/key")
        await stack.service("mine")
        for number in range(count):
            await stack.service(f"svc{number}", hosts=[f"api{number}.example.com"])
        token = await stack.agent("coder", "mine")
        assert (await stack.get(token)).status == 200
        await change(stack)
        with monkeypatch.context() as patch:
            counted = Looked(patch)
            assert (await stack.get(token)).status == 200
            assert (await stack.get(token)).status == 200
        return sorted(counted.at)


@pytest.mark.parametrize("change", [agent, policy, grant, revoked, mount, secret, lent, changed, new, rebound, gone])
def test_of_a_change_a_call_looks_at_no_more_services_the_more_there_are(
    monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    async def go() -> tuple[list[str], list[str]]:
        return await looked(monkeypatch, 2, change), await looked(monkeypatch, 60, change)

    few, many = asyncio.run(asyncio.wait_for(go(), 60))
    assert few == many
    assert len(many) <= 8


def test_a_change_after_many_others_looks_at_what_was_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost of changes that no call came between."""

    async def go() -> None:
        async with Stack() as stack:
            await stack.secret("stripe/key")
            await stack.service("mine")
            token = await stack.agent("coder", "mine")
            assert (await stack.get(token)).status == 200
            for number in range(300):
                await stack.service(f"svc{number % 9}", hosts=[f"api{number}.example.com"])
            await stack.service("mine", deny_paths=["/v1/x"])
            assert (await stack.get(token)).code == "policy_denied"
            assert (await stack.get(token, "/v1/y")).status == 200
            await stack.ask("delete", "services/mine")
            assert (await stack.connect(token, f"{HOST}:{stack.secure}"))[0].code == "no_service"
            await stack.service("mine", methods=["POST"])
            assert (await stack.get(token, "/v1/y")).code == "policy_denied"
            vault = stack.keyhole.node.open_vault()
            state, _ = await vault.authenticate(b"root")
            assert str((await vault.services(state))["svc2"].hosts[0]) == "api299.example.com:443"
            assert HOST in str((await vault.services(state))["mine"].hosts[0])

    asyncio.run(asyncio.wait_for(go(), 60))
