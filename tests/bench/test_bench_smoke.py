"""The benchmark works: every case runs for a moment and counts only requests that the upstream accepted."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_every_case_of_the_benchmark_gives_a_ratio(tmp_path):
    if not shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin") or not shutil.which(
        "taskset"
    ):
        pytest.skip("nginx or taskset is not installed, and the benchmark measures against nginx")
    result = tmp_path / "result.json"
    moment = ["--rounds", "1", "--seconds", "0.05", "--large", "300000", "--tunnels", "3"]
    command = [sys.executable, "-m", "bench", *moment, "--folder", str(tmp_path), "--json", str(result)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "| first release | goal |" in done.stdout
    found = json.loads(result.read_text())
    for case in ("plain-1", "plain-64", "tls-1", "tls-64", "connect-16"):
        assert found["medians"][case]["keyhole"]["all"] > 0
        assert found["medians"][case]["keyhole"]["refused"] == 0
    assert {line["case"] for line in found["ratios"]} >= {"stream", "large", "idle", "audited", "api-read"}
