"""Let requests about leases race each other on two nodes of one store, and look at what lives afterwards.

    python tests/campaigns/lease_races.py --rounds 500 --seed 1

Each round of a race meets at another moment:

- ``token``: a credential is in flight while its token is revoked, or the token above. It dies.
- ``child``: a child token is created, and a credential asked for with it, while its parent is revoked. Both die.
- ``prefix``: credentials are asked for while the path is revoked. What was asked for by then dies.
- ``org``: credentials are asked for in an org that is deleted. All of them die.
- ``renew``: a lease is renewed within its last 100 ms or just after its end, while both nodes sweep. What was answered
  holds on both nodes and at the target; what was refused is gone from them.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

from keyhole.core.errors import KeyholeError, NotFound

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from vault.lab import Lab
from vault.world import Place, child

READ = 'path "lab/creds/*" { capabilities = ["read"] }\npath "auth/token/create" { capabilities = ["update"] }'
AT_ONCE = 50
LONG = 3600


class Rig:
    """Two nodes over one store, and one place where things are made."""

    def __init__(self, nodes, lab, rng):
        self.nodes, self.lab, self.rng = nodes, lab, rng

    @property
    def node(self):
        return self.rng.choice(self.nodes)

    async def soon(self, most=0.01):
        await asyncio.sleep(self.rng.uniform(0, most))

    async def issue(self, token=None):
        """A lease, or what refused it."""
        await self.soon()
        try:
            return (await self.node.ask("read", "lab/creds/x", token=token)).lease
        except KeyholeError as error:
            return error

    async def lives(self, lease):
        """Is it active, on both nodes?"""
        found = set()
        for vault in self.nodes:
            try:
                await vault.ask("update", "sys/leases/lookup", {"lease_id": lease.id})
            except KeyholeError:
                found.add(False)
            else:
                found.add(True)
        assert len(found) == 1, "the nodes do not agree"
        return found.pop()

    async def settle(self):
        """Until what is being taken back is gone."""
        for vault in self.nodes:
            await vault.vault.expiry.drain()


def given(made):
    return [lease for lease in made if not isinstance(lease, BaseException)]


async def race_token(rig):
    parent = await child(rig.node, policies=["reader"], ttl="1h")
    token = await child(rig.node, token=parent, policies=["reader"], ttl="1h")

    async def revoke():
        await rig.soon()
        await rig.node.ask("update", "auth/token/revoke", {"token": rig.rng.choice((parent, token))})

    *made, _ = await asyncio.gather(*(rig.issue(token) for _ in range(3)), revoke())
    await rig.settle()
    for lease in given(made):
        assert not await rig.lives(lease), "a lease outlived its token"
        assert lease.mark not in rig.lab.alive, "a credential outlived its token"
    return len(given(made))


async def race_child(rig):
    parent = await child(rig.node, policies=["reader"], ttl="1h")
    children = []

    async def create():
        await rig.soon()
        try:
            token = await child(rig.node, token=parent, policies=["reader"], ttl="1h")
        except KeyholeError as error:
            return error
        children.append(token)
        return await rig.issue(token)

    async def revoke():
        await rig.soon()
        await rig.node.ask("update", "auth/token/revoke", {"token": parent})

    *made, _ = await asyncio.gather(create(), create(), revoke())
    await rig.settle()
    for token in children:
        try:
            await rig.node.ask("read", "auth/token/lookup-self", token=token)
        except KeyholeError:
            continue
        raise AssertionError("a child outlived its parent")
    for lease in given(made):
        assert not await rig.lives(lease), "a lease outlived its token"
        assert lease.mark not in rig.lab.alive, "a credential outlived its token"
    return len(children)


async def race_prefix(rig):
    started = []

    async def revoke():
        await rig.soon()
        vault = rig.node
        started.append(vault.vault.clock.now())
        await vault.ask("update", "sys/leases/revoke-prefix/lab", {"sync": True})

    *made, _ = await asyncio.gather(*(rig.issue() for _ in range(3)), revoke())
    await rig.settle()
    for lease in given(made):
        lives = await rig.lives(lease)
        assert lives == (lease.mark in rig.lab.alive), "the store and the target do not agree"
        assert not lives or lease.issued >= started[0] - 0.001, "what was asked for before outlived the revocation"
    await rig.node.ask("update", "sys/leases/revoke-prefix/lab", {"sync": True})
    assert not rig.lab.alive
    return len(given(made))


async def race_org(rig):
    name = f"o{rig.rng.getrandbits(60)}"
    admin = (await rig.nodes[0].ask("update", f"sys/namespaces/{name}")).data["root_token"]

    async def delete():
        await rig.soon()
        await rig.nodes[0].ask("delete", f"sys/namespaces/{name}")

    *made, _ = await asyncio.gather(*(rig.issue(admin) for _ in range(3)), delete())
    for _ in range(200):
        await rig.settle()
        if not rig.lab.alive:
            break
        for vault in rig.nodes:
            await vault.node.sweep()
    else:
        raise AssertionError("a credential outlived its org")
    return len(given(made))


async def race_renewals(rig, rounds):
    """All at once: each lease has an end of its own, and a renewal close to it."""
    rig.lab.ttl = 2
    results = []

    async def one():
        await rig.soon(max(3, rounds / 25))
        lease = await rig.issue()
        assert not isinstance(lease, BaseException), lease
        clock = rig.nodes[0].vault.clock
        await asyncio.sleep(max(0, lease.expires - clock.now() - rig.rng.uniform(-0.02, 0.1)))
        try:
            await rig.node.ask("update", "sys/leases/renew", {"lease_id": lease.id, "increment": LONG})
        except KeyholeError:
            results.append((lease, False))
        else:
            results.append((lease, True))

    async def sweep(vault):
        while len(results) < rounds:
            await vault.node.sweep()
            await asyncio.sleep(0.01)

    await asyncio.gather(*(one() for _ in range(rounds)), *(sweep(vault) for vault in rig.nodes))
    for vault in rig.nodes:
        await vault.node.sweep()
    await rig.settle()
    for lease, renewed in results:
        assert await rig.lives(lease) == renewed, f"renewed: {renewed}, and the nodes say otherwise"
        assert (lease.mark in rig.lab.alive) == renewed, f"renewed: {renewed}, and the target says otherwise"
        if renewed:
            assert rig.lab.alive[lease.mark] > time.time() + LONG - 60
    rig.lab.ttl = LONG
    await rig.node.ask("update", "sys/leases/revoke-prefix/lab", {"sync": True})
    return sum(renewed for _, renewed in results)


RACES = {"token": race_token, "child": race_child, "prefix": race_prefix, "org": race_org}


async def campaign(folder, rounds, seed, *, races=(*RACES, "renew"), report=print):
    """Run all races; raises ``AssertionError`` at the first that ends wrong. How often the makers won, by race."""
    place, lab, won = Place(folder), Lab(ttl=LONG, max_ttl=2 * LONG), {}
    async with place.open() as one, place.open() as two:
        for vault in (one, two):
            lab.mount(vault)
        rig = Rig([one, two], lab, random.Random(seed))
        await one.ask("update", "sys/policies/acl/reader", {"policy": READ})
        for name in races:
            if name == "renew":
                won[name] = await race_renewals(rig, rounds)
            else:
                won[name] = sum([await RACES[name](rig) for _ in range(rounds)])
            report(f"{name}: {rounds} races, the makers won {won[name]} times, nothing outlived its end")
        try:
            left = (await one.ask("list", "sys/leases/lookup/lab/creds")).data["keys"]
        except NotFound:
            left = []
        assert not left
        assert not lab.alive
    return won


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--race", choices=(*RACES, "renew"), action="append", help="only this one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="keyhole-campaign-") as folder:
        races = options.race or (*RACES, "renew")
        asyncio.run(campaign(Path(folder), options.rounds, options.seed, races=races))


if __name__ == "__main__":
    main()
