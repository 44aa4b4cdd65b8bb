"""Certificates for SSH: what ssh-keygen reads in them, what sshd lets in, and what a role does not give."""

import asyncio
import base64
import json
import re
import subprocess
from datetime import datetime

import pytest

from engines.mounting import login, mount
from engines.ssh_world import Server, key_pair
from engines.transit_world import clear
from keyhole.faces.api.envelope import render
from keyhole.testing import FrozenClock
from vault.world import play, policy_token, refusal

USER = {"key_type": "ca", "allow_user_certificates": True, "allowed_users": "ann,bob", "default_user": "ann"}
HOST = {"key_type": "ca", "allow_host_certificates": True, "allowed_domains": "example.com,corp.test"}


class Ssh:
    def __init__(self, vault):
        self.vault = vault

    async def __call__(self, path, **data):
        return clear((await self.vault.ask("update", f"ssh/{path}", data)).data)

    async def sign(self, role, key, **data):
        return (await self(f"sign/{role}", public_key=key, **data))["signed_key"]


def with_ssh(scenario, *, ca="ssh-ed25519", **options):
    async def wrapped(vault):
        await mount(vault, "ssh", "ssh")
        ssh = Ssh(vault)
        if ca:
            await ssh("config/ca", generate_signing_key=True, key_type=ca, key_bits=2048 if ca == "ssh-rsa" else 0)
        await scenario(ssh)

    play(wrapped, **options)


def seen(line, tmp_path):
    """What ssh-keygen says of a certificate: one text a field, lists as lists."""
    file = tmp_path / "seen-cert.pub"
    file.write_text(line)
    text = subprocess.run(["ssh-keygen", "-L", "-f", file], capture_output=True, check=True, text=True).stdout
    found, last = {}, ""
    for row in text.splitlines()[1:]:
        name, _, value = row.strip().partition(": ") if ": " in row else row.strip().partition(":")
        if row.startswith(" " * 16):
            found[last].append(row.strip())
        elif row.strip().endswith(("Principals:", "Options:", "Extensions:")):
            last = row.strip().rstrip(":")
            found[last] = []
        else:
            found[name] = value.strip()
    return found


@pytest.mark.parametrize("ca", ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp521", "ssh-rsa"])
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_ssh_keygen_reads_what_was_asked_for(ca, kind, tmp_path):
    async def scenario(ssh):
        await ssh(
            "roles/user",
            **USER,
            default_extensions={"permit-pty": ""},
            allowed_extensions="permit-pty,permit-port-forwarding,login@example.com",
            allowed_critical_options="force-command",
            allow_user_key_ids=True,
        )
        _, public = key_pair(tmp_path, kind)
        line = await ssh.sign("user", public)
        found = seen(line, tmp_path)
        assert found["Type"].endswith("user certificate")
        assert found["Principals"] == ["ann"]
        assert found["Extensions"] == ["permit-pty"]
        assert re.fullmatch(r'"keyhole-token-?.*-[0-9a-f]{64}"|"keyhole-.*[0-9a-f]{64}"', found["Key ID"])
        line = await ssh.sign(
            "user",
            public,
            valid_principals="bob, ann",
            key_id="ticket 7",
            critical_options={"force-command": "/bin/true"},
            extensions={"permit-port-forwarding": "", "login@example.com": "x"},
        )
        found = seen(line, tmp_path)
        assert found["Principals"] == ["bob", "ann"]
        assert found["Key ID"] == '"ticket 7"'
        assert found["Critical Options"] == ["force-command /bin/true"]
        assert found["Extensions"][1] == "permit-port-forwarding"
        assert found["Extensions"][0].startswith("login@example.com")
        if ca == "ssh-rsa":
            assert found["Signing CA"].endswith("(using rsa-sha2-512)")
            await ssh("roles/short", **USER, algorithm_signer="rsa-sha2-256")
            assert seen(await ssh.sign("short", public), tmp_path)["Signing CA"].endswith("(using rsa-sha2-256)")

    with_ssh(scenario, ca=ca)


def test_a_server_lets_in_who_has_a_certificate_as_whom_it_names_and_nobody_else(tmp_path):
    import getpass

    me = getpass.getuser()

    async def scenario(ssh):
        await ssh("roles/user", **{**USER, "allowed_users": f"{me},nobody-else", "default_user": me})
        await ssh("roles/host", **HOST, allow_bare_domains=True, allowed_critical_options="", ttl="1h")
        reply = await ssh.vault.ask("read", "ssh/public_key")
        status, headers, trusted = render(reply)
        assert (status, dict(headers)[b"content-type"]) == (200, b"text/plain")
        with Server(tmp_path, trusted.decode()) as server:
            private, public = key_pair(tmp_path, "ed25519", "me")
            assert server.log_in(private).returncode != 0, "a key alone is not enough"
            cert = private.with_name("me-cert.pub")
            cert.write_text(await ssh.sign("user", public, valid_principals="nobody-else"))
            assert server.log_in(private).returncode != 0, "the certificate of somebody else"
            cert.write_text(await ssh.sign("user", public))
            done = server.log_in(private)
            assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr + server.log()
            made = await ssh("issue/user", key_type="ed25519")
            private = tmp_path / "made"
            private.touch(mode=0o600)
            private.write_text(made["private_key"])
            (tmp_path / "made-cert.pub").write_text(made["signed_key"])
            assert server.log_in(private).stdout == "hello\n"
            # The host shows a certificate as well, to who trusts the authority and has never seen its key.
            server.certify(await ssh.sign("host", server.host_key, cert_type="host", valid_principals="example.com"))
            done = server.log_in(private, host="example.com", authority=trusted.decode())
            assert done.stdout == "hello\n", done.stderr
            assert server.log_in(private, host="other.test", authority=trusted.decode()).returncode != 0

    with_ssh(scenario)


def test_names_of_users_are_those_of_the_role(tmp_path):
    _, public = key_pair(tmp_path)

    async def scenario(ssh):
        await ssh("roles/user", **USER)
        for names in ("root", "ann,root", "*", "ann\nroot", "Ann", "x" * 300, ",".join(f"u{n}" for n in range(300))):
            assert (await refusal(ssh.sign("user", public, valid_principals=names))).code == "invalid_request", names
        assert (await refusal(ssh.sign("user", public, cert_type="host"))).reason.endswith("not allowed by role")
        assert (await refusal(ssh.sign("user", public, cert_type="other"))).code == "invalid_request"
        await ssh("roles/any", **{**USER, "allowed_users": "*", "default_user": ""})
        assert seen(await ssh.sign("any", public, valid_principals="root"), tmp_path)["Principals"] == ["root"]
        error = await refusal(ssh.sign("any", public))
        assert error.reason.startswith("refusing to issue unsafe, globally-valid certificate")
        await ssh("roles/open", **{**USER, "default_user": ""}, allow_empty_principals=True)
        assert seen(await ssh.sign("open", public), tmp_path)["Principals"] == "(none)"
        await ssh("roles/default-only", **{**USER, "allowed_users": ""})
        assert seen(await ssh.sign("default-only", public, valid_principals=""), tmp_path)["Principals"] == ["ann"]
        error = await refusal(ssh.sign("default-only", public, valid_principals="bob"))
        assert error.reason == "role is not configured to allow any principals"

    with_ssh(scenario)


def test_names_of_hosts_are_below_the_domains_of_the_role(tmp_path):
    _, public = key_pair(tmp_path)

    async def scenario(ssh):
        async def good(role, name):
            return await refusal(ssh.sign(role, public, cert_type="host", valid_principals=name)) is None

        await ssh("roles/bare", **HOST, allow_bare_domains=True)
        await ssh("roles/below", **HOST, allow_subdomains=True)
        await ssh("roles/none", **HOST)
        names = (
            "example.com",
            "a.example.com",
            "a.b.corp.test",
            "evilexample.com",
            "example.com.evil.test",
            ".example.com",
        )
        assert [await good("bare", name) for name in names] == [True, False, False, False, False, False]
        assert [await good("below", name) for name in names] == [False, True, True, False, False, False]
        assert not any([await good("none", name) for name in names])
        assert not await good("below", "")

    with_ssh(scenario)


def test_a_certificate_lives_as_long_as_the_role_allows(tmp_path):
    _, public = key_pair(tmp_path)

    async def scenario(ssh):
        async def life(role, **data):
            frm, _, to = (
                seen(await ssh.sign(role, public, **data), tmp_path)["Valid"].removeprefix("from ").partition(" to ")
            )
            return (datetime.fromisoformat(to) - datetime.fromisoformat(frm)).total_seconds() - 30

        await ssh("roles/user", **USER, ttl="1h", max_ttl="2h")
        assert [await life("user"), await life("user", ttl="90m"), await life("user", ttl="")] == [3600, 5400, 3600]
        for ttl in ("3h", "soon", -1, 10**30):
            assert (await refusal(ssh.sign("user", public, ttl=ttl))).code == "invalid_request"
        await ssh("roles/bound", **USER, max_ttl="30m")
        assert await life("bound") == 1800
        await ssh("roles/plain", **USER)
        assert await life("plain") == 2_764_800

    with_ssh(scenario, clock=FrozenClock())


@pytest.mark.parametrize(
    ("lengths", "kind", "good"),
    [
        ({"rsa": 2048}, "rsa", True),
        ({"ssh-rsa": [2048, 4096]}, "rsa", True),
        ({"rsa": 4096}, "rsa", False),
        ({"ed25519": 0}, "rsa", False),
        ({"ed25519": 0}, "ed25519", True),
        ({"ec": [384]}, "ecdsa", False),
        ({"ec": [256, 384]}, "ecdsa", True),
        ({"ecdsa-sha2-nistp256": 0}, "ecdsa", True),
        ({"ecdsa-sha2-nistp384": 0}, "ecdsa", False),
        ({}, "ecdsa", True),
    ],
)
def test_types_and_sizes_of_keys_are_those_of_the_role(lengths, kind, good, tmp_path):
    _, public = key_pair(tmp_path, kind)

    async def scenario(ssh):
        await ssh("roles/user", **USER, allowed_user_key_lengths=lengths)
        error = await refusal(ssh.sign("user", public))
        assert (error is None) == good
        assert good or error.reason.startswith("public_key failed to meet the key requirements")

    with_ssh(scenario)


def test_weak_and_strange_keys_are_refused(tmp_path):
    weak = tmp_path / "weak"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", weak], check=True)
    _, public = key_pair(tmp_path)
    sk = b"".join(len(part).to_bytes(4) + part for part in (b"sk-ssh-ed25519@openssh.com", b"k" * 32, b"ssh:"))
    sk = f"sk-ssh-ed25519@openssh.com {base64.b64encode(sk).decode()}"
    kind, blob = public.split()[:2]

    async def scenario(ssh):
        await ssh("roles/user", **USER)
        certificate = await ssh.sign("user", public)
        odd = (weak.with_suffix(".pub").read_text(), sk, certificate, f"ssh-rsa {blob}", f"{kind} {blob[:-8]}", kind)
        for text in (*odd, "", "x", 5, None, "ssh-ed25519 AAAA", f"{kind} {blob}AAAA", "\x00"):
            assert (await refusal(ssh.sign("user", text))).code == "invalid_request", text
        assert await ssh.sign("user", blob), "the base64 alone"

    with_ssh(scenario)


def test_a_certificate_counts_from_the_beginning_of_time_at_the_earliest(tmp_path):
    _, public = key_pair(tmp_path)

    async def scenario(ssh):
        await ssh("roles/user", **USER, not_before_duration="3000000000s")
        assert seen(await ssh.sign("user", public), tmp_path)["Valid"].startswith("before ")

    with_ssh(scenario)


def test_options_and_extensions_that_are_not_allowed_are_refused(tmp_path):
    _, public = key_pair(tmp_path)

    async def scenario(ssh):
        await ssh("roles/user", **USER, default_critical_options={"source-address": "10.0.0.0/8"})
        assert seen(await ssh.sign("user", public), tmp_path)["Critical Options"] == ["source-address 10.0.0.0/8"]
        error = await refusal(ssh.sign("user", public, extensions={"permit-pty": ""}))
        assert error.reason == "extensions permit-pty are not on allowed list"
        await ssh("roles/strict", **USER, allowed_critical_options="force-command")
        error = await refusal(ssh.sign("strict", public, critical_options={"source-address": "0.0.0.0/0"}))
        assert error.reason == "critical options not on allowed list: source-address"
        error = await refusal(ssh.sign("strict", public, key_id="root"))
        assert error.reason == "setting key_id is not allowed by role"
        await ssh("roles/any", **USER, allowed_extensions="*")
        for odd in ({"": "x"}, {"a\nb": ""}, {"é": ""}, [1], "x", {"a": 1}):
            assert (await refusal(ssh.sign("any", public, extensions=odd))).code == "invalid_request"

    with_ssh(scenario)


def test_the_authority_is_made_once_brought_or_removed(tmp_path):
    private, public = key_pair(tmp_path, "ed25519", "ca")
    _, other = key_pair(tmp_path, "ed25519", "other")

    async def scenario(ssh):
        vault = ssh.vault
        assert (await refusal(vault.ask("read", "ssh/config/ca"))).reason == "keys haven't been configured yet"
        assert (await refusal(vault.ask("read", "ssh/public_key"))).code == "not_found"
        await ssh("roles/user", **USER)
        assert (await refusal(ssh.sign("user", public))).reason == "keys haven't been configured yet"
        pair = {"private_key": private.read_text(), "public_key": public}
        for odd in (
            {"private_key": pair["private_key"]},
            {"public_key": public},
            {**pair, "public_key": other},
            {**pair, "generate_signing_key": True},
            {**pair, "private_key": "x"},
            {"generate_signing_key": False},
            {"generate_signing_key": True, "key_type": "dsa"},
            {"generate_signing_key": True, "key_bits": 1024},
            {"generate_signing_key": True, "key_type": "ec", "key_bits": 255},
        ):
            error = await refusal(ssh("config/ca", **odd))
            assert error.code == "invalid_request", odd
            assert "PRIVATE" not in str(error)
        await ssh("config/ca", **pair, generate_signing_key=False)
        assert (await vault.ask("read", "ssh/config/ca")).data["public_key"].split()[:2] == public.split()[:2]
        error = await refusal(ssh("config/ca", generate_signing_key=True))
        assert error.reason == "keys are already configured; delete them before reconfiguring"
        assert json.loads(render(await vault.ask("update", "ssh/sign/user", {"public_key": other}))[2])["data"]
        await vault.ask("delete", "ssh/config/ca")
        await vault.ask("delete", "ssh/config/ca")
        made = await asyncio.gather(*(refusal(ssh("config/ca", key_type="ed25519")) for _ in range(5)))
        assert made.count(None) == 1, "one of many who make it at once"

    with_ssh(scenario, ca="")


def test_roles_are_listed_with_their_kind_read_and_removed():
    async def scenario(ssh):
        vault = ssh.vault
        assert (await refusal(vault.ask("list", "ssh/roles"))).code == "not_found"
        await ssh("roles/user", **USER, ttl="90m", allow_subdomains="", allowed_users_template="")
        await ssh("roles/host", **HOST)
        data = (await vault.ask("list", "ssh/roles/")).data
        assert data == {"keys": ["host", "user"], "key_info": {"host": {"key_type": "ca"}, "user": {"key_type": "ca"}}}
        data = (await vault.ask("read", "ssh/roles/user")).data
        assert (data["ttl"], data["algorithm_signer"], data["allow_subdomains"]) == (5400, "default", False)
        await vault.ask("delete", "ssh/roles/user")
        await vault.ask("delete", "ssh/roles/user")
        assert (await refusal(vault.ask("read", "ssh/roles/user"))).code == "not_found"
        assert (await refusal(ssh.sign("user", "x"))).reason == "Unknown role: user"

    with_ssh(scenario)


@pytest.mark.parametrize(
    "change",
    [
        {"key_type": "dynamic"},
        {"key_type": ""},
        {"allow_user_certificates": False},
        {"ttl": "2h", "max_ttl": "1h"},
        {"ttl": "soon"},
        {"allowed_user_key_lengths": {"dsa": 1024}},
        {"allowed_user_key_lengths": {"rsa": "many"}},
        {"algorithm_signer": "ssh-rsa"},
        {"algorithm_signer": [1]},
        {"default_extensions": [1]},
        {"allowed_users": 5},
        {"allow_subdomains": "perhaps"},
    ],
)
def test_an_odd_role_is_a_bad_request_and_changes_nothing(change):
    async def scenario(ssh):
        assert (await refusal(ssh("roles/user", **{**USER, **change}))).code == "invalid_request"
        assert (await refusal(ssh.vault.ask("read", "ssh/roles/user"))).code == "not_found"

    with_ssh(scenario, ca="")


def test_who_may_sign_by_one_role_has_nothing_else(tmp_path):
    _, public = key_pair(tmp_path)

    async def scenario(ssh):
        await ssh("roles/user", **USER)
        await ssh("roles/other", **USER)
        token = await policy_token(ssh.vault, 'path "ssh/sign/user" { capabilities = ["update"] }')

        async def ask(operation, path, **data):
            return await refusal(ssh.vault.ask(operation, f"ssh/{path}", data, token=token))

        assert await ask("update", "sign/user", public_key=public) is None
        for operation, path in (("update", "sign/other"), ("update", "issue/user"), ("read", "roles/user")):
            assert (await ask(operation, path, public_key=public)).code == "policy_denied"

    with_ssh(scenario)


def test_the_public_key_needs_no_token_and_nothing_else_does_without(tmp_path):
    from faces.api_client import asking

    async def scenario():
        async with asking() as (ask, vault):
            await mount(vault, "ssh", "ssh")
            assert (await ask("POST", "ssh/config/ca", {"key_type": "ed25519"})).status == 200
            answer = await ask("GET", "ssh/public_key", token=None)
            assert (answer.status, answer.headers["content-type"]) == (200, "text/plain")
            assert answer.body.startswith(b"ssh-ed25519 ")
            for method, path in (("GET", "config/ca"), ("POST", "sign/x"), ("POST", "roles/x"), ("POST", "config/ca")):
                assert (await ask(method, f"ssh/{path}", token=None)).status == 403

    asyncio.run(scenario())


def test_templates_are_filled_in_for_the_entity_that_asks(tmp_path):
    _, public = key_pair(tmp_path)

    async def scenario(ssh):
        vault = ssh.vault
        name = "{{identity.entity.name}}"
        templates = {"allowed_users_template": True, "default_user_template": True, "default_extensions_template": True}
        extensions = {
            "login@example.com": name,
            "permit-pty": "",
            "other@example.com": "{{identity.entity.metadata.x}}",
        }
        role = {**USER, "allowed_users": f"{name},{name}-admin", "default_user": name, **templates}
        await ssh("roles/own", **role, default_extensions=extensions)
        await vault.ask(
            "update", "sys/policies/acl/keys", {"policy": 'path "ssh/sign/*" { capabilities = ["update"] }'}
        )
        token = await login(vault, "ann", policies=["keys"])

        async def sign(**data):
            reply = await vault.ask("update", "ssh/sign/own", {"public_key": public, **data}, token=token)
            return seen(reply.data["signed_key"], tmp_path)

        found = await sign()
        assert found["Principals"] == ["ann"]
        assert [each.split()[0] for each in found["Extensions"]] == ["login@example.com", "permit-pty"]
        assert (await sign(valid_principals="ann-admin"))["Principals"] == ["ann-admin"]
        for names in ("bob", name, "-admin", "ann,root"):
            assert (await refusal(sign(valid_principals=names))).code == "invalid_request", names
        assert (await refusal(ssh.sign("own", public))).code == "invalid_request", "root is no entity"
        assert (
            await refusal(ssh("roles/odd", **{**role, "allowed_users": "{{identity.x}}"}))
        ).code == "invalid_request"

    with_ssh(scenario)
