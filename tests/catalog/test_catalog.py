"""The catalog: every entry keeps the contract, and a user's own mistakes are named."""

import importlib.util
import re
from collections import Counter
from pathlib import Path

import pytest

from catalog.examples import EXAMPLES
from keyhole.catalog import Catalog, CatalogEntry
from keyhole.catalog.shape import repeats_repetition
from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.path import DEFAULT_FIELD
from keyhole.core.probe import Verdict
from keyhole.core.service import Service
from keyhole.faces.run.environment import check_names
from keyhole.faces.run.plan import RunPlan

CATALOG = Catalog.load()
DATA = Path(__file__).parents[2] / "src" / "keyhole" / "catalog" / "data"


def test_the_catalog_knows_these():
    assert CATALOG.names() == tuple(sorted(EXAMPLES))


def services(entry: CatalogEntry) -> list[Service]:
    return [Service.from_data(name, data) for name, data in entry.sample().bindings("a/key").items()]


@pytest.fixture(params=sorted(EXAMPLES))
def entry(request) -> CatalogEntry:
    return CATALOG.get(request.param)


def test_every_service_is_one_that_the_vault_accepts(entry):
    filled = entry.sample()
    names = [service.name for service in filled.services]
    assert names[0] == entry.name
    assert len(set(names)) == len(names)
    for name, data in filled.bindings(entry.secret).items():
        made = Service.from_data(name, data)
        assert made.schemes == ("https",)
        assert made.variables == entry.variables
        assert set(made.environment()) == set(entry.variables)
        assert Service.from_data(name, made.as_data()).as_data() == made.as_data()


def keys(entry: CatalogEntry) -> dict[str, str]:
    """A real key by its field."""
    example = EXAMPLES[entry.name]
    return {DEFAULT_FIELD: example} if isinstance(example, str) else example


def test_a_real_key_is_recognised_and_other_texts_are_not(entry):
    assert keys(entry).keys() == entry.keys.keys()
    for field, key in keys(entry).items():
        assert entry.looks_like_a_key(key, field)
        for wrong in ("", "password", "https://example.com/", key + "\0", "! " + key, key * 4_000):
            assert not entry.looks_like_a_key(wrong, field)


def test_a_placeholder_has_the_shape_of_a_key_and_cannot_be_taken_for_one(entry):
    for field, shape in entry.keys.items():
        placeholder = entry.placeholder(b"work/key", field)
        assert shape.token or shape.pattern.fullmatch(placeholder)
        assert len(placeholder) == shape.length
        assert "keyhole" in placeholder.lower()
        assert not entry.looks_like_a_key(placeholder, field)
        assert placeholder == entry.placeholder(b"work/key", field)
        assert placeholder != entry.placeholder(b"home/key", field)


def test_the_test_call_goes_to_a_path_of_the_first_service(entry):
    service = services(entry)[0]
    path = service.test.path.partition("?")[0]
    assert service.path_rank(path) is not None
    assert not service.denies(path)
    assert not service.methods or service.test.method in service.methods
    assert not service.hosts[0].wildcard
    assert re.fullmatch(r"https://[a-z0-9.-]+/[^{}]*", entry.sample().key_page)


def test_git_over_https_is_covered_and_nothing_else_of_the_site():
    for name, repository in (("github", "/octo/repo.git"), ("gitlab", "/group/sub/group/repo.git")):
        git = services(CATALOG.get(name))[1]
        for path in ("/info/refs", "/git-upload-pack", "/git-receive-pack", "/info/lfs/objects/batch"):
            assert git.path_rank(repository + path) is not None
        assert git.path_rank("/settings/tokens") is None
        assert git.inject.kind == "basic"
        assert git.inject["user"]


def test_a_placeholder_that_the_test_sends_is_the_one_that_is_replaced():
    for name, place in (("telegram", "path"), ("supabase", "header")):
        service = services(CATALOG.get(name))[0]
        sent = service.test.path if place == "path" else "".join(service.test.headers.values())
        assert service.inject.text
        assert service.inject.text in sent


def test_the_calls_that_answer_ok_to_everybody_are_read():
    call = CATALOG.get("slack").test
    assert call.verdict(200, '{\n "ok": true, "team": "x"}') == Verdict.ACCEPTED
    assert call.verdict(200, '{"ok":false,"error":"invalid_auth"}') == Verdict.REFUSED


def test_a_variable_leads_to_its_entry():
    assert CATALOG.for_variable("GH_TOKEN") is CATALOG.get("github")
    assert CATALOG.for_variable("GITLAB_TOKEN") is CATALOG.get("gitlab")
    assert CATALOG.for_variable("HOME") is None


def test_no_two_entries_claim_a_variable_unless_one_says_that_it_shares_it():
    claimed = Counter(v for e in CATALOG.entries()[0] for v in e.variables if v not in e.shared)
    assert [variable for variable, times in claimed.items() if times > 1] == []
    assert all(variable in claimed for e in CATALOG.entries()[0] for variable in e.shared)


def test_no_variable_steers_the_command_and_none_is_set_twice():
    for one in CATALOG.entries()[0]:
        names = [*one.variables, *one.settings, *one.files]
        assert len(set(names)) == len(names)
        check_names(RunPlan(("true",), "", b"", dict.fromkeys(names, "x"), {}, ()))


def test_every_placeholder_is_another():
    made = [e.placeholder(b"a/key", field) for e in CATALOG.entries()[0] for field in e.keys]
    assert len(set(made)) == len(made)


def test_a_long_text_is_compared_with_a_pattern_in_no_time(entry):
    for field, shape in entry.keys.items():
        assert not repeats_repetition(shape.pattern.pattern)
        begin = entry.placeholder(b"", field)
        for text in ("a" * 16_000, "-" * 16_000, "A1." * 5_000, begin * 60 + "!", begin[:8] + "a_" * 7_000 + " "):
            entry.looks_like_a_key(text, field)


@pytest.mark.parametrize(
    ("pattern", "slow"),
    [
        ("(a+)+", True),
        ("(?:[a-z]*x)*y", True),
        ("((ab)+c){2,}", True),
        ("(a{2,}b)+", True),
        ("(x|(y+))*", True),
        ("(a|b)+", False),
        ("(a+)?", False),
        ("(sk_)?[a-z+*]{20,}", False),
        (r"a\(b+\)+", False),
    ],
)
def test_a_pattern_that_could_take_for_ever_is_noticed(pattern, slow):
    assert repeats_repetition(pattern) == slow


def test_an_unknown_name_gets_a_hint():
    with pytest.raises(NotFound) as caught:
        CATALOG.get("strip")
    assert "stripe" in caught.value.hint
    with pytest.raises(NotFound) as caught:
        CATALOG.get("jira")
    assert "perhaps atlassian" in caught.value.hint
    with pytest.raises(NotFound) as caught:
        CATALOG.get("qqqqqqqqqq")
    assert "keyhole catalog list" in caught.value.hint


def test_a_users_own_file_is_added_and_wins(tmp_path):
    text = (DATA / "stripe.toml").read_text()
    (tmp_path / "acme.toml").write_text(text.replace("Stripe", "Acme").replace('name = "stripe"', 'name = "acme"'))
    (tmp_path / "stripe.toml").write_text(text.replace("Stripe", "My Stripe"))
    (tmp_path / "notes.txt").write_text("no entry")
    catalog = Catalog.load(tmp_path, tmp_path / "not-there")
    assert catalog.get("acme").title == "Acme"
    assert catalog.get("stripe").title == "My Stripe"
    assert len(catalog.names()) == len(EXAMPLES) + 1


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('title = "Stripe"', "", "title"),
        ('title = "Stripe"', 'titel = "Stripe"', "titel"),
        ('["STRIPE_API_KEY", "STRIPE_SECRET_KEY"]', '"STRIPE_API_KEY"', "variables"),
        ('["STRIPE_API_KEY", "STRIPE_SECRET_KEY"]', '["STRIPE API KEY"]', "service 1"),
        ('["STRIPE_API_KEY", "STRIPE_SECRET_KEY"]', '{ STRIPE_API_KEY = "key" }', "variables: STRIPE_API_KEY"),
        ('title = "Stripe"', 'title = "Stripe"\nshared = ["STRIPE"]', "shared"),
        ('title = "Stripe"', 'title = "Stripe"\nsettings = { STRIPE_URL = "{host}" }', "settings"),
        ("(sk|rk)_", "([a-z]+_)*", "key: pattern"),
        ('kind = "bearer"', 'kind = "headers", headers = { x-a = "one", x-b = "two" }', "service 1"),
        ('kind = "bearer"', 'kind = "sigv4"', "none of value"),
        ('"api.stripe.com"', '"{site}.stripe.com"', "service 1"),
        ('path = "/v1/balance"', 'path = "v1"', "test: path"),
        ('path = "/v1/balance"', 'path = "/v1"\nbodies = "x"', "bodies"),
        ('path = "/v1/balance"', 'path = "/v1"\nstatuses = []', "test: statuses"),
        ('path = "/apikeys"', 'path = "apikeys"', "key_page: path"),
        ('host = "dashboard.stripe.com", ', "", "key_page: host"),
        ("(sk|rk)_", "(sk|rk_", "key: pattern"),
        ('placeholder = "sk_test_keyhole"', 'placeholder = "sk_test_4eC39"', "key: placeholder"),
        ('placeholder = "sk_test_keyhole"', 'placeholder = "keyhole"', "key: placeholder"),
        ("length = 107", "length = 12", "key: length"),
        ('hosts = ["api.stripe.com", "files.stripe.com"]', "", "service 1: hosts"),
        ('hosts = ["api.stripe.com", "files.stripe.com"]', 'hosts = ["a*b.com"]', "service 1"),
        ('hosts = ["api.stripe.com", "files.stripe.com"]', 'host_labels = ["a", "b"]', "service 1: host_labels"),
        ('kind = "bearer"', 'kind = "bear"', "bear"),
        ('name = "stripe"', 'name = "Stripe!"', "service 1: name"),
        ("[[service]]", "[[services]]", "service"),
        ('method = "GET"', "method = 1", "test: method"),
        ("[test]", "[test", "TOML"),
    ],
)
def test_a_mistake_in_a_file_is_named(tmp_path, old, new, named):
    text = (DATA / "stripe.toml").read_text()
    assert old in text
    (tmp_path / "stripe.toml").write_text(text.replace(old, new))
    with pytest.raises(InvalidRequest) as caught:
        Catalog.load(tmp_path).get("stripe")
    assert "stripe" in caught.value.reason
    assert named in caught.value.reason


def test_no_host_of_a_package_registry_stands_in_a_file():
    for source in (*DATA.iterdir(), Path(__file__)):
        text = source.read_text()
        for name in ("npm", "pypi", "huggingface", "docker-hub"):
            assert not [host for service in CATALOG.get(name).services for host in service.hosts if host in text]


def test_the_table_of_the_page_is_the_catalog_of_today():
    path = Path(__file__).parents[2] / "scripts" / "catalog_table.py"
    spec = importlib.util.spec_from_file_location("catalog_table", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = script.PAGE.read_text()
    assert script.updated(page) == page, "python scripts/catalog_table.py"
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert f"`keyhole add` knows {len(EXAMPLES)} APIs" in readme
