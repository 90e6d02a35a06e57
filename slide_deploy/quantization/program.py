"""The float artifact that tells what an artifact of a reduced precision must be."""

from __future__ import annotations

from collections.abc import Mapping

from slide_deploy.errors import ArtifactError
from slide_deploy.protocols import Exporter, Runtime
from slide_deploy.quantization.scheme import Scheme
from slide_deploy.types import Precision

__all__ = ["SMOOTH", "has_program", "program_precision", "smooth_in"]

# The name of the strength of SmoothQuant, among the settings and in the metadata of artifacts.
SMOOTH = "smooth"


def has_program(scheme: Scheme, runtime: Runtime) -> bool:
    """Whether artifacts of this precision are taken apart, and compared with a float artifact."""
    rounded = scheme.name == Precision.FLOAT16 and runtime.widen is not None
    return scheme.quantized or rounded


def program_precision(scheme: Scheme, exporter: Exporter) -> str:
    """The precision of that float artifact."""
    return exporter.quantized_from if scheme.quantized else Precision.FLOAT32


def smooth_in(metadata: Mapping[str, str]) -> float:
    """The strength of SmoothQuant in the metadata of an artifact, 0 without it; ArtifactError if it
    is none."""
    told = metadata.get(SMOOTH, "0")
    try:
        alpha = float(told)
    except ValueError:
        alpha = -1.0
    if not 0 <= alpha < 1:
        raise ArtifactError(
            f"the artifact's metadata has {told[:20]!r} as the strength of SmoothQuant",
            "export it again",
        )
    return alpha
