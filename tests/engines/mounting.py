"""Mounts an engine in an open vault, as its tests need it."""


async def mount(vault, path, kind, **options):
    """Put an engine of a kind at a path."""
    await vault.ask("update", f"sys/mounts/{path}", {"type": kind, "options": options})


async def storage_of(vault, path):
    """The storage of what is mounted there in the org ``root``."""
    state = await vault.vault.compiled.state(vault.vault.root_org)
    return vault.vault.storage(state.org.id, state.mounts.at(f"{path}/").id)


async def login(vault, user, *, policies):
    """A token of a user whose entity has that name."""
    await vault.ask("update", "sys/auth/userpass", {"type": "userpass"})
    await vault.ask(
        "update", f"auth/userpass/users/{user}", {"password": "correct horse battery", "policies": policies}
    )
    reply = await vault.ask("update", f"auth/userpass/login/{user}", {"password": "correct horse battery"})
    entity = reply.auth["entity_id"]
    await vault.ask("update", f"identity/entity/id/{entity}", {"name": user})
    return reply.auth["client_token"]
