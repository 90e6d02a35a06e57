"""Shared fixtures: golden checkpoints, small models made on the fly, the CLI in-process."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from slide_deploy import registry
from slide_deploy.lowering import selection
from slide_deploy.models.slide_swin import SlideSwin, SlideSwinConfig
from tests.tiny import TINY

GOLDEN = Path(__file__).parent / "golden"

# The same examples on every machine and every run; a failure is a failure for everyone.
settings.register_profile(
    "tests",
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tests")

# The models here are so small that a second thread only waits for the first.
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What somebody tuned on this machine must not decide what tests see."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def same_probes() -> Iterator[None]:
    """Fresh probes are the same in each run of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("slide_deploy.pipeline.export.new_seed", lambda: 0)
        patch.setattr("slide_deploy.pipeline.verify.new_seed", lambda: 0)
        yield


@pytest.fixture(scope="session", autouse=True)
def few_operators() -> Iterator[None]:
    """Each attention has the lowering with the fewest operators, because conversion takes time for
    each. Tests with `default_lowerings` have what users get."""
    table = selection._table()
    targets = (*registry.float_targets(), "ethos-u")
    quick = {target: {"other": "depthwise"} for target in targets}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "_table", lambda: {**table, "forms": {**table["forms"], **quick}})
        yield


@pytest.fixture(scope="session", autouse=True)
def one_translation_table() -> Iterator[None]:
    """torch.onnx collects its translations of operators, which takes most of a second, once for all
    exports."""
    if registry.missing_packages(registry.exporter("onnx").packages):
        yield
        return
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib))
        )
        yield


@pytest.fixture(scope="module")
def default_lowerings(few_operators: None) -> Iterator[None]:
    """The lowerings that users get."""
    table = json.loads((Path(selection.__file__).parent / "defaults.json").read_text("utf-8"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "_table", lambda: table)
        yield


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of golden checkpoints."""
    return GOLDEN


@pytest.fixture(scope="session")
def tiny_config() -> SlideSwinConfig:
    """A Slide-Swin of a few hundred weights: a slide stage, then 2×2 windows that shift."""
    return TINY


@pytest.fixture(scope="session")
def make_model() -> Callable[..., SlideSwin]:
    """make_model(**changes): the tiny Slide-Swin with every weight drawn at random, in eval."""

    def make(**changes: Any) -> SlideSwin:
        return scramble(SlideSwin(dataclasses.replace(TINY, **changes)))

    return make


@pytest.fixture(scope="session")
def scrambled() -> Callable[[torch.nn.Module], torch.nn.Module]:
    """Draws every trainable parameter at random, so that none of them is neutral."""
    return scramble


def scramble(module: Any, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.copy_(0.3 * noise + float("norm" in name and "weight" in name))
    return module.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def training_config() -> Callable[[SlideSwinConfig], dict[str, Any]]:
    """The `config` node that the public training script stores, as plain dictionaries."""

    def describe(config: SlideSwinConfig) -> dict[str, Any]:
        return {
            "DATA": {"IMG_SIZE": config.image_size[0]},
            "MODEL": {
                "NAME": "tiny",
                "NUM_CLASSES": config.num_classes,
                "SWIN": {
                    "PATCH_SIZE": config.patch_size,
                    "IN_CHANS": config.in_channels,
                    "EMBED_DIM": config.embed_dim,
                    "DEPTHS": list(config.depths),
                    "NUM_HEADS": list(config.heads),
                    "WINDOW_SIZE": config.window_size,
                    "MLP_RATIO": config.mlp_ratio,
                    "QKV_BIAS": config.qkv_bias,
                    "QK_SCALE": config.qk_scale,
                    "APE": config.ape,
                    "PATCH_NORM": config.patch_norm,
                },
                "SLIDE": {"KA": config.kernel_size, "NUM_SLIDE_STAGES": config.slide_stages},
            },
        }

    return describe


@pytest.fixture
def tiny_file(
    tmp_path: Path, make_model: Callable[..., SlideSwin], training_config: Any
) -> Callable[..., Path]:
    """tiny_file(name, config=…, **changes): a training checkpoint of the tiny model on disk.

    `changes` go into the saved dictionary; `None` leaves a key out.
    """

    def save(name: str = "tiny.pth", **changes: Any) -> Path:
        content = {
            "model": make_model().state_dict(),
            "config": training_config(TINY),
            "epoch": 3,
            **changes,
        }
        path = tmp_path / name
        torch.save({key: value for key, value in content.items() if value is not None}, path)
        return path

    return save


@dataclass(frozen=True)
class Outcome:
    """What one run of the command line did."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()

    def refused(self, code: int, *words: str) -> None:
        """Assert the contract of every error: exit code, one line, one way out, no traceback."""
        assert "Traceback" not in self.out + self.err, self.err
        assert self.code == code, self.err
        errors = [line for line in self.lines if line.startswith("error: ")]
        hints = [line for line in self.lines if line.lstrip().startswith("→ ")]
        assert (len(errors), len(hints)) == (1, 1), self.err
        assert self.lines[-2:] == [errors[0], hints[0]], self.err
        for word in words:
            assert word in errors[0] + "\n" + hints[0], self.err


RunCli = Callable[..., Outcome]


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunCli:
    """run_cli(*arguments): the command line in this process, as `slide-deploy` would run it."""

    def run(*arguments: object) -> Outcome:
        from slide_deploy.cli import main

        monkeypatch.setattr(sys, "argv", ["slide-deploy", *map(str, arguments)])
        capsys.readouterr()
        code, crash = 0, ""
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except BaseException:
            code, crash = 1, traceback.format_exc()
        out, err = capsys.readouterr()
        return Outcome(code, out, err + crash)

    return run


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh folder as the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def lone_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest golden checkpoint, by a short name: one Slide Attention, 64 channels."""
    path = tmp_path_factory.mktemp("lone") / "lone.pth"
    shutil.copy(GOLDEN / "module_dat_default.pth", path)
    return path


@pytest.fixture(scope="session")
def listing() -> Callable[[Path], dict[str, bytes]]:
    """listing(folder): every file below it with its content, and folders as b''."""

    def look(folder: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
            for path in sorted(folder.rglob("*"))
        }

    return look


@pytest.fixture(scope="session")
def both_noises() -> Callable[..., float]:
    """both_noises(y32, y64): max |y32 − y64|, what float32 rounding alone does."""

    def noise(rounded: np.ndarray, exact: np.ndarray) -> float:
        return float(np.abs(rounded.astype(np.float64) - exact).max())

    return noise


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """without("onnx", …): makes packages look as if they were not installed."""

    def hide(*packages: str) -> None:
        from slide_deploy import registry

        found = registry.find_spec
        monkeypatch.setattr(
            registry,
            "find_spec",
            lambda name, *rest: None if name in packages else found(name, *rest),
        )

    return hide
