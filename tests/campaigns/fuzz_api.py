"""Ask a server, started for this, everything that its OpenAPI document describes, in ways that schemathesis makes up.

    python tests/campaigns/fuzz_api.py --examples 200 --seed 7

Prints each operation that answered with a server error or otherwise than the document says, and ends with 1 then.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cli_driver import environment, serving
from compat.fuzz import fuzz


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=100, help="requests of each operation")
    parser.add_argument("--seed", type=int, default=0, help="the same seed makes the same requests")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as home,
        serving("--dev", "--dev-root-token-id", "root", env=environment(KEYHOLE_HOME=home)) as (_, started),
    ):
        wrong = fuzz(started["api"], started["root_token"], examples=given.examples, seed=given.seed)
    print(*wrong, f"{len(wrong)} operations answered what they must not", sep="\n\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
