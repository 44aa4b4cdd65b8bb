"""`RepoVault` from Python, sync and async, and other readers and writers of the same files."""

from __future__ import annotations

import asyncio
import shutil
import subprocess

import pytest

from keyhole import AsyncRepoVault, RepoVault
from keyhole.core.errors import IntegrityError, NotFound
from keyhole.crypto import age
from keyhole.repo import changes, keys
from repo.world import CANARY, Folder


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in keys.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    world = Folder.create(tmp_path)
    world.agent = world.add("coder", "stripe")
    world.set("stripe/key")
    return world


def test_an_agent_reads_what_it_is_granted(world):
    with RepoVault(world.root, key=world.agent.to_text()) as vault:
        assert vault.signed
        assert vault.get("stripe/key") == CANARY
        [secret] = vault.list_secrets("stripe")
        assert (secret.name, secret.agents, secret.due) == ("stripe/key", ("coder",), "")
        assert vault.list_agents() == {"coder": ("stripe",)}
        world.do(changes.revoke, "coder", "stripe")
        vault.reload()
        with pytest.raises(NotFound):
            vault.get("stripe/key")


def test_the_key_comes_from_a_file_a_variable_or_the_usual_place(world, monkeypatch, tmp_path):
    file = tmp_path / "agent.key"
    keys.write(file, world.agent)
    assert RepoVault(world.root, key_file=file).get("stripe/key") == CANARY
    monkeypatch.setenv("AGENT_VAULT_KEY", world.agent.to_text())
    assert RepoVault(world.root / ".agent-vault").get("stripe/key") == CANARY
    monkeypatch.delenv("AGENT_VAULT_KEY")
    with pytest.raises(NotFound, match="no identity key"):
        RepoVault(world.root)
    keys.write(tmp_path / ".agent-vault" / "owner.key", world.owner)
    assert RepoVault(world.root).get("stripe/key") == CANARY


def test_nothing_is_read_from_where_there_is_no_vault(tmp_path):
    with pytest.raises(NotFound):
        RepoVault(tmp_path)


def test_what_was_tampered_with_is_refused(world):
    vault = RepoVault(world.root, key=world.owner.to_text())
    world.path("secrets/stripe/key.enc").write_bytes(age.encrypt(b"x", [world.owner.recipient]))
    with pytest.raises(IntegrityError):
        vault.get("stripe/key")


def test_the_same_from_asyncio(world):
    async def main():
        async with AsyncRepoVault(world.root, key=world.agent.to_text()) as vault:
            values = await asyncio.gather(*(vault.get("stripe/key") for _ in range(5)))
            assert values == [CANARY] * 5
            assert [each.name for each in await vault.list_secrets()] == ["stripe/key"]
            assert await vault.list_agents() == {"coder": ("stripe",)}
            await vault.reload()

    asyncio.run(main())


def test_the_program_age_opens_what_we_write_and_we_open_what_it_writes(world, tmp_path):
    program = shutil.which("age")
    assert program, "scripts/os-needs installs age"
    key = tmp_path / "key.txt"
    keys.write(key, world.agent)
    file = world.path("secrets/stripe/key.enc")
    done = subprocess.run([program, "-d", "-i", str(key), str(file)], capture_output=True, check=True)
    assert done.stdout.decode() == CANARY
    recipient = world.agent.recipient.text
    done = subprocess.run([program, "-r", recipient], input=b"theirs", capture_output=True, check=True)
    assert age.decrypt(done.stdout, [world.agent]) == b"theirs"


def test_ssh_keys_open_and_sign_too(tmp_path):
    file = tmp_path / "id"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)]
    subprocess.run(command, check=True)
    identity = age.find_identity(file.read_text())
    assert identity.recipient == age.parse_recipient(file.with_suffix(".pub").read_text())
    assert age.decrypt(age.encrypt(b"x", [identity.recipient]), [identity]) == b"x"
    assert identity.signing.public == age.find_identity(file.read_text()).signing.public
