"""``Client.lease`` against real servers, which are stopped, frozen and killed, and a real PostgreSQL."""

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from cli_driver import environment
from client.cluster import cluster, gets_in, until, users
from keyhole.client import AsyncClient, Client
from keyhole.client.failover import Failover
from keyhole.client.http import HttpTransport
from keyhole.core.errors import Expired, InvalidRequest, NotFound, Unreachable

LONG, BRIEF, CAPPED = (f"/database/creds/{role}" for role in ("long", "brief", "capped"))


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture
def client(servers):
    with servers.client() as made:
        yield made
    servers.thaw()


def test_a_credential_works_in_the_block_and_is_gone_after_it(client):
    with client.lease(LONG) as creds:
        fields = creds.fields()
        assert gets_in(creds)
        assert fields["username"] in users()
        assert fields["password"] not in repr(creds)
    until(lambda: fields["username"] not in users())
    with pytest.raises(Expired):
        creds.fields()


def test_it_is_taken_back_when_the_block_fails(client):
    names = []

    def fail():
        with client.lease(LONG) as creds:
            names.append(creds["username"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    until(lambda: not users() & set(names))


def test_it_is_renewed_while_it_is_used_also_past_a_killed_and_a_frozen_server(servers):
    with servers.start() as killed, servers.client(killed) as client, client.lease(BRIEF) as creds:
        lease, began = creds.lease_id, time.monotonic()
        killed.kill()
        servers.servers[0].freeze()
        until(lambda: time.monotonic() > began + 5.5)
        assert (creds.version, creds.lease_id) == (1, lease)
        assert gets_in(creds)
        servers.thaw()


def test_what_cannot_be_renewed_for_longer_is_replaced(client):
    changes = []
    with client.lease(CAPPED, on_change=changes.append) as creds:
        first = creds.fields()
        until(lambda: creds.version > 1)
        assert creds.fields() != first
        assert gets_in(creds)
        until(lambda: changes)
    until(lambda: not users() & {first["username"]})


def test_one_that_was_revoked_meanwhile_is_replaced(client, servers):
    with client.lease(BRIEF) as creds:
        servers.ask("write", "sys/leases/revoke", {"lease_id": creds.lease_id, "sync": True})
        until(lambda: creds.version > 1)
        assert gets_in(creds)


def test_while_no_server_answers_it_is_served_until_its_end_and_comes_back(client, servers):
    with client.lease(BRIEF) as creds:
        began = time.monotonic()
        for server in servers.servers:
            server.freeze()
        last = began
        with contextlib.suppress(Expired):
            while time.monotonic() < began + 20:
                creds.fields()
                last = time.monotonic()
                time.sleep(0.02)
        assert 4.0 < last - began < 5.0  # longer than nine tenths, and not past its end
        until(lambda: isinstance(creds.failure, Unreachable) and not creds.remaining)
        with pytest.raises(Expired, match="none of 2 servers answers"):
            creds.fields()
        until(lambda: time.monotonic() > began + 6)  # its lease is over for the servers as well
        servers.thaw()
        until(lambda: creds.remaining > 0)
        assert creds.version == 2
        assert gets_in(creds)


def test_leaving_does_not_wait_for_servers_that_do_not_answer(client, servers):
    with client.lease(LONG):
        for server in servers.servers:
            server.freeze()
        began = time.monotonic()
    assert time.monotonic() - began < 15
    servers.thaw()


def test_several_addresses_are_found_in_the_environment(servers, monkeypatch):
    monkeypatch.setenv("KEYHOLE_ADDR", "http://127.0.0.1:1, " + servers.address)
    monkeypatch.setenv("KEYHOLE_TOKEN", servers.token)
    monkeypatch.delenv("KEYHOLE_VAULT", raising=False)
    with Client() as client, client.lease(LONG) as creds:
        assert gets_in(creds)
    monkeypatch.setenv("KEYHOLE_ADDR", servers.address + ",ftp://else")
    with pytest.raises(InvalidRequest):
        Client()


def test_a_source_that_is_not_there_is_said_at_once(client):
    with pytest.raises((NotFound, InvalidRequest)), client.lease("/database/creds/none"):
        pass
    with pytest.raises(InvalidRequest):
        client.lease("/database//creds")


PROGRAM = """
import sys, time
from keyhole import Client
with Client() as vault, vault.lease("/database/creds/long") as creds:
    print(creds["username"], flush=True)
    time.sleep(600)
"""


def test_a_program_that_is_asked_to_end_takes_it_back(servers):
    env = environment(KEYHOLE_ADDR=servers.address, KEYHOLE_TOKEN=servers.token)
    with subprocess.Popen([sys.executable, "-c", PROGRAM], env=env, stdout=subprocess.PIPE, text=True) as process:
        name = process.stdout.readline().strip()
        assert name in users()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
    until(lambda: name not in users())


def test_asyncio_has_the_same(servers):
    async def main():
        async with AsyncClient(servers.servers[1].url, token=servers.token) as vault:
            async with vault.lease(LONG) as creds:
                assert gets_in(creds)
                first = creds["username"]
            held = asyncio.Event()

            async def hold():
                async with vault.lease(LONG) as inner:
                    names.append(inner["username"])
                    held.set()
                    await asyncio.Event().wait()

            names = [first]
            task = asyncio.create_task(hold())
            await held.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return names

    names = asyncio.run(main())
    until(lambda: not users() & set(names))


@contextlib.contextmanager
def black_hole(drip=b""):
    """A server that takes connections and says nothing, or the same byte for ever."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=talk, args=(connection,), daemon=True).start()

        def talk(connection):
            with contextlib.suppress(OSError), connection:
                while not ended.wait(0.05):
                    connection.sendall(drip)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("drip", [b"", b"X"])
def test_a_server_that_never_answers_is_given_up(drip):
    with black_hole(drip) as url:
        transport = HttpTransport(url, token="t", timeout=0.2, deadline=0.5)
        transport.another = lambda: transport
        with pytest.raises(Unreachable), Client(transport=transport).lease("/database/creds/r"):
            pass


def test_a_write_that_may_have_been_done_is_not_sent_to_another_server(servers):
    with black_hole() as url:
        silent, good = (HttpTransport(each, token=servers.token, timeout=0.2) for each in (url, servers.servers[0].url))
        asked = []
        good.ask = lambda *request: asked.append(request)
        with pytest.raises(Unreachable):
            Failover([silent, good]).ask("update", "sys/mounts/x", {"type": "kv"})
        assert asked == []
        Failover([HttpTransport("http://127.0.0.1:1"), good]).ask("update", "sys/mounts/x", {"type": "kv"})
        assert len(asked) == 1
        silent.close()
