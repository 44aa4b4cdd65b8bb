"""Which service a call goes through: precedence, deny paths, ties, and hosts that no service means."""

from __future__ import annotations

import itertools

import pytest

from broker.stack import HOST, LOOPBACK, Reply, Stack

_numbers = itertools.count()


async def agent(stack: Stack, **services: dict) -> str:
    """A token of a new agent with new services of these names; each lends its own name as the secret."""
    number = next(_numbers)
    for name, fields in services.items():
        await stack.secret(f"{name}/key", f"value-of-{name}-{number}")
        await stack.service(name, **{"secret": f"{name}/key", **fields})
    return await stack.agent(f"agent{number}", *services)


async def clear(stack: Stack) -> None:
    await stack.ask("update", "sys/org", {"egress": "deny"})
    for name in (await stack.ask("list", "services"))["keys"] if await any_services(stack) else []:
        await stack.ask("delete", f"services/{name}")


async def any_services(stack: Stack) -> bool:
    from keyhole.core.errors import NotFound

    try:
        await stack.ask("list", "services")
    except NotFound:
        return False
    return True


@pytest.fixture(autouse=True)
def _fresh(stack: Stack, run) -> None:
    run(clear(stack))


def lender(stack: Stack) -> str:
    """Whose secret arrived with the last request."""
    [value] = stack.upstream.last.values(b"authorization")
    return value.decode().removeprefix("Bearer value-of-").rpartition("-")[0]


def test_the_more_specific_host_then_path_then_methods_win(stack: Stack, run) -> None:
    port = stack.secure

    async def ask() -> list[str]:
        token = await agent(
            stack,
            wild={"hosts": [f"*.wild.test:{port}"]},
            exact={"hosts": [f"x.wild.test:{port}"]},
            folder={"hosts": [f"x.wild.test:{port}"], "paths": ["/v1/**"]},
            leaf={"hosts": [f"x.wild.test:{port}"], "paths": ["/v1/keys"]},
            post={"hosts": [f"x.wild.test:{port}"], "paths": ["/v1/**"], "methods": ["POST"]},
        )
        found = []
        for host, method, path in (
            ("y.wild.test", "GET", "/v1/keys"),
            ("x.wild.test", "GET", "/"),
            ("x.wild.test", "GET", "/v1/a"),
            ("x.wild.test", "GET", "/v1/keys"),
            ("x.wild.test", "POST", "/v1/a"),
        ):
            assert (await stack.get(token, path, host=host, method=method)).status == 200
            found.append(lender(stack))
        return found

    assert run(ask()) == ["wild", "exact", "folder", "leaf", "post"]


def test_names_of_containers_are_hosts_like_others(stack: Stack, run) -> None:
    async def ask(host: str, *, tls: bool) -> Reply:
        port, scheme = (stack.secure, "https") if tls else (stack.plain, "http")
        token = await agent(stack, **{f"{scheme}-{host}": {"hosts": [f"{host}:{port}"], "schemes": [scheme]}})
        return await stack.send(await stack.tunnel(token, host, port, tls=tls), host=f"{host}:{port}")

    for host, tls in (("db1", True), ("db1", False), ("project_web_1", False)):
        assert run(ask(host, tls=tls)).status == 200
        assert stack.upstream.last.values(b"host") == [f"{host}:{stack.secure if tls else stack.plain}".encode()]
    seen = len(stack.upstream.requests)
    assert run(ask("my_app.wild.test", tls=True)).code == "upstream_tls"  # its wildcard does not mean an underscore
    assert len(stack.upstream.requests) == seen


def test_wildcard_is_one_label_and_never_the_name_itself(stack: Stack, run) -> None:
    async def ask() -> list[int]:
        token = await agent(stack, wild={"hosts": [f"*.wild.test:{stack.secure}"]})
        hosts = ("deep.x.wild.test", "wild.test", "evilwild.test", "x.wild.test.evil.test", "*.wild.test", ".wild.test")
        return [(await stack.connect(token, f"{host}:{stack.secure}"))[0].status for host in hosts]

    assert all(status in {400, 403} for status in run(ask()))
    assert stack.upstream.requests == []


DENY = {"deny_paths": ["/v1/admin/**"]}


@pytest.mark.parametrize("header", [b"", b"X-Keyhole-Service: open\r\n", b"X-Keyhole-Service: closed\r\n"])
def test_a_deny_path_wins_over_every_other_service_of_the_caller(stack: Stack, run, header: bytes) -> None:
    async def ask() -> Reply:
        token = await agent(stack, open={"paths": ["/v1/admin/keys"]}, closed=DENY)
        return await stack.get(token, "/v1/admin/keys", headers=header)

    reply = run(ask())
    assert (reply.status, reply.code) == (403, "policy_denied")
    assert stack.upstream.requests == []


def test_the_wider_service_of_another_org_is_never_used(stack: Stack, run) -> None:
    async def ask() -> list[Reply]:
        root = (await stack.ask("update", "sys/namespaces/acme", {}))["root_token"]
        await stack.trust(root)
        await stack.secret("theirs/key", "value-of-theirs-0", root)
        await stack.service("theirs", token=root, secret="theirs/key")
        theirs = await stack.agent("worker", "theirs", token=root)
        ours = await agent(stack, ours={"paths": ["/v1/**"]})
        return [
            await stack.get(ours, "/v1/a"),
            await stack.get(ours, "/v2/a"),
            await stack.get(ours, "/v1/a", headers=b"X-Keyhole-Service: theirs\r\n"),
            await stack.get(theirs, "/v2/a"),
        ]

    replies = run(ask())
    assert [reply.status for reply in replies] == [200, 403, 403, 200]
    assert [value for received in stack.upstream.requests for value in received.values(b"authorization")][1:] == [
        b"Bearer value-of-theirs-0"
    ]
    assert b"value-of-ours" in stack.upstream.requests[0].head


def test_only_granted_services_count(stack: Stack, run) -> None:
    async def ask() -> Reply:
        await agent(stack, wide={}, narrow={"paths": ["/v1/keys"]})
        token = await stack.agent("poor", "wide")
        await stack.get(token, "/v1/keys")
        return await stack.get(token, "/v1/keys", headers=b"X-Keyhole-Service: narrow\r\n")

    reply = run(ask())
    assert (reply.status, reply.code) == (403, "policy_denied")
    assert lender(stack) == "wide"
    assert len(stack.upstream.requests) == 1


TIE = {"live": {"placeholder": "sk-placeholder-live"}, "test": {"placeholder": "sk-placeholder-test"}}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"", ""),
        (b"X-Keyhole-Service: live\r\n", "live"),
        (b"X-Keyhole-Service: test\r\n", "test"),
        (b"x-keyhole-service: LIVE\r\n", ""),
        (b"X-Keyhole-Service: live, test\r\n", ""),
        (b"X-Keyhole-Service: nothing\r\n", ""),
        (b"Authorization: Bearer sk-placeholder-test\r\n", "test"),
        (b"X-Api-Key: sk-placeholder-live\r\n", "live"),
        (b"Authorization: Basic dTpzay1wbGFjZWhvbGRlci10ZXN0\r\n", "test"),  # u:sk-placeholder-test
        (b"A: sk-placeholder-test\r\nB: sk-placeholder-live\r\n", ""),
    ],
)
def test_a_tie_is_resolved_by_the_caller_or_refused(stack: Stack, run, header: bytes, expected: str) -> None:
    async def ask() -> Reply:
        return await stack.get(await agent(stack, **TIE), headers=header)

    reply = run(ask())
    if expected:
        assert reply.status == 200
        assert lender(stack) == expected
        assert b"placeholder" not in stack.upstream.last.head
        assert stack.upstream.last.values(b"x-keyhole-service") == []
    else:
        assert reply.status in {403, 409}
        assert reply.code == ("no_service" if b"ervice:" in header else "ambiguous_service")
        assert stack.upstream.requests == []


# Hosts without a service.


def open_net(stack: Stack, rule: str):
    """An agent with one service, in an org whose egress rule is this; every destination here is loopback."""

    async def prepare() -> str:
        await stack.ask("update", "sys/org", {"egress": rule})
        return await agent(stack, ours={})

    return prepare


@pytest.mark.parametrize(
    ("rule", "code"), [("deny", "no_service"), ("allow", "address_denied"), ("log", "address_denied")]
)
def test_egress_rule_decides_on_hosts_without_service(stack: Stack, run, rule: str, code: str) -> None:
    """Here every host is on loopback, so a call that egress allows is stopped by the guard and nothing before it."""

    async def ask() -> None:
        token = await open_net(stack, rule)()
        for destination in (f"other.test:{stack.secure}", f"127.0.0.1:{stack.secure}"):
            before = len(await stack.records())
            reply, _ = await stack.connect(token, destination)
            assert (reply.status, reply.code) == (403, code)
            [record] = [each for each in (await stack.records())[before:] if each.get("host") == destination]
            assert (record["phase"], record["result"]) == ("refused", code)
            plain = await stack.absolute(token, f"http://{destination}/")
            assert plain.code == code
        reply, _ = await stack.connect(token, f"{HOST}:{stack.secure}")
        assert reply.status == 200, "a service's host is for the guard of the service"

    run(ask())


def test_a_tunnel_to_a_name_that_leads_nowhere_is_not_opened(stack: Stack, run) -> None:
    async def ask() -> Reply:
        token = await open_net(stack, "allow")()
        reply, _ = await stack.connect(token, "nowhere.invalid:443")
        return reply

    reply = run(ask())
    assert (reply.status, reply.code) == (502, "upstream_unreachable")


VARIANTS = [
    "https://{host}:{secure}",
    "https://API.Allowed.Test:{secure}",
    "https://{host}.:{secure}",
    "http://{host}:{secure}",
    "http://{host}:{plain}",
    "http://{host}",
    "https://{host}",
    "https://{host}:444",
    "http://{host}.",
]


@pytest.mark.parametrize("rule", ["allow", "log"])
@pytest.mark.parametrize("granted", [False, True])
def test_host_with_a_service_never_falls_through_to_egress(stack: Stack, run, rule: str, granted: bool) -> None:
    async def ask() -> list[Reply]:
        owner = await open_net(stack, rule)()
        token = owner if granted else await stack.agent("stranger")
        urls = [url.format(host=HOST, secure=stack.secure, plain=stack.plain) for url in VARIANTS]
        return [await stack.absolute(token, f"{url}/v1/x") for url in urls[3 if granted else 0 :]]

    assert {(reply.status, reply.code) for reply in run(ask())} <= {(403, "policy_denied"), (403, "no_service")}
    assert stack.upstream.requests == []


def test_host_below_a_wildcard_never_falls_through_to_egress(stack: Stack, run) -> None:
    async def ask() -> list[str]:
        await stack.ask("update", "sys/org", {"egress": "allow"})
        token = await agent(stack, wild={"hosts": [f"*.wild.test:{stack.secure}"]})
        urls = (f"http://x.wild.test:{stack.plain}/", "https://y.wild.test/")
        return [(await stack.absolute(token, url)).code for url in urls]

    assert run(ask()) == ["no_service", "no_service"]


def test_deleted_service_falls_back_to_the_egress_rule(stack: Stack, run) -> None:
    async def ask() -> list[str]:
        token = await open_net(stack, "allow")()
        await stack.ask("delete", "services/ours")
        first, _ = await stack.connect(token, f"{HOST}:{stack.secure}")
        await stack.ask("update", "sys/org", {"egress": "deny"})
        reply, _ = await stack.connect(token, f"{HOST}:{stack.secure}")
        return [first.code, reply.code]

    assert run(ask()) == ["address_denied", "no_service"]


@pytest.mark.parametrize(
    "target", ["127.0.0.1:{secure}", "[::1]:{secure}", "2130706433:{secure}", "[::ffff:7f00:1]:{secure}"]
)
def test_tunnel_to_the_address_of_the_host_is_refused(stack: Stack, run, target: str) -> None:
    async def ask() -> Reply:
        token = await agent(stack, ours={})
        name = target.format(secure=stack.secure)
        reply, _ = await stack.connect(token, name)
        assert reply.status in {400, 403}
        return (await stack.connect(token, name, host=f"{HOST}:{stack.secure}"))[0]

    assert run(ask()).status in {400, 403}
    assert stack.upstream.requests == []


def test_service_that_names_an_address_is_used_by_address_only(stack: Stack, run) -> None:
    async def ask() -> list[Reply]:
        fields = {"hosts": [f"127.0.0.1:{stack.plain}"], "schemes": ["http"], "allow_addresses": LOOPBACK}
        token = await agent(stack, literal=fields)
        names = (f"127.0.0.1:{stack.plain}", f"{HOST}:{stack.plain}")
        return [await stack.absolute(token, f"http://{name}/") for name in names]

    assert [reply.status for reply in run(ask())] == [200, 403]


def test_tunnel_to_a_host_of_plain_http_only(stack: Stack, run) -> None:
    """Plain HTTP inside passes the same gate; TLS inside is refused, because no secret is bound to it."""

    async def ask() -> list[Reply]:
        token = await agent(stack, plain={"hosts": [f"{HOST}:{stack.plain}"], "schemes": ["http"], "paths": ["/v1/**"]})
        host = f"{HOST}:{stack.plain}"
        streams = await stack.tunnel(token, tls=False)
        replies = [await stack.send(streams, path, host=host) for path in ("/v1/a", "/v2/a", "/v1/b")]
        streams = await stack.tunnel(token, port=stack.plain)
        return [*replies, await stack.send(streams, "/v1/a", host=host)]

    replies = run(ask())
    assert [reply.status for reply in replies] == [200, 403, 200, 403]
    assert replies[-1].code == "no_service"
    assert len(stack.upstream.requests) == 2


def test_plain_http_in_a_tunnel_of_a_tls_service_gets_no_secret(stack: Stack, run) -> None:
    async def ask() -> Reply:
        token = await agent(stack, ours={})
        streams = await stack.tunnel(token, port=stack.secure, tls=False)
        return await stack.send(streams)

    assert run(ask()).code == "no_service"
    assert stack.upstream.requests == []


def test_service_for_both_schemes_means_the_usual_port_of_each(stack: Stack, run) -> None:
    async def ask() -> dict:
        await agent(stack, both={"hosts": ["a.test", "b.test:8443"], "schemes": ["https", "http"]})
        return await stack.ask("read", "services/both")

    assert run(ask())["hosts"] == ["a.test:443", "b.test:8443", "a.test:80"]


# Paths that servers read in different ways.

SLASHES = [
    "/projects/group%2Fproject",
    "/@scope%2fname",
    "/projects/a%2fb%2Fc/files/src%2fmain.py/raw?ref=x%2Fy",
    "/https://example.com/a?b=//c",
    "/sites/https%3A%2F%2Fexample.com%2F/query",
    "//bucket//key/",
    "/a%2520b/job/feature%252Fx",
    "/caf%E9",
]
NEVER = [
    "/p/a%2F..%2Fb",
    "/p/..%2Fb",
    "/p/a%2f%2e%2e",
    "/p/%2e%2f",
    "/p/a%2F.%2Fb",
    "/p/a%252F%2Fb",
    "/p//..",
    "/p/%252e%252e/b",
    "/p/%25252e",
    "/p/%E9/.%E9.",
    "/p/a%5Cb",
    "/p/a%2F..;x",
    "/p/a%2F\u2025%2Fb",
    "/p/a\uff0fb",
    "/p/%c0%afb",
]


@pytest.mark.parametrize("path", SLASHES)
def test_a_path_with_several_meanings_is_sent_where_nothing_is_judged_by_it(stack: Stack, run, path: str) -> None:
    async def ask() -> dict:
        token = await agent(stack, free={"methods": ["GET"]})
        assert (await stack.get(token, path)).status == 200
        return await stack.ask("update", "sys/why", {"url": f"https://{HOST}:{stack.secure}{path}"})

    why = run(ask())
    name, _, query = path.partition("?")
    assert stack.upstream.last.target.decode() == name.replace("%2f", "%2F") + ("?" + query if query else "")
    assert why["error"]["code"] == "policy_denied" if "error" in why else why["allowed"]


READINGS = [
    ({"paths": ["/**"]}, "/projects/group%2Fproject", 200),
    ({"paths": ["/projects/**"], "deny_paths": ["/admin/**"]}, "/projects/a%2fb%2Fc/raw?ref=x%2Fy", 200),
    ({"paths": ["/projects/*/issues"]}, "/projects/group%2Fproject/issues", 403),  # as four segments it is not meant
    ({"paths": ["/projects/*/*/issues"]}, "/projects/group%2Fproject/issues", 403),  # as three it is not
    ({"deny_paths": ["/projects/group/**"]}, "/projects/group%2Fproject", 403),
    ({"deny_paths": ["/admin/**"]}, "/admin%2Fkeys", 403),
    ({"deny_paths": ["/admin*"]}, "/admin%2Fkeys", 403),
    ({"paths": ["/v1/public/**"], "deny_paths": ["/v1/admin/**"]}, "/v1%2Fadmin/keys", 403),
    ({"paths": ["/v1/public/**"]}, "/v1/public%2F", 403),
    ({"paths": ["/v1/public/**"]}, "/v1/public//a", 200),
    ({"paths": ["/v1/public/*"]}, "/v1/public//a", 403),  # slashes kept, it is a segment more
    ({"paths": ["/v1/public/*/b"]}, "/v1/public//b", 403),  # merged, one less
    ({"paths": ["/**"], "deny_paths": ["/v1/admin/*"]}, "/v1//admin/keys", 403),
    ({"deny_paths": ["/v1/admin/*"]}, "//v1/admin//keys", 403),
    ({"deny_paths": ["/admin/*"]}, "//name/admin/keys", 403),  # to a parser of URLs it has an authority
    ({"deny_paths": ["/v1/admin/**"]}, "/v1/%2561dmin/keys", 403),
    ({"paths": ["/v1/public/a"]}, "/v1/public/%2561", 403),
    ({"deny_paths": ["/job/*/config"]}, "/job/x%252Fconfig", 403),
    ({"paths": ["/v1/public/**"]}, "/v1/public/a%2520b", 200),
    ({"paths": ["/v1/public/**"]}, "/v1/public%25%32%46a", 403),
    ({"deny_paths": ["/v1/admin/**"]}, "/v1/ad%FFmin/keys", 403),
    ({"deny_paths": ["/v1/caf%C3%A9"]}, "/v1/caf%E9", 403),
    ({"paths": ["/v1/caf%C3%A9"]}, "/v1/caf%E9", 403),
    ({"paths": ["/v1/*"]}, "/v1/caf%E9", 200),
]


@pytest.mark.parametrize(("rule", "path", "status"), READINGS)
def test_a_path_with_several_meanings_is_judged_in_all_of_them(
    stack: Stack, run, rule: dict, path: str, status: int
) -> None:
    async def ask() -> Reply:
        return await stack.get(await agent(stack, judged=rule), path)

    assert run(ask()).status == status
    assert [request.target.decode().partition("?")[0] for request in stack.upstream.requests] == (
        [path.partition("?")[0].replace("%2f", "%2F")] if status == 200 else []
    )


@pytest.mark.parametrize("path", NEVER)
def test_what_cannot_be_told_of_a_path_is_refused_everywhere(stack: Stack, run, path: str) -> None:
    async def ask() -> Reply:
        return await stack.get(await agent(stack, free={}), path)

    assert run(ask()).status == 400
    assert stack.upstream.requests == []
