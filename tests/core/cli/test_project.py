"""`slide-deploy.toml`: settings that options override, and mistakes in it."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from slide_deploy.cli.configured import settings_of
from slide_deploy.cli.project import Gates, Project, read_project

DOCUMENT = Path(__file__).parents[3] / "docs" / "project-file.md"


def write(text: str, path: Path = Path("slide-deploy.toml")) -> Path:
    path.write_text(text)
    return path


def settings(text: str, *given: str) -> tuple[dict[str, Any], Any]:
    path = write(text)
    return settings_of(read_project(path), path, given)


@pytest.mark.slow
def test_a_project_is_exported_without_options(
    run_cli, in_tmp: Path, tiny_file: Callable[..., Path]
) -> None:
    """From the working folder, each target at its precision, and then by the name of the file."""
    tiny_file()
    (in_tmp / "labels.txt").write_text("a\nb\nc")
    write(
        'model = "tiny.pth"\noutput = "out"\ntargets = ["onnx", "jit"]\nlabels = "labels.txt"\n'
        '[target.torchscript]\nprecision = "fp16"\n[target.onnx]\nopset = 18\n'
        "[gates]\natol = 1e-12\n"
    )
    done = run_cli("export", "--atol", "1", "--json")
    assert done.code == 0, done.err
    assert "settings that are not given as options are those of slide-deploy.toml" in done.err
    checks = {c["target"]: c for c in json.loads(done.out)["checks"]}
    assert {t: c["precision"] for t, c in checks.items()} == {
        "onnx": "float32",
        "torchscript": "float16",
    }
    manifest = json.loads(Path("out/manifest.json").read_text())
    made = {a["target"]: a for a in manifest["artifacts"]}
    assert made["onnx"]["recipe"]["options"] == {"opset": "18"}
    assert made["onnx"]["labels"] == ["a", "b", "c"]
    (in_tmp / "elsewhere").mkdir()
    moved = (in_tmp / "slide-deploy.toml").rename(in_tmp / "elsewhere" / "my.toml")
    moved.write_text(moved.read_text().replace('"tiny', '"../tiny').replace('"lab', '"../lab'))
    done = run_cli("export", "--config", moved, "-t", "onnx", "--json")
    assert done.code == 1, done.err
    (check,) = json.loads(done.out)["checks"]
    assert "1e-12" in check["gate"]
    assert (in_tmp / "elsewhere" / "out" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('modle = "m.pth"', ("unknown key 'modle'", "'model'")),
        ('image_size = "224"', ("unknown key 'image_size'", "'image-size'")),
        ("[gates]\nmax_drop = 1.0", ("unknown gate 'max_drop'", "'max-drop'")),
        ("gates = 3", ("gates is no table", "[gates]")),
        ('targets = "onnx"', ("targets: input should be a valid array",)),
        ("batch = true", ("batch: input should be a valid integer",)),
        ('batch = "1"', ("batch: input should be a valid integer",)),
        ("image-size = 1.5", ("image-size: input should be",)),
        ("model = 2026-01-01", ("a date",)),
        ("model =", ("is not TOML",)),
        ('[target.onxx]\nprecision = "fp16"', ("unknown target 'onxx'", "'onnx'")),
        ("[target.onnx]\nopset = [18]", ("target.onnx.opset: input should be",)),
        ("[gates]\natol = -1.0", ("a tolerance cannot be negative",)),
        ('targets = ["onnx"]\nprecision = "fp17"', ("unknown precision",)),
        ('targets = ["onnx"]\n[target.onnx]\nopsett = 18', ("no option", "opset")),
        ('targets = ["onnx"]\n[target.onnx]\nprecision = "fp17"', ("unknown precision", "fp16")),
        ('targets = ["onnx"]', ("no model is given",)),
        ('model = "missing.pth"\ntargets = ["onnx"]', ("missing.pth does not exist",)),
        ('model = "m.pth"', ("neither --target nor --for",)),
    ],
)
def test_a_mistake_is_one_line(run_cli, in_tmp: Path, text: str, words: tuple[str, ...]) -> None:
    write(text)
    run_cli("export").refused(2, *words)
    assert run_cli("export", "--help").code == 0


def test_a_file_that_is_missing_or_of_no_use(run_cli, in_tmp: Path) -> None:
    run_cli("export", "--config", "no.toml").refused(2, "no.toml cannot be read")
    run_cli("export", "--from", "m.json", "--config", "no.toml").refused(2, "exclude each other")
    write("modle = 3")
    run_cli("export", "--from", "m.json").refused(2, "m.json is no manifest")


def test_paths_are_relative_to_the_file(in_tmp: Path) -> None:
    (in_tmp / "a").mkdir()
    path = write(
        'model = "m.pth"\ncalibration = "images"\npreprocess = "own.json"\nlabels = "/l.txt"',
        Path("a/p.toml"),
    )
    values, _ = settings_of(read_project(path), path, ())
    assert values == {
        "model": "a/m.pth",
        "calibration": "a/images",
        "preprocess": "a/own.json",
        "labels": "/l.txt",
    }
    values, _ = settings('calibration = "synthetic"\npreprocess = "auto"')
    assert values == {"calibration": "synthetic", "preprocess": "auto"}


WHOLE = """
profile = "server"
targets = ["onnx"]
precision = "w8a8"
preprocess = "none"
batch = 4
[target.onnx]
precision = "float32"
"""


@pytest.mark.parametrize(
    ("given", "lost"),
    [
        ("half", {"precision"}),
        ("precision", {"precision"}),
        ("target", {"target", "profile"}),
        ("profile", {"profile", "target", "precision", "preprocess", "batch"}),
        ("dynamic", {"batch"}),
        ("output", set()),
    ],
)
def test_an_option_replaces_what_contradicts_it(in_tmp: Path, given: str, lost: set[str]) -> None:
    every, _ = settings(WHOLE)
    values, found = settings(WHOLE, given)
    assert every.keys() - values.keys() == lost
    own = {} if given in ("half", "precision", "profile") else {"onnx": "float32"}
    assert found.precisions == own
    assert found.used == values.keys()


def test_a_float_precision_does_without_the_calibration_of_the_project(in_tmp: Path) -> None:
    from slide_deploy import Options

    _, found = settings('calibration = "images"\nmin-snr = 30.0\n[target.onnx]\nopset = 18')
    options = found.options_of("onnx", Options("fp16", calibration="images", min_snr=30))
    assert (options.calibration, options.min_snr, options.opset) == (None, None, "18")
    options = found.options_of("onnx", Options("w8a8", calibration="images", opset=20))
    assert (options.calibration, options.opset) == ("images", 20)
    assert found.options_of("openvino", Options()).opset is None


def test_the_document_names_every_key(in_tmp: Path) -> None:
    text = DOCUMENT.read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    read_project(write(example))
    listed = set(re.findall(r"^\| `([a-z-]+)`", text, re.MULTILINE))
    every = {f.name.replace("_", "-") for kind in (Project, Gates) for f in fields(kind)}
    assert listed == every - {"gates", "target"}
    assert tomllib.loads(example).keys() >= {"model", "targets", "gates", "target"}
