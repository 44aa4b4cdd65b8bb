"""Package managers install from private registries, which take no request without the token."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from e2e import sites
from e2e.internet import client

INDEX = f"https://{sites.PACKAGES_HOST}/simple/"


def _folder(internet, name):
    """A fresh one to work in."""
    folder = internet.world.folder / "work" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


@pytest.mark.client("npm")
def test_npm_installs_without_a_token(internet):
    folder = _folder(internet, "npm")
    (folder / ".npmrc").write_text(f"@acme:registry=https://{sites.REGISTRY_HOST}/\n")
    (folder / "package.json").write_text('{"private": true}')
    quiet = ("--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error")
    internet.run("npm", "install", "--prefix", str(folder), *quiet, "@acme/thing")
    assert "installed" in (folder / "node_modules/@acme/thing/index.js").read_text()
    lock = json.loads((folder / "package-lock.json").read_text())
    assert lock["packages"]["node_modules/@acme/thing"]["version"] == "1.0.0"


@pytest.mark.client("npm")
def test_npm_with_a_placeholder_for_a_token_says_who_it_is(internet):
    folder = _folder(internet, "npm-token")
    line = f"@acme:registry=https://{sites.REGISTRY_HOST}/\n//{sites.REGISTRY_HOST}/:_authToken=npm_anything\n"
    (folder / ".npmrc").write_text(line)
    (folder / "package.json").write_text("{}")
    quiet = ("--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error")
    who = internet.run("npm", "whoami", "--prefix", str(folder), f"--registry=https://{sites.REGISTRY_HOST}/", *quiet)
    assert who.strip() == b"agent"


@pytest.mark.client("pip")
def test_pip_downloads(internet):
    folder = _folder(internet, "pip")
    pip = (client("python"), "-m", "pip", "--isolated", "--disable-pip-version-check", "--no-cache-dir")
    internet.run(*pip, "download", "--quiet", "--no-deps", "--index-url", INDEX, "--dest", str(folder), "acme-thing")
    assert (folder / sites.WHEEL_NAME).read_bytes() == sites.WHEEL


@pytest.mark.client("uv")
def test_uv_installs(internet):
    folder = _folder(internet, "uv")
    options = ("--no-config", "--no-cache", "--python", client("python"), "--index-url", INDEX)
    internet.run(client("uv"), "pip", "install", "--quiet", *options, "--target", str(folder), "acme-thing")
    assert "installed" in (folder / "acme_thing.py").read_text()


@pytest.mark.client("cargo")
def test_cargo_fetches_a_crate(internet):
    if shutil.which("cargo") is None:
        pytest.skip("cargo is not here, and Debian's is not worth its size")
    folder = _folder(internet, "cargo")
    (folder / "src").mkdir()
    (folder / "src/lib.rs").touch()
    (folder / "Cargo.toml").write_text(
        '[package]\nname = "user"\nversion = "1.0.0"\nedition = "2021"\n'
        '[dependencies]\nacme_thing = { version = "1.0.0", registry = "acme" }\n'
    )
    rustup = os.environ.get("RUSTUP_HOME", str(Path.home() / ".rustup"))  # where there is one it needs its settings
    env = {"CARGO_HOME": str(folder / "home"), "RUSTUP_HOME": rustup}
    env["CARGO_REGISTRIES_ACME_INDEX"] = f"sparse+https://{sites.CRATES_HOST}/index/"
    internet.run("cargo", "fetch", "--quiet", "--manifest-path", str(folder / "Cargo.toml"), **env)
    lock = (folder / "Cargo.lock").read_text()
    assert hashlib.sha256(sites.CRATE).hexdigest() in lock
