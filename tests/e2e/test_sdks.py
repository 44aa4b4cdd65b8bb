"""SDKs and command lines of APIs, as they are and against their APIs' own names, with services of the catalog."""

import json

import pytest

from e2e import aws, sites
from e2e.internet import PROGRAMS, client, program_of_node
from e2e.test_clients import git, repository

STREAMED = ["hello", "".join(sites.EVENTS)]
BOUGHT = [4200, "a+b@example.test"]


def _python(name, *options):
    return lambda: [client("python"), str(PROGRAMS / name), *options]


def _node(name, *options):
    return lambda: [*program_of_node(name), *options]


# Client: command, API, what it prints.
SDKS = {
    "OpenAI SDK for Python": (_python("openai_sdk.py"), "api.openai.com", STREAMED),
    "OpenAI SDK for Node": (_node("openai.mjs"), "api.openai.com", STREAMED),
    "Anthropic SDK for Python": (_python("anthropic_sdk.py"), "api.anthropic.com", STREAMED),
    "Anthropic SDK for Node": (_node("anthropic.mjs"), "api.anthropic.com", STREAMED),
    "Stripe SDK for Python": (_python("stripe_sdk.py", "--ca"), "api.stripe.com", BOUGHT),
    "Stripe SDK for Node": (_node("stripe.mjs", "--fetch"), "api.stripe.com", BOUGHT),
    "Octokit": (_node("octokit.mjs"), "api.github.com", ["octocat", "t"]),
    "msal": (_python("msal_sdk.py"), "graph.microsoft.com", [200, "Agent"]),
    "google-auth": (
        _python("google_sdk.py"),
        "cloudresourcemanager.googleapis.com",
        [200, {"projects": [{"projectId": "p"}]}],
    ),
}


@pytest.mark.client(*SDKS)
@pytest.mark.parametrize("name", SDKS)
def test_the_sdk_is_served_by_its_api_with_a_key_that_it_does_not_have(internet, name):
    command, host, printed = SDKS[name]
    before = len(internet.seen(host))
    assert json.loads(internet.run(*command())) == printed
    assert len(internet.seen(host)) > before


def test_stripe_for_python_trusts_a_list_of_its_own_and_sends_nothing_until_it_is_told(internet):
    before = len(internet.seen("api.stripe.com"))
    done = internet.world.run(client("python"), str(PROGRAMS / "stripe_sdk.py"), code=1)
    assert b"CERTIFICATE_VERIFY_FAILED" in done.stderr
    assert len(internet.seen("api.stripe.com")) == before


def test_a_client_that_knows_no_proxy_reaches_nobody_with_its_placeholder(internet):
    """Stripe for Node uses Node's module https, which knows the proxy variables from Node 24 on."""
    before = len(internet.seen("api.stripe.com"))
    command = program_of_node("stripe.mjs")
    done = internet.world.run("env", "NODE_USE_ENV_PROXY=0", *command, code=1)
    assert b"StripeConnectionError" in done.stderr
    assert len(internet.seen("api.stripe.com")) == before


@pytest.mark.client("aws")
def test_the_command_line_of_aws_signs_with_placeholders_and_is_let_in(internet):
    said = json.loads(internet.run(client("aws"), "sts", "get-caller-identity", "--output", "json"))
    assert said["Account"] == "123456789012"
    body = bytes(range(256)) * (9 << 12)  # 9 MiB: more than goes up in one piece
    (internet.world.folder / "work/large").write_bytes(body)
    internet.run(client("aws"), "s3", "cp", "--quiet", "large", "s3://bucket/large")
    internet.run(client("aws"), "s3", "cp", "--quiet", "s3://bucket/large", "copy")
    assert internet.aws.objects["large"] == (internet.world.folder / "work/copy").read_bytes() == body
    assert not internet.aws.refused
    assert {service for service, _, _ in internet.aws.verified} == {"s3", "sts"}
    assert aws.ID.encode() not in internet.run("env")


@pytest.mark.client("git")
def test_git_with_the_placeholder_of_github_in_its_url_clones_and_pushes(internet):
    """As agents and CI scripts write it: the token as the password of a URL, or as its user name."""
    bare, _ = repository(internet.world.folder, b"content")
    url = "https://x-access-token:$GITHUB_TOKEN@github.com/repositories/project.git"
    commit = "git -c user.name=a -c user.email=a@example.test commit -q --allow-empty -m two"
    internet.run("sh", "-c", f"git clone -q {url} one && cd one && {commit} && git push -q origin main")
    copy = internet.world.folder / "work/one"
    assert git("rev-parse", "main", cwd=bare) == git("rev-parse", "HEAD", cwd=copy)
    internet.run("sh", "-c", f"git clone -q {url.replace('x-access-token:', '')} two")
    assert (internet.world.folder / "work/two/big").read_bytes() == b"content"


@pytest.mark.client("curl")
@pytest.mark.parametrize("credential", ['-H "Authorization: token $GH_TOKEN"', '-u "me:$GH_TOKEN"', ""])
def test_whatever_is_sent_in_place_of_the_key_is_replaced(internet, credential):
    said = internet.run("sh", "-c", f"curl -sSf {credential} https://api.github.com/user")
    assert json.loads(said)["login"] == "octocat"
