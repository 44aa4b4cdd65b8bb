"""Every route of every engine, asked by one org with the names of what another one has: as if there were nothing."""

import json

import pytest

from faces.api_client import Client
from keyhole import auth, engines
from keyhole.core.request import Operation
from vault.lab import Lab
from vault.world import CANARY, org, play, stripe

METHODS = {
    Operation.READ: "GET",
    Operation.LIST: "LIST",
    Operation.CREATE: "POST",
    Operation.PATCH: "PATCH",
    Operation.DELETE: "DELETE",
}
MERGE_PATCH = [(b"content-type", b"application/merge-patch+json")]
ENDS = ("auth/token/revoke-self", "sys/seal")  # these would end the test itself
PARTS = 4
NAMING = ("name", "token", "accessor", "lease", "entity", "uuid")
WAITS = ("sys/audit-log/tail", "sys/audit-log/stream")


class World:
    """An org that is asked for, and what it has."""

    def __init__(self, vault):
        self.ask = Client(vault.node)
        self.vault = vault
        self.names = {}

    async def write(self, path, data=None, **options):
        answer = await self.ask("POST", path, data or {}, token=self.token, **options)
        assert answer.status < 300, (path, answer.body)
        return (answer.json.get("data") or answer.json.get("auth") or {}) if answer.body else {}

    async def fill(self):
        """One of each that can be named."""
        self.token = await org(self.vault, "acme")
        await stripe(self.vault, self.token)
        for kind in ("transit", "ssh", "totp"):
            await self.write(f"sys/mounts/{CANARY}-{kind}", {"type": kind})
        await self.write(f"sys/auth/{CANARY}-approle", {"type": "approle"})
        role = await self.write(f"auth/{CANARY}-approle/role/{CANARY}", {"token_policies": "default"})
        assert role == {}
        made = await self.write(f"auth/{CANARY}-approle/role/{CANARY}/secret-id")
        await self.write(f"{CANARY}-transit/keys/{CANARY}")
        await self.write(f"agents/{CANARY}")
        await self.write(f"sys/policies/acl/{CANARY}", {"policy": f'path "{CANARY}" {{ capabilities = ["read"] }}'})
        await self.write("secret/data/" + CANARY, {"data": {"value": CANARY}})
        entity = await self.write("identity/entity", {"name": CANARY})
        group = await self.write("identity/group", {"name": CANARY})
        child = await self.write("auth/token/create", {"policies": ["default"], "display_name": CANARY})
        mounts = (await self.ask("GET", "sys/mounts", token=self.token)).json["data"]
        lease = (await self.ask("GET", f"lab/creds/{CANARY}", token=self.token)).json["lease_id"]
        self.names = {
            "name": CANARY,
            "token": child["client_token"],
            "accessor": child["accessor"],
            "lease": lease,
            "entity": entity["id"],
            "group": group["id"],
            "secret_id": made["secret_id"],
            "mount": mounts[f"{CANARY}-transit/"]["accessor"],
            "uuid": mounts[f"{CANARY}-transit/"]["uuid"],
            "org": self.token.rpartition(".")[2],
        }

    async def state(self):
        """All that lies in the partition of the org, as it is stored: it changes when anything of it does."""
        store, below = self.vault.node.store, self.names["org"] + "/"
        keys = await store.list(below, limit=10_000)
        return [(key, entry.revision) for key, entry in zip(keys, await store.get(keys), strict=True)]


def filled(pattern, value):
    """A route's pattern with the same text for each of its parameters."""
    parts = []
    for segment in pattern.split("/"):
        head, brace, rest = segment.partition("{")
        parts.append(f"{head}{value}{rest.partition('}')[2]}" if brace else segment)
    return "/".join(parts)


def body_of(route, names):
    """A body that names in each field something that fits there, and the rest by the name of everything."""
    fields = {field.name for field in route.fields} | {"token", "accessor", "lease_id", "id", "name"}
    fitting = {"token": "token", "accessor": "accessor", "lease_id": "lease", "id": "entity", "secret_id": "secret_id"}
    fitting |= {"canonical_id": "entity", "mount_accessor": "mount", "member_group_ids": "group"}
    return {field: names[fitting.get(field, "name")] for field in fields}


def told(answer, names):
    """An answer as it can be compared: its status and errors, without what was sent."""
    text = answer.body.decode()
    for value in sorted(names.values(), key=len, reverse=True):
        for form in (value, value.lower(), value[:64], value[:40]):
            text = text.replace(form, "NAME")
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        return answer.status, len(text)
    if isinstance(found, dict) and "errors" in found:
        return answer.status, tuple(found["errors"])
    return answer.status, ()


def absent(value):
    """Something of the same form that nobody has."""
    body, dot, org_id = value.rpartition(".") if value.startswith("hvs.") else (value, "", "")
    return body[:-1] + ("b" if body[-1] == "a" else "a") + dot + org_id


async def telling(world, lines, token):
    """The routes that answer otherwise for what the other org has than for what nobody has, and how many were asked."""
    nothing = {name: absent(value) for name, value in world.names.items()}
    found, count = [], 0
    for path, route, operation in lines:
        for kind in NAMING if "{" in route.pattern else ("name",):
            seen = []
            for names in (world.names, nothing):
                target = (path + filled(route.pattern, names[kind])).rstrip("/")
                body = body_of(route, names) if operation in {Operation.CREATE, Operation.PATCH} else {}
                headers = MERGE_PATCH if operation is Operation.PATCH else []
                world.vault.vault.tables.guesses.tallies._cells["addresses"].clear()
                answer = await world.ask(METHODS[operation], target, body, token=token, headers=headers)
                assert answer.headers.get("x-keyhole-error") != "internal", (operation, target, body, answer.body)
                seen.append(told(answer, names))
                count += 1
            if seen[0] != seen[1]:
                found.append((operation, path + route.pattern, kind, seen))
    return found, count


def lines_of(mounts):
    """Every route with every operation of it."""
    lines = [(mount.path, route, op) for mount in mounts for route in mount.engine.routes for op in route.handlers]
    return [line for line in lines if not (line[0] + line[1].pattern).startswith((*ENDS, *WAITS))]


async def worlds(vault):
    """An org with something of everything, and the token of another with every mount there is."""
    Lab().mount(vault)
    world = World(vault)
    await world.fill()
    mine = (await vault.ask("update", "sys/namespaces/mine")).data["root_token"]
    for kind in auth.MEMBERS:
        await vault.ask("update", f"sys/auth/{kind}", {"type": kind}, token=mine)
    for kind in set(engines.MEMBERS) - set(engines.SINGLE):
        await vault.ask("update", f"sys/mounts/{kind}", {"type": kind}, token=mine)
    await vault.ask("read", "sys/mounts", token=mine)
    return world, mine, lines_of(vault.vault.compiled.last(mine.rpartition(".")[2]).mounts)


@pytest.mark.parametrize("part", range(PARTS))
def test_no_route_tells_one_org_what_another_has_or_changes_it(part):
    async def scenario(vault):
        world, mine, lines = await worlds(vault)
        assert len(lines) > 300
        before = await world.state()
        found, count = await telling(world, lines[part::PARTS], mine)
        assert not found
        assert count > 300
        assert await world.state() == before

    play(scenario)


def test_the_same_questions_tell_an_org_what_it_has_itself():
    async def scenario(vault):
        world, _, lines = await worlds(vault)
        asking = [line for line in lines if line[2] is Operation.READ or "lookup" in line[1].pattern]
        found, _ = await telling(world, asking, world.token)
        told_at = {path for _, path, _, _ in found}
        assert {
            "auth/token/lookup",
            "sys/leases/lookup",
            "identity/entity/id/{id}",
            "sys/policies/acl/{name...}",
        } <= told_at
        assert len(told_at) > 10

    play(scenario)
