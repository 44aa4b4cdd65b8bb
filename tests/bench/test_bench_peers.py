"""The peer that Debian has takes part in a run, and answers as the upstream does."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATH = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"


@pytest.mark.skipif(not shutil.which("haproxy", path=PATH), reason="haproxy is not installed")
def test_haproxy_is_measured_in_the_same_run_over_plain_http_and_tls(tmp_path):
    result = tmp_path / "result.json"
    command = [sys.executable, "-m", "bench", "plain-1", "tls-64", "--peers", "--rounds", "1", "--seconds", "0.05"]
    command += ["--large", "300000", "--folder", str(tmp_path), "--json", str(result)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    for case in ("plain-1", "tls-64"):
        numbers = json.loads(result.read_text())["medians"][case]["haproxy"]
        assert numbers["all"] > 0
        assert numbers["refused"] == 0
