"""No verb puts a value or a private key on the disk: every file is read as it is written, by inotify."""

from __future__ import annotations

import base64
import ctypes
import os
import select
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from cli_driver import ok, run
from keyhole.crypto import age

VALUE = "canary-51H8xKeyhole-9Zq7-not-on-disk"
_CREATE, _MODIFY, _CLOSE_WRITE, _MOVED_TO, _OPEN = 0x100, 0x2, 0x8, 0x80, 0x20
_EVENTS = _CREATE | _MODIFY | _CLOSE_WRITE | _MOVED_TO | _OPEN
_FOLDER = 0x40000000
_NONBLOCK = 0o4000

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is of Linux")


def forms(text):
    """How a text may lie on a disk: as it is, in base64 at every offset, in hexadecimal, in UTF-16."""
    data = text.encode()
    found = [data, data.hex().encode(), data.hex().upper().encode(), text.encode("utf-16-le")]
    for shift in range(3):
        whole = base64.b64encode(b"\0" * shift + data)
        found += [part := whole[4 : len(whole) // 4 * 4 - 4], part.translate(bytes.maketrans(b"+/", b"-_"))]
    return found


class Watch:
    """Everything that is written below a folder, also what is gone again before anybody looks.

    A file is opened as soon as it appears, so that its bytes can be read after it was renamed or removed.
    """

    def __init__(self, root):
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(_NONBLOCK)
        self._folders, self._open = {}, {}
        self.written, self.modes = {}, {}
        self._stop, self._news = threading.Event(), threading.Condition()
        self._add(root)
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        for path in list(self._open):
            self._read(path)
        for descriptor in self._open.values():
            os.close(descriptor)
        os.close(self._fd)

    def wait_for(self, path, content):
        """Until this was read from a file."""
        with self._news:
            assert self._news.wait_for(lambda: content in self.written.get(path, ()), 60)

    def _add(self, folder):
        number = self._libc.inotify_add_watch(self._fd, os.fsencode(folder), _EVENTS)
        if number < 0:
            return
        self._folders[number] = Path(folder)
        try:
            with os.scandir(folder) as found:
                entries = list(found)
        except FileNotFoundError:
            return  # git has removed it, or moved what was in it to folders that are watched
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                self._add(entry.path)
            else:
                self._read(Path(entry.path))

    def _run(self):
        while not self._stop.is_set() or select.select([self._fd], [], [], 0)[0]:
            if not select.select([self._fd], [], [], 0.05)[0]:
                continue
            data = os.read(self._fd, 1 << 20)
            while data:
                number, mask, _, size = struct.unpack_from("iIII", data)
                name, data = data[16 : 16 + size].rstrip(b"\0"), data[16 + size :]
                if number in self._folders and name:
                    self._seen(self._folders[number] / os.fsdecode(name), mask)

    def _seen(self, path, mask):
        if mask & _FOLDER:
            if mask & (_CREATE | _MOVED_TO):
                self._add(path)
            return
        self._read(path)

    def _read(self, path):
        try:
            if path not in self._open:
                self._open[path] = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            descriptor = self._open[path]
            self.modes.setdefault(path, os.fstat(descriptor).st_mode & 0o777)
            content = os.pread(descriptor, 1 << 24, 0)
            with self._news:
                self.written.setdefault(path, set()).add(content)
                self._news.notify_all()
            if os.fstat(descriptor).st_nlink == 0 or not os.path.samestat(os.fstat(descriptor), path.lstat()):
                raise FileNotFoundError
        except OSError:
            if path in self._open:
                os.close(self._open.pop(path))


def git(folder, *words):
    subprocess.run(["git", "-C", str(folder), *map(str, words)], capture_output=True, check=True)


@pytest.fixture
def place(tmp_path, monkeypatch):
    for name in ("home", "keyhole", "tmp", "team"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "keyhole"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    for name in ("KEYHOLE_REPO_KEY", "AGENT_VAULT_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path / "team")
    git(tmp_path, "init", "-q", "--bare", "-b", "main", "remote.git")
    git(tmp_path / "team", "init", "-q", "-b", "main")
    return tmp_path


def searched(watch, secrets, allowed):
    """Which files held a secret that they must not hold."""
    needles = [form for secret in secrets for form in forms(secret)]
    return {
        str(path)
        for path, contents in watch.written.items()
        for content in contents
        if any(needle in content for needle in needles) and not allowed(path)
    }


def test_the_watch_sees_what_is_gone_at_once(tmp_path):
    with Watch(tmp_path) as watch:
        for number in range(20):
            path = tmp_path / "below" / f"{number}"
            path.parent.mkdir(exist_ok=True)
            with path.open("wb", buffering=0) as file:
                file.write(VALUE.encode())
                watch.wait_for(path, VALUE.encode())
            path.unlink()
    assert len(searched(watch, [VALUE], lambda _: False)) == 20


def test_no_verb_writes_a_value_or_a_key_to_the_disk(place, tmp_path_factory):
    exported = tmp_path_factory.mktemp("elsewhere") / "some.env"
    exported.write_text(f"SOME_API_KEY={VALUE}\n")
    with Watch(place) as watch:
        ok("repo", "init")
        ok("repo", "set", "a/one", stdin=VALUE)
        ok("repo", "add-agent", "coder", "--group", "a")
        git(place / "team", "remote", "add", "origin", place / "remote.git")
        git(place / "team", "push", "-q", "-u", "origin", "main")
        ok("repo", "set", "a/one", stdin=f"{VALUE}2")
        ok("repo", "push")
        ok("repo", "revoke", "coder", "a")
        ok("repo", "grant", "coder", "a")
        ok("repo", "rollback", "a/one", "1")
        assert ok("repo", "get", "a/one").out == VALUE
        ok("repo", "recover-agent", "coder", "--to", place / "fresh.key")
        run("repo", "check", "--deep")
        ok("repo", "pull")
        ok("repo", "remove-agent", "coder")
        ok("repo", "import", "dotenv", exported, "--under", "b")
        ok("repo", "remote", "add", "stick", place / "stick")
        ok("repo", "push", "stick")
        ok("repo", "clone", place / "stick", place / "copy")
        public = age.parse_recipient((place / "team/.agent-vault/owner.pub").read_text())
        (place / "team/.agent-vault/secrets/a/one.enc").write_bytes(age.encrypt(f"{VALUE}3".encode(), [public]))
        git(place / "team", "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qam", "agent-vault: set a/one")
        ok("repo", "adopt", "--yes")
        ok("init", "--seal", f"keyfile:{place}/seal.key", "--make-keyfile")
        ok("repo", "mount", "team")
        ok("repo", "rm", "a/one")
        ok("operator", "fsck", ".")
    keys = [*place.glob("home/.agent-vault/**/*.key"), place / "fresh.key"]
    private = [age.find_identity(path.read_text()).to_text() for path in keys]
    names = {path.name for path in keys}
    assert len(keys) == 3

    def is_key(path):
        return path.name in names or path.name.removeprefix(".").removesuffix(".new") in names

    assert searched(watch, [VALUE], lambda _: False) == set()
    assert searched(watch, private, is_key) == set()
    assert {mode for path, mode in watch.modes.items() if is_key(path)} == {0o600}
    assert len(watch.written) > 50


def test_a_key_in_a_variable_is_written_nowhere_and_is_in_no_argument(place, monkeypatch):
    ok("repo", "init")
    ok("repo", "set", "a/one", stdin=VALUE)
    file = place / "home" / ".agent-vault" / "owner.key"
    key = file.read_text()
    file.unlink()
    monkeypatch.setenv("AGENT_VAULT_KEY", key)
    started = []
    plain = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda words, **more: started.append((words, more)) or plain(words, **more))
    with Watch(place) as watch:
        assert ok("repo", "get", "a/one").out == VALUE
        ok("repo", "set", "a/two", stdin=VALUE)
        ok("repo", "add-agent", "coder", "--group", "a")
        ok("repo", "check", "--deep")
        ok("operator", "fsck", ".")
    assert searched(watch, [key], lambda _: False) == set()
    needles = forms(key) + forms(VALUE)
    for words, more in started:
        said = os.fsencode(repr([words, more.get("env")])) + more.get("input", b"")
        assert not any(needle in said for needle in needles)
    assert len(started) > 10
