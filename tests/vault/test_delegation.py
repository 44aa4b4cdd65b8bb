"""Nobody gets more through an agent than it has itself, unless an administrator gave it ``sudo`` for that."""

import pytest

from vault.world import agent, child, org, play, policy_token, refusal, stripe, use

MINT = 'path "agents/+/token" { capabilities = ["update"] }\n'
GRANT = 'path "agents/+/services/+" { capabilities = ["update"] }\n'
USE = 'path "services/stripe" { capabilities = ["use"] }\n'


@pytest.mark.parametrize(
    ("more", "minted"),
    [
        ("", False),
        (USE, True),
        ('path "services/*" { capabilities = ["use"] }\n', True),
        ('path "services/*" { capabilities = ["use"] }\npath "services/stripe" { capabilities = ["deny"] }\n', False),
        ('path "services/stripe" { capabilities = ["read"] }\n', False),
        ('path "agents/coder/token" { capabilities = ["update", "sudo"] }\n', True),
        ('path "agents/other/token" { capabilities = ["update", "sudo"] }\n', False),
    ],
)
def test_a_token_of_an_agent_is_given_only_to_who_could_do_the_same(more, minted):
    async def scenario(vault):
        await stripe(vault)
        await agent(vault, services=["stripe"])
        token = await policy_token(vault, MINT + more)
        error = await refusal(vault.ask("update", "agents/coder/token", {"scope": "proxy"}, token=token))
        assert (error is None) is minted, error
        if error is not None:
            assert error.code == "policy_denied"

    play(scenario)


@pytest.mark.parametrize(
    "rule",
    [
        'path "secret/*" { capabilities = ["read"] }',
        'path "secret/data/+/key" { capabilities = ["read"] }',
        'path "sys/policies/acl/agent/coder" { capabilities = ["update"] }',
    ],
)
def test_a_stronger_agent_does_not_lend_its_rights_to_who_may_mint_tokens(rule):
    async def scenario(vault):
        await agent(vault)
        await vault.ask("update", "sys/policies/acl/agent/coder", {"policy": rule})
        token = await policy_token(vault, MINT + 'path "secret/data/a/key" { capabilities = ["read"] }')
        assert (await refusal(vault.ask("update", "agents/coder/token", token=token))).code == "policy_denied"

    play(scenario)


def test_an_agent_may_make_narrower_tokens_of_itself():
    async def scenario(vault):
        await stripe(vault)
        await agent(vault, services=["stripe"])
        text = 'path "services/*" { capabilities = ["use"] }\npath "agents/coder/token" { capabilities = ["update"] }'
        await vault.ask("update", "sys/policies/acl/agent/coder", {"policy": text})
        own = (await vault.ask("update", "agents/coder/token")).data["token"]
        made = await vault.ask("update", "agents/coder/token", {"scope": "proxy", "num_uses": 1}, token=own)
        assert (await use(vault, "services/stripe", made.data["token"])).lent

    play(scenario)


def test_parameter_limits_of_the_caller_are_not_shed_through_an_agent():
    async def scenario(vault):
        await agent(vault)
        path = 'path "secret/data/a" {{ capabilities = ["update"] {} }}'
        await vault.ask("update", "sys/policies/acl/agent/coder", {"policy": path.format("")})
        token = await policy_token(vault, MINT + path.format('\ndenied_parameters = { "options" = [] }\n'))
        assert (await refusal(vault.ask("update", "agents/coder/token", token=token))).code == "policy_denied"

    play(scenario)


@pytest.mark.parametrize(
    ("more", "granted"),
    [("", False), (USE, True), ('path "agents/coder/services/stripe" { capabilities = ["update", "sudo"] }\n', True)],
)
def test_a_service_is_granted_only_by_who_may_use_it(more, granted):
    async def scenario(vault):
        await stripe(vault)
        coder = await agent(vault)
        token = await policy_token(vault, GRANT + more)
        error = await refusal(vault.ask("update", "agents/coder/services/stripe", token=token))
        assert (error is None) is granted, error
        assert (await refusal(use(vault, "services/stripe", coder)) is None) is granted

    play(scenario)


def test_the_administrator_of_an_org_mints_for_its_own_agents_only():
    async def scenario(vault):
        await stripe(vault)
        await agent(vault, services=["stripe"])
        tenant = await org(vault, "acme")
        assert (await refusal(vault.ask("update", "agents/coder/token", token=tenant))).code == "not_found"
        helper = await child(vault, token=tenant, policies=["default"])
        assert (await refusal(vault.ask("update", "agents/coder/token", token=helper))).code == "policy_denied"

    play(scenario)


def test_a_token_that_was_made_for_an_agent_ends_with_the_token_that_made_it():
    async def scenario(vault):
        await stripe(vault)
        await agent(vault, services=["stripe"])
        token = await policy_token(vault, MINT + USE)
        made = (await vault.ask("update", "agents/coder/token", token=token)).data["token"]
        assert (await use(vault, "services/stripe", made)).lent
        await vault.ask("update", "auth/token/revoke", {"token": token})
        assert (await refusal(use(vault, "services/stripe", made))).code == "unauthenticated"

    play(scenario)


def test_a_token_for_one_use_does_not_buy_one_for_many():
    async def scenario(vault):
        await agent(vault)
        token = await policy_token(vault, MINT, num_uses=2)
        for _ in range(2):
            assert (await refusal(vault.ask("update", "agents/coder/token", token=token))).code == "invalid_request"

    play(scenario)


def test_no_token_sheds_the_run_that_it_was_made_for():
    async def scenario(vault):
        text = 'path "auth/token/create" { capabilities = ["update"] }\n' + MINT
        await agent(vault)
        token = await policy_token(vault, text, run="r-1", on_behalf_of="ann")
        fields = {"run": "r-2", "step": "s-1", "on_behalf_of": "bob"}
        for made in (
            await child(vault, token=token, **fields),
            (await vault.ask("update", "agents/coder/token", fields, token=token)).data["token"],
        ):
            about = (await vault.ask("read", "auth/token/lookup-self", token=made)).data
            assert {name: about.get(name) for name in fields} == {"run": "r-1", "step": "s-1", "on_behalf_of": "ann"}

    play(scenario)


@pytest.mark.parametrize("prefix", ["sys/policies/acl/", "sys/policy/"])
@pytest.mark.parametrize("operation", ["read", "update", "delete"])
def test_a_policy_that_is_denied_is_denied_in_every_case(prefix, operation):
    async def scenario(vault):
        await agent(vault)
        await vault.ask("update", "sys/policies/acl/agent/coder", {"policy": USE})
        text = f'path "{prefix}*" {{ capabilities = ["create", "read", "update", "delete"] }}'
        token = await policy_token(vault, text + f'\npath "{prefix}agent/coder" {{ capabilities = ["deny"] }}')
        for name in ("agent/coder", "agent/Coder", "AGENT/CODER"):
            error = await refusal(vault.ask(operation, prefix + name, {"policy": MINT}, token=token))
            assert error.code == "policy_denied"
        assert await refusal(vault.ask("update", f"{prefix}Mixed", {"policy": MINT}, token=token)) is None
        assert (await vault.ask("read", "sys/policies/acl/agent/coder")).data["policy"] == USE

    play(scenario)


@pytest.mark.parametrize("policy", ["folders", "default"])
def test_a_template_is_not_lent_to_an_agent_for_whom_it_stands_for_something_else(policy):
    async def scenario(vault):
        await agent(vault)
        text = MINT + 'path "secret/data/of/{{identity.entity.metadata.team}}/*" { capabilities = ["read"] }\n'
        await vault.ask("update", f"sys/policies/acl/{policy}", {"policy": text})
        [entity] = (await vault.ask("list", "identity/entity/id")).data["keys"]
        await vault.ask("update", f"identity/entity/id/{entity}", {"metadata": {"team": "ops"}})
        token = await child(vault, policies=[policy, "default"])
        asked = vault.ask("update", "agents/coder/token", {"policies": [policy]}, token=token)
        assert (await refusal(asked)).code == "policy_denied"

    play(scenario)
