"""Tuning measures each lowering in the target's runtime, and export uses the result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import slide_deploy
from slide_deploy.artifacts import tuning_cache as remembering
from slide_deploy.bench import tuning
from slide_deploy.bench.tuning import tune
from slide_deploy.errors import ConversionError, UsageError
from slide_deploy.lowering.catalog import lowerings
from slide_deploy.types import Options

FEW = [form for form in lowerings() if form.name in ("depthwise", "flat")]


@pytest.fixture(autouse=True)
def few_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each form is exported, read back and timed in processes of its own: two will do."""
    monkeypatch.setattr(tuning, "lowerings", lambda: FEW)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setattr(remembering.platformdirs, "user_cache_dir", lambda _: str(folder))
    return folder


def test_the_fastest_is_kept_and_exported(cache: Path, tiny_file, run_cli, in_tmp: Path) -> None:
    path = tiny_file()
    found = tune(
        slide_deploy.load(path), "torchscript", Options(), threads=1, progress=lambda _: None
    )
    assert {m.form for m in found.measured} == {form.name for form in FEW}
    fastest = min(found.measured, key=lambda m: m.ratio)
    assert list(found.forms.values()) == [fastest.form]
    assert found.path.is_relative_to(cache)

    assert run_cli("export", "-t", "torchscript", path, "-o", "out").code == 0
    (artifact,) = json.loads(Path("out/manifest.json").read_text())["artifacts"]
    assert {(layer["form"], layer["why"]) for layer in artifact["lowering"]} == {
        (fastest.form, "tuned on this machine")
    }


def test_a_form_that_fails_parity_is_out(
    cache: Path, tiny_file, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = tuning._parity_problem

    def judge(target: str, path: Path, *rest: object) -> str:
        return "wrong" if path.stem != "depthwise" else sound(target, path, *rest)

    monkeypatch.setattr(tuning, "_parity_problem", judge)
    found = tune(
        slide_deploy.load(tiny_file()), "torchscript", Options(), threads=1, progress=lambda _: None
    )
    assert list(found.forms.values()) == ["depthwise"]
    assert {m.form for m in found.measured if m.problem} == {"flat"}


def test_nothing_is_kept_where_no_form_passes(
    cache: Path, tiny_file, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "_parity_problem", lambda *_: "wrong")
    with pytest.raises(ConversionError, match="no lowering of layers"):
        tune(
            slide_deploy.load(tiny_file()),
            "torchscript",
            Options(),
            threads=1,
            progress=lambda _: None,
        )
    assert not cache.exists()


def test_an_interpreted_runtime_is_not_tuned_for(tiny_file, monkeypatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(UsageError, match="Core ML has no runtime here"):
        tune(slide_deploy.load(tiny_file()), "coreml", Options(), threads=1, progress=print)


def test_a_simulator_without_a_clock_is_not_tuned_for(tiny_file, monkeypatch) -> None:
    monkeypatch.setattr("slide_deploy.registry.require", lambda *_: None)
    with pytest.raises(UsageError, match="Hexagon has no clock"):
        tune(slide_deploy.load(tiny_file()), "qnn", Options("w8a16"))


@pytest.mark.slow
def test_the_command_line_shows_what_it_kept(cache: Path, tiny_file, run_cli) -> None:
    done = run_cli("tune", "-t", "torchscript", "--threads", 1, tiny_file())
    assert done.code == 0, done.err
    assert "fastest" in done.out
    assert "saved to" in done.out
