"""Names that take long to resolve hold up nobody but the org that asks for them."""

import asyncio
import socket
import threading

import pytest

from keyhole.core.errors import UpstreamUnreachable
from keyhole.core.fair import ASKING
from keyhole.net import resolve
from keyhole.net.resolve import Resolver


def test_an_orgs_names_that_hang_are_no_wait_for_another_and_too_many_are_refused(monkeypatch):
    monkeypatch.setattr(resolve, "_ORG_THREADS", 2)
    monkeypatch.setattr(resolve, "_ORG_PENDING", 3)
    hold = threading.Event()

    def answer(host, *_rest, **_options):
        if host.startswith("slow"):
            hold.wait(30)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", answer)

    async def main() -> None:
        resolver = Resolver(timeout=30)
        ASKING.set(("flood", "agent"))
        slow = [asyncio.create_task(resolver.resolve(f"slow{number}.test")) for number in range(6)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        ASKING.set(("quiet", "agent"))
        assert await resolver.resolve("fast.test") == ["192.0.2.7"]
        hold.set()
        found = await asyncio.gather(*slow, return_exceptions=True)
        assert found[:5] == [["192.0.2.7"]] * 5
        assert isinstance(found[5], UpstreamUnreachable)
        with pytest.raises(UpstreamUnreachable, match="too many names"):
            raise found[5]

    asyncio.run(main())


def test_a_name_that_waits_in_a_flooding_orgs_line_is_no_wait_for_another(monkeypatch):
    monkeypatch.setattr(resolve, "_ORG_THREADS", 1)
    hold = threading.Event()

    def answer(host, *_rest, **_options):
        if host == "slow.test":
            hold.wait(30)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", answer)

    async def main() -> None:
        resolver = Resolver(timeout=60)
        ASKING.set(("flood", "agent"))
        flood = [asyncio.create_task(resolver.resolve(name)) for name in ("slow.test", "api.test")]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        ASKING.set(("quiet", "agent"))
        try:
            assert await resolver.resolve("api.test") == ["192.0.2.7"]
            assert not flood[1].done()
        finally:
            hold.set()
        assert await asyncio.gather(*flood) == [["192.0.2.7"]] * 2

    asyncio.run(main())


def test_a_name_for_which_there_is_no_thread_can_be_asked_for_again(monkeypatch):
    def answer(*_rest, **_options):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 0))]

    def start(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(socket, "getaddrinfo", answer)

    async def main() -> None:
        resolver = Resolver(timeout=60)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            for _ in range(100):  # more than there are threads
                with pytest.raises(UpstreamUnreachable, match="too many names"):
                    await resolver.resolve("api.test")
        assert await resolver.resolve("api.test") == ["192.0.2.7"]

    asyncio.run(main())
