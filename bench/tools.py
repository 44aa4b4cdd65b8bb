"""Tools: a server of the Model Context Protocol by itself, and the same one behind the gateway.

Client and server are as small as they can be, so that what is measured is what stands between them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import quantiles
from typing import Any

from bench.machine import cores, pinned, program, rss_bytes

Numbers = dict[str, float]
VALUE = "tok_bench_0123456789abcdef"
SERVER = """
import json, os, sys
number = int(sys.argv[1])
schema = {"type": "object", "properties": {"text": {"type": "string", "description": "what to say back"}}}
about = "Says back what it was told, in a sentence that is as long as such descriptions are."
tools = [{"name": f"say_{n}", "description": about, "inputSchema": schema} for n in range(number)]
for line in sys.stdin:
    asked = json.loads(line)
    if asked.get("id") is None:
        continue
    method, params = asked["method"], asked.get("params") or {}
    if method == "initialize":
        info = {"name": "bench", "version": "1"}
        said = {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": info}
    elif method == "tools/list":
        said = {"tools": tools}
    elif method == "tools/call":
        said = {"content": [{"type": "text", "text": params["arguments"]["text"]}]}
    else:
        error = {"code": -32601, "message": "no such method"}
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "error": error}), flush=True)
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": said}), flush=True)
"""


class Talk:
    """A client of a program: one request after the other over its stdin and stdout."""

    def __init__(self, command: Sequence[str], env: dict[str, str]) -> None:
        self._process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._count = 0
        info = {"name": "bench", "version": "1"}
        self.ask("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info})
        self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """The result of a request. Ends the benchmark when there is none."""
        self._count += 1
        self._send({"jsonrpc": "2.0", "id": self._count, "method": method, "params": params})
        assert self._process.stdout is not None
        while True:
            said = json.loads(self._process.stdout.readline() or '{"id": 0}')
            if said.get("id") == self._count and "result" in said:
                result: dict[str, Any] = said["result"]
                return result
            if said.get("id") in {0, self._count}:
                raise SystemExit(f"the server refuses: {said}")

    def call(self, tool: str) -> float:
        """Seconds that a call takes."""
        begin = time.perf_counter()
        said = self.ask("tools/call", {"name": tool, "arguments": {"text": "hello"}})
        took = time.perf_counter() - begin
        if said["content"][0]["text"] != "hello":
            raise SystemExit(f"the server says {said}")
        return took

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()

    def close(self) -> None:
        self._process.communicate(timeout=60)


class Place:
    """A vault with servers bound, approved and granted to an agent."""

    def __init__(self, folder: Path, tools: Sequence[int]) -> None:
        self.script = folder / "server.py"
        self.script.write_text(SERVER)
        key = folder / "unseal.key"
        key.write_bytes(os.urandom(32))
        key.chmod(0o600)
        self.env = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "PYTHONPATH") if name in os.environ}
        self.env |= {"KEYHOLE_HOME": str(folder / "vault"), "KEYHOLE_SEAL": f"keyfile:{key}"}
        subprocess.run([program(), "init", "--seal", f"keyfile:{key}"], env=self.env, check=True, capture_output=True)
        given = json.dumps({"python": sys.executable, "script": str(self.script), "tools": tools, "value": VALUE})
        furnish = [sys.executable, "-m", "bench.tools"]
        subprocess.run(furnish, input=given, env=self.env, text=True, check=True)

    def bare(self, tools: int) -> list[str]:
        """The server by itself."""
        return pinned(cores()[0], sys.executable, "-S", str(self.script), str(tools))

    def gateway(self, *servers: str) -> list[str]:
        """The gateway in front of servers."""
        words = [word for name in servers for word in ("--server", name)]
        return pinned(cores()[0], program(), "mcp", "gateway", "--agent", "bench", *words)


@contextlib.contextmanager
def talking(command: list[str], env: dict[str, str]) -> Iterator[Talk]:
    """A client of a program, which ends with it."""
    talk = Talk(command, env)
    try:
        yield talk
    finally:
        talk.close()


def _spread(took: Sequence[float]) -> Numbers:
    cuts = quantiles(took, n=100)
    return {"p50": cuts[49] * 1e3, "p99": cuts[98] * 1e3, "count": len(took)}


def one(folder: Path, seconds: float) -> dict[str, Numbers]:
    """Milliseconds of a call, one after the other, bare and through the gateway in turn."""
    place = Place(folder, [1])
    with talking(place.bare(1), place.env) as bare, talking(place.gateway("s0"), place.env) as gateway:
        gateway.ask("tools/list", {})
        took: dict[str, list[float]] = {"bare": [], "keyhole": []}
        for _ in range(20):
            bare.call("say_0")
            gateway.call("s0__say_0")
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds or len(took["bare"]) < 20:
            took["bare"].append(bare.call("say_0"))
            took["keyhole"].append(gateway.call("s0__say_0"))
    found = {name: _spread(times) for name, times in took.items()}
    found["added"] = {name: found["keyhole"][name] - found["bare"][name] for name in ("p50", "p99")}
    found["ratio"] = {name: found["keyhole"][name] / found["bare"][name] for name in ("p50", "p99")}
    return found


def listed(folder: Path, seconds: float, tools: int) -> dict[str, Numbers]:
    """Milliseconds of a list of very many tools of one server, bare and through the gateway in turn."""
    place = Place(folder, [tools])
    with talking(place.bare(tools), place.env) as bare, talking(place.gateway("s0"), place.env) as gateway:
        took: dict[str, list[float]] = {"bare": [], "keyhole": []}
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds or len(took["bare"]) < 3:
            for name, talk in (("bare", bare), ("keyhole", gateway)):
                start = time.perf_counter()
                if len(talk.ask("tools/list", {})["tools"]) != tools:
                    raise SystemExit("a list is not whole")
                took[name].append(time.perf_counter() - start)
    found = {name: _spread(times) for name, times in took.items()}
    found["ratio"] = {"p50": found["keyhole"]["p50"] / found["bare"]["p50"]}
    return found


def many(folder: Path, seconds: float, servers: int) -> dict[str, Numbers]:
    """Very many servers at once beside one: seconds until all tools are listed, memory, and a call of each in turn."""
    place = Place(folder, [1] * servers)
    found = {}
    for subject, number in (("one", 1), ("keyhole", servers)):
        names = [f"s{each}" for each in range(number)]
        begin = time.perf_counter()
        with talking(place.gateway(*names), place.env) as gateway:
            ready = time.perf_counter() - begin
            if len(gateway.ask("tools/list", {})["tools"]) != number:
                raise SystemExit("a list is not whole")
            start = time.perf_counter() - begin
            took, at = list[float](), 0
            begin = time.perf_counter()
            while time.perf_counter() - begin < seconds or at < max(number, 20):
                took.append(gateway.call(f"s{at % number}__say_0"))
                at += 1
            whole = rss_bytes(gateway.pid) / 1e6
            own = int(Path(f"/proc/{gateway.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
        found[subject] = {"ready": ready, "start": start, "own_mb": own, "all_mb": whole, **_spread(took)}
    names_ = ("start", "own_mb", "all_mb", "p50", "p99")
    found["ratio"] = {name: found["keyhole"][name] / found["one"][name] for name in names_}
    return found


def _furnish(python: str, script: str, tools: Sequence[int], value: str) -> None:
    import keyhole  # noqa: PLC0415  # in a process of its own
    from keyhole.cli.mcp.gateway import ways  # noqa: PLC0415
    from keyhole.faces.mcp.gateway.gateway import Gateway  # noqa: PLC0415

    names = [f"s{number}" for number in range(len(tools))]
    with keyhole.Client() as vault:
        vault.write("secret/data/bench/token", {"data": {"value": value}})
        vault.write("agents/bench")
        vault.write("sys/policies/acl/agent/bench", {"policy": 'path "tools/*" { capabilities = ["use"] }'})
        for name, number in zip(names, tools, strict=True):
            args = ["-S", script, str(number)]
            vault.write(f"tools/servers/{name}", {"command": python, "args": args, "env": {"T": "bench/token"}})
        own = vault.party()

        async def approve() -> None:
            stands = Gateway(own, ways())
            for name in names:
                digests = {tool: each.digest for tool, each in (await stands.listing(name)).items()}
                await asyncio.to_thread(own.ask, "update", f"tools/servers/{name}/pins", {"approve": digests})
            await stands.close()

        asyncio.run(approve())
        own.close()


if __name__ == "__main__":
    _furnish(**json.load(sys.stdin))
