"""The MCP Inspector against the server and the gateway: both transports, both revisions, lists and calls.

    python tests/campaigns/mcp_inspector.py          # lists and calls, eight ways

Each run is a client that starts or reaches the server anew, and no output of any of them may have a value.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from children import child
from e2e.inspector import call, inspect, over_http
from e2e.world import KEY, KEYHOLE, TOKEN, World, held, make_world

EVIL = (sys.executable, "-S", str(Path(__file__).parents[1] / "e2e" / "evil_mcp.py"))
ENDPOINTS = {"serve": ("mcp", "serve"), "gateway": ("mcp", "gateway")}


def furnish(world: World) -> None:
    """A server behind the gateway, approved and granted."""
    before = world.keyhole("policy", "show", "agent/coder").stdout
    world.keyhole("mcp", "server", "add", "one", "--env", "EVIL_TOKEN=git/token", "--", *EVIL)
    world.keyhole("mcp", "server", "approve", "one", "--yes")
    world.keyhole("policy", "write", "agent/coder", given=before + b'\npath "tools/*" { capabilities = ["use"] }')


def runs(world: World, config: Path, kind: str, era: str) -> None:
    """A list and a call; what they answer has no value."""
    listed = {tool["name"] for tool in inspect(world, config, "--method", "tools/list", era=era)["tools"]}
    if kind == "serve":
        assert "list_services" in listed, listed
        found = call(world, config, "call", {"url": f"{world.base}/echo", "service": "api"}, era=era)
    else:
        assert "one__echo" in listed, listed
        found = call(world, config, "one__echo", {"a": 1}, era=era)
    text = json.dumps(found)
    assert "****" in text, text
    assert not held(KEY, text.encode())
    assert not held(TOKEN, text.encode())


def main() -> None:
    """All of them."""
    with tempfile.TemporaryDirectory(prefix="keyhole-inspector-") as folder:
        world = make_world(Path(folder))
        furnish(world)
        token = json.loads(world.keyhole("agent", "token", "coder", "--json").stdout)["token"]
        config = Path(folder) / "mcp.json"
        for kind, words in ENDPOINTS.items():
            entry = {"command": KEYHOLE, "args": [*words, "--agent", "coder"], "env": world.env}
            for era in ("legacy", "modern"):
                config.write_text(json.dumps({"mcpServers": {"keyhole": entry}}))
                runs(world, config, kind, era)
                print(f"{kind} over stdio, {era}: right")
            command = [KEYHOLE, "--json", *words, "--http", "127.0.0.1:0"]
            with child(command, env=world.env, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
                assert process.stdout is not None
                over_http(config, json.loads(process.stdout.readline())["url"], token)
                try:
                    for era in ("legacy", "modern"):
                        runs(world, config, kind, era)
                        print(f"{kind} over HTTP, {era}: right")
                finally:
                    process.terminate()
        world.upstream.close()
        world.stranger.close()


if __name__ == "__main__":
    main()
