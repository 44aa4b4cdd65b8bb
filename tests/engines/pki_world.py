"""What the tests of the infrastructure share: a mount of it, and openssl to look at what comes out."""

import json
import subprocess

from engines.mounting import mount
from engines.transit_world import clear
from keyhole.faces.api.envelope import render
from keyhole.testing import FrozenClock
from vault.world import play


class Pki:
    """``await pki("issue/web", common_name=…)`` writes; ``read``, ``delete`` and ``list`` do what they say."""

    def __init__(self, vault, path="pki", token=None):
        self.vault, self.path, self.token = vault, path, token

    async def reply(self, operation, path, **data):
        return await self.vault.ask(operation, f"{self.path}/{path}", data, token=self.token)

    async def __call__(self, path, **data):
        return clear((await self.reply("update", path, **data)).data)

    async def read(self, path, **data):
        return clear((await self.reply("read", path, **data)).data)

    async def patch(self, path, **data):
        return clear((await self.reply("patch", path, **data)).data)

    async def delete(self, path):
        return await self.reply("delete", path)

    async def list(self, path):
        return (await self.reply("list", path)).data

    async def raw(self, path):
        """Status, content type and bytes of a file."""
        status, headers, body = render(await self.reply("read", path))
        return status, dict(headers).get(b"content-type", b"").decode(), body

    async def root(self, **data):
        return await self(
            "root/generate/internal", **{"common_name": "Test Root", "ttl": "720h", "key_type": "ec", **data}
        )

    async def role(self, name="web", **data):
        return await self(
            f"roles/{name}", **{"allowed_domains": "example.com", "allow_subdomains": True, "key_type": "ec", **data}
        )

    async def issue(self, name="a.example.com", role="web", **data):
        return await self(f"issue/{role}", **{"common_name": name, "ttl": "1h", **data})


def with_pki(scenario, **options):
    """Run ``scenario(pki, clock)`` on a vault with one mount."""
    clock = FrozenClock()

    async def wrapped(vault):
        await mount(vault, "pki", "pki")
        await scenario(Pki(vault), clock)

    play(wrapped, clock=clock, **options)


def openssl(*arguments, given=""):
    """What openssl says, and whether it was content."""
    done = subprocess.run(["openssl", *map(str, arguments)], input=given.encode(), capture_output=True, check=False)
    return done.returncode == 0, done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")


def seen(pem):
    """A certificate as openssl prints it."""
    good, text = openssl("x509", "-noout", "-text", given=pem)
    assert good, text
    return text


def verifies(tmp_path, leaf, roots, between=(), crls=(), *more):
    """Does openssl trust it, with these roots and the certificates between, and what these lists revoke?"""
    (tmp_path / "leaf.pem").write_text(leaf)
    (tmp_path / "roots.pem").write_text("\n".join(roots))
    arguments = ["verify", "-x509_strict", "-CAfile", tmp_path / "roots.pem"]
    if between:
        (tmp_path / "between.pem").write_text("\n".join(between))
        arguments += ["-untrusted", tmp_path / "between.pem"]
    if crls:
        (tmp_path / "crls.pem").write_text("\n".join(crls))
        arguments += ["-crl_check", "-CRLfile", tmp_path / "crls.pem"]
    return openssl(*arguments, *more, tmp_path / "leaf.pem")


def request(
    tmp_path, subject="/CN=a.example.com", names="DNS:a.example.com", kind=("ec", "ec_paramgen_curve:P-256"), extra=()
):
    """A request for a certificate, and its key, made by openssl."""
    key, csr = tmp_path / "made.key", tmp_path / "made.csr"
    arguments = ["req", "-new", "-nodes", "-subj", subject, "-keyout", key, "-out", csr, "-newkey", kind[0]]
    if len(kind) > 1:
        arguments += ["-pkeyopt", kind[1]]
    if names:
        arguments += ["-addext", f"subjectAltName={names}"]
    for each in extra:
        arguments += ["-addext", each]
    good, text = openssl(*arguments)
    assert good, text
    return csr.read_text(), key.read_text()


__all__ = ["Pki", "json", "openssl", "request", "seen", "verifies", "with_pki"]
