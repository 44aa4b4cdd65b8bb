"""The policy engine, and the same rules written a second time as plainly as possible."""

import random

import pytest

from keyhole.core.errors import InvalidRequest
from keyhole.core.policy import CAPABILITIES, Acl, PathRule

# --- The model: nothing compiled, every rule tried, the order of Vault's documentation sentence by sentence. ---


def model_merge(rules):
    merged = {}
    for rule in rules:
        path = rule["path"].removeprefix("/")
        seen = merged.setdefault(path, {"caps": set(), "allowed": {}, "denied": {}, "required": set()})
        if "deny" in seen["caps"] or "deny" in rule["capabilities"]:
            merged[path] = {"caps": {"deny"}, "allowed": {}, "denied": {}, "required": set()}
            continue
        seen["caps"] |= set(rule["capabilities"])
        seen["required"] |= {name.lower() for name in rule.get("required_parameters", [])}
        for kind in ("allowed", "denied"):
            for name, values in rule.get(f"{kind}_parameters", {}).items():
                known = seen[kind].get(name.lower())
                either_any = known == [] or values == []
                seen[kind][name.lower()] = [] if either_any else (known or []) + values
    return merged


def model_matches(pattern, path):
    prefix = pattern.endswith("*")
    wanted, given = pattern.removesuffix("*").split("/"), path.split("/")
    if len(given) < len(wanted) or (len(given) > len(wanted) and not prefix):
        return False
    for i, (want, have) in enumerate(zip(wanted, given, strict=False)):
        last = i == len(wanted) - 1
        if want not in {"+", have} and not (last and prefix and have.startswith(want)):
            return False
    return True


def model_beats(a, b):
    """Does the pattern ``a`` come before ``b``? The first difference decides."""
    first_a, first_b = (min(p.find(c) for c in "+*" if c in p) for p in (a, b))
    if first_a != first_b:
        return first_a > first_b
    if a.endswith("*") != b.endswith("*"):
        return b.endswith("*")
    if a.count("+") != b.count("+"):
        return a.count("+") < b.count("+")
    if len(a) != len(b):
        return len(a) > len(b)
    return a > b


def model_rule(merged, path, *, listing):
    exact = {p for p in merged if not p.endswith("*") and "+" not in p.split("/")}
    asked = [path, path.removesuffix("/")] if listing else [path]
    for spelling in asked:
        if spelling in exact:
            return spelling
    for spelling in asked:
        best = None
        for pattern in merged:
            if (
                pattern not in exact
                and model_matches(pattern, spelling)
                and (best is None or model_beats(pattern, best))
            ):
                best = pattern
        if best is not None:
            return best
    return None


def model_glob(pattern, text):
    if not pattern:
        return not text
    if pattern[0] == "*":
        return model_glob(pattern[1:], text) or bool(text and model_glob(pattern, text[1:]))
    return bool(text) and pattern[0] == text[0] and model_glob(pattern[1:], text[1:])


def model_same(pattern, value):
    return model_glob(*(str(v).lower() if isinstance(v, bool) else str(v) for v in (pattern, value)))


def model_parameters(rule, parameters):
    if not rule["required"] <= {name.lower() for name in parameters}:
        return False
    for name, value in parameters.items():
        if "*" in rule["denied"]:
            return False
        if name.lower() in rule["denied"]:
            values = rule["denied"][name.lower()]
            if not values or any(model_same(v, value) for v in values):
                return False
    for name, value in parameters.items() if rule["allowed"] else ():
        if name.lower() in rule["allowed"]:
            values = rule["allowed"][name.lower()]
            if values and not any(model_same(v, value) for v in values):
                return False
        elif "*" not in rule["allowed"]:
            return False
    return True


def model_decide(rules, operation, path, parameters, *, sudo):
    merged = model_merge(rules)
    decider = model_rule(merged, path, listing=operation == "list")
    if decider is None:
        return False, ""
    rule = merged[decider]
    allowed = "deny" not in rule["caps"] and operation in rule["caps"] and (not sudo or "sudo" in rule["caps"])
    if allowed and operation in {"create", "read", "update", "patch"}:
        allowed = model_parameters(rule, parameters)
    return allowed, decider


# --- Random policies over few words, so that rules meet. ---

SEGMENTS = ("a", "b", "ab", "a+b", "c")
VALUES = ("x", "y*", "*z", "x*z", "*", "", 1, True, "true")
NAMES = ("k", "K", "l", "force")


def random_rule_path(rng):
    segments = [rng.choice([*SEGMENTS[:3], "+"]) for _ in range(rng.randrange(1, 5))]
    path = "/".join(segments) + rng.choice(["", "", "/", "/*", "*"])
    path = path.replace("+*", "+/*")
    return rng.choice([path, path, path, "*", "/" + path])


def random_parameters(rng):
    names = rng.sample(("k", "l", "force", "*"), rng.randrange(4))
    return {
        rng.choice([name, name.upper()]): [rng.choice(VALUES) for _ in range(rng.choice((0, 1, 2)))] for name in names
    }


def random_policy(rng):
    rules = []
    for _ in range(rng.randrange(1, 9)):
        capabilities = rng.sample([c for c in CAPABILITIES if c != "deny"], rng.randrange(1, 7))
        rule = {
            "path": random_rule_path(rng),
            "capabilities": ["deny"] if rng.random() < 0.12 else capabilities,
        }
        for key in ("allowed_parameters", "denied_parameters"):
            if rng.random() < 0.2:
                rule[key] = random_parameters(rng)
        if rng.random() < 0.1:
            rule["required_parameters"] = [rng.choice(NAMES)]
        rules.append(rule)
    return rules


def random_request(rng, rules):
    operation = rng.choice([c for c in CAPABILITIES if c not in {"deny", "sudo"}] + ["list"])
    if rng.random() < 0.7:
        wild = rng.choice(rules)["path"].removeprefix("/")
        path = wild.replace("*", rng.choice(["", "a", "a/b"])).replace("+", rng.choice(SEGMENTS))
    else:
        path = "/".join(rng.choice(SEGMENTS) for _ in range(rng.randrange(1, 5)))
    if operation == "list":
        path = rng.choice([path, path.removesuffix("/") + "/"])
    parameters = {name: rng.choice(("x", "yy", "z", "xz", "", 1, True)) for name in rng.sample(NAMES, rng.randrange(3))}
    return operation, path, parameters if rng.random() < 0.6 else {}, rng.random() < 0.15


def test_random_policies_decide_as_the_plain_model_does():
    rng = random.Random(20260727)
    outcomes = {True: 0, False: 0}
    for _ in range(5_000):
        rules = random_policy(rng)
        acl = Acl(map(PathRule.from_data, rules))
        for _ in range(4):
            operation, path, parameters, sudo = random_request(rng, rules)
            expected, decider = model_decide(rules, operation, path, parameters, sudo=sudo)
            decision = acl.decide(operation, path, parameters=parameters, sudo=sudo)
            assert (decision.allowed, decision.rule) == (expected, decider), (rules, operation, path, parameters, sudo)
            assert decision.allowed or decision.reason
            outcomes[expected] += 1
    assert min(outcomes.values()) > 4_000  # else the random policies show little


def test_the_order_of_rules_and_of_policies_does_not_matter():
    rng = random.Random(3)
    for _ in range(300):
        rules = random_policy(rng)
        shuffled = rng.sample(rules, len(rules))
        one, other = (Acl(map(PathRule.from_data, r)) for r in (rules, shuffled))
        for _ in range(5):
            operation, path, parameters, sudo = random_request(rng, rules)
            a, b = (acl.decide(operation, path, parameters=parameters, sudo=sudo) for acl in (one, other))
            assert a == b


def test_what_is_listed_as_a_capability_is_what_is_decided():
    rng = random.Random(4)
    for _ in range(500):
        rules = [{"path": rule["path"], "capabilities": rule["capabilities"]} for rule in random_policy(rng)]
        acl = Acl(map(PathRule.from_data, rules))
        _, path, _, _ = random_request(rng, rules)
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
