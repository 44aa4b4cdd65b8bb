"""An SSH agent that signs logins for the hosts and users of its services, at a real client and a real server."""

import asyncio
import base64
import contextlib
import getpass
import struct
import subprocess

import pytest
from tests.broker.stack import LOOPBACK, Stack, basic, read_reply
from tests.engines.ssh_world import Server, key_pair

from keyhole.broker import ssh as broker_ssh
from keyhole.core.errors import InvalidRequest
from keyhole.core.service import Service
from keyhole.core.ssh import AGENT
from keyhole.crypto.ssh_auth import sign
from keyhole.net import ssh_agent

USER = getpass.getuser()
SESSION = b"s" * 32
LISTED = (ssh_agent.LIST, b"")
OPTIONS = "UserKnownHostsFile={known} StrictHostKeyChecking=yes BatchMode=yes ControlMaster=no ForwardAgent=no"


class Host(Server):
    """A server that also knows the keys in a file."""

    def __init__(self, folder, trusted=""):
        super().__init__(folder, trusted)
        config = self.folder / "config"
        text = config.read_text().replace("AuthorizedKeysFile none", f"AuthorizedKeysFile {self.folder}/authorized")
        config.write_text(text)

    def let_in(self, line):
        (self.folder / "authorized").write_text(line)

    def key(self):
        return " ".join(self.host_key.split()[:2])


@contextlib.asynccontextmanager
async def agent_socket(stack, token, path):
    """``SSH_AUTH_SOCK`` for a token: each connection a tunnel to the agent's end."""

    async def serve(reader, writer):
        back, forth = await stack.open()
        forth.write(f"CONNECT {AGENT} HTTP/1.1\r\nHost: {AGENT}\r\n".encode() + basic(token) + b"\r\n")
        if (await read_reply(back, "CONNECT")).status == 200:
            await asyncio.gather(pump(reader, forth), pump(back, writer))
        writer.close()

    server = await asyncio.start_unix_server(serve, str(path))
    try:
        yield
    finally:
        server.close()


async def pump(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


async def ssh(host, path, *more, user=USER, known=None):
    known_file = host.folder / "known"
    known_file.write_text(known or f"[127.0.0.1]:{host.port} {host.host_key}")
    options = [part for each in OPTIONS.format(known=known_file).split() for part in ("-o", each)]
    command = ["ssh", "-F", "none", *options, "-p", str(host.port), *more, f"{user}@127.0.0.1", "echo hello"]
    env = {"PATH": "/usr/bin:/bin", "SSH_AUTH_SOCK": str(path), "HOME": str(host.folder)}
    process = await asyncio.create_subprocess_exec(
        *command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


def binding(host, secret, **how):
    return {
        "hosts": [f"127.0.0.1:{host.port}"],
        "schemes": ["ssh"],
        "secret": secret,
        "inject": {"kind": "ssh", "user": [USER], "host_keys": [host.key()], **how},
        "allow_addresses": LOOPBACK,
    }


async def uses(stack):
    return [r for r in await stack.records() if r.get("method") == "SSH" or r["operation"] == "use"]


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_key_in_the_vault_logs_in_and_each_login_is_on_record(run, tmp_path, kind):
    file, public = key_pair(tmp_path, kind)

    async def scene(host):
        async with Stack() as stack:
            await stack.secret("forge/key", file.read_text())
            await stack.ask("update", "services/forge", binding(host, "forge/key"))
            token = await stack.agent("coder", "forge")
            path = tmp_path / "agent"
            async with agent_socket(stack, token, path):
                done = await ssh(host, path)
            await asyncio.sleep(0)
            return done, await uses(stack)

    with Host(tmp_path) as host:
        host.let_in(public)
        (code, out, err), records = run(scene(host))
    assert (code, out) == (0, "hello\n"), err
    assert [record["phase"] for record in records] == ["intent", "outcome"]
    assert list(records[0]["secrets"]) == ["forge/key"]
    assert (records[1]["result"], records[1]["statements"]) == ("ok", 1)


def test_a_certificate_of_the_vaults_own_authority_is_made_for_the_login(run, tmp_path):
    async def scene():
        async with Stack() as stack:
            await stack.ask("update", "sys/mounts/ssh", {"type": "ssh"})
            made = await stack.ask("update", "ssh/config/ca", {"generate_signing_key": True, "key_type": "ssh-ed25519"})
            role = {"key_type": "ca", "allow_user_certificates": True, "default_user": USER, "ttl": "5m"}
            await stack.ask("update", "ssh/roles/ops", {**role, "default_extensions": {"permit-pty": ""}})
            with Host(tmp_path, made["public_key"]) as host:
                await stack.ask("update", "services/ops", binding(host, "/ssh/pair/ops"))
                token = await stack.agent("coder", "ops")
                path = tmp_path / "agent"
                async with agent_socket(stack, token, path):
                    return await ssh(host, path), host.log()

    (code, out, err), log = run(scene())
    assert (code, out) == (0, "hello\n"), err
    assert "Accepted publickey" in log
    assert "CERT" in log


def test_other_users_hosts_and_agents_get_no_signature(run, tmp_path):
    file, public = key_pair(tmp_path)

    async def scene(host, other):
        async with Stack() as stack:
            await stack.secret("forge/key", file.read_text())
            await stack.ask("update", "services/forge", binding(host, "forge/key", user=["somebody"]))
            token = await stack.agent("coder", "forge")
            nobody = await stack.agent("nobody")
            path, strange = tmp_path / "agent", tmp_path / "strange"
            async with agent_socket(stack, token, path), agent_socket(stack, nobody, strange):
                wrong_user = await ssh(host, path)
                await stack.ask("update", "services/forge", binding(host, "forge/key"))
                wrong_host = await ssh(other, path)
                not_granted = await ssh(host, strange)
                listed = await asyncio.to_thread(
                    subprocess.run,
                    ["ssh-add", "-l"],
                    env={"SSH_AUTH_SOCK": str(path)},
                    capture_output=True,
                    check=False,
                )
                await stack.ask("update", "auth/token/revoke", {"token": token})
                revoked = await ssh(host, path)
            codes = [done[0] for done in (wrong_user, wrong_host, not_granted, revoked)]
            refused = [(r["result"], r.get("service")) for r in await stack.records() if r["phase"] == "refused"]
            return codes, listed.stdout, refused

    (tmp_path / "two").mkdir()
    with Host(tmp_path) as host, Host(tmp_path / "two") as other:
        host.let_in(public)
        other.let_in(public)
        codes, listed, refused = run(scene(host, other))
    assert codes == [255] * 4
    assert listed == b"The agent has no identities.\n"
    assert refused == [
        ("policy_denied", "forge"),
        ("no_service", None),
        ("policy_denied", "forge"),
        ("unauthenticated", None),
    ]


def test_a_host_may_prove_itself_by_an_authority(run, tmp_path):
    file, public = key_pair(tmp_path)
    authority, authority_line = key_pair(tmp_path, "ed25519", "authority")

    async def scene(host):
        async with Stack() as stack:
            await stack.secret("forge/key", file.read_text())
            trusted = "@cert-authority " + " ".join(authority_line.split()[:2])
            await stack.ask("update", "services/forge", binding(host, "forge/key", host_keys=[trusted]))
            token = await stack.agent("coder", "forge")
            path = tmp_path / "agent"
            known = f"@cert-authority [127.0.0.1]:{host.port} {authority_line}"
            async with agent_socket(stack, token, path):
                return await ssh(host, path, known=known)

    def certified(principal):
        command = ["ssh-keygen", "-q", "-s", authority, "-h", "-I", "host", "-n", principal, host.folder / "host.pub"]
        subprocess.run(command, check=True, capture_output=True)
        return (host.folder / "host-cert.pub").read_text()

    with Host(tmp_path) as host:
        host.let_in(public)
        host.certify(certified("127.0.0.1"))
        assert run(scene(host))[:2] == (0, "hello\n")
        host.certify(certified("other.test"))
        assert run(scene(host))[0] == 255


def put(*parts):
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


class Spoken:
    """Messages of a client that logs in at a host, which has proved its key to it."""

    def __init__(self, folder):
        self.file, public = key_pair(folder)
        self.host_file, self.host_public = key_pair(folder, "ed25519", "host")
        self.host_key, self.key = (base64.b64decode(line.split()[1]) for line in (self.host_public, public))

    def bind(self, identifier=SESSION, signed=SESSION, forwarding=0):
        signature = sign(self.host_file.read_bytes(), signed, "ssh-ed25519")
        content = put(ssh_agent.BIND, self.host_key, identifier, signature) + bytes([forwarding])
        return ssh_agent.EXTENSION, content

    def login(self, identifier=SESSION, user=USER, method=b"publickey", end=b"", service=b"ssh-connection", there=b""):
        data = put(identifier) + b"\x32" + put(user.encode(), service, method) + b"\x01" + put(b"ssh-ed25519", self.key)
        return ssh_agent.SIGN, put(self.key, data + (put(there) if there else b"") + end) + b"\0\0\0\0"

    async def service(self, stack):
        await stack.secret("forge/key", self.file.read_text())
        fields = {"hosts": ["forge.test"], "schemes": ["ssh"], "secret": "forge/key"}
        how = {"kind": "ssh", "user": USER, "host_keys": " ".join(self.host_public.split()[:2])}
        await stack.ask("update", "services/forge", {**fields, "inject": how})


@pytest.mark.parametrize(
    ("operation", "path", "why"),
    [
        ("update", "auth/token/revoke", "unauthenticated"),
        ("delete", "agents/coder/services/forge", "policy_denied"),
        ("delete", "services/forge", "policy_denied"),
    ],
)
def test_each_signature_is_judged_anew(run, tmp_path, operation, path, why):
    said = Spoken(tmp_path)

    async def scene():
        async with Stack() as stack:
            await said.service(stack)
            token = await stack.agent("coder", "forge")
            agent = stack.keyhole.broker.ssh.open(token.encode(), "127.0.0.1")
            before = [await agent.answer(*each) for each in (said.bind(), LISTED, said.login(), said.login())]
            await stack.ask(operation, path, {"token": token} if "revoke" in path else {})
            after = await agent.answer(*said.login())
            agent.close()
            refused = [r["result"] for r in await stack.records() if r["phase"] == "refused"]
            return [answer[4] for answer in before], after[4], refused

    assert run(scene()) == ([6, 12, 14, 14], 5, [why])


def test_nothing_but_logins_of_this_very_connection_is_signed(run, tmp_path):
    said = Spoken(tmp_path)
    bind, login, key, host_key = said.bind, said.login, said.key, said.host_key
    good = LISTED
    bad = [
        login(identifier=b"t" * 32),
        login(user="other"),
        login(method=b"hostbased"),
        login(service=b"ssh-userauth"),
        login(end=b"more"),
        login(method=b"publickey-hostbound-v00@openssh.com", there=b"another host"),
        (ssh_agent.SIGN, put(key, b"SSHSIG" + put(b"git", b"", b"sha512", b"x" * 64)) + b"\0\0\0\0"),
        (ssh_agent.SIGN, put(key, b"a file") + b"\0\0\0\0"),
        (ssh_agent.SIGN, b"\xff\xff\xff\xff"),
        (17, b"add a key"),
        bind(),
    ]

    async def scene():
        async with Stack() as stack:
            await said.service(stack)
            token = (await stack.agent("coder", "forge")).encode()

            async def kinds(*messages):
                agent = stack.keyhole.broker.ssh.open(token, "127.0.0.1")
                answers = [await agent.answer(*each) for each in messages]
                agent.close()
                return [answer[4] for answer in answers], answers

            assert (await kinds(bind(), good, login()))[0] == [6, 12, 14]
            bound = login(method=b"publickey-hostbound-v00@openssh.com", there=host_key)
            assert (await kinds(bind(), good, bound))[0] == [6, 12, 14]
            for message in bad:
                assert (await kinds(bind(), good, message))[0] == [6, 12, 5], message
            for first in (bind(signed=b"other"), bind(forwarding=1), (ssh_agent.EXTENSION, put(b"query"))):
                found, answers = await kinds(first, good, login())
                assert (found, answers[1][5:]) == ([5, 12, 5], b"\0\0\0\0"), "who says no host is shown no key"
            return [r["result"] for r in await stack.records() if r["phase"] == "refused"]

    assert run(scene()).count("policy_denied") >= 8


def test_a_sealed_vault_signs_no_more_and_keeps_no_key(run, tmp_path):
    said = Spoken(tmp_path)

    async def scene():
        async with Stack() as stack:
            await said.service(stack)
            agent = stack.keyhole.broker.ssh.open((await stack.agent("coder", "forge")).encode(), "127.0.0.1")
            for each in (said.bind(), LISTED):
                await agent.answer(*each)
            before = (await agent.answer(*said.login()))[4]
            await stack.keyhole.node.seal()
            after = (await agent.answer(*said.login()))[4]
            return before, after, agent._held

    assert run(scene()) == (ssh_agent.SIGNATURE, ssh_agent.FAILURE, {})


def test_a_key_that_is_lent_while_the_vault_is_sealed_is_not_kept(run, tmp_path, monkeypatch):
    said = Spoken(tmp_path)
    read = broker_ssh._key

    async def scene():
        async with Stack() as stack:
            await said.service(stack)
            agents = stack.keyhole.broker.ssh
            agent = agents.open((await stack.agent("coder", "forge")).encode(), "127.0.0.1")
            monkeypatch.setattr(broker_ssh, "_key", lambda loan: (agents.forget(), read(loan))[1])
            answers = [(await agent.answer(*each))[4] for each in (said.bind(), LISTED, said.login())]
            return answers, agent._held, [(r["phase"], r.get("result")) for r in await uses(stack)]

    answers, held, records = run(scene())
    assert (answers, held) == ([ssh_agent.SUCCESS, ssh_agent.FAILURE, ssh_agent.FAILURE], {})
    assert records[-1] == ("outcome", "sealed")


def test_a_binding_names_users_and_keys_of_hosts(tmp_path):
    _, public = key_pair(tmp_path)
    line = " ".join(public.split()[:2])
    fields = {"hosts": ["forge.test"], "schemes": ["ssh"], "secret": "forge/key"}
    service = Service.from_data("x", {**fields, "inject": {"kind": "ssh", "user": "git", "host_keys": public}})
    assert Service.from_data("x", service.as_data()) == service
    assert service.inject["host_keys"] == (line,)
    bad = [
        {"kind": "ssh", "user": "git"},
        {"kind": "ssh", "host_keys": line},
        {"kind": "ssh", "user": "a b", "host_keys": line},
        {"kind": "ssh", "user": "git", "host_keys": "ssh-rsa " + line.split()[1]},
        {"kind": "ssh", "user": "git", "host_keys": "SHA256:abc"},
        {"kind": "ssh", "user": "git", "host_keys": [1]},
    ]
    for how in bad:
        with pytest.raises(InvalidRequest):
            Service.from_data("x", {**fields, "inject": how})
    for change in ({"schemes": ["https"]}, {"schemes": ["ssh", "https"]}, {"schemes": ["tls"]}):
        with pytest.raises(InvalidRequest):
            Service.from_data("x", {**service.as_data(), **change})
