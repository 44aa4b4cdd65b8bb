"""The verbs that take secrets out, into formats that other programs read. Each of them is a reveal.

Sealed formats need nothing but a consent; what is in clear needs ``--plain`` besides. A file is 0600 from its first
byte, and never written over.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import json
import os
from collections.abc import Callable, Iterator, Sequence, Sized
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from keyhole.cli.base import Command, Session, group, pass_session
from keyhole.cli.consent import ask_yes, has_terminal
from keyhole.cli.moving import kv
from keyhole.cli.moving.entering import Decorator, nothing_more, of_vault, server_of
from keyhole.cli.moving.reading import password
from keyhole.cli.moving.sinks import repo_name
from keyhole.core.errors import Conflict, InvalidRequest, NotFound, PolicyDenied
from keyhole.core.value import Secret
from keyhole.crypto import age
from keyhole.importers import agenticmail, bitwarden, doppler, onepassword, sops
from keyhole.importers.found import LIMITS, Item
from keyhole.process import harden_process
from keyhole.repo import changes
from keyhole.repo.tree import VAULT

Options = dict[str, Any]
Gather = Callable[[Session, Options, Sequence[str]], list[Item]]
_SHAPES = {".yaml": "yaml", ".yml": "yaml", ".json": "json", ".env": "dotenv", ".ini": "ini"}
_TEXTS = {
    "sops": "A file that sops opens, sealed for age recipients: YAML, JSON, dotenv or INI, as its name ends.",
    "agent-vault": "A new repo vault in the folder that --to names, with your key as its owner.",
    "agenticmail": "Envelopes of AgenticMail's SecureVault, sealed with a password. A third of a second each.",
    "bitwarden": "JSON that Bitwarden imports, sealed with a password; with --plain in clear, as JSON or CSV.",
    "1password": "CSV that 1Password imports. In clear, so it takes --plain.",
    "doppler": "JSON for doppler secrets upload. In clear, so it takes --plain.",
}
_HAS_NONE = {errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL}
"""What file systems and kernels say that have no files without a name."""
_PASSWORDS = {"agenticmail", "bitwarden"}
_ALWAYS_PLAIN = {"1password", "doppler"}
_MAY_BE_PLAIN = {*_ALWAYS_PLAIN, "bitwarden"}
_FILES = {
    "sops": "secrets.yaml --recipient age1…",
    "agent-vault": "~/team",
    "agenticmail": "rows.json --password-file key.txt",
    "bitwarden": "export.json --password-file password.txt",
    "1password": "export.csv --plain",
    "doppler": "doppler.json --plain",
}


def from_this_vault(session: Session, _options: Options, wanted: Sequence[str]) -> list[Item]:
    """Secrets of the vault that the command line means: each read needs ``read``, and is recorded by the vault."""
    found = list[Item]()
    for name in chosen(list(_names(session)), wanted):
        answer = session.client.read(f"secret/data/{name}")
        data = answer.data.get("data") if answer.found else None
        if data:
            texts = {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in data.items()}
            found.append(Item(name, texts))
    return found


def _names(session: Session) -> Iterator[str]:
    folders, count = [""], 0
    while folders:
        folder = folders.pop(0)
        for key in session.names(f"secret/metadata/{folder}"):
            count += 1
            if count > LIMITS.entries:
                raise InvalidRequest(f"there are more than {LIMITS.entries} secrets", "name those that are meant")
            if key.endswith("/"):
                folders.append(f"{folder}{key}")
            else:
                yield f"{folder}{key}"


def chosen(names: list[str], wanted: Sequence[str]) -> list[str]:
    """Those that are named, by a name, a folder or a glob; all where nothing is."""
    if not wanted:
        return names
    found = list[str]()
    for word in wanted:
        here = [n for n in names if n == word or n.startswith(f"{word.rstrip('/')}/") or fnmatch.fnmatchcase(n, word)]
        if not here:
            raise NotFound(
                f"there is no secret that {word!r} names",
                "keyhole list, or in a repo vault: keyhole repo list",
            )
        found += here
    return list(dict.fromkeys(found))


def consent(count: int | None, to: str, *, reveal: bool) -> None:
    """Ask whoever is there; a script says ``--reveal``. Raises ``PolicyDenied``, ``InvalidRequest``."""
    if reveal:
        return
    if not has_terminal():
        raise InvalidRequest("nobody can be asked whether values may leave the vault here", "add --reveal")
    what = "the values of all secrets that you may read" if count is None else f"what {count} names stand for"
    if not ask_yes(f"Write {what} to {to}?"):
        raise PolicyDenied("nothing is written", "answer y, or add --reveal")


def write_new(path: Path, content: bytes) -> None:
    """A new file, 0600 from its first byte, which is there whole or not at all.

    Where the system has files without a name (Linux), not even ``kill -9`` leaves a part of it.

    Raises:
        Conflict: something is there.
        InvalidRequest: it cannot be made.
    """
    try:
        if not _write_unnamed(path, content):
            _write_named(path, content)
    except FileExistsError:
        raise Conflict(f"{path} is there already, and is not written over", "name another file") from None
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be made: {error.strerror}", "name another place") from None


def _write_unnamed(path: Path, content: bytes) -> bool:
    """Write it without a name, and give it that at the end; false where that cannot be. Raises ``OSError``."""
    flag = getattr(os, "O_TMPFILE", 0)
    if not flag or not Path("/proc/self/fd").is_dir():
        return False
    try:
        descriptor = os.open(path.parent, os.O_WRONLY | os.O_CLOEXEC | flag, 0o600)
    except OSError as error:
        if error.errno in _HAS_NONE:
            return False
        raise
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write(content)
        file.flush()
        os.fsync(descriptor)
        try:  # with a folder's descriptor, which an absolute path does not need, the link of /proc is followed
            os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor, follow_symlinks=True)
        except FileExistsError:
            raise
        except OSError:
            return False
    return True


def _write_named(path: Path, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, flags, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if os.name == "posix":
                os.fchmod(descriptor, 0o600)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def commands(noun: str, gather: Gather, also: Decorator) -> list[Command]:
    """A command for each format.

    Args:
        noun: the words before the format, for examples.
        gather: reads the secrets.
        also: options that the source has besides.
    """
    return [*(_file_command(noun, kind, gather, also) for kind in _TEXTS), _vault_command(noun, gather, also)]


def _file_command(noun: str, kind: str, gather: Gather, also: Decorator) -> Command:
    def run(session: Session, /, *, names: tuple[str, ...], to: str, reveal: bool, **options: Any) -> None:
        path = Path(to).expanduser()
        _refuse_early(kind, path, options)
        consent(len(names) if names else None, str(path), reveal=reveal)
        harden_process()
        secret = _password_of(kind, options)
        items = gather(session, options, names)
        if not items:
            raise NotFound("there is no secret to be written", "keyhole list")
        if options.get("plain"):
            session.out.warn(f"{path} will have {_count(items)} IN CLEAR: move it in and delete it at once")
        if kind == "agent-vault":
            _write_repo(session, path, items)
        else:
            write_new(path, _content(kind, path, items, secret, options))
        data = {"to": str(path), "format": kind, "sealed": not options.get("plain"), "names": [i.name for i in items]}
        session.out.done(data, f"wrote {_count(items)} to {path}")

    function: Callable[..., Any] = click.option("--to", required=True, metavar="FILE", help="A new file.")(run)
    if kind == "sops":
        hint = "Public key of age that opens it; may be repeated."
        function = click.option("--recipient", "recipients", multiple=True, metavar="AGE", help=hint)(function)
    if kind in _PASSWORDS:
        hint = "Password of the new file, in the first line of this one; else asked for."
        function = click.option("--password-file", default="", metavar="FILE", help=hint)(function)
    if kind in _MAY_BE_PLAIN:
        function = click.option("--plain", is_flag=True, help="In clear: whoever reads the file has all of it.")(
            function
        )
    return _made(function, kind, _TEXTS[kind], f"{noun} {kind} --to {_FILES[kind]}", also)


def _made(function: Callable[..., Any], name: str, text: str, example: str, also: Decorator) -> Command:
    function = click.argument("names", nargs=-1, metavar="[NAME|GLOB]…")(function)
    function = click.option("--reveal", is_flag=True, help="Do not ask.")(function)
    decorated = also(function)
    told = "This is a reveal: it needs read, is recorded, and asks first."
    return click.command(name, cls=Command, examples=example, help=f"{text}\n\n{told}")(pass_session(decorated))


def _refuse_early(kind: str, path: Path, options: Options) -> None:
    """What can be known before anything is revealed."""
    if kind in _ALWAYS_PLAIN and not options["plain"]:
        raise InvalidRequest(
            f"{kind} reads no sealed file, so this would write every value in clear",
            "--plain, if that is what you want; sealed ones: sops, bitwarden, agent-vault",
        )
    if kind == "sops":
        if not options["recipients"]:
            raise InvalidRequest("nobody could open the file", "--recipient age1…; see age-keygen -y KEYFILE")
        for text in options["recipients"]:
            age.parse_recipient(text)
        if path.suffix.lower() not in _SHAPES:
            raise InvalidRequest("the name of the file does not say its form", f"end it in {' '.join(_SHAPES)}")
    if path.exists() and kind != "agent-vault":
        raise Conflict(f"{path} is there already, and is not written over", "name another file")


def _password_of(kind: str, options: Options) -> Secret | None:
    if kind not in _PASSWORDS or options.get("plain"):
        return None
    return password(options["password_file"], "AGENTICMAIL_VAULT_KEY" if kind == "agenticmail" else "")


def _content(kind: str, path: Path, items: list[Item], secret: Secret | None, options: Options) -> bytes:
    if kind == "sops":
        recipients = [age.parse_recipient(text) for text in options["recipients"]]
        return sops.write(items, recipients, datetime.now(UTC), _SHAPES[path.suffix.lower()])
    if kind == "agenticmail" and secret is not None:
        return agenticmail.write(items, secret)
    if kind == "bitwarden":
        as_table = options["plain"] and path.suffix.lower() == ".csv"
        return bitwarden.write_table(items) if as_table else bitwarden.write(items, secret)
    return onepassword.write(items) if kind == "1password" else doppler.write(items)


def _count(things: Sized) -> str:
    return f"{len(things)} secret{'' if len(things) == 1 else 's'}"


def _write_repo(session: Session, folder: Path, items: list[Item]) -> None:
    """A new repo vault without git: a clone of it can be made one later. Raises ``Conflict`` where there is one."""
    if (folder / VAULT).exists():
        raise Conflict(f"there is a vault in {folder}", "keyhole repo import --help")
    values: dict[str, tuple[Secret, str]] = {}
    for item in items:
        for field, text in item.fields.items():
            name = repo_name(item.name, field, alone=len(item.fields) == 1)
            if name in values:
                raise InvalidRequest(f"two values would be called {name}", "leave one out")
            values[name] = (Secret(text), "")
    from keyhole.cli.repo.place import Place  # noqa: PLC0415  # the noun repo has a verb that is made here
    from keyhole.cli.repo.vaults import make_vault  # noqa: PLC0415  # the same

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = make_vault(folder.resolve(), "owner", git=False)
    if made.fresh:
        session.out.say(f"made your key {made.key_file}; keep a copy of it where you keep such things")
    message = f"agent-vault: import {_count(values)}"
    Place(session, str(folder)).change(lambda opened, actor: changes.store_all(opened, actor, values, message))


def _vault_command(noun: str, gather: Gather, also: Decorator) -> Command:
    @of_vault
    @click.option("--replace", is_flag=True, help="Put a new version over a secret that has another value.")
    @click.option("--dry-run", is_flag=True, help="Only compare.")
    def run(session: Session, /, *, names: tuple[str, ...], reveal: bool, **options: Any) -> int:
        server = server_of(options)
        consent(len(names) if names else None, server.address, reveal=reveal)
        harden_process()
        items = gather(session, options, names)
        done = kv.write(server, items, over=options["replace"], dry=options["dry_run"])
        data = [{"name": name, "state": state} for name, state in done]
        session.out.table(data, ("secret", "state"), done, empty="no secrets")
        return 2 if any(state == kv.CONFLICT for _, state in done) else 0

    text = "The KV engine of a running Vault, OpenBao or Keyhole, version 1 or 2."
    example = f"{noun} vault --address https://vault.example:8200 --token-file token 'shop/*'"
    return _made(run, "vault", text, example, also)


@group("export", examples="keyhole export sops --to secrets.yaml --recipient age1… 'shop/*'")
def export() -> None:
    """Write secrets into a file that other programs read. A reveal: it needs read, is asked about, and recorded."""


for each in commands("keyhole export", from_this_vault, nothing_more):
    export.add_command(each)
