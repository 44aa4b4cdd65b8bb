"""Orgs: what one holds does not exist for another, at the door and by the keys."""

import asyncio
import sqlite3

import pytest

from keyhole.core.errors import IntegrityError, InvalidRequest, PolicyDenied, Unauthenticated
from keyhole.core.request import Operation, Request
from keyhole.stores import Batch, Put
from keyhole.vault.tokens import MOUNT as TOKENS
from vault.lab import Lab
from vault.world import CANARY, Place, agent, journal, org, play, recorded, refusal, stripe, use


def test_tokens_of_one_org_are_refused_in_another():
    async def scenario(vault):
        acme, other = await org(vault, "acme"), await org(vault, "other")
        await stripe(vault, acme)
        for token, name in ((acme, "other"), (acme, "root"), (vault.token, "acme"), (other, "acme"), (acme, "none")):
            with pytest.raises(Unauthenticated):
                await vault.ask("read", "secret/data/stripe/api-key", token=token, org=name)
        assert (await vault.ask("read", "secret/data/stripe/api-key", token=acme, org="acme")).found

    play(scenario)


def test_nothing_of_an_org_shows_in_another():
    async def scenario(vault):
        acme, other = await org(vault, "acme"), await org(vault, "other")
        await stripe(vault, acme)
        await agent(vault, "bot", services=["stripe"], token=acme)
        accessor = (await vault.ask("read", "auth/token/lookup-self", token=acme)).data["accessor"]
        for token in (other, vault.token):
            for operation, path in (
                ("read", "secret/data/stripe/api-key"),
                ("read", "secret/metadata/stripe/api-key"),
                ("list", "secret/metadata"),
                ("read", "services/stripe"),
                ("list", "services"),
                ("read", "agents/bot"),
                ("list", "agents"),
                ("use", "services/stripe"),
            ):
                assert (await refusal(vault.ask(operation, path, token=token))).code == "not_found", path
            records = (await vault.ask("read", "sys/audit-log", {"limit": 1000}, token=token)).data["records"]
            assert accessor not in {r["accessor"] for r in records}
        mine = (await vault.ask("read", "sys/audit-log", {"limit": 1000}, token=acme)).data["records"]
        assert {r["accessor"] for r in mine} == {accessor}

    play(scenario)


def test_the_same_token_text_with_another_org_behind_it_is_unknown():
    async def scenario(vault):
        acme, other = await org(vault, "acme"), await org(vault, "other")
        forged = acme.rpartition(".")[0] + "." + other.rpartition(".")[2]
        for token in (forged, acme.rpartition(".")[0], vault.token + "." + acme.rpartition(".")[2]):
            with pytest.raises(Unauthenticated):
                await vault.ask("read", "auth/token/lookup-self", token=token)

    play(scenario)


def test_tokens_and_accessors_of_one_org_are_unknown_in_another():
    async def scenario(vault):
        acme, other = await org(vault, "acme"), await org(vault, "other")
        accessor = (await vault.ask("read", "auth/token/lookup-self", token=acme)).data["accessor"]
        for token in (other, vault.token):
            for path, data in (
                ("auth/token/lookup", {"token": acme}),
                ("auth/token/lookup-accessor", {"accessor": accessor}),
                ("sys/capabilities", {"token": acme, "path": "x"}),
            ):
                assert isinstance(
                    await refusal(vault.ask("update", path, data, token=token)), (PolicyDenied, InvalidRequest)
                )
            await vault.ask("update", "auth/token/revoke", {"token": acme}, token=token)
            await vault.ask("update", "auth/token/revoke-accessor", {"accessor": accessor}, token=token)
        assert (await vault.ask("read", "auth/token/lookup-self", token=acme)).data

    play(scenario)


def test_only_the_org_root_makes_and_deletes_orgs():
    async def scenario(vault):
        acme = await org(vault, "acme")
        for operation, path in (
            ("update", "sys/namespaces/mine"),
            ("delete", "sys/namespaces/acme"),
            ("read", "sys/namespaces/root"),
            ("patch", "sys/namespaces/acme"),
            ("list", "sys/namespaces"),
        ):
            assert isinstance(await refusal(vault.ask(operation, path, token=acme)), PolicyDenied)
        refused = await refusal(vault.ask("update", "sys/seal", token=acme))
        assert (refused.status, refused.reason) == (400, "operation unavailable in namespaces")
        assert (await refusal(vault.ask("delete", "sys/namespaces/root"))).code == "invalid_request"
        assert (await refusal(vault.ask("update", "sys/namespaces/acme"))).code == "conflict"

    play(scenario)


def test_tokens_of_a_deleted_org_are_dead_and_its_name_can_be_taken_again():
    async def scenario(vault):
        acme = await org(vault, "acme")
        await stripe(vault, acme)
        token = await agent(vault, services=["stripe"], token=acme)
        org_id = acme.rpartition(".")[2]
        await use(vault, "services/stripe", token)
        await vault.ask("delete", "sys/namespaces/acme")
        for credential in (acme, token):
            with pytest.raises(Unauthenticated):
                await vault.ask("read", "auth/token/lookup-self", token=credential)
            with pytest.raises(Unauthenticated):
                await use(vault, "services/stripe", credential)
        assert await vault.node.store.list(f"{org_id}/") == []
        assert not any(org_id in key for key in await vault.node.store.list("sys/keyring"))
        again = await org(vault, "acme")
        assert (await refusal(vault.ask("list", "secret/metadata", token=again))).code == "not_found"
        verified = (await vault.ask("read", "sys/audit-log/verify")).data
        assert verified["valid"]

    play(scenario)


def test_an_org_deleted_under_a_running_request_does_not_stop_the_journal(monkeypatch):
    async def scenario(vault):
        acme = await org(vault, "acme")
        dispatch, reached, go_on = vault.vault._dispatch, asyncio.Event(), asyncio.Event()

        async def slow(state, caller, asked):
            if state.org.name == "acme":
                reached.set()
                await go_on.wait()
            return await dispatch(state, caller, asked)

        monkeypatch.setattr(vault.vault, "_dispatch", slow)
        task = asyncio.create_task(refusal(vault.ask("list", "secret/metadata", token=acme)))
        await reached.wait()
        await vault.ask("delete", "sys/namespaces/acme")
        with pytest.raises(Unauthenticated):
            await vault.ask("list", "secret/metadata", token=acme)
        go_on.set()
        await task
        await vault.ask("update", "secret/data/x", {"data": {"a": 1}})
        assert (await vault.ask("read", "sys/audit-log/verify")).data["valid"]

    play(scenario)


@pytest.mark.parametrize("step", ["touch", "purge", "_bury"])
def test_a_sweep_ends_what_a_cut_short_deletion_left(monkeypatch, step):
    async def scenario(vault):
        acme = await org(vault, "acme")
        await vault.ask("update", "secret/data/x", {"data": {"a": 1}}, token=acme)
        org_id = acme.rpartition(".")[2]

        async def crash(*_):
            raise RuntimeError("killed")

        with monkeypatch.context() as patch:
            patch.setattr(vault.vault.orgs, step, crash)
            assert (await refusal(vault.ask("delete", "sys/namespaces/acme"))).code == "internal"
        assert await vault.node.store.list(f"{org_id}/")
        again = await org(vault, "acme")
        await vault.node.sweep()
        with pytest.raises(Unauthenticated):
            await vault.ask("read", "auth/token/lookup-self", token=acme)
        for prefix in (f"{org_id}/", f"sys/keyring/{org_id}", f"sys/uses/{org_id}"):
            assert await vault.node.store.list(prefix) == []
        assert await vault.node.store.due(vault.vault.clock.now()) == []
        assert (await vault.ask("read", "auth/token/lookup-self", token=again)).data

    play(scenario)


def test_a_deletion_that_was_cut_short_is_ended_by_the_next_process(tmp_path, monkeypatch):
    place = Place(tmp_path)

    async def begin(vault):
        lab = Lab().mount(vault)
        acme = await org(vault, "acme")
        await vault.ask("read", "lab/creds/x", token=acme)

        async def crash(*_, **__):
            raise RuntimeError("killed")

        with monkeypatch.context() as patch:
            patch.setattr(vault.vault.expiry, "end", crash)
            assert (await refusal(vault.ask("delete", "sys/namespaces/acme"))).code == "internal"
        return lab, acme

    lab, acme = place.play(begin)
    assert lab.alive

    async def end(vault):
        lab.mount(vault)
        with pytest.raises(Unauthenticated):
            await vault.ask("read", "auth/token/lookup-self", token=acme)
        await vault.node.sweep()
        assert not lab.alive
        await vault.node.sweep()
        assert await vault.node.store.list(acme.rpartition(".")[2] + "/") == []

    place.play(end)


def test_what_an_org_leased_is_taken_back_before_its_keys_are_destroyed():
    async def scenario(vault):
        lab = Lab().mount(vault)
        acme = await org(vault, "acme")
        await vault.ask("read", "lab/creds/x", token=acme)
        lab.down = True
        reply = await vault.ask("delete", "sys/namespaces/acme")
        assert (reply.status, bool(reply.warnings)) == (202, True)
        with pytest.raises(Unauthenticated):
            await vault.ask("read", "lab/creds/y", token=acme)
        await org(vault, "acme")  # the name is free
        lab.down = False
        vault.vault.clock._offset += 3600
        await vault.node.sweep()
        assert not lab.alive
        await vault.node.sweep()
        assert await vault.node.store.list(acme.rpartition(".")[2] + "/") == []

    play(scenario)


def test_a_last_write_of_a_request_that_still_runs_does_not_stop_the_removal_of_an_org(monkeypatch):
    async def scenario(vault):
        acme = await org(vault, "acme")
        org_id, store = acme.rpartition(".")[2], vault.node.store
        commit, late = store.commit, [f"{org_id}/epoch", f"sys/uses/{org_id}/1"]

        async def between(batch):
            for key in [delete.key for delete in batch.deletes if delete.key in late]:
                late.remove(key)
                [entry] = await store.get([key])
                await commit(Batch(puts=[Put(key, entry.value, entry.revision)]))
            await commit(batch)

        monkeypatch.setattr(store, "commit", between)
        await vault.ask("delete", "sys/namespaces/acme")
        assert late == []
        for prefix in (f"{org_id}/", f"sys/keyring/{org_id}", f"sys/uses/{org_id}"):
            assert await store.list(prefix) == []

    play(scenario)


def test_an_org_is_a_namespace_with_texts_about_it():
    async def scenario(vault):
        assert (await refusal(vault.ask("list", "sys/namespaces"))).code == "not_found"
        made = (await vault.ask("update", "sys/namespaces/acme", {"custom_metadata": {"team": "shop"}})).data
        assert (made["path"], made["custom_metadata"]) == ("acme/", {"team": "shop"})
        patched = {"custom_metadata": {"team": None, "tier": "1"}}
        await vault.ask("patch", "sys/namespaces/acme", patched)
        read = (await vault.ask("read", "sys/namespaces/acme")).data
        assert read == {**{name: made[name] for name in read}, "custom_metadata": {"tier": "1"}}
        listed = (await vault.ask("list", "sys/namespaces")).data
        info = {name: read[name] for name in ("id", "path", "uuid", "custom_metadata")}
        assert listed == {"keys": ["acme/"], "key_info": {"acme/": info}}
        assert (await vault.ask("read", "sys/internal/ui/namespaces")).data == {"keys": ["acme/"]}
        token = made["root_token"]
        assert (await vault.ask("read", "sys/internal/ui/namespaces", token=token)).data == {"keys": []}
        for data in ({"custom_metadata": ["x"]}, {"custom_metadata": {"x": 1}}, {"custom_metadata": {"x": "y" * 513}}):
            assert (await refusal(vault.ask("patch", "sys/namespaces/acme", data))).code == "invalid_request"
        for name in ("sys", "auth", "secret", "identity", "a b", "-"):
            assert (await refusal(vault.ask("update", f"sys/namespaces/{name}"))).code == "invalid_request"
        assert (await refusal(vault.ask("patch", "sys/namespaces/none", patched))).code == "not_found"

    play(scenario)


def test_rows_swapped_between_orgs_or_places_do_not_open(tmp_path):
    place = Place(tmp_path)

    async def make(vault):
        tokens = [await org(vault, "acme"), await org(vault, "other")]
        for token in tokens:
            for name in ("one", "two"):
                await vault.ask("update", f"secret/data/{name}", {"data": {"value": CANARY + name}}, token=token)
        orgs = vault.vault.orgs
        ids = [(await orgs.by_name(name)).id for name in ("acme", "other")]
        secrets = {(i, n): vault.vault.storage(i, "kv").key(f"k/{n}") for i in ids for n in ("one", "two")}
        entries = {
            i: [vault.vault.storage(i, TOKENS).key(f"t/{vault.vault.tokens.hash(t.encode())}")]
            for i, t in zip(ids, tokens, strict=True)
        }
        return tokens, ids, secrets, entries

    tokens, (a, b), secrets, entries = place.play(make)

    def swap(one, two):
        with sqlite3.connect(place.file) as db:
            values = [db.execute("SELECT value FROM entry WHERE key = ?", (k,)).fetchone()[0] for k in (one, two)]
            for key, value in zip((one, two), reversed(values), strict=True):
                db.execute("UPDATE entry SET value = ? WHERE key = ?", (value, key))
        db.close()

    for one, two in (
        (secrets[a, "one"], secrets[b, "one"]),
        (secrets[a, "one"], secrets[a, "two"]),
        (entries[a][0], entries[b][0]),
    ):
        swap(one, two)

        async def look(vault):
            return await refusal(vault.ask("read", "secret/data/one", token=tokens[0]))

        assert isinstance(place.play(look), IntegrityError)
        swap(one, two)

    async def fine(vault):
        assert (await vault.get("secret/data/one", token=tokens[0]))["data"]["value"] == CANARY + "one"

    place.play(fine)


def test_the_keyring_of_one_org_does_not_pass_as_that_of_another(tmp_path):
    place = Place(tmp_path)

    async def make(vault):
        tokens = [await org(vault, "acme"), await org(vault, "other")]
        return tokens, [token.rpartition(".")[2] for token in tokens]

    tokens, ids = place.play(make)
    with sqlite3.connect(place.file) as db:
        rows = dict(db.execute("SELECT key, value FROM entry WHERE key LIKE 'sys/keyring/%'"))
        db.execute("UPDATE entry SET value = ? WHERE key = ?", (rows[f"sys/keyring/{ids[1]}"], f"sys/keyring/{ids[0]}"))
    db.close()

    async def look(vault):
        error = await refusal(vault.node.handle(Request(tokens[0].encode(), Operation.READ, "secret/data/x")))
        assert isinstance(error, IntegrityError)

    place.play(look)


def test_records_of_a_deleted_org_stay_and_nobody_can_read_them():
    async def scenario(vault):
        acme = await org(vault, "acme")
        async with recorded(vault) as records:
            await vault.ask("update", "secret/data/x", {"data": {}}, token=acme)
        assert len(records) == 2
        await vault.ask("delete", "sys/namespaces/acme")
        assert (await vault.ask("read", "sys/audit-log/verify")).data["valid"]
        assert any(partition == acme.rpartition(".")[2] for partition, _ in await journal(vault))

    play(scenario)


def test_whoever_has_no_token_of_an_org_learns_neither_its_id_nor_its_name():
    async def scenario(vault):
        token = await org(vault, "acme")
        org_id = token.rpartition(".")[2]
        guesses = [f"hvs.{'x' * 44}{end}" for end in (f".{org_id}", f".{'a' * 16}", "")]
        errors = [
            await refusal(vault.node.handle(Request(guess.encode(), Operation.READ, "secret/data/x", org=name)))
            for guess in guesses
            for name in ("", "acme", "root", "nowhere")
        ]
        assert len({(error.code, error.reason, error.hint) for error in errors}) == 1

    play(scenario)
