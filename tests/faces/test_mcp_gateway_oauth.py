"""Servers behind OAuth: who gives tokens is asked of them, and of nobody else's; tokens go to their server alone."""

import json

import pytest

import mcp_provider
import oauth_provider
from faces.test_mcp_gateway import play
from keyhole.core.errors import InvalidRequest, KeyholeError, NotFound, PolicyDenied

REDIRECT = "http://127.0.0.1:1/callback"
HERE = {"allow_addresses": ["127.0.0.1"]}


class Behind:
    """A stage whose gateway has a server `far` behind OAuth, with the words of `mcp server login`."""

    def __init__(self, stage, far):
        self.stage, self.far = stage, far

    async def resource(self, name="far", far=None, **more):
        body = {"url": (far or self.far).resource, "redirect_uri": REDIRECT, "server": name, **HERE, **more}
        return await self.stage.write(f"oauth/connections/{name}/resource", body)

    async def begin(self, name="far"):
        begun = await self.stage.write(f"oauth/connections/{name}/authorize", {"redirect_uri": REDIRECT})
        return begun["authorization_url"]

    async def finish(self, url):
        return await self.stage.write("oauth/callback", {"url": url})

    async def login(self, name="far", far=None, **more):
        await self.resource(name, far, **more)
        return await self.finish((far or self.far).agree(await self.begin(name)))

    async def bind(self, name="far", far=None, **more):
        body = {"url": (far or self.far).resource, "oauth": f"/oauth/{name}", **HERE, **more}
        await self.stage.write(f"tools/servers/{name}", body)

    async def ready(self):
        await self.login()
        await self.bind()
        await self.stage.approve("far")
        await self.stage.grant("tools/*")

    def tokens(self):
        return [headers.get("Authorization", "") for headers in self.far.asked_of(self.far.path)]


def behind(scenario, far=None, **more):
    with oauth_provider.running(far or mcp_provider.Server()) as running:

        async def wrapped(stage):
            stage.opened.vault.net = mcp_provider.asker()
            await stage.write("sys/mounts/oauth", {"type": "oauth"})
            await scenario(Behind(stage, running))

        play(wrapped, mcp_provider.asker, **more)


def test_a_server_is_used_with_a_token_that_was_asked_for_it_and_that_nobody_sees():
    async def scenario(world):
        far = world.far
        await world.ready()
        url = await world.begin()
        for word in ("resource=https%3A%2F%2F127.0.0.1", "code_challenge_method=S256", "scope=read+offline_access"):
            assert word in url
        [client] = far.clients.values()
        assert (client["application_type"], client["redirect_uris"]) == ("native", [REDIRECT])
        assert [form["resource"] for path, form in far.forms if path == "/token"] == [far.resource]
        assert await world.stage.shown() == ["far__whoami", "far__write"]
        said = await world.stage.call("whoami", name="far")
        [token] = far.access
        assert token not in said
        assert f"you are {'*' * len(token)}" in said
        assert set(world.tokens()) == {"", f"Bearer {token}"}  # it was looked at once without
        outcome = (await world.stage.records("tools/far/whoami"))[-1]
        assert (outcome["result"], outcome["secrets"]) == ("ok", ["/oauth/far"])
        assert world.stage.agent._token not in json.dumps(far.seen)  # what clients send is not passed on
        await world.resource()
        assert len(far.clients) == 1  # a second login needs no second client

    behind(scenario)


def test_a_token_that_has_ended_or_is_refused_is_renewed_once_and_a_dead_consent_names_the_way_out():
    async def scenario(world):
        far = world.far
        await world.ready()
        await world.stage.call("whoami", name="far")
        far.refuses |= set(far.access)
        assert "you are ***" in await world.stage.call("whoami", name="far")
        assert (far.asked["refresh_token"], len(far.access)) == (1, 2)
        assert [form["resource"] for _, form in far.forms] == [far.resource] * 2
        far.refuses |= set(far.access)  # the next one is not asked for within a minute
        said = await world.stage.call("whoami", name="far")
        assert "consent_required: the server far takes its token no more" in said
        assert "keyhole mcp server login far" in said
        assert far.asked["refresh_token"] == 1
        assert not [token for token in far.access if token in said]
        far.access.clear()
        await world.login()
        assert "you are ***" in await world.stage.call("whoami", name="far")

    behind(scenario)


def test_scopes_that_are_missing_are_named_with_the_command_and_added_to_those_of_before():
    async def scenario(world):
        far = world.far
        far.needs = {"write": ["write", "x;rm -rf ~", "`id`"]}
        await world.ready()
        said = await world.stage.call("write", name="far")
        assert "consent_required: the server far wants for this: write" in said
        assert "next: keyhole mcp server login far --scope write" in said
        assert "`" not in said
        assert "rm" not in said
        assert far.asked["refresh_token"] == 0
        far.needs = {"write": ["write"]}
        assert (await world.resource(scopes=["write"]))["status"] == "connected"  # as before, until there is consent
        assert (await world.login())["scopes_granted"] == ["read", "offline_access", "write"]
        assert "you are ***" in await world.stage.call("write", name="far")

    behind(scenario)


def test_a_server_that_wants_a_token_and_has_none_says_what_to_do():
    async def scenario(world):
        await world.stage.write("tools/servers/far", {"url": world.far.resource, **HERE})
        with pytest.raises(KeyholeError) as caught:
            await world.stage.gateway.listing("far")
        assert (caught.value.code, caught.value.hint) == ("consent_required", "keyhole mcp server login far")
        await world.resource()
        await world.bind()
        with pytest.raises(KeyholeError) as caught:
            await world.stage.gateway.listing("far")
        assert (caught.value.code, caught.value.hint) == ("consent_required", "keyhole mcp server login far")

    behind(scenario)


def test_no_server_and_no_service_gets_the_token_of_another():
    async def scenario(world):
        with oauth_provider.running(mcp_provider.Server()) as other:
            await world.ready()
            for url in (other.resource, f"{world.far.url}/other/mcp", f"{world.far.url}/mcp2", f"{world.far.url}/"):
                with pytest.raises(PolicyDenied, match="alone"):
                    await world.stage.write("tools/servers/bad", {"url": url, "oauth": "/oauth/far", **HERE})
            service = {"hosts": ["api.test"], "secret": "/oauth/far", "inject": {"kind": "bearer"}}
            with pytest.raises(PolicyDenied, match="may go to"):
                await world.stage.write("services/thief", service)
            # a connection that is led elsewhere afterwards takes its token away, and does not bring the new one along
            await world.login("far", other)
            before = len(world.tokens())
            assert "policy_denied" in await world.stage.call("whoami", name="far")
            assert len(world.tokens()) == before
            results = [record.get("result") for record in await world.stage.records("tools/far/whoami")]
            assert results == [None, "policy_denied"]
            await world.stage.gateway.close()
            assert await world.stage.shown() == []
            assert not [token for token in world.tokens() if token.removeprefix("Bearer ") in other.access]
            assert not [headers for headers in other.asked_of("/mcp") if "Authorization" in headers]

    behind(scenario)


def test_binding_a_token_needs_read_on_it():
    async def scenario(world):
        await world.login()
        policy = 'path "tools/servers/*" { capabilities = ["create", "update"] }'
        await world.stage.write("sys/policies/acl/half", {"policy": policy})
        made = await world.stage.opened.ask("update", "auth/token/create", {"policies": ["half"]})
        body = {"url": world.far.resource, "oauth": "/oauth/far"}
        with pytest.raises(PolicyDenied, match="needs read"):
            await world.stage.write("tools/servers/mine", body, token=made.auth["client_token"])
        for bad in ({"oauth": "oauth/far"}, {"headers": {"Authorization": "Bearer {evil/token}"}}):
            with pytest.raises(InvalidRequest):
                await world.stage.write("tools/servers/mine", {**body, **HERE, **bad})
        with pytest.raises(InvalidRequest):
            await world.stage.write("tools/servers/mine", {"command": "x", "oauth": "/oauth/far"})

    behind(scenario)


PRIVATE = "https://169.254.169.254/latest"
HUGE = (200, {}, b'{"a": "' + b"x" * 2_000_000 + b'"}')
DEEP = (200, {}, b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}")
MOVED = (302, {"Location": "https://169.254.169.254/"}, b"")
WRONGS = {
    "the resource is another server": ("described", {"resource": "https://other.test/mcp"}),
    "the resource is another path": ("described", {"resource": "{url}/other"}),
    "the resource is no text": ("described", {"resource": ["{url}/mcp"]}),
    "nobody gives tokens": ("described", {"authorization_servers": []}),
    "the issuer is a private address": ("described", {"authorization_servers": [PRIVATE]}),
    "the issuer is plain": ("described", {"authorization_servers": ["http://issuer.test"]}),
    "the issuer is a file": ("described", {"authorization_servers": ["file:///etc/passwd"]}),
    "the issuer calls itself otherwise": ("published", {"issuer": "https://honest.test"}),
    "the issuer with a slash": ("published", {"issuer": "{url}/"}),
    "no PKCE": ("published", {"code_challenge_methods_supported": None}),
    "plain PKCE only": ("published", {"code_challenge_methods_supported": ["plain"]}),
    "S256 in a text": ("published", {"code_challenge_methods_supported": "S256"}),
    "the token endpoint is plain": ("published", {"token_endpoint": "http://issuer.test/token"}),
    "consent by script": ("published", {"authorization_endpoint": "javascript:alert(1)"}),
    "no way to register": ("published", {"registration_endpoint": None}),
    "registering at a private address": ("published", {"registration_endpoint": PRIVATE}),
    "metadata at a private address": ("challenge", {"resource_metadata": PRIVATE}),
    "metadata in a file": ("challenge", {"resource_metadata": "file:///etc/passwd"}),
    "huge metadata": ("pages", {mcp_provider.RESOURCE + "/mcp": HUGE}),
    "deep metadata": ("pages", {mcp_provider.RESOURCE + "/mcp": DEEP}),
    "metadata elsewhere": ("pages", {mcp_provider.RESOURCE + "/mcp": MOVED}),
    "huge metadata of the issuer": ("pages", {mcp_provider.ISSUER: HUGE}),
    "a list for the issuer": ("pages", {mcp_provider.ISSUER: (200, {}, b"[]")}),
    "a client without an id": ("told", {"client_id": None}),
    "a client id with a line": ("told", {"client_id": "a\r\nX: y"}),
    "an unknown way to prove the client": ("told", {"token_endpoint_auth_method": "tls"}),
    "a refusal to register": ("pages", {"/register": (400, {}, b'{"error": "invalid_redirect_uri"}')}),
}


def test_no_hostile_document_leads_anywhere():
    async def scenario(world):
        far = world.far
        for what, (where, changes) in WRONGS.items():
            text = json.dumps(changes) if where != "pages" else None
            put = changes if text is None else json.loads(text.replace("{url}", far.url))
            setattr(far, where, put)
            with pytest.raises(KeyholeError) as caught:
                await world.resource()
            assert "internal" not in caught.value.code, what
            setattr(far, where, {})
            with pytest.raises(NotFound):
                await world.stage.opened.get("oauth/connections/far")
        await world.resource()

    behind(scenario)


def test_no_answer_of_another_issuer_is_taken_and_no_code_is_sent_for_one():
    async def scenario(world):
        await world.resource()
        for changes in (
            {"iss": "https://honest.test"},
            {"iss": None},
            {"state": "forged"},
            {"iss": world.far.url + "/"},
        ):
            back = world.far.agree(await world.begin(), **changes)
            with pytest.raises(InvalidRequest):
                await world.finish(back)
        back = world.far.agree(await world.begin(), iss="https://honest.test", error="access_denied", code=None)
        with pytest.raises(InvalidRequest) as caught:
            await world.finish(back)
        assert "issuer" in caught.value.reason
        assert not world.far.forms
        # the resource changes its issuer while somebody consents
        back = world.far.agree(await world.begin())
        world.far.pages = {
            f"{mcp_provider.ISSUER}/b": mcp_provider.answer(200, {**world.far.own(), "issuer": f"{world.far.url}/b"})
        }
        world.far.described = {"authorization_servers": [f"{world.far.url}/b"]}
        await world.resource()
        with pytest.raises(InvalidRequest, match="changed"):
            await world.finish(back)
        assert len(world.far.clients) == 2  # a client is its issuer's

    behind(scenario)


def test_a_client_that_was_given_is_used_at_its_issuer_only():
    async def scenario(world):
        far = world.far
        far.given, far.published = {"mine:s3cret"}, {"token_endpoint_auth_methods_supported": None}
        await world.login(client_id="mine", client_secret="s3cret")
        assert not far.clients
        shown = await world.stage.opened.get("oauth/connections/far")
        assert (shown["client_id"], shown["client_secret_set"], shown["client_auth"]) == ("mine", True, "basic")
        assert "s3cret" not in json.dumps(shown)
        far.described = {"authorization_servers": [f"{far.url}/b"]}
        with pytest.raises(InvalidRequest, match="other issuers"):
            await world.resource()
        with pytest.raises(InvalidRequest, match="does not name this issuer"):
            await world.resource(issuer=far.url)

    behind(scenario)
