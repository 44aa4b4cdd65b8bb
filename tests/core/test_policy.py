"""The policy engine, beside the same rules written a second time as plainly as possible, and rule by rule."""

import random

import pytest

from core import policy_model
from core.policy_model import compiled, random_person, random_policy, random_request
from keyhole.core.errors import InvalidRequest
from keyhole.core.policy import CAPABILITIES, Acl, PathRule


def test_random_policies_decide_as_the_plain_model_does():
    allowed, refused = policy_model.play(1_250, 20260727)
    assert min(allowed, refused) > 500  # else the random policies show little


def test_the_order_of_rules_and_of_policies_does_not_matter():
    rng = random.Random(3)
    for _ in range(300):
        rules, person = random_policy(rng), random_person(rng)
        shuffled = rng.sample(rules, len(rules))
        one, other = (compiled(r, person) for r in (rules, shuffled))
        for _ in range(5):
            operation, path, parameters, sudo, wrap_ttl = random_request(rng, rules, person)
            a, b = (
                acl.decide(operation, path, parameters=parameters, sudo=sudo, wrap_ttl=wrap_ttl) for acl in (one, other)
            )
            assert a == b


def test_what_is_listed_as_a_capability_is_what_is_decided():
    rng = random.Random(4)
    for _ in range(500):
        person = random_person(rng)
        rules = [{"path": rule["path"], "capabilities": rule["capabilities"]} for rule in random_policy(rng)]
        acl = compiled(rules, person)
        _, path, *_ = random_request(rng, rules, person)
        path = path.removesuffix("/")
        listed = acl.capabilities(path)
        given = sorted(c for c in CAPABILITIES if c not in {"deny", "sudo"} and acl.decide(c, path))
        assert [c for c in listed if c not in {"deny", "sudo"}] == given
        assert ("sudo" in listed) == any(acl.decide(c, path, sudo=True) for c in given) or not given


# --- Single rules, as the documentation tells them. ---


def acl(*stanzas, **parameters):
    return Acl(PathRule.from_data({"path": path, "capabilities": caps, **parameters}) for path, caps in stanzas)


@pytest.mark.parametrize(
    ("winner", "loser", "path"),
    [
        ("secret/a", "secret/+", "secret/a"),
        ("secret/+/x", "secret/*", "secret/a/x"),
        ("secret/a*", "secret/*", "secret/ab"),
        ("secret/+/b", "secret/+/*", "secret/a/b"),
        ("secret/a/+", "secret/+/+", "secret/a/b"),
        ("secret/+/b/c", "secret/+/+/c", "secret/a/b/c"),
        ("secret/+/ab*", "secret/+/a*", "secret/x/abc"),
        ("secret/+/+/long", "secret/+/b/+", "secret/a/b/long"),
        ("+/b/c/+", "+/+/c/d", "a/b/c/d"),
    ],
)
def test_the_more_specific_rule_decides_alone(winner, loser, path):
    for first, second in ((winner, loser), (loser, winner)):
        refused = acl(
            (first, ["deny" if first == winner else "read"]), (second, ["deny" if second == winner else "read"])
        )
        assert not refused.decide("read", path)
    assert not acl((winner, ["list"]), (loser, ["read"])).decide("read", path), "nothing falls through to a wider rule"
    assert acl((winner, ["read"]), (loser, ["deny"])).decide("read", path).rule == winner


def test_without_a_rule_everything_is_refused_and_says_so():
    decision = acl().decide("read", "secret/x")
    assert not decision
    assert "secret/x" in decision.reason
    assert acl().capabilities("secret/x") == ["deny"]


def test_the_root_policy_allows_everything():
    root = Acl([], root=True)
    assert root.decide("delete", "sys/raw/x", sudo=True)
    assert root.capabilities("anything") == ["root"]


def test_deny_in_one_policy_cannot_be_undone_by_another():
    rules = [("secret/x", ["read"]), ("secret/x", ["deny"]), ("secret/x", ["read", "sudo"])]
    for order in (rules, rules[::-1]):
        assert not acl(*order).decide("read", "secret/x")
        assert acl(*order).capabilities("secret/x") == ["deny"]


def test_deny_beside_other_capabilities_in_one_stanza_still_denies():
    assert not acl(("secret/x", ["read", "deny"])).decide("read", "secret/x")


@pytest.mark.parametrize(("given", "asked"), [("read", "use"), ("use", "read")])
def test_use_and_read_do_not_imply_each_other(given, asked):
    rules = acl(("services/stripe", [given]))
    assert rules.decide(given, "services/stripe")
    assert not rules.decide(asked, "services/stripe")


def test_sudo_alone_gives_nothing_and_is_needed_besides():
    assert not acl(("sys/raw", ["sudo"])).decide("read", "sys/raw", sudo=True)
    assert not acl(("sys/raw", ["read"])).decide("read", "sys/raw", sudo=True)
    assert acl(("sys/raw", ["read", "sudo"])).decide("read", "sys/raw", sudo=True)


def test_a_listing_finds_its_rule_with_and_without_the_slash():
    for path in ("secret/metadata", "secret/metadata/"):
        assert acl((path, ["list"])).decide("list", "secret/metadata/")
    assert not acl(("secret/metadata/", ["read"])).decide("read", "secret/metadata")
    assert acl(("secret/+", ["list"])).decide("list", "secret/metadata/")


def test_a_deny_for_every_child_covers_the_folder_itself_too():
    rules = acl(("secret/*", ["list"]), ("secret/metadata/+", ["deny"]))
    assert not rules.decide("list", "secret/metadata/")


def test_a_plus_stands_for_one_segment_only():
    rules = acl(("secret/+/x", ["read"]))
    assert rules.decide("read", "secret/a/x")
    assert not rules.decide("read", "secret/a/b/x")
    assert not rules.decide("read", "secret/x")
    assert not acl(("secret/a.b", ["read"])).decide("read", "secret/aXb")


@pytest.mark.parametrize("path", ["a*b", "*a", "a/+b", "a+/b", "a/+*", "++"])
def test_a_pattern_with_a_wildcard_in_the_wrong_place_is_refused(path):
    with pytest.raises(InvalidRequest) as caught:
        PathRule.from_data({"path": path, "capabilities": ["read"]})
    assert f'path "{path}"' in caught.value.reason


def test_an_unknown_capability_is_refused_in_the_words_of_vault():
    with pytest.raises(InvalidRequest) as caught:
        PathRule.from_data({"path": "x", "capabilities": ["read", "zap"]})
    assert caught.value.reason == 'path "x": invalid capability "zap"'
    assert "use" in caught.value.hint


@pytest.mark.parametrize("bad", [["a"], {"a": "b"}, {"a": 1}, {"a": [], "A": ["x"]}])
def test_parameters_that_are_no_map_of_lists_are_refused(bad):
    with pytest.raises(InvalidRequest):
        PathRule.from_data({"path": "x", "capabilities": ["update"], "denied_parameters": bad})


@pytest.mark.parametrize(
    "parameters",
    [
        {"policies": "root"},
        {"POLICIES": "root"},
        {"policies": "root", "Policies": "harmless"},
        {"Policies": "harmless", "policies": "root"},
        {"policies": ["harmless", "root"]},
        {"policies": {"nested": ["root"]}},
    ],
)
def test_a_denied_value_does_not_get_through_in_another_spelling(parameters):
    rules = acl(("auth/token/create", ["update"]), denied_parameters={"policies": ["root"]})
    assert not rules.decide("update", "auth/token/create", parameters=parameters)
    assert rules.decide("update", "auth/token/create", parameters={"policies": "harmless"})


def test_an_allowed_value_is_not_widened_by_a_list_or_a_second_spelling():
    rules = acl(("x", ["update"]), allowed_parameters={"role": ["dev*"]})
    assert rules.decide("update", "x", parameters={"role": "dev-1"})
    for parameters in ({"role": ["dev-1", "admin"]}, {"role": "admin", "Role": "dev-1"}, {"other": "dev"}):
        assert not rules.decide("update", "x", parameters=parameters)


def test_parameters_do_not_restrict_deleting_and_listing():
    rules = acl(("x", ["delete", "list", "update"]), denied_parameters={"*": []}, required_parameters=["why"])
    assert rules.decide("delete", "x", parameters={"a": 1})
    assert rules.decide("list", "x")
    assert not rules.decide("update", "x")
    assert not rules.decide("update", "x", parameters={"why": "because"})


def test_any_value_in_one_policy_wins_over_a_list_of_values_in_another():
    narrow = {"path": "x", "capabilities": ["update"], "allowed_parameters": {"k": ["a"]}}
    wide = {"path": "x", "capabilities": ["update"], "allowed_parameters": {"k": []}}
    for order in ([narrow, wide], [wide, narrow]):
        assert Acl(map(PathRule.from_data, order)).decide("update", "x", parameters={"k": "b"})
    assert not Acl([PathRule.from_data(narrow)]).decide("update", "x", parameters={"k": "b"})


def test_a_pattern_of_many_stars_does_not_stall_on_a_long_value():
    rules = acl(("x", ["update"]), denied_parameters={"k": ["*a*a*a*a*a*a*a*b"]})
    assert rules.decide("update", "x", parameters={"k": "a" * 100_000})


def test_a_deeply_nested_value_is_judged_without_running_out_of_stack():
    value = []
    for _ in range(100_000):
        value = [value]
    rules = acl(("x", ["update"]), denied_parameters={"k": ["root"]}, allowed_parameters={"k": ["*"]})
    assert rules.decide("update", "x", parameters={"k": value})


@pytest.mark.parametrize(
    ("path", "prefix", "visible"),
    [
        ("secret/data/x", "secret/", True),
        ("secret/*", "secret/", True),
        ("+/data/x", "secret/", True),
        ("*", "secret/", True),
        ("other/x", "secret/", False),
        ("secret", "secret/", False),
    ],
)
def test_a_mount_is_visible_to_whoever_has_something_in_it(path, prefix, visible):
    assert acl((path, ["read"])).sees(prefix) is visible
    assert not acl((path, ["deny"])).sees(prefix)
    assert Acl([], root=True).sees(prefix)
