"""Give what reads the bytes of strangers inputs that nobody thought of, for as long as one likes.

    python tests/campaigns/fuzz.py --target gate --seconds 600 --seed 1 [--input "b'…'"]

Inputs are made out of the corpora in ``tests/data``; whatever leads to a new outcome is made more of. Each target says
in ``tests/fuzzing`` what must be true of every input: no error but ours, the same however it arrives, nothing sent on
that others read in another way, the decision of the plain model. The first input of which that is not true is made as
short as can be, printed, and ends the run with 1; ``--input`` tries one again. Make a named test of it.

With ``--atheris`` that program, where it is installed, looks for inputs by the lines that they reach instead.
"""

import argparse
import ast
import importlib
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from fuzzing import engine

TARGETS = {
    "gate": ("http", "Gate"),
    "chunked": ("http", "Chunked"),
    "url": ("places", "Url"),
    "paths": ("places", "Paths"),
    "scrubber": ("scrubbing", "Scrub"),
    "policy": ("policies", "Policy"),
    "websocket": ("frames", "WebSocket"),
    "sql": ("frames", "Sql"),
    "h2": ("http2", "Http2"),
    "h2-server": ("http2_frames", "Server"),
    "h2-client": ("http2_frames", "Client"),
}


def make(name):
    """The target of a name."""
    module, kind = TARGETS[name]
    return getattr(importlib.import_module(f"fuzzing.{module}"), kind)()


def campaign(name, seed, *, number=0, seconds=0.0, hang=engine.HANG):
    """Fuzz one target. Returns how often what came of the inputs. Raises ``fuzzing.engine.Found``."""
    return engine.fuzz(name, make(name), seed, number=number, seconds=seconds, hang=hang)


def by_atheris(name, seed, seconds):
    """Let atheris fuzz one target; it ends the process."""
    import atheris  # an extra of whoever wants it

    with atheris.instrument_imports(include=["keyhole"]):
        target = make(name)
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(target.corpus()):
            Path(folder, str(number)).write_bytes(data)
        words = [f"-max_total_time={seconds:.0f}", f"-seed={seed}", "-max_len=4096", "-timeout=20", folder]
        atheris.Setup([sys.argv[0], *words], lambda data: engine.outcome_of(target, data, 0) and None)
        atheris.Fuzz()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=sorted(TARGETS), action="append", help="all, where none is named")
    parser.add_argument("--seconds", type=float, default=60, help="of each target")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--input", type=ast.literal_eval, help="one input as it was printed, in place of a run")
    parser.add_argument("--atheris", action="store_true", help="for the one target that is named")
    options = parser.parse_args()
    if options.atheris:
        [name] = options.target or parser.error("--atheris takes one target")
        by_atheris(name, options.seed, options.seconds)
    failed = False
    for name in options.target or TARGETS:
        try:
            if options.input is not None:
                print(f"{name}: {engine.outcome_of(make(name), options.input)}")
                continue
            outcomes = campaign(name, options.seed, seconds=options.seconds)
            print(f"{name}: {outcomes.total():,} inputs, {len(outcomes):,} outcomes, seed {options.seed}", flush=True)
        except engine.Found as found:
            failed = True
            print(f"{found}\n  seed {options.seed}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
