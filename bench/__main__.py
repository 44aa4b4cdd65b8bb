"""Run the cases, round after round, and print ratios."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from bench import machine
from bench.cases import CASES, ON_REQUEST, playing
from bench.growth import GROWN, Size
from bench.peers import installed
from bench.report import Rounds, details, medians, ratios, table
from bench.upstream import LARGE


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "cases",
        nargs="*",
        metavar="CASE",
        help=f"of {', '.join(CASES)}; all but growth and workers unless named; a start such as api- names several",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each measurement")
    parser.add_argument("--large", type=int, default=LARGE, help="bytes of the large body")
    parser.add_argument("--tunnels", type=int, default=1000, help="idle tunnels")
    parser.add_argument("--leases", type=int, default=1000, help="leases that end at the same time")
    parser.add_argument("--many", type=int, default=100_000, help="leases in the store of a server that starts")
    parser.add_argument("--tools", type=int, default=500, help="of one server of tools, in a list")
    parser.add_argument("--servers", type=int, default=50, help="of tools, at once")
    for name, count in asdict(GROWN).items():
        parser.add_argument(f"--grown-{name}", type=int, default=count, help="in the vault of the case growth")
    parser.add_argument("--folder", help="a directory on the disk that is to be measured")
    parser.add_argument("--peers", action="store_true", help="measure the programs of scripts/peers too")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    options = parser.parse_args(arguments)
    wanted = options.cases or CASES.keys() - ON_REQUEST
    cases = [name for name in CASES if any(_names(word, name) for word in wanted)]
    if unknown := [word for word in options.cases if not any(_names(word, name) for name in CASES)]:
        parser.error(f"there is no case {unknown[0]!r}; known: {', '.join(CASES)}")
    before = machine.describe()
    rounds: Rounds = {}
    settings = {"large": options.large, "tunnels": options.tunnels, "folder": options.folder}
    settings |= {"leases": options.leases, "many": options.many, "tools": options.tools, "servers": options.servers}
    settings["size"] = Size(**{name: getattr(options, f"grown_{name}") for name in asdict(GROWN)})
    with playing(options.seconds, **settings, with_peers=installed() if options.peers else ()) as field:
        for number in range(options.rounds):
            for name in cases:
                print(f"round {number + 1}: {name}", file=sys.stderr)
                rounds.setdefault(name, []).append(CASES[name](field))
    found = medians(rounds)
    lines = ratios(found)
    print(details(found))
    print()
    print(table(lines))
    if options.json:
        whole = {"machine": before, "rounds": rounds, "medians": found, "ratios": lines}
        options.json.write_text(json.dumps(whole, indent=1))


def _names(word: str, case: str) -> bool:
    return word == case or (word.endswith("-") and case.startswith(word))


if __name__ == "__main__":
    main()
