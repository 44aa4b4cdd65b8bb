import gc
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from keyhole.core.errors import IntegrityError, InvalidRequest, Sealed
from keyhole.seals import default_seal, keychain, open_seal
from keyhole.seals.keychain import KeychainSeal
from seals.desktop import lock
from seals.plugin import PlaintextKeyring

ROOT_KEY = bytes(range(100, 132))
# The library does not close its connection when the bus or the user fails it.
leaves_a_connection = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


def collect_connections():
    """Let abandoned work end here, so that its warnings are not raised in another test."""
    for thread in threading.enumerate():
        if thread.name == "keychain":
            thread.join(30)
    gc.collect()


def test_a_new_vault_opens_again_in_the_same_session_without_a_question(desktop):
    blob = open_seal("keychain", passphrase=None, vault_id="v1", create=True).wrap(ROOT_KEY)
    assert open_seal("keychain", passphrase=None, vault_id="v1").unwrap(blob) == ROOT_KEY


def test_the_entry_is_where_the_documentation_says(desktop):
    import keyring.backends.SecretService

    KeychainSeal("v1", create=True).wrap(ROOT_KEY)
    assert len(keyring.backends.SecretService.Keyring().get_password("keyhole", "v1")) == 44


def test_a_second_wrap_keeps_the_entry_that_older_blobs_need(desktop):
    seal = KeychainSeal("v1", create=True)
    first = seal.wrap(ROOT_KEY)
    second = seal.wrap(ROOT_KEY)
    assert seal.unwrap(first) == seal.unwrap(second) == ROOT_KEY


def test_another_vault_in_the_same_keychain_has_another_key(desktop):
    blob = KeychainSeal("v1", create=True).wrap(ROOT_KEY)
    KeychainSeal("v2", create=True).wrap(ROOT_KEY)
    with pytest.raises(IntegrityError):
        KeychainSeal("v2").unwrap(blob)


def test_without_its_entry_a_vault_is_sealed_and_no_entry_is_made_for_it(desktop):
    blob = KeychainSeal("v1", create=True).wrap(ROOT_KEY)
    for attempt in (lambda: KeychainSeal("v9", create=True).unwrap(blob), lambda: KeychainSeal("v9").wrap(ROOT_KEY)):
        with pytest.raises(Sealed):
            attempt()
    with pytest.raises(Sealed):
        KeychainSeal("v9").unwrap(blob)


@pytest.mark.parametrize("entry", ["", "not base64!", "c2hvcnQ=", "ü"])
def test_a_damaged_entry_is_an_integrity_error(desktop, entry):
    import keyring.backends.SecretService

    blob = KeychainSeal("v1", create=True).wrap(ROOT_KEY)
    keyring.backends.SecretService.Keyring().set_password("keyhole", "v1", entry)
    with pytest.raises(IntegrityError):
        KeychainSeal("v1").unwrap(blob)


def test_a_locked_keychain_seals_the_vault_at_once_and_asks_nobody(desktop):
    seal = KeychainSeal("v1", create=True)
    blob = seal.wrap(ROOT_KEY)
    lock()
    for attempt in (lambda: seal.unwrap(blob), lambda: seal.wrap(ROOT_KEY)):
        with pytest.raises(Sealed, match="locked"):
            attempt()
    assert default_seal() == "passphrase"


@leaves_a_connection
def test_a_person_who_cannot_unlock_it_is_told_that_it_is_locked(desktop):
    blob = KeychainSeal("v1", create=True).wrap(ROOT_KEY)
    lock()
    with pytest.raises(Sealed, match="locked"):
        open_seal("keychain", passphrase=None, vault_id="v1", interactive=True).unwrap(blob)
    collect_connections()


@leaves_a_connection
def test_a_bus_that_does_not_answer_is_given_up(no_desktop, tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "bus"))
        silent.listen()
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={tmp_path}/bus")
        begin = time.monotonic()
        with pytest.raises(Sealed, match="did not answer"):
            KeychainSeal("v1", create=True, timeout=0.3).wrap(ROOT_KEY)
        assert not keychain.available(timeout=0.3)
        assert time.monotonic() - begin < 30
    collect_connections()


def test_without_a_keychain_the_vault_is_sealed_and_the_next_step_is_named(no_desktop):
    with pytest.raises(Sealed, match="--seal passphrase"):
        KeychainSeal("v1", create=True).wrap(ROOT_KEY)
    assert default_seal() == "passphrase"


def test_the_default_on_a_desktop_is_the_keychain(desktop):
    assert default_seal() == "keychain"


@pytest.mark.parametrize(
    "backend", ["keyring.backends.null.Keyring", "keyring.backends.fail.Keyring", "seals.plugin.PlaintextKeyring"]
)
def test_a_configured_backend_that_is_no_keychain_is_refused(desktop, monkeypatch, backend):
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", backend)
    with pytest.raises(InvalidRequest, match="PYTHON_KEYRING_BACKEND") as caught:
        KeychainSeal("v1", create=True).wrap(ROOT_KEY)
    assert backend in caught.value.reason
    assert PlaintextKeyring.written == []


def test_the_configuration_file_of_keyring_is_respected(desktop):
    config = Path(os.environ["XDG_CONFIG_HOME"], "python_keyring")
    config.mkdir()
    (config / "keyringrc.cfg").write_text("[backend]\ndefault-keyring=keyring.backends.null.Keyring\n")
    with pytest.raises(InvalidRequest, match="null"):
        KeychainSeal("v1", create=True).wrap(ROOT_KEY)


def test_an_installed_plugin_is_passed_over_also_in_a_chain(desktop, monkeypatch):
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.chainer.ChainerBackend")
    blob = KeychainSeal("v1", create=True).wrap(ROOT_KEY)
    monkeypatch.delenv("PYTHON_KEYRING_BACKEND")
    assert KeychainSeal("v1").unwrap(blob) == ROOT_KEY
    assert PlaintextKeyring.written == []


def test_an_unknown_configured_backend_seals_instead_of_crashing(desktop, monkeypatch):
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "no.such.module.Keyring")
    with pytest.raises(Sealed):
        KeychainSeal("v1", create=True).wrap(ROOT_KEY)


def test_the_error_of_a_missing_program_tells_how_to_install_it(tmp_path, monkeypatch):
    from seals.desktop import desktop_session

    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AssertionError, match="apt-get install"), desktop_session(tmp_path):
        pass
