"""Kill a process that works on a vault, again and again, and hold the vault to its word each time.

    python tests/campaigns/kill_vault.py --rounds 200 --seed 1 [--vault /tmp/campaign/vault.db]

Eight writers go through the door in one process: they store, check-and-set and delete versions of secrets, make tokens
and children of them, and revoke them. Each acknowledged request goes down a pipe before the next is made. After
``kill -9``: every acknowledged write is there with its whole value, others wholly or not at all, versions have no gap,
acknowledged tokens live and revoked ones are dead with their children, the journal verifies and has the intent of every
acknowledged request, and the file passes SQLite's own check.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from keyhole.core.errors import InvalidRequest, NotFound, Unauthenticated
from keyhole.testing import MemorySeal, open_vault
from keyhole.vault.audit import open_row

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from campaigns import kill_store

WRITERS = 8
NAMES = [f"team/s{number}" for number in range(24)]
KEEP = 10_000
SAMPLE = 0.02
PARENT = 'path "auth/token/create" { capabilities = ["update"] }'


def seal_of(location):
    """The same key for every life of the vault, so that nothing but the store has to survive."""
    return MemorySeal(hashlib.sha256(location.encode()).digest())


def opened(location):
    return open_vault(location, seal=seal_of(location))


def value_of(mark):
    """A value that shows whether it is whole."""
    return mark + "." + hashlib.sha256(mark.encode()).hexdigest() * (1 + len(mark) % 40)


async def put(vault, rng, mark, mine):
    name = rng.choice(NAMES)
    data = {"data": {"value": value_of(mark)}}
    if rng.random() < 0.5:
        with contextlib.suppress(NotFound):
            current = (await vault.ask("read", f"secret/metadata/{name}")).data["current_version"]
            data["options"] = {"cas": current}
    reply = await vault.ask("update", f"secret/data/{name}", data)
    mine.append((name, reply.data["version"]))
    return reply, ["put", name, reply.data["version"], mark]


async def delete(vault, rng, _mark, mine):
    name, version = mine.pop(rng.randrange(len(mine)))
    reply = await vault.ask("update", f"secret/delete/{name}", {"versions": [version]})
    return reply, ["delete", name, version]


async def make_token(vault, rng, _mark, tokens):
    parent = rng.choice(tokens) if tokens and rng.random() < 0.5 else None
    reply = await vault.ask("update", "auth/token/create", {"policies": ["parent"]}, token=parent)
    tokens.append(reply.auth["client_token"])
    return reply, ["token", tokens[-1], parent]


async def revoke(vault, rng, _mark, tokens):
    token = tokens.pop(rng.randrange(len(tokens)))
    say("", "try", token)
    reply = await vault.ask("update", "auth/token/revoke", {"token": token})
    return reply, ["revoke", token]


async def write(vault, writer, life, rng):
    """Ask for ever. A line on stdout says that a request was acknowledged."""
    mine, tokens, number = [], [], 0
    while True:
        number += 1
        action, own = rng.choices(
            [(put, mine), (delete, mine), (make_token, tokens), (revoke, tokens)], weights=[6, 2, 3, 1]
        )[0]
        if action in (delete, revoke) and not own:
            continue
        try:
            reply, line = await action(vault, rng, f"{life}.{writer}.{number}", own)
        except (InvalidRequest, Unauthenticated):
            continue  # somebody else's version came first, or the parent was revoked
        say(reply.request_id, *line)


def say(*line):
    os.write(sys.stdout.fileno(), json.dumps(line).encode() + b"\n")


async def work(location, seed):
    async with opened(location) as vault:
        rngs = [random.Random(f"{seed}/{writer}") for writer in range(WRITERS)]
        await asyncio.gather(*(write(vault, writer, seed, rngs[writer]) for writer in range(WRITERS)))


async def prepare(location):
    async with opened(location) as vault:
        await vault.ask("update", "secret/config", {"max_versions": KEEP})
        await vault.ask("update", "sys/policies/acl/parent", {"policy": PARENT})


@dataclass
class Told:
    """What the writers were told is done."""

    requests: set = field(default_factory=set)
    versions: dict = field(default_factory=dict)
    deleted: set = field(default_factory=set)
    parents: dict = field(default_factory=dict)
    revoked: set = field(default_factory=set)
    tried: set = field(default_factory=set)
    looked_at: set = field(default_factory=set)
    total: int = 0

    def note(self, line):
        request_id, kind, *rest = json.loads(line)
        if kind == "try":
            self.tried.add(rest[0])
            return
        self.requests.add(request_id)
        self.total += 1
        if kind == "put":
            name, version, mark = rest
            assert (name, version) not in self.versions, f"version {version} of {name} was given out twice"
            self.versions[name, version] = mark
        elif kind == "delete":
            self.deleted.add(tuple(rest))
        elif kind == "token":
            self.parents[rest[0]] = rest[1]
        else:
            self.revoked.add(rest[0])

    def ended(self, token, by):
        """Is the token, or one that it descends from, among these?"""
        while token:
            if token in by:
                return True
            token = self.parents.get(token)
        return False


async def check_secrets(vault, told, rng):
    """All versions by number; the values of those that nobody has looked at yet, and of some of the others."""
    found = 0
    for name in NAMES:
        try:
            versions = (await vault.ask("read", f"secret/metadata/{name}")).data["versions"]
        except NotFound:
            versions = {}
        assert sorted(map(int, versions)) == list(range(1, len(versions) + 1)), f"{name} has a gap"
        acknowledged = {version for (n, version) in told.versions if n == name}
        assert acknowledged <= set(map(int, versions)), f"acknowledged and lost: {name}"
        found += len(versions)
        for number, meta in versions.items():
            key = (name, int(number))
            if meta["deletion_time"]:
                continue
            assert key not in told.deleted, f"{key} was deleted and is back"
            if key in told.looked_at and rng.random() > SAMPLE:
                continue
            told.looked_at.add(key)
            value = await read(vault, *key)
            mark = ".".join(value.split(".")[:3])
            assert value == value_of(mark), f"{key} is not whole"
            assert told.versions.get(key, mark) == mark, f"{key} has another value than was acknowledged"
    return found


async def read(vault, name, number):
    reply = await vault.ask("read", f"secret/data/{name}", {"version": str(number)})
    return json.loads(reply.data["data"].reveal())["value"]


async def count_live(vault, told):
    """Tokens that live. A revocation that was not acknowledged may have happened all the same, with all children."""
    lives = 0
    for token in told.parents:
        try:
            await vault.vault.authenticate(token.encode())
        except Unauthenticated:
            assert told.ended(token, told.tried), "an acknowledged token that nobody revoked is dead"
            continue
        assert not told.ended(token, told.revoked), "a revoked token lives"
        lives += 1
    return lives


async def verify(location, told, seen, rng):
    """Hold the vault to its word; versions and rows in it, and tokens that live."""
    async with opened(location) as vault:
        result = (await vault.ask("read", "sys/audit-log/verify")).data
        assert result["valid"], result["problems"]
        store, keys = vault.node.store, vault.vault.keys
        for writer in await store.heads():
            while page := await store.scan(writer, after=seen.get(writer, 0)):
                told.requests -= {open_row(keys.ring(row.partition), row).id for row in page}
                seen[writer] = page[-1].sequence
        assert not told.requests, f"{len(told.requests)} acknowledged requests have no record"
        versions = await check_secrets(vault, told, rng)
        return versions, result["records"], await count_live(vault, told)


def campaign(path, rounds, seed, *, report=print):
    """Run all rounds on one vault; raises ``AssertionError`` at the first broken promise."""
    location = f"sqlite:{path}"
    rng = random.Random(seed)
    told, seen = Told(), {}
    asyncio.run(prepare(location))
    figures = (0, 0, 0)
    for number in range(1, rounds + 1):
        process = kill_store.start([__file__, "--worker", location, "--seed", str(rng.getrandbits(32))])
        for line in kill_store.kill_after(process, rng.uniform(0, 0.25)):
            told.note(line)
        figures = asyncio.run(verify(location, told, seen, rng))
        kill_store.check_file(path)
        versions, records, lives = figures
        report(
            f"round {number}: {told.total} acknowledged, {versions} versions, {lives} live tokens,"
            f" {records} records, nothing lost"
        )
    return told, figures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--vault", help="path of a vault that does not exist yet")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        asyncio.run(work(options.worker, options.seed))
    folder = Path(tempfile.mkdtemp(prefix="keyhole-campaign-"))
    campaign(options.vault or folder / "vault.db", options.rounds, options.seed)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
