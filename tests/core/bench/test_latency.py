"""Latency is measured alternately in the artifacts' own runtimes."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

import slide_deploy
from slide_deploy import registry
from slide_deploy.bench.latency import bench
from slide_deploy.errors import ArtifactError, UsageError
from slide_deploy.protocols import Runtime
from slide_deploy.types import Fidelity
from slide_deploy.utils.machine import available_cores, processor_name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, golden: Path) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    model = slide_deploy.load(golden / "micro_official.pth")
    slide_deploy.export(model, ["onnx", "torchscript"], folder, progress=lambda _: None)
    return folder


def test_every_artifact_gets_its_figures(folder: Path) -> None:
    paths = [folder / "micro_official.onnx", folder / "micro_official.torchscript"]
    found = bench(paths, threads=1, rounds=2, calls=3, warmup=1, progress=lambda _: None)
    assert (found.rounds, found.calls_per_round, found.warmup) == (2, 3, 1)
    first, second = found.timings
    assert [first.name, second.name] == [path.name for path in paths]
    assert first.ratio == 1
    assert second.ratio > 0
    for timing in found.timings:
        assert 0 < timing.p10_ms <= timing.median_ms <= timing.p90_ms
        assert timing.throughput == pytest.approx(1000 * timing.batch / timing.median_ms)
        assert timing.size_bytes > 0
        assert (timing.batch, timing.threads) == (1, 1)
    assert "onnxruntime" in first.runtime
    assert "TorchScript" in second.runtime


def test_the_command_line_writes_figures_and_a_chart(folder: Path, run_cli, in_tmp: Path) -> None:
    path = folder / "micro_official.torchscript"
    few = ("--rounds", 1, "--calls", 1, "--threads", 1)
    done = run_cli("bench", path, *few, "--json", "found.json", "--chart", "bars.svg")
    assert done.code == 0, done.err
    assert "1 rounds of 1 calls" in done.out
    found = json.loads(Path("found.json").read_text())
    assert found["timings"][0]["target"] == "torchscript"
    assert found["processor"] == processor_name()
    assert found["cores"] == available_cores()
    assert "<svg" in Path("bars.svg").read_text()


FEW = {"rounds": 1, "calls": 1, "warmup": 0}


@pytest.mark.slow
def test_each_artifact_is_timed_with_each_number_of_threads(folder: Path) -> None:
    paths = [folder / "micro_official.onnx", folder / "micro_official.torchscript"]
    found = bench(paths, threads=[1, 2], **FEW)
    assert [(timing.target, timing.threads) for timing in found.timings] == [
        *(("onnx", 1), ("onnx", 2), ("torchscript", 1), ("torchscript", 2))
    ]


def test_the_command_line_takes_threads_more_than_once(folder: Path, run_cli) -> None:
    few = ("--rounds", 1, "--calls", 1, "--warmup", 0)
    path = folder / "micro_official.torchscript"
    done = run_cli("bench", path, *few, "--threads", 1, "--threads", 2, "--json", folder / "t.json")
    assert done.code == 0, done.err
    timings = json.loads((folder / "t.json").read_text())["timings"]
    assert [timing["threads"] for timing in timings] == [1, 2]


def test_a_folder_stands_for_what_can_be_timed_of_it(folder: Path, monkeypatch) -> None:
    recognise = registry.recognise

    def with_one_interpreted(path: Path) -> Runtime:
        found = recognise(path)
        interpreted = replace(found, fidelity=lambda: Fidelity.INTERPRETED)
        return interpreted if found.target == "torchscript" else found

    monkeypatch.setattr(registry, "recognise", with_one_interpreted)
    found = bench(folder, threads=1, **FEW)
    assert [timing.name for timing in found.timings] == ["micro_official.onnx"]
    (note,) = (note for note in found.notes if "left out" in note)
    assert "micro_official.torchscript can only be interpreted here" in note


def test_a_free_batch_is_chosen_and_a_fixed_one_is_not(folder: Path, lone_module: Path) -> None:
    free = folder / "free"
    model = slide_deploy.load(lone_module, image_size=(8, 8))
    slide_deploy.export(model, "onnx", free, slide_deploy.Options(dynamic=True))
    (timing,) = bench(free, threads=1, batch=3, **FEW).timings
    assert timing.batch == 3
    assert timing.throughput == pytest.approx(3000 / timing.median_ms)
    with pytest.raises(UsageError, match="fixed batch of 1, not 3") as refused:
        bench(folder / "micro_official.onnx", batch=3, **FEW)
    assert "--batch 3" in refused.value.hint


@pytest.mark.parametrize(
    ("cores", "load", "threads", "told"),
    [
        (4, 0.1, 2, []),
        pytest.param(
            *(4, 3.2, 2, ["busy, with a load average of 3.2 on 4 cores"]), marks=pytest.mark.slow
        ),
        pytest.param(*(4, 0.0, 8, ["8 threads share 4 cores"]), marks=pytest.mark.slow),
        (1, 0.9, 2, ["2 threads share 1 core:", "busy"]),
    ],
)
def test_a_busy_or_small_machine_is_told(
    folder: Path, monkeypatch, cores: int, load: float, threads: int, told: list[str]
) -> None:
    monkeypatch.setattr("slide_deploy.bench.latency.available_cores", lambda: cores)
    monkeypatch.setattr("slide_deploy.bench.latency.load_average", lambda: load)
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    found = bench(folder / "micro_official.torchscript", threads=threads, **FEW)
    assert len(found.notes) == len(told)
    assert all(part in note for part, note in zip(told, found.notes, strict=True))


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
