import pytest

from e2e.world import make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    made = make_world(tmp_path_factory.mktemp("world"))
    yield made
    made.upstream.close()
    made.stranger.close()
