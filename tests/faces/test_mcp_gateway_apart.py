"""Servers behind the gateway are kept apart: from each other, from the vault's files, and from the machine's memory."""

import json
import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from faces.run_fixtures import NOBODY, authority, namespaces_allowed
from faces.test_mcp_gateway import nobody, play
from keyhole.core.errors import InvalidRequest, PolicyDenied, UpstreamUnreachable
from keyhole.faces.mcp.gateway import child
from keyhole.faces.mcp.gateway.gateway import Gateway
from keyhole.faces.mcp.gateway.reach import Ways
from keyhole.faces.mcp.inside import Inside

NOSY = [sys.executable, "-S", str(Path(__file__).with_name("nosy_mcp.py"))]
linux = pytest.mark.skipif(sys.platform != "linux", reason="namespaces and /proc are Linux's")


def needs_namespaces():
    if not namespaces_allowed(nobody=False):
        pytest.skip("this system forbids user namespaces, so that nothing here was shut in")


async def nosy(stage, name="nosy", **more):
    await stage.add(name, command=NOSY[0], args=NOSY[1:], **more)


async def ask(stage, tool, *given, name="nosy"):
    """What a tool of a nosy server answers."""
    found = json.loads(await stage.call(tool, {"given": list(given)}, name=name))
    return json.loads(found["content"][0]["text"]) if not found.get("isError") else found["content"][0]["text"]


@linux
def test_a_server_cannot_read_what_others_were_given():
    needs_namespaces()
    ours = secrets.token_hex(16)  # of this test alone, among all that this machine does

    async def scenario(stage):
        await stage.write("secret/data/other/token", {"data": {"value": ours}})
        await nosy(stage, "other", env={"OTHER": "other/token"})
        await stage.grant("tools/*")
        assert await ask(stage, "reserve", 1, name="other") == 1 << 20
        await nosy(stage, "open", sandbox="off")
        await nosy(stage)
        await nosy(stage, "alone", sandbox="require")
        assert [each.partition("/")[2] for each in await ask(stage, "peek", ours[::-1], name="open")] == ["environ"]
        for name in ("nosy", "alone"):
            assert await ask(stage, "peek", ours[::-1], name=name) == []
        own, parent, seen = await ask(stage, "pids", name="alone")
        assert os.getpid() not in {own, parent, *seen}
        assert await ask(stage, "kill", os.getpid(), name="alone") == "No such process"

    play(scenario)


@linux
def test_the_vaults_files_are_not_there_for_a_server(tmp_path):
    needs_namespaces()
    (tmp_path / "vault.db").write_text("canary")

    async def scenario(stage):
        stage.gateway = Gateway(Inside(stage.door, stage.opened.token), Ways(nobody, hidden=[tmp_path]))
        await stage.grant("tools/*")
        for name, said in (("off", "canary"), ("auto", "No such file or directory")):
            await nosy(stage, name, sandbox=name)
            assert await ask(stage, "read", str(tmp_path / "vault.db"), name=name) == said

    play(scenario)


@linux
def test_a_server_that_takes_too_much_memory_is_ended_and_the_others_live():
    apart = "require" if namespaces_allowed(nobody=False) else "off"  # it is watched from inside, or from outside

    async def scenario(stage):
        await nosy(stage, "other", sandbox="off")
        await stage.grant("tools/*")
        for name, sandbox in (("one", apart), ("two", "off")):
            await nosy(stage, name, memory="48MiB", sandbox=sandbox)
            assert await ask(stage, "reserve", 50, name=name) == 50 << 20
            assert "MemoryError" in await ask(stage, "reserve", 1000, name=name)  # at once, before anybody looks
            assert await ask(stage, "brood", 64, name=name) == "there"
            session = stage.gateway._upstreams[name]._session
            await session._task
            assert "takes more than 48 MiB of memory, and was ended" in session.reach.said.text
        assert await ask(stage, "reserve", 1, name="other") == 1 << 20

    play(scenario)


@linux
@pytest.mark.skipif(not shutil.which("node"), reason="node is not there, so that its memory was not looked at")
def test_a_runtime_that_reserves_much_and_uses_little_is_let_be():
    script = """
        const lines = require('readline').createInterface({input: process.stdin});
        const say = (id, result) => console.log(JSON.stringify({jsonrpc: '2.0', id, result}));
        lines.on('line', (line) => {
          const {id, method, params} = JSON.parse(line);
          if (method === 'initialize') say(id, {protocolVersion: params.protocolVersion, capabilities: {tools: {}},
                                                serverInfo: {name: 'n', version: '1'}});
          else if (method === 'tools/list') say(id, {tools: [{name: 'size', inputSchema: {type: 'object'}}]});
          else if (method === 'tools/call') {
            const kept = Buffer.alloc(40e6, 1);
            new WebAssembly.Memory({initial: 16, maximum: 65536});
            say(id, {content: [{type: 'text', text: `${kept.length}`}]});
          } else if (id !== undefined) {
            console.log(JSON.stringify({jsonrpc: '2.0', id, error: {code: -32601, message: 'no'}}));
          }
        });
    """

    async def scenario(stage):
        await stage.add("node", command="node", args=["-e", script], memory="256MiB")
        await stage.grant("tools/*")
        assert '"40000000"' in await stage.call("size", name="node")

    play(scenario)


@linux
def test_a_sandbox_that_was_required_and_is_not_to_be_had_keeps_the_server_from_starting(monkeypatch):
    for modes in ("_MODES", "_MODES_OF_ROOT"):  # only what leaves other processes to be seen
        monkeypatch.setattr(f"keyhole.process.sandbox.{modes}", {"require": ("user",), "auto": ("none",)})

    async def scenario(stage):
        await nosy(stage, approve=False, sandbox="require")
        with pytest.raises(UpstreamUnreachable, match="the sandbox that was required is not to be had"):
            await stage.gateway.listing("nosy")

    play(scenario)
    told = []
    child.Shut("auto", [], 0, told.append).heard({"sandbox": "none", "tried": ["user: namespaces are not allowed"]})
    assert told == ["it is not shut in: user: namespaces are not allowed"]


@linux
def test_an_agent_finds_the_token_of_a_server_nowhere():
    """Neither an agent that `keyhole run` has shut in nor one that is another user finds it in `/proc`."""
    ours = secrets.token_hex(16)
    pattern = f"[{ours[0]}]{ours[1:]}"  # that does not fit itself
    look = f"cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | grep -c {pattern}; true"

    def found(*words, **how):
        return subprocess.run([*words, look], capture_output=True, text=True, check=False, **how).stdout

    async def scenario(stage):
        await stage.write("secret/data/other/token", {"data": {"value": ours}})
        await nosy(stage, env={"OTHER": "other/token"})
        await stage.grant("tools/*")
        assert await ask(stage, "reserve", 1) == 1 << 20
        assert found("sh", "-c") == "1\n"  # so the look can find it
        if os.geteuid() == 0:
            assert found("sh", "-c", user=NOBODY, group=NOBODY, extra_groups=()) == "0\n"
        if namespaces_allowed(nobody=False):
            plan = {"argv": ["sh", "-c", look], "ca": authority().decode(), "env": {"PATH": os.environ["PATH"]}}
            driver = Path(__file__).with_name("run_driver.py")
            assert found(sys.executable, driver, json.dumps({**plan, "sandbox": "require"})) == "0\n"

    play(scenario)


def test_how_a_program_is_shut_in_is_checked_when_it_is_bound():
    async def scenario(stage):
        for bad in (
            {"sandbox": "maybe"},
            {"memory": "1"},
            {"memory": "9999999GiB"},
            {"memory": True},
            {"agent": "a/b"},
        ):
            with pytest.raises(InvalidRequest):
                await stage.write("tools/servers/bad", {"command": "x", **bad})
        with pytest.raises(InvalidRequest):
            await stage.write("tools/servers/bad", {"url": "https://x.test/mcp", "agent": "coder"})
        policy = 'path "tools/servers/*" { capabilities = ["create", "update", "sudo"] }'
        await stage.write("sys/policies/acl/half", {"policy": policy})
        half = (await stage.opened.ask("update", "auth/token/create", {"policies": ["half"]})).auth["client_token"]
        with pytest.raises(PolicyDenied, match="act as coder"):
            await stage.write("tools/servers/mine", {"command": "x", "agent": "coder"}, token=half)
        await stage.write("tools/servers/mine", {"command": "x", "memory": "512MiB"}, token=half)
        assert (await stage.opened.get("tools/servers/mine"))["memory"] == 512 << 20

    play(scenario)
