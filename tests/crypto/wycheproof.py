"""Reads one file of the Wycheproof corpus from the folder that KEYHOLE_VECTORS names."""

import json
import os
import tarfile
from pathlib import Path

import pytest


def groups(name):
    folder = os.environ.get("KEYHOLE_VECTORS")
    if not folder:
        pytest.skip(f"KEYHOLE_VECTORS is unset: the vectors of Wycheproof {name} did not run")
    with tarfile.open(Path(folder, "third-party", "wycheproof.tar.gz")) as archive:
        return json.load(archive.extractfile(f"wycheproof/{name}_test.json"))["testGroups"]


def cases(name):
    return [(group, case) for group in groups(name) for case in group["tests"]]
