"""The short form of the campaign, and that it would notice."""

import pytest

from campaigns import policy_model
from keyhole.core import policy, templates
from keyhole.core.policy import Acl, PathRule


def test_the_engine_and_the_model_agree():
    lines = []
    allowed, refused = policy_model.campaign(250, 11, report=lines.append)
    assert allowed + refused == 1_000
    assert lines


@pytest.mark.parametrize("spoil", ["slash", "wrap", "order", "deny", "listing", "limit"])
def test_a_spoiled_engine_is_noticed(monkeypatch, spoil):
    if spoil == "slash":
        monkeypatch.setattr(templates, "_MEANS_MORE", frozenset("*+"))
    elif spoil == "wrap":
        monkeypatch.setattr(policy, "_least", max)
    elif spoil == "limit":
        monkeypatch.setattr(PathRule, "wraps", lambda _rule, _ttl: True)
    elif spoil == "order":
        rank = policy._Wildcard.__init__

        def turned(wildcard, rule):
            rank(wildcard, rule)
            prefix, plus, *rest = wildcard.rank
            wildcard.rank = (plus, prefix, *rest)

        monkeypatch.setattr(policy._Wildcard, "__init__", turned)
    elif spoil == "deny":
        monkeypatch.setattr(PathRule, "merged", lambda rule, other: rule if "deny" in other.capabilities else other)
    else:
        found = Acl.rule_for
        monkeypatch.setattr(Acl, "rule_for", lambda acl, path, **_listing: found(acl, path))
    with pytest.raises(AssertionError):
        policy_model.campaign(2_500, 3, report=lambda _: None)
