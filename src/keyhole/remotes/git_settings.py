"""What git is told in place of the settings of a repository, which may have been written by anybody.

A repository that was unpacked or copied brings its own ``.git/config``, and many settings of git name a program. Those
with fixed names are set here for every call; those whose names the repository chooses (filters, merge drivers, programs
of a remote, credential helpers) are read first and set to something that does nothing. Settings that would send a login
elsewhere are refused, because they cannot be replaced by anything right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from keyhole.core.errors import InvalidRequest
from keyhole.remotes.git_url import is_local

AUTHOR = "agent-vault"
EMAIL = "agent-vault@localhost"
FIXED = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    "core.alternateRefsCommand=true",
    "core.askPass=",
    "core.gitProxy=",
    "core.pager=cat",
    "core.editor=false",
    "core.protectNTFS=true",
    "core.protectHFS=true",
    "core.sshCommand=ssh -oBatchMode=yes",
    "ssh.variant=ssh",
    "protocol.ext.allow=never",
    "protocol.allow=never",
    "protocol.https.allow=always",
    "protocol.ssh.allow=always",
    "protocol.file.allow=user",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "fetch.fsckObjects=true",
    "transfer.fsckObjects=true",
    "transfer.bundleURI=false",
    "commit.gpgSign=false",
    "push.gpgSign=false",
    "push.followTags=false",
    "push.recurseSubmodules=no",
    "merge.verifySignatures=false",
    "merge.renormalize=false",
    "log.showSignature=false",
    "gpg.program=false",
    "gpg.ssh.program=false",
    "gpg.ssh.defaultKeyCommand=false",
    "gpg.x509.program=false",
    "http.sslVerify=true",
    "http.saveCookies=false",
    "gc.auto=0",
    "maintenance.auto=false",
    f"user.name={AUTHOR}",
    f"user.email={EMAIL}",
)
FETCH = (
    "--quiet",
    "--no-tags",
    "--no-recurse-submodules",
    "--no-prune",
    "--no-auto-maintenance",
    "--no-write-fetch-head",
)
SERVING = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.alternateRefsCommand=true",
    "receive.denyCurrentBranch=refuse",
    "receive.fsckObjects=true",
    "receive.autogc=false",
    "gc.auto=0",
    "maintenance.auto=false",
)
"""For the other side of a remote that is a path: it is another repository of this machine, and its hooks are as little
to be run."""
AS_COMMITTED = {"GIT_NO_REPLACE_OBJECTS": "1", "GIT_GRAFT_FILE": "/dev/null"}
"""No object of the repository stands for another one, and none has other parents: git sends what was committed."""
_OWN = frozenset({"local", "worktree"})
_DIVERTING = re.compile(
    r"(?:http\.(?:.*\.)?(?:proxy|proxyssl\w+|sslcert|sslkey|sslcainfo|sslcapath|sslbackend|cookiefile|savecookies"
    r"|curloptresolve)|remote\..*\.(?:proxy|vcs))",
    re.DOTALL,
)
_UNVERIFIED = re.compile(r"http\.(?:.*\.)?sslverify", re.DOTALL)
_FILTER = re.compile(r"filter\.(.*)\.(?:clean|smudge|process|required)", re.DOTALL)
_MERGE = re.compile(r"merge\.(.*)\.driver", re.DOTALL)
_PROGRAM = re.compile(r"remote\.(.*)\.(?:uploadpack|receivepack)", re.DOTALL)
_HELPER = re.compile(r"credential\.(?:.*\.)?helper", re.DOTALL)


def entries(listed: bytes) -> list[tuple[str, str, str]]:
    """Scope, name and value of each setting that ``git config --list --null --show-scope`` has printed."""
    parts = listed.decode(errors="surrogateescape").split("\0")
    found = []
    for scope, setting in zip(parts[::2], parts[1::2], strict=False):
        name, _, value = setting.partition("\n")
        found.append((scope, name, value))
    return found


def told(settings: list[tuple[str, str, str]]) -> dict[str, str]:
    """Variables that say to git what counts, whatever the repository says: a ``-c`` could not name every setting.

    A filter passes everything on as it is; a merge driver finds a conflict, which a person settles; and credential
    helpers are those of the user alone.
    """
    pairs = [*(each.split("=", 1) for each in FIXED), *_replacements(settings)]
    found = {"GIT_CONFIG_COUNT": str(len(pairs))}
    for number, (name, value) in enumerate(pairs):
        found |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    return found


def _replacements(settings: list[tuple[str, str, str]]) -> list[tuple[str, str]]:
    found: dict[tuple[str, str], None] = {}
    for _, name, _ in settings:
        if match := _FILTER.fullmatch(name):
            found |= {(f"filter.{match[1]}.{what}", ""): None for what in ("clean", "smudge", "process")}
            found[(f"filter.{match[1]}.required", "false")] = None
        elif match := _MERGE.fullmatch(name):
            found[(f"merge.{match[1]}.driver", "false")] = None
        elif match := _PROGRAM.fullmatch(name):
            found[(f"remote.{match[1]}.uploadpack", "git-upload-pack")] = None
            found[(f"remote.{match[1]}.receivepack", "git-receive-pack")] = None
    return [*found, *_helpers(settings)]


def _helpers(settings: list[tuple[str, str, str]]) -> Iterator[tuple[str, str]]:
    helpers = [each for each in settings if _HELPER.fullmatch(each[1])]
    if any(scope in _OWN for scope, _, _ in helpers):
        yield "credential.helper", ""
        yield from ((name, value) for scope, name, value in helpers if scope == "global")


def require_straight(settings: list[tuple[str, str, str]]) -> None:
    """Before the network is used: see that the repository does not say by which way, or that nobody is to be checked.

    Raises:
        InvalidRequest: it does; the reason names the setting, not its value.
    """
    for scope, name, value in settings:
        bent = _DIVERTING.fullmatch(name) or (_UNVERIFIED.fullmatch(name) and value.lower() not in {"", "true", "1"})
        if scope in _OWN and bent:
            raise InvalidRequest(
                f"the settings of this repository name {name[:100]!r}, by which a login could go elsewhere",
                "if it is yours, set it with: git config --global; then: git config --local --unset-all NAME",
            )


def program(name: str, url: str) -> str:
    """What the other side is to run: on another machine the program alone, on this one without its hooks."""
    settings = "".join(f" -c {each}" for each in SERVING)
    return f"git{settings} {name}" if is_local(url) else f"git-{name}"
