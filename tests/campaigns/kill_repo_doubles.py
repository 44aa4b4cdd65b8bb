"""For the campaign that kills commands on repo vaults: buckets and servers, with a copy of what lies there for each
round, and a keychain.
"""

import contextlib
import json
import os
import secrets
import sys
from dataclasses import dataclass, field

from keyhole.client import Client, Where, connect
from keyhole.remotes import load, server
from keyhole.remotes import object as buckets

POLICY = "team-rounds"


@dataclass
class Kept:
    """Where the vaults of all rounds lie, each beside the others.

    Attributes:
        kind: member of the shelf of remotes.
        url: of the vault of a round, with ``{}`` for its number.
        environ: by which a command finds it.
        server: address of the server, for that kind.
        rounds: how many there were.
    """

    kind: str
    url: str
    environ: dict = field(default_factory=dict)
    server: str = ""
    rounds: int = 0

    def remote(self, number):
        where, ask = self.url.format(number), None
        if self.server:
            where = where.partition("://")[2].partition("/")[2]
            transport = connect(Where(self.server, remote=True, token=self.environ["KEYHOLE_TOKEN"]))

            def ask(operation, path, data):
                return transport.ask(operation, path, data).data

        return load(self.kind, where, ask)

    def copy(self, number):
        """What the first vault has, as another; in a process of its own, for what clients keep going."""
        child = os.fork()
        if child == 0:
            code = 1
            with contextlib.suppress(Exception):
                self._copy(number)
                code = 0
            os._exit(code)
        assert os.waitpid(child, 0)[1] == 0

    def _copy(self, number):
        os.environ.update(self.environ)
        made, fresh = self.remote(0), self.remote(number)
        for digest in made.list():
            fresh.put(f"objects/{digest}", made.get(f"objects/{digest}", 1 << 24).data)
        head = made.get("head", 1 << 24)
        if head is not None:
            fresh.put("head", head.data)

    def move(self, home, number):
        """Let the settings of a machine name the vault of a round."""
        for path in (home / "repos").glob("*"):
            if path.is_file():
                text = path.read_text()
                path.write_text(text.replace(self.url.format(0), self.url.format(number)))

    @staticmethod
    def count_calls():
        """Let each call of a remote count as two changes: before it was made, and after it was answered."""

        def counted(work):
            def call(*arguments, **options):
                sys.audit("keyhole.remote")
                done = work(*arguments, **options)
                sys.audit("keyhole.remote")
                return done

            return call

        for owner, name in ((buckets.Bucket, "_put"), (buckets.Bucket, "get"), (server.Server, "put")):
            setattr(owner, name, counted(getattr(owner, name)))
        for name in ("get", "get_many", "put_many"):
            setattr(server.Server, name, counted(getattr(server.Server, name)))


def remote(kind, folder):
    """What stands for a kind of remote; for any other kind a folder does, and needs nothing."""
    return {"bucket": _bucket, "server": _server}.get(kind, lambda _: contextlib.nullcontext())(folder)


@contextlib.contextmanager
def _bucket(_folder):
    import obstore.store  # noqa: F401 - once, and not in each process that is killed

    import bucket_server

    with bucket_server.serving("team") as environ:
        # moto keeps what it has for as long as the process lives
        yield Kept("object", f"s3://team/{secrets.token_hex(8)}-{{}}", environ)


@contextlib.contextmanager
def _server(folder):
    from campaigns.repo_remotes import keyhole_server

    folder.parent.mkdir(parents=True, exist_ok=True)
    with keyhole_server(folder) as (recorder, root):
        with Client(recorder.address, token=root) as client:
            rules = 'path "vaults/*" { capabilities = ["read", "list", "create", "update"] }'
            client.write(f"sys/policies/acl/{POLICY}", {"policy": rules})
            token = client.write("auth/token/create", {"policies": [POLICY]}).auth["client_token"]
        recorder.close()  # what is kept of it is nothing to this campaign
        address = f"http://127.0.0.1:{recorder.port}"
        url = f"keyhole+http://127.0.0.1:{recorder.port}/vaults/v-{{}}"
        yield Kept("server", url, {"KEYHOLE_ADDR": address, "KEYHOLE_TOKEN": token}, address)


class FileEntries:
    """A keychain in a file, as a keychain has it: each change is there whole or not at all."""

    def __init__(self, path):
        self.path = path

    def all(self):
        return json.loads(self.path.read_text()) if self.path.exists() else {}

    def _store(self, entries):
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(entries))
        fresh.rename(self.path)

    def get_password(self, service, username):
        return self.all().get(f"{service}/{username}")

    def set_password(self, service, username, password):
        self._store({**self.all(), f"{service}/{username}": password})

    def delete_password(self, service, username):
        entries = self.all()
        del entries[f"{service}/{username}"]
        self._store(entries)
