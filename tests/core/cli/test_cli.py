"""The command line: exit codes, help, and what each command prints and writes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from slide_deploy import __version__

RunCli = Callable[..., Any]
TinyFile = Callable[..., Path]
COMMANDS = ("export", "verify", "inspect", "fuse", "targets")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_documents_the_exit_codes(run_cli: RunCli, command: str) -> None:
    result = run_cli(*filter(None, [command, "--help"]))
    text = " ".join(result.out.split())
    assert result.code == 0
    for meaning in (
        "0 all artifacts passed",
        "1 an artifact failed",
        "2 bad input or usage",
        "3 a library",
    ):
        assert meaning in text
    assert "70 an unexpected error" in text


def test_help_lists_every_command(run_cli: RunCli) -> None:
    out = run_cli("--help").out
    assert [command for command in COMMANDS if command not in out] == []


def test_the_version(run_cli: RunCli) -> None:
    result = run_cli("--version")
    assert (result.code, result.out.strip()) == (0, f"slide-deploy {__version__}")


def test_the_module_runs_as_the_command_does() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "slide_deploy", "--version"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == f"slide-deploy {__version__}", done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("export",),
        ("export", "model.pth"),
        ("export", "model.pth", "-t", "onnx", "--batch", "0"),
        ("export", "model.pth", "-t", "onnx", "--batch", "x"),
        ("export", "model.pth", "-t", "onnx", "--precision", "float8"),
        ("export", "model.pth", "-t", "onnx", "--opset", "x"),
        ("verify", "a.onnx", "--against"),
        ("inspect", "model.pth", "--weights", "best"),
        ("fuse", "model.pth"),
        ("nonsense",),
        ("inspect", "--nonsense"),
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_2(run_cli: RunCli, in_tmp: Path, arguments: tuple[str, ...]) -> None:
    result = run_cli(*arguments)
    assert result.code == 2
    assert "Traceback" not in result.err
    assert list(in_tmp.iterdir()) == []


def passed(result: Any) -> list[str]:
    """Targets of the rows whose verdict is a pass."""
    rows = [line.strip("│ ").split() for line in result.out.splitlines() if "│" in line]
    return [row[0] for row in rows if row[-1] == "passed"]


@dataclass(frozen=True)
class PreparedModel:
    """One run of the command, and the folder it wrote."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def checks(self) -> list[dict[str, Any]]:
        return list(json.loads((self.folder / "report.json").read_text())["checks"])


@pytest.fixture(scope="session")
def prepared(lone_module: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedModel:
    """The lone module exported to two targets by the command as installed."""
    folder = tmp_path_factory.mktemp("deployed") / "out"
    arguments = ("export", lone_module, "--image-size", "6x7", "-o", folder, "-t", "onnx,pt")
    done = subprocess.run(
        [sys.executable, "-m", "slide_deploy", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    return PreparedModel(done.returncode, done.stdout, done.stderr, folder)


def test_an_export_that_passes_exits_0_and_says_so(prepared: PreparedModel) -> None:
    assert prepared.code == 0, prepared.err
    assert passed(prepared) == ["onnx", "torchscript"]
    assert "native" in prepared.out


def test_an_export_writes_artifacts_manifest_and_report(prepared: PreparedModel) -> None:
    names = {path.name for path in prepared.folder.iterdir()}
    assert {"lone.onnx", "lone.torchscript", "manifest.json", "report.json"} <= names
    assert [name for name in names if name.startswith(".")] == []


def test_nothing_of_a_converter_reaches_the_terminal(prepared: PreparedModel) -> None:
    noise = [line for line in prepared.err.splitlines() if "arn" in line or "[torch" in line]
    assert noise == []


def test_the_report_has_the_names_that_were_promised(prepared: PreparedModel) -> None:
    report = json.loads((prepared.folder / "report.json").read_text())
    assert (report["schema_version"], report["verdict"]) == (1, "pass")
    assert [check["target"] for check in prepared.checks] == ["onnx", "torchscript"]
    for check in prepared.checks:
        assert check["verdict"] == "pass"
        assert check["fidelity"] == "native"
        assert check["precision"] == "float32"
        assert 0 <= check["noise_ratio"] <= 10
        assert check["snr_db"] > 80


def test_the_figures_of_a_check_are_those_of_one_comparison(prepared: PreparedModel) -> None:
    for check in prepared.checks:
        ratio = check["max_abs_error"] / check["noise_floor"]
        assert ratio == pytest.approx(check["noise_ratio"], rel=1e-6)


def test_debug_shows_where_an_error_came_from_wherever_it_stands(
    run_cli: RunCli, in_tmp: Path
) -> None:
    for arguments in (("--debug", "inspect", "no.pth"), ("inspect", "no.pth", "--debug")):
        result = run_cli(*arguments)
        assert result.code == 2
        assert "Traceback" in result.err


def test_one_missing_library_exits_3_with_the_command(
    run_cli: RunCli, in_tmp: Path, tiny_file: TinyFile, without: Callable[..., None]
) -> None:
    tiny_file("model.pth")
    without("onnxscript")
    run_cli("export", "model.pth", "-t", "onnx").refused(
        3, "onnxscript", "pip install 'slide-deploy[onnx]'"
    )
    assert [path.name for path in in_tmp.iterdir()] == ["model.pth"]


def test_a_target_that_cannot_be_exported_is_not_run_and_the_others_are(
    run_cli: RunCli, in_tmp: Path, tiny_file: TinyFile, without: Callable[..., None]
) -> None:
    tiny_file("model.pth")
    without("openvino")
    result = run_cli("export", "model.pth", "-t", "torchscript", "-t", "openvino", "-o", "out")
    assert result.code == 3, result.out
    verdicts = json.loads((in_tmp / "out" / "report.json").read_text())
    assert {check["target"]: check["verdict"] for check in verdicts["checks"]} == {
        "torchscript": "pass",
        "openvino": "not_run",
    }
    assert "pip install 'slide-deploy[openvino]'" in result.out


def test_an_artifact_that_cannot_be_run_here_is_not_run(
    run_cli: RunCli, in_tmp: Path, lone_module: Path, without: Callable[..., None]
) -> None:
    (in_tmp / "lone.onnx").write_bytes(b"x")
    without("onnxruntime")
    result = run_cli("verify", "lone.onnx", "--against", lone_module, "--image-size", "6x7")
    assert result.code == 3
    assert "not run" in result.out
    assert "passed" not in result.out


def test_targets_show_what_this_machine_can_do(run_cli: RunCli) -> None:
    result = run_cli("targets")
    assert result.code == 0
    for word in ("coreml", "onnx", "openvino", "torchscript", "ios", "native", "NAME.mlpackage"):
        assert word in result.out
    if sys.platform != "darwin":
        assert "interpreted" in result.out


def test_targets_show_what_to_install(run_cli: RunCli, without: Callable[..., None]) -> None:
    without("openvino")
    out = run_cli("targets").out
    assert "pip install 'slide-deploy[openvino]'" in out


def words(text: str) -> str:
    return " ".join(text.split())


def test_inspect_tells_what_was_recognised(run_cli: RunCli, golden: Path) -> None:
    result = run_cli("inspect", golden / "micro_ema.pth")
    out = words(result.out)
    assert result.code == 0
    for fact in (
        "micro_ema.pth (training checkpoint with averaged weights)",
        "weights ema (averaged; --weights model selects the others)",
        "family slide-swin",
        "input image 1x3x64x64 float32",
        "output logits 1x10 float32",
        "depths 1, 1, 2, 1",
        "parameters 0.10 M",
        "multiply-adds",
        "layers.0.blocks.0.attn",
        "3x3",
    ):
        assert fact in out


def test_inspect_shows_how_far_each_shift_has_moved(run_cli: RunCli, tiny_file: TinyFile) -> None:
    from slide_deploy import load
    from slide_deploy.fusion.branches import shift_reports

    path = tiny_file()
    out = run_cli("inspect", path).out
    for report in shift_reports(load(path).module):
        assert f"{report.off_tap_share:.1%}" in out


def test_inspect_says_what_was_assumed(run_cli: RunCli, golden: Path) -> None:
    out = words(run_cli("inspect", golden / "micro_ddp_noqkvbias.pth").out)
    assert "note: assumed: image size 64" in out


def test_the_other_weights_are_inspected_when_asked_for(run_cli: RunCli, golden: Path) -> None:
    out = words(run_cli("inspect", golden / "micro_ema.pth", "--weights", "model").out)
    assert "weights model" in out


@pytest.fixture
def fused(run_cli: RunCli, in_tmp: Path, tiny_file: TinyFile) -> Any:
    tiny_file("model.pth")
    return run_cli("fuse", "model.pth", "-o", "fused.safetensors")


def test_fuse_says_what_it_did(fused: Any, in_tmp: Path) -> None:
    assert fused.code == 0, fused.err
    assert "fused 1 Slide Attention module into fused.safetensors" in fused.out
    assert (in_tmp / "fused.safetensors").is_file()


def test_a_fused_file_can_be_inspected(fused: Any, run_cli: RunCli) -> None:
    result = run_cli("inspect", "fused.safetensors")
    out = words(result.out)
    assert result.code == 0
    assert "fused weights" in out
    assert "layers.0.blocks.0.attn" in out


def test_a_fused_file_can_be_exported(fused: Any, run_cli: RunCli, in_tmp: Path) -> None:
    exported = run_cli("export", "fused.safetensors", "-t", "openvino")
    assert exported.code == 0, exported.err
    assert passed(exported) == ["openvino"]
    # without --output the folder is named after the model
    assert (in_tmp / "fused-deploy" / "fused_openvino_model").is_dir()


@pytest.mark.parametrize("size", ["6x7", "6X7"])
def test_an_image_size_is_height_by_width(run_cli: RunCli, lone_module: Path, size: str) -> None:
    out = words(run_cli("inspect", lone_module, "--image-size", size).out)
    assert "input features 1x64x6x7 float32" in out


@pytest.mark.parametrize("option", ["--image-size", "--imgsz"])
def test_one_number_is_both_height_and_width(
    run_cli: RunCli, lone_module: Path, option: str
) -> None:
    out = words(run_cli("inspect", lone_module, option, "5").out)
    assert "input features 1x64x5x5 float32" in out


@pytest.fixture
def fails_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """fails_with(error): `targets` raises it."""

    def arrange(error: BaseException) -> None:
        def fail(width: int) -> None:
            raise error

        monkeypatch.setattr("slide_deploy.report.targets.targets_table", fail)

    return arrange


@pytest.mark.parametrize(
    "error", [TypeError("no such\nargument"), ModuleNotFoundError("No module named 'x'")]
)
def test_an_unexpected_error_is_one_line_and_no_failed_verdict(
    run_cli: RunCli, fails_with: Callable[[BaseException], None], error: Exception
) -> None:
    fails_with(error)
    text = " ".join(str(error).split())
    result = run_cli("targets")
    result.refused(70, f"unexpected failure: {type(error).__name__}: {text}", "--debug")
    assert len(result.lines) == 2
    debugged = run_cli("targets", "--debug")
    assert debugged.code == 70
    assert "Traceback" in debugged.err


def test_an_interrupt_shows_no_traceback(
    run_cli: RunCli, fails_with: Callable[[BaseException], None]
) -> None:
    fails_with(KeyboardInterrupt())
    result = run_cli("targets")
    assert (result.code, result.err) == (130, "")


def test_the_end_of_standard_input_is_an_unexpected_error(
    run_cli: RunCli, fails_with: Callable[[BaseException], None]
) -> None:
    """As where a custom model asks a question in CI."""
    fails_with(EOFError("EOF when reading a line"))
    run_cli("targets").refused(70, "unexpected failure: EOFError: EOF when reading a line")


def test_an_export_as_json_keeps_notes_and_progress_on_stderr(
    run_cli: RunCli, lone_module: Path, in_tmp: Path
) -> None:
    result = run_cli("export", lone_module, "--image-size", "6x7", "-t", "pt", "--json")
    assert result.code == 0, result.err
    assert result.out == (in_tmp / "lone-deploy" / "report.json").read_text()
    for line in ("loading lone.pth", "exporting TorchScript", "verifying lone.torchscript"):
        assert result.lines.count(line) == 1
    assert "report.json and .html are in lone-deploy/" in result.err


def test_a_quiet_export_prints_nothing(run_cli: RunCli, lone_module: Path, in_tmp: Path) -> None:
    result = run_cli("export", lone_module, "--image-size", "6x7", "-t", "pt", "--quiet")
    assert (result.code, result.out, result.err) == (0, "", "")
    assert (in_tmp / "lone-deploy" / "report.json").is_file()


@pytest.mark.parametrize("command", ["inspect", "fuse", "export", "verify", "tune"])
def test_every_command_takes_prefix_and_key(
    run_cli: RunCli, in_tmp: Path, tiny_file: Callable[..., Path], command: str
) -> None:
    """Both are refused for what the file lacks, so each has reached the loader."""
    tiny_file("model.pth")
    arguments = {
        "inspect": ("model.pth",),
        "fuse": ("model.pth", "-o", "fused.safetensors"),
        "export": ("model.pth", "-t", "torchscript"),
        "verify": ("a.onnx", "--against", "model.pth"),
        "tune": ("model.pth", "-t", "torchscript"),
    }[command]
    run_cli(command, *arguments, "--prefix", "net").refused(2, "'net.'", "begin with patch_embed")
    run_cli(command, *arguments, "--key", "a.b").refused(2, "'a.b'", "--key model")


def test_a_note_tells_what_was_left_out(
    run_cli: RunCli, in_tmp: Path, make_model: Callable[..., Any]
) -> None:
    state = {f"net.{key}": value for key, value in make_model().state_dict().items()}
    torch.save({**state, "loss.weight": torch.ones(1)}, "model.pth")
    shown = run_cli("inspect", "model.pth")
    assert shown.code == 0, shown.err
    assert shown.out.count("note: the weights under 'net.' are taken; left out: loss (1 key)") == 1
