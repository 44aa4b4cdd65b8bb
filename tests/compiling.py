"""What the first run in a fresh clone has to compile, shared out to the workers of xdist.

Each of them imports all tests and most of the program, in the same order and at the same time, so that each would
compile all of it. Here a worker compiles its share ahead, and finds the rest compiled by the others.
"""

import sys
import types
from pathlib import Path

import pytest
from _pytest.assertion import rewrite
from hypothesis.internal.constants_ast import constants_from_module

ROOT = Path(__file__).parents[1]


def compile_share(config: pytest.Config, number: int, of: int) -> None:
    """Compile, of the files from the largest to the smallest, those of a share that never were compiled."""
    if sys.dont_write_bytecode:
        return
    found = [*(ROOT / "src").rglob("*.py"), *(ROOT / "tests").rglob("test_*.py")]
    found.sort(key=lambda file: (-file.stat().st_size, file))
    for file in found[number::of]:
        folder = rewrite.get_cache_dir(file)
        made = folder / (file.stem + rewrite.PYC_TAIL)
        if not made.exists():
            folder.mkdir(parents=True, exist_ok=True)
            digest, code = rewrite._rewrite_test(file, config)
            rewrite._write_pyc(config.stash[rewrite.assertstate_key], code, digest, made)
            if file.parts[len(ROOT.parts)] == "src":
                _keep_constants(file)


def _keep_constants(file: Path) -> None:
    """Hypothesis reads the constants of each module of the program, and keeps them in a file."""
    module = types.ModuleType(file.stem)
    module.__file__ = str(file)
    constants_from_module(module)
