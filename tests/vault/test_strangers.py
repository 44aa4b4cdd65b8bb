"""Strangers who guess: what they are told, and how much of the journal they can fill."""

import asyncio
import base64

import pytest

from broker.stack import Stack, read_reply
from faces.api_client import Client
from keyhole.app import serving_api
from keyhole.config import Config
from keyhole.core.errors import RateLimited, Unauthenticated
from keyhole.core.record import Phase
from keyhole.core.request import Operation, Request
from keyhole.testing import FrozenClock
from keyhole.vault.strangers import RefusalLimits, network
from vault.world import CANARY, Place, journal, play

LIMITS = RefusalLimits()


async def guess(vault, number, remote="203.0.113.7"):
    request = Request(f"hvs.guess{number:040}".encode(), Operation.READ, f"secret/data/{number}", {}, "", remote)
    with pytest.raises((Unauthenticated, RateLimited)) as refused:
        await vault.node.handle(request)
    return refused.value


async def refusals(vault):
    """Records of refusals one by one, and records that stand for several."""
    found = [record for _, record in await journal(vault) if record.phase is Phase.REFUSED]
    return [record for record in found if not record.count], [record for record in found if record.count]


def test_thousands_of_guesses_are_a_few_records_that_count_them_all():
    clock = FrozenClock()

    async def scenario(vault):
        codes = []
        for number in range(2000):
            codes.append((await guess(vault, number)).code)
            clock.advance(0.01)
            if number % 500 == 0:
                await vault.ask("read", "auth/token/lookup-self")  # whoever has a token never meets the limit
        vault.vault.strangers.flush()
        single, counted = await refusals(vault)
        assert LIMITS.burst <= len(single) <= LIMITS.burst + 2000 * 0.01 * LIMITS.rate
        assert codes.count("unauthenticated") == len(single)
        assert codes.count("rate_limited") == sum(record.count for record in counted)
        assert len(single) + sum(record.count for record in counted) == 2000
        assert {record.remote for record in single + counted} == {"203.0.113.7"}
        assert all(0 < record.milliseconds <= 20_000 for record in counted)
        clock.advance(100)
        assert (await guess(vault, 0)).code == "unauthenticated"  # patience is rewarded

    play(scenario, clock=clock)


def test_many_addresses_share_a_limit_and_a_table_of_bounded_size():
    clock = FrozenClock()

    async def scenario(vault):
        small = RefusalLimits(rate=0.001, burst=5, addresses=50, interval=3600)
        strangers = vault.vault.strangers
        strangers.limits = small
        for number in range(600):
            await guess(vault, number, f"198.51.{number // 200}.{number % 200}")
        assert len(strangers._buckets) <= 50
        assert len(strangers._counts) <= 51
        strangers.flush()
        single, counted = await refusals(vault)
        assert len(single) <= 51
        assert len(single) + sum(record.count for record in counted) == 600
        assert len(counted) <= 17
        assert "" in {record.remote for record in counted}  # those that no record names

    play(scenario, clock=clock)


def test_what_was_counted_is_recorded_when_the_vault_closes(tmp_path):
    place = Place(tmp_path)

    async def flood(vault):
        for number in range(LIMITS.burst + 50):
            await guess(vault, number)

    async def look(vault):
        _, counted = await refusals(vault)
        assert sum(record.count for record in counted) >= 40

    place.play(flood, clock=FrozenClock())
    place.play(look)


def test_what_was_counted_is_recorded_after_a_while():
    async def scenario(vault):
        vault.vault.strangers.limits = RefusalLimits(0.0, 1, interval=0.05)
        for number in range(5):
            await guess(vault, number)
        async with asyncio.timeout(60):
            while not (await refusals(vault))[1]:  # noqa: ASYNC110 - a timer of the vault writes it
                await asyncio.sleep(0.01)
        assert sum(record.count for record in (await refusals(vault))[1]) == 4

    play(scenario)


@pytest.mark.parametrize(
    ("remote", "same"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("nonsense:", "nonsense:"),
    ],
)
def test_one_stranger_is_an_address_or_a_network_of_ipv6(remote, same):
    assert network(remote) == same


def _stack(scenario, **settings):
    async def main():
        async with Stack(Config(**settings)) as stack:
            await scenario(stack)

    asyncio.run(main())


async def _refused(stack):
    await stack.keyhole.node.open_vault().journal.drain()
    found = (await stack.ask("read", "sys/audit-log", {"limit": 1000}))["records"]
    return [record for record in found if record["phase"] == "refused"]


def test_the_proxy_says_429_to_guesses_over_the_limit_and_serves_tokens_that_are_valid():
    async def scenario(stack):
        await stack.secret("stripe/key")
        await stack.service("stripe")
        token = await stack.agent("coder", "stripe")
        statuses = [(await stack.connect("hvs.guess", f"api.allowed.test:{stack.secure}"))[0].status for _ in range(4)]
        url = f"http://api.allowed.test:{stack.plain}/x"
        statuses += [(await stack.absolute("hvs.guess", url)).status for _ in range(2)]
        assert statuses == [407, 407, 407, 429, 429, 429]
        assert (await stack.get(token)).status == 200
        refused = await _refused(stack)
        assert [record["result"] for record in refused] == ["unauthenticated"] * 3
        assert {record["remote"] for record in refused} == {"127.0.0.1"}

    _stack(scenario, refusal_burst=3, refusal_rate=0.0)


UNREADABLE = {
    "no request": b"%b\r\n\r\n",
    "two lengths": b"POST http://a.test/%b HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "another host": b"GET http://a.test/%b HTTP/1.1\r\nHost: %b.test\r\n\r\n",
    "bad header": b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nX: %b\0\r\n\r\n",
    "a loop": b"GET http://a.test/%b HTTP/1.1\r\nHost: a.test\r\nVia: 1.1 %b, \x01\r\n\r\n",
    "a body of CONNECT": b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\nX: %b\r\nContent-Length: 5\r\n\r\n",
}


@pytest.mark.parametrize("face", ["proxy", "api"])
def test_a_request_that_cannot_be_read_is_a_record_of_its_code_and_nothing_it_said(face):
    async def scenario(stack):
        async with serving_api(stack.keyhole, Config(listen="127.0.0.1:0")) as url:
            host, _, port = url.rpartition("/")[2].rpartition(":")
            address = stack.address if face == "proxy" else (host, int(port))
            for raw in UNREADABLE.values():
                reader, writer = await asyncio.open_connection(*address)
                writer.write(raw.replace(b"%b", CANARY.encode()))
                reply = await read_reply(reader)
                assert 400 <= reply.status < 500, raw
                writer.close()
                await writer.wait_closed()
                record = (await _refused(stack))[-1]
                assert record["id"] == (reply.get(b"x-keyhole-request-id") or b"").decode(), raw
                assert record["result"] == reply.code
                assert record["remote"] == "127.0.0.1"
                assert not {"path", "target", "host", "caller", "method", "parameters"} & record.keys()
                text = str(record)
                assert CANARY not in text
                assert base64.b64encode(CANARY.encode()).decode() not in text
            assert len(await _refused(stack)) == len(UNREADABLE)

    _stack(scenario)


def test_unreadable_requests_are_bounded_too_and_go_to_the_org_root():
    async def scenario(vault):
        ask = Client(vault.node)
        for _ in range(LIMITS.burst + 20):
            answer = await ask("POST", "secret/data/x", raw=b'{"not": json', token=vault.token)
            assert answer.status == 400
        vault.vault.strangers.flush()
        single, counted = await refusals(vault)
        assert len(single) >= LIMITS.burst
        assert len(single) + sum(record.count for record in counted) == LIMITS.burst + 20
        found = await journal(vault)
        assert {org for org, record in found if record.phase is Phase.REFUSED} == {vault.vault.root_org}

    play(scenario)
