"""Policies: the reader of HCL takes nothing that it would not write, and what is decided is as in the plain model."""

import random

from core import policy_model
from fuzzing.engine import Target, refused
from keyhole.core.errors import KeyholeError
from keyhole.core.policy import Acl, PathRule
from keyhole.vault.hcl import parse_policy, render_policy


class Policy(Target):
    """Texts of policies; what can be read decides requests."""

    words = (
        b"path", b'"a/b"', b"{", b"}", b"[", b"]", b"=", b",", b"\n", b"#", b"//", b"/*", b"*/", b'"', b"\\",
        b"<<EOF\n", b"EOF\n", b"capabilities", b'["read"]', b'"deny"', b'"sudo"', b"allowed_parameters",
        b"denied_parameters", b"required_parameters", b"min_wrapping_ttl", b'"10s"', b"1h", b"true", b"1e9", b"null",
        b"{{identity.entity.name}}", b"+", b"*", b"policy", b"${", b"%{",
    )  # fmt: skip

    def corpus(self):
        rng = random.Random(5)
        texts = [render_policy(policy_model.random_policy(rng)) for _ in range(20)]
        texts += [
            'path "a/*" {\n  policy = "read" # old\n}',
            '{"path": {"a/+/b": {"capabilities": ["read", "list"]}}}',
            'path "x" {\ncapabilities = ["update"]\nallowed_parameters = { "k" = ["x", "y*"] }\nmin_wrapping_ttl = 9 }',
        ]
        return [text.encode() for text in texts]

    def check(self, data, rng):
        text = data.decode("utf-8", "surrogateescape" if rng.random() < 0.1 else "replace")
        try:
            stanzas = parse_policy(text)
        except KeyholeError as error:
            return refused(error).partition(" on line")[0][:60]
        again = parse_policy(render_policy(stanzas))
        assert again == stanzas, f"what was written of it says something else: {again} instead of {stanzas}"
        person = policy_model.random_person(rng)
        try:
            rules = [PathRule.from_data(stanza) for stanza in stanzas]
        except KeyholeError as error:
            return refused(error)[:60]
        acl = Acl(rule for rule in (each.filled(person) for each in rules) if rule is not None)
        if any("{{" in each["path"] for each in stanzas) or not _plain(stanzas):
            return "read"
        for _ in range(3):
            request = operation, path, parameters, sudo, wrap_ttl = policy_model.random_request(rng, stanzas, person)
            expected = policy_model.model_decide(stanzas, person, request)
            found = acl.decide(operation, path, parameters=parameters, sudo=sudo, wrap_ttl=wrap_ttl)
            assert (found.allowed, found.rule) == expected, f"the model says {expected}: {stanzas} {person} {request}"
        return f"decided {len(stanzas)}"


def _plain(stanzas):
    """Whether the model knows all of it."""
    return all(
        isinstance(each.get(name, 0), int) for each in stanzas for name in ("min_wrapping_ttl", "max_wrapping_ttl")
    )
