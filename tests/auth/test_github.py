"""People who log in with a token of GitHub. GitHub is a stand-in that knows its tokens, organizations and teams."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from faces.api_client import play
from keyhole.core.errors import UpstreamUnreachable
from keyhole.net.ask import Heard

TOKEN = "ghp_0123456789abcdefghijklmnopqrstuvwxyz"


class GitHub:
    """A stand-in for GitHub's API."""

    def __init__(self):
        self.asked = []
        self.away = False
        self.user = {"login": "Ann-X", "id": 7}
        self.orgs = [{"login": "Other", "id": 1}, {"login": "Acme", "id": 42}]
        self.teams = [
            {"name": "Blue Team", "slug": "blue-team", "organization": {"login": "Acme", "id": 42}},
            {"name": "Admins", "slug": "admins", "organization": {"login": "Other", "id": 1}},
        ]

    async def ask(self, method, url, *, headers=(), body=b"", ca_pem="", allow=()):
        self.asked.append(url)
        if self.away:
            raise UpstreamUnreachable("GitHub is away")
        if dict(headers)["Authorization"] != f"Bearer {TOKEN}":
            return Heard(401, {}, b'{"message": "Bad credentials"}')
        parts = urlsplit(url)
        found = {"/user": self.user, "/user/orgs": self.orgs, "/user/teams": self.teams}[parts.path]
        if isinstance(found, list):
            page = int(parse_qs(parts.query).get("page", ["1"])[0])
            found = found[(page - 1) * 100 : page * 100]
        return Heard(200, {}, json.dumps(found).encode())


def scene(scenario, **config):
    """``scenario(ask, github, login)``"""

    async def go(ask, vault):
        github = vault.vault.net = GitHub()
        wanted = {"organization": "acme", "token_policies": "base", **config}
        made = await ask("POST", "auth/github/config", wanted)
        assert made.status == 204, made.body
        for path, value in (("teams/Blue Team", "blue"), ("teams/admins", "admin"), ("users/ann-x", "ann,extra")):
            assert (await ask("POST", f"auth/github/map/{path}", {"value": value})).status == 204

        async def login(token=TOKEN):
            return await ask("POST", "auth/github/login", {"token": token}, token=None)

        return await scenario(ask, github, login)

    return play(go, enabled=("sys/auth/github",))


def test_a_member_gets_the_policies_of_the_mount_the_team_and_the_user():
    async def scenario(ask, github, login):
        answer = await login()
        auth = answer.json["auth"]
        assert auth["token_policies"] == ["ann", "base", "blue", "default", "extra"]
        assert auth["metadata"] == {"org": "Acme", "username": "Ann-X"}
        assert {urlsplit(url).hostname for url in github.asked} == {"api.github.com"}
        assert TOKEN not in answer.body.decode()
        entity = (await ask("GET", f"identity/entity/id/{auth['entity_id']}")).json["data"]
        assert [each["name"] for each in entity["aliases"]] == ["Ann-X"]
        read = (await ask("GET", "auth/github/map/teams/blue team")).json["data"]
        assert read == {"key": "blue team", "value": "blue"}
        assert (await ask("LIST", "auth/github/map/teams")).json["data"]["keys"] == ["admins", "blue team"]

    scene(scenario)


def test_an_organization_beyond_the_first_page_is_found_and_one_that_took_the_name_is_not():
    async def scenario(_ask, github, login):
        github.orgs = [{"login": f"o{number}", "id": 1000 + number} for number in range(250)] + github.orgs
        assert (await login()).status == 200
        github.orgs = [{"login": "acme", "id": 43}]
        assert (await login()).status == 500

    scene(scenario, organization_id=42)


@pytest.mark.parametrize(
    "change",
    [
        lambda g: setattr(g, "orgs", [{"login": "Other", "id": 1}]),
        lambda g: setattr(g, "orgs", []),
        lambda g: setattr(g, "orgs", {"login": "Acme", "id": 42}),
        lambda g: setattr(g, "orgs", [{"login": "Acme", "id": True}]),
        lambda g: setattr(g, "user", {}),
        lambda g: setattr(g, "user", {"login": "../x"}),
    ],
)
def test_who_is_no_member_is_refused(change):
    async def scenario(_ask, github, login):
        change(github)
        answer = await login()
        assert (answer.status, answer.json["errors"]) == (500, ["user is not part of required org"])  # as Vault says it

    scene(scenario)


def test_other_tokens_and_a_github_that_is_away():
    async def scenario(ask, github, login):
        for token, status in (("ghp_other", 500), ("", 400), ("a b", 400), ("x\r\ny", 400), (["x"], 400)):
            assert (await login(token)).status == status
        github.away = True
        assert (await login()).status == 502
        assert (await ask("POST", "auth/github/map/cats/x", {"value": "a"})).status == 404
        assert (await ask("GET", "auth/github/map/users/nobody")).json["data"] == {"key": "nobody", "value": ""}
        assert (await ask("POST", "auth/github/config", {"base_url": "http://10.0.0.1"})).status == 400
        assert (await ask("POST", "auth/github/config", {"organization": ""})).status == 400

    scene(scenario)


def test_the_policy_root_is_given_to_nobody():
    async def scenario(ask, _github, login):
        assert (await ask("POST", "auth/github/map/users/ann-x", {"value": "root,default"})).status == 204
        assert (await ask("GET", "auth/github/map/users/ann-x")).json["data"]["value"] == "default,root"
        assert (await login()).json["auth"]["token_policies"] == ["base", "blue", "default"]

    scene(scenario)
