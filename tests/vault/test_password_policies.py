"""Password policies: what is refused, and that every password that fits is as likely as any other."""

import asyncio
import base64
import json
from collections import Counter

import pytest

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.crypto import passwords
from keyhole.crypto.passwords import CharacterRule, PasswordRules
from keyhole.testing import open_vault
from keyhole.vault.sys.passwords import parse_rules

GOOD = 'length = 20\nrule "charset" { charset = "abcdef"  min-chars = 2 }\nrule "charset" { charset = "0123" }'


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        base64.b64encode(GOOD.encode()).decode(),
        json.dumps(
            {
                "length": 20,
                "rule": [{"charset": {"charset": "abcdef", "min-chars": 2}}, {"charset": {"charset": "0123"}}],
            }
        ),
    ],
)
def test_policy_is_read_in_each_of_its_spellings(text):
    assert parse_rules(text) == PasswordRules(20, (CharacterRule("abcdef", 2), CharacterRule("0123")))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("length = 20", "no rule"),
        ('rule "charset" { charset = "abc" }', "length"),
        ('length = 3 rule "charset" { charset = "abc" }', "length"),
        ('length = 101 rule "charset" { charset = "abc" }', "length"),
        ('length = 8 length = 9 rule "charset" { charset = "abc" }', "not expected"),
        ('length = 8 rule "charset" { charset = "" }', "can be seen"),
        ('length = 8 rule "charset" { charset = "a\\n" }', "can be seen"),
        ('length = 8 rule "charset" { charset = "abc" charset = "d" }', "not expected"),
        ('length = 8 rule "charset" { charset = "abc" min-chars = -1 }', "whole number"),
        ('length = 8 rule "charset" { charset = "abc" min-chars = true }', "whole number"),
        ('length = 8 rule "dictionary" { words = "abc" }', "not expected"),
        ('length = 4 rule "charset" { charset = "abc" min-chars = 5 }', "more characters than length"),
        (f'length = 8 rule "charset" {{ charset = "{"".join(map(chr, range(0x4E00, 0x4E00 + 257)))}" }}', "256"),
        ('length = 8 rule "charset" { charset = "a" min-chars = 8 } rule "charset" { charset = "bcdefgh" }', "hardly"),
        ('length = "8" rule "charset" { charset = "abc" }', "not expected"),
    ],
)
def test_policy_by_which_no_password_could_be_made_is_refused(text, wrong):
    with pytest.raises(InvalidRequest, match=wrong):
        parse_rules(text)


def test_each_password_has_what_the_rules_demand_and_nothing_else():
    rules = parse_rules(GOOD)
    for _ in range(200):
        made = rules.generate()
        assert len(made) == 20
        assert set(made) <= set("abcdef0123")
        assert sum(char in "abcdef" for char in made) >= 2


def test_every_fitting_password_is_equally_likely(monkeypatch):
    # All strings of two bytes in turn, so that what comes out is counted exactly and without chance.
    numbers = (bytes([first, second]) for first in range(256) for second in range(256))
    monkeypatch.setattr(passwords.os, "urandom", lambda _count: next(numbers))
    rules = PasswordRules(2, (CharacterRule("abc"), CharacterRule("cd", 1)))
    fitting = {a + b for a in "abcd" for b in "abcd" if {a, b} & {"c", "d"}}
    made = Counter(rules.generate() for _ in range(len(fitting) * 256 * 256 // 16))
    assert made == dict.fromkeys(fitting, 256 * 256 // 16)


def test_no_character_is_favoured_where_bytes_do_not_divide_evenly(monkeypatch):
    monkeypatch.setattr(passwords.os, "urandom", lambda _count: bytes(range(256)))
    made = Counter(PasswordRules(250, (CharacterRule("abcdefghij"),)).generate())
    assert made == dict.fromkeys("abcdefghij", 25)


def test_policies_are_of_one_org_and_a_new_one_is_used_at_once():
    async def main():
        async with open_vault() as vault:
            for text, length in ((GOOD, 20), (GOOD.replace("20", "9"), 9)):
                await vault.ask("update", "sys/policies/password/p", {"policy": text})
                reply = await vault.ask("read", "sys/policies/password/p/generate")
                assert len(json.loads(reply.data["password"].reveal())) == length
            made = await vault.ask("update", "sys/namespaces/other", {})
            with pytest.raises(NotFound):
                await vault.ask("read", "sys/policies/password/p", token=made.data["root_token"], org="other")
            await vault.ask("delete", "sys/policies/password/p")
            await vault.ask("delete", "sys/policies/password/p")
            with pytest.raises(NotFound):
                await vault.ask("read", "sys/policies/password/p/generate")

    asyncio.run(main())
