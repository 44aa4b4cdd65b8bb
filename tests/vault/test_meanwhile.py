"""What happens between two steps of the door: somebody else writes, or whoever asked goes away."""

import asyncio

import pytest

from keyhole.core.record import Phase
from vault.world import SERVICE, agent, play, policy_token, recorded, refusal, stripe, use

BODIES = {
    "secret/data/new": ({"data": {"value": "theirs"}}, {"data": {"value": "mine"}}),
    "secret/metadata/new": ({"owner": "theirs"}, {"owner": "mine"}),
    "services/new": ({**SERVICE, "hosts": ["theirs.example.com"]}, {**SERVICE, "hosts": ["mine.example.com"]}),
    "agents/new": ({"description": "theirs"}, {"description": "mine"}),
}


@pytest.mark.parametrize("path", BODIES)
def test_who_may_only_create_does_not_replace_what_was_made_a_moment_before(path, monkeypatch):
    async def scenario(vault):
        await stripe(vault)
        text = (
            f'path "{path}" {{ capabilities = ["create"] }}\npath "secret/data/stripe/*" {{ capabilities = ["read"] }}'
        )
        token = await policy_token(vault, text)
        theirs, mine = BODIES[path]
        dispatch = vault.vault._dispatch

        async def later(state, caller, asked):
            if "given" in caller.policies:
                await vault.ask("update", path, theirs)
            return await dispatch(state, caller, asked)

        monkeypatch.setattr(vault.vault, "_dispatch", later)
        error = await refusal(vault.ask("update", path, mine, token=token))
        data = (await vault.ask("read", path)).data
        kept = data["data"].reveal().decode() if path.startswith("secret/data") else str(data)
        assert (error and error.code, "theirs" in kept, "mine" in kept) == ("policy_denied", True, False)

    play(scenario)


@pytest.mark.parametrize("rule", ['capabilities = ["list"]', 'capabilities = ["deny"]', 'capabilities = ["use"]'])
@pytest.mark.parametrize("path", ["secret/data/stripe/{}", "services/{}"])
def test_a_refused_write_does_not_tell_whether_there_is_anything(path, rule):
    async def scenario(vault):
        await stripe(vault)
        token = await policy_token(vault, f'path "{path.format("*")}" {{ {rule} }}')
        there, nothing = ("api-key", "nothing") if "secret" in path else ("stripe", "nothing")
        errors = [await refusal(vault.ask("update", path.format(name), token=token)) for name in (there, nothing)]
        assert [(e.code, e.reason, e.hint) for e in errors] == [(errors[0].code, errors[0].reason, errors[0].hint)] * 2

    play(scenario)


@pytest.mark.parametrize("operation", ["read", "use"])
def test_whoever_goes_away_before_the_intent_is_durable_leaves_an_outcome(operation, monkeypatch):
    async def scenario(vault):
        await stripe(vault)
        token = await agent(vault, services=["stripe"])
        asked = use(vault, "services/stripe", token) if operation == "use" else vault.ask("read", "secret/data/x")
        intend, queued = vault.vault.journal.intend, asyncio.Event()

        def watched(record, org_id):
            queued.set()
            return intend(record, org_id)

        monkeypatch.setattr(vault.vault.journal, "intend", watched)
        async with recorded(vault) as records:
            task = asyncio.create_task(asked)
            await queued.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert [r.phase for r in records] == [Phase.INTENT, Phase.OUTCOME]

    play(scenario)


@pytest.mark.parametrize(("error", "result"), [(RuntimeError("x"), "internal"), (asyncio.CancelledError(), "aborted")])
def test_a_loan_that_breaks_has_an_outcome(error, result, monkeypatch):
    async def scenario(vault):
        await stripe(vault)
        token = await agent(vault, services=["stripe"])

        async def broken(*_, **_more):
            raise error

        monkeypatch.setattr(vault.vault, "_lend", broken)
        async with recorded(vault) as records:
            with pytest.raises(type(error)):
                await use(vault, "services/stripe", token)
        assert [(r.phase, r.result) for r in records] == [(Phase.INTENT, ""), (Phase.OUTCOME, result)]

    play(scenario)
