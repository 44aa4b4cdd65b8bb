import subprocess
import sys
from pathlib import Path


def test_two_commands_lead_a_newcomer_to_a_first_call():
    campaign = str(Path(__file__).with_name("first_call.py"))
    done = subprocess.run(
        [sys.executable, campaign, "--installed"], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '{"balance": 4200}' in done.stdout
    assert "2 commands after the install" in done.stdout
