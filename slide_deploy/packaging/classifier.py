"""What an artifact gives for the scores of classes: these, or probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum

import numpy as np

from slide_deploy.parity.logarithms import log_probabilities
from slide_deploy.types import TensorSpec

__all__ = ["PROBABILITIES", "Conclusion", "conclude", "concluded", "logarithms"]

PROBABILITIES = "probabilities"


class Conclusion(StrEnum):
    """The outputs of an artifact: those of the model, their softmax, or both, the softmax first."""

    SCORES = "scores"
    PROBABILITIES = "probabilities"
    BOTH = "probabilities and scores"


def concluded(conclusion: Conclusion, outputs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """The outputs of an artifact of a model with these outputs."""
    if conclusion is Conclusion.SCORES:
        return outputs
    made = replace(outputs[0], name=PROBABILITIES)
    return (made, *outputs) if conclusion is Conclusion.BOTH else (made,)


def logarithms(conclusion: Conclusion) -> tuple[str, ...]:
    """The names of the outputs that `conclude` gives the logarithms of."""
    return () if conclusion is Conclusion.SCORES else (PROBABILITIES,)


def conclude(conclusion: Conclusion, outputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """The outputs of an artifact from those of the model, computed by numpy in their type; of
    probabilities, the logarithms."""
    if conclusion is Conclusion.SCORES:
        return outputs
    (scores,) = outputs.values()
    made = {PROBABILITIES: log_probabilities(scores)}
    return made | dict(outputs) if conclusion is Conclusion.BOTH else made
