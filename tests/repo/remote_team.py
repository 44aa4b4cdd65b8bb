"""Members of one vault on machines of their own, with remotes of every kind between them."""

from __future__ import annotations

import json
import os
from pathlib import Path

from cli_driver import ok, run

POLICY = 'path "vaults/team/*" { capabilities = ["read", "list", "create", "update"] }'
_ENVIRON = ("KEYHOLE_REPO_KEY", "AGENT_VAULT_KEY", "KEYHOLE_ADDR", "KEYHOLE_TOKEN", "KEYHOLE_VAULT")


class RemoteTeam:
    """The owner has a vault in a plain folder; others clone it from a remote.

    Args:
        folder: in which all of them live.
        monkeypatch: of the test.
        who: of those that are there already; empty to make the vault.
    """

    def __init__(self, folder, monkeypatch, who=""):
        self.folder, self.monkeypatch, self.remote = folder, monkeypatch, folder / "shared"
        for name in _ENVIRON:
            monkeypatch.delenv(name, raising=False)
        if who:
            self.as_(who)
            return
        self.as_("owner")
        (folder / "owner").mkdir()
        ok("repo", "init", folder / "owner", "--no-git")
        self.as_("owner")
        ok("repo", "set", "a/one", stdin="one")

    def as_(self, who):
        """Be this person, in their folder and on their machine."""
        self.monkeypatch.setenv("HOME", str(self.folder / f"{who}-home"))
        self.monkeypatch.setenv("KEYHOLE_HOME", str(self.folder / f"{who}-keyhole"))
        folder = self.folder / who
        self.monkeypatch.chdir(folder if folder.is_dir() else self.folder)
        return folder

    def join(self, name, url, role="member"):
        """Somebody makes a key, is added, and clones what the owner pushes."""
        self.as_(name)
        words = ok("repo", "my-key").out.split()
        self.as_("owner")
        ok("repo", "add-member", name, *words, "--role", role, "--group", "a")
        ok("repo", "push")
        self.as_(name)
        ok("repo", "clone", url, self.folder / name)
        return self.as_(name)

    def state(self):
        """What this machine remembers of the vault here."""
        [path] = (Path(os.environ["KEYHOLE_HOME"]) / "repos").glob("*.json")
        return json.loads(path.read_text())


def get(name):
    return ok("repo", "get", name).out


def names():
    return [each["name"] for each in ok("repo", "list", "--json").json]


__all__ = ["POLICY", "RemoteTeam", "get", "names", "run"]
