"""The wheel, built once for all users, and their environments."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.users.environments import build_wheel, install, passes, require_torch


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel."""
    return build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture
def user(wheel: Path, tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """user(extra, *packages): the programs of a fresh environment with the wheel and an extra."""
    folder = tmp_path / "environment"

    def make(extra: str = "", *packages: str) -> Path:
        passes(sys.executable, "-m", "venv", folder)
        if extra and extra != "coreml-read":
            require_torch(folder / "bin")
        install(folder / "bin", f"{wheel}[{extra}]" if extra else wheel, *packages)
        return folder / "bin"

    yield make
    shutil.rmtree(folder, ignore_errors=True)
