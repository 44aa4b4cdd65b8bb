"""Name resolution: bounded, fair, and without a way around the guard."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from pathlib import Path

import dns.flags
import dns.message
import dns.rdatatype
import dns.rrset
import pytest

from keyhole.core.errors import AddressDenied, InvalidRequest, UpstreamUnreachable
from keyhole.net.dial import Dialer
from keyhole.net.guard import Guard
from keyhole.net.resolve import MAX_ADDRESSES, Resolver

DATA = Path(__file__).parent.parent / "data" / "net"
SCENARIOS = [json.loads(line) for line in (DATA / "dns_scenarios.jsonl").read_text().splitlines()]


class DnsServer(asyncio.DatagramProtocol):
    """Answers each query of a name with the next of its answers; the last one repeats. ``timeout`` stays silent."""

    def __init__(self, zone):
        self.zone = zone
        self.asked = {}

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        query = dns.message.from_wire(data)
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
        answers = self.zone.get(name, [[]])
        count = self.asked[name, kind] = self.asked.get((name, kind), 0) + 1
        answer = answers[min(count, len(answers)) - 1]
        if answer == "timeout":
            return
        if isinstance(answer, list):
            answer = {
                "A": [text for text in answer if ":" not in text],
                "AAAA": [text for text in answer if ":" in text],
            }
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA
        if answer.get(kind):
            reply.answer.append(dns.rrset.from_text(question.name, 0, "IN", kind, *answer[kind]))
        self.transport.sendto(reply.to_wire(), address)


@contextlib.asynccontextmanager
async def dns_server(zone):
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(lambda: DnsServer(zone), local_addr=("127.0.0.1", 0))
    try:
        yield protocol, "{}:{}".format(*transport.get_extra_info("sockname"))
    finally:
        transport.close()


@pytest.fixture
def dialled(monkeypatch):
    """The addresses that a connection was attempted to."""
    seen = []

    async def connect(address, port):
        seen.append(address)
        return socket.socket()

    monkeypatch.setattr("keyhole.net.dial._connect", connect)
    return seen


def scenario(kind):
    return next(row for row in SCENARIOS if row["class"] == kind)


def test_a_rebinding_name_is_never_dialled_at_its_second_internal_answer(dialled):
    row = scenario("rebind-per-query")

    async def main():
        async with dns_server({row["name"]: row["answers"]}) as (_, address):
            dialer = Dialer(Resolver(address))
            (await dialer.dial(row["name"], 443, Guard(), timeout=10)).close()
            with pytest.raises(AddressDenied):
                await dialer.dial(row["name"], 443, Guard(), timeout=10)

    asyncio.run(main())
    assert dialled == ["93.184.215.14"]


@pytest.mark.parametrize("kind", ["mixed-A", "mixed-A-AAAA", "wildcard-dns"])
def test_one_internal_answer_condemns_the_whole_name(kind, dialled):
    row = scenario(kind)

    async def main():
        async with dns_server({row["name"]: row["answers"]}) as (_, address):
            with pytest.raises(AddressDenied):
                await Dialer(Resolver(address)).dial(row["name"], 443, Guard(), timeout=10)

    asyncio.run(main())
    assert dialled == []


def test_a_name_without_an_address_is_unreachable(dialled):
    row = scenario("no-answer")

    async def main():
        async with dns_server({row["name"]: row["answers"]}) as (_, address):
            with pytest.raises(UpstreamUnreachable):
                await Dialer(Resolver(address)).dial(row["name"], 443, Guard(), timeout=10)

    asyncio.run(main())
    assert dialled == []


def test_a_stalled_name_fails_in_time_while_others_are_answered(dialled):
    row = scenario("resolver-stall")

    async def main():
        zone = {row["name"]: row["answers"], "fast.test": [["93.184.215.14"]]}
        async with dns_server(zone) as (_, address):
            dialer = Dialer(Resolver(address, timeout=60))
            stalled = asyncio.ensure_future(dialer.dial(row["name"], 443, Guard(), timeout=60))
            for _ in range(5):
                (await dialer.dial("fast.test", 443, Guard(), timeout=60)).close()
            assert not stalled.done()
            stalled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stalled
            with pytest.raises(UpstreamUnreachable):
                await Dialer(Resolver(address, timeout=0.1)).dial(row["name"], 443, Guard(), timeout=60)

    asyncio.run(main())
    assert dialled == ["93.184.215.14"] * 5
    assert Resolver()._timeout < 5


def test_a_family_that_does_not_answer_holds_up_the_other_only_briefly():
    async def main():
        async with dns_server({"a.test": ["timeout"]}) as (server, address):
            original = server.datagram_received

            def only_a(data, peer):
                if dns.message.from_wire(data).question[0].rdtype == dns.rdatatype.A:
                    server.zone["a.test"] = [["93.184.215.14"]]
                    original(data, peer)

            server.datagram_received = only_a
            assert await Resolver(address).resolve("a.test") == ["93.184.215.14"]

    asyncio.run(main())


def test_answers_are_bounded_and_in_turn_of_both_families():
    async def main():
        many = [f"93.184.215.{number}" for number in range(1, 40)]
        zone = {"many.test": [many], "both.test": [["93.184.215.14", "93.184.215.15", "2606:2800::1"]]}
        async with dns_server(zone) as (_, address):
            resolver = Resolver(address)
            assert len(await resolver.resolve("many.test")) == MAX_ADDRESSES
            six, *four = await resolver.resolve("both.test")
            assert six == "2606:2800::1"
            assert sorted(four) == ["93.184.215.14", "93.184.215.15"]

    asyncio.run(main())


def test_static_entries_come_first_and_are_judged_all_the_same(dialled):
    async def main():
        known = ["A.Test:10.0.0.5", "db1:10.0.0.6", "b.test:[2606:2800::1]", "b.test:93.184.215.14"]
        resolver = Resolver("127.0.0.1:1", known)
        assert await resolver.resolve("b.test") == ["2606:2800::1", "93.184.215.14"]
        assert await resolver.resolve("db1") == ["10.0.0.6"]
        with pytest.raises(AddressDenied):
            await Dialer(resolver).dial("a.test", 443, Guard(), timeout=10)

    asyncio.run(main())
    assert dialled == []


def test_localhost_is_loopback_without_a_query():
    async def main():
        resolver = Resolver("127.0.0.1:1")
        assert await resolver.resolve("localhost") == ["127.0.0.1"]
        assert await resolver.resolve("evil.localhost") == ["127.0.0.1"]
        assert await resolver.resolve("::1") == ["::1"]

    asyncio.run(main())


@pytest.mark.parametrize(
    "entry", ["a.test", "a.test:", "a.test:b.test", "a.test:443:1.2.3.4", ":1.2.3.4", "a b:1.2.3.4"]
)
def test_a_malformed_static_entry_is_refused(entry):
    with pytest.raises(InvalidRequest):
        Resolver(static=[entry])


def test_a_dns_server_is_given_by_address():
    with pytest.raises(InvalidRequest):
        Resolver("dns.test:53")


def test_hanging_system_lookups_do_not_starve_other_names(monkeypatch):
    release = threading.Event()
    calls = []

    def getaddrinfo(host, *_args, **_kwargs):
        calls.append(host)
        if host == "slow.test":
            release.wait(30)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.215.14", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    async def main():
        resolver = Resolver(timeout=0.5)
        slow = [asyncio.ensure_future(resolver.resolve("slow.test")) for _ in range(200)]
        await asyncio.sleep(0)
        resolver._timeout = 60  # of those that come now
        for number in range(100):
            assert await resolver.resolve(f"fast{number}.test") == ["93.184.215.14"]
        results = await asyncio.gather(*slow, return_exceptions=True)
        assert all(isinstance(result, UpstreamUnreachable) for result in results)
        release.set()
        assert await resolver.resolve("slow.test") == ["93.184.215.14"]

    try:
        asyncio.run(main())
    finally:
        release.set()
    assert calls.count("slow.test") <= 2


def test_a_name_that_the_system_does_not_know_is_unreachable(monkeypatch):
    def getaddrinfo(*_args, **_kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(UpstreamUnreachable):
        asyncio.run(Resolver().resolve("nowhere.test"))
