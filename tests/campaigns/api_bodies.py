"""Send every body of the JSON corpora to every route that takes one, and every odd value in every field of each.

    KEYHOLE_VECTORS=FOLDER python tests/campaigns/api_bodies.py [--each 50] [--seed 1]

What is no JSON object, or one that could be read in two ways, is refused with a 4xx; what is one gets an answer of the
route, and never a 5xx. No refusal takes more than a second of the processor.
The short form is tests/faces/test_api_json.py.
"""

import argparse
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from faces import json_bodies

LONGEST = 1.0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=10**6, help="bodies that a route gets; all unless said")
    parser.add_argument("--seed", type=int, default=1, help="their order")
    given = parser.parse_args()
    corpus = list(json_bodies.bodies(json_bodies.suite()).items())
    random.Random(given.seed).shuffle(corpus)
    seen = json_bodies.Seen()
    json_bodies.run(lambda routes, number: json_bodies.spread(corpus, routes, number, given.each), seen)
    json_bodies.run(
        lambda routes, number: json_bodies.of_fields(list(routes.values())[number], number, every=True), seen
    )
    seconds, path, name = seen.slowest
    print(f"{seen.asked} requests, {len(seen.routes)} of {len(seen.known)} routes, {len(seen.bodies)} bodies")
    print(f"the slowest refusal took {seconds:.3f} s of the processor: {name} to {path}")
    print(*seen.wrong, f"{len(seen.wrong)} were answered as they must not be", sep="\n")
    return 1 if seen.wrong or seconds > LONGEST or seen.routes != seen.known else 0


if __name__ == "__main__":
    sys.exit(main())
