"""slide-deploy export --from: the same artifacts again, with every difference named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from slide_deploy.artifacts.manifest import find_manifest
from slide_deploy.report.replay import replay_lines
from slide_deploy.verification.record import read_report


@pytest.fixture(scope="module")
def exported(lone_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, and beside it a folder of artifacts of two precisions."""
    import slide_deploy

    folder = tmp_path_factory.mktemp("earlier")
    model = slide_deploy.load(shutil.copy(lone_module, folder), image_size=(8, 8))
    output = folder / "out"
    half = slide_deploy.Options("float16", dynamic=True)
    slide_deploy.export(model, "jit", output, half)
    options = slide_deploy.Options(lowering="im2col", opset=18)
    slide_deploy.export(model, "onnx", output, options)
    return folder


@pytest.fixture
def earlier(exported: Path, tmp_path: Path) -> Path:
    """A copy of that folder, as the tests change it."""
    return Path(shutil.copytree(exported, tmp_path / "earlier"))


def change(earlier: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    path = earlier / "out" / "manifest.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def again(run_cli, earlier: Path, *options: object) -> Any:
    manifest = earlier / "out" / "manifest.json"
    done = run_cli("export", "--from", manifest, "-o", earlier / "again", "--json", *options)
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_all_artifacts_are_made_again_from_their_settings(run_cli, earlier: Path) -> None:
    """From a renamed file, with the recorded lowering rather than the one that is chosen today."""
    (earlier / "lone.pth").rename(earlier / "renamed.pth")

    def otherwise(content: dict[str, Any]) -> None:
        content["toolchain"]["onnx"] = "0.1"
        for artifact in content["artifacts"]:
            artifact["recipe"]["lowering"] = "auto"

    change(earlier, otherwise)
    report = again(run_cli, earlier, earlier / "renamed.pth")
    assert {a["path"]: a["likeness"] for a in report["replay"]["artifacts"]} == {
        "lone.torchscript": "same bytes",
        "lone.onnx": "same bytes",
    }
    (version,) = report["replay"]["versions"]
    assert version == {"package": "onnx", "before": "0.1", "now": onnx.__version__}
    checks = {(c["target"], c["precision"], c["verdict"]) for c in report["checks"]}
    assert checks == {("onnx", "float32", "pass"), ("torchscript", "float16", "pass")}
    old, new = (find_manifest(earlier / name) for name in ("out", "again"))
    assert old
    assert new
    assert (old.source, old.model) == (new.source, new.model)
    assert {a.path: a.lowering for a in old.artifacts} == {
        a.path: a.lowering for a in new.artifacts
    }
    assert json.loads((earlier / "again" / "report.json").read_text()) == report
    table = "\n".join(replay_lines(read_report(earlier / "again" / "report.json").replay))
    assert f"onnx: 0.1 then, {onnx.__version__} now" in table


def refusal(run_cli, earlier: Path, *options: object) -> Any:
    done = run_cli(
        "export", "--from", earlier / "out" / "manifest.json", "-o", earlier / "again", *options
    )
    assert not (earlier / "again").exists()
    return done


def test_another_checkpoint_is_refused(run_cli, earlier: Path, golden: Path) -> None:
    other = golden / "micro_official.pth"
    refusal(run_cli, earlier, other).refused(2, "not the checkpoint of the manifest")
    (earlier / "lone.pth").unlink()
    refusal(run_cli, earlier).refused(2, "lone.pth", "name it")


@pytest.mark.parametrize("options", [("-t", "onnx"), ("--half",), ("--labels", "labels.txt")])
def test_options_that_change_artifacts_are_refused(run_cli, earlier: Path, options) -> None:
    refusal(run_cli, earlier, *options).refused(2, "--from and --", "exclude each other")


def test_the_folder_of_the_manifest_is_no_output(run_cli, earlier: Path) -> None:
    output = earlier / "out"
    done = run_cli("export", "--from", output / "manifest.json", "-o", output)
    done.refused(2, "folder of the manifest", "--output")


@pytest.mark.parametrize(
    ("edit", "code", "words"),
    [
        (lambda c: c["artifacts"][0].update(recipe=None), 2, "does not record how"),
        (lambda c: c["artifacts"][0].update(path="../lone.onnx"), 1, "has the path"),
        (lambda c: c["model"].update(name="../lone"), 1, "has the name"),
        (lambda c: c.update(artifacts=[]), 2, "names no artifacts"),
        (lambda c: c["artifacts"][0].update(labels=["a", "b"]), 1, "has 2 labels"),
        (lambda c: c["source"].update(weights="model2"), 2, "recorded were model2"),
        (lambda c: c["artifacts"][0]["recipe"].update(batch="x"), 1, "cannot be read"),
    ],
)
def test_a_manifest_that_cannot_be_replayed(run_cli, earlier: Path, edit, code, words) -> None:
    change(earlier, edit)
    refusal(run_cli, earlier).refused(code, words)


def test_a_manifest_runs_no_code_by_itself(run_cli, earlier: Path) -> None:
    """The user names the factory of a custom model."""
    change(
        earlier,
        lambda c: [
            a["recipe"]["loading"].update(factory="evil.module:run") for a in c["artifacts"]
        ],
    )
    refusal(run_cli, earlier).refused(2, "evil.module:run", "if you trust it")


@pytest.mark.slow
def test_a_package_with_pictures_labels_and_calibration(
    run_cli, in_tmp: Path, tiny_file: Callable[..., Path]
) -> None:
    tiny_file()
    Path("labels.txt").write_text("a\nb\nc")
    coarse = np.random.default_rng(0).normal(128, 40, size=(32, 4, 4, 3))
    pixels = np.clip(coarse.repeat(4, 1).repeat(4, 2), 0, 255).astype(np.uint8)
    np.save("set.npy", pixels)
    options = ("--precision", "w8a8", "--calibration", "set.npy", "--labels", "labels.txt")
    about = ("tiny.pth", "-t", "onnx", "--preprocess", "imagenet", *options, "--classifier")
    first = run_cli("export", *about, "-o", "a")
    assert first.code in (0, 1), first.err
    Path("labels.txt").unlink()
    done = run_cli("export", "--from", "a", "-o", "b", "--json")
    assert done.code == first.code, done.err
    assert json.loads(done.out)["replay"]["artifacts"][0]["likeness"] == "same bytes"
    (made,) = json.loads(Path("b/manifest.json").read_text())["artifacts"]
    assert (made["labels"], made["conclusion"]) == (["a", "b", "c"], "probabilities")
    np.save("set.npy", pixels[::-1])
    run_cli("export", "--from", "a", "-o", "c").refused(2, "set.npy", "another SHA-256")
