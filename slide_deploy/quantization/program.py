"""The float artifact that tells what an artifact of a reduced precision must be."""

from __future__ import annotations

from slide_deploy.protocols import Exporter, Runtime
from slide_deploy.quantization.scheme import Scheme
from slide_deploy.types import Precision

__all__ = ["has_program", "program_precision"]


def has_program(scheme: Scheme, runtime: Runtime) -> bool:
    """Whether artifacts of this precision are taken apart, and compared with a float artifact."""
    rounded = scheme.name == Precision.FLOAT16 and runtime.widen is not None
    return scheme.quantized or rounded


def program_precision(scheme: Scheme, exporter: Exporter) -> str:
    """The precision of that float artifact."""
    return exporter.quantized_from if scheme.quantized else Precision.FLOAT32
