"""Growth: the same requests to a vault with a hundred of each thing, and to one with very many."""

from __future__ import annotations

import http.client
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.load import Job
from bench.machine import rss_bytes
from bench.subjects import Keyhole
from bench.upstream import Upstream

Numbers = dict[str, float]
Generate = Callable[[Job], Numbers]
_OTP = {"key_type": "otp", "default_user": "ubuntu", "cidr_list": "10.0.0.0/8"}
_FRESH = 5
_PATH = "f0NUMBER/s00000NUMBER"  # as ``growth_fill.secret_path``: each connection has a secret of its own


@dataclass(frozen=True, slots=True)
class Size:
    """How much lies in a vault."""

    secrets: int
    services: int
    agents: int
    leases: int

    def small(self) -> Size:
        """What is measured beside it: at most a hundred of each."""
        return Size(*(min(100, getattr(self, name)) for name in self.__slots__))


GROWN = Size(1_000_000, 10_000, 10_000, 100_000)


class Grown(Keyhole):
    """A server on a vault of a size."""

    def __init__(self, folder: Path, core: set[int], upstream: Upstream, size: Size) -> None:
        self._size = size
        super().__init__(folder, core, upstream)

    def _prepare(self, owner: str) -> str:
        token = super()._prepare(owner)
        self.call("POST", "sys/mounts/ssh", {"type": "ssh"})
        self.call("POST", "ssh/roles/ops", _OTP)
        size = self._size
        counts = [str(max(size.secrets, 100)), str(size.services), str(size.agents), str(size.leases)]
        command = [sys.executable, "-m", "bench.growth_fill", str(self._folder), *counts]
        subprocess.run(command, input=self.root_token.encode() + b"\n", check=True)
        return token

    def api_job(self, method: str, path: str, body: str = "", **settings: float) -> Job:
        """A request to the API over kept connections."""
        host, port = self.api
        lines = [f"{method} /v1/{path} HTTP/1.1", f"Host: {host}:{port}", f"X-Vault-Token: {self.root_token}"]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return Job("keepalive", self.api, "\r\n".join([*lines, "", body]), **settings)  # type: ignore[arg-type]

    def first_call(self) -> float:
        """Seconds that the first call takes after an agent was made, and so the configuration has changed."""
        self.call("POST", f"agents/new{time.time_ns()}", {})
        connection = http.client.HTTPConnection(*self.proxy)
        authority = self.authority("http")
        begin = time.perf_counter()
        connection.request(
            "GET", f"http://{authority}/small", headers={"Proxy-Authorization": f"Bearer {self.agent_token}"}
        )
        answer = connection.getresponse()
        answer.read()
        took = time.perf_counter() - begin
        connection.close()
        if answer.status != 200:
            raise SystemExit(f"the upstream answered {answer.status}")
        return took


def growth(small: Grown, large: Grown, seconds: float, generate: Generate) -> dict[str, Numbers]:
    """Both in turn: calls, reads and writes at 8 at once, p50 in seconds, and memory."""
    found = {}
    for name, subject in (("small", small), ("keyhole", large)):
        settings = {"connections": 8, "seconds": seconds}
        body = '{"data": {"value": "%s"}}' % ("v" * 64)
        asked = {
            "call": subject.job("http", "/small", "keepalive", **settings),
            "read": subject.api_job("GET", f"secret/data/{_PATH}", **settings),
            "write": subject.api_job("POST", f"secret/data/{_PATH}", body, **settings),
        }
        numbers = {}
        for what, job in asked.items():
            got = generate(job)
            numbers[what], numbers[f"{what}_refused"] = got["p50"], got["refused"]
        numbers["first"] = median(subject.first_call() for _ in range(_FRESH))
        numbers["rss_mb"] = rss_bytes(subject.pid) / 1e6
        found[name] = numbers
    return found
