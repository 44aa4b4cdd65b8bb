"""``sys/own/``: an agent sees its own records and leases, and asks for access; nothing of anybody else's."""

from keyhole.core.errors import Conflict, InvalidRequest, NotFound, PolicyDenied
from vault.world import CANARY, agent, play, policy_token, refusal, stripe, use

APPROVER = """
path "approvals/*" { capabilities = ["read", "list", "update"] }
path "services/stripe" { capabilities = ["use"] }
path "agents/+/services/stripe" { capabilities = ["create", "update"] }
"""


def test_an_agent_sees_its_own_records_and_no_others():
    async def scenario(vault):
        await stripe(vault)
        coder, other = await agent(vault, "coder"), await agent(vault, "other")
        await vault.ask("read", "sys/what-can", token=coder)
        await vault.ask("read", "auth/token/lookup-self", token=other)
        found = (await vault.ask("read", "sys/own/audit-log", token=coder)).data["records"]
        assert {record["caller"] for record in found} == {"agent/coder"}
        assert "sys/what-can" in {record["path"] for record in found}
        named = (await vault.ask("read", "sys/own/audit-log", {"agent": "other", "limit": 5}, token=coder)).data
        assert {record["caller"] for record in named["records"]} == {"agent/coder"}
        assert CANARY not in str(found)

    play(scenario)


def test_who_was_refused_a_credential_is_found_by_its_name_and_learns_no_name_from_it():
    async def scenario(vault):
        await stripe(vault)
        coder = await agent(vault, "coder")
        await refusal(vault.ask("read", "secret/data/stripe/api-key", token=coder))
        await refusal(use(vault, "services/stripe", coder))
        about = {"secret": "stripe/api-key", "agent": "coder", "result": "policy_denied"}
        found = (await vault.ask("read", "sys/audit-log", about)).data["records"]
        assert [record["operation"] for record in found] == ["read", "use"]

        own = (await vault.ask("read", "sys/own/audit-log", {"secret": "stripe/api-key"}, token=coder)).data["records"]
        assert [record["operation"] for record in own] == ["read"], "nor does asking for a name say whether it is right"
        shown = (await vault.ask("read", "sys/own/audit-log", {"service": "stripe"}, token=coder)).data["records"]
        assert [(record["phase"], record.get("secrets")) for record in shown] == [("refused", None)]

    play(scenario)


def test_access_is_asked_for_once_and_given_by_somebody_else():
    async def scenario(vault):
        await stripe(vault)
        coder = await agent(vault, "coder")
        asked = (
            await vault.ask("update", "sys/own/requests", {"service": "stripe", "reason": "pay"}, token=coder)
        ).data
        again = (await vault.ask("update", "sys/own/requests", {"service": "stripe"}, token=coder)).data
        assert again["id"] == asked["id"]
        assert (asked["state"], asked["reason"]) == ("pending", "pay")
        own = await refusal(vault.ask("update", f"approvals/requests/{asked['id']}/approve", token=coder))
        assert isinstance(own, PolicyDenied)
        approver = await policy_token(vault, APPROVER)
        await vault.ask("update", f"approvals/requests/{asked['id']}/approve", token=approver)
        usable = (await vault.ask("read", "sys/what-can", token=coder)).data["services"]
        assert [service["name"] for service in usable] == ["stripe"]
        assert (await vault.ask("read", "sys/own/requests", token=coder)).data["requests"] == []
        more = await refusal(vault.ask("update", "sys/own/requests", {"service": "stripe"}, token=coder))
        assert isinstance(more, Conflict)

    play(scenario)


def test_approving_takes_what_granting_takes():
    async def scenario(vault):
        await stripe(vault)
        coder = await agent(vault, "coder")
        asked = (await vault.ask("update", "sys/own/requests", {"service": "stripe"}, token=coder)).data
        approve = f"approvals/requests/{asked['id']}/approve"
        weak = await policy_token(vault, 'path "approvals/*" { capabilities = ["read", "update"] }')
        assert isinstance(await refusal(vault.ask("update", approve, token=weak)), PolicyDenied)
        without_use = APPROVER.replace('path "services/stripe" { capabilities = ["use"] }', "")
        no_use = await policy_token(vault, without_use)
        assert isinstance(await refusal(vault.ask("update", approve, token=no_use)), PolicyDenied)
        assert (await vault.ask("read", "sys/what-can", token=coder)).data["services"] == []
        denied = await vault.ask("update", f"approvals/requests/{asked['id']}/deny")
        assert denied.data["state"] == "denied"
        mine = (await vault.ask("read", "sys/own/requests", token=coder)).data["requests"]
        assert [request["state"] for request in mine] == ["denied"]

    play(scenario)


def test_what_does_not_exist_is_asked_for_alike_and_cannot_be_granted():
    async def scenario(vault):
        await stripe(vault)
        coder = await agent(vault, "coder")
        real = (await vault.ask("update", "sys/own/requests", {"service": "stripe"}, token=coder)).data
        made_up = (await vault.ask("update", "sys/own/requests", {"service": "nothing"}, token=coder)).data
        assert real.keys() == made_up.keys()
        refused = await refusal(vault.ask("update", f"approvals/requests/{made_up['id']}/approve"))
        assert isinstance(refused, NotFound)

    play(scenario)


def test_only_agents_ask_and_only_with_names():
    async def scenario(vault):
        coder = await agent(vault, "coder")
        root = await refusal(vault.ask("update", "sys/own/requests", {"service": "stripe"}))
        assert isinstance(root, InvalidRequest)
        for odd in ("", "../x", "a b", 7, ["stripe"]):
            bad = await refusal(vault.ask("update", "sys/own/requests", {"service": odd}, token=coder))
            assert isinstance(bad, InvalidRequest), odd

    play(scenario)


def test_leases_of_the_own_token_only():
    async def scenario(vault):
        coder = await agent(vault, "coder")
        assert (await vault.ask("read", "sys/own/leases", token=coder)).data == {"leases": []}
        assert (await vault.ask("read", "sys/own/leases")).data == {"leases": []}

    play(scenario)


def test_an_agent_learns_which_of_its_services_cannot_lend_what_they_name():
    async def scenario(vault):
        await stripe(vault)
        coder = await agent(vault, "coder", services=["stripe"])
        other = await agent(vault, "other", services=[])
        assert (await vault.ask("read", "sys/own/drift", token=coder)).data == {"drift": []}
        await vault.ask("update", "secret/metadata/stripe/api-key", {"expires_at": 1.0})
        [found] = (await vault.ask("read", "sys/own/drift", token=coder)).data["drift"]
        assert (found["service"], found["code"]) == ("stripe", "expired")
        await vault.ask("delete", "secret/metadata/stripe/api-key")
        [found] = (await vault.ask("read", "sys/own/drift", token=coder)).data["drift"]
        assert (found["secret"], found["code"]) == ("stripe/api-key#value", "not_found")
        assert (await vault.ask("read", "sys/own/drift", token=other)).data == {"drift": []}

    play(scenario)


def test_the_records_of_one_token_are_found_among_any_number_of_others():
    async def scenario(vault):
        await stripe(vault)
        mine, loud = await agent(vault, "coder"), await agent(vault, "coder")
        accessor = (await vault.ask("read", "auth/token/lookup-self", token=mine)).data["accessor"]
        for _ in range(5):
            await vault.ask("read", "auth/token/lookup-self", token=loud)
        asked = {"limit": 3, "accessor": accessor}
        found = (await vault.ask("read", "sys/own/audit-log", asked, token=loud)).data["records"]
        assert {record["accessor"] for record in found} == {accessor}
        assert (await vault.ask("read", "sys/own/audit-log", {"accessor": "x"}, token=loud)).data["records"] == []

    play(scenario)
