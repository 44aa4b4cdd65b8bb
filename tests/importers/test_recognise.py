"""What the catalog makes of things found, and which are taken."""

import base64
import json

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


def test_variables_that_are_fields_of_one_credential_become_one(recogniser):
    text = "AWS_SECRET_ACCESS_KEY='abc/def+ghi0000000000'\nX=1\nAWS_ACCESS_KEY_ID=AKIA0000000000000000\n"
    [proposal], _ = choose(recogniser, "dotenv", text)
    assert proposal.name == "aws/credentials"
    assert proposal.fields == {
        "access_key_id": Secret("AKIA0000000000000000"),
        "secret_access_key": Secret("abc/def+ghi0000000000"),
    }
    assert sorted(spot.field for spot in proposal.spots) == ["access_key_id", "secret_access_key"]
    assert proposal.found.where == "line 1, line 3"
    [proposal], _ = choose(recogniser, "dotenv", "AWS_SECRET_ACCESS_KEY=abc/def+ghi0000000000")
    assert (proposal.name, proposal.entry) == ("shop/aws-secret-access-key", None)


def test_credentials_of_two_places_in_one_file_are_not_mixed(recogniser):
    one = {"AWS_ACCESS_KEY_ID": "AKIA0000000000000001"}
    two = {"AWS_SECRET_ACCESS_KEY": "abc/def+ghi0000000000"}
    text = json.dumps({"projects": {p: {"mcpServers": {"s": {"env": e}}} for p, e in (("/a", one), ("/b", two))}})
    taken, _ = choose(recogniser, "mcp", text)
    assert all(proposal.entry is None for proposal in taken)


def test_what_differs_from_account_to_account_is_read_where_the_source_says_it(recogniser):
    key = "AWS_ACCESS_KEY_ID=AKIA0000000000000000\nAWS_SECRET_ACCESS_KEY=abc/def+ghi0000000000\n"
    [proposal], _ = choose(recogniser, "dotenv", f"{key}AWS_REGION=eu-north-1\n")
    assert "*.eu-north-1.amazonaws.com" in proposal.entry.services[0].hosts
    [proposal], _ = choose(recogniser, "dotenv", key)
    assert "*.us-east-1.amazonaws.com" in proposal.entry.bindings("a/b")["aws"]["hosts"]
    ghe = "GH_ENTERPRISE_TOKEN=" + TOKEN
    [proposal], _ = choose(recogniser, "dotenv", ghe)
    assert (proposal.entry.name, len(proposal.missing)) == ("github-enterprise", 1)
    [proposal], _ = choose(recogniser, "dotenv", f"{ghe}\nGH_HOST=git.acme.example\n")
    assert not proposal.missing
    assert proposal.entry.services[0].hosts == ("git.acme.example",)


def test_an_account_in_a_variable_of_its_own_is_no_secret_and_fills_the_entry_in(recogniser):
    text = f"TWILIO_ACCOUNT_SID=AC{'0123456789abcdef' * 2}\nTWILIO_AUTH_TOKEN={'0123456789abcdef' * 2}\n"
    [proposal], [left] = choose(recogniser, "dotenv", text)
    assert (proposal.entry.name, proposal.missing) == ("twilio", ())
    assert (left.name, left.why) == ("TWILIO_ACCOUNT_SID", "is a setting for Twilio, and no secret")


def test_an_account_is_read_from_a_user_name(recogniser):
    auth = base64.b64encode(b"acme:dckr_pat_" + b"A1" * 14).decode()
    [proposal], _ = choose(recogniser, "docker", json.dumps({"auths": {"https://index.docker.io/v1/": {"auth": auth}}}))
    assert proposal.entry.name == "docker-hub"
    assert proposal.entry.services[0].inject == {"kind": "basic", "user": "acme"}
    assert proposal.fields == {"value": Secret("dckr_pat_" + "A1" * 14)}


def test_a_token_that_is_made_with_a_key_is_not_taken_for_the_key(recogniser):
    taken, _ = choose(recogniser, "dotenv", "CLOUDSDK_AUTH_ACCESS_TOKEN=ya29.a0123456789")
    assert [proposal.entry for proposal in taken] == [None]


def test_no_placeholder_of_any_entry_is_taken_for_a_key(recogniser):
    for name in Catalog.load().names():
        entry = Catalog.load().get(name)
        for field in entry.keys:
            taken, _ = choose(recogniser, "dotenv", f"SOME_TOKEN={entry.placeholder(b'x', field)}")
            assert not taken, name
