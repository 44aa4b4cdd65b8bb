"""Completion, in the shells themselves: what TAB offers, and that it never asks, hangs or complains."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from cli_driver import environment, forked, ok
from keyhole.cli.root import root

KEY = "sk_test_51ExampleExampleExample00"
_BASH = """
source "$1"; shift
complete -p keyhole >/dev/null || exit 9
COMP_WORDS=(keyhole "$@") COMP_CWORD=$# COMPREPLY=()
_keyhole_completion keyhole
printf '%s\\n' "${COMPREPLY[@]}"
"""
# compadd and _describe work in the line editor only: what the script hands to them is printed instead.
_ZSH = """
compdef() { :; }
compadd() { print -l -- "${(@P)@[-1]}"; }
_describe() { print -l -- "${(@P)3}" | sed 's/:.*//'; }
source "$1"; shift
words=(keyhole "$@") CURRENT=$(( $# + 1 ))
_keyhole_completion
"""
_FISH = """source $argv[1]; complete -C "keyhole $(string join -- ' ' $argv[2..])" | string split -f1 \\t"""
_COMMANDS = {
    "bash": ["bash", "--norc", "-c", _BASH, "-"],
    "zsh": ["zsh", "-f", "-c", _ZSH, "-"],
    "fish": ["fish", "--no-config", "-c", _FISH, "--"],
}
SHELLS = ["bash", *(shell for shell in ("zsh", "fish") if shutil.which(shell))]


def press(shell, folder, *words, timeout=30, **more):
    """What the shell offers after these words, of which the last one is begun."""
    script = folder / f"completion.{shell}"
    script.write_text(ok("completion", shell).out)
    env = environment(**{k: v for k, v in os.environ.items() if k.startswith("KEYHOLE_")}, **more)
    env["PATH"] = f"{Path(forked()).parent}:{env['PATH']}"
    done = subprocess.run(
        [*_COMMANDS[shell], str(script), *words],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert "assphrase" not in done.stdout + done.stderr
    return done.stdout.split()


@pytest.fixture
def furnished(local):
    ok("add", "stripe", stdin=KEY)
    ok("set", "crm/eu/login", stdin=KEY)
    ok("agent", "add", "coder")
    return local.parent


@pytest.mark.parametrize("shell", SHELLS)
def test_commands_and_names_are_completed(shell, furnished):
    assert "doctor" in press(shell, furnished, "do")
    assert press(shell, furnished, "grant", "co") == ["coder"]
    assert press(shell, furnished, "grant", "coder", "st") == ["stripe"]
    assert press(shell, furnished, "show", "crm/") == ["crm/eu/login"]
    assert press(shell, furnished, "why", "GET", "https://api.stripe.com/", "--agent", "def") == ["default"]
    assert press(shell, furnished, "add", "anthr") == ["anthropic"]
    assert press(shell, furnished, "doctor", "--client", "ru") == ["ruby"]


def test_all_names_are_offered_where_nothing_is_typed_yet(furnished):
    assert press("bash", furnished, "agent", "show", "") == ["coder", "default"]
    assert press("bash", furnished, "get", "") == ["crm/eu/login", "stripe/api-key"]


def test_a_vault_that_wants_a_passphrase_is_not_asked_for(tmp_path):
    (tmp_path / "passphrase").write_text("correct horse battery staple\n")
    ok("init", "--seal", "passphrase", "--passphrase-file", tmp_path / "passphrase", "-q")
    ok("agent", "add", "coder", "--passphrase-file", tmp_path / "passphrase")
    assert press("bash", tmp_path, "agent", "show", "") == []
    given = str(tmp_path / "passphrase")
    assert press("bash", tmp_path, "agent", "show", "", KEYHOLE_PASSPHRASE_FILE=given) in (["coder"], [])


def test_where_there_is_no_vault_nothing_is_completed_and_none_is_made(tmp_path):
    assert press("bash", tmp_path, "grant", "") == []
    assert not (tmp_path / "home").exists()


def test_a_sealed_or_foreign_store_completes_nothing(furnished):
    (furnished / "key").write_bytes(b"x" * 32)
    assert press("bash", furnished, "grant", "") == []


def test_a_server_that_does_not_answer_is_not_waited_for(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("KEYHOLE_ADDR", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("KEYHOLE_TOKEN", "hvs.none")
        assert press("bash", tmp_path, "grant", "") == []


def test_names_come_from_the_vault_that_the_line_names(furnished, root_of_server):
    assert press("bash", furnished, "--vault", f"sqlite:{furnished / 'home' / 'vault.db'}", "grant", "co") == []


def test_every_argument_that_names_a_thing_of_the_vault_is_completed():
    missing = []
    for command, path in _commands(root, ()):
        for parameter in command.params:
            name = parameter.opts[0].lstrip("-")
            if name in {"agent", "service"} and parameter._custom_shell_complete is None:
                missing.append(" ".join((*path, name)))
    assert [name for name in missing if not name.startswith("import")] == []


def _commands(command, path):
    if hasattr(command, "list_commands"):
        for name in command.list_commands(None):
            yield from _commands(command.get_command(None, name), (*path, name))
    else:
        yield command, path
