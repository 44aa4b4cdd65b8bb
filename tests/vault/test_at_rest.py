"""What lies on the disk: nothing that can be read, and nothing that can be changed unnoticed."""

import asyncio
import base64
import json
import secrets
import sqlite3

import pytest

from keyhole.core.errors import Conflict, IntegrityError, KeyholeError, NotFound, StoreUnavailable
from keyhole.core.request import LocalOwner, Operation, Request
from keyhole.core.value import Secret
from keyhole.crypto import kdf
from keyhole.seals.passphrase import PassphraseSeal
from keyhole.stores import Batch, open_store
from keyhole.vault.keys import SYSTEM, read_header
from keyhole.vault.node import Node
from keyhole.vault.tokens import MOUNT
from vault.world import Place, agent, child, org, play, refusal, stripe, use

PASSPHRASE = "correct horse battery staple"
TYPES = ("api-key", "oauth-token", "password", "certificate", "connection-string")


def forms(needle):
    """A needle as somebody would look for it."""
    yield needle
    yield needle.hex().encode()
    yield needle.hex().upper().encode()
    yield needle.decode("latin-1").encode("utf-16-le")
    for shift in range(3):  # base64 at each offset, without what the neighbours decide
        text = base64.b64encode(b"\0" * shift + needle)
        cut = text[(shift * 8 + 5) // 6 : len(text) - 4]
        yield cut
        yield cut.replace(b"+", b"-").replace(b"/", b"_")


def test_neither_values_nor_names_nor_keys_are_found_in_any_file_of_the_vault(tmp_path, monkeypatch):
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    place = Place(tmp_path)

    def canary(kind):
        return f"{kind}-{secrets.token_hex(9)}"

    async def fill(vault):
        found = []
        for number in range(1000):
            value, name = canary("canary"), canary("name")
            found += [value, name]
            body = {"data": {canary("field"): value}, "options": {"type": TYPES[number % 5], "owner": canary("owner")}}
            found += [*body["data"], body["options"]["owner"]]
            await vault.ask("update", f"secret/data/{name}/{canary('deep')}", body)
        await stripe(vault)
        service, agent_name, org_name, policy = (canary(kind)[:40] for kind in ("service", "agent", "org", "policy"))
        await vault.ask("update", f"services/{service}", (await _service(vault)))
        token = await agent(vault, agent_name, services=[service], workflow=canary("flow"))
        await use(vault, f"services/{service}", token)
        await vault.ask(
            "update", f"sys/policies/acl/{policy}", {"policy": f'path "{policy}" {{ capabilities = ["read"] }}'}
        )
        await vault.ask("update", "cubbyhole/x", {"k": (drawer := canary("drawer"))})
        found += [service, agent_name, org_name, policy, token, drawer, await org(vault, org_name), await child(vault)]
        keys = vault.vault.keys
        raw = [keys.token_key, keys.signing.to_bytes(), keys.ring(SYSTEM).to_bytes()[1:40]]
        raw += [keys.ring(vault.vault.root_org).to_bytes()[1:40], keys.ring(vault.vault.root_org).to_bytes()[-32:]]
        files = [p for p in tmp_path.rglob("*") if p.is_file()]
        assert any(p.name.endswith("-wal") for p in files)
        return [text.encode() for text in found] + raw, b"".join(p.read_bytes() for p in files)

    needles, live = place.play(fill)
    closed = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    bytes_on_disk = live + closed
    assert len(needles) > 4000
    kinds = ("canary", "name", "field", "deep", "owner", "service", "agent", "org", "policy", "flow", "drawer")
    assert not [kind for kind in kinds if f"{kind}-".encode() in bytes_on_disk]
    for needle in needles[::80] + needles[-20:]:
        assert not [form for form in forms(needle) if form in bytes_on_disk]


async def _service(vault):
    return {key: value for key, value in (await vault.ask("read", "services/stripe")).data.items() if key != "name"}


def test_the_search_would_find_what_is_there():
    for wrapped in (
        b"canary-1",
        b"canary-1".hex().encode(),
        "canary-1".encode("utf-16-le"),
        base64.b64encode(b"xcanary-1yy"),
    ):
        assert any(form in b"...." + wrapped + b"...." for form in forms(b"canary-1"))


@pytest.fixture
def kinds(tmp_path):
    """A vault with one entry of each kind: its place, the store keys, and a question that needs the entry."""
    place = Place(tmp_path)

    async def fill(vault):
        await stripe(vault)
        token = await agent(vault, services=["stripe"])
        await vault.ask("update", "cubbyhole/x", {"k": "v"})
        root, tokens = vault.vault.root_org, vault.vault.tokens

        def key(mount, path):
            return vault.vault.storage(root, mount).key(path)

        return token, {
            "secret": (key("kv", "k/stripe/api-key"), ("read", "secret/data/stripe/api-key", "root")),
            "service": (key("services", "stripe"), ("use", "services/stripe", token)),
            "policy": (key("policies", "p/agent/coder"), ("use", "services/stripe", token)),
            "token": (key(MOUNT, f"t/{tokens.hash(token.encode())}"), ("read", "auth/token/lookup-self", token)),
            "agent": (key("agents", "a/coder"), ("read", "agents/coder", "root")),
            "drawer": (key("cubbyhole", f"{tokens.hash(b'root')}/x"), ("read", "cubbyhole/x", "root")),
            "keyring": (f"sys/keyring/{root}", ("read", "sys/mounts", "root")),
            "signing key": ("sys/signing", ("read", "sys/mounts", "root")),
            "system keyring": ("sys/keyring/sys", ("read", "sys/mounts", "root")),
        }

    _, found = place.play(fill)
    return place, found


def change(place, key, value):
    with sqlite3.connect(place.file) as db:
        (before,) = db.execute("SELECT value FROM entry WHERE key = ?", (key,)).fetchone()
        db.execute("UPDATE entry SET value = ? WHERE key = ?", (value if value is not None else before, key))
    db.close()
    return bytes(before)


@pytest.mark.parametrize(
    "kind",
    ["secret", "service", "policy", "token", "agent", "drawer", "keyring", "signing key", "system keyring"],
)
def test_a_changed_entry_is_an_error_and_never_another_meaning(kinds, kind):
    place, found = kinds
    key, (operation, path, token) = found[kind]

    async def ask(vault):
        return await refusal(vault.ask(operation, path, token=token))

    def outcome():
        try:
            return place.play(ask)
        except KeyholeError as error:  # it does not even open
            return error

    assert outcome() is None
    original = change(place, key, None)
    step = max(1, len(original) // 12)
    damaged = [
        original[:at] + bytes((original[at] ^ 1 << at % 8,)) + original[at + 1 :]
        for at in range(0, len(original), step)
    ]
    damaged += [original[:-1], original[: len(original) // 2], original[:5], b"", original + b"\0", original * 2]
    for blob in damaged:
        change(place, key, blob)
        error = outcome()
        assert isinstance(error, IntegrityError), (kind, error)
    change(place, key, original)
    assert outcome() is None


def test_the_header_in_clear_opens_nothing_when_it_is_changed(tmp_path):
    place = Place(tmp_path)
    place.play(stripe)
    header = json.loads(change(place, "sys/vault", None))

    async def ask(vault):
        return await vault.ask("read", "secret/data/stripe/api-key")

    for blob in (
        b"",
        b"{}",
        b"[]",
        b"\xff",
        json.dumps({**header, "format": 2}).encode(),
        json.dumps({**header, "root": "AAAA"}).encode(),
        json.dumps({**header, "id": 5}).encode(),
        json.dumps({**header, "seal": ["memory"]}).encode(),
        json.dumps({**header, "recovery": [float("inf"), 1]}).encode(),
        b"[" * 100_000,
    ):
        change(place, "sys/vault", blob)
        with pytest.raises((IntegrityError, StoreUnavailable)):
            place.play(ask)
    change(place, "sys/vault", json.dumps(header).encode())
    place.play(ask)


class Sealed:
    """A vault in a file that a passphrase opens."""

    def __init__(self, folder):
        self.location = f"sqlite:{folder}/private/vault.db"
        self.file = folder / "private" / "vault.db"

    async def node(self):
        return Node(await open_store(self.location, create=True))

    def run(self, scenario):
        async def main():
            node = await self.node()
            try:
                return await scenario(node)
            finally:
                await node.close()

        return asyncio.run(main())


@pytest.fixture
def sealed(tmp_path):
    place = Sealed(tmp_path)

    async def make(node):
        await node.init("passphrase", Secret(PASSPHRASE))
        await owner(node, "update", "secret/data/x", {"data": {"value": "kept"}})

    place.run(make)
    return place


async def owner(node, operation, path, data=None):
    return await node.handle(Request(LocalOwner(), Operation(operation), path, data or {}))


def test_a_wrong_passphrase_fails_soon_in_one_line_and_changes_nothing(sealed, monkeypatch):
    derived, derive = [], kdf.derive

    def counted(*args, **options):
        derived.append(args)
        return derive(*args, **options)

    monkeypatch.setattr(kdf, "derive", counted)

    async def scenario(node):
        before = sealed.file.read_bytes()
        error = await refusal(node.unseal(Secret("wrong horse battery")))
        assert len(derived) == 1  # which is what takes the time
        assert isinstance(error, IntegrityError)
        assert "\n" not in str(error)
        assert "wrong horse" not in str(error)
        assert node.vault is None
        assert sealed.file.read_bytes() == before
        await node.unseal(Secret(PASSPHRASE))
        assert await owner(node, "read", "secret/data/x")

    sealed.run(scenario)


def test_a_vault_without_its_key_starts_sealed_and_is_never_made_anew(sealed):
    async def scenario(node):
        status = await node.status()
        assert (status["initialized"], status["sealed"], status["type"]) == (True, True, "passphrase")
        assert (await refusal(owner(node, "read", "secret/data/x"))).code == "sealed"
        assert (await refusal(node.unseal())).code == "sealed"
        with pytest.raises(Conflict):
            await node.init("passphrase", Secret("another passphrase"))
        await node.unseal(Secret(PASSPHRASE))
        assert await owner(node, "read", "secret/data/x")
        with pytest.raises(Conflict):
            await node.init("passphrase", Secret("another passphrase"))

    sealed.run(scenario)


def test_an_empty_store_has_nothing_to_unseal(tmp_path):
    async def scenario(node):
        with pytest.raises(NotFound):
            await node.unseal(Secret(PASSPHRASE))

    Sealed(tmp_path).run(scenario)


def test_a_weak_derivation_is_strengthened_at_the_next_unseal_and_a_downgrade_is_refused(sealed):
    async def weaken(node):
        header = await read_header(node.store)
        root = PassphraseSeal(Secret(PASSPHRASE), header.vault_id).unwrap(header.root)
        blobs = {
            profile.name: PassphraseSeal(Secret(PASSPHRASE), header.vault_id, profile=profile).wrap(root)
            for profile in (kdf.FLOOR, kdf.TESTING)
        }
        await _store(node, header, blobs[kdf.FLOOR.name])
        await node.unseal(Secret(PASSPHRASE))
        header = await read_header(node.store)
        assert kdf.DEFAULT.name.encode() in header.root
        assert await owner(node, "read", "secret/data/x")
        await node.seal()
        await _store(node, header, blobs[kdf.TESTING.name])
        with pytest.raises(IntegrityError):
            await node.unseal(Secret(PASSPHRASE))

    async def _store(node, header, blob):
        await node.store.commit(Batch(puts=[header._replace(root=blob).put()]))

    sealed.run(weaken)


def test_uses_of_a_key_are_counted_over_restarts_and_end_at_the_limit(tmp_path):
    place = Place(tmp_path)
    done = 0

    async def some(vault):
        count = 0
        for number in range(150):
            error = await refusal(vault.ask("update", f"secret/data/s{number}", {"data": {}}))
            if error is not None:
                assert isinstance(error, StoreUnavailable)
                assert "rotate" in str(error)
                return count, True
            count += 1
        return count, False

    ended = False
    for _ in range(20):
        count, ended = place.play(some, max_uses=1000)
        done += count
        if ended:
            break
    assert ended
    assert 500 < done <= 1000

    async def go_on(vault):
        assert await refusal(vault.ask("update", "secret/data/more", {"data": {}}))
        assert await vault.ask("read", "secret/data/s1")
        await vault.ask("update", "sys/rotate")
        assert (await vault.ask("read", "sys/key-status")).data["term"] == 2
        await vault.ask("update", "secret/data/more", {"data": {}})
        assert await vault.ask("read", "secret/data/s1")

    place.play(go_on, max_uses=1000)


def test_revoking_at_the_limit_of_a_key_fails_in_words_and_does_not_hang():
    async def scenario(vault):
        token = await child(vault, policies=["default"], num_uses=500)
        error = None
        while error is None:
            error = await refusal(vault.ask("update", "secret/data/x", {"data": {}}))
        assert (await refusal(vault.ask("update", "auth/token/revoke", {"token": token}))).code == "store_unavailable"
        await vault.ask("update", "sys/rotate")
        await vault.ask("update", "auth/token/revoke", {"token": token})

    play(scenario, max_uses=64)


def test_after_a_rotation_on_one_node_every_node_reads_old_and_new(tmp_path):
    place = Place(tmp_path)

    async def main():
        async with place.open() as one, place.open() as two:
            await one.ask("update", "secret/data/old", {"data": {"v": 1}})
            assert (await two.get("secret/data/old"))["data"] == {"v": 1}
            for number in range(5):
                await one.ask("update", "sys/rotate")
                await one.ask("update", f"secret/data/n{number}", {"data": {"v": number}})
                assert (await two.get(f"secret/data/n{number}"))["data"] == {"v": number}
                await two.ask("update", f"secret/data/m{number}", {"data": {"v": number}})
                assert (await one.get(f"secret/data/m{number}"))["data"] == {"v": number}
            assert (await two.get("secret/data/old"))["data"] == {"v": 1}

    asyncio.run(main())
