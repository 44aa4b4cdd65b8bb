"""When something is wrong between the command and its API, it gets a reason and never a key."""

import socket

from e2e.world import API, KEY, held


def _add(world, name, port, *more, secret="api/key"):
    options = ("--secret", secret, "--bearer", "--allow-address", "127.0.0.1/32", *more)
    world.keyhole("service", "add", name, "--host", f"{API}:{port}", *options)
    world.keyhole("grant", "coder", name)


def _refused(world, url, code):
    """The refusal arrives inside the tunnel, as an answer."""
    done = world.run("curl", "-sSi", url)
    assert f"x-keyhole-error: {code}".encode() in done.stdout.lower(), done.stdout
    assert not held(KEY, done.stdout)


def test_an_upstream_that_is_down(world):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port
        port = unused.getsockname()[1]
        _add(world, "down", port)
        _refused(world, f"https://{API}:{port}/v1/x", "upstream_unreachable")


def test_an_upstream_with_a_certificate_of_somebody_else(world):
    _add(world, "stranger", world.stranger.port)
    _refused(world, f"https://{API}:{world.stranger.port}/v1/x", "upstream_tls")
    assert world.stranger.seen == []


def test_a_host_without_a_service(world):
    done = world.run("curl", "-sSi", f"https://{API}:1/v1/x", code=56)
    assert b"X-Keyhole-Error: no_service" in done.stdout
    why = world.keyhole("why", "GET", f"https://{API}:1/v1/x", "--agent", "coder", code=None)
    assert b"no_service: " in why.stdout


def test_two_services_that_fit_equally_well(world):
    _add(world, "tie-one", world.upstream.port, "--path", "/tie/**")
    _add(world, "tie-two", world.upstream.port, "--path", "/tie/**")
    url = f"{world.base}/tie/x"
    _refused(world, url, "ambiguous_service")
    done = world.run("curl", "-sSf", "-H", "X-Keyhole-Service: tie-two", url)
    assert b'"ok": true' in done.stdout
    assert "X-Keyhole-Service" not in world.upstream.seen[-1].headers


def test_a_secret_that_has_expired(world):
    world.keyhole("set", "api/old", given=KEY.encode())
    _add(world, "old", world.upstream.port, "--path", "/old/**", secret="api/old")
    assert world.run("curl", "-sSf", f"{world.base}/old/x").returncode == 0
    world.keyhole("expire", "api/old", "--at", "2020-01-01")
    _refused(world, f"{world.base}/old/x", "expired")


def test_what_was_taken_back_is_refused_at_the_next_call(world):
    _add(world, "brief", world.upstream.port, "--path", "/brief/**")
    world.run("curl", "-sSf", f"{world.base}/brief/x")
    world.keyhole("revoke", "coder", "brief")
    done = world.run("curl", "-sSi", f"{world.base}/brief/x")
    assert b"HTTP/2 403" in done.stdout
    assert b"x-keyhole-error: policy_denied" in done.stdout or b"x-keyhole-error: no_service" in done.stdout


def test_a_new_value_is_used_at_the_next_call(world):
    world.keyhole("set", "api/turning", given=b"first-value-1234567890")
    _add(world, "turning", world.upstream.port, "--path", "/turning/**", secret="api/turning")
    for value in (b"first-value-1234567890", b"second-value-1234567890"):
        world.keyhole("set", "api/turning", given=value)
        done = world.run("curl", "-sS", f"{world.base}/turning/x")
        assert b"unknown key" in done.stdout
        assert world.upstream.seen[-1].headers["Authorization"] == f"Bearer {value.decode()}"
