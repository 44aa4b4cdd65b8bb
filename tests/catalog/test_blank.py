"""What differs from account to account: understood as people write it, and refused when it could lead elsewhere."""

import pytest

from keyhole.catalog import Catalog
from keyhole.catalog.blank import put, written_in
from keyhole.core.errors import InvalidRequest

CATALOG = Catalog.load()


def filled(name, **said):
    entry = CATALOG.get(name)
    return entry.fill(entry.answers(said))


@pytest.mark.parametrize(
    "site", ["acme", "ACME", " acme ", "acme.atlassian.net", "https://acme.atlassian.net/wiki/x", "acme.atlassian.net."]
)
def test_a_site_may_be_given_as_label_host_or_url(site):
    entry = filled("atlassian", site=site, email="me@acme.com")
    assert entry.services[0].hosts == ("acme.atlassian.net", "api.atlassian.com")
    assert entry.settings["JIRA_URL"] == "https://acme.atlassian.net"
    assert entry.services[0].inject == {"kind": "basic", "user": "me@acme.com"}


@pytest.mark.parametrize(
    "site", ["", "evil.example/", "a.b", "acme.atlassian.net.evil.example", "x@y", "*", "a b", "-a", "acme:8443", "é"]
)
def test_a_site_that_could_lead_elsewhere_is_refused(site):
    with pytest.raises(InvalidRequest, match="--host") as caught:
        filled("atlassian", site=site, email="me@acme.com")
    assert "Your site" in caught.value.reason


@pytest.mark.parametrize(
    ("host", "means"),
    [
        ("git.acme.com", "git.acme.com"),
        ("https://Git.Acme.com/group", "git.acme.com"),
        ("git.acme.com:8443", "git.acme.com:8443"),
    ],
)
def test_a_whole_host_may_have_a_port(host, means):
    entry = filled("gitlab-self-managed", host=host)
    assert {h for service in entry.services for h in service.hosts} == {means}
    assert entry.key_page.startswith(f"https://{means}/")


@pytest.mark.parametrize("host", ["gitlab", "*.acme.com", "acme.com@evil.example", "acme..com", "[::1", "a.b:99999"])
def test_what_is_no_whole_host_is_refused(host):
    with pytest.raises(InvalidRequest, match="Host of your GitLab"):
        filled("gitlab-self-managed", host=host)


def test_a_choice_has_a_default_and_nothing_else_will_do():
    assert filled("square").services[0].hosts == ("connect.squareup.com",)
    assert filled("square", place="connect.squareupsandbox.com").services[0].hosts == ("connect.squareupsandbox.com",)
    with pytest.raises(InvalidRequest, match="none of connect") as caught:
        filled("square", place="connect.evil.example")
    assert "connect.squareup.com" in caught.value.hint


def test_an_optional_host_is_left_out_or_added():
    assert filled("pinecone").services[0].hosts == ("api.pinecone.io",)
    index = "docs-abc.svc.us-east1-aws.pinecone.io"
    assert filled("pinecone", index=index).services[0].hosts == ("api.pinecone.io", index)


@pytest.mark.parametrize("text", ["a b", "a/b", "a:b", "a\r\nb", "{x}", "a" * 129, ""])
def test_an_id_or_address_that_could_change_the_request_is_refused(text):
    with pytest.raises(InvalidRequest):
        filled("twilio", sid=text)


def test_what_nobody_asked_for_is_refused():
    with pytest.raises(InvalidRequest, match="no blank 'region'"):
        filled("stripe", region="eu")


def test_an_entry_with_unanswered_blanks_makes_no_services():
    with pytest.raises(InvalidRequest, match="is missing"):
        CATALOG.get("zendesk").bindings("zendesk/api-key")


def test_blanks_are_filled_in_once_and_braces_of_json_stay():
    assert put('{"query":"{ me }","a":"{x}"}', {"x": "{me}"}) == '{"query":"{ me }","a":"{me}"}'
    assert put({"a": ["{x}", 1], "b": ("{y}",)}, {"x": "1"}) == {"a": ["1", 1], "b": ("{y}",)}
    assert written_in({"a": ["{x}", 1], "b": "{y}{}"}) == {"x", "y"}


BASE = """
title = "Acme"
variables = ["ACME_KEY"]
key_page = {{ host = "acme.example", path = "/" }}
[key]
pattern = "[a-z0-9]{{24}}"
placeholder = "keyhole"
length = 24
{blank}
[[service]]
name = "acme"
hosts = ["{{site}}.acme.example"]
inject = {{ kind = "bearer" }}
[test]
path = "/me"
"""


@pytest.mark.parametrize(
    ("blank", "named"),
    [
        ("", "site"),
        ("[blank.site]\nkind = 'label'", "ask"),
        ("[blank.site]\nask = 'x'\nkind = 'url'", "kind"),
        ("[blank.site]\nask = 'x'\nchoices = ['a']\ndefault = 'b'", "default"),
        ("[blank.site]\nask = 'x'\nexample = 'a.b'", "example"),
        ("[blank.site]\nask = 'x'\noptional = true", "no host"),
        ("[blank.site]\nask = 'x'\noptional = 'yes'", "optional"),
        ("[blank.site]\nask = 'x'\nwhat = 1", "what"),
        ("[blank.Site]\nask = 'x'", "Site"),
        ("[blank.value]\nask = 'x'\n[blank.site]\nask = 'x'", "value"),
        ("[blank.key]\nask = 'x'", "key"),
    ],
)
def test_a_mistake_in_a_blank_is_named(tmp_path, blank, named):
    (tmp_path / "acme.toml").write_text(BASE.format(blank=blank))
    with pytest.raises(InvalidRequest, match=named):
        Catalog.load(tmp_path).get("acme")
    (tmp_path / "acme.toml").write_text(BASE.format(blank="[blank.site]\nask = 'x'"))
    assert Catalog.load(tmp_path).get("acme").sample().services[0].hosts == ("example.acme.example",)
