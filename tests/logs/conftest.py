import gc

import pytest

from keyhole.client import fetched


@pytest.fixture(autouse=True)
def no_clients_of_other_tests():
    gc.collect()
    with fetched._lock:
        fetched._holders.clear()
