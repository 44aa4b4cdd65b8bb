"""Templates in policies: filled in for the entity that asks, and never more than text of one segment."""

import pytest

from keyhole.core.errors import InvalidRequest
from keyhole.core.identity import NOBODY, AliasView, GroupView, IdentityView
from keyhole.core.policy import Acl, PathRule

BOB = IdentityView(
    id="e-1",
    name="bob",
    metadata={"team": "web.shop", "a.b": "dotted", "evil": "x/../y", "star": "*", "plus": "+", "empty": ""},
    aliases={
        "auth_userpass_1": AliasView(id="al-1", name="bobby", metadata={"k": "v"}, custom_metadata={"c": "w"}),
    },
    groups=(GroupView(id="g-1", name="ops", metadata={"region": "eu"}), GroupView(id="g-2", name="dev")),
)


def rule(path, **fields):
    return PathRule.from_data({"path": path, "capabilities": ["read"]} | fields)


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("secret/{{identity.entity.id}}/*", "secret/e-1/*"),
        ("secret/{{ identity.entity.name }}", "secret/bob"),
        ("a/{{identity.entity.name}}/{{identity.entity.id}}", "a/bob/e-1"),
        ("a-{{identity.entity.name}}-b*", "a-bob-b*"),
        ("+/{{identity.entity.metadata.team}}", "+/web.shop"),
        ("x/{{identity.entity.metadata.a.b}}", "x/dotted"),
        ("x/{{identity.entity.aliases.auth_userpass_1.name}}", "x/bobby"),
        ("x/{{identity.entity.aliases.auth_userpass_1.id}}", "x/al-1"),
        ("x/{{identity.entity.aliases.auth_userpass_1.metadata.k}}", "x/v"),
        ("x/{{identity.entity.aliases.auth_userpass_1.custom_metadata.c}}", "x/w"),
        ("x/{{identity.groups.ids.g-1.name}}", "x/ops"),
        ("x/{{identity.groups.names.ops.id}}", "x/g-1"),
        ("x/{{identity.groups.names.ops.metadata.region}}", "x/eu"),
    ],
)
def test_a_template_is_filled_in_for_the_entity(template, filled):
    assert rule(template).filled(BOB).path == filled
    assert rule(template).filled(NOBODY) is None


@pytest.mark.parametrize(
    "selector",
    [
        "entity.metadata.missing",
        "entity.metadata.empty",
        "entity.metadata.evil",
        "entity.metadata.star",
        "entity.metadata.plus",
        "entity.aliases.auth_approle_9.name",
        "entity.aliases.auth_userpass_1.metadata.missing",
        "groups.names.nobody.id",
        "groups.ids.ops.name",
        "groups.names.dev.metadata.region",
    ],
)
def test_a_rule_that_cannot_be_filled_in_or_would_mean_more_is_dropped(selector):
    assert rule(f"secret/{{{{identity.{selector}}}}}").filled(BOB) is None


@pytest.mark.parametrize("name", ["a/b", "*", "a*", "+", "a+b", "a\nb", "a\0", "a\u202eb", "a\u200bb"])
def test_the_name_of_an_entity_cannot_widen_a_rule(name):
    view = IdentityView(id="e-2", name=name)
    assert rule("secret/{{identity.entity.name}}").filled(view) is None
    assert rule("secret/{{identity.entity.id}}").filled(view).path == "secret/e-2"


@pytest.mark.parametrize(
    "path",
    [
        "a/{{identity.entity.id",
        "a/identity.entity.id}}",
        "a/{{}}",
        "a/{{identity.entity}}",
        "a/{{identity.entity.nonsense}}",
        "a/{{identity.entity.id.more}}",
        "a/{{identity.groups.names.ops.members}}",
        "a/{{env.HOME}}",
        "a/{{{identity.entity.id}}}",
        "a/{{identity.entity.id}}+/b",
        "a/{{identity.entity.id}}*/b",
    ],
)
def test_a_template_that_could_never_be_filled_in_is_refused_when_it_is_written(path):
    with pytest.raises(InvalidRequest) as caught:
        rule(path)
    assert f'path "{path}"' in caught.value.reason


def test_a_filled_rule_merges_with_the_same_path_written_out():
    rules = [
        rule("secret/{{identity.entity.name}}"),
        PathRule.from_data({"path": "secret/bob", "capabilities": ["deny"]}),
    ]
    assert not Acl(each.filled(BOB) for each in rules).decide("read", "secret/bob")


def test_a_template_is_no_text_for_the_request_to_match():
    assert not Acl([rule("secret/{{identity.entity.name}}")]).includes(rule("secret/{{identity.entity.name}}"))


@pytest.mark.parametrize(
    ("limits", "fits", "refused"),
    [
        ({"min_wrapping_ttl": 60}, (60, 61, 10**6), (0, 1, 59)),
        ({"max_wrapping_ttl": 60}, (1, 60), (0, 61)),
        ({"min_wrapping_ttl": 10, "max_wrapping_ttl": 60}, (10, 60), (0, 9, 61)),
        ({}, (0, 1, 10**6), ()),
    ],
)
def test_a_rule_says_for_how_long_an_answer_has_to_be_wrapped(limits, fits, refused):
    acl = Acl([rule("x", **limits)])
    for _ in range(2):  # what is kept of one decision must not answer another
        assert all(acl.decide("read", "x", wrap_ttl=ttl) for ttl in fits)
        assert not any(acl.decide("read", "x", wrap_ttl=ttl) for ttl in refused)


def test_of_two_policies_the_smaller_limits_of_wrapping_count():
    one, other = rule("x", min_wrapping_ttl=60, max_wrapping_ttl=100), rule("x", min_wrapping_ttl=10)
    for acl in (Acl([one, other]), Acl([other, one])):
        assert [bool(acl.decide("read", "x", wrap_ttl=ttl)) for ttl in (0, 9, 10, 100, 101)] == [
            False, False, True, True, False,
        ]  # fmt: skip


def test_a_token_for_some_services_uses_no_others():
    rules = [PathRule.from_data({"path": "services/*", "capabilities": ["use", "read"]})]
    acl = Acl(rules, services=frozenset({"stripe"}))
    assert acl.decide("use", "services/stripe")
    assert not acl.decide("use", "services/github")
    assert acl.decide("read", "services/github")
    assert not Acl([], root=True, services=frozenset()).decide("use", "services/stripe")
