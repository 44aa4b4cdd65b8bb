"""The benchmark works: every case runs for a moment and counts only requests that the upstream accepted."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bench.growth_fill import chunks

ROOT = Path(__file__).parents[2]


FLOODS = ["plain-1", "tls-64", "connect-16"]
ROAD = [*FLOODS, "http2", "workers", "stream", "large", "idle", "audited", "cli"]
API = {"api-read-1", *(f"api-{asked}-8" for asked in ("read", "write", "encrypt", "login", "create"))}


def run(tmp_path, *cases):
    """What a run of a moment found."""
    if not shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin") or not shutil.which(
        "taskset"
    ):
        pytest.skip("nginx or taskset is not installed, and the benchmark measures against nginx")
    result = tmp_path / "result.json"
    moment = ["--rounds", "1", "--seconds", "0.05", "--large", "300000", "--tunnels", "3"]
    moment += ["--leases", "9", "--many", "50", "--tools", "5", "--servers", "2"]
    command = [sys.executable, "-m", "bench", *moment, "--folder", str(tmp_path), "--json", str(result), *cases]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert "| first release | goal |" in done.stdout
    return json.loads(result.read_text())


def test_every_case_of_the_road_gives_a_ratio(tmp_path):
    found = run(tmp_path, *ROAD)
    for case in FLOODS:
        assert found["medians"][case]["keyhole"]["all"] > 0
        assert found["medians"][case]["keyhole"]["refused"] == 0
    assert found["medians"]["http2"]["http2"]["all"] >= 4  # of each connection one; how many more is a matter of speed
    assert min(found["medians"]["workers"][name]["all"] for name in ("one", "keyhole")) > 0
    assert {line["case"] for line in found["ratios"]} >= {"http2", "workers", "stream", "large", "idle", "audited"}


def test_load_on_the_api_is_answered_from_both_stores_and_gives_ratios(tmp_path):
    found = run(tmp_path, *sorted(API))
    assert found["medians"].keys() == API
    for case in API:
        for store in ("keyhole", "memory"):
            assert found["medians"][case][store]["all"] > 0
            assert found["medians"][case][store]["refused"] == 0
            assert found["medians"][case][store]["cpu"] > 0
    assert {line["case"] for line in found["ratios"]} == {case for case in API if case.endswith("-8")}


def test_a_vault_that_has_grown_is_measured_beside_a_small_one(tmp_path):
    sizes = ["--grown-secrets", "110", "--grown-services", "5", "--grown-agents", "4", "--grown-leases", "6"]
    found = run(tmp_path, "growth", *sizes)
    for subject in ("small", "keyhole"):
        numbers = found["medians"]["growth"][subject]
        assert min(numbers[what] for what in ("call", "read", "write", "first")) > 0
        assert numbers["call_refused"] == numbers["read_refused"] == numbers["write_refused"] == 0


def test_an_org_is_measured_beside_the_flood_of_another(tmp_path):
    found = run(tmp_path, "tenants", "--seconds", "0.5")["medians"]["tenants"]  # a new tunnel may wait for a flood
    assert found.keys() == {"alone", "kept", "plain", "new", "large"}
    assert min(numbers["count"] for numbers in found.values()) > 0


def test_a_vault_is_filled_with_all_that_it_shall_hold():
    entries = [(f"svc{number:05}", b"", 0) for number in range(1501)]
    assert [entry for chunk in chunks(iter(entries)) for entry in chunk] == entries


def test_leases_are_made_taken_back_and_end(tmp_path):
    found = run(tmp_path, "leases-issue", "leases-end")["medians"]
    assert found["leases-issue"]["keyhole"]["count"] >= 8
    assert found["leases-end"]["keyhole"]["count"] == 9


def test_calls_of_tools_are_measured_bare_and_through_the_gateway(tmp_path):
    found = run(tmp_path, "mcp-call")["medians"]
    assert found["mcp-call"]["keyhole"]["count"] == found["mcp-call"]["bare"]["count"] >= 20
