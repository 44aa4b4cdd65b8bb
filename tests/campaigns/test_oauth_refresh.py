import subprocess
import sys
from pathlib import Path


def test_two_processes_ask_once_and_one_goes_on_when_the_other_is_killed():
    campaign = str(Path(__file__).with_name("oauth_refresh.py"))
    args = ["--rounds", "1", "--kills", "3", "--seed", "3"]
    done = subprocess.run([sys.executable, campaign, *args], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "made one request each" in done.stdout
