"""Latency is measured alternately in the artifacts' own runtimes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

import slide_deploy
from slide_deploy.bench.latency import bench
from slide_deploy.errors import ArtifactError, UsageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, golden: Path) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    model = slide_deploy.load(golden / "micro_official.pth")
    slide_deploy.export(model, ["onnx", "torchscript"], folder, progress=lambda _: None)
    return folder


def test_every_artifact_gets_its_figures(folder: Path) -> None:
    paths = [folder / "micro_official.onnx", folder / "micro_official.torchscript"]
    found = bench(paths, threads=1, rounds=2, calls=3, warmup=1, progress=lambda _: None)
    assert (found.threads, found.rounds, found.calls_per_round, found.warmup) == (1, 2, 3, 1)
    first, second = found.timings
    assert [first.name, second.name] == [path.name for path in paths]
    assert first.ratio == 1
    assert second.ratio > 0
    for timing in found.timings:
        assert 0 < timing.p10_ms <= timing.median_ms <= timing.p90_ms
        assert timing.throughput == pytest.approx(1000 * timing.batch / timing.median_ms)
        assert timing.size_bytes > 0
    assert "onnxruntime" in first.runtime
    assert "TorchScript" in second.runtime


def test_the_command_line_writes_figures_and_a_chart(folder: Path, run_cli, in_tmp: Path) -> None:
    path = folder / "micro_official.torchscript"
    few = ("--rounds", 1, "--calls", 1, "--threads", 1)
    done = run_cli("bench", path, *few, "--json", "found.json", "--chart", "bars.svg")
    assert done.code == 0, done.err
    assert "1 threads, 1 rounds of 1 calls" in done.out
    assert json.loads(Path("found.json").read_text())["timings"][0]["target"] == "torchscript"
    assert "<svg" in Path("bars.svg").read_text()


def test_a_broken_artifact_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(ArtifactError, match=r"broken\.onnx cannot be loaded"):
        bench([broken], progress=lambda _: None)


def test_a_process_that_is_killed_is_named(folder: Path, monkeypatch) -> None:
    started, start = [], subprocess.Popen

    def recorded(*given: object, **options: object) -> subprocess.Popen:
        started.append(start(*given, **options))
        return started[-1]

    def kill_in_the_second_round(step: str) -> None:
        if "round 2 " in step:
            started[0].kill()

    monkeypatch.setattr(subprocess, "Popen", recorded)
    with pytest.raises(ArtifactError, match=r"micro_official\.onnx was killed") as refused:
        bench([folder / "micro_official.onnx"], rounds=3, progress=kill_in_the_second_round)
    assert "fewer artifacts" in refused.value.hint


def test_what_is_only_interpreted_is_not_timed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    package = tmp_path / "model.mlpackage"
    package.mkdir()
    with pytest.raises(UsageError, match="latency cannot be measured"):
        bench([package], progress=lambda _: None)


def test_a_missing_file_is_named(run_cli, in_tmp: Path) -> None:
    run_cli("bench", "nowhere.onnx").refused(2, "nowhere.onnx")
