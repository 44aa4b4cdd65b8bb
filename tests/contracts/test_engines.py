"""What every member of the shelf ``engines`` keeps to, and the list of what each lets strangers ask."""

import re

import pytest

from keyhole import engines
from keyhole.core.errors import InvalidRequest
from keyhole.core.request import Operation

# Engine -> routes that need no token. A new one here is a decision: whoever can reach the API gets its answer.
OPEN = {
    "pki": {
        "ca",
        "ca/pem",
        "ca_chain",
        "cert/{serial}",
        "cert/{serial}/raw",
        "cert/{serial}/raw/pem",
        "crl",
        "crl/pem",
        "issuer/{issuer}/crl",
        "issuer/{issuer}/crl/der",
        "issuer/{issuer}/crl/pem",
        "issuer/{issuer}/der",
        "issuer/{issuer}/json",
        "issuer/{issuer}/pem",
        "issuers",
        "ocsp",
        "ocsp/{request...}",
    },
    "ssh": {"public_key", "verify"},
}
# Engine -> routes that need ``sudo`` besides, as in Vault.
SUDO = {"pki": {"root", "root/sign-self-issued", "issuer/{issuer}/sign-self-issued"}}
LEASED = {"database", "pki", "ssh"}

EVERY = [(name, {}) for name in engines.MEMBERS] + [("kv", {"version": "1"}), ("kv", {"version": "2"})]


@pytest.fixture(params=EVERY, ids=lambda each: f"{each[0]}{each[1].get('version', '')}")
def engine(request):
    name, options = request.param
    made = engines.load(name, options)
    assert made.type == name
    return made


def test_every_route_says_what_it_is_for_and_what_it_takes(engine):
    for route in engine.routes:
        assert route.help.endswith("."), route.pattern
        assert route.handlers, route.pattern
        names = [field.name for field in route.fields]
        assert len(names) == len(set(names)), route.pattern
        assert all(field.help or field.name in {"signature", "hmac"} for field in route.fields), route.pattern


def test_no_route_hides_another(engine):
    """A path is answered by the first route that fits; one that can never be reached is a mistake."""
    for number, route in enumerate(engine.routes):
        example = re.sub(r"\{\w+(\.\.\.)?\}", "x", route.pattern)
        for earlier in engine.routes[:number]:
            if earlier.compiled().fullmatch(example):
                assert not set(route.handlers) & set(earlier.handlers), (earlier.pattern, route.pattern)


def test_what_strangers_may_ask_is_the_known_list(engine):
    found = {route.pattern for route in engine.routes if route.open}
    assert found == OPEN.get(engine.type, set())


def test_what_is_destructive_needs_sudo(engine):
    found = {route.pattern for route in engine.routes if route.sudo}
    assert found == SUDO.get(engine.type, set())


def test_what_strangers_may_ask_changes_nothing_that_lasts(engine):
    for route in engine.routes:
        if route.open and route.pattern not in {"verify", "ocsp"}:
            assert set(route.handlers) <= {Operation.READ, Operation.LIST}, route.pattern


def test_who_leases_takes_back(engine):
    assert (engine.revoke is not None) == (engine.type in LEASED)


@pytest.mark.parametrize("name", ["", "none", "../kv", "kv.v1", "settings"])
def test_a_name_that_is_not_on_the_shelf_is_no_engine(name):
    with pytest.raises(InvalidRequest, match="plugin not found in the catalog"):
        engines.load(name)
