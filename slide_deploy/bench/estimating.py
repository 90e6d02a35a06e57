"""Compiles lowerings of an attention for a device that is not here: cycles by its compiler."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from slide_deploy import registry
from slide_deploy.artifacts.write import quantize_artifact, write_artifact
from slide_deploy.capture import Capture
from slide_deploy.protocols import Estimate
from slide_deploy.quantization.calibration import CalibrationSet
from slide_deploy.quantization.catalog import scheme_named
from slide_deploy.quantization.program import program_precision
from slide_deploy.types import Options
from slide_deploy.verification.runner import read_artifact

__all__ = ["estimate_of"]


def estimate_of(
    capture: Capture, target: str, name: str, folder: Path, options: Options
) -> Estimate:
    """Quantize and compile a module whose inputs have fixed shapes into `folder`; returns the
    compiler's estimate for the device of the options.

    It is calibrated on noise: what a device needs does not depend on ranges. Raises
    ConversionError where the target cannot express or compile the module.
    """
    noise = np.random.default_rng(0)
    arrays = {
        spec.name: noise.standard_normal([int(size) for size in spec.shape], dtype=np.float32)
        for spec in capture.inputs
    }
    samples = CalibrationSet(arrays, "", "noise", synthetic=True)
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    precision = program_precision(scheme_named(options.precision), registry.exporter(target))
    plain = replace(options, precision=precision, calibration=None)
    program = write_artifact(target, name, capture, programs, plain)
    record = quantize_artifact(program, capture, samples, programs, folder, options)
    return read_artifact(target, folder / record.path, {}).estimates[0]
