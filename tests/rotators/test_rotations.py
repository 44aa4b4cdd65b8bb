"""A value is replaced at its source without a moment in which none works, whatever fails and whoever dies."""

import asyncio
import json
from dataclasses import replace

import pytest

from keyhole.stores import open_store
from keyhole.testing import FrozenClock, MemorySeal, open_vault
from keyhole.vault.rotating import Work
from rotators.source import FIRST, SETTINGS, Died, Source
from vault.world import Place, journal, play, policy_token, refusal, rows

HOUR, DAY = 3600, 86_400
ROTATION = {
    "secret": "acme/key",
    "rotator": "http",
    "settings": SETTINGS,
    "every": "30d",
    "grace": "1h",
    "handle": {"id": "0"},
}
_FAST = {"poll": 0.001, "slowest_poll": 0.002}


async def prepared(vault, source, **changes):
    vault.vault.net = source
    steps = vault.vault.rotations.steps
    steps.limits = replace(steps.limits, **_FAST)
    await vault.ask("update", "secret/data/acme/key", {"data": {"value": FIRST, "note": "stays"}})
    await vault.ask("update", "secret/data/acme/admin", {"data": {"token": "the-admin-token-1234"}})
    await vault.ask("update", "sys/rotations/acme", {**ROTATION, **changes})


def rotating(scenario, **changes):
    """Run ``scenario(vault, clock, source)`` with a rotation ``acme``."""
    clock, source = FrozenClock(), Source()

    async def wrapped(vault):
        await prepared(vault, source, **changes)
        await scenario(vault, clock, source)

    return play(wrapped, clock=clock)


async def value(vault):
    return await vault.get("secret/data/acme/key")


async def stands(vault):
    return (await vault.ask("read", "sys/rotations/acme")).data


async def rotate(vault, **data):
    return (await vault.ask("update", "sys/rotations/acme/rotate", data)).data


async def pass_time(vault, clock, seconds):
    clock.advance(seconds)
    for _ in range(3):
        await vault.node.sweep()


def test_a_value_is_made_tried_put_in_place_and_the_old_one_revoked_after_its_grace():
    async def scenario(vault, clock, source):
        await pass_time(vault, clock, 29 * DAY)
        assert source.asked == []
        await pass_time(vault, clock, DAY + 1)
        new = (await value(vault))["data"]
        assert source.values == {FIRST, new["value"]}
        assert new["note"] == "stays"
        assert (await stands(vault))["step"] == "grace"
        await pass_time(vault, clock, HOUR - 10)
        assert FIRST in source.values
        await pass_time(vault, clock, 20)
        assert source.values == {new["value"]}
        assert source.asked == ["create", "verify", "revoke"]
        await pass_time(vault, clock, 31 * DAY)
        newer = (await value(vault))["data"]["value"]
        assert source.values == {new["value"], newer}
        await pass_time(vault, clock, 2 * HOUR)
        assert source.values == {newer}

    rotating(scenario)


def test_whoever_asks_gets_a_new_value_now_and_now_means_without_grace():
    async def scenario(vault, clock, source):
        source.not_yet = 3
        first = await rotate(vault)
        assert first["step"] == "grace"
        assert source.asked == ["create", *["verify"] * 4]
        assert "works until" in (await refusal(rotate(vault))).reason
        assert (await rotate(vault, now=True))["step"] == "idle"
        assert source.values == {(await value(vault))["data"]["value"]}
        before = (await value(vault))["data"]["value"]
        await rotate(vault, now=True)
        assert source.values == {(await value(vault))["data"]["value"]} != {before}
        await pass_time(vault, clock, 29 * DAY)
        assert source.asked.count("create") == 2

    rotating(scenario)


def test_the_record_of_a_rotation_names_its_steps_and_no_value():
    async def scenario(vault, _clock, source):
        await rotate(vault, now=True)
        said = [(r.path, r.result, r.secrets) for _, r in await journal(vault) if r.operation == "rotate"]
        assert [result for _, result, _ in said] == ["begun", "cut over", "ok"]
        assert {(path, secrets) for path, _, secrets in said} == {("sys/rotations/acme", ("acme/key",))}
        raw = json.dumps([r.as_data() for _, r in await journal(vault)]) + json.dumps(await stands(vault))
        assert not any(each in raw for each in (*source.values, FIRST, "the-admin-token"))
        assert await rows(vault)

    rotating(scenario)


@pytest.mark.parametrize("what", ["create", "verify"])
def test_a_rotation_that_fails_leaves_the_old_value_and_nothing_else(what):
    async def scenario(vault, clock, source):
        vault.vault.notices.limits = vault.vault.notices.limits._replace()
        await vault.ask("update", "sys/notices/config", {"days": []})
        source.answers[what] = 500 if what == "create" else 400, {"error": FIRST}
        error = await refusal(rotate(vault))
        assert error.code == "target_failed"
        assert f"answers {source.answers[what][0]} to {what}" in error.reason
        assert FIRST not in str(error)
        about = await stands(vault)
        assert (about["step"], about["failures"], about["left"]) == ("idle", 1, [])
        assert source.values == {FIRST}
        assert (await value(vault))["data"]["value"] == FIRST
        asked = len(source.asked)
        await pass_time(vault, clock, 10)
        assert len(source.asked) == asked  # it waits before it tries again
        for _ in range(5):
            await pass_time(vault, clock, HOUR)
        assert (await stands(vault))["failures"] > 2
        told = [r for _, r in await journal(vault) if (r.operation, r.result) == ("notice", "rotation-failed")]
        assert 1 <= len(told) <= 3
        source.answers.clear()
        await pass_time(vault, clock, 6 * HOUR)
        about = await stands(vault)
        assert (about["step"], about["failures"], about["error"]) == ("grace", 0, "")

    rotating(scenario)


def test_a_value_that_the_source_never_knows_is_given_up_and_removed():
    async def scenario(vault, clock, source):
        source.not_yet = 10**6
        await vault.vault.rotations.run(vault.vault.root_org, "acme", asked=True)
        assert (await stands(vault))["step"] == "made"
        for _ in range(20):
            await pass_time(vault, clock, 60)
            if (about := await stands(vault))["failures"]:
                break
        assert about["step"] == "idle"
        assert source.values == {FIRST}

    rotating(scenario)


def test_a_source_that_gives_the_old_value_again_revokes_nothing():
    async def scenario(vault, _clock, source):
        source.answers["create"] = 201, {"key": {"id": "0", "secret": FIRST}}
        assert "in place already" in (await refusal(rotate(vault))).reason
        assert source.values == {FIRST}

    rotating(scenario)


def test_a_secret_that_was_changed_meanwhile_keeps_what_it_got():
    async def scenario(vault, _clock, source):
        source.not_yet = 1
        await vault.vault.rotations.run(vault.vault.root_org, "acme", asked=True)
        await vault.ask("update", "secret/data/acme/key", {"data": {"value": "by-a-person-12345"}})
        error = await refusal(rotate(vault))
        assert "changed while" in error.reason
        assert (await value(vault))["data"]["value"] == "by-a-person-12345"
        assert source.values == {FIRST}

    rotating(scenario)


def test_an_old_value_to_which_somebody_went_back_is_not_revoked():
    async def scenario(vault, clock, source):
        await rotate(vault)
        await vault.ask("update", "secret/data/acme/key", {"data": {"value": FIRST, "note": "stays"}})
        await pass_time(vault, clock, 2 * HOUR)
        assert FIRST in source.values
        about = await stands(vault)
        assert (about["step"], "set back" in about["error"]) == ("idle", True)

    rotating(scenario)


@pytest.mark.parametrize("more", [{"note": "another"}, {}, {"note": "stays", "more": "text"}])
def test_an_old_value_to_which_somebody_went_back_with_other_fields_beside_it_is_not_revoked(more):
    async def scenario(vault, clock, source):
        await rotate(vault)
        await vault.ask("update", "secret/data/acme/key", {"data": {"value": FIRST, **more}})
        await pass_time(vault, clock, 2 * HOUR)
        assert FIRST in source.values

    rotating(scenario)


def test_a_new_value_that_somebody_put_in_place_with_other_fields_beside_it_is_not_revoked():
    async def scenario(vault, clock, source):
        source.not_yet = 1000
        await vault.vault.rotations.run(vault.vault.root_org, "acme", asked=True)
        assert (await stands(vault))["step"] == "made"
        [made] = source.values - {FIRST}
        await vault.ask("update", "secret/data/acme/key", {"data": {"value": made, "note": "another"}})
        for _ in range(40):
            await pass_time(vault, clock, 60)
        assert made in source.values

    rotating(scenario)


def test_what_cannot_be_revoked_is_tried_for_as_long_as_it_takes_and_told():
    async def scenario(vault, clock, source):
        await rotate(vault)
        source.down = True
        for _ in range(12):
            await pass_time(vault, clock, HOUR)
        about = await stands(vault)
        assert (about["step"], about["error"]) == ("revoking", "nobody there")
        told = [r for _, r in await journal(vault) if (r.operation, r.result) == ("notice", "rotation-failed")]
        assert len(told) == 1
        source.down = False
        await pass_time(vault, clock, 7 * HOUR)
        assert (await stands(vault))["step"] == "idle"
        assert source.values == {(await value(vault))["data"]["value"]}

    rotating(scenario)


def test_the_date_of_a_secret_moves_with_its_value():
    async def scenario(vault, clock, _source):
        await vault.ask("update", "secret/metadata/acme/key", {"expires_in": "60d"})
        await pass_time(vault, clock, 30 * DAY + 1)
        about = (await vault.ask("read", "secret/metadata/acme/key")).data
        assert about["rotated_at"] > about["created_time"]
        await pass_time(vault, clock, 29 * DAY)
        assert (await value(vault))["data"]["value"]

    rotating(scenario, every="30d")


def test_a_value_that_a_person_stored_since_is_not_taken_for_the_rotations_own():
    async def scenario(vault, _clock, source):
        await rotate(vault, now=True)
        source.keys["9"] = ("by hand", "by-a-person-12345")
        await vault.ask("update", "secret/data/acme/key", {"data": {"value": "by-a-person-12345"}})
        assert len((await rotate(vault, now=True))["left"]) == 1
        assert "by-a-person-12345" in source.values

    rotating(scenario)


def test_an_old_value_that_nobody_can_name_at_its_source_is_said_to_be_left():
    async def scenario(vault, _clock, source):
        about = await rotate(vault, now=True)
        assert about["step"] == "idle"
        assert about["left"][0].startswith("the value before ")
        assert FIRST in source.values
        await rotate(vault, now=True)
        assert len(source.values) == 2

    rotating(scenario, handle={})


DEATHS = [(what, when) for what in ("create", "verify", "revoke") for when in ("before", "after")]


@pytest.mark.parametrize(("what", "when"), DEATHS)
def test_whoever_dies_at_the_source_loses_nothing(what, when):
    """Another node goes on when the claim of the dead one has run out."""
    clock, source = FrozenClock(), Source()

    async def dies(vault):
        await prepared(vault, source, grace="0s")
        source.dies = (what, when)
        with pytest.raises(Died):
            await vault.vault.rotations.run(vault.vault.root_org, "acme", asked=True)
        source.dies = None
        assert (await value(vault))["data"]["value"] in source.values

    _dies_and_goes_on(clock, source, dies)


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("number", range(1, 10))
def test_whoever_dies_at_any_write_loses_nothing(number, done, monkeypatch):
    clock, source = FrozenClock(), Source()
    save, saved = Work.save, []

    async def cut(self, claim=0.0):
        saved.append(self.rotation.step)
        if len(saved) == number and not done:
            raise Died
        await save(self, claim)
        if len(saved) == number:
            raise Died

    async def dies(vault):
        await prepared(vault, source, grace="0s")
        monkeypatch.setattr(Work, "save", cut)
        with pytest.raises(Died):
            await vault.vault.rotations.run(vault.vault.root_org, "acme", asked=True)
        monkeypatch.setattr(Work, "save", save)
        assert (await value(vault))["data"]["value"] in source.values

    _dies_and_goes_on(clock, source, dies)


def _dies_and_goes_on(clock, source, dies):
    async def goes_on(vault):
        vault.vault.net = source
        steps = vault.vault.rotations.steps
        steps.limits = replace(steps.limits, **_FAST)
        for _ in range(6):
            await pass_time(vault, clock, 100)
            assert (await value(vault))["data"]["value"] in source.values
        about = await stands(vault)
        if about["step"] == "idle" and about["rotated_at"] is None:  # it died before there was anything to go on with
            await rotate(vault)
            about = await stands(vault)
        assert (about["step"], about["left"], about["error"]) == ("idle", [], "")
        assert source.values == {(await value(vault))["data"]["value"]}
        assert FIRST not in source.values
        storage = vault.vault.rotations.storage(vault.vault.root_org)
        assert await storage.list("v") == []

    async def main():
        store, seal = await open_store("memory:", create=True), MemorySeal()
        async with open_vault(store=store, seal=seal, clock=clock) as vault:
            await dies(vault)
            async with open_vault(store=store, seal=seal, clock=clock) as other:
                await goes_on(other)

    asyncio.run(main())


def test_two_nodes_make_one_value(tmp_path):
    place, clock, source = Place(tmp_path), FrozenClock(), Source()

    async def scenario(vault):
        await prepared(vault, source, grace="0s")
        async with place.open(clock=clock) as other:
            other.vault.net = source
            clock.advance(31 * DAY)
            for _ in range(4):
                await asyncio.gather(*(node.sweep() for node in (vault.node, other.node)))
        assert source.asked == ["create", "verify", "revoke"]

    place.play(scenario, clock=clock)


def test_whoever_writes_a_rotation_has_what_it_uses():
    rules = {
        "both": 'path "secret/data/acme/*" { capabilities = ["read", "update"] }',
        "no update": 'path "secret/data/acme/*" { capabilities = ["read"] }',
        "not the admin": 'path "secret/data/acme/key" { capabilities = ["read", "update"] }',
        "blind": 'path "secret/data/acme/*" { capabilities = ["update"] }',
    }
    own = 'path "sys/rotations/*" { capabilities = ["create", "update", "delete"] }'

    async def scenario(vault, _clock, _source):
        await vault.ask("delete", "sys/rotations/acme")
        for what, rule in rules.items():
            token = await policy_token(vault, f"{rule}\n{own}")
            asked = vault.ask("update", "sys/rotations/acme", ROTATION, token=token)
            if what == "both":
                await asked
            else:
                assert (await refusal(asked)).code == "policy_denied", what
        token = await policy_token(vault, f"{rules['both']}\n{own}")
        near = {**ROTATION, "settings": {**SETTINGS, "allow_addresses": ["10.0.0.1"]}}
        error = await refusal(vault.ask("update", "sys/rotations/acme", near, token=token))
        assert "sudo" in error.reason
        run = {"secret": "acme/key", "rotator": "command", "settings": {"argv": ["/bin/true"]}}
        assert "sudo" in (await refusal(vault.ask("update", "sys/rotations/acme", run, token=token))).reason
        vault.vault.rotations.steps.commands = False
        assert "forbidden" in (await refusal(vault.ask("update", "sys/rotations/acme", run))).reason

    rotating(scenario)


@pytest.mark.parametrize(
    "change",
    [
        {"rotator": "pigeon"},
        {"every": "10s"},
        {"every": "1h", "grace": "2h"},
        {"grace": "100d"},
        {"secret": ""},
        {"secret": "../x"},
        {"settings": []},
        {"evry": "1d"},
        {"rotator": "database", "settings": {"roles": "a"}},
        {"rotator": "database", "settings": {"roles": "a,a"}},
        {"rotator": "aws_iam", "settings": {"user": "a b"}},
        {"rotator": "aws_iam", "settings": {"admin": "aws/admin"}},
        {"rotator": "command", "settings": {"argv": ["rotate"]}},
        {"settings": {**SETTINGS, "verify": None}},
        {"settings": {**SETTINGS, "revok": {}}},
        {"settings": {**SETTINGS, "create": {**SETTINGS["create"], "fields": {}}}},
        {"settings": {**SETTINGS, "create": {**SETTINGS["create"], "fields": {"value": "secret"}}}},
        {"settings": {**SETTINGS, "verify": {"url": "https://{{new.value}}.example.com/"}}},
        {"settings": {**SETTINGS, "verify": {"url": "HTTPS://{{new.value}}.example.com/"}}},
        {"settings": {**SETTINGS, "verify": {"url": "https:\t//{{new.value}}.example.com/"}}},
        {"settings": {**SETTINGS, "verify": {"url": "https://acme.example.com/{{secrets.other}}"}}},
        {"settings": {**SETTINGS, "verify": {"url": "https://acme.example.com/{{old.value}}"}}},
        {"settings": {**SETTINGS, "verify": {"url": "https://acme.example.com/{{nonsense}}"}}},
        {"settings": {**SETTINGS, "verify": {"url": "http://acme.example.com/"}}},
        {"settings": {**SETTINGS, "secrets": {"admin": "/database/creds/x"}}},
    ],
)
def test_a_rotation_that_cannot_work_is_refused(change):
    async def scenario(vault, _clock, _source):
        error = await refusal(vault.ask("update", "sys/rotations/other", {**ROTATION, "secret": "acme/b", **change}))
        assert error.code == "invalid_request"

    rotating(scenario)


def test_one_secret_has_one_rotation_which_stays_as_it_is_while_it_is_under_way():
    async def scenario(vault, _clock, source):
        error = await refusal(vault.ask("update", "sys/rotations/other", ROTATION))
        assert "'acme' replaces this secret already" in error.reason
        await rotate(vault)
        assert "under way" in (await refusal(vault.ask("update", "sys/rotations/acme", ROTATION))).reason
        assert "under way" in (await refusal(vault.ask("delete", "sys/rotations/acme"))).reason
        await rotate(vault, now=True)
        await vault.ask("update", "sys/rotations/acme", {**ROTATION, "every": "10d"})
        await rotate(vault, now=True)  # it knows what names its value at the source
        assert len(source.keys) == 1
        await vault.ask("delete", "sys/rotations/acme")
        assert (await refusal(vault.ask("read", "sys/rotations/acme"))).code == "not_found"

    rotating(scenario)


def test_what_is_due_is_done_where_no_server_does_it():
    async def scenario(vault, clock, source):
        assert (await vault.ask("update", "sys/rotations/due")).data["rotations"] == {}
        clock.advance(31 * DAY)
        done = (await vault.ask("update", "sys/rotations/due")).data["rotations"]
        assert done == {"acme": {"step": "grace", "error": ""}}
        clock.advance(2 * HOUR)
        assert (await vault.ask("update", "sys/rotations/due")).data["rotations"]["acme"]["step"] == "idle"
        assert len(source.keys) == 1

    rotating(scenario)
