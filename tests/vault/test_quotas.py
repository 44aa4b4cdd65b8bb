"""Quotas: which one counts, what they refuse, and that nothing of it is silent."""

import asyncio

import pytest

from keyhole.core.errors import InvalidRequest, LeaseLimit, NotFound, RateLimited
from keyhole.core.request import Operation, Reply, Request
from keyhole.testing import FrozenClock, open_vault
from keyhole.vault.quotas import Quota, best
from vault.lab import Lab
from vault.world import SERVICE, Place, journal, play, refusal

QUOTAS = tuple(
    Quota(name, path, role)
    for name, path, role in (
        ("all", "", ""),
        ("mount", "kv1/", ""),
        ("glob", "kv1/a*", ""),
        ("longer", "kv1/ab*", ""),
        ("exact", "kv1/abc", ""),
        ("login", "auth/jwt/", ""),
        ("role", "auth/jwt/", "dev"),
    )
)


@pytest.mark.parametrize(
    ("path", "role", "name"),
    [
        ("secret/x", "", "all"),
        ("kv1/x", "", "mount"),
        ("kv1/ax", "", "glob"),
        ("kv1/abx", "", "longer"),
        ("kv1/abc", "", "exact"),
        ("auth/jwt/login", "", "login"),
        ("auth/jwt/login", "dev", "role"),
        ("auth/jwt/login", "other", "login"),
    ],
)
def test_most_specific_quota_counts(path, role, name):
    assert best(QUOTAS, path, role).name == name
    assert best(QUOTAS[::-1], path, role).name == name


async def read(vault, path="secret/data/x", *, remote="192.0.2.1", token=None, org=""):
    request = Request((token or vault.token).encode(), Operation.READ, path, org=org, remote=remote)
    try:
        await vault.node.handle(request)
    except RateLimited as error:
        return error
    except NotFound:
        return None
    return None


async def refusals(vault, count, **options):
    return [bool(await read(vault, **options)) for _ in range(count)]


def test_address_that_asks_too_often_is_refused_until_its_interval_ends():
    clock = FrozenClock()

    async def scenario(vault):
        await vault.ask("update", "sys/quotas/rate-limit/q", {"rate": 3, "interval": "10s", "path": "secret"})
        assert await refusals(vault, 5) == [False] * 3 + [True] * 2
        refusal = await read(vault)
        assert refusal.reason == 'request path "secret/data/x": rate limit quota exceeded'
        assert refusal.retry_after == 10
        assert await refusals(vault, 1, remote="198.51.100.7") == [False]
        assert await refusals(vault, 1, path="cubbyhole/x") == [False]
        clock.advance(10.5)
        assert await refusals(vault, 4) == [False] * 3 + [True]

    play(scenario, clock=clock)


def test_address_can_be_refused_for_longer_than_the_interval():
    clock = FrozenClock()

    async def scenario(vault):
        quota = {"rate": 1, "interval": "1s", "block_interval": "60s", "path": "secret"}
        await vault.ask("update", "sys/quotas/rate-limit/q", quota)
        assert await refusals(vault, 2) == [False, True]
        clock.advance(30)
        assert await refusals(vault, 1) == [True]
        clock.advance(31)
        assert await refusals(vault, 1) == [False]

    play(scenario, clock=clock)


def test_quota_of_one_org_is_not_another_ones():
    async def scenario(vault):
        token = (await vault.ask("update", "sys/namespaces/acme", {})).data["root_token"]
        await vault.ask("update", "sys/quotas/rate-limit/q", {"rate": 1, "path": "secret"}, token=token)
        assert await refusals(vault, 3, token=token) == [False, True, True]
        assert await refusals(vault, 3) == [False] * 3
        with pytest.raises(NotFound):
            await vault.ask("read", "sys/quotas/rate-limit/q")

    play(scenario, clock=FrozenClock())


def test_refused_requests_are_counted_in_the_journal_and_one_by_one_if_wished():
    async def scenario(vault):
        await vault.ask("update", "sys/quotas/rate-limit/q", {"rate": 1, "path": "secret"})
        await refusals(vault, 6)
        vault.vault.quotas.flush()
        found = [r for _, r in await journal(vault) if r.result == "rate_limited"]
        assert [(r.rule, r.count) for r in found] == [("sys/quotas/rate-limit/q", 5)]
        await vault.ask("update", "sys/quotas/config", {"enable_rate_limit_audit_logging": True})
        await refusals(vault, 1)
        last = [r for _, r in await journal(vault) if r.result == "rate_limited"][-1]
        assert (last.path, last.remote, last.count) == ("secret/data/x", "192.0.2.1", 1)

    play(scenario, clock=FrozenClock())


def test_use_of_a_service_counts_as_well():
    async def scenario(vault):
        await vault.ask("update", "secret/data/stripe/api-key", {"data": {"value": "x"}})
        await vault.ask("update", "services/stripe", SERVICE)
        await vault.ask("update", "sys/quotas/rate-limit/q", {"rate": 2, "path": "services/stripe"})
        door = vault.vault
        for expected in (False, False, True):
            state, caller = await door.authenticate(vault.token.encode())
            request = Request(vault.token.encode(), Operation.USE, "services/stripe", remote="192.0.2.1", id="r")
            try:
                lent = await door.use(state, caller, request, "services/stripe")
                door.conclude(state, lent.intent, "ok")
                assert not expected
            except RateLimited:
                assert expected

    play(scenario, clock=FrozenClock())


def test_guesses_at_a_login_are_refused_before_they_are_judged():
    async def scenario(vault):
        await vault.ask("update", "sys/auth/userpass", {"type": "userpass"})
        await vault.ask("update", "auth/userpass/users/bob", {"password": "right"})
        await vault.ask("update", "sys/quotas/rate-limit/q", {"rate": 2, "path": "auth/userpass"})

        async def log_in(password):
            data = {"password": password}
            request = Request(b"", Operation.UPDATE, "auth/userpass/login/bob", data, remote="192.0.2.9")
            return await vault.node.handle(request)

        for _ in range(2):
            with pytest.raises(InvalidRequest):
                await log_in("wrong")
        with pytest.raises(RateLimited):
            await log_in("right")

    play(scenario, clock=FrozenClock())


def test_exempt_paths_are_never_counted():
    async def scenario(vault):
        await vault.ask("update", "sys/quotas/rate-limit/q", {"rate": 1})
        await vault.ask("update", "sys/quotas/config", {"rate_limit_exempt_paths": ["/v1/secret/data/*"]})
        assert await refusals(vault, 5) == [False] * 5
        assert await refusals(vault, 2, path="cubbyhole/x") == [False, True]

    play(scenario, clock=FrozenClock())


def test_quota_that_one_server_got_holds_on_the_other_with_its_next_request(tmp_path):
    place = Place(tmp_path)

    async def main():
        async with place.open() as one, open_vault(place.location, seal=place.seal, clock=FrozenClock()) as two:
            assert await refusals(two, 3) == [False] * 3
            await one.ask("update", "sys/quotas/rate-limit/q", {"rate": 1, "path": "secret", "interval": "1h"})
            assert await refusals(two, 2) == [False, True]
            await one.ask("delete", "sys/quotas/rate-limit/q")
            assert await refusals(two, 2) == [False] * 2

    asyncio.run(main())


def test_what_is_remembered_of_addresses_is_bounded(monkeypatch):
    monkeypatch.setattr("keyhole.vault.quotas._ADDRESSES", 5)

    async def scenario(vault):
        await vault.ask("update", "sys/quotas/rate-limit/q", {"rate": 1, "path": "secret"})
        for number in range(50):
            await read(vault, remote=f"198.51.100.{number}")
        [count] = vault.vault.quotas._counts.values()
        assert len(count.windows) == 5

    play(scenario, clock=FrozenClock())


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("rate-limit", {}),
        ("rate-limit", {"rate": 0}),
        ("rate-limit", {"rate": -1}),
        ("rate-limit", {"rate": "nan"}),
        ("rate-limit", {"rate": True}),
        ("rate-limit", {"rate": 1e300}),
        ("rate-limit", {"rate": 1, "path": "/not-exist"}),
        ("rate-limit", {"rate": 1, "path": "nothing"}),
        ("rate-limit", {"rate": 1, "role": "dev"}),
        ("rate-limit", {"rate": 1, "interval": "soon"}),
        ("lease-count", {"max_leases": 0}),
        ("lease-count", {}),
    ],
)
def test_quota_that_means_nothing_is_refused(kind, data):
    async def scenario(vault):
        with pytest.raises(InvalidRequest):
            await vault.ask("update", f"sys/quotas/{kind}/q", data)

    play(scenario)


def test_no_more_leases_are_made_than_there_may_be_and_one_that_ended_makes_room():
    clock = FrozenClock()

    async def scenario(vault):
        lab = Lab().mount(vault)
        await vault.ask("update", "sys/quotas/lease-count/q", {"max_leases": 2, "path": "lab"})
        made = [(await vault.ask("read", "lab/creds/reader")).lease.id for _ in range(2)]
        with pytest.raises(LeaseLimit, match='"lab/creds/reader": lease count quota exceeded'):
            await vault.ask("read", "lab/creds/reader")
        assert len(lab.alive) == 2
        shown = (await vault.ask("read", "sys/quotas/lease-count/q")).data
        assert shown == {
            "name": "q",
            "type": "lease-count",
            "path": "lab/",
            "role": "",
            "max_leases": 2,
            "counter": 2,
        }
        await vault.ask("update", "sys/leases/revoke", {"lease_id": made[0], "sync": True})
        await vault.ask("read", "lab/creds/reader")

    play(scenario, clock=clock)


def test_two_quotas_for_the_same_path_are_refused():
    async def scenario(vault):
        await vault.ask("update", "sys/quotas/rate-limit/q", {"rate": 1, "path": "secret"})
        await vault.ask("update", "sys/quotas/rate-limit/q", {"rate": 2, "path": "secret/"})
        with pytest.raises(InvalidRequest, match="similar properties"):
            await vault.ask("update", "sys/quotas/rate-limit/r", {"rate": 3, "path": "secret"})

    play(scenario)


def test_two_leases_made_at_once_never_both_take_the_last_place(tmp_path):
    place = Place(tmp_path)

    async def main():
        async with place.open() as one, place.open() as two:
            lab = Lab()
            for vault in (one, two):
                lab.mount(vault)
            await one.ask("update", "sys/quotas/lease-count/q", {"max_leases": 5, "path": "lab"})
            asked = [vault.ask("read", "lab/creds/reader") for _ in range(6) for vault in (one, two)]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            made = [answer for answer in answers if isinstance(answer, Reply)]
            assert len(made) == len(lab.alive) == 5
            assert {type(answer) for answer in answers if answer not in made} == {LeaseLimit}
            await one.ask("update", "sys/leases/revoke-prefix/lab", {"sync": True})
            assert not lab.alive
            for vault in (one, two, one, two, one):
                await vault.ask("read", "lab/creds/reader")
            for vault in (one, two):
                assert isinstance(await refusal(vault.ask("read", "lab/creds/reader")), LeaseLimit)

    asyncio.run(main())


def test_a_lease_that_is_given_out_while_leases_are_counted_is_counted_once(monkeypatch):
    async def main():
        async with open_vault() as vault:
            lab = Lab().mount(vault)
            begun, given = asyncio.Event(), asyncio.Event()

            async def meanwhile():
                begun.set()
                await given.wait()

            lab.meanwhile = meanwhile
            making = asyncio.create_task(vault.ask("read", "lab/creds/reader"))
            await begun.wait()
            await vault.ask("update", "sys/quotas/lease-count/q", {"max_leases": 5, "path": "lab"})
            leases = vault.vault.leases
            below = leases.below

            async def then_given(org_id, prefix):
                found = await below(org_id, prefix)
                given.set()
                await making
                return found

            monkeypatch.setattr(leases, "below", then_given)
            state, _ = await vault.vault.authenticate(vault.token.encode())
            quota = (await vault.vault.quotas.rules(state)).leases[0]
            assert await vault.vault.quotas.leases_of(state, quota) == 1

    asyncio.run(main())


def test_a_new_lease_costs_the_same_however_many_there_are():
    async def scenario(vault):
        lab = Lab().mount(vault)
        for _ in range(3):
            await vault.ask("read", "lab/creds/reader")
        await vault.ask("update", "sys/quotas/lease-count/q", {"max_leases": 100, "path": "lab"})
        await vault.ask("read", "lab/creds/reader")
        lists, listing = [], vault.node.store.list

        async def counted(*asked, **how):
            lists.append(asked)
            return await listing(*asked, **how)

        vault.node.store.list = counted
        leased = [(await vault.ask("read", "lab/creds/reader")).lease.id for _ in range(5)]
        await vault.ask("update", "sys/leases/revoke", {"lease_id": leased[0], "sync": True})
        assert lists == []
        assert len(lab.alive) == 8

    play(scenario)


def test_leases_from_before_a_quota_count_and_one_that_ends_makes_room():
    async def scenario(vault):
        lab = Lab().mount(vault)
        before = [(await vault.ask("read", "lab/creds/reader")).lease.id for _ in range(3)]
        await vault.ask("update", "sys/quotas/lease-count/all", {"max_leases": 3})
        assert isinstance(await refusal(vault.ask("read", "lab/creds/reader")), LeaseLimit)
        await vault.ask("update", "sys/leases/revoke", {"lease_id": before[0], "sync": True})
        await vault.ask("read", "lab/creds/reader")
        assert isinstance(await refusal(vault.ask("read", "lab/creds/reader")), LeaseLimit)
        await vault.ask("update", "sys/quotas/lease-count/lab", {"max_leases": 4, "path": "lab"})
        await vault.ask("read", "lab/creds/reader")
        assert isinstance(await refusal(vault.ask("read", "lab/creds/reader")), LeaseLimit)
        assert len(lab.alive) == 4

    play(scenario)


def test_what_could_not_be_made_takes_no_place():
    async def scenario(vault):
        lab = Lab().mount(vault)
        await vault.ask("update", "sys/quotas/lease-count/q", {"max_leases": 1, "path": "lab"})
        lab.fail_after_making = InvalidRequest("no")
        for _ in range(3):
            assert isinstance(await refusal(vault.ask("read", "lab/creds/reader")), InvalidRequest)
        lab.fail_after_making = None
        await vault.ask("read", "lab/creds/reader")

    play(scenario)


def test_count_that_is_wrong_gets_right_before_somebody_is_refused():
    clock = FrozenClock()

    async def scenario(vault):
        Lab().mount(vault)
        await vault.ask("update", "sys/quotas/lease-count/q", {"max_leases": 2, "path": "lab"})
        await vault.ask("read", "lab/creds/reader")
        storage = vault.vault.leases.storage(vault.vault.root_org)
        [path] = await storage.list("c", recursive=True)
        item = await storage.get_one(f"c/{path}")
        await storage.change([(f"c/{path}", b"2", item.revision)])
        clock.advance(61)
        await vault.ask("read", "lab/creds/reader")
        assert isinstance(await refusal(vault.ask("read", "lab/creds/reader")), LeaseLimit)

    play(scenario, clock=clock)


def test_role_of_approle_is_known_by_its_role_id_whatever_else_a_login_says():
    async def scenario(vault):
        await vault.ask("update", "sys/auth/approle", {"type": "approle"})
        ids = {}
        for name in ("slow", "free"):
            await vault.ask("update", f"auth/approle/role/{name}", {"policies": "default"})
            ids[name] = (await vault.ask("read", f"auth/approle/role/{name}/role-id")).data["role_id"]
        await vault.ask(
            "update",
            "sys/quotas/rate-limit/q",
            {"rate": 1, "interval": "1h", "path": "auth/approle", "role": "slow"},
        )

        async def login(name, **more):
            data = {"role_id": ids.get(name, name), "secret_id": "wrong", **more}
            request = Request(b"", Operation.UPDATE, "auth/approle/login", data, remote="192.0.2.1")
            return type(await refusal(vault.node.handle(request)))

        assert [await login("slow") for _ in range(2)] == [InvalidRequest, RateLimited]
        assert await login("slow", role="free") is RateLimited
        assert [await login("free") for _ in range(2)] == [InvalidRequest] * 2
        assert await login("free", role="slow") is InvalidRequest
        assert await login("nobody") is InvalidRequest

    play(scenario, clock=FrozenClock())


def test_each_agent_may_have_so_many_leases_and_one_that_ended_makes_room():
    async def scenario(vault):
        lab = Lab().mount(vault)
        await vault.ask("update", "sys/quotas/lease-count/each", {"max_leases": 2, "path": "lab", "per_agent": True})
        shown = (await vault.ask("read", "sys/quotas/lease-count/each")).data
        assert (shown["max_leases"], shown["per_agent"], shown["counter"]) == (2, True, 0)
        tokens = {}
        for name in ("one", "other"):
            await vault.ask("update", f"agents/{name}")
            policy = {"policy": 'path "lab/*" { capabilities = ["read"] }'}
            await vault.ask("update", f"sys/policies/acl/agent/{name}", policy)
            tokens[name] = (await vault.ask("update", f"agents/{name}/token", {})).data["token"]
        made = {}
        for name, token in tokens.items():
            made[name] = [(await vault.ask("read", "lab/creds/x", token=token)).lease.id for _ in range(2)]
            error = await refusal(vault.ask("read", "lab/creds/x", token=token))
            assert (error.code, error.status) == ("lease_limit", 429)
        assert len(lab.alive) == 4
        assert (await vault.ask("read", "sys/quotas/lease-count/each")).data["counter"] == 4
        await vault.ask("update", "sys/leases/revoke", {"lease_id": made["one"][0], "sync": True})
        await vault.ask("read", "lab/creds/x", token=tokens["one"])
        assert await refusal(vault.ask("read", "lab/creds/x", token=tokens["other"]))
        assert await refusal(vault.ask("read", "lab/creds/x", token=tokens["one"]))

    play(scenario)
