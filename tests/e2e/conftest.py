import pytest

from e2e.internet import make_internet
from e2e.world import make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    made = make_world(tmp_path_factory.mktemp("world"))
    yield made
    made.upstream.close()
    made.stranger.close()


@pytest.fixture(scope="session")
def internet(tmp_path_factory):
    made = make_internet(tmp_path_factory.mktemp("internet"))
    yield made
    made.close()
