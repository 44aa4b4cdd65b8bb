"""Two members and an agent work at once on one vault, between a bucket and a server, and come to the same in the end.

    python tests/campaigns/repo_remotes.py --rounds 200 --seed 1

The names of the vault are hidden. Each round one of the members changes something, or both push at the same time in
processes of their own; then they sync with the bucket or the server, and choose where both changed the same. Every few
rounds all come together, in an order that is another each time: both clones and both remotes have the same files, with
values that were stored, and the agent reads what it may. Last, all that the server ever received, its disk, its log and
its audit file, and the bucket, are searched for every value and name, in several encodings.
"""

import argparse
import base64
import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.parse
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import pytest

import bucket_server
from cli_driver import environment, ok, run
from keyhole.client import Client
from keyhole.repo.snapshots import collect
from keyhole.repo.tree import Tree
from repo.remote_team import POLICY, names

MEMBERS = ("owner", "ann")
GROUPS = ("payments-canary", "mail-canary")
REMOTES = ("bucket", "server")


class Recorder:
    """Stands before the server and keeps every byte that it is sent."""

    def __init__(self, port):
        self.port, self.received = port, []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    upstream = socket.create_connection(("127.0.0.1", self.port))
                except OSError:  # the server has gone
                    client.close()
                    continue
                threading.Thread(target=self._carry, args=(client, upstream, self.received), daemon=True).start()
                threading.Thread(target=self._carry, args=(upstream, client, None), daemon=True).start()

    @staticmethod
    def _carry(source, sink, kept):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if kept is not None:
                    kept.append(data)
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def close(self):
        self._listener.close()


@contextlib.contextmanager
def keyhole_server(folder):
    """A server with a vault on disk, an audit file and a log; gives its recorder and the root token."""
    folder.mkdir(mode=0o700)
    where = ["--vault", f"sqlite:{folder}/vault.db", "--seal", f"keyfile:{folder}/key"]
    env, program = environment(KEYHOLE_HOME=str(folder)), [sys.executable, "-m", "keyhole"]
    made = subprocess.run(
        [*program, "init", *where, "--make-keyfile", "--json"], env=env, check=True, capture_output=True
    )
    token = json.loads(made.stdout)["root_token"]
    listen = ["--listen", "127.0.0.1:0", "--proxy-listen", "127.0.0.1:0"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*program, "server", *where, *listen, "--json"], env=env, stdout=subprocess.PIPE, stderr=log
        )
        try:
            recorder = Recorder(int(json.loads(process.stdout.readline())["api"].rpartition(":")[2]))
            with Client(recorder.address, token=token) as client:
                client.write("sys/audit/file", {"type": "file", "options": {"file_path": f"{folder}/audit"}})
                client.write("sys/mounts/vaults", {"type": "remote"})
                client.write("sys/policies/acl/team", {"policy": POLICY})
            yield recorder, token
            recorder.close()
        finally:
            process.terminate()
            process.wait(60)
            process.stdout.close()


class World:
    """Everybody's folders and machines, and what the vault should have."""

    def __init__(self, folder, patch, rng):
        self.folder, self.patch, self.rng = folder, patch, rng
        self.values, self.expected, self.number = set(), {}, 0
        self.stored = {}

    def as_(self, who):
        self.patch.setenv("HOME", str(self.folder / f"{who}-home"))
        self.patch.setenv("KEYHOLE_HOME", str(self.folder / f"{who}-keyhole"))
        place = self.folder / who
        self.patch.chdir(place if place.is_dir() else self.folder)

    def prepare(self, recorder, root):
        urls = {
            "bucket": "s3://team/vault",
            "server": f"{recorder.address}/vaults/team".replace("http", "keyhole+http"),
        }
        with Client(recorder.address, token=root) as client:
            for who in (*MEMBERS, "coder"):
                self.as_(who)
                token = client.write("auth/token/create", {"policies": ["team"]}).auth["client_token"]
                ok("login", "--vault", recorder.address, stdin=token)
        self.as_("owner")
        (self.folder / "owner").mkdir()
        ok("repo", "init", "owner", "--no-git", "--opaque-names")
        self.as_("ann")
        words = ok("repo", "my-key").out.split()
        self.as_("owner")
        for group in GROUPS:
            self.set(f"{group}/first")
        grants = [word for group in GROUPS for word in ("--group", group)]
        ok("repo", "add-member", "ann-canary", *words, "--role", "member", *grants)
        ok("repo", "add-agent", "coder", "--group", GROUPS[0])
        for name, url in urls.items():
            ok("repo", "remote", "add", name, url)
            ok("repo", "push", name)
        for who in ("ann", "coder"):
            self.as_(who)
            ok("repo", "clone", urls["server"], self.folder / who)
            self.as_(who)
            ok("repo", "remote", "rm", "origin")
            for name, url in urls.items():
                ok("repo", "remote", "add", name, url)
                ok("repo", "pull", name)
        key = next((self.folder / "owner-home").rglob("coder.key"))
        (self.folder / "coder-home").mkdir(exist_ok=True)
        self.agent_key = shutil.copy(key, self.folder / "coder-home" / "coder.key")

    def fresh(self):
        self.number += 1
        value = f"canary-{self.number}-{self.rng.getrandbits(64):016x}"
        self.values.add(value)
        return value

    def set(self, name):
        value = self.fresh()
        ok("repo", "set", name, stdin=value)
        self.stored.setdefault(name, set()).add(value)

    def change(self, who):
        """One member does one thing."""
        self.as_(who)
        name = f"{self.rng.choice(GROUPS)}/{self.rng.choice(['first', 'second', who])}"
        if name in names() and self.rng.random() < 0.15 and not name.endswith("/first"):
            ok("repo", "rm", name)
        else:
            self.set(name)

    def pull(self, remote):
        """Take what the remote has; where both changed the same, this member chooses."""
        ran = run("repo", "pull", remote)
        if ran.code == 3:
            clashing = [part.partition(": ")[0] for part in ran.err.partition("same: ")[2].split("; ")]
            chosen = [(self.rng.choice(["--ours", "--theirs"]), name) for name in clashing if "/" in name]
            assert chosen, ran
            words = [word for pair in chosen for word in pair]
            ran = run("repo", "pull", remote, *words)
        assert ran.code == 0, ran

    def sync(self, who, remote):
        self.as_(who)
        for _ in range(20):
            self.pull(remote)
            ran = run("repo", "push", remote)
            if ran.code == 0:
                return
            assert "pull" in ran.err, ran
        raise AssertionError("a push is refused for ever")

    def race(self, remote):
        """Both push at the same time: one wins, and the other is told to pull."""
        working = []
        for who in MEMBERS:
            self.sync(who, remote)
        for who in MEMBERS:
            self.as_(who)
            ok("repo", "pull", remote)
            self.set(f"{GROUPS[0]}/{who}")
            command = [sys.executable, "-m", "keyhole", "repo", "push", remote]
            working.append(subprocess.Popen(command, stderr=subprocess.PIPE, env=dict(os.environ)))
        told = [each.communicate(timeout=60)[1].decode() for each in working]
        codes = sorted(each.returncode for each in working)
        # Who began when the other was done has read its head, and is refused before it sends anything.
        assert codes == [0, 2], (codes, told)
        assert sum("keyhole repo pull" in each for each in told) == 1, told

    def is_in_step(self):
        """Whether nobody would get or give anything."""
        for who in MEMBERS:
            self.as_(who)
            if {each["state"] for each in ok("repo", "status", "--json").json["remotes"]} != {"same"}:
                return False
        return True

    def meet(self):
        """All come together, and have the same."""
        pairs = [(who, remote) for who in MEMBERS for remote in REMOTES]
        for _ in range(5):
            self.rng.shuffle(pairs)
            for who, remote in pairs:
                self.sync(who, remote)
            if self.is_in_step():
                break
        assert self.is_in_step()
        entries = [collect(Tree(self.folder / who)) for who in MEMBERS]
        assert entries[0] == entries[1]
        self.expected = {name: ok("repo", "get", name).out for name in names()}
        assert all(value in self.stored[name] for name, value in self.expected.items())
        for who in MEMBERS:
            self.as_(who)
            assert {name: ok("repo", "get", name).out for name in names()} == self.expected
        self.as_("coder")
        self.patch.setenv("KEYHOLE_REPO_KEY", str(self.agent_key))
        ok("repo", "pull", self.rng.choice(REMOTES))
        for name, value in self.expected.items():
            ran = run("repo", "get", name)
            assert (ran.out == value) if name.startswith(GROUPS[0]) else ran.code, (name, ran)
        self.patch.delenv("KEYHOLE_REPO_KEY")

    def keys(self):
        """What is secret of all private keys that lie here."""
        texts = [path.read_text() for path in self.folder.rglob("*.key") if path.name != "public.key"]
        found = [text.split("AGE-SECRET-KEY-1")[1].strip() for text in texts]
        assert len(found) >= 3
        return found


def spellings(text):
    """A value as it is, and as it could have been encoded on the way."""
    raw = text.encode()
    found = {raw, raw.hex().encode(), raw[::-1], text.encode("utf-16-le"), urllib.parse.quote(text, safe="").encode()}
    found.add(raw.hex().upper().encode())
    for shift in range(3):  # base64 inside of something longer, at each of its three positions
        encoded = base64.b64encode(b"x" * shift + raw)
        found |= {
            encoded[4 if shift else 0 : -4],
            encoded[4 if shift else 0 : -4].replace(b"+", b"-").replace(b"/", b"_"),
        }
    return {each for each in found if len(each) >= 8}


def search(places, texts):
    """Raises ``AssertionError`` where one of the texts is in one of the places."""
    for text in texts:
        for spelled in spellings(text):
            for name, data in places.items():
                assert spelled not in data, f"{text} is in {name}"


def campaign(folder, rounds, seed, *, report=print):
    """Run all rounds; raises ``AssertionError`` at the first broken promise. Returns how many bytes were searched."""
    rng = random.Random(seed)
    with (
        pytest.MonkeyPatch.context() as patch,
        bucket_server.serving("team") as bucket,
        keyhole_server(folder / "server") as (recorder, root),
    ):
        for name in list(os.environ):
            if name.startswith(("KEYHOLE_", "VAULT_")) and name != "KEYHOLE_VECTORS":
                patch.delenv(name)
        for name, value in bucket.items():
            patch.setenv(name, value)
        world = World(folder, patch, rng)
        world.prepare(recorder, root)
        for number in range(1, rounds + 1):
            who = rng.choice(MEMBERS)
            if number % 10 == 3:
                world.race(rng.choice(REMOTES))
            else:
                world.change(who)
                if rng.random() < 0.6:
                    world.sync(who, rng.choice(REMOTES))
            if number % 10 == 0 or number == rounds:
                world.meet()
                report(f"round {number}: {len(world.expected)} secrets in step, {world.number} values stored")
        places = {"the requests": b"".join(recorder.received)}
        places |= {str(path): path.read_bytes() for path in (folder / "server").rglob("*") if path.is_file()}
        places["the bucket"] = b"".join(in_bucket())
        searched = sum(map(len, places.values()))
        assert b"AGE-SECRET-KEY" not in b"".join(places.values())
        search(places, [*world.values, *GROUPS, "ann-canary", *world.keys()])
        assert b"/v1/vaults/team/objects" in places["the requests"]
        with pytest.raises(AssertionError):  # what is looked for would be found
            search({"x": b"a" + base64.b64encode(b"ab" + next(iter(world.values)).encode())}, world.values)
    return searched


def in_bucket():
    """All objects of the bucket."""
    import obstore
    from obstore.store import from_url

    store = from_url("s3://team")
    for page in obstore.list(store):
        for each in page:
            yield bytes(obstore.get(store, each["path"]).bytes())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="keyhole-campaign-"))
    searched = campaign(folder, options.rounds, options.seed)
    print(f"{searched} bytes searched: no value, no name, no key")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
