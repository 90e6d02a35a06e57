"""Fresh environments with the built wheel, as a user's machine has them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits" / "slide_swin_digits.pth"
MODULE = ROOT / "tests" / "golden" / "module_dat_default.pth"


def call(*command: str | Path, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command outside the repository's own environment."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    words = list(map(str, command))
    return subprocess.run(
        words, capture_output=True, text=True, check=False, cwd=folder, env=environment
    )


def passes(*command: str | Path, folder: Path | None = None) -> str:
    """The standard output of a command that must exit with 0."""
    done = call(*command, folder=folder)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def fails(code: int, *command: str | Path, folder: Path | None = None) -> str:
    """All output of a command that must exit with `code`, without a traceback."""
    done = call(*command, folder=folder)
    said = done.stdout + done.stderr
    assert done.returncode == code, f"{command} exited {done.returncode}\n{said[-3000:]}"
    assert "Traceback" not in said
    return said


def install(programs: Path, *packages: str | Path) -> None:
    """Install packages into an environment, in the versions of constraints.txt."""
    constraints = ROOT / "constraints.txt"
    passes(programs / "pip", "install", "--quiet", "--constraint", constraints, *packages)


def require_torch(programs: Path) -> None:
    """Skip where no package index in reach has torch for this Python; in CI, fail."""
    pip = (programs / "pip", "install", "--dry-run", "--quiet", "--no-deps")
    done = call(*pip, "--constraint", ROOT / "constraints.txt", "torch")
    if done.returncode:
        stop = pytest.fail if "CI" in os.environ else pytest.skip
        stop(f"torch cannot be installed here: {done.stderr.strip().splitlines()[-1:]}")


def build_wheel(folder: Path) -> Path:
    """Built through the source distribution, so nothing that only lies in the tree gets in."""
    passes(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    [built] = folder.glob("*.whl")
    return built
