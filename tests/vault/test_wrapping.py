"""Response wrapping: a token instead of an answer, which gives the answer once to whoever shows it."""

import asyncio

import pytest

from keyhole.core.errors import InvalidRequest, NotFound, PolicyDenied, Unauthenticated
from keyhole.core.request import Anonymous
from keyhole.testing import FrozenClock
from vault.lab import Lab
from vault.world import CANARY, child, journal, play, policy_token, refusal

NOTHING = "wrapping token is not valid or does not exist"


async def wrapped(vault, path="secret/data/stripe/api-key", operation="read", data=None, *, ttl=60, **more):
    """What is said of a wrapped answer."""
    reply = await vault.ask(operation, path, data, wrap_ttl=ttl, **more)
    assert (reply.data, reply.auth) == (None, None)
    return reply.wrap


async def with_secret(vault):
    await vault.ask("update", "secret/data/stripe/api-key", {"data": {"value": CANARY}})


def plain(reply):
    """A reply's data with the secrets in it."""
    import json

    return {name: json.loads(leaf.reveal()) for name, leaf in reply.data.items()}


async def unwrap(vault, token):
    return await vault.ask("update", "sys/wrapping/unwrap", token=token)


def test_a_wrapped_answer_is_given_once_to_who_shows_the_token():
    async def scenario(vault):
        await with_secret(vault)
        info = await wrapped(vault)
        assert (info.ttl, info.path, info.wrapped_accessor) == (60, "secret/data/stripe/api-key", "")
        assert plain(await unwrap(vault, info.token))["data"] == {"value": CANARY}
        for again in (
            unwrap(vault, info.token),
            vault.ask("update", "sys/wrapping/unwrap", {"token": info.token}),
            vault.ask("update", "sys/wrapping/lookup", {"token": info.token}),
            vault.ask("update", "sys/wrapping/rewrap", {"token": info.token}),
        ):
            error = await refusal(again)
            assert (error.status, error.reason) == (400, NOTHING)

    play(scenario)


def test_of_many_who_unwrap_at_once_one_gets_the_answer(tmp_path):
    async def scenario(vault):
        await with_secret(vault)
        for by_field in (False, True):
            info = await wrapped(vault)
            asked = [
                vault.ask("update", "sys/wrapping/unwrap", {"token": info.token})
                if by_field
                else unwrap(vault, info.token)
                for _ in range(50)
            ]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            given = [answer for answer in answers if not isinstance(answer, Exception)]
            assert len(given) == 1
            assert {str(answer.reason) for answer in answers if isinstance(answer, Exception)} == {NOTHING}

    play(scenario, location=f"sqlite:{tmp_path}/private/vault.db")


def test_a_wrapping_token_ends_with_its_time_and_its_answer_with_it():
    clock = FrozenClock()

    async def scenario(vault):
        await with_secret(vault)
        info = await wrapped(vault)
        clock.advance(60)
        assert (await refusal(unwrap(vault, info.token))).reason == NOTHING
        await vault.node.sweep()
        assert await vault.vault.storage(vault.vault.root_org, "cubbyhole").list(recursive=True) == []

    play(scenario, clock=clock)


def test_looking_up_says_when_and_for_what_and_spends_nothing():
    async def scenario(vault):
        await with_secret(vault)
        info = await wrapped(vault)
        ways = [
            ("update", {"token": info.token}, None),
            ("update", {"token": info.token}, Anonymous()),
            ("read", {}, info.token),
            ("update", {}, info.token),
        ]
        for operation, data, token in ways:
            found = (await vault.ask(operation, "sys/wrapping/lookup", data, token=token)).data
            assert set(found) == {"creation_path", "creation_time", "creation_ttl"}
            assert (found["creation_path"], found["creation_ttl"]) == (info.path, 60)
        assert (await unwrap(vault, info.token)).data

    play(scenario)


def test_what_is_no_wrapping_token_wraps_nothing():
    async def scenario(vault):
        other = await child(vault, policies=["default"], num_uses=1)
        for token in (vault.token, other, "hvs." + "a" * 44, "no token at all", "x" * 3000):
            for verb in ("unwrap", "rewrap", "lookup"):
                error = await refusal(vault.ask("update", f"sys/wrapping/{verb}", {"token": token}))
                assert (error.status, error.reason) == (400, NOTHING)
            assert (await refusal(unwrap(vault, token))).reason == NOTHING
        assert (await refusal(vault.ask("read", "sys/wrapping/lookup"))).reason == NOTHING
        assert (await refusal(unwrap(vault, Anonymous()))).reason == NOTHING
        await vault.ask("read", "auth/token/lookup-self", token=other)  # its one use was not spent

    play(scenario)


def test_a_wrapping_token_can_do_nothing_else():
    async def scenario(vault):
        await with_secret(vault)
        info = await wrapped(vault)
        error = await refusal(vault.ask("read", "secret/data/stripe/api-key", token=info.token))
        assert isinstance(error, PolicyDenied)
        assert (await refusal(unwrap(vault, info.token))).reason == NOTHING  # that try was its one use

    play(scenario)


def test_the_drawer_of_a_wrapping_token_can_be_read_in_the_old_way_once():
    async def scenario(vault):
        info = await wrapped(vault, "sys/wrapping/wrap", "update", {"zip": "zap"})
        said = plain(await vault.ask("read", "cubbyhole/response", token=info.token))
        assert '"zip": "zap"' in said["response"]
        assert await refusal(vault.ask("read", "cubbyhole/response", token=info.token))

    play(scenario)


def test_anything_can_be_wrapped_but_not_without_saying_for_how_long():
    async def scenario(vault):
        data = {"zip": "zap", "deep": {"list": [1, None, {"a": True}]}}
        info = await wrapped(vault, "sys/wrapping/wrap", "update", data)
        assert plain(await unwrap(vault, info.token)) == data
        error = await refusal(vault.ask("update", "sys/wrapping/wrap", data))
        assert (error.status, error.reason) == (400, "endpoint requires response wrapping to be used")
        assert isinstance(await refusal(vault.ask("update", "sys/wrapping/wrap", data, wrap_ttl=10**9)), InvalidRequest)

    play(scenario)


def test_rewrapping_keeps_path_and_time_and_ends_the_old_token():
    async def scenario(vault):
        await with_secret(vault)
        first = await wrapped(vault, ttl=300)
        second = (await vault.ask("update", "sys/wrapping/rewrap", {"token": first.token})).wrap
        third = (await vault.ask("update", "sys/wrapping/rewrap", token=second.token)).wrap
        assert (third.ttl, third.path) == (300, first.path)
        for gone in (first, second):
            assert (await refusal(unwrap(vault, gone.token))).reason == NOTHING
        assert plain(await unwrap(vault, third.token))["data"] == {"value": CANARY}

    play(scenario)


def test_of_a_rewrap_and_an_unwrap_at_once_one_wins():
    async def scenario(vault):
        for _ in range(10):
            info = await wrapped(vault, "sys/wrapping/wrap", "update", {"zip": "zap"})
            answers = await asyncio.gather(
                *[vault.ask("update", f"sys/wrapping/{verb}", token=info.token) for verb in ("unwrap", "rewrap") * 3],
                return_exceptions=True,
            )
            assert sum(not isinstance(answer, Exception) for answer in answers) == 1
        tokens = vault.vault.storage(vault.vault.root_org, "tokens")
        kept = [answer.wrap for answer in answers if not isinstance(answer, Exception) and answer.wrap]
        assert len(await tokens.list("t")) == 1 + len(kept)

    play(scenario)


def test_a_wrapped_token_and_a_wrapped_login_name_the_accessor():
    async def scenario(vault):
        info = await wrapped(vault, "auth/token/create", "update", {"policies": ["app"]})
        inner = (await unwrap(vault, info.token)).auth
        assert info.wrapped_accessor == inner["accessor"]
        assert (await vault.ask("read", "auth/token/lookup-self", token=inner["client_token"])).data["policies"] == [
            "app",
            "default",
        ]

    play(scenario)


def test_a_wrapped_lease_stays_with_who_asked_for_it():
    async def scenario(vault):
        lab = Lab().mount(vault)
        token = await child(vault, policies=["root"], ttl="1h")
        info = await wrapped(vault, "lab/creds/reader", token=token)
        reply = await unwrap(vault, info.token)
        assert reply.lease.id.startswith("lab/creds/reader/")
        assert (reply.lease.ttl, reply.lease.renewable) == (3600, True)
        assert len(lab.alive) == 1  # although the wrapping token is gone
        await vault.ask("update", "auth/token/revoke", {"token": token})
        assert not lab.alive

    play(scenario)


def test_refusals_and_empty_answers_are_not_wrapped():
    async def scenario(vault):
        assert isinstance(await refusal(vault.ask("read", "secret/data/none", wrap_ttl=60)), NotFound)
        reply = await vault.ask("update", "sys/policies/acl/x", {"policy": 'path "a" { }'}, wrap_ttl=60)
        assert (reply.wrap, reply.data) == (None, None)

    play(scenario)


def test_policies_can_demand_wrapping_within_bounds():
    async def scenario(vault):
        await with_secret(vault)
        token = await policy_token(
            vault,
            'path "secret/data/stripe/*" { capabilities = ["read"] min_wrapping_ttl = "1m" max_wrapping_ttl = "5m" }',
        )
        for ttl in (0, 59, 301):
            asked = vault.ask("read", "secret/data/stripe/api-key", token=token, wrap_ttl=ttl)
            assert isinstance(await refusal(asked), PolicyDenied), ttl
        for ttl in (60, 300):
            info = await wrapped(vault, token=token, ttl=ttl)
            assert plain(await unwrap(vault, info.token))["data"] == {"value": CANARY}

    play(scenario)


def test_a_wrapping_token_is_nothing_in_another_org():
    async def scenario(vault):
        await with_secret(vault)
        admin = (await vault.ask("update", "sys/namespaces/acme")).data["root_token"]
        info = await wrapped(vault)
        for asked in (
            vault.ask("update", "sys/wrapping/unwrap", {"token": info.token}, token=admin),
            vault.ask("update", "sys/wrapping/rewrap", {"token": info.token}, token=admin),
            vault.ask("update", "sys/wrapping/unwrap", token=info.token, org="acme"),
            vault.ask("update", "sys/wrapping/lookup", {"token": info.token}, token=admin, org="acme"),
        ):
            assert (await refusal(asked)).reason == NOTHING
        assert (await unwrap(vault, info.token)).data
        theirs = await wrapped(vault, "sys/wrapping/wrap", "update", {"a": "b"}, token=admin)
        assert (await refusal(vault.ask("update", "sys/wrapping/unwrap", {"token": theirs.token}))).reason == NOTHING
        assert plain(await vault.ask("update", "sys/wrapping/unwrap", token=theirs.token, org="acme")) == {"a": "b"}

    play(scenario)


def test_the_journal_says_that_an_answer_was_wrapped_and_opened_and_not_what_it_was():
    async def scenario(vault):
        info = await wrapped(vault, "sys/wrapping/wrap", "update", {"value": CANARY})
        await unwrap(vault, info.token)
        await refusal(unwrap(vault, info.token))
        records = [record for _, record in await journal(vault)]
        assert [r.path for r in records if r.wrapped == info.accessor] == ["sys/wrapping/wrap"]
        opened = [(r.phase, r.accessor, r.result) for r in records if r.path == "sys/wrapping/unwrap"]
        assert opened == [
            ("intent", info.accessor, ""),
            ("outcome", info.accessor, "ok"),
            ("refused", "", "invalid_request"),
        ]
        text = "".join(record.encode().decode() for record in records)
        assert CANARY not in text
        assert info.token not in text

    play(scenario)


def test_guesses_at_wrapping_tokens_are_bounded_like_other_guesses():
    async def scenario(vault):
        from keyhole.core.errors import RateLimited
        from keyhole.core.request import Operation, Request

        async def guess(number):
            request = Request(b"hvs.%044d" % number, Operation.UPDATE, "sys/wrapping/unwrap", remote="198.51.100.7")
            return await refusal(vault.node.handle(request))

        errors = [await guess(number) for number in range(150)]
        assert isinstance(errors[0], InvalidRequest)
        assert isinstance(errors[-1], RateLimited)

    play(scenario)


def test_nobody_can_change_what_a_wrapping_token_may():
    async def scenario(vault):
        for operation, data in (("update", {"policy": 'path "*" { capabilities = ["read"] }'}), ("delete", {})):
            error = await refusal(vault.ask(operation, "sys/policies/acl/response-wrapping", data))
            assert isinstance(error, InvalidRequest)
        keys = (await vault.ask("list", "sys/policies/acl")).data["keys"]
        assert "response-wrapping" not in keys

    play(scenario)


def test_what_was_made_for_an_answer_that_cannot_be_wrapped_is_taken_back(monkeypatch):
    async def scenario(vault):
        lab = Lab().mount(vault)

        async def broken(*_args):
            raise InvalidRequest("no room")

        monkeypatch.setattr("keyhole.vault.wrapping._store", broken)
        assert await refusal(vault.ask("read", "lab/creds/reader", wrap_ttl=60))
        assert not lab.alive
        before = (await vault.ask("list", "auth/token/accessors")).data["keys"]
        assert await refusal(vault.ask("update", "auth/token/create", {"policies": ["x"]}, wrap_ttl=60))
        assert (await vault.ask("list", "auth/token/accessors")).data["keys"] == before

    play(scenario)


def test_an_unknown_org_is_not_told_from_a_wrong_token():
    async def scenario(vault):
        error = await refusal(vault.ask("update", "sys/wrapping/unwrap", token="hvs." + "a" * 44 + "." + "b" * 16))
        assert error.reason == NOTHING
        assert not isinstance(error, Unauthenticated)

    play(scenario)


@pytest.mark.parametrize("token", [7, ["x"], {}, True])
def test_odd_tokens_wrap_nothing(token):
    async def scenario(vault):
        for verb in ("unwrap", "rewrap", "lookup"):
            error = await refusal(vault.ask("update", f"sys/wrapping/{verb}", {"token": token}))
            assert error.reason == NOTHING

    play(scenario)
