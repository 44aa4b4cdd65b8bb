"""Other programs that attach a key to what passes through them, where ``scripts/peers`` has installed them.

Each does what it does by its own means, and less than a call of Keyhole's does: haproxy as a reverse proxy that adds a
static header, as nginx does, mitmproxy with an addon that sets one header, varlock with one secret for one domain and
its placeholder replaced. None decides by caller, and none writes a durable record before it sends. Those that look
names up find the upstream's on loopback by a few lines given to them.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.load import Job
from bench.machine import free_port, pinned
from bench.subjects import Subject
from bench.upstream import CREDENTIAL, NAME, Upstream, wait_for

HOME = Path(__file__).parents[1] / ".cache/peers"
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
_PATIENCE = 60.0
_PLACEHOLDER = "sk_live_placeholder_for_varlock_0001"


class _Proxy:
    """A forward proxy that intercepts TLS, as a subject."""

    name = ""

    def __init__(self, command: list[str], folder: Path, upstream: Upstream, **environment: str) -> None:
        self._upstream = upstream
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **environment}, stdout=self._log, stderr=self._log
        )
        self.pid = self._process.pid

    def _listening(self, port: int, ca: Path) -> None:
        self._address, self._ca = ("127.0.0.1", port), str(ca)
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end and self._process.poll() is None:
            with socket.socket() as probe:
                if ca.exists() and probe.connect_ex(self._address) == 0:
                    return
            time.sleep(0.1)
        self.close()
        raise SystemExit(f"{self.name} did not start; see {self._log.name}")

    def job(self, scheme: str, path: str, mode: str, **settings: Any) -> Job:
        """As of every subject."""
        tls = scheme == "https"
        authority = f"{NAME}:{self._upstream.tls if tls else self._upstream.plain}"
        fields = f"Host: {authority}\r\nAuthorization: Bearer {_PLACEHOLDER}\r\n\r\n"
        if tls:
            connect = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"
            return Job(mode, self._address, f"GET {path} HTTP/1.1\r\n{fields}", connect, self._ca, NAME, **settings)
        return Job(mode, self._address, f"GET http://{authority}{path} HTTP/1.1\r\n{fields}", **settings)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()
        self._log.close()


_ADDON = f"""
class Key:
    def server_connect(self, data):
        data.server.address = ("127.0.0.1", data.server.address[1])

    def requestheaders(self, flow):
        flow.request.headers["Authorization"] = "Bearer {CREDENTIAL}"

    def responseheaders(self, flow):
        flow.response.stream = True


addons = [Key()]
"""


class Mitmproxy(_Proxy):
    """mitmproxy with an addon that sets a header, and bodies streamed."""

    name = "mitmproxy"

    def __init__(self, folder: Path, core: set[int], upstream: Upstream) -> None:
        folder.mkdir(parents=True)
        (folder / "addon.py").write_text(_ADDON)
        port = free_port()
        command = [str(HOME / "mitmproxy/bin/mitmdump"), "-q", "-s", "addon.py", "--listen-host", "127.0.0.1"]
        command += ["--listen-port", str(port), "--set", f"confdir={folder}", "--set", "connection_strategy=lazy"]
        command += ["--set", f"ssl_verify_upstream_trusted_ca={upstream.pki.ca}"]
        super().__init__(pinned(core, *command), folder, upstream)
        self._listening(port, folder / "mitmproxy-ca-cert.pem")


_SCHEMA = f"""# @proxyConfig={{egress="permissive"}}
# ---
# @sensitive @required @placeholder="{_PLACEHOLDER}" @proxy(domain="{NAME}")
API_KEY=
"""
_LOOKUP = f"""
const dns = require("dns");
const real = dns.lookup;
dns.lookup = function (host, options, done) {{
  if (typeof options === "function") [options, done] = [{{}}, options];
  if (host !== "{NAME}") return real.call(dns, host, options, done);
  const found = options && options.all ? [[{{ address: "127.0.0.1", family: 4 }}]] : ["127.0.0.1", 4];
  process.nextTick(done, null, ...found);
}};
"""


class Varlock(_Proxy):
    """varlock's proxy with one secret for one domain. It refuses plain HTTP."""

    name = "varlock"

    def __init__(self, folder: Path, core: set[int], upstream: Upstream) -> None:
        folder.mkdir(parents=True)
        (folder / ".env.schema").write_text(_SCHEMA)
        (folder / ".env.local").write_text(f"API_KEY={CREDENTIAL}\n")
        (folder / "lookup.cjs").write_text(_LOOKUP)
        port = free_port()
        modules = HOME / "varlock/node_modules"
        command = [str(modules / "node/bin/node"), "--require", str(folder / "lookup.cjs")]
        command += [str(modules / "varlock/bin/cli.js"), "proxy", "start", "--port", str(port), "--cert-dir", "certs"]
        super().__init__(
            pinned(core, *command),
            folder,
            upstream,
            NODE_EXTRA_CA_CERTS=upstream.pki.ca,
            HOME=str(folder),
            VARLOCK_TELEMETRY_DISABLED="1",
        )
        self._listening(port, folder / "certs/ca-cert.pem")

    def job(self, scheme: str, path: str, mode: str, **settings: Any) -> Job:
        """As of every subject."""
        if scheme != "https":
            raise LookupError("varlock refuses plain HTTP")
        return super().job(scheme, path, mode, **settings)


class Haproxy:
    """haproxy as a reverse proxy that adds a static header; TLS on both sides where TLS is asked for."""

    name = "haproxy"

    def __init__(self, folder: Path, core: set[int], upstream: Upstream) -> None:
        folder.mkdir(parents=True)
        self._ca = upstream.pki.ca
        self._ports = {"http": free_port(), "https": free_port()}
        pair = folder / "pair.pem"
        pair.touch(mode=0o600)
        pair.write_bytes(Path(upstream.pki.cert).read_bytes() + Path(upstream.pki.key).read_bytes())
        check = f"ssl verify required ca-file {self._ca} verifyhost {NAME} sni str({NAME})"
        key = "".join(
            f"    http-request set-header {name} {value}\n"
            for name, value in (("Host", NAME), ("Authorization", f'"Bearer {CREDENTIAL}"'))
        )
        path = folder / "haproxy.cfg"
        path.write_text(f"""
global
    nbthread 1
    maxconn 8192
defaults
    mode http
    timeout connect 10s
    timeout client 300s
    timeout server 300s
    http-reuse always
listen plain
    bind 127.0.0.1:{self._ports["http"]} backlog 4096
{key}    server upstream 127.0.0.1:{upstream.plain}
listen tls
    bind 127.0.0.1:{self._ports["https"]} backlog 4096 ssl crt {pair}
{key}    server upstream 127.0.0.1:{upstream.tls} {check}
""")
        self._log = (folder / "log").open("wb")
        program = shutil.which("haproxy", path=_PATH) or "haproxy"
        self._process = subprocess.Popen(
            pinned(core, program, "-db", "-f", str(path)), stdout=self._log, stderr=self._log
        )
        self.pid = self._process.pid
        wait_for(self._ports["http"], self._process)

    def job(self, scheme: str, path: str, mode: str, **settings: Any) -> Job:
        """As of every subject."""
        request = f"GET {path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n"
        ca = self._ca if scheme == "https" else ""
        return Job(mode, ("127.0.0.1", self._ports[scheme]), request, ca=ca, name=NAME, **settings)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()
        self._log.close()


PEERS: dict[str, Callable[[Path, set[int], Upstream], Subject]] = {
    "haproxy": Haproxy,
    "mitmproxy": Mitmproxy,
    "varlock": Varlock,
}


def installed() -> list[str]:
    """Names of the peers that are there; haproxy where the system has it."""
    return [name for name in PEERS if (HOME / name).is_dir() or (name == "haproxy" and shutil.which(name, path=_PATH))]


def start(name: str, folder: Path, core: set[int], upstream: Upstream) -> Subject:
    """Start a peer."""
    return PEERS[name](folder, core, upstream)
