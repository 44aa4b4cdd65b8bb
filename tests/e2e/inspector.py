"""The MCP Inspector in its command-line mode, with configurations as its users have them."""

import json
import subprocess
from pathlib import Path

from e2e.internet import client
from e2e.world import World, node

_PATIENCE = 240  # seconds that it waits for a server, whatever the machine is doing besides


def inspect(world: World, config: Path, *words: str, era: str, server: str = "keyhole"):
    """The result of one run, which connects, asks once and ends.

    `era` is the protocol's revision: `legacy` begins with a handshake, `modern` is that of 2026-07-28.
    """
    command = [node(), client("mcp-inspector"), "--cli", "--config", str(config), "--server", server]
    command += ["--protocol-era", era, "--format", "json", "--connect-timeout", f"{_PATIENCE}000", *words]
    done = subprocess.run(command, env=world.env, capture_output=True, timeout=2 * _PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)["result"]


def call(world: World, config: Path, tool: str, arguments, *, era: str, server: str = "keyhole"):
    """What comes of one call of a tool."""
    words = ("--method", "tools/call", "--tool-name", tool, "--tool-args-json", json.dumps(arguments))
    return inspect(world, config, *words, era=era, server=server)


def over_http(path: Path, url: str, token: str) -> Path:
    """A configuration for an endpoint, written."""
    entry = {"type": "streamable-http", "url": url, "headers": {"Authorization": f"Bearer {token}"}}
    path.write_text(json.dumps({"mcpServers": {"keyhole": entry}}))
    return path
