"""The proxy port that takes no token serves the processes of the command, and nobody else."""

import json
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from e2e.internet import PROGRAMS
from e2e.world import KEY, KEYHOLE, Said

PORT = r"port=$(echo $auto_proxy | sed 's/.*base64,//' | base64 -d | sed 's/.*127.0.0.1:\([0-9]*\)\".*/\1/')"


@pytest.fixture
def java():
    if shutil.which("java") is None:
        pytest.fail("there is no java: make test gets it")


@pytest.mark.client("HttpClient of Java")
def test_java_is_let_in_and_its_options_hold_no_token(world, java):
    done = world.run("java", str(PROGRAMS / "Get.java"), f"{world.base}/v1/java")
    assert json.loads(done.stdout) == {"ok": True, "got": 0}
    [seen] = [seen for seen in world.upstream.seen if seen.path == "/v1/java"]
    assert seen.headers["Authorization"] == f"Bearer {KEY}"
    assert "Proxy-Authorization" not in seen.headers
    said = done.stderr.decode()
    assert "Picked up JAVA_TOOL_OPTIONS" in said
    token = world.run("sh", "-c", "echo $HTTPS_PROXY | tail -c 60").stdout.decode().split("@")[0][-8:]
    assert token not in said
    assert "agent:" not in said


TRUST = """
mkdir -p "$HOME/.pki/nssdb"
certutil -d "sql:$HOME/.pki/nssdb" -N --empty-password
certutil -d "sql:$HOME/.pki/nssdb" -A -t C,, -n keyhole -i "$NODE_EXTRA_CA_CERTS"
"""
BROWSE = """
chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --user-data-dir="$HOME/profile" --dump-dom "$1"
"""
# What a page asks for, and by which protocols it was answered.
PAGE = b"""<!doctype html><body><script>
const ask = new XMLHttpRequest();
ask.open("GET", "/v1/chromium", false);
ask.send();
const spoken = (kind) => performance.getEntriesByType(kind)[0].nextHopProtocol;
document.body.textContent = `${ask.responseText} by ${spoken("resource")} after ${spoken("navigation")}`;
</script>"""


@pytest.mark.client("Chromium")
def test_chromium_is_let_in_once_its_store_has_our_certificate(world):
    url = f"{world.base}/v1/chromium"
    env = {"HOME": str(world.folder / "browser")}
    Path(env["HOME"]).mkdir()
    done = world.run("sh", "-c", BROWSE, "sh", url, code=None, **env)
    assert b'"ok": true' not in done.stdout
    assert not [seen for seen in world.upstream.seen if seen.path == "/v1/chromium"]
    world.upstream.pages["/v1/page"] = lambda _: Said(PAGE, 200, {"Content-Type": "text/html"})
    done = world.run("sh", "-c", TRUST + BROWSE, "sh", f"{world.base}/v1/page", **env)
    assert b'{"ok": true, "got": 0} by h2 after h2' in done.stdout
    [seen] = [seen for seen in world.upstream.seen if seen.path == "/v1/chromium"]
    assert seen.headers["Authorization"] == f"Bearer {KEY}"


def test_curl_needs_no_token_there(world):
    script = f"{PORT}; env -u HTTPS_PROXY -u https_proxy curl -sSf --proxy http://127.0.0.1:$port $1"
    done = world.run("sh", "-c", script, "sh", f"{world.base}/v1/port")
    assert json.loads(done.stdout)["ok"] is True


def test_every_request_without_a_tunnel_is_one_of_its_own(world):
    url = f"http://{world.base.partition('//')[2]}/v1/x"
    done = world.run(
        "sh",
        "-c",
        f"{PORT}; curl -sS -o /dev/null -o /dev/null -w '%{{http_code}} ' --proxy http://127.0.0.1:$port $1 $1",
        "sh",
        url,
    )
    assert done.stdout == b"403 403 "  # no service for plain http; a request without the token would get 407


class _Command:
    """A command that says its port and waits."""

    def __init__(self, world, *options):
        script = f"{PORT}; echo $port; read line"
        command = [KEYHOLE, "run", "--agent", "coder", *options, "--", "sh", "-c", script]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, env=world.env, cwd=world.folder / "work", **pipes)
        self.port = int(self.process.stdout.readline())

    def end(self) -> bytes:
        return self.process.communicate(b"\n", timeout=60)[1]


@pytest.mark.parametrize("options", [("--network", "host"), ("--sandbox", "off")])
def test_a_process_of_the_same_user_outside_the_command_is_refused(world, options):
    command = _Command(world, *options)
    before = len(world.upstream.seen)
    try:
        host = world.base.partition("//")[2]
        with socket.create_connection(("127.0.0.1", command.port)) as stranger:
            stranger.sendall(f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert stranger.recv(100).startswith(b"HTTP/1.1 403 ")
    finally:
        said = command.end()
    assert b"a process outside the command tried to use its proxy port, and was refused" in said
    assert len(world.upstream.seen) == before


def test_outside_a_network_of_the_commands_own_there_is_no_port(world):
    command = _Command(world)
    try:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", command.port))
    finally:
        command.end()


def test_another_command_in_its_own_sandbox_is_refused(world):
    command = _Command(world, "--network", "host")
    try:
        script = f"curl -sS -o /dev/null -w '%{{http_connect}}' --proxy http://127.0.0.1:{command.port} $1"
        options = ("--network", "host")
        done = world.run("sh", "-c", script, "sh", f"{world.base}/v1/other", code=56, options=options)
        assert done.stdout == b"403"
    finally:
        command.end()


def test_the_port_ends_with_the_command(world):
    command = _Command(world)
    command.end()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", command.port))
