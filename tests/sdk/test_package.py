"""What of the TypeScript SDK is published."""

import json
import subprocess
import tarfile

import pytest

import keyhole
from sdk import built


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    command = ["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", str(folder)]
    subprocess.run(command, cwd=built.built(), check=True, capture_output=True)
    [file] = folder.iterdir()
    with tarfile.open(file) as archive:
        return {each.name.removeprefix("package/"): archive.extractfile(each).read() for each in archive}


def test_it_has_programs_with_their_types_and_nothing_else(packed):
    sources = [path.relative_to(built.SOURCES / "src") for path in (built.SOURCES / "src").rglob("*.ts")]
    compiled = {f"dist/{path.with_suffix(suffix)}" for path in sources for suffix in (".js", ".d.ts")}
    assert set(packed) == compiled | {"package.json", "README.md", "LICENSE"}
    assert packed["LICENSE"] == (built.ROOT / "LICENSE").read_bytes()


def test_it_says_what_it_is(packed):
    package = json.loads(packed["package.json"])
    said = [package[name] for name in ("name", "version", "license", "type", "engines")]
    assert said == ["@keyhole/sdk", keyhole.__version__, "Apache-2.0", "module", {"node": ">=20"}]
    assert set(package["dependencies"]) == {"@noble/ciphers", "age-encryption", "yaml"}
    assert package["exports"]["."] == {"types": "./dist/index.d.ts", "default": "./dist/index.js"}


def test_its_types_need_no_others(packed):
    for name, text in packed.items():
        if name.endswith(".d.ts"):
            assert b'from "age-encryption"' not in text, name
            assert b'from "yaml"' not in text, name
            assert b"@noble" not in text, name


def test_the_lock_file_names_no_registry():
    lock = json.loads((built.SOURCES / "package-lock.json").read_text())
    assert not any("resolved" in each for each in lock["packages"].values())
    assert all(each.get("integrity") for name, each in lock["packages"].items() if name)
