"""`--help` shows panels and defaults; the shell completes options."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

RunCli = Callable[..., Any]
COMMANDS = ("export", "verify", "evaluate", "inspect", "fuse", "targets", "bench", "tune", "coreml")
PANELS = ("Model", "Output", "Numerics", "Verification", "Reports")


def plain(text: str) -> str:
    """Without frames, one space between words."""
    return " ".join("".join(sign if sign not in "│╭╮╰╯─" else " " for sign in text).split())


@pytest.fixture
def help_of(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    def show(command: str) -> str:
        monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 200)
        result = run_cli(command, "--help")
        assert result.code == 0, result.err
        return str(result.out)

    return show


@pytest.mark.parametrize("panel", PANELS)
def test_options_of_export_stand_in_panels(help_of: Callable[[str], str], panel: str) -> None:
    assert f"╭─ {panel} ─" in help_of("export")


@pytest.mark.parametrize(
    ("command", "option", "default"),
    [
        *(
            ("export", *row)
            for row in (
                ("--output", "NAME-deploy"),
                ("--input", "image:1x3xHxW from --image-size"),
                ("--weights", "ema"),
                ("--prefix", "found by the names"),
                ("--key", "model, state_dict, ema, …"),
                ("--image-size", "from the file"),
                ("--precision", "float32"),
                ("--lowering", "auto"),
                ("--batch", "1"),
                ("--opset", "20"),
                ("--deployment-target", "iOS16"),
                ("--soc", "SM8650"),
            )
        ),
        ("verify", "--against", "golden vectors beside the artifacts"),
        ("verify", "--weights", "ema"),
        ("verify", "--precision", "that of the manifest, or float32"),
        ("verify", "--seed", "a new one"),
        ("inspect", "--weights", "ema"),
        ("fuse", "--weights", "ema"),
        ("bench", "--threads", "2"),
        ("bench", "--rounds", "10"),
        ("tune", "--batch", "1"),
    ],
)
def test_each_default_is_shown(
    help_of: Callable[[str], str], command: str, option: str, default: str
) -> None:
    rows = [line.strip("│* ") for line in help_of(command).splitlines()]
    start = next(index for index, row in enumerate(rows) if row.startswith(option))
    about = plain(" ".join(rows[start:]))
    shown = about[about.index("[default: ") :].removeprefix("[default: ")
    assert shown[: shown.index("]")].strip("()") == default


def test_no_markup_is_left_or_eaten(help_of: Callable[[str], str]) -> None:
    assert "NAME:SHAPE[:DTYPE[:LOW..HIGH]]" in help_of("export")
    assert all("\\[" not in help_of(command) for command in COMMANDS)


def test_the_shell_completes_targets() -> None:
    environment = os.environ | {
        "_SLIDE_DEPLOY_COMPLETE": "complete_bash",
        "COMP_WORDS": "slide-deploy export -t o",
        "COMP_CWORD": "3",
    }
    done = subprocess.run(
        [sys.executable, "-m", "slide_deploy"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.stdout.split() == ["onnx", "openvino"], done.stderr


def test_help_loads_no_numpy() -> None:
    program = (
        "import sys\n"
        "sys.argv = ['slide-deploy', '--help']\n"
        "from slide_deploy.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "assert 'numpy' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
