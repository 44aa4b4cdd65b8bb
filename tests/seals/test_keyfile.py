import base64
import os
import stat

import pytest

from keyhole.core.errors import Conflict, InvalidRequest, Sealed
from keyhole.seals import keyfile, open_seal
from keyhole.seals.keyfile import make_keyfile, read_keyfile

KEY = bytes(range(7, 256, 8))[:32]
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="files of another owner can be made by root only")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "key"


def write(path, content, mode=0o600):
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    "content",
    [
        KEY,
        KEY[:31] + b"\n",
        KEY.hex().encode(),
        KEY.hex().upper().encode() + b"\r\n",
        base64.b64encode(KEY),
        base64.b64encode(KEY) + b"\n",
        base64.urlsafe_b64encode(KEY).rstrip(b"="),
    ],
)
def test_a_key_may_be_raw_hexadecimal_or_base64(path, content):
    assert read_keyfile(write(path, content)) in (KEY, KEY[:31] + b"\n")


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\n", KEY[:31], KEY + b"\n", KEY * 2, KEY.hex().encode()[:63], b"g" * 64, b"0" * 64, bytes(32)),
        *(b"a" * 32, b"correct horse battery staple 123", base64.b64encode(KEY[:24]), b"\xff" * 44),
        os.urandom(100_000),
    ],
)
def test_content_that_is_no_random_key_is_refused_without_showing_it(path, content):
    with pytest.raises(InvalidRequest, match="32 random bytes") as caught:
        read_keyfile(write(path, content))
    assert "horse" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o602, 0o610, 0o601, 0o777])
def test_a_file_that_others_can_use_is_refused(path, mode):
    with pytest.raises(InvalidRequest, match="chmod 600"):
        read_keyfile(write(path, KEY, mode))


def test_a_read_only_file_is_fine(path):
    assert read_keyfile(write(path, KEY, 0o400)) == KEY


def test_a_missing_file_seals_the_vault_and_none_is_made(path):
    seal = open_seal(f"keyfile:{path}", passphrase=None, vault_id="v1", create=True)
    with pytest.raises(Sealed):
        seal.wrap(bytes(32))
    assert not path.exists()


def test_a_vault_opens_once_its_file_is_mounted(path):
    make_keyfile(path)
    seal = open_seal(f"keyfile:{path}", passphrase=None, vault_id="v1")
    blob = seal.wrap(bytes(32))
    hidden = path.rename(path.with_name("away"))
    with pytest.raises(Sealed):
        seal.unwrap(blob)
    hidden.rename(path)
    assert seal.unwrap(blob) == bytes(32)


def test_folders_pipes_and_devices_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    for place in (tmp_path, tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(InvalidRequest, match="regular file"):
            read_keyfile(keyfile.Path(place))


def test_own_links_are_followed_as_in_mounted_secrets(tmp_path, path):
    (tmp_path / "..2026").mkdir()
    write(tmp_path / "..2026" / "key", KEY)
    (tmp_path / "..data").symlink_to("..2026")
    path.symlink_to("..data/key")
    assert read_keyfile(path) == KEY


def test_links_in_a_circle_are_refused(path):
    path.symlink_to(path.name)
    with pytest.raises((InvalidRequest, Sealed)):
        read_keyfile(path)


@as_root
def test_a_link_or_file_of_somebody_else_is_refused(tmp_path, path):
    target = write(tmp_path / "target", KEY)
    path.symlink_to(target)
    assert read_keyfile(path) == KEY
    os.lchown(path, NOBODY, NOBODY)
    with pytest.raises(InvalidRequest, match="somebody else"):
        read_keyfile(path)
    middle = tmp_path / "middle"
    middle.symlink_to(path)
    with pytest.raises(InvalidRequest, match="somebody else"):
        read_keyfile(middle)
    os.chown(target, NOBODY, NOBODY)
    with pytest.raises(InvalidRequest, match="somebody else"):
        read_keyfile(target)


def test_a_new_key_file_is_random_private_and_never_overwrites(path):
    before = os.umask(0o777)
    try:
        make_keyfile(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first = read_keyfile(path)
    with pytest.raises(Conflict):
        make_keyfile(path)
    assert read_keyfile(path) == first
    other = path.with_name("other")
    make_keyfile(other)
    assert read_keyfile(other) != first


def test_a_new_key_file_does_not_follow_a_link(tmp_path, path):
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Conflict):
        make_keyfile(path)
    assert not (tmp_path / "elsewhere").exists()


def test_a_key_file_in_a_missing_folder_is_refused(path):
    with pytest.raises(InvalidRequest):
        make_keyfile(path / "below" / "key")


def test_a_seal_without_a_path_is_refused():
    with pytest.raises(InvalidRequest, match="path"):
        open_seal("keyfile", passphrase=None, vault_id="v1")
