"""Core ML compared with the interpreter; macOS only."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import slide_deploy
from slide_deploy.types import Fidelity, Options, Precision
from slide_deploy.validators import _mil
from slide_deploy.verification.runner import read_artifact

pytestmark = pytest.mark.skipif(
    sys.platform != "darwin", reason="Core ML exists on macOS only; here the interpreter runs"
)

GOLDEN = Path(__file__).parents[1] / "golden"
MODELS = ("micro_official", "micro_ema", "micro_shifted_bare", "micro_k5_ape")

# Both round after each operation as the program says, but sum in another order: the largest
# difference, relative to the largest output, stays within some units of the last place.
CLOSE = {Precision.FLOAT32: 2.0**-23 * 64, Precision.FLOAT16: 2.0**-10 * 16}


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("name", MODELS)
def test_the_interpreter_computes_what_core_ml_computes(name, precision, tmp_path):
    model = slide_deploy.load(GOLDEN / f"{name}.pth")
    report = slide_deploy.export_and_verify(
        model, ["coreml"], tmp_path, Options(precision=precision), progress=lambda _: None
    )
    (check,) = report.checks
    assert check.fidelity is Fidelity.NATIVE
    assert not check.problems

    (spec,) = model.inputs
    shape = (1, *spec.shape[1:])
    draw = np.random.default_rng(0)
    feeds = {
        "normal": draw.standard_normal(shape, dtype=np.float32),
        "uniform": draw.random(shape, dtype=np.float32),
        "zeros": np.zeros(shape, np.float32),
    }
    artifact = tmp_path / check.path
    asked = {probe: {spec.name: value} for probe, value in feeds.items()}
    native = read_artifact("coreml", artifact, asked).outputs
    program = _mil.read_package(artifact)
    for probe, value in feeds.items():
        interpreted = _mil.evaluate(program, {spec.name: value})
        for output, expected in native[probe].items():
            scale = np.abs(expected).max()
            np.testing.assert_allclose(
                interpreted[output], expected, rtol=0, atol=CLOSE[precision] * scale, err_msg=probe
            )
