import pytest

from seals.desktop import VARIABLES, desktop_session


@pytest.fixture
def no_desktop(tmp_path, monkeypatch):
    """A process as on a server: no session bus, no keyring configuration of the person who runs the tests."""
    for name in (*VARIABLES, "PYTHON_KEYRING_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.fixture
def desktop(no_desktop, tmp_path, monkeypatch):
    """A process in a desktop session with an unlocked keychain."""
    folder = tmp_path / "desktop"
    folder.mkdir()
    with desktop_session(folder) as session:
        for name, value in session.items():
            monkeypatch.setenv(name, value)
        yield session
