"""The rules of policies written a second time, as plainly as possible, and random policies and requests to compare.

Nothing is compiled: every rule is tried, in the order of the documentation, sentence by sentence. It is written from
the documentation and not from the code that it judges.
"""

import random
import re

from keyhole.core.identity import AliasView, GroupView, IdentityView
from keyhole.core.policy import CAPABILITIES, Acl, PathRule
from keyhole.vault.hcl import parse_policy, render_policy


def nothing(*capabilities):
    return {"caps": set(capabilities), "allowed": {}, "denied": {}, "required": set(), "min": 0, "max": 0}


def model_value(selector, person):
    """What stands for ``identity.…`` in a path; None where there is nothing."""
    words = selector.split(".")
    if words[1] == "entity" and words[2] == "metadata":
        return person.metadata.get(words[3])
    if words[1] == "entity" and words[2] == "aliases":
        alias = person.aliases.get(words[3])
        return None if alias is None else alias.name if words[4] == "name" else alias.metadata.get(words[5])
    if words[1] == "entity":
        return {"id": person.id, "name": person.name}[words[2]]
    for group in person.groups:
        if words[3] == (group.id if words[2] == "ids" else group.name):
            return {"id": group.id, "name": group.name}[words[4]]
    return None


def model_fill(path, person):
    """The path for a person; None when a template has no value, or one that is more than a plain text."""
    while found := re.search(r"\{\{ ?(identity[^} ]*) ?\}\}", path):
        value = model_value(found[1], person) if person.id else None
        if not value or "/" in value or "*" in value or "+" in value or not value.isprintable():
            return None
        path = path[: found.start()] + value + path[found.end() :]
    return path


def model_merge(rules, person):
    merged = {}
    for rule in rules:
        path = model_fill(rule["path"].removeprefix("/"), person)
        if path is None:
            continue
        seen = merged.setdefault(path, nothing())
        if "deny" in seen["caps"] or "deny" in rule["capabilities"]:
            merged[path] = nothing("deny")
            continue
        for limit in ("min", "max"):
            given = [each for each in (seen[limit], rule.get(f"{limit}_wrapping_ttl", 0)) if each]
            seen[limit] = min(given) if given else 0
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


def model_wrapped(rule, ttl):
    """Whether the answer is wrapped for as long as the rule wants; one that wants nothing takes any."""
    if rule["min"] == rule["max"] == 0:
        return True
    return ttl != 0 and ttl >= rule["min"] and (rule["max"] == 0 or ttl <= rule["max"])


def model_decide(rules, person, request):
    operation, path, parameters, sudo, wrap_ttl = request
    merged = model_merge(rules, person)
    decider = model_rule(merged, path, listing=operation == "list")
    if decider is None:
        return False, ""
    rule = merged[decider]
    allowed = "deny" not in rule["caps"] and operation in rule["caps"] and (not sudo or "sudo" in rule["caps"])
    if allowed and operation in {"create", "read", "update", "patch"}:
        allowed = model_parameters(rule, parameters)
    if allowed and operation != "use":
        allowed = model_wrapped(rule, wrap_ttl)
    return allowed, decider


def model_capabilities(rules, person, path):
    merged = model_merge(rules, person)
    decider = model_rule(merged, path, listing=True)
    found = merged[decider]["caps"] if decider is not None else set()
    return ["deny"] if not found or "deny" in found else sorted(found)


# --- Random policies over few words, so that rules meet. ---

SEGMENTS = ("a", "b", "ab", "a+b", "c")
VALUES = ("x", "y*", "*z", "x*z", "*", "", 1, True, "true")
NAMES = ("k", "K", "l", "force")
TEMPLATES = (
    "entity.id",
    "entity.name",
    "entity.metadata.team",
    "entity.metadata.none",
    "entity.aliases.acc_1.name",
    "entity.aliases.acc_1.metadata.k",
    "entity.aliases.acc_2.name",
    "groups.ids.g1.name",
    "groups.names.b.id",
    "groups.names.none.id",
)
TEXTS = (*SEGMENTS, "a", "b", "a/b", "*", "+", "", "b*", "\n", "\u202e")


def random_person(rng):
    if rng.random() < 0.2:
        return IdentityView()
    text = [rng.choice(TEXTS) for _ in range(5)]
    return IdentityView(
        id=rng.choice("ab"),
        name=text[0],
        metadata={"team": text[1]},
        aliases={"acc_1": AliasView(id="x", name=text[2], metadata={"k": text[3]})},
        groups=(GroupView(id="g1", name=text[4]), GroupView(id="a", name="b")),
    )


def random_rule_path(rng):
    segments = [rng.choice([*SEGMENTS[:3], "+"]) for _ in range(rng.randrange(1, 5))]
    if rng.random() < 0.2:
        template = rng.choice(TEMPLATES)
        segments[rng.randrange(len(segments))] = rng.choice(["{{identity.%s}}", "{{ identity.%s }}"]) % template
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
        if rng.random() < 0.15:
            rule["min_wrapping_ttl"] = rng.choice((10, 20))
        if rng.random() < 0.15:
            rule["max_wrapping_ttl"] = rng.choice((20, 30))
        rules.append(rule)
    return rules


def random_request(rng, rules, person):
    operation = rng.choice([c for c in CAPABILITIES if c not in {"deny", "sudo"}] + ["list"])
    if rng.random() < 0.7:
        written = rng.choice(rules)["path"].removeprefix("/")
        # Filled in without any guard: where the guard is to drop a rule, this is the path that it would open.
        wild = re.sub(r"\{\{ ?(.*?) ?\}\}", lambda found: model_value(found[1], person) or "a", written)
        path = wild.replace("*", rng.choice(["", "a", "a/b"])).replace("+", rng.choice(SEGMENTS))
    else:
        path = "/".join(rng.choice(SEGMENTS) for _ in range(rng.randrange(1, 5)))
    if operation == "list":
        path = rng.choice([path, path.removesuffix("/") + "/"])
    parameters = {name: rng.choice(("x", "yy", "z", "xz", "", 1, True)) for name in rng.sample(NAMES, rng.randrange(3))}
    wrap_ttl = rng.choice((0, 0, 0, 5, 10, 15, 20, 30, 40))
    return operation, path, parameters if rng.random() < 0.6 else {}, rng.random() < 0.15, wrap_ttl


def compiled(rules, person):
    """The engine's list for a person, from the rules as text and back, dealt out to several policies."""
    texts = [render_policy(rules[start::3]) for start in range(3) if rules[start::3]]
    read = [PathRule.from_data(rule) for text in texts for rule in parse_policy(text)]
    return Acl(rule for rule in (each.filled(person) for each in read) if rule is not None)


def play(policies, seed):
    """Decide requests under random policies twice.

    Returns:
        How many were allowed and how many were not.

    Raises:
        AssertionError: with all that is needed to do it again, where the engine and the model differ.
    """
    rng = random.Random(seed)
    outcomes = {True: 0, False: 0}
    for _ in range(policies):
        rules, person = random_policy(rng), random_person(rng)
        acl = compiled(rules, person)
        for _ in range(4):
            request = operation, path, parameters, sudo, wrap_ttl = random_request(rng, rules, person)
            expected = model_decide(rules, person, request)
            for _ in range(2):  # the second time it may be what was kept of the first
                decision = acl.decide(operation, path, parameters=parameters, sudo=sudo, wrap_ttl=wrap_ttl)
                assert (decision.allowed, decision.rule) == expected, (rules, person, request)
            assert decision.allowed or decision.reason
            assert acl.capabilities(path) == model_capabilities(rules, person, path), (rules, person, path)
            outcomes[expected[0]] += 1
    return outcomes[True], outcomes[False]
