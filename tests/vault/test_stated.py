"""The door and what requests say of themselves: recorded always, believed never beyond what the token says."""

import json

import pytest

from keyhole.core.errors import PolicyDenied, Unauthenticated
from keyhole.core.request import Anonymous, LocalOwner, Operation, Request
from keyhole.core.stated import Stated
from keyhole.core.value import Secret
from vault.world import agent, child, journal, play, policy_token, recorded, refusal, stripe, use

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
ALICE = "alice@example.com"


async def ask(vault, token, stated, operation=Operation.READ, path="auth/token/lookup-self", data=None):
    credential = token.encode() if isinstance(token, str) else token
    return await vault.node.handle(Request(credential, operation, path, data or {}, stated=stated))


def context(record):
    return {name: getattr(record, name) for name in ("workflow", "run", "step", "tool", "on_behalf_of", "claimed")}


def test_claims_and_trace_are_in_both_records_and_only_in_those_of_their_request():
    async def scenario(vault):
        coder = await agent(vault, workflow="nightly")
        async with recorded(vault) as found:
            await ask(vault, coder, Stated.of({"run": "1", "step": "a"}, PARENT))
            await ask(vault, coder, None)
        assert [(r.run, r.step, r.workflow, r.claimed, r.trace, r.span) for r in found] == [
            *[("1", "a", "nightly", "run,step", TRACE, SPAN)] * 2,
            *[("", "", "nightly", "", "", "")] * 2,
        ]

    play(scenario)


@pytest.mark.parametrize("of_token", [{}, {"on_behalf_of": ALICE}])
@pytest.mark.parametrize("person", ["bob@example.com", "jwt/bob"])
def test_an_agent_cannot_act_for_a_person_of_its_choice(of_token, person):
    async def scenario(vault):
        await stripe(vault)
        coder = await agent(vault, services=["stripe"], **of_token)
        said = Stated.of({"on_behalf_of": person}, PARENT)
        for operation, path in ((Operation.READ, "auth/token/lookup-self"), (Operation.USE, "services/stripe")):
            async with recorded(vault) as found:
                assert isinstance(await refusal(ask(vault, coder, said, operation, path)), PolicyDenied)
            [record] = found
            assert (record.result, record.caller, record.trace) == ("policy_denied", "agent/coder", TRACE)
            assert record.on_behalf_of == of_token.get("on_behalf_of", "")

    play(scenario)


def test_nobody_says_that_it_is_another_agent_or_another_run_than_its_tokens():
    async def scenario(vault):
        await stripe(vault)
        coder = await agent(vault, services=["stripe"], run="4711", step="fetch", tool="crm")
        async with recorded(vault) as found:
            said = Stated.of({"run": "9999", "step": "pay", "tool": "bank", "workflow": "agent/other"})
            await ask(vault, coder, said, Operation.USE, "services/stripe")
        [intent] = found
        assert intent.caller == "agent/coder"
        assert context(intent) == {
            "workflow": "agent/other", "run": "4711", "step": "fetch", "tool": "crm", "on_behalf_of": "",
            "claimed": "workflow",
        }  # fmt: skip

    play(scenario)


def test_claims_are_not_laundered_through_a_token_that_their_request_makes():
    async def scenario(vault):
        maker = await policy_token(vault, 'path "auth/token/create" { capabilities = ["update"] }')
        said = Stated.of({"run": "9999", "tool": "bank"}, PARENT)
        made = (await ask(vault, maker, said, Operation.UPDATE, "auth/token/create")).auth["client_token"]
        async with recorded(vault) as found:
            await ask(vault, made, None)
        assert {(r.run, r.tool, r.claimed, r.trace) for r in found} == {("", "", "", "")}

    play(scenario)


def test_a_token_brings_the_trace_that_it_was_made_for_and_a_request_a_nearer_one():
    async def scenario(vault):
        coder = await agent(vault, traceparent=PARENT)
        batch = await child(vault, type="batch", policies=["default"], traceparent=PARENT)
        async with recorded(vault) as found:
            await ask(vault, coder, None)
            await ask(vault, batch, None)
            await ask(vault, coder, Stated.of({}, PARENT.replace(SPAN, "1" * 16)))
        assert [(r.trace, r.span) for r in found] == [(TRACE, SPAN)] * 4 + [(TRACE, "1" * 16)] * 2

    play(scenario)


def test_the_owner_of_a_local_vault_names_people_and_strangers_leave_a_trace():
    async def scenario(vault):
        async with recorded(vault) as found:
            await ask(vault, LocalOwner(), Stated.of({"on_behalf_of": ALICE}), path="sys/what-can")
            error = await refusal(ask(vault, "hvs." + "x" * 44, Stated.of({"run": "1"}, PARENT)))
        assert isinstance(error, Unauthenticated)
        assert [(r.on_behalf_of, r.claimed) for r in found[:2]] == [(ALICE, "on_behalf_of")] * 2
        assert (found[2].trace, found[2].run, found[2].caller) == (TRACE, "", "")

    play(scenario)


def test_a_token_that_is_called_like_the_owner_names_nobody():
    async def scenario(vault):
        wanted = {"policies": ["default"]}
        made = await ask(vault, LocalOwner(), None, Operation.UPDATE, "auth/token/create", wanted)
        assert isinstance(
            await refusal(ask(vault, made.auth["client_token"], Stated.of({"on_behalf_of": ALICE}))), PolicyDenied
        )
        [record] = [each for _, each in await journal(vault) if each.result == "policy_denied"]
        assert (record.caller, record.on_behalf_of) == ("user/owner", "")

    play(scenario)


def test_logins_and_wrapped_answers_are_of_their_trace_too():
    async def scenario(vault):
        said = Stated.of({"run": "1"}, PARENT)
        await vault.ask("update", "sys/auth/approle", {"type": "approle"})
        await vault.ask("update", "auth/approle/role/ci", {})
        role = (await vault.ask("read", "auth/approle/role/ci/role-id")).data["role_id"]
        made = (await vault.ask("update", "auth/approle/role/ci/secret-id")).data["secret_id"]
        shown = json.loads(made.reveal()) if isinstance(made, Secret) else made
        wrapped = (await vault.ask("read", "sys/what-can", token=await agent(vault), wrap_ttl=60)).wrap.token
        async with recorded(vault) as found:
            login = {"role_id": role, "secret_id": shown}
            await ask(vault, Anonymous(), said, Operation.UPDATE, "auth/approle/login", login)
            await ask(vault, wrapped, said, Operation.UPDATE, "sys/wrapping/unwrap")
            bad = {**login, "secret_id": "x"}
            assert await refusal(ask(vault, Anonymous(), said, Operation.UPDATE, "auth/approle/login", bad))
        assert [(record.path, record.run, record.trace) for record in found] == [
            *[("auth/approle/login", "1", TRACE)] * 2,
            *[("sys/wrapping/unwrap", "1", TRACE)] * 2,
            ("auth/approle/login", "", TRACE),
        ]

    play(scenario)


def test_one_query_finds_a_trace():
    async def scenario(vault):
        await stripe(vault)
        coder = await agent(vault, services=["stripe"])
        await ask(vault, coder, Stated.of({}, PARENT), Operation.USE, "services/stripe")
        await use(vault, "services/stripe", coder)
        found = (await vault.ask("read", "sys/audit-log", {"trace": TRACE})).data["records"]
        assert [(list(record["secrets"]), record["span"]) for record in found] == [(["stripe/api-key"], SPAN)]
        own = (await vault.ask("read", "sys/own/audit-log", {"trace": TRACE}, token=coder)).data["records"]
        assert own == found
        assert len(await journal(vault)) > len(found)

    play(scenario)
