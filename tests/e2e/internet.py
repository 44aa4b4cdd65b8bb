"""The APIs that agents use, under their own names and at their own port, and a vault filled by `keyhole add`.

The broker reaches upstreams through a corporate proxy, as in many an office. Behind this one lies a small internet of
our own: every name has an address of its own, and the proxy knows which server on loopback is meant by it. So services
are those of the catalog, without a change, and no test leaves this machine.
"""

import json
import shutil
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from e2e import aws, sites
from e2e.world import ROOT, Seen, Upstream, World, make_world, node

CLIENTS = ROOT / ".cache/clients"
PROGRAMS = Path(__file__).with_name("clients")
OWN = """
import json, sys
from keyhole import Client
with Client() as vault:
    for name, host, value, kind in json.load(sys.stdin):
        vault.write(f"secret/data/{name}/token", {"data": {"value": value}})
        vault.write(f"services/{name}", {"hosts": [host], "secret": f"{name}/token", "inject": {"kind": kind}})
        vault.write(f"agents/coder/services/{name}", {})
"""
AWS_HOSTS = tuple(f"{name}.{aws.REGION}.amazonaws.com" for name in ("sts", "s3", "bucket.s3"))


def client(program: str) -> str:
    """A program of the environments that `make test` builds."""
    for folder in (CLIENTS / "python/bin", CLIENTS / "node/node_modules/.bin"):
        if (folder / program).exists():
            return str(folder / program)
    raise AssertionError(f"{program} is not in {CLIENTS}: make test gets it")


def program_of_node(name: str) -> list[str]:
    """A module of ours that imports packages of npm; it has to lie beside them."""
    beside = CLIENTS / "node" / name
    shutil.copyfile(PROGRAMS / name, beside)
    return [node(), str(beside)]


class _Office(socketserver.ThreadingTCPServer):
    """The corporate proxy: CONNECT to an address of its table, and nothing else."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, table: dict[str, int]):
        super().__init__(("127.0.0.1", 0), _OfficeHandler)
        self.table = table
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()


class _OfficeHandler(socketserver.StreamRequestHandler):
    server: _Office

    def handle(self):
        target = self.rfile.readline().split()[1].decode()
        while self.rfile.readline().strip():
            pass
        port = self.server.table.get(target)
        if port is None:
            self.wfile.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            return
        with socket.create_connection(("127.0.0.1", port)) as there:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=_pump, args=(there, self.connection), daemon=True)
            back.start()
            _pump(self.connection, there)
            back.join()


def _pump(source: socket.socket, sink: socket.socket):
    try:
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@dataclass
class Internet:
    """A world whose agent has keys for real names."""

    world: World
    sites: Upstream
    aws: aws.Aws
    close: Callable[[], None]
    env: dict[str, str] = field(default_factory=dict)

    def run(self, *command: str, code: int | None = 0, **env: str):
        """`keyhole run` of a client, and what it printed."""
        return self.world.run(*command, code=code, **env).stdout

    def seen(self, host: str, path: str = "") -> list[Seen]:
        """What reached a host."""
        return [each for each in self.sites.seen if each.headers["Host"] == host and each.path.startswith(path)]


def make_internet(folder: Path) -> Internet:
    world = make_world(folder, furnished=False)
    account = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    keys = sites.Keys(account.public_key())
    answers = sites.all_sites(keys)
    shared = {"repositories": folder / "repositories", "git_token": sites.GITHUB}
    upstream = Upstream(world.authority, "github.com", sites=answers, **shared)
    cloud = aws.Aws(world.authority, hosts=AWS_HOSTS)
    addresses = {host: f"93.184.216.{number}" for number, host in enumerate([*answers, "github.com", *AWS_HOSTS], 10)}
    ports = {host: cloud.port if host in AWS_HOSTS else upstream.port for host in addresses}
    office = _Office({f"{address}:443": ports[host] for host, address in addresses.items()})

    def close():
        for server in (upstream, cloud, world.upstream, world.stranger):
            server.close()
        office.shutdown()
        office.server_close()

    world.env["KEYHOLE_UPSTREAM_PROXY"] = f"127.0.0.1:{office.server_address[1]}"
    world.env["KEYHOLE_RESOLVE"] = ",".join(f"{host}:{address}" for host, address in addresses.items())
    world.values += [sites.OPENAI, sites.ANTHROPIC, sites.STRIPE, sites.GITHUB, sites.AZURE, sites.REGISTRY]
    world.values += [sites.PACKAGES, sites.GOOGLE_TOKEN, sites.AZURE_TOKEN, aws.KEY]
    _fill(world, account)
    return Internet(world, upstream, cloud, close)


def _fill(world: World, account: rsa.RSAPrivateKey):
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem = account.private_bytes(*form).decode()
    google = {"type": "service_account", "project_id": "p", "private_key_id": "1", "private_key": pem}
    google |= {"client_email": sites.ACCOUNT, "token_uri": "https://oauth2.googleapis.com/token"}
    amazon = {"access_key_id": aws.ID, "secret_access_key": aws.KEY}
    for words, value in (
        (("openai",), sites.OPENAI),
        (("anthropic",), sites.ANTHROPIC),
        (("stripe",), sites.STRIPE),
        (("github",), sites.GITHUB),
        (("gcp",), json.dumps(google)),
        (("azure", "--set", f"tenant={sites.TENANT}", "--set", f"client_id={sites.CLIENT}"), sites.AZURE),
        (("aws", "--set", f"region={aws.REGION}"), json.dumps(amazon)),
    ):
        world.keyhole("add", *words, "--agent", "coder", given=value.encode())
    given = json.dumps(
        [
            ("registry", sites.REGISTRY_HOST, sites.REGISTRY, "bearer"),
            ("crates", sites.CRATES_HOST, sites.REGISTRY, "bearer"),
            ("packages", sites.PACKAGES_HOST, f"ci:{sites.PACKAGES}", "basic"),
        ]
    )
    subprocess.run([sys.executable, "-c", OWN], input=given.encode(), env=world.env, check=True)
