"""Run the checks of the files named, and print as JSON what each said. A program for the frameworks' own environment.

It is no test of pytest, which that environment does not have. One process runs all of them, because to import these
frameworks takes seconds.
"""

import asyncio
import inspect
import json
import runpy
import sys
import traceback
from pathlib import Path


def outcome(work):
    try:
        result = work()
        if inspect.iscoroutine(result):
            asyncio.run(result)
    except Exception:  # noqa: BLE001  # whatever it is, it is told
        return traceback.format_exc()
    return ""


def checks(path):
    found = runpy.run_path(path)
    return {name: outcome(each) for name, each in found.items() if name.startswith("check_")}


def example(path):
    return outcome(lambda: runpy.run_path(path))


def main():
    said = {}
    for path in sys.argv[1:]:
        name = Path(path).stem
        if name.startswith("example_"):
            said[name] = {"example": example(path)}
            continue
        try:
            said[name] = checks(path)
        except Exception:  # noqa: BLE001  # as above
            said[name] = {"import": traceback.format_exc()}
    print(json.dumps(said), flush=True)


main()
