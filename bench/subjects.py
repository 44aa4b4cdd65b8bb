"""Who is measured: nobody in between, nginx that adds a static header, and Keyhole with all that it does."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bench.load import Job
from bench.machine import free_port, pinned, program
from bench.upstream import CREDENTIAL, NAME, Nginx, Upstream

SECRET = "bench/api-key"


class Subject(Protocol):
    """How a subject is asked.

    Attributes:
        name: in the results.
        pid: of its process; 0 for none.
    """

    name: str
    pid: int

    def job(self, scheme: str, path: str, mode: str, **settings: Any) -> Job:
        """The generator's job that asks this subject for a path of the upstream."""

    def close(self) -> None: ...


class Direct:
    """The upstream itself, asked with the real credential."""

    name = "direct"
    pid = 0

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def job(self, scheme: str, path: str, mode: str, **settings: Any) -> Job:
        tls = scheme == "https"
        request = f"GET {path} HTTP/1.1\r\nHost: {NAME}\r\nAuthorization: Bearer {CREDENTIAL}\r\n\r\n"
        port = self._upstream.tls if tls else self._upstream.plain
        ca = self._upstream.pki.ca if tls else ""
        return Job(mode, ("127.0.0.1", port), request, ca=ca, name=NAME, **settings)

    def close(self) -> None:
        """It is closed by whoever made it."""


class NginxProxy:
    """nginx as a reverse proxy that adds a static header; TLS on both sides where TLS is asked for."""

    name = "nginx"

    def __init__(self, folder: Path, core: set[int], upstream: Upstream) -> None:
        self._ca = upstream.pki.ca
        self._plain, self._tls, self.static = free_port(), free_port(), free_port()
        root = folder / "root"
        root.mkdir(parents=True)
        (root / "static").write_bytes(bytes(1024))
        common = f"""
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host {NAME};
            proxy_set_header Authorization "Bearer {CREDENTIAL}";"""
        body = f"""
    upstream plain {{ server 127.0.0.1:{upstream.plain}; keepalive 128; keepalive_requests 100000000; }}
    upstream tls {{ server 127.0.0.1:{upstream.tls}; keepalive 128; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{self._plain} backlog=4096;
        location / {{ proxy_pass http://plain; {common} }}
        location /events {{ proxy_pass http://plain; proxy_buffering off; {common} }}
    }}
    server {{
        listen 127.0.0.1:{self._tls} ssl backlog=4096;
        ssl_certificate {upstream.pki.cert};
        ssl_certificate_key {upstream.pki.key};
        proxy_ssl_server_name on;
        proxy_ssl_name {NAME};
        proxy_ssl_verify on;
        proxy_ssl_trusted_certificate {upstream.pki.ca};
        location / {{ proxy_pass https://tls; {common} }}
        location /events {{ proxy_pass https://tls; proxy_buffering off; {common} }}
    }}
    server {{
        listen 127.0.0.1:{self.static} backlog=4096;
        open_file_cache max=10;
        location / {{ root {root}; }}
    }}"""
        self._nginx = Nginx(folder, core, body, self._plain)
        self.pid = self._nginx.pid

    def job(self, scheme: str, path: str, mode: str, **settings: Any) -> Job:
        tls = scheme == "https"
        request = f"GET {path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n"
        port = self._tls if tls else self._plain
        return Job(mode, ("127.0.0.1", port), request, ca=self._ca if tls else "", name=NAME, **settings)

    def static_job(self, mode: str, **settings: Any) -> Job:
        """Ask for the static file of 1 KiB."""
        return Job(mode, ("127.0.0.1", self.static), f"GET /static HTTP/1.1\r\nHost: {NAME}\r\n\r\n", **settings)

    def close(self) -> None:
        self._nginx.close()


@dataclass
class _Urls:
    api: tuple[str, int]
    proxy: tuple[str, int]
    ca: str


class Keyhole:
    """A server on a SQLite store: an agent with a grant, a service for the upstream, a secret that it binds.

    Args:
        folder: for its files.
        core: where it runs.
        upstream: what it calls.
        workers: processes that serve.
    """

    name = "keyhole"

    def __init__(self, folder: Path, core: set[int], upstream: Upstream, workers: int = 1) -> None:
        folder.mkdir(parents=True, mode=0o700)
        self._folder = folder
        self._upstream = upstream
        self.command = ["--vault", f"sqlite:{folder}/vault.db"]
        seal = ["--seal", f"keyfile:{folder}/key"]
        environment = {**os.environ, "KEYHOLE_HOME": str(folder)}
        made = subprocess.run(
            [program(), "init", *self.command, *seal, "--make-keyfile", "--json"],
            env=environment,
            check=True,
            stdout=subprocess.PIPE,
        )
        self.root_token: str = json.loads(made.stdout)["root_token"]
        listen = ["--listen", "127.0.0.1:0", "--proxy-listen", "127.0.0.1:0", "--data", str(folder), "--json"]
        out = ["--upstream-ca", upstream.pki.ca, "--resolve", f"{NAME}:127.0.0.1", "--workers", str(workers)]
        self._process = subprocess.Popen(
            pinned(core, program(), "server", *self.command, *seal, *listen, *out),
            env=environment,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        started = json.loads(self._process.stdout.readline() or b"{}")
        if not started:
            raise SystemExit("the server of the benchmark did not start")
        self.pid = self._process.pid
        self._urls = _Urls(_address(started["api"]), _address(started["proxy"]), started["ca_file"])
        try:
            self.agent_token = self._prepare(self.root_token)
        except BaseException:
            self.close()
            raise

    def add_org(self, name: str) -> tuple[str, str]:
        """Another org with the same services: the token of its agent, and a file of its CA."""
        owner = self.call("POST", f"sys/namespaces/{name}")["data"]["root_token"]
        ca = self._folder / f"{name}.pem"
        ca.write_text(self.call("GET", "sys/keyhole", token=owner)["data"]["ca"])
        return self._prepare(owner), str(ca)

    def _prepare(self, owner: str) -> str:
        def put(method: str, path: str, data: dict[str, Any]) -> dict[str, Any]:
            return self.call(method, path, data, owner)

        put("POST", f"secret/data/{SECRET}", {"data": {"value": CREDENTIAL}})
        for name, scheme, port in (("plain", "http", self._upstream.plain), ("tls", "https", self._upstream.tls)):
            put(
                "POST",
                f"services/{name}",
                {
                    "hosts": [f"{NAME}:{port}"],
                    "schemes": [scheme],
                    "secret": SECRET,
                    "inject": {"kind": "bearer"},
                    "paths": ["/**"],
                    "allow_addresses": ["127.0.0.1/32"],
                },
            )
        put("POST", "agents/bench", {})
        for name in ("plain", "tls"):
            put("POST", f"agents/bench/services/{name}", {})
        token: str = put("POST", "agents/bench/token", {"ttl": "1h", "scope": "proxy"})["data"]["token"]
        return token

    def call(self, method: str, path: str, data: dict[str, Any] | None = None, token: str = "") -> dict[str, Any]:
        """One request to the API with the root token, or with another one."""
        connection = http.client.HTTPConnection(*self.api)
        body = None if data is None else json.dumps(data)
        connection.request(method, f"/v1/{path}", body, {"X-Vault-Token": token or self.root_token})
        response = connection.getresponse()
        text = response.read()
        connection.close()
        if response.status >= 300:
            raise SystemExit(f"{method} {path}: {text[:500]!r}")
        answer: dict[str, Any] = json.loads(text or b"{}")
        return answer

    @property
    def api(self) -> tuple[str, int]:
        """Address of its API."""
        return self._urls.api

    @property
    def proxy(self) -> tuple[str, int]:
        """Address of its proxy."""
        return self._urls.proxy

    def authority(self, scheme: str) -> str:
        """The upstream, as a request names it."""
        return f"{NAME}:{self._upstream.tls if scheme == 'https' else self._upstream.plain}"

    def job(self, scheme: str, path: str, mode: str, *, token: str = "", **settings: Any) -> Job:
        authority = self.authority(scheme)
        proof = f"Proxy-Authorization: Bearer {token or self.agent_token}\r\n"
        if scheme == "https":
            connect = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{proof}\r\n"
            request = f"GET {path} HTTP/1.1\r\nHost: {authority}\r\n\r\n"
            return Job(mode, self._urls.proxy, request, connect, self._urls.ca, NAME, **settings)
        request = f"GET http://{authority}{path} HTTP/1.1\r\nHost: {authority}\r\n{proof}\r\n"
        return Job(mode, self._urls.proxy, request, **settings)

    def http2_job(self, path: str, **settings: Any) -> Job:
        """Many requests at once on each connection, inside of tunnels."""
        job = self.job("https", path, "http2", **settings)
        job.request = f"GET https {NAME}:{self._upstream.tls} {path}"
        return job

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


def _address(url: str) -> tuple[str, int]:
    host, _, port = url.rpartition("/")[2].rpartition(":")
    return host, int(port)
