"""The same checkpoint gives the same artifact on every machine, without machine details."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import slide_deploy
from slide_deploy import registry

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
INSTALLED = Path(slide_deploy.__file__).parent
TARGETS = registry.float_targets()
PYTHON_FILE = re.compile(rb"""\.py(["']|:\d)""")


@dataclass(frozen=True)
class Export:
    """What one process wrote, and where the code and the process were."""

    output: Path
    code: Path
    cwd: Path
    umask: int

    def artifact(self, target: str) -> Path:
        return self.output / registry.exporter(target).file_name("lone")


@pytest.fixture(scope="module")
def here(lone_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    folder = tmp_path_factory.mktemp("here")
    return run(lone_module, Export(folder / "out", INSTALLED, folder, 0o022), TARGETS)


@pytest.fixture(scope="module")
def elsewhere(lone_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """By a copy of the code at another path, the targets in another order, for the user alone."""
    folder = tmp_path_factory.mktemp("elsewhere")
    code = folder / "installed" / "slide_deploy"
    shutil.copytree(ROOT / "slide_deploy", code)
    for room in ("exporters", "validators"):
        shutil.copytree(ROOT / room, code / room)
    cwd = folder / "another" / "cwd"
    cwd.mkdir(parents=True)
    return run(lone_module, Export(folder / "out", code, cwd, 0o077), TARGETS[::-1])


def run(checkpoint: Path, export: Export, targets: tuple[str, ...]) -> Export:
    asked = [word for target in targets for word in ("--target", target)]
    options = ["--image-size", "8", "--lowering", "depthwise"]
    command = ["export", checkpoint, *asked, *options, "--output", export.output]
    subprocess.run(
        [sys.executable, "-m", "slide_deploy", *map(str, command)],
        cwd=export.cwd,
        env=os.environ | {"PYTHONPATH": str(export.code.parent)},
        umask=export.umask,
        check=True,
        capture_output=True,
    )
    return export


def contents(artifact: Path) -> dict[str, bytes]:
    """Every file of an artifact; of an archive, what it holds."""
    files = [artifact] if artifact.is_file() else [p for p in artifact.rglob("*") if p.is_file()]
    found = {}
    for file in files:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                found |= {name: archive.read(name) for name in archive.namelist()}
        else:
            found[file.name] = file.read_bytes()
    return found


@pytest.mark.parametrize("target", TARGETS)
def test_another_process_and_place_give_the_same_bytes(here, elsewhere, listing, target):
    one, other = here.artifact(target), elsewhere.artifact(target)
    if one.is_file():
        assert one.read_bytes() == other.read_bytes()
    else:
        assert listing(one) == listing(other)


@pytest.mark.parametrize("target", TARGETS)
def test_no_file_tells_of_the_machine_or_the_source(here, elsewhere, target):
    source = {
        line.strip()
        for path in elsewhere.code.rglob("*.py")
        for line in path.read_bytes().splitlines()
        if len(line.strip()) > 30
    }
    for export in (here, elsewhere):
        places = (export.code.parent, ROOT, export.cwd, export.output, Path(sys.prefix))
        secrets = {*map(os.fsencode, places), b"/site-packages/"}
        for name, content in contents(export.artifact(target)).items():
            assert not [secret for secret in secrets if secret in content], name
            assert not PYTHON_FILE.search(content), name
            assert not [line for line in source if line in content], name


@pytest.mark.parametrize("target", TARGETS)
def test_an_artifact_holds_nothing_for_debuggers(here, target):
    assert not [name for name in contents(here.artifact(target)) if "debug" in name]


@pytest.mark.skipif(sys.platform == "win32", reason="no umask on Windows")
@pytest.mark.parametrize("target", TARGETS)
def test_the_umask_decides_who_may_read(here, elsewhere, target):
    for export in (here, elsewhere):
        artifact = export.artifact(target)
        for path in (artifact, *artifact.rglob("*")):
            most = 0o777 if path.is_dir() else 0o666
            assert stat.S_IMODE(path.stat().st_mode) == most & ~export.umask, path
