"""Leases: what was made for somebody for a time is taken back at its end, with its token, and after every crash."""

import asyncio

import pytest

from keyhole.core.errors import (
    Conflict,
    IntegrityError,
    InvalidRequest,
    NotFound,
    PolicyDenied,
    Unauthenticated,
    UpstreamUnreachable,
)
from keyhole.core.request import Operation
from keyhole.stores import Batch, Put
from keyhole.testing import FrozenClock
from keyhole.vault.desk import Desk
from keyhole.vault.lease_lines import LeaseLimits
from vault.lab import Lab
from vault.world import Place, child, journal, org, play, policy_token, refusal

READ = 'path "lab/creds/*" { capabilities = ["read"] }\n'


def lab_play(scenario, lab=None, **options):
    """Run ``scenario(vault, lab, clock)``."""
    clock = FrozenClock()
    lab = lab or Lab()

    async def main(vault):
        return await scenario(vault, lab.mount(vault), clock)

    return play(main, clock=clock, **options)


async def make(vault, token=None):
    """A lease's id."""
    reply = await vault.ask("read", "lab/creds/reader", token=token)
    assert reply.lease.id.startswith("lab/creds/reader/")
    return reply.lease.id


async def lookup(vault, lease_id, **more):
    return (await vault.ask("update", "sys/leases/lookup", {"lease_id": lease_id}, **more)).data


async def stored(vault):
    """All that lies in the place of leases."""
    return await vault.vault.leases.storage(vault.vault.root_org).list(recursive=True)


def test_what_is_leased_names_its_lease_and_its_time():
    async def scenario(vault, lab, _clock):
        reply = await vault.ask("read", "lab/creds/reader")
        assert reply.lease.ttl == 3600
        assert reply.lease.renewable
        found = await lookup(vault, reply.lease.id)
        assert found["id"] == reply.lease.id
        assert (found["ttl"], found["renewable"], found["last_renewal"]) == (3600, True, None)
        assert len(lab.alive) == 1

    lab_play(scenario)


def test_a_lease_is_taken_back_at_its_end_and_nothing_of_it_stays():
    async def scenario(vault, lab, clock):
        lease_id = await make(vault)
        clock.advance(3599)
        await vault.node.sweep()
        assert lab.alive
        clock.advance(1)
        await vault.node.sweep()
        assert not lab.alive
        assert await stored(vault) == []
        assert "invalid lease" in str(await refusal(lookup(vault, lease_id)))

    lab_play(scenario)


def test_a_server_takes_leases_back_by_itself():
    async def scenario(vault, lab, clock):
        vault.node.start_sweeper()
        await make(vault)
        clock.advance(3601)
        await lab.until_empty()

    lab_play(scenario)


def test_a_lease_longer_than_the_limit_is_capped_with_a_warning():
    async def scenario(vault, _lab, _clock):
        reply = await vault.ask("read", "lab/creds/reader")
        assert reply.lease.ttl == 1800
        assert reply.warnings == [
            'TTL of "1h" exceeded the effective max_ttl of "30m"; TTL value is capped accordingly'
        ]

    lab_play(scenario, Lab(ttl=3600, max_ttl=1800))


def test_a_renewal_counts_from_now_up_to_the_limit_since_the_issue():
    async def scenario(vault, lab, clock):
        lease_id = await make(vault)
        clock.advance(3000)
        reply = await vault.ask("update", "sys/leases/renew", {"lease_id": lease_id, "increment": 1000})
        assert (reply.lease.id, reply.lease.ttl, reply.warnings) == (lease_id, 1000, [])
        assert (await lookup(vault, lease_id))["last_renewal"]
        reply = await vault.ask("update", f"sys/leases/renew/{lease_id}")
        assert reply.lease.ttl == 3600
        clock.advance(100)
        reply = await vault.ask("update", f"sys/renew/{lease_id}", {"increment": "2h"})
        assert reply.lease.ttl == 7200 - 3100
        assert 'exceeded the effective max_ttl of "1h8m20s"' in reply.warnings[0]
        assert list(lab.alive.values()) == [reply.lease.expires]
        clock.advance(4100)
        error = await refusal(vault.ask("update", "sys/renew", {"lease_id": lease_id}))
        assert error.reason == "lease not found"

    lab_play(scenario)


def test_what_is_not_renewable_says_so():
    async def scenario(vault, _lab, _clock):
        lease_id = await make(vault)
        with pytest.raises(InvalidRequest, match="lease is not renewable"):
            await vault.ask("update", "sys/leases/renew", {"lease_id": lease_id})

    lab_play(scenario, Lab(renewable=False))


def test_a_renewal_that_its_source_refuses_changes_nothing():
    async def scenario(vault, lab, clock):
        lease_id = await make(vault)
        lab.down = True
        with pytest.raises(UpstreamUnreachable):
            await vault.ask("update", "sys/leases/renew", {"lease_id": lease_id, "increment": 7000})
        assert (await lookup(vault, lease_id))["ttl"] == 3600
        lab.down = False
        clock.advance(3600)
        await vault.node.sweep()
        assert not lab.alive

    lab_play(scenario)


def test_a_revoked_lease_is_gone_at_its_source_and_revoking_it_again_is_fine():
    async def scenario(vault, lab, _clock):
        lease_id = await make(vault)
        for path in ("sys/leases/revoke", "sys/revoke"):
            await vault.ask("update", path, {"lease_id": lease_id, "sync": True})
            assert not lab.alive
        await vault.ask("update", f"sys/leases/revoke/{await make(vault)}")
        assert not lab.alive
        assert await stored(vault) == []
        assert (await refusal(vault.ask("list", "sys/leases/lookup/lab"))).status == 404

    lab_play(scenario)


def test_a_path_can_be_listed_and_revoked_as_a_whole():
    async def scenario(vault, lab, _clock):
        other = Lab("other/").mount(vault)
        first, second = await make(vault), await make(vault)
        await vault.ask("read", "other/creds/x")
        assert (await vault.ask("list", "sys/leases/lookup/")).data == {"keys": ["lab/", "other/"]}
        assert (await vault.ask("list", "sys/leases/lookup/lab")).data == {"keys": ["creds/"]}
        names = sorted(lease.rpartition("/")[2] for lease in (first, second))
        assert (await vault.ask("list", "sys/leases/lookup/lab/creds/reader/")).data == {"keys": names}
        assert (await vault.ask("read", "sys/leases/count")).data["lease_count"] == 3
        await vault.ask("update", "sys/leases/revoke-prefix/lab/creds", {"sync": True})
        assert not lab.alive
        assert len(other.alive) == 1
        await vault.ask("update", f"sys/leases/revoke-prefix/{(await vault.ask('read', 'other/creds/x')).lease.id}")
        assert len(other.alive) == 1

    lab_play(scenario)


def test_a_lease_ends_with_its_token_and_with_the_token_above():
    async def scenario(vault, lab, clock):
        await vault.ask("update", "sys/policies/acl/reader", {"policy": READ})
        parent = await child(vault, policies=["root"], ttl="1h")
        below = await child(vault, token=parent, policies=["reader"], ttl="30m")
        await make(vault, below)
        await make(vault, parent)
        await make(vault)
        await vault.ask("update", "auth/token/revoke", {"token": parent})
        assert len(lab.alive) == 1
        await make(vault, await child(vault, policies=["reader"], ttl="10s"))
        clock.advance(11)
        await vault.node.sweep()
        assert len(lab.alive) == 1

    lab_play(scenario)


def test_a_token_with_one_use_left_gets_nothing_leased():
    async def scenario(vault, lab, _clock):
        token = await child(vault, policies=["root"], num_uses=1, ttl="1h")
        error = await refusal(vault.ask("read", "lab/creds/reader", token=token))
        assert error.status == 400
        assert "token had one use left" in error.reason
        assert not lab.alive
        assert await stored(vault) == []

    lab_play(scenario)


def test_what_is_in_flight_while_its_token_is_revoked_dies():
    async def scenario(vault, lab, _clock):
        token = await child(vault, policies=["root"], ttl="1h")

        async def revoke():
            await vault.ask("update", "auth/token/revoke", {"token": token})

        lab.meanwhile = revoke
        with pytest.raises(Unauthenticated):
            await make(vault, token)
        assert not lab.alive
        assert await stored(vault) == []

    lab_play(scenario)


def test_what_is_in_flight_while_all_below_its_path_is_revoked_dies():
    async def scenario(vault, lab, _clock):
        async def revoke():
            await vault.ask("update", "sys/leases/revoke-prefix/lab", {"sync": True})

        lab.meanwhile = revoke
        with pytest.raises(InvalidRequest, match="revoked while it was made"):
            await make(vault)
        assert not lab.alive
        assert await stored(vault) == []

    lab_play(scenario)


def test_what_was_asked_for_before_all_below_its_path_was_revoked_is_not_made_after(monkeypatch):
    async def scenario(vault, lab, clock):
        begin = Desk.begin

        async def late(desk, **wanted):
            await vault.ask("update", f"sys/leases/revoke-prefix/{revoked[0]}", {"sync": True})
            return await begin(desk, **wanted)

        monkeypatch.setattr("keyhole.vault.desk.Desk.begin", late)
        revoked = ["lab"]
        for revoked[0] in ("lab", "lab/creds/reader"):
            with pytest.raises(InvalidRequest, match="revoked while it was made"):
                await make(vault)
        assert not lab.alive
        clock.advance(5)
        revoked[0] = "lab/creds/readers"
        await make(vault)
        monkeypatch.undo()
        await make(vault)
        assert len(lab.alive) == 2

    lab_play(scenario)


@pytest.mark.parametrize("gone", ["org", "mount"])
def test_nothing_is_made_once_its_org_or_its_mount_is_being_removed(gone, monkeypatch):
    async def scenario(vault, lab, _clock):
        admin = await org(vault, "acme")
        begin = Desk.begin

        async def late(desk, **wanted):
            if gone == "org":
                await vault.ask("delete", "sys/namespaces/acme")
            else:
                tables = vault.vault.tables
                tables.fixed = [mount for mount in tables.fixed if mount.path != "lab/"]
                vault.vault.compiled.forget()
            return await begin(desk, **wanted)

        monkeypatch.setattr("keyhole.vault.desk.Desk.begin", late)
        assert await refusal(vault.ask("read", "lab/creds/reader", token=admin))
        assert not lab.alive
        assert not lab.taken

    lab_play(scenario)


def test_what_takes_too_long_to_be_made_is_taken_back():
    async def scenario(vault, lab, _clock):
        vault.vault.expiry.limits = LeaseLimits(making=0.05)
        lab.meanwhile = asyncio.Event().wait
        error = await refusal(vault.ask("read", "lab/creds/reader"))
        assert error.code == "upstream_timeout"
        assert len(lab.taken) == 1
        assert await stored(vault) == []

    lab_play(scenario)


def test_what_is_made_after_it_was_already_taken_back_is_taken_back_again():
    async def scenario(vault, lab, clock):
        async def stand_still():
            clock.advance(31)
            await vault.node.sweep()  # as another node does it

        lab.meanwhile = stand_still
        with pytest.raises(InvalidRequest, match="revoked while it was made"):
            await make(vault)
        assert len(lab.taken) == 2
        assert not lab.alive
        assert await stored(vault) == []

    lab_play(scenario)


def test_what_a_failed_handler_has_made_is_taken_back():
    async def scenario(vault, lab, _clock):
        for failure in (UpstreamUnreachable("the lab answered too late"), ZeroDivisionError(), Conflict("again")):
            lab.fail_after_making = failure
            assert await refusal(vault.ask("read", "lab/creds/reader"))
            assert not lab.alive
            assert await stored(vault) == []
        assert len(lab.taken) == 3

    lab_play(scenario)


def test_what_was_made_for_somebody_who_hung_up_is_taken_back():
    async def scenario(vault, lab, _clock):
        lab.meanwhile = asyncio.Event().wait
        asking = asyncio.create_task(vault.ask("read", "lab/creds/reader"))
        while not await stored(vault):  # noqa: ASYNC110 - nothing announces that it has begun
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await vault.vault.expiry.drain()
        assert await stored(vault) == []
        assert len(lab.taken) == 1

    lab_play(scenario)


def test_hanging_up_does_not_stop_a_revocation_that_has_begun():
    async def scenario(vault, lab, _clock):
        lease_id = await make(vault)
        lab.silent = asyncio.Event()
        asking = asyncio.create_task(vault.ask("update", "sys/leases/revoke", {"lease_id": lease_id, "sync": True}))
        while not vault.vault.expiry._running:  # noqa: ASYNC110 - nothing announces that it has begun
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        lab.silent.set()
        await vault.vault.expiry.drain()
        assert not lab.alive
        assert await stored(vault) == []

    lab_play(scenario)


def crash(*_args, **_more):
    """Stands where the process dies: nothing after it happens, and nobody tidies up."""
    raise SystemExit


@pytest.mark.parametrize("step", ["before it is made", "before it is given out"])
def test_what_a_crash_left_half_made_is_taken_back_after_the_next_start(step, tmp_path, monkeypatch):
    clock, place, lab = FrozenClock(), Place(tmp_path), Lab()

    async def die(vault):
        lab.mount(vault)
        target = lab if step == "before it is made" else vault.vault.leases
        if step == "before it is made":
            lab.meanwhile = crash
        else:
            monkeypatch.setattr(target, "activate", crash)
        monkeypatch.setattr("keyhole.vault.desk.Desk.give_up", ignore)
        with pytest.raises(SystemExit):
            await vault.ask("read", "lab/creds/reader")

    async def ignore(_desk):
        return None

    async def look(vault):
        lab.mount(vault)
        lab.meanwhile = None
        [entry] = [name for name in await stored(vault) if name.startswith("q/")]
        assert (await vault.vault.leases.queued(vault.vault.root_org, entry.removeprefix("q/"))).state == "pending"
        await vault.node.sweep()
        assert (await vault.ask("read", "sys/leases/count")).data["lease_count"] == 0
        clock.advance(31)
        await vault.node.sweep()
        assert not lab.alive
        assert len(lab.taken) == 1
        assert await stored(vault) == []

    place.play(die, clock=clock)
    monkeypatch.undo()
    place.play(look, clock=clock)


def test_a_token_whose_revocation_was_cut_off_still_takes_its_leases_along(tmp_path, monkeypatch):
    clock, place, lab = FrozenClock(), Place(tmp_path), Lab()

    async def die(vault):
        lab.mount(vault)
        token = await child(vault, policies=["root"], ttl="1h")
        await make(vault, token)
        monkeypatch.setattr(vault.vault.leases, "of_token", crash)
        with pytest.raises(SystemExit):
            await vault.ask("update", "auth/token/revoke", {"token": token})
        assert lab.alive

    async def look(vault):
        lab.mount(vault)
        await vault.node.sweep()
        assert not lab.alive
        assert await stored(vault) == []

    place.play(die, clock=clock)
    place.play(look, clock=clock)


def test_a_target_that_is_away_is_tried_again_and_then_called_irrevocable():
    async def scenario(vault, lab, clock):
        lease_id = await make(vault)
        lab.down = True
        clock.advance(3600)
        waited = 0
        await vault.node.sweep()
        for _ in range(5):
            before = vault.vault.expiry.counts["failed"]
            clock.advance(7)  # less than three quarters of the first wait
            await vault.node.sweep()
            assert vault.vault.expiry.counts["failed"] == before
            while vault.vault.expiry.counts["failed"] == before:
                clock.advance(1)
                waited += 1
                await vault.node.sweep()
        assert 0.75 * 90 <= waited + 5 * 7 <= 1.25 * 90 + 5  # 10 and 4 times 20 seconds, a quarter more or less
        [found] = (await vault.ask("read", "sys/leases", {"type": "irrevocable"})).data["leases"]
        assert (found["lease_id"], found["attempts"]) == (lease_id, 6)
        assert found["error"] == "the lab does not answer"
        assert (await vault.ask("read", "sys/leases/count", {"type": "irrevocable"})).data["lease_count"] == 1
        alarms = [r for _, r in await journal(vault) if r.operation == "alarm"]
        assert [lease_id in r.result for r in alarms] == [True]
        assert vault.vault.expiry.counts["irrevocable"] == 1
        assert (await lookup(vault, lease_id))["ttl"] == 0
        assert (await refusal(vault.ask("update", "sys/leases/renew", {"lease_id": lease_id}))).status == 400
        lab.down = False
        clock.advance(25)
        await vault.node.sweep()
        assert not lab.alive
        assert await stored(vault) == []

    lab_play(scenario)


def test_a_vault_with_an_irrevocable_lease_opens_and_shows_it_and_others_end(tmp_path):
    clock, place, lab = FrozenClock(), Place(tmp_path), Lab()
    made = []

    async def lose(vault):
        lab.mount(vault)
        vault.vault.expiry.limits = LeaseLimits(tries=1)
        made.append(await make(vault))
        lab.down = True
        clock.advance(3600)
        await vault.node.sweep()
        await vault.vault.expiry.drain()

    async def go_on(vault):
        lab.mount(vault)
        [found] = (await vault.ask("read", "sys/leases", {"type": "irrevocable"})).data["leases"]
        assert found["lease_id"] == made[0]
        lab.down = False
        other = await make(vault)
        await vault.ask("update", "sys/leases/revoke", {"lease_id": other})
        assert other.rpartition("/")[2] in lab.taken
        await vault.ask("update", f"sys/leases/revoke-force/{made[0].rpartition('/')[0]}")
        assert await stored(vault) == []
        forced = [record for _, record in await journal(vault) if "revoke-force" in record.path]
        assert forced

    place.play(lose, clock=clock)
    place.play(go_on, clock=clock)


def test_all_that_waited_for_a_target_is_taken_back_when_it_is_there_again():
    async def scenario(vault, lab, clock):
        vault.vault.expiry.limits = LeaseLimits(tries=2, line=20)
        for _ in range(60):
            await make(vault)
        lab.down = True
        clock.advance(3600)
        for _ in range(30):
            await vault.node.sweep()
            clock.advance(10)
        assert len(lab.alive) == 60
        counted = (await vault.ask("read", "sys/leases/count", {"type": "irrevocable"})).data
        assert counted["lease_count"] > 40
        lab.down = False
        for _ in range(6):
            clock.advance(5)
            await vault.node.sweep()
        assert not lab.alive
        assert await stored(vault) == []

    lab_play(scenario)


def test_what_cannot_be_taken_back_though_its_target_answers_is_tried_again_once_a_day():
    async def scenario(vault, lab, clock):
        vault.vault.expiry.limits = LeaseLimits(tries=1)
        lab.refuses = True
        await make(vault)
        clock.advance(3600)
        await vault.node.sweep()
        failed = vault.vault.expiry.counts["failed"]
        for _ in range(10):
            clock.advance(6000)
            await vault.node.sweep()
        assert vault.vault.expiry.counts["failed"] == failed == 1
        lab.refuses = False
        clock.advance(86_400)
        await vault.node.sweep()
        assert not lab.alive

    lab_play(scenario)


def test_who_waits_for_a_revocation_learns_why_it_failed_and_can_force_it():
    async def scenario(vault, lab, _clock):
        lease_id = await make(vault)
        lab.down = True
        with pytest.raises(UpstreamUnreachable):
            await vault.ask("update", "sys/leases/revoke", {"lease_id": lease_id, "sync": True})
        with pytest.raises(UpstreamUnreachable):
            await vault.ask("update", "sys/leases/revoke-prefix/lab", {"sync": True})
        await vault.ask("update", f"sys/leases/revoke-force/{lease_id}")
        assert await stored(vault) == []
        assert len(lab.alive) == 1
        results = [r.result for _, r in await journal(vault) if r.operation == "revoke-lease"]
        assert results == ["upstream_unreachable", "upstream_unreachable", "forgotten: upstream_unreachable"]

    lab_play(scenario)


def test_a_dead_target_does_not_delay_the_others(monkeypatch):
    async def scenario(vault, lab, clock):
        vault.vault.expiry.limits = LeaseLimits(line=8, jobs=2, stuck=0.0)
        monkeypatch.setattr("keyhole.vault.sys.sweep._BATCH", 10)
        monkeypatch.setattr("keyhole.vault.node._SWEEP_EVERY", 0.01)
        dead = Lab("dead/").mount(vault)
        dead.silent = asyncio.Event()
        for _ in range(40):
            await vault.ask("read", "dead/creds/x")
        clock.advance(1)
        for _ in range(5):
            await make(vault)
        vault.node.start_sweeper()
        clock.advance(3601)
        await lab.until_empty()
        assert len(dead.alive) == 40
        dead.silent.set()
        async with asyncio.timeout(60):
            while dead.alive:
                clock.advance(100)
                await asyncio.sleep(0.01)

    lab_play(scenario)


def test_two_nodes_take_a_lease_back_once(tmp_path):
    clock, place, lab = FrozenClock(), Place(tmp_path), Lab()

    async def main():
        async with place.open(clock=clock) as one, place.open(clock=clock) as two:
            lab.mount(one)
            lab.mount(two)
            for _ in range(20):
                await make(one)
            clock.advance(3600)
            await asyncio.gather(one.node.sweep(), two.node.sweep())
            await asyncio.gather(one.node.sweep(), two.node.sweep())
            assert not lab.alive
            assert len(lab.taken) == 20
            assert await stored(one) == []

    asyncio.run(main())


def test_a_renewal_that_was_answered_holds_against_a_sweep():
    async def scenario(vault, lab, clock):
        lease_id = await make(vault)
        clock.advance(3600 - 0.5)
        storage = vault.vault.leases.storage(vault.vault.root_org)
        key = storage.key(f"l/{lease_id}")
        await vault.ask("update", "sys/leases/renew", {"lease_id": lease_id, "increment": 60})
        clock.advance(1)
        state = await vault.vault.compiled.state(vault.vault.root_org)
        await vault.vault.expiry.take(state, [key])  # what a sweep found before the renewal
        await vault.vault.expiry.drain()
        assert lab.alive
        assert (await lookup(vault, lease_id))["ttl"] == 59

    lab_play(scenario)


def test_a_lease_outlives_the_deletion_of_what_it_was_made_with():
    async def scenario(vault, lab, clock):
        await make(vault)
        assert Operation.READ in lab.engine.routes[0].handlers
        lab.ttl = lab.max_ttl = 0
        clock.advance(3600)
        await vault.node.sweep()
        assert not lab.alive

    lab_play(scenario)


def test_leases_of_another_org_do_not_exist():
    async def scenario(vault, lab, _clock):
        lease_id = await make(vault)
        admin = (await vault.ask("update", "sys/namespaces/acme")).data["root_token"]
        for path, reason in (("lookup", "invalid lease"), ("renew", "lease not found")):
            error = await refusal(vault.ask("update", f"sys/leases/{path}", {"lease_id": lease_id}, token=admin))
            assert (error.status, error.reason) == (400, reason)
        await vault.ask("update", "sys/leases/revoke", {"lease_id": lease_id, "sync": True}, token=admin)
        await vault.ask("update", "sys/leases/revoke-force/lab", token=admin)
        assert isinstance(await refusal(vault.ask("list", "sys/leases/lookup/", token=admin)), NotFound)
        assert lab.alive

    lab_play(scenario)


def test_a_grant_to_renew_holds_for_both_forms_and_a_nearer_rule_wins():
    async def scenario(vault, _lab, _clock):
        lease_id = await make(vault)
        plain = await policy_token(vault, 'path "sys/leases/renew" { capabilities = ["update"] }')
        await vault.ask("update", "sys/leases/renew", {"lease_id": lease_id}, token=plain)
        await vault.ask("update", f"sys/leases/renew/{lease_id}", token=plain)
        assert isinstance(
            await refusal(vault.ask("update", f"sys/leases/revoke/{lease_id}", token=plain)), PolicyDenied
        )
        limited = (
            'path "sys/leases/renew" { capabilities = ["update"] }\n'
            'path "sys/leases/renew/lab/*" { capabilities = ["deny"] }'
        )
        denied = await policy_token(vault, limited)
        await vault.ask("update", "sys/leases/renew", {"lease_id": lease_id}, token=denied)
        assert isinstance(
            await refusal(vault.ask("update", f"sys/leases/renew/{lease_id}", token=denied)), PolicyDenied
        )
        other = await policy_token(
            vault,
            'path "sys/leases/renew" { capabilities = ["update"] allowed_parameters = { "lease_id" = ["other/*"] } }',
        )
        assert isinstance(await refusal(vault.ask("update", f"sys/leases/renew/{lease_id}", token=other)), PolicyDenied)

    lab_play(scenario)


def test_the_journal_says_which_lease_was_given_out_and_taken_back():
    async def scenario(vault, _lab, _clock):
        lease_id = await make(vault)
        await vault.ask("update", "sys/leases/revoke", {"lease_id": lease_id})
        said = [(r.operation, r.result) for _, r in await journal(vault) if r.lease == lease_id]
        assert said == [("read", "ok"), ("revoke-lease", "ok")]

    lab_play(scenario)


def test_tidy_ends_a_lease_whose_token_is_missing():
    async def scenario(vault, lab, _clock):
        token = await child(vault, policies=["root"], ttl="1h")
        await make(vault, token)
        vault_ = vault.vault
        stray = await vault_.tokens.get(vault_.storage(vault_.root_org, "tokens"), vault_.tokens.hash(token.encode()))
        await vault_.tokens.remove(vault_.storage(vault_.root_org, "tokens"), stray.id)  # as no revocation does it
        reply = await vault.ask("update", "sys/leases/tidy")
        assert reply.status == 202
        assert reply.warnings
        assert not lab.alive

    lab_play(scenario)


@pytest.mark.parametrize("lease_id", ["none", "../x", "a//b", "%", "lab/creds/reader/" + "a" * 24, "x" * 600])
def test_what_is_no_lease_is_answered_as_an_unknown_one(lease_id):
    async def scenario(vault, _lab, _clock):
        assert (await refusal(lookup(vault, lease_id))).reason == "invalid lease"
        assert (
            await refusal(vault.ask("update", "sys/leases/renew", {"lease_id": lease_id}))
        ).reason == "lease not found"
        await vault.ask("update", "sys/leases/revoke", {"lease_id": lease_id})

    lab_play(scenario)


@pytest.mark.parametrize("data", [{}, {"lease_id": ""}, {"lease_id": 7}, {"lease_id": ["x"]}])
def test_a_request_that_names_no_lease_is_told_so(data):
    async def scenario(vault, _lab, _clock):
        for path in ("lookup", "renew", "revoke"):
            assert (
                "lease_id must be specified" in (await refusal(vault.ask("update", f"sys/leases/{path}", data))).reason
            )

    lab_play(scenario)


def test_a_lease_that_was_changed_in_the_store_is_refused_and_does_not_keep_the_others(tmp_path):
    clock, place, lab = FrozenClock(), Place(tmp_path), Lab()

    async def scenario(vault):
        lab.mount(vault)
        bad, good = await make(vault), await make(vault)
        store, storage = vault.node.store, vault.vault.leases.storage(vault.vault.root_org)
        from_key, key = storage.key(f"l/{good}"), storage.key(f"l/{bad}")
        entries = await store.get([from_key, key])
        await store.commit(Batch(puts=[Put(key, entries[0].value, entries[1].revision, due=1.0)]))  # the other's bytes
        assert isinstance(await refusal(lookup(vault, bad)), IntegrityError)
        clock.advance(3600)
        await vault.node.sweep()
        assert list(lab.alive) == [bad.rpartition("/")[2]]

    place.play(scenario, clock=clock)


def test_tokens_are_revoked_by_where_they_were_made():
    async def scenario(vault, lab, _clock):
        orphan = await child(vault, path="auth/token/create-orphan", policies=["root"], ttl="1h")
        other = await child(vault, policies=["default"], ttl="1h")
        await make(vault, orphan)
        await vault.ask("update", "sys/leases/revoke-prefix/auth/token/create-orphan", {"sync": True})
        assert isinstance(await refusal(vault.ask("read", "auth/token/lookup-self", token=orphan)), Unauthenticated)
        await vault.ask("read", "auth/token/lookup-self", token=other)
        assert not lab.alive
        await vault.ask("update", "sys/revoke-prefix/auth/token/create")
        assert isinstance(await refusal(vault.ask("read", "auth/token/lookup-self", token=other)), Unauthenticated)

    lab_play(scenario)


def test_a_path_that_is_allowed_leads_to_no_lease_but_its_own():
    async def scenario(vault):
        lab = Lab().mount(vault)
        mine, other = [(await vault.ask("read", f"lab/creds/{name}")).lease.id for name in ("mine", "other")]
        rule = 'path "sys/leases/+/lab/creds/mine/*" { capabilities = ["update"] }'
        narrow = await policy_token(vault, rule)
        for verb in ("revoke", "renew"):
            for path in (mine, "lab/creds/mine/none"):
                asked = vault.ask("update", f"sys/leases/{verb}/{path}", {"lease_id": other}, token=narrow)
                assert isinstance(await refusal(asked), InvalidRequest)
        assert len(lab.alive) == 2
        await vault.ask("update", f"sys/leases/revoke/{mine}", {"lease_id": mine}, token=narrow)
        assert len(lab.alive) == 1

    play(scenario)


def test_many_who_revoke_the_same_leases_at_once_leave_their_line_empty(tmp_path):
    async def scenario(vault):
        lab = Lab().mount(vault)
        for _ in range(10):
            lab.silent = asyncio.Event()
            made = [await make(vault) for _ in range(3)]
            revoked = [{"lease_id": lease_id, "sync": True} for lease_id in made]
            asked = [vault.ask("update", "sys/leases/revoke", each) for each in revoked * 5]
            asking = asyncio.gather(*asked)
            while not vault.vault.expiry._running:  # noqa: ASYNC110 - nothing announces that the first has begun
                await asyncio.sleep(0)
            lab.silent.set()
            await asking
        await vault.vault.expiry.drain()
        assert not lab.alive
        assert [line.length for line in vault.vault.expiry._lines.values()] == [0]
        assert not vault.vault.expiry._running

    Place(tmp_path).play(scenario)
