"""Core ML classifiers: the name of the best class and a dictionary of probabilities come out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slide_deploy.errors import UsageError
from slide_deploy.types import TensorSpec

__all__ = ["BEST", "classifier_config", "finish_classifier"]

BEST = "classLabel"

# ArrayFeatureType.FLOAT32 of Core ML's FeatureTypes.proto.
FLOAT32 = 65568

# What coremltools calls the dictionary.
DICTIONARY = f"{BEST}_probs"


def classifier_config(classes: Sequence[str], probabilities: str) -> Any:
    """The argument of coremltools for a classifier whose output `probabilities` has one value for
    each class; UsageError where two classes have one name, since names are the keys of Core ML's
    dictionary."""
    import coremltools as ct

    first: dict[str, int] = {}
    for number, name in enumerate(classes):
        if first.setdefault(name, number) != number:
            raise UsageError(
                f"classes {first[name]} and {number} are both named {name!r}, and a Core ML "
                "classifier finds a class by its name",
                "give each class a name of its own in the file of --labels",
            )
    return ct.ClassifierConfig(list(classes), BEST, probabilities)


def finish_classifier(spec: Any, scores: Sequence[TensorSpec]) -> None:
    """Give the dictionary the name that its tensor has, and the tensor another one; `scores`, which
    is one output or none, becomes an output."""
    (function,) = spec.mlProgram.functions.values()
    block = function.block_specializations[function.opset]
    (tensor,) = block.operations[-1].inputs["probabilities"].arguments  # of `classify`
    probabilities = tensor.name
    names = {probabilities: f"{probabilities}_tensor", DICTIONARY: probabilities}
    for output in scores:
        (softmax,) = (op for op in block.operations if op.outputs[0].name == probabilities)
        names[softmax.inputs["x"].arguments[0].name] = output.name
        block.outputs.append(output.name)
        feature = spec.description.output.add(name=output.name)
        feature.type.multiArrayType.dataType = FLOAT32
        feature.type.multiArrayType.shape.extend(output.shape)
    for op in block.operations:
        for value in op.outputs:
            value.name = names.get(value.name, value.name)
        for own in op.inputs.values():
            for argument in own.arguments:
                if argument.WhichOneof("binding") == "name":
                    argument.name = names.get(argument.name, argument.name)
    block.outputs[:] = [names.get(name, name) for name in block.outputs]
    for feature in spec.description.output:
        feature.name = names.get(feature.name, feature.name)
    spec.description.predictedProbabilitiesName = probabilities
