"""What an artifact says of what it contains beside the model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from slide_deploy.errors import ArtifactError, UsageError
from slide_deploy.packaging.classifier import Conclusion
from slide_deploy.packaging.preprocessing import Preprocessing
from slide_deploy.utils.records import rebuild

__all__ = ["conclusion_in", "labels_in", "preprocessing_in"]


def preprocessing_in(metadata: Mapping[str, str]) -> Preprocessing | None:
    """The preprocessing in the metadata of an artifact; ArtifactError if it cannot be read."""
    found: Preprocessing | None = _read(Preprocessing, metadata, "preprocessing")
    return found


def labels_in(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """The names of classes in the metadata of an artifact; ArtifactError if they cannot be read."""
    found: tuple[str, ...] | None = _read(tuple[str, ...], metadata, "labels")
    return found


def conclusion_in(metadata: Mapping[str, str]) -> Conclusion:
    """Whether an artifact gives scores or probabilities; ArtifactError if it cannot be read."""
    found: Conclusion | None = _read(Conclusion, metadata, "conclusion")
    return found or Conclusion.SCORES


def _read(kind: Any, metadata: Mapping[str, str], name: str) -> Any:
    if not metadata.get(name):
        return None
    try:
        return rebuild(kind, json.loads(metadata[name]))
    except (ValueError, TypeError, RecursionError, UsageError) as error:
        raise ArtifactError(
            f"the {name} in the artifact's metadata cannot be read: {error}"[:200],
            "export it again",
        ) from error
