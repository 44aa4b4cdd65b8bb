"""Runs in a network namespace of its own, where every address of the internet is on loopback and a canary listens.

It plays the cases of addresses and names through the whole product and writes what happened as JSON to its output: for
each case the statuses of the proxy and the addresses that were dialled.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker.stack import Reply, Stack, basic, read_reply, vectors
from keyhole.config import Config
from net.test_resolve import DnsServer

PORTS = (80, 443, 22, 25, 2375, 3128, 5432, 6379, 8080, 8443)
ALLOWED_IP = "93.184.215.14"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


class Everywhere(dict[str, list[Any]]):
    """A zone in which every name that is not listed leads to one public address."""

    def get(self, name: str, _default: Any = None) -> list[Any]:  # type: ignore[override]
        return super().get(name, [[ALLOWED_IP]])


@dataclass
class Canary:
    """Listens on all addresses and notes which one was dialled, and what came."""

    dialled: list[tuple[str, int]] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    hellos: list[bytes] = field(default_factory=list)

    async def start(self) -> None:
        for port in PORTS:
            for host, family in (("0.0.0.0", socket.AF_INET), ("::", socket.AF_INET6)):
                sock = socket.socket(family, socket.SOCK_STREAM)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind((host, port))
                await asyncio.start_server(self._serve, sock=sock)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = writer.get_extra_info("sockname")
        self.dialled.append((address[0], address[1]))
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            data = await reader.read(1)
            if data == b"\x16":
                self.hellos.append(data + await reader.read(4096))
            else:
                self.heads.append(data + await reader.readuntil(b"\r\n\r\n"))
                writer.write(ANSWER)
                await writer.drain()
        writer.close()

    def take(self) -> list[str]:
        taken = [address for address, _ in self.dialled]
        self.dialled.clear()
        return taken


def command(*words: str) -> None:
    subprocess.run(words, check=True)


def prepare_network() -> None:
    command("ip", "link", "set", "lo", "up")
    command("ip", "route", "add", "local", "0.0.0.0/0", "dev", "lo")
    command("ip", "-6", "route", "add", "local", "::/0", "dev", "lo")


def authority_of(row: dict[str, Any]) -> str:
    """What a simple client would take for the authority."""
    match = re.match(r"[A-Za-z]+:[/\\]*([^/?#]*)", row["url"], re.DOTALL)
    return match[1] if match else row["url"]


def names_of(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """A zone in which every name in the rows leads to the address that it is about."""
    zone: dict[str, list[Any]] = {}
    for row in rows:
        name = authority_of(row).rpartition("@")[2].partition(":")[0].lower().rstrip(".")
        if re.fullmatch(r"[a-z0-9.-]+", name) and not name.replace(".", "").isdigit():
            zone.setdefault(name, [[row["effective_ip"] or "169.254.169.254"]])
    zone["api.allowed.test"] = [[ALLOWED_IP]]
    return zone


async def exchange(stack: Stack, data: bytes, then: bytes = b"") -> list[int]:
    """The statuses of what is sent; ``then`` follows inside a tunnel that was granted; 0 when it ended."""
    reader, writer = await stack.open()
    statuses = []
    try:
        writer.write(data)
        reply = await read_reply(reader, "CONNECT" if then else "GET")
        statuses.append(reply.status)
        if then and reply.status == 200:
            writer.write(then)
            statuses.append((await read_reply(reader)).status)
    except (asyncio.IncompleteReadError, OSError):
        statuses.append(0)
    finally:
        writer.close()
    return statuses


async def play_url(stack: Stack, token: str, row: dict[str, Any]) -> tuple[list[int], list[int]]:
    """One URL in absolute form and by CONNECT, with the ``Host`` that suits it best and the one that says most."""
    url, authority = row["url"], authority_of(row)
    absolute: list[int] = []
    for host in dict.fromkeys((authority, authority.rpartition("@")[2], row["effective_ip"] or authority)):
        lines = f"GET {url} HTTP/1.1\r\nHost: {host}\r\n".encode("utf-8", "surrogatepass")
        absolute += await exchange(stack, lines + basic(token) + b"\r\n")
    port = 443 if url.lower().startswith(("https", "wss")) else 80
    tunnelled: list[int] = []
    after = authority.rpartition("@")[2]
    for target in dict.fromkeys((authority, authority if after == "api.allowed.test" else after)):
        name = target if re.search(r"(?<!:):\d+$|\]:\d+$", target) else f"{target}:{port}"
        lines = f"CONNECT {name} HTTP/1.1\r\nHost: {name}\r\n".encode("utf-8", "surrogatepass")
        inside = f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode("utf-8", "surrogatepass")
        tunnelled += await exchange(stack, lines + basic(token) + b"\r\n", inside)
    return absolute, tunnelled


async def play_urls(stack: Stack, canary: Canary, token: str) -> list[dict[str, Any]]:
    results = []
    for row in vectors("net/ssrf_urls.jsonl"):
        absolute, tunnelled = await play_url(stack, token, row)
        results.append({**row, "absolute": absolute, "tunnelled": tunnelled, "dialled": canary.take()})
    await asyncio.sleep(0.2)
    results.append({"id": "late", "must": "block", "absolute": [400], "tunnelled": [400], "dialled": canary.take()})
    return results


async def play_names(stack: Stack, canary: Canary, token: str) -> dict[str, Any]:
    results = {}
    for row in vectors("net/dns_scenarios.jsonl"):
        statuses, began = [], time.monotonic()
        others: list[Reply] = []
        for _ in range(3 if row["class"] != "resolver-stall" else 1):
            slow = asyncio.create_task(stack.absolute(token, f"http://{row['name']}/"))
            if row["class"] == "resolver-stall":
                quick = (stack.absolute(token, f"http://{ALLOWED_IP}/") for _ in range(100))
                others = await asyncio.gather(*quick)
                between = time.monotonic() - began
                assert len(others) == 100
                results["others"] = {"statuses": sorted({reply.status for reply in others}), "seconds": between}
            statuses.append((await slow).status)
        seconds = time.monotonic() - began
        dialled = [address for address in canary.take() if not others or address != ALLOWED_IP]
        results[row["id"]] = {"statuses": statuses, "dialled": dialled, "seconds": seconds}
    return results


EXEMPT = {
    "five.test": "10.0.0.5",
    "six.test": "10.0.0.6",
    "four.test": "10.0.0.4",
    "metadata.test": "169.254.169.254",
    "loopback.test": "127.0.0.1",
    "mapped.test": "::ffff:10.0.0.6",
    "nat64.test": "64:ff9b::a00:6",
    "sixtofour.test": "2002:a00:6::1",
    "mapped-five.test": "::ffff:10.0.0.5",
}


async def play_exemptions(stack: Stack, canary: Canary) -> dict[str, Any]:
    """A service that names 10.0.0.5 only, whose hosts resolve to this and that."""
    await stack.secret("lan/key")
    hosts = [f"{name}:80" for name in EXEMPT]
    await stack.service("lan", secret="lan/key", hosts=hosts, schemes=["http"], allow_addresses=["10.0.0.5/32"])
    token = await stack.agent("lan", "lan")
    results = {}
    for name in EXEMPT:
        reply = await stack.absolute(token, f"http://{name}/")
        results[name] = {"status": reply.status, "code": reply.code, "dialled": canary.take()}
    return results


def standard_urls() -> list[dict[str, Any]]:
    """The URLs of the URL standard's own tests, where they are at hand."""
    root = os.environ.get("KEYHOLE_VECTORS")
    if not root:
        return []
    with tarfile.open(Path(root) / "third-party" / "url-wpt.tar.gz") as archive:
        member = archive.extractfile("url-wpt/urltestdata.json")
        assert member is not None
        return [row for row in json.loads(member.read()) if isinstance(row, dict)]


async def play_standard(stack: Stack, canary: Canary, token: str, server: DnsServer) -> list[dict[str, Any]]:
    """For each URL that is accepted: the host in the record, in the DNS query, in ``Host`` and in the TLS hello."""
    results = []
    for row in standard_urls():
        canary.take()
        canary.heads.clear()
        canary.hellos.clear()
        server.asked.clear()
        host = row.get("host") or authority_of({"url": row["input"]})
        lines = f"GET {row['input']} HTTP/1.1\r\nHost: {host}\r\n".encode("utf-8", "surrogatepass")
        await exchange(stack, lines + basic(token) + b"\r\n")
        if not canary.dialled:
            continue
        results.append(
            {
                "input": row["input"],
                "hostname": row.get("hostname", ""),
                "failure": bool(row.get("failure")),
                "record": (await stack.records())[-1]["host"],
                "asked": sorted({name for name, _ in server.asked}),
                "dialled": canary.take(),
                "heads": [head.decode("latin-1") for head in canary.heads],
                "hellos": [hello.decode("latin-1") for hello in canary.hellos],
            }
        )
    return results


async def main() -> None:
    prepare_network()
    rows = vectors("net/ssrf_urls.jsonl")
    zone = Everywhere(names_of(rows))
    zone.update({row["name"]: row["answers"] for row in vectors("net/dns_scenarios.jsonl")})
    zone.update({name: [[address]] for name, address in EXEMPT.items()})
    canary = Canary()
    await canary.start()
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: DnsServer(zone), local_addr=("127.0.0.1", 0)
    )
    port = transport.get_extra_info("sockname")[1]
    async with Stack(Config(resolver=f"127.0.0.1:{port}", egress="allow")) as stack:
        token = await stack.agent("open")
        results: dict[str, Any] = {"urls": await play_urls(stack, canary, token)}
        canary.heads.clear()
        results["names"] = await play_names(stack, canary, token)
        results["exempt"] = await play_exemptions(stack, canary)
        results["heads"] = [head.decode("latin-1") for head in canary.heads]
        assert server.asked
        results["standard"] = await play_standard(stack, canary, token, server)
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
