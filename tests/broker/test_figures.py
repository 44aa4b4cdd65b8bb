"""Figures of calls: what an operator and a Prometheus server read, who may, and how much it can ever be."""

import asyncio
import json
import re
from collections import Counter

import pytest

from broker.stack import HOST, SECRET, read_reply, until
from keyhole.core.errors import KeyholeError
from keyhole.core.request import Operation, Request
from keyhole.core.timing import STAGES, Timing
from keyhole.vault.exposition import exposition
from keyhole.vault.figures import BOUNDS, OTHER, SERVICES, SERVICES_OF_ORG, CallFigures, Histogram

SAMPLE = re.compile(
    r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\n"])*"(?:,(?!\})|(?=\})))*)\})? (\S+)'
)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count", "")}


def parsed(text):
    """Name and sorted labels to value, as a Prometheus server reads the text format 0.0.4, or an assertion."""
    assert text.endswith("\n")
    found, kinds, done, family, about = {}, {}, set(), "", ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            about = line.split(" ")[2]
            continue
        if line.startswith("# TYPE "):
            _, _, family, kind = line.split(" ")
            assert family == about, f"{family} is not explained"
            assert family not in kinds, f"a second type of {family}"
            assert kind in {"counter", "gauge", "histogram", "summary", "untyped"}
            kinds[family] = kind
            continue
        match = SAMPLE.fullmatch(line)
        assert match, line
        name, labels, value = match[1], tuple(sorted(LABEL.findall(match[2] or ""))), float(match[3])
        assert name in {family + suffix for suffix in SUFFIXES.get(kinds.get(family, ""), ("",))}, f"{line} is alone"
        assert len(dict(labels)) == len(labels)
        assert (name, labels) not in found, f"twice: {line}"
        found[name, labels] = value
        done.add(family)
    for family in (name for name, kind in kinds.items() if kind == "histogram"):
        series = {}
        for (name, labels), value in found.items():
            if name == f"{family}_bucket":
                rest = tuple(pair for pair in labels if pair[0] != "le")
                series.setdefault(rest, []).append((float(dict(labels)["le"]), value))
        for rest, buckets in series.items():
            counts = [count for _, count in sorted(buckets)]
            assert counts == sorted(counts)
            assert max(buckets)[0] == float("inf")
            assert counts[-1] == found[f"{family}_count", rest]
    return found


def value(found, name, **labels):
    return found.get((f"keyhole_{name}", tuple(sorted(labels.items()))), 0)


async def ended(stack):
    """Every call is counted: a client may have the last byte of an answer a moment earlier."""
    await until(lambda: not len(stack.keyhole.broker._resources.live))


async def page(stack, path="sys/metrics", token=b"root"):
    request = Request(
        token if isinstance(token, bytes) else token.encode(), Operation.READ, path, {"format": "prometheus"}
    )
    return (await stack.keyhole.node.handle(request)).raw.decode()


@pytest.fixture
def world(stack, run):
    async def make():
        await stack.secret("stripe/key")
        await stack.service("pay")
        return await stack.agent("coder", "pay")

    stack.token = run(make())
    stack.keyhole.node.vault.meters.calls = CallFigures()
    return stack


def test_each_call_counts_once_by_service_outcome_and_stage(world, run):
    async def scenario():
        await world.service("pay", deny_paths=["/denied/**"])
        world.upstream.say = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789"
        for _ in range(3):
            assert (await world.get(world.token)).status == 200
        assert (await world.get(world.token, "/denied/x")).code == "policy_denied"
        world.upstream.say = b"nonsense\r\n\r\n"
        assert (await world.get(world.token)).status == 502
        _, streams = await world.connect(world.token, "evil.test:443")
        streams[1].close()
        await ended(world)
        found = parsed(await page(world))
        pay = {"org": "root", "service": "pay"}
        assert value(found, "calls_total", **pay, outcome="allowed", code="ok") == 3
        assert value(found, "calls_total", **pay, outcome="refused", code="policy_denied") == 1
        assert value(found, "calls_total", **pay, outcome="failed", code="upstream_unreachable") == 1
        assert value(found, "calls_total", org="root", service="", outcome="refused", code="no_service") == 1
        assert value(found, "call_bytes_total", **pay, direction="received") == 30
        counts = {stage: value(found, "call_stage_seconds_count", **pay, stage=stage) for stage in STAGES}
        assert (counts["vault"], counts["upstream"], counts["queue"]) == (4, 4, 0)
        assert 1 <= counts["connect"] <= 4
        assert counts["scrub"] == 3
        assert value(found, "call_stage_seconds_sum", **pay, stage="vault") > 0
        assert value(found, "certificates_minted_total") >= 1
        text = await page(world)
        for hidden in (HOST, "evil.test", "coder", SECRET, "/denied", "127.0.0.1"):
            assert hidden not in text

    run(scenario())


def test_what_is_open_is_seen_and_gone_when_it_ends(world, run):
    async def scenario():
        go_on = asyncio.Event()

        async def slowly(_request, writer):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
            await go_on.wait()
            writer.write(b"cd")

        world.upstream.say = slowly
        asking = asyncio.create_task(world.get(world.token))
        open_body = {"org": "root", "kind": "body"}

        await until(lambda: any(flow.flowing for flow in world.keyhole.broker._resources.live))
        found = parsed(await page(world))
        assert value(found, "calls_open", **open_body) == 1
        assert value(found, "upstream_connections", state="busy") >= 1
        assert value(found, "client_connections") >= 1
        go_on.set()
        assert (await asking).body == b"abcd"
        await ended(world)
        assert value(parsed(await page(world)), "calls_open", **open_body) == 0

    run(scenario())


def test_waiting_for_what_a_service_asks_is_told_apart_from_the_vault(world, run):
    async def scenario():
        await world.service("pay", conditions={"body": [{"at": "/amount", "max": 3}]})
        streams = await world.tunnel(world.token)
        body = b'{"amount": 1}'
        lines = (f"Host: {HOST}:{world.secure}", "Content-Type: application/json", f"Content-Length: {len(body)}")
        streams[1].write("\r\n".join(("POST /v1/x HTTP/1.1", *lines, "", "")).encode())
        waiting = world.keyhole.node.vault.meters.calls
        await until(lambda: waiting.waiting == 1)
        assert value(parsed(await page(world)), "calls_waiting") == 1
        streams[1].write(body)
        assert (await read_reply(streams[0])).status == 200
        streams[1].close()
        await ended(world)
        stages = (await world.ask("read", "sys/latency"))["services"]["pay"]["stages"]
        assert stages["queue"]["count"] == stages["vault"]["count"] == 1
        assert waiting.waiting == 0

    run(scenario())


def test_an_org_sees_its_own_services_and_the_operator_no_name_of_theirs(world, run):
    async def scenario():
        made = await world.ask("update", "sys/namespaces/acme", {})
        theirs = made["root_token"]
        await world.secret("stripe/key", token=theirs)
        await world.service("secretplan", token=theirs)
        agent = await world.agent("spy", "secretplan", token=theirs)
        await world.trust(theirs)
        assert (await world.get(agent)).status == 200
        assert (await world.get(world.token)).status == 200
        await ended(world)
        own, others = parsed(await page(world, "sys/latency", theirs)), parsed(await page(world))
        assert value(own, "calls_total", org="acme", service="secretplan", outcome="allowed", code="ok") == 1
        assert value(others, "calls_total", org="acme", service="(all)", outcome="allowed", code="ok") == 1
        assert {dict(labels).get("org", "acme") for _, labels in own} == {"acme"}
        assert "secretplan" not in await page(world)
        assert (await world.ask("read", "sys/latency", token=theirs))["services"].keys() == {"secretplan"}
        assert (await world.ask("read", "sys/latency"))["services"].keys() == {"pay"}

    run(scenario())


@pytest.mark.parametrize("path", ["sys/metrics", "sys/latency"])
def test_an_agent_reads_no_figures(world, run, path):
    async def scenario():
        with pytest.raises(KeyholeError, match="permission denied"):
            await page(world, path, world.token)

    run(scenario())


def test_ten_thousand_names_from_outside_make_no_series(world, run):
    async def scenario():
        assert (await world.get(world.token)).status == 200
        await ended(world)
        before = len(parsed(await page(world)))
        streams = await world.tunnel(world.token)
        for number in range(40):
            headers = f"X-Keyhole-Service: made-up-{number}\r\n".encode()
            assert (await world.send(streams, f"/{number}", headers=headers)).code == "no_service"
        for number in range(40):
            reply, others = await world.connect(world.token, f"host-{number}.test:443")
            others[1].close()
            assert reply.status == 403
        streams[1].close()
        after = parsed(await page(world))
        services = {dict(labels).get("service") for _, labels in after} - {None}
        assert services == {"pay", ""}
        assert len(after) < 3 * before

    run(scenario())


def test_series_are_bounded_also_for_ten_thousand_services_and_orgs():
    figures = CallFigures()
    for number in range(10_000):
        timing = Timing()
        timing.org, timing.service, timing.vault = f"org-{number % 2500}", f"service-{number}", 0.001
        figures.ended(timing, "ok", 1, 0)
    for number in range(10_000):
        timing = Timing()
        timing.org, timing.service = "org-0", f"more-{number}"
        figures.refused(timing, "policy_denied")
    names = [name for org in figures.orgs() for name in figures.services(org)]
    assert len(names) <= SERVICES + 2 * len(figures.orgs())
    assert len(figures.orgs()) <= 1001
    assert len(figures.services("org-0")) <= SERVICES_OF_ORG + 1
    assert figures.services("org-0")[OTHER].codes["policy_denied"] > 0
    whole = sum((Counter(figures.total(org).codes) for org in figures.orgs()), Counter())
    assert whole == {"ok": 10_000, "policy_denied": 10_000}
    lines = exposition(figures, (), "org-0", others=False)
    assert len(parsed("\n".join(lines) + "\n")) < 110 * (SERVICES_OF_ORG + 1)


def test_processes_that_serve_together_are_counted_together(world, run):
    async def scenario():
        assert (await world.get(world.token)).status == 200
        await ended(world)
        meters = world.keyhole.node.vault.meters
        other = json.loads(json.dumps(meters.state("root", others=True)))
        own = json.loads(json.dumps(meters.state("root", others=False)))

        async def gather(_org, others):
            return [other if others else own] * 2

        meters.gather = gather
        try:
            found = parsed(await page(world))
            assert value(found, "calls_total", org="root", service="pay", outcome="allowed", code="ok") == 3
            assert value(found, "call_stage_seconds_count", org="root", service="pay", stage="vault") == 3
            assert (await world.ask("read", "sys/latency"))["services"]["pay"]["calls"] == 3
        finally:
            meters.gather = None
        assert (
            value(parsed(await page(world)), "calls_total", org="root", service="pay", outcome="allowed", code="ok")
            == 1
        )

    run(scenario())


def test_percentiles_come_out_of_the_bucket_that_they_fall_into():
    histogram = Histogram()
    assert histogram.quantile(0.5) == 0
    figures = CallFigures()
    for seconds, times in ((0.002, 90), (0.2, 9), (90.0, 1)):
        for _ in range(times):
            timing = Timing()
            timing.org, timing.service, timing.upstream = "root", "pay", seconds
            figures.ended(timing, "ok", 0, 0)
    data = figures.services("root")["pay"].as_data()["stages"]["upstream"]
    assert data["count"] == 100
    assert 0.001 <= data["p50"] <= 0.0025
    assert 0.1 <= data["p95"] <= 0.25
    assert data["p99"] <= BOUNDS[-1]
    assert histogram.quantile(1.0) <= figures.services("root")["pay"].stages[3].quantile(1.0) == BOUNDS[-1]
