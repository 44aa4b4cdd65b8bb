"""A repo vault as a mount of the local vault: lent, listed and recorded as any other secret."""

from __future__ import annotations

import pytest

from keyhole.core.errors import IntegrityError, InvalidRequest, NotFound, PolicyDenied
from keyhole.core.record import Phase
from keyhole.core.value import Secret
from keyhole.crypto import age_scrypt
from keyhole.repo import changes, kept, keys
from keyhole.repo.refusals import refusals
from repo.mounted import play, with_key
from repo.world import CANARY, Folder
from vault.world import SERVICE, agent, journal, org, policy_token, recorded, refusal, use


@pytest.fixture
def world(tmp_path, monkeypatch):
    return with_key(Folder, tmp_path, monkeypatch)


def test_an_agent_uses_a_secret_of_a_repository_and_the_journal_says_so(world):
    async def scenario(vault):
        await vault.ask("update", "services/stripe", {**SERVICE, "secret": "/team/data/stripe/key"})
        token = await agent(vault, services=["stripe"])
        assert isinstance(await refusal(vault.ask("read", "team/data/stripe/key", token=token)), PolicyDenied)
        assert (await use(vault, "services/stripe", token)).lent["value"].reveal().decode() == CANARY
        world.set("stripe/key", "a-newer-value-1")
        assert (await use(vault, "services/stripe", token)).lent["value"].reveal() == b"a-newer-value-1"
        used = [record for _, record in await journal(vault) if record.secrets == ("/team/data/stripe/key",)]
        assert {record.caller for record in used} == {"agent/coder"}

    play(world, scenario)


def test_it_is_listed_and_read_by_who_may(world):
    async def scenario(vault):
        assert (await vault.ask("list", "team/data")).data == {"keys": ["stripe/"]}
        assert (await vault.ask("list", "team/data/stripe")).data == {"keys": ["key"]}
        assert (await vault.get("team/data/stripe/key"))["value"] == CANARY
        shown = (await vault.ask("read", "team/config")).data
        assert shown["member"] == {"name": "owner", "role": "owner"}
        assert world.owner.to_text() not in str(shown)
        assert isinstance(await refusal(vault.ask("read", "team/data/stripe/none")), NotFound)

    play(world, scenario)


def test_what_was_tampered_with_is_not_lent(world):
    async def scenario(vault):
        await vault.ask("update", "services/stripe", {**SERVICE, "secret": "/team/data/stripe/key"})
        token = await agent(vault, services=["stripe"])
        world.set("stripe/other", "another-value-1")
        swapped = world.path("secrets/stripe/key.enc"), world.path("secrets/stripe/other.enc")
        swapped[0].write_bytes(swapped[1].read_bytes())
        async with recorded(vault) as found:
            assert isinstance(await refusal(use(vault, "services/stripe", token)), IntegrityError)
        assert [(each.phase, each.result) for each in found] == [(Phase.INTENT, ""), (Phase.OUTCOME, "internal")]
        assert any("stripe/key" in each.reason for each in refusals(world.root, world.root.parent / "server"))
        assert {(each.caller, each.secrets) for each in found} == {("agent/coder", ("/team/data/stripe/key",))}

    play(world, scenario)


def test_a_revoked_key_opens_nothing_any_more(world):
    async def scenario(vault):
        coder = world.add("coder", "stripe")
        await vault.ask("update", "team/config", {"path": str(world.root), "key": coder.to_text()})
        assert (await vault.get("team/data/stripe/key"))["value"] == CANARY
        world.do(changes.revoke, "coder", "stripe")
        assert isinstance(await refusal(vault.ask("read", "team/data/stripe/key")), NotFound)

    play(world, scenario)


def test_naming_files_of_the_machine_takes_sudo(world):
    async def scenario(vault):
        poor = await policy_token(vault, 'path "team/config" { capabilities = ["create", "update"] }')
        config = {"path": str(world.root), "key_file": str(world.key_file)}
        assert isinstance(await refusal(vault.ask("update", "team/config", config, token=poor)), PolicyDenied)

    play(world, scenario)


def test_no_org_but_the_root_opens_a_vault_with_a_key_of_the_machine(world):
    async def scenario(vault):
        other = await org(vault, "acme")
        await vault.ask("update", "sys/mounts/team", {"type": "repo"}, token=other)
        config = {"path": str(world.root), "key_file": str(world.key_file)}
        assert isinstance(await refusal(vault.ask("update", "team/config", config, token=other)), PolicyDenied)
        assert isinstance(await refusal(vault.ask("read", "team/data/stripe/key", token=other)), NotFound)

    play(world, scenario)


@pytest.mark.parametrize("change", [{"path": "team"}, {"key": "x"}, {"key_file": ""}, {"key_file": "owner.key"}])
def test_a_config_that_makes_no_sense_is_refused(world, change):
    async def scenario(vault):
        config = {"path": str(world.root), "key_file": str(world.key_file)} | change
        assert isinstance(await refusal(vault.ask("update", "team/config", config)), InvalidRequest)

    play(world, scenario)


def test_a_key_that_asks_a_person_is_not_taken(world, tmp_path, monkeypatch):
    monkeypatch.setattr(age_scrypt, "WORK", 10)
    asks = tmp_path / "asks.key"
    keys.make(asks, world.owner, "passphrase", kept.UNATTENDED, lambda _question: Secret("some words of mine"))

    async def scenario(vault):
        config = {"path": str(world.root), "key_file": str(asks)}
        refused = await refusal(vault.ask("update", "team/config", config))
        assert isinstance(refused, InvalidRequest)
        assert "does not open by itself" in refused.reason
        assert (await vault.get("team/data/stripe/key"))["value"] == CANARY  # with the key that was there before

    play(world, scenario)
