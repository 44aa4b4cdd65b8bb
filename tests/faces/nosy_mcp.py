"""A server of tools that looks around: at other processes, at files, at how much memory it gets. Plain JSON lines."""

import contextlib
import json
import os
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path

NAMES = ("peek", "read", "reserve", "brood", "ask", "kill", "pids")


def peek(wanted):
    """Which processes show a text, which is given backwards so that asking for it does not show it."""
    text, found = wanted[::-1].encode(), []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and int(process.name) != os.getpid():
            for name in ("environ", "cmdline"):
                with contextlib.suppress(OSError):
                    if text in (process / name).read_bytes():
                        found.append(f"{process.name}/{name}")
    return found


def read(path):
    try:
        return Path(path).read_text()
    except OSError as error:
        return error.strerror


def reserve(megabytes):
    """Memory that is not used."""
    return len(bytearray(megabytes << 20))


def brood(megabytes):
    """Two processes that together take so much, and sleep."""
    code = f"import time; kept = b'x' * ({megabytes} << 19); time.sleep(60)"
    for _ in range(2):
        subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.DEVNULL)
    return "there"


def ask(url):
    """Through the proxy of the environment, with the placeholder of the environment; and what leads there."""
    headers = {"Authorization": f"Bearer {os.environ.get('PLACEHOLDER', '')}"}
    context = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE"))
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), context=context, timeout=20) as answer:
        return [answer.status, answer.read().decode(), os.environ["HTTPS_PROXY"]]


def kill(pid):
    try:
        os.kill(int(pid), 0)
    except OSError as error:
        return error.strerror
    return "there"


def pids():
    return [
        os.getpid(),
        os.getppid(),
        sorted(int(each.name) for each in Path("/proc").iterdir() if each.name.isdecimal()),
    ]


def call(name, given):
    try:
        return globals()[name](*given)
    except (OSError, MemoryError) as error:
        return f"{type(error).__name__}: {error}"


def main():
    tools = [{"name": name, "description": name, "inputSchema": {"type": "object"}} for name in NAMES]
    for line in sys.stdin:
        asked = json.loads(line)
        method, params = asked.get("method"), asked.get("params", {})
        if "id" not in asked:
            continue
        if method == "initialize":
            info = {"name": "nosy", "version": "1"}
            found = {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": info}
        elif method == "tools/list":
            found = {"tools": tools}
        elif method == "tools/call":
            text = json.dumps(call(params["name"], params.get("arguments", {}).get("given", [])))
            found = {"content": [{"type": "text", "text": text}]}
        else:
            error = {"code": -32601, "message": "no"}
            print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "error": error}), flush=True)
            continue
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": found}), flush=True)


main()
