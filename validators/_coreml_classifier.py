"""Core ML classifiers: the names of their classes, and their outputs as arrays.

A classifier gives the name of its best class and a dictionary of probabilities. Here the
probabilities are one array in the order of the program's classes, which the dictionary's keys must
be.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from slide_deploy.errors import ArtifactError
from slide_deploy.types import TensorSpec

if TYPE_CHECKING:
    from slide_deploy.validators import _mil

__all__ = ["Classifier", "classifier_in"]


@dataclass(frozen=True)
class Classifier:
    """The features with the name of the best class and with the probabilities, and the names of
    all classes in the order of the program."""

    best: str
    probabilities: str
    classes: tuple[str, ...]

    @property
    def spec(self) -> TensorSpec:
        """The probabilities as a tensor."""
        return TensorSpec(self.probabilities, (1, len(self.classes)))

    @property
    def metadata(self) -> dict[str, str]:
        """The names of its classes, as metadata of artifacts hold them."""
        return {"labels": json.dumps(self.classes, ensure_ascii=False)}

    def violations(self, metadata: Mapping[str, str]) -> Iterator[str]:
        """What the metadata say of its classes, and is not true."""
        if json.loads(metadata.get("labels", "null")) not in (None, list(self.classes)):
            yield "the labels in its metadata are not the classes of its program"

    def arrays(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs with probabilities (1, classes) and without the best class.

        ArtifactError where the best class is not the most probable one, or the dictionary has other
        classes.
        """
        found = dict(outputs)
        best, given = str(found.pop(self.best)), _dictionary(found[self.probabilities])
        if given.keys() != set(self.classes):
            raise ArtifactError(
                f"{self.probabilities} has other classes than the program", "export it again"
            )
        values = np.array([[given[name] for name in self.classes]])
        top = max(given.values())
        if not np.isnan(top) and given.get(best) != top:
            raise ArtifactError(
                f"{self.best} is {best!r}, but the most probable class is "
                f"{self.classes[int(values.argmax())]!r}",
                "export it again",
            )
        found[self.probabilities] = values.astype(np.float32)
        return found


def _dictionary(value: Any) -> dict[str, float]:
    """Core ML gives a dictionary, the interpreter an array of pairs."""
    if isinstance(value, Mapping):
        return {str(key): float(own) for key, own in value.items()}
    return {str(pair["key"]): float(pair["value"]) for pair in value}


def classifier_in(program: _mil.Program) -> Classifier | None:
    """The classifier that the program is, if it is one; ArtifactError where its outputs are those
    of no or of several classifications, or the package describes others."""
    named = {feature.name: feature.dtype for feature in program.outputs}
    if not any(dtype == "string" or "dictionary" in dtype for dtype in named.values()):
        return None
    found = list(_classifications(program))
    described = [(own.best, own.probabilities) == program.predicted for own in found]
    if described != [True] or not named.keys() >= set(program.predicted):
        raise ArtifactError("the outputs are not those of one classifier", "export it again")
    return found[0]


def _classifications(program: _mil.Program) -> Iterator[Classifier]:
    from slide_deploy.validators import _mil

    for op in program.operations:
        if op.type == "classify":
            (held,) = op.inputs["classes"]
            values = held.data if isinstance(held, _mil.Constant) else None
            if values is None:
                values = _constant(program, str(held))
            yield Classifier(op.outputs[0].name, op.outputs[1].name, tuple(map(str, values)))


def _constant(program: _mil.Program, name: str) -> np.ndarray:
    for op in program.operations:
        if op.type == "const" and op.outputs[0].name == name:
            return op.attributes["val"].data
    raise ArtifactError("the classes are no constant of the program", "export it again")
