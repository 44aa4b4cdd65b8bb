"""What campaigns about a proxy's memory stand on: a server in its own process, and an upstream with TLS in ours."""

import asyncio
import base64
import contextlib
import http.client
import json
import resource
import ssl
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import trustme

from cli_driver import environment, serving

HOST = "upstream.test"
SECRET = "sk_live_5f1d-of-the-campaign"


class Stand:
    """A server, its proxy, and the upstream that it may lend the secret to.

    Attributes:
        pids: of the processes that serve.
    """

    def __init__(self, started, port, context, pids):
        self.pids = pids
        self._api = urlsplit(started["api"]).netloc
        self._proxy = urlsplit(started["proxy"])
        self._port = port
        self._context = context
        self._token = ""

    def rss(self):
        """Megabytes that the largest of its processes holds now."""
        return max(_rss(pid) for pid in self.pids)

    def prepare(self):
        bound = {
            "hosts": [f"{HOST}:{self._port}"],
            "secret": "campaign/key",
            "inject": {"kind": "bearer"},
            "allow_addresses": ["127.0.0.1/32"],
        }
        self._ask("secret/data/campaign/key", {"data": {"value": SECRET}})
        self._ask("services/campaign", bound)
        self._ask("agents/campaign", {})
        self._ask("agents/campaign/services/campaign", {})
        self._token = self._ask("agents/campaign/token", {"ttl": "24h", "scope": "proxy"})["data"]["token"]

    def _ask(self, path, data):
        connection = http.client.HTTPConnection(self._api, timeout=60)
        try:
            connection.request("POST", f"/v1/{path}", json.dumps(data), {"X-Vault-Token": "root"})
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status < 300, (path, text)
            return json.loads(text or b"{}")
        finally:
            connection.close()

    async def connect(self):
        """A connection to the upstream, through a tunnel."""
        reader, writer = await asyncio.open_connection(self._proxy.hostname, self._proxy.port)
        proof = base64.b64encode(f"agent:{self._token}".encode()).decode()
        where = f"{HOST}:{self._port}"
        writer.write(
            f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\nProxy-Authorization: Basic {proof}\r\n\r\n".encode()
        )
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        await writer.start_tls(self._context, server_hostname=HOST)
        return reader, writer

    def head(self, method, path, *fields):
        """The head of a request, without any credential."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}:{self._port}", *fields]
        return "\r\n".join([*lines, "", ""]).encode()


def _rss(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("the server has ended")


@contextlib.asynccontextmanager
async def standing(answer, *, real=True):
    """A stand.

    Args:
        answer: of the upstream: called with the head, the reader and the writer of a request that has the secret.
        real: the server is started as users start it.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    authority = trustme.CA()
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(HOST).configure_cert(theirs)

    serving_now = set()

    async def serve(reader, writer):
        task = asyncio.current_task()
        serving_now.add(task)
        task.add_done_callback(serving_now.discard)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if f"bearer {SECRET}".encode().lower() not in head.lower():
                    writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
                    continue
                await answer(head, reader, writer)
        writer.close()

    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        authority.cert_pem.write_to_path(str(folder / "upstream.pem"))
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=theirs, limit=1 << 20)
        stack.callback(server.close)
        port = server.sockets[0].getsockname()[1]
        options = ("--dev", "--dev-root-token-id", "root", "--upstream-ca", folder / "upstream.pem")
        options += ("--resolve", f"{HOST}:127.0.0.1")
        env = environment(KEYHOLE_HOME=str(folder / "home"))
        _, started = stack.enter_context(serving(*options, env=env, real=real))
        ours = ssl.create_default_context(cafile=started["ca_file"])
        stand = Stand(started, port, ours, [started["pid"]])
        await asyncio.to_thread(stand.prepare)
        yield stand
    if serving_now:  # the server has ended, and its connections with it
        await asyncio.wait(serving_now, timeout=30)
