"""``Client.lease`` against real servers, which are stopped, frozen and killed, and a real PostgreSQL."""

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from children import child
from cli_driver import environment, run, spawn
from client.cluster import cluster, gets_in, until, users, works
from keyhole.client import AsyncClient, Client
from keyhole.client.failover import Failover
from keyhole.client.http import HttpTransport
from keyhole.client.leasing import AsyncLease, Lease
from keyhole.core.errors import Expired, InvalidRequest, NotFound, Unreachable
from sdk import built

LONG, BRIEF, SHORT, CAPPED = (f"/database/creds/{role}" for role in ("long", "brief", "short", "capped"))


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture(autouse=True)
def thawed(servers):
    """No server stays frozen, whatever becomes of a test."""
    yield
    servers.thaw()


@pytest.fixture
def client(servers):
    with servers.client(*servers.servers[1:]) as made:
        yield made


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
    frozen, good = servers.servers
    with servers.start() as killed, servers.client(killed, frozen, good) as client, client.lease(BRIEF) as creds:
        lease, began = creds.lease_id, time.monotonic()
        killed.kill()
        frozen.freeze()
        until(lambda: time.monotonic() > began + 10.5)
        assert (creds.version, creds.lease_id) == (1, lease)
        assert works(creds)
        frozen.thaw()


def test_what_cannot_be_renewed_for_longer_is_replaced(client):
    changes = []
    with client.lease(CAPPED, on_change=changes.append) as creds:
        first = creds.fields()
        until(lambda: creds.version > 1 and works(creds))
        assert creds.fields() != first
        until(lambda: changes)
    until(lambda: not users() & {first["username"]})


def test_one_that_was_revoked_meanwhile_is_replaced(client, servers):
    with client.lease(SHORT) as creds:
        servers.ask("write", "sys/leases/revoke", {"lease_id": creds.lease_id, "sync": True})
        until(lambda: creds.version > 1 and works(creds))


def test_while_no_server_answers_it_is_served_until_its_end_and_comes_back(servers):
    only = servers.servers[0]
    with servers.client(only, last=3.0) as client, client.lease(SHORT) as creds:
        began = last = time.monotonic()
        only.freeze()
        with contextlib.suppress(Expired):
            while (now := time.monotonic()) < began + 20:
                creds.fields()
                last = now
                time.sleep(0.02)
        assert last - began < 4.0
        until(lambda: isinstance(creds.failure, Unreachable) and not creds.remaining)
        with pytest.raises(Expired, match="did not answer in time"):
            creds.fields()
        only.thaw()
        until(lambda: creds.version > 1 and works(creds))


def test_leaving_does_not_wait_for_servers_that_do_not_answer(servers):
    only = servers.servers[0]
    with servers.client(only, last=1.0) as client, client.lease(LONG):
        only.freeze()
        began = time.monotonic()
    assert time.monotonic() - began < 30
    only.thaw()


def test_several_addresses_are_found_in_the_environment(servers, monkeypatch):
    monkeypatch.setenv("KEYHOLE_ADDR", "http://127.0.0.1:1, " + servers.address)
    monkeypatch.setenv("KEYHOLE_TOKEN", servers.token)
    monkeypatch.delenv("KEYHOLE_VAULT", raising=False)
    with Client() as client, client.lease(LONG) as creds:
        assert gets_in(creds)
    monkeypatch.setenv("KEYHOLE_ADDR", servers.address + ",ftp://else")
    with pytest.raises(InvalidRequest):
        Client()


def test_the_client_of_node_replaces_what_cannot_be_renewed_and_takes_all_back_at_sigterm(servers):
    env = environment(KEYHOLE_ADDR=servers.address, KEYHOLE_TOKEN=servers.token)
    command = [built.node(), str(built.built() / "test/leasing.js"), CAPPED]
    with child(command, env=env, stdout=subprocess.PIPE) as process:
        try:
            first, second = json.loads(process.stdout.readline()), json.loads(process.stdout.readline())
            assert (first["version"], second["version"]) == (1, 2)
            assert gets_in(second)
        finally:
            process.terminate()
        assert process.wait(60) == -signal.SIGTERM
    until(lambda: not users() & {first["username"], second["username"]})


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
    with child([sys.executable, "-c", PROGRAM], env=env, stdout=subprocess.PIPE, text=True) as process:
        name = process.stdout.readline().strip()
        assert name in users()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
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


def test_a_lease_that_was_being_made_is_taken_back_however_often_who_waits_is_cancelled():
    class Slow(Lease):
        def __init__(self):
            self.asked, self.may, self.did = threading.Event(), threading.Event(), []

        def _catch_sigterm(self):
            self.did.append("catch")

        def _let_sigterm(self):
            self.did.append("let")

        def start(self):
            self.asked.set()
            self.may.wait(10)
            self.did.append("start")

        def stop(self):
            self.did.append("stop")

    async def main():
        lease = Slow()
        task = asyncio.create_task(AsyncLease(lambda: lease).__aenter__())
        await asyncio.to_thread(lease.asked.wait, 10)
        for _ in range(2):
            task.cancel()
            await asyncio.wait([task], timeout=0)
        lease.may.set()
        await asyncio.wait([task])
        assert (task.cancelled(), lease.did) == (True, ["catch", "start", "stop", "let"])

    asyncio.run(main())


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


# keyhole leases run

SHOW = "import os; print(os.environ['PGUSER'], 'KEYHOLE_TOKEN' in os.environ, flush=True)"
USER = ["--env", "PGUSER=username"]


@pytest.fixture
def env(servers):
    return environment(KEYHOLE_ADDR=servers.servers[1].url, KEYHOLE_TOKEN=servers.token)


def leased(*words, env, role="long", program=SHOW):
    return spawn(
        "leases", "run", "--source", f"/database/creds/{role}", *words, "--", sys.executable, "-c", program, env=env
    )


def test_a_command_has_it_in_its_environment_and_it_is_gone_afterwards(env):
    ran = leased(*USER, env=env, program=SHOW + "; raise SystemExit(7)")
    assert ran.code == 7
    name, token = ran.out.split()
    assert name.startswith("v-")
    assert token == "False"
    until(lambda: name not in users())


def test_a_file_is_written_for_its_owner_alone_and_removed(env, tmp_path):
    (tmp_path / "template").write_text("user={{username}}\npassword = {{ password }}\n")
    target = tmp_path / "app.ini"
    program = f"import os; p = {str(target)!r}; print(open(p).read(), oct(os.stat(p).st_mode))"
    ran = leased("--file", f"{target}={tmp_path / 'template'}", env=env, program=program)
    assert ran.code == 0
    assert "user=v-" in ran.out
    assert ran.out.rstrip().endswith("0o100600")
    assert not target.exists()


def test_a_command_ends_with_its_credential_or_is_started_again_with_another(env, tmp_path):
    wait = SHOW + "; import time; time.sleep(600)"
    ran = leased(*USER, env=env, role="capped", program=wait)
    assert ran.code == 125
    assert "another credential took the place" in ran.err
    mark = tmp_path / "mark"
    twice = SHOW + f"; import pathlib, time; m = pathlib.Path({str(mark)!r})"
    twice += "\nif m.exists(): raise SystemExit(3)\nm.touch(); time.sleep(600)"
    ran = leased(*USER, "--on-change", "restart", env=env, role="capped", program=twice)
    assert ran.code == 3
    assert len({line.split()[0] for line in ran.out.splitlines()}) == 2


def test_a_signal_reaches_the_command_and_the_credential_is_taken_back(env):
    program = SHOW + "; import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(5)); "
    program += "print('ready', flush=True); time.sleep(600)"
    words = ["leases", "run", "--source", "/database/creds/long", *USER, "--", sys.executable, "-c", program]
    command = [sys.executable, "-m", "keyhole", *words]
    with child(command, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        name = process.stdout.readline().split()[0]
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 5
    until(lambda: name not in users())


def test_mistakes_are_said_before_anything_is_leased_or_started(env, tmp_path):
    before = users()
    (tmp_path / "there").write_text("mine")
    for words in ([], ["--env", "PGUSER"], ["--file", f"{tmp_path / 'there'}=x"], ["--file", f"{tmp_path / 'new'}=no"]):
        assert run("leases", "run", "--source", "/x", *words, "--", "true").code == 125
    assert leased("--env", "X=none", env=env).code == 125
    assert (tmp_path / "there").read_text() == "mine"
    missing = spawn("leases", "run", "--source", "/database/creds/long", *USER, "--", "/nowhere", env=env)
    assert missing.code == 127
    until(lambda: users() <= before)
