"""Reports for administrators: who can and did use what, and what nobody needs; names, times and counts alone."""

import asyncio
import json

import pytest

from keyhole.core.errors import InvalidRequest, PolicyDenied, RateLimited
from keyhole.core.record import Phase, Record
from keyhole.core.times import DAY, format_time
from keyhole.testing import FrozenClock
from keyhole.vault.reports.usage import Usage
from vault.lab import Lab
from vault.world import CANARY, SERVICE, agent, child, org, play, policy_token, recorded, refusal, stripe, use


async def report(vault, name, token=None, **wanted):
    data = (await vault.ask("read", f"sys/reports/{name}", wanted, token=token)).data
    assert CANARY not in json.dumps(data)
    return data


async def access(vault, **wanted):
    data = await report(vault, "access", **wanted)
    return {(row["secret"], row["caller"]): row for row in data["rows"]}


async def stale(vault, **wanted):
    return {(row["kind"], row["name"]): row["why"] for row in (await report(vault, "stale", **wanted))["rows"]}


def done(row):
    return {name: row[name] for name in ("uses", "reads", "changes", "refused") if row[name]}


READER = 'path "secret/data/stripe/*" { capabilities = ["read"] }'


def test_access_says_who_can_and_who_did_and_when():
    clock = FrozenClock()

    async def scenario(vault):
        await stripe(vault)
        coder = await agent(vault, services=["stripe"])
        await agent(vault, "idle", services=["stripe"])
        await agent(vault, "nothing")
        reader = await policy_token(vault, READER, display_name="ann")
        clock.advance(100)
        begun = format_time(vault.vault.clock.now())
        for _ in range(3):
            await use(vault, "services/stripe", coder)
        clock.advance(100)
        await vault.ask("read", "secret/data/stripe/api-key", token=reader)
        await vault.ask("read", "secret/metadata/stripe/api-key")  # no value in it
        assert isinstance(await refusal(vault.ask("read", "secret/data/stripe/api-key", token=coder)), PolicyDenied)
        rows = await access(vault)
        assert set(rows) == {
            ("stripe/api-key", caller) for caller in ("agent/coder", "agent/idle", "token/ann", "user/root")
        }
        mine = rows["stripe/api-key", "agent/coder"]
        assert done(mine) == {"uses": 3, "refused": 1}
        assert (mine["uses_through"], mine["may"], mine["used_through"]) == (["stripe"], [], ["stripe"])
        assert (mine["first"], mine["last"]) == (begun, format_time(vault.vault.clock.now()))
        assert done(rows["stripe/api-key", "agent/idle"]) == {}
        assert rows["stripe/api-key", "agent/idle"]["last"] is None
        read = rows["stripe/api-key", "token/ann"]
        assert (done(read), read["may"], read["uses_through"]) == ({"reads": 1}, ["read"], [])
        assert done(rows["stripe/api-key", "user/root"]) == {"changes": 1}
        assert (await report(vault, "access"))["everything"] == ["user/root"]

    play(scenario, clock=clock)


def test_access_of_one_who_leaves_is_what_they_had_and_did_although_their_token_is_gone():
    async def scenario(vault):
        await stripe(vault)
        await vault.ask("update", "secret/data/other", {"data": {"value": "x" * 20}})
        reader = await policy_token(vault, 'path "secret/data/*" { capabilities = ["read"] }', display_name="ann")
        await vault.ask("read", "secret/data/stripe/api-key", token=reader)
        rows = await access(vault, agent="token/ann")
        assert {name: bool(row["reads"]) for (name, _), row in rows.items()} == {"stripe/api-key": True, "other": False}
        await vault.ask("update", "auth/token/revoke", {"token": reader})
        [row] = (await access(vault, agent="token/ann")).values()
        assert (row["secret"], row["active"], row["may"], row["reads"]) == ("stripe/api-key", False, [], 1)
        coder = await agent(vault, services=["stripe"])
        await use(vault, "services/stripe", coder)
        [row] = (await access(vault, agent="coder")).values()
        assert (row["caller"], row["active"], done(row)) == ("agent/coder", True, {"uses": 1})

    play(scenario)


def test_access_counts_what_was_done_in_the_window_alone():
    clock = FrozenClock()

    async def scenario(vault):
        await stripe(vault)
        coder = await agent(vault, services=["stripe"], ttl="30d")
        for _ in range(4):
            await use(vault, "services/stripe", coder)
            await vault.vault.journal.drain()
            clock.advance(DAY)
        now = vault.vault.clock.now()
        window = {"after": str(now - 2.5 * DAY), "before": format_time(now - 0.5 * DAY)}
        assert done((await access(vault, **window))["stripe/api-key", "agent/coder"]) == {"uses": 2}
        clock.advance(200 * DAY)
        assert done((await access(vault))["stripe/api-key", "agent/coder"]) == {}
        assert done((await access(vault, after="2000-01-01"))["stripe/api-key", "agent/coder"]) == {"uses": 4}
        error = await refusal(report(vault, "access", after=str(now), before=str(now - 1)))
        assert isinstance(error, InvalidRequest)

    play(scenario, clock=clock)


def test_access_knows_what_is_read_of_other_mounts_and_the_limits_of_tokens():
    async def scenario(vault):
        await stripe(vault)
        await vault.ask("update", "sys/mounts/team", {"type": "kv", "options": {"version": "2"}})
        await vault.ask("update", "team/data/a/b", {"data": {"value": "y" * 20}})
        await vault.ask("read", "team/data/a/b")
        await vault.ask("update", "team/destroy/a/b", {"versions": [1]})
        rows = await access(vault, secret="/team/data/a/b")
        assert [done(row) for row in rows.values()] == [{"reads": 1, "changes": 2}]
        assert ("/team/data/a/b", "user/root") in rows
        await agent(vault, "bound", services=["stripe"], scope="proxy")
        bound = (await access(vault, secret="stripe/api-key"))["stripe/api-key", "agent/bound"]
        assert (bound["uses_through"], bound["may"]) == (["stripe"], [])
        await policy_token(vault, READER, display_name="sent", services=[])
        limited = (await access(vault, secret="stripe/api-key"))["stripe/api-key", "token/sent"]
        assert (limited["uses_through"], limited["may"]) == ([], ["read"])

    play(scenario)


def test_access_knows_what_is_made_for_a_use_or_a_reader():
    async def scenario(vault):
        Lab().mount(vault)
        await vault.ask("update", "services/lab", {**SERVICE, "secret": "/lab/creds/reader#username"})
        await use(vault, "services/lab", await agent(vault, services=["lab"]))
        reader = await policy_token(vault, 'path "lab/creds/*" { capabilities = ["read"] }', display_name="ann")
        await vault.ask("read", "lab/creds/reader", token=reader)
        rows = await access(vault, secret="/lab/creds/reader")
        assert {caller: done(row) for (_, caller), row in rows.items()} == {
            "agent/coder": {"uses": 1},
            "token/ann": {"reads": 1},
        }
        assert rows == await access(vault, secret="/lab/creds/reader#username")
        assert set(rows) <= set(await access(vault))

    play(scenario)


def test_an_entity_that_may_log_in_has_access_before_it_does():
    async def scenario(vault):
        await stripe(vault)
        await vault.ask("update", "sys/policies/acl/reader", {"policy": READER})
        await vault.ask("update", "identity/entity", {"name": "bob", "policies": ["reader"]})
        assert (await access(vault))["stripe/api-key", "entity/bob"]["may"] == ["read"]
        await vault.ask("update", "identity/entity/name/bob", {"disabled": True})
        assert ("stripe/api-key", "entity/bob") not in await access(vault)

    play(scenario)


def test_stale_lists_what_nobody_needs_and_says_why():
    clock = FrozenClock()

    async def scenario(vault):
        await stripe(vault)
        await vault.ask(
            "update", "services/spare", {"hosts": ["a.test"], "secret": "spare", "inject": {"kind": "bearer"}}
        )
        later = format_time(vault.vault.clock.now() + 1000 * DAY)
        for name, fields in {
            "spare": {},
            "dated": {"expires_at": format_time(vault.vault.clock.now() + 10 * DAY)},
            "due": {"rotate_every": "20d", "expires_at": later},
            "fresh": {"expires_at": later},
        }.items():
            await vault.ask("update", f"secret/data/{name}", {"data": {"value": "z" * 20}})
            await vault.ask("update", f"secret/metadata/{name}", fields)
        coder = await agent(vault, services=["stripe"], ttl="30d")
        await agent(vault, "idle")
        unused = await child(vault, policies=["default"], ttl="30d", display_name="forgotten")
        accessor = (await vault.ask("read", "auth/token/lookup-self", token=unused)).data["accessor"]
        clock.advance(22 * DAY)
        never = (await vault.ask("update", "auth/token/create", {"policies": ["default"], "ttl": "20d"})).auth[
            "accessor"
        ]
        clock.advance(3 * DAY)
        await use(vault, "services/stripe", coder)
        await vault.ask("read", "secret/data/fresh")
        await vault.ask("update", "secret/data/fresh", {"data": {"value": "w" * 20}})
        found = await stale(vault, days="20")
        old = ["unused", "never_rotated"]
        assert {name: why for (kind, name), why in found.items() if kind == "secret"} == {
            "stripe/api-key": ["never_rotated", "no_expiry"],
            "spare": [*old, "no_expiry"],
            "dated": ["expired", *old],
            "due": ["rotation_due", *old],
        }
        assert found["service", "spare"] == ["unused"]
        assert ("service", "stripe") not in found
        assert (found["token", accessor], found["token", never]) == (["unused"], ["never_used"])
        assert found["agent", "idle"] == ["inactive"]
        assert ("agent", "coder") not in found
        assert {kind for kind, _ in await stale(vault, why="inactive,never_used", days="20")} == {"agent", "token"}
        assert ("secret", "spare") in await stale(vault, why="unused", days="24")
        assert not await stale(vault, why="unused,inactive,never_rotated", days="200")

    play(scenario, clock=clock)


def test_a_report_is_for_whoever_may_ask_and_for_their_own_org_and_is_recorded():
    async def scenario(vault):
        await stripe(vault)
        root = await org(vault, "acme")
        await vault.ask("update", "secret/data/theirs", {"data": {"value": CANARY}}, token=root)
        coder = await agent(vault, services=["stripe"])
        for name in ("access", "stale"):
            assert isinstance(await refusal(report(vault, name, token=coder)), PolicyDenied)
            without = await policy_token(vault, f'path "sys/reports/{name}" {{ capabilities = ["read"] }}')
            assert isinstance(await refusal(report(vault, name, token=without)), PolicyDenied)
            allowed = await policy_token(vault, f'path "sys/reports/{name}" {{ capabilities = ["read", "sudo"] }}')
            async with recorded(vault) as records:
                text = json.dumps(await report(vault, name, token=allowed))
            assert "stripe/api-key" in text
            assert "theirs" not in text
            assert {record.path for record in records} == {f"sys/reports/{name}"}
            assert "stripe" not in json.dumps(await report(vault, name, token=root))

    play(scenario)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("access", {"limit": "0"}),
        ("access", {"after": "yesterday"}),
        ("access", {"secret": "../x"}),
        ("stale", {"days": "-1"}),
        ("stale", {"why": "boredom"}),
        ("stale", {"limit": "1000000"}),
    ],
)
def test_odd_wishes_are_bad_requests(name, wanted):
    async def scenario(vault):
        assert isinstance(await refusal(report(vault, name, **wanted)), InvalidRequest)

    play(scenario)


def test_a_report_gives_no_more_rows_than_asked_for_and_says_so():
    async def scenario(vault):
        for number in range(5):
            await vault.ask("update", f"secret/data/s{number}", {"data": {"value": "x" * 20}})
        for name in ("access", "stale"):
            data = await report(vault, name, limit="3")
            assert (len(data["rows"]), data["more"]) == (3, True)
            data = await report(vault, name, limit="5", **({"why": "no_expiry"} if name == "stale" else {}))
            assert (len(data["rows"]), data["more"]) == (5, False)

    play(scenario)


def test_a_third_report_at_once_is_refused():
    async def scenario(vault):
        answers = await asyncio.gather(*(refusal(report(vault, "stale")) for _ in range(3)))
        assert [type(answer) for answer in answers if answer] == [RateLimited]
        assert await refusal(report(vault, "stale")) is None

    play(scenario)


def test_more_names_than_are_counted_are_left_out_and_that_is_said():
    usage = Usage(lambda _path: True, {}, most=10)
    for number in range(30):
        record = Record(
            phase=Phase.INTENT, id="x", operation="read", path=f"secret/data/s{number}", caller=f"agent/a{number}"
        )
        usage.add(record, 1.0)
    assert (len(usage.pairs), len(usage.callers.at), usage.complete, usage.records) == (10, 10, False, 30)


def test_a_window_of_the_journal_is_read_from_its_end_and_no_further_than_needed():
    clock = FrozenClock()

    async def scenario(vault):
        for _ in range(3):
            await asyncio.gather(*(vault.ask("read", "sys/policies/acl/default") for _ in range(150)))
            await vault.vault.journal.drain()
            clock.advance(3 * DAY)
        await stripe(vault)
        await vault.vault.journal.drain()
        scan, pages = vault.node.store.scan, []

        async def counted(*args, **options):
            pages.append(args)
            return await scan(*args, **options)

        vault.node.store.scan = counted
        after = str(vault.vault.clock.now() - DAY)
        wanted = {"secret": "stripe/api-key", "after": after}
        found = (await vault.ask("read", "sys/audit-log", wanted)).data["records"]
        assert {record["path"] for record in found} == {"secret/data/stripe/api-key"}
        assert 0 < len(pages) < 4
        assert len((await vault.ask("read", "sys/audit-log", {"before": after, "limit": "9"})).data["records"]) == 9

    play(scenario, clock=clock)
