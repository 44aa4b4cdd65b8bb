"""The environment of the command: what it must not inherit, and what leads it through the broker."""

from __future__ import annotations

import base64
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from keyhole.core.errors import InvalidRequest
from keyhole.faces.run.databases import WITHHELD, variables
from keyhole.faces.run.plan import RunPlan
from keyhole.faces.run.ssh import variables as ssh_variables
from keyhole.faces.run.trust import ADDING, REPLACING, TrustFiles

if TYPE_CHECKING:
    from keyhole.scrub import Scrubber

# The last four override what the tool's own configuration file says, which would lead around the broker.
PROXY = (
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "npm_config_proxy",
    "npm_config_https_proxy",
    "PIP_PROXY",
    "CARGO_HTTP_PROXY",
)

_PLAIN = ("http_proxy", "HTTP_PROXY")
_OURS = ("KEYHOLE_", "VAULT_", "BAO_", "AGENTSECRETS_PORT")  # the port is that of a command, and not of another in it
_BYPASS = ("no_proxy", "NO_PROXY", "npm_config_noproxy", "GIT_HTTP_PROXY_AUTHMETHOD")
_AGENTS = (
    "SSH_AUTH_SOCK",
    "SSH_AGENT_PID",
    "GPG_AGENT_INFO",
    "GNOME_KEYRING_CONTROL",
    "GIT_ASKPASS",
    "SSH_ASKPASS",
    "VSCODE_GIT_ASKPASS_MAIN",
    "VSCODE_GIT_ASKPASS_NODE",
    "VSCODE_GIT_ASKPASS_EXTRA_ARGS",
    "VSCODE_GIT_IPC_HANDLE",
)
_HIDDEN_IN_SANDBOX = ("DBUS_SESSION_BUS_ADDRESS", "DBUS_STARTER_ADDRESS", "TMUX", "STY", "DOCKER_HOST")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# A secret is never meant for these, and whoever could set them would run code in the command.
_RESERVED = frozenset(
    (*PROXY, *REPLACING, ADDING, "PATH", "HOME", "JAVA_TOOL_OPTIONS", "NODE_OPTIONS", "WGETRC", "auto_proxy")
)
_RESERVED_PREFIXES = ("LD_", "DYLD_", "PYTHON", "GIT_CONFIG")


def has_java(environ: Mapping[str, str]) -> bool:
    """Whether the command could meet a Java; every Java prints a line about its options, so others are spared."""
    return bool(environ.get("JAVA_HOME") or shutil.which("java", path=environ.get("PATH")))


def check_names(plan: RunPlan) -> None:
    """Refuse variables that a secret or placeholder cannot stand in.

    Raises:
        InvalidRequest: the name is no variable's, or steers the command itself.
    """
    for name in (*plan.placeholders, *plan.reveal, *plan.files):
        if not _NAME.fullmatch(name):
            raise InvalidRequest(f"{name!r} is not the name of an environment variable")
        if name in _RESERVED or name.startswith(_RESERVED_PREFIXES):
            raise InvalidRequest(
                f"{name} steers the command itself and cannot carry a secret", "choose another variable"
            )


def given_values(plan: RunPlan) -> Scrubber:
    """What finds the values that the command gets in its environment."""
    from keyhole.scrub import Scrubber  # noqa: PLC0415  # slow to load, and most runs give no value

    return Scrubber.compile(secret.reveal() for secret in plan.reveal.values())


def child_environment(
    plan: RunPlan, files: TrustFiles, *, sandboxed: bool, ports: Sequence[tuple[str, int]] = ()
) -> dict[bytes, bytes]:
    """The complete environment of the command.

    Args:
        plan: what is to be run.
        files: what it trusts.
        sandboxed: it runs in namespaces of its own.
        ports: that are the command's own and take no token, where there are any: the proxy's, then one a database, then
            the one for AgentSecrets.

    Raises:
        InvalidRequest: see ``check_names``; or a value has a NUL byte, which no environment can carry.
    """
    check_names(plan)
    databases = WITHHELD if plan.databases else ()
    dropped = {*_BYPASS, *_AGENTS, *plan.withheld, *databases, *(_HIDDEN_IN_SANDBOX if sandboxed else ())}
    env = {name: value for name, value in plan.base_env.items() if name not in dropped and not name.startswith(_OURS)}
    env |= dict.fromkeys(PROXY, plan.proxy_url)
    env |= dict.fromkeys(REPLACING, str(files.combined))
    env[ADDING] = str(files.extra)
    if files.wget is not None:
        env["WGETRC"] = str(files.wget)
    env["NODE_USE_ENV_PROXY"] = "1"
    _add_git(env, plan.proxy_url)
    _add_java(env, ports[0] if ports else _address(plan.proxy_url), files)
    if files.ssh is not None:
        env |= ssh_variables(files.ssh)
    if ports:
        env["auto_proxy"] = _pac(ports[0])
        env |= variables(plan.databases, ports[1 : 1 + len(plan.databases)])
        if plan.agentsecrets is not None:
            # Its SDK asks for localhost through the proxy of the environment, where the port beside is known.
            env |= dict.fromkeys(_PLAIN, f"http://{ports[0][0]}:{ports[0][1]}")
            env["AGENTSECRETS_PORT"] = str(ports[-1][1])
    env |= plan.placeholders
    env |= {variable: str(path) for variable, path in files.others.items()}
    encoded = {os.fsencode(name): os.fsencode(value) for name, value in env.items()}
    encoded |= {name.encode(): secret.reveal() for name, secret in plan.reveal.items()}
    for key, data in encoded.items():
        if b"\0" in data:
            raise InvalidRequest(f"the value for {key.decode(errors='replace')} has a NUL byte", "it cannot be set")
    return encoded


def _add_git(env: dict[str, str], proxy_url: str) -> None:
    """Let git go through the broker, which adds the credentials, and ask nobody else for any.

    A configured ``http.proxy`` would win over ``https_proxy``; an empty ``credential.helper`` clears the list, so that
    keys which the user once stored are not handed to the command (git-config(1), gitcredentials(7)).
    """
    env["GIT_HTTP_PROXY_AUTHMETHOD"] = "basic"  # else the first CONNECT goes without the token, only to be refused
    env["GIT_ASKPASS"] = ""
    env.setdefault("GIT_TERMINAL_PROMPT", "0")
    given = env.get("GIT_CONFIG_COUNT", "")
    count = int(given) if given.isdecimal() else 0
    settings = (("http.proxy", proxy_url), ("credential.helper", ""))
    for index, (key, value) in enumerate(settings, count):
        env[f"GIT_CONFIG_KEY_{index}"] = key
        env[f"GIT_CONFIG_VALUE_{index}"] = value
    env["GIT_CONFIG_COUNT"] = str(count + len(settings))


def _add_java(env: dict[str, str], address: tuple[str, int], files: TrustFiles) -> None:
    """Proxy and trust for the JVM.

    A JVM has no setting for a proxy's credentials, and prints these options to its error output. So it is led to the
    port that takes none; without that port only programs that authenticate by themselves get through.
    """
    if files.java is None:
        return
    options = [env.get("JAVA_TOOL_OPTIONS", "")]
    for scheme in ("http", "https"):
        options += [f"-D{scheme}.proxyHost={address[0]}", f"-D{scheme}.proxyPort={address[1]}"]
    options += [
        "-Djdk.http.auth.tunneling.disabledSchemes=",  # Basic is off for CONNECT since 8u111
        f"-Djavax.net.ssl.trustStore={_quoted(str(files.java))}",
        "-Djavax.net.ssl.trustStoreType=JKS",
    ]
    env["JAVA_TOOL_OPTIONS"] = " ".join(filter(None, options))


def _address(proxy_url: str) -> tuple[str, int]:
    parts = urlsplit(proxy_url)
    return parts.hostname or "", parts.port or 80


def _pac(port: tuple[str, int]) -> str:
    """What Chromium reads before the other variables, whose credentials it does not use: a script, in its own URL."""
    script = f'function FindProxyForURL(url, host) {{ return "PROXY {port[0]}:{port[1]}"; }}'
    return "data:application/x-ns-proxy-autoconfig;base64," + base64.b64encode(script.encode()).decode()


def _quoted(path: str) -> str:
    return f'"{path}"' if " " in path else path


def launcher_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What an interpreter needs to start; nothing that is the command's."""
    kept = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT") if sys.platform != "linux" else ("LD_LIBRARY_PATH",)
    return {name: environ[name] for name in kept if name in environ}
