"""Two processes need the token of one connection at its end, and one of them is killed over the request for another.

    python tests/campaigns/oauth_refresh.py --rounds 20 --seed 1 [--needs 400]

Over one vault file two processes ask for a token ``--needs`` times at once, in the moment in which it has ended; the
provider has single-use refresh tokens and ends a family whose token it sees twice. Each time it has to be asked once,
and all who need it get the same good token.

Then one process is killed with ``kill -9`` before the provider has done anything, after it has and before its answer is
sent, or some time after that. The other one has to go on: with a good token where the provider was never reached, has a
grace, or the answer was stored; else by saying that somebody has to consent, and why, without asking on and on.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import oauth_provider
from campaigns.kill_vault import opened, seal_of
from keyhole.core.errors import KeyholeError
from keyhole.net.ask import Asker
from keyhole.testing import open_vault

LATER = 40.0  # seconds, after which what a dead process has begun is not waited for any more
MOMENTS = ("before", "after", "answered")


class Clock:
    """Elapsed seconds, which can be put forward."""

    def __init__(self):
        self.forward = 0.0

    def __call__(self):
        return time.monotonic() + self.forward


async def need(vault):
    try:
        return json.loads((await vault.ask("read", "oauth/token/crm")).data["access_token"].reveal())
    except KeyholeError as error:
        return {"code": error.code, "reason": error.reason, "hint": error.hint}


async def work(location):
    """A process of the vault: does what it is told by lines on stdin, and answers each with a line."""
    clock = Clock()
    async with open_vault(location, seal=seal_of(location), clock=clock) as vault:
        vault.vault.net = Asker()
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            count, later = json.loads(line)
            clock.forward += later
            found = await asyncio.gather(*(need(vault) for _ in range(count)))
            print(json.dumps(found), flush=True)


class Worker:
    def __init__(self, location):
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--work", location], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout.readline() == "ready\n"

    def tell(self, count, later=0.0):
        self.process.stdin.write(json.dumps([count, later]) + "\n")
        self.process.stdin.flush()

    def hear(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Killing(oauth_provider.Provider):
    """Kills whoever asks for a refresh, at a moment of that."""

    def __init__(self):
        super().__init__()
        self.victim, self.moment, self.delay = None, "", 0.0

    def token(self, form):
        victim, moment = self.victim, self.moment
        if victim is None:
            return super().token(form)
        self.victim = None
        if moment == "before":
            victim.process.send_signal(signal.SIGKILL)
            victim.process.wait()
            return 503, {}
        said = super().token(form)
        if moment == "after":
            victim.process.send_signal(signal.SIGKILL)
            victim.process.wait()
        else:
            oauth_provider.threading.Timer(self.delay, victim.process.send_signal, (signal.SIGKILL,)).start()
        return said


def connect(location, provider):
    """A connection with a new refresh token, and no token yet."""

    async def main():
        async with opened(location) as vault:
            vault.vault.net = Asker()
            mounts = (await vault.ask("read", "sys/mounts")).data
            if "oauth/" not in mounts:
                await vault.ask("update", "sys/mounts/oauth", {"type": "oauth"})
            settings = provider.settings(grant="refresh_token", refresh_token=provider.consent())
            await vault.ask("update", "oauth/connections/crm", settings)

    asyncio.run(main())


def at_its_end(location, provider, workers, needs):
    """Both need a token when it has just ended; how many requests that made, and what they got."""
    provider.life = 1
    connect(location, provider)
    workers[0].tell(1)
    workers[0].hear()
    time.sleep(1.1)
    provider.life = 3600
    before = provider.asked["refresh_token"]
    for worker in workers:
        worker.tell(needs // len(workers))
    found = [token for worker in workers for token in worker.hear()]
    asked = provider.asked["refresh_token"] - before
    assert all(isinstance(token, str) for token in found), found[:3]
    assert (len(found), len(set(found)), asked) == (needs, 1, 1), (len(found), len(set(found)), asked)
    assert provider.knows(found[0])


def killed(location, provider, workers, rng, outcomes):
    """One is killed over a refresh; the other goes on."""
    connect(location, provider)
    victim, other = workers
    provider.moment, provider.delay = rng.choice(MOMENTS), rng.choice([0.0, 0.005, 0.05, 0.2])
    provider.grace, provider.victim = rng.random() < 0.5, victim
    before = provider.asked["refresh_token"]
    victim.tell(5)
    victim.hear()
    victim.process.kill()
    victim.end()
    other.tell(20, LATER)
    found = other.hear()
    asked = provider.asked["refresh_token"] - before
    good = {token for token in found if isinstance(token, str)}
    outcome = (
        "token" if len(good) == 1 and len(found) == 20 and not any(isinstance(f, dict) for f in found) else "consent"
    )
    if outcome == "token":
        assert provider.knows(good.pop()), "the token that is lent is dead"
    else:
        assert {each["code"] for each in found} == {"consent_required"}, found[:2]
        assert {each["hint"] for each in found} == {"keyhole oauth add crm with a new refresh token"}, found[:2]
        assert "lost" in found[0]["reason"], found[0]
        assert provider.moment != "before", "nothing was lost"
        assert not provider.grace, "the grace was not used"
    assert asked <= 2, f"{asked} requests"
    other.tell(5, LATER)
    other.hear()
    assert provider.asked["refresh_token"] - before == asked, "it asks on and on"
    outcomes[provider.moment, "grace" if provider.grace else "no grace", outcome] += 1
    return [Worker(location), other]


def campaign(location, rounds, kills, needs, rng):
    outcomes = Counter()
    with oauth_provider.running(Killing()) as provider:
        connect(location, provider)
        workers = [Worker(location), Worker(location)]
        try:
            for _ in range(rounds):
                at_its_end(location, provider, workers, needs)
            for _ in range(kills):
                workers = killed(location, provider, workers, rng, outcomes)
        finally:
            for worker in workers:
                worker.end()
    return outcomes


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--kills", type=int, default=-1, help="as many as rounds unless said")
    parser.add_argument("--needs", type=int, default=400)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    parser.add_argument("--work", default="")
    args = parser.parse_args()
    if args.work:
        asyncio.run(work(args.work))
        return
    print(f"seed {args.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        location = f"sqlite:{folder}/private/vault.db"
        kills = args.rounds if args.kills < 0 else args.kills
        outcomes = campaign(location, args.rounds, kills, args.needs, random.Random(args.seed))
    print(f"{args.rounds} times {args.needs} needs of two processes made one request each")
    for (moment, grace, outcome), number in sorted(outcomes.items()):
        print(f"killed {moment}, {grace}: {outcome} {number} times")


if __name__ == "__main__":
    main()
