"""A repo vault in a folder, and the people who change it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from keyhole.core.value import Secret
from keyhole.crypto import age
from keyhole.crypto.age import Identity
from keyhole.repo import changes
from keyhole.repo.members import Role
from keyhole.repo.opened import Opened, open_vault
from keyhole.repo.sealing import Actor
from keyhole.repo.tree import VAULT, Change, Tree

CANARY = "canary-51H8xKeyhole-9Zq7"
START = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)


@dataclass
class Folder:
    """One vault with its owner; each change is made at a later time."""

    root: Path
    home: Path
    owner: Identity = field(default_factory=age.generate)
    now: datetime = START

    @classmethod
    def create(cls, folder: Path) -> Folder:
        world = cls(folder / "team", folder / "home")
        (world.root / VAULT).mkdir(parents=True)
        world.apply(changes.create(world.owner, "owner"))
        return world

    def open(self, home: Path | None = None) -> Opened:
        return open_vault(self.root, home or self.home)

    def apply(self, change: Change) -> Change:
        tree = Tree(self.root)
        with tree.lock():
            tree.apply(change)
            tree.finish()
        self.now += timedelta(hours=1)
        return change

    def actor(self, identity: Identity | None = None) -> Actor:
        return Actor.of(self.open(), identity or self.owner, self.now)

    def set(self, name: str, value: str = CANARY, by: Identity | None = None, **more) -> Change:
        return self.apply(changes.store(self.open(), self.actor(by), name, Secret(value), **more))

    def add(self, name: str, *groups: str, role: Role = Role.AGENT, by: Identity | None = None) -> Identity:
        identity = age.generate()
        escrow = identity if role is Role.AGENT else None
        change = changes.add(
            self.open(),
            self.actor(by),
            name,
            identity.recipient,
            role=role,
            sign=identity.signing.public,
            groups=groups,
            escrow=escrow,
        )
        self.apply(change)
        return identity

    def do(self, verb, *args, by: Identity | None = None) -> Change:
        return self.apply(verb(self.open(), self.actor(by), *args))

    def get(self, name: str, identity: Identity | None = None) -> str:
        return self.open().get(name, [identity or self.owner], self.now).reveal().decode()

    def path(self, below: str) -> Path:
        return self.root / VAULT / below
