"""What holds for every test: who compiles it, how often Python looks for garbage, how many keys of RSA are made, and
that hypothesis has the same examples in every run, and all the time for them that they need."""

import gc
import itertools

import pytest
from hypothesis import HealthCheck, settings

from compiling import compile_share

# How long an example takes says how much else the machine does, and nothing about what is tested. New examples are for
# the campaigns to look for.
settings.register_profile(
    "here", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("here")


def pytest_configure():
    """Thousands of tests are found, and none of what is found becomes garbage: look seldom."""
    gc.set_threshold(20_000, 10, 10)


def pytest_collection(session):
    """Before it looks for tests a worker compiles its share of them."""
    if worker := getattr(session.config, "workerinput", None):
        compile_share(session.config, int(worker["workerid"].removeprefix("gw")), worker["workercount"])


def pytest_collection_finish():
    """What was found stays to the end: never look at it again."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def keys_of_rsa_come_round_again():
    """A key of RSA takes a tenth of a second or more: a dozen of a size are made, later ones are these again."""
    from cryptography.hazmat.bindings._rust import openssl

    make, made, numbers = openssl.rsa.generate_private_key, {}, itertools.count()

    def generate(public_exponent, key_size):
        asked = public_exponent, key_size, next(numbers) % 12
        if asked not in made:
            made[asked] = make(public_exponent, key_size)
        return made[asked]

    openssl.rsa.generate_private_key = generate
    yield
    openssl.rsa.generate_private_key = make
