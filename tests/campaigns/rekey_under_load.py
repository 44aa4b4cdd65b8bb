"""Change every key of a vault while two servers are written to at a fixed rate, and look for what that costs anybody.

    python tests/campaigns/rekey_under_load.py --seconds 60 --rate 50 [--postgres]

Two `keyhole server` processes share one store. Twelve clients write at the given rate over HTTP, half of them to each
server, and read each value back from the other server. Meanwhile the key of the org is rotated and everything is sealed
again under it, at one server and then at the other, and the root key is changed by holders of shares, over and over.
No read and no write may fail, each acknowledged value is there in the end, and what the keys of before still open is
nothing: neither does the keyring of the first moment open any entry, nor do the first shares open the vault.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import postgres_server
from cli_driver import environment, serving
from keyhole.core.errors import IntegrityError, KeyholeError
from keyhole.crypto.keyring import Where
from keyhole.stores import open_store
from keyhole.vault.node import Node

CLIENTS = 12
SHARES = {"secret_shares": 3, "secret_threshold": 2}


class Asker:
    """One connection to one server. Failures are counted, not raised: they are what is looked for."""

    def __init__(self, stack, started, token):
        self.token = token
        self.connection = http.client.HTTPConnection(started["api"].removeprefix("http://"), timeout=30)
        stack.callback(self.connection.close)

    def __call__(self, method, path, body=None):
        raw = None if body is None else json.dumps(body)
        self.connection.request(method, f"/v1/{path}", raw, {"X-Vault-Token": self.token} if self.token else {})
        answer = self.connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else {}


@dataclass
class Found:
    """What one client saw."""

    written: dict = field(default_factory=dict)
    writes: int = 0
    reads: int = 0
    wrong: list = field(default_factory=list)
    slowest: float = 0.0


def client(number, here, there, pace, ending, found):
    """Write at a pace, and read from the other server, until it ends."""
    began = time.monotonic()
    while not ending.wait(max(0.0, began + found.writes * pace - time.monotonic())):
        name, value = f"c{number}/s{found.writes % 50}", f"{number}-{found.writes}"
        sent = time.monotonic()
        status, answer = here("POST", f"secret/data/{name}", {"data": {"v": value}})
        found.writes += 1
        if status == 200:
            found.written[name] = value
        else:
            found.wrong.append(("write", status, answer.get("errors")))
        status, answer = there("GET", f"secret/data/{name}")
        found.reads += 1
        if status != 200 or answer["data"]["data"] != {"v": found.written.get(name)}:
            found.wrong.append(("read", status, answer.get("errors")))
        found.slowest = max(found.slowest, time.monotonic() - sent)


def must(asked):
    status, answer = asked
    assert status < 300, answer
    return answer


def change(ask, keys):
    """Another term of the org's key, everything under it, and another root key; the new shares."""
    must(ask("POST", "sys/rotate"))
    must(ask("POST", "sys/rewrap"))
    begun = must(ask("PUT", "sys/rekey/init", SHARES))
    for key in keys[:2]:
        done = must(ask("PUT", "sys/rekey/update", {"key": key, "nonce": begun["nonce"]}))
    return done["keys"]


@contextlib.asynccontextmanager
async def opened(location, keys):
    node = Node(await open_store(location))
    try:
        for key in keys[:2]:
            await node.enter_share(bytes.fromhex(key))
        yield node
    finally:
        await node.close()


async def ring_of(location, keys):
    """The keyring of the org root as it is now."""
    async with opened(location, keys) as node:
        vault = node.open_vault()
        return vault.keys.ring(vault.root_org)


async def opens_anything(location, keys, ring):
    """Whether this ring opens any entry of the org that is in the store."""
    async with opened(location, keys) as node:
        org, after = node.open_vault().root_org, ""
        while page := await node.store.list(f"{org}/", after=after, limit=1000):
            after = page[-1]
            for key, entry in zip(page, await node.store.get(page), strict=True):
                if entry.value:
                    with contextlib.suppress(IntegrityError):
                        ring.open(entry.value, Where(org, key.split("/")[1], key, entry.revision))
                        return True
        return False


async def unlocks(location, keys):
    try:
        async with opened(location, keys) as node:
            node.open_vault()
            return True
    except KeyholeError:
        return False


def campaign(location, seconds, rate, *, secrets=500, report=print):
    """Raises ``AssertionError`` at the first broken promise; gives what was measured."""
    with contextlib.ExitStack() as stack:
        folders = [stack.enter_context(tempfile.TemporaryDirectory(prefix="keyhole-campaign-")) for _ in range(2)]
        started = [
            stack.enter_context(serving("--vault", location, "--await-init", env=environment(KEYHOLE_HOME=folder)))[1]
            for folder in folders
        ]
        made = must(Asker(stack, started[0], "")("PUT", "sys/init", SHARES))
        keys = made["keys"]
        for server in started:
            for key in keys[:2]:
                state = must(Asker(stack, server, "")("PUT", "sys/unseal", {"key": key}))
            assert state["sealed"] is False
        ask = [Asker(stack, server, made["root_token"]) for server in started]
        must(ask[0]("POST", "sys/mounts/secret", {"type": "kv-v2"}))
        for number in range(secrets):
            must(ask[0]("POST", f"secret/data/old/s{number}", {"data": {"v": f"old {number}"}}))
        first = asyncio.run(ring_of(location, keys))
        pairs = [
            [Asker(stack, started[(number + side) % 2], made["root_token"]) for side in (0, 1)]
            for number in range(CLIENTS)
        ]
        found = _loaded(pairs, seconds, rate, ask, keys, report)
        keys = found.pop("keys")
        for number in range(secrets):
            answer = must(ask[number % 2]("GET", f"secret/data/old/s{number}"))
            assert answer["data"]["data"] == {"v": f"old {number}"}
        lost = [name for name, value in found.pop("written").items() if _value(ask[0], name) != value]
        assert not lost, f"acknowledged and lost: {lost}"
        assert must(ask[1]("GET", "sys/audit-log/verify"))["data"]["valid"]
    assert not asyncio.run(opens_anything(location, keys, first)), "the first keyring still opens an entry"
    assert asyncio.run(unlocks(location, keys))
    assert not asyncio.run(unlocks(location, made["keys"])), "the first shares still open the vault"
    return found


def _value(ask, name):
    return must(ask("GET", f"secret/data/{name}"))["data"]["data"]["v"]


def _loaded(pairs, seconds, rate, ask, keys, report):
    """The clients, and the changes of keys while they are at work."""
    ending, found = threading.Event(), [Found() for _ in range(CLIENTS)]
    threads = [
        threading.Thread(target=client, args=(number, *pair, CLIENTS / rate, ending, found[number]))
        for number, pair in enumerate(pairs)
    ]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    changes = 0
    try:
        while changes < 2 or time.monotonic() < began + seconds:
            keys = change(ask[changes % 2], keys)
            changes += 1
            report(f"change {changes}: {sum(each.writes for each in found)} writes so far")
    finally:
        ending.set()
        for thread in threads:
            thread.join()
    took = time.monotonic() - began
    wrong = [each for one in found for each in one.wrong]
    writes, reads = sum(each.writes for each in found), sum(each.reads for each in found)
    report(f"{writes} writes and {reads} reads in {took:.1f} s: {writes / took:.1f} writes a second")
    report(f"{changes} changes of every key, {len(wrong)} failed, slowest pair {max(o.slowest for o in found):.3f} s")
    assert not wrong, wrong[:5]
    written = {name: value for one in found for name, value in one.written.items()}
    return {"keys": keys, "written": written, "changes": changes, "writes": writes, "rate": writes / took}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=50, help="writes a second of all clients together")
    parser.add_argument("--postgres", action="store_true", help="share a PostgreSQL, started for this")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="keyhole-campaign-") as folder:
        location = postgres_server.location() if options.postgres else f"sqlite:{folder}/vault.db"
        found = campaign(location, options.seconds, options.rate)
    print(f"nothing lost; {found['writes']} writes, {found['rate']:.1f} a second, {found['changes']} changes of keys")


if __name__ == "__main__":
    main()
