"""What the catalog makes of things found, and which are taken."""

import pytest

from keyhole.catalog import Catalog
from keyhole.core.value import Secret
from keyhole.importers import Origin, load
from keyhole.importers.recognise import Recogniser, Wish

TOKEN = "ghp_" + "A" * 36
STRIPE = "sk_live_51Sample0000000000000000"


@pytest.fixture(scope="module")
def recogniser():
    return Recogniser(Catalog.load())


def choose(recogniser, source, text, **wish):
    report = load(source).parse(text.encode(), Origin("x", group="shop"))
    return recogniser.choose(report, Wish(**wish))


def test_by_the_variable_by_the_host_and_by_the_shape(recogniser):
    for source, text in (
        ("dotenv", f"STRIPE_SECRET_KEY={STRIPE}"),
        ("dotenv", f"PAYMENTS={STRIPE}"),
        ("git", f"https://x:{STRIPE}@api.stripe.com"),
    ):
        [proposal], _ = choose(recogniser, source, text)
        assert (proposal.name, proposal.entry.name) == ("stripe/api-key", "stripe")
        assert proposal.fields == {"value": Secret(STRIPE)}
        assert not proposal.odd
        assert {spot.field for spot in proposal.spots} == {"value"}


def test_a_token_in_place_of_a_user_name_is_the_value(recogniser):
    [proposal], _ = choose(recogniser, "git", f"https://{TOKEN}@github.com")
    assert (proposal.name, proposal.fields) == ("github/api-key", {"value": Secret(TOKEN)})


def test_what_only_looks_random_is_nobodys(recogniser):
    [proposal], _ = choose(recogniser, "dotenv", "SOME_KEY=0123456789abcdef0123456789abcdef")
    assert proposal.entry is None
    assert proposal.name == "shop/some-key"


def test_an_odd_value_of_a_known_variable_is_told(recogniser):
    [proposal], _ = choose(recogniser, "dotenv", "STRIPE_API_KEY=something-else-entirely")
    assert proposal.odd


def test_examples_and_placeholders_are_left_even_in_known_variables(recogniser):
    placeholder = Catalog.load().get("stripe").placeholder(b"stripe/api-key")
    for value in ("changeme", placeholder, f"x{placeholder}"[1:]):
        taken, left = choose(recogniser, "dotenv", f"STRIPE_API_KEY={value}")
        assert not taken
        assert len(left) == 1


def test_of_the_environment_only_what_is_known_or_named_is_taken(recogniser):
    text = f"STRIPE_API_KEY={STRIPE}\0SECRET_SAUCE=0123456789abcdef\0HOME=/root\0"
    taken, left = choose(recogniser, "environ", text)
    assert [proposal.found.variable for proposal in taken] == ["STRIPE_API_KEY"]
    assert len(left) == 2
    taken, _ = choose(recogniser, "environ", text, take=("SECRET_*",))
    assert {proposal.found.variable for proposal in taken} == {"STRIPE_API_KEY", "SECRET_SAUCE"}


def test_wishes_win_over_looks(recogniser):
    taken, _ = choose(recogniser, "dotenv", "PORT=3000\nA_KEY=0123456789abcdef", take=("PORT",), leave=("A_*",))
    assert [proposal.found.variable for proposal in taken] == ["PORT"]
    [proposal], _ = choose(recogniser, "dotenv", "A_KEY=0123456789abcdef", under="web")
    assert proposal.name == "web/a-key"
