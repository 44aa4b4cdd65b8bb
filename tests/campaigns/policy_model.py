"""The policy engine against the plain model of ``tests/core/policy_model.py``, for as many policies as one likes.

    python tests/campaigns/policy_model.py --policies 200000 --seed 1

Each policy is random: exact paths, ``*``, ``+``, templates, deny, parameters, limits of wrapping; dealt out to several
policies, written as text and read back, and compiled for a random entity. Four random requests are decided under each.
The first difference ends the run, with the policy, the entity and the request.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from core import policy_model

_AT_ONCE = 5_000


def campaign(policies, seed, report=print):
    """Decide four requests under each of so many policies. Returns how many were allowed and how many were not."""
    allowed = refused = 0
    for done in range(0, policies, _AT_ONCE):
        more = policy_model.play(min(_AT_ONCE, policies - done), seed + done)
        allowed, refused = allowed + more[0], refused + more[1]
        report(f"{min(done + _AT_ONCE, policies):,} policies: {allowed:,} requests allowed, {refused:,} refused")
    return allowed, refused


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--policies", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began = time.monotonic()
    campaign(options.policies, options.seed)
    print(f"no difference, in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
