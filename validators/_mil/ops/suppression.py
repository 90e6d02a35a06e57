"""Non-maximum suppression of boxes."""

from __future__ import annotations

import numpy as np

from slide_deploy.validators._mil.dtypes import Array
from slide_deploy.validators._mil.ops.registry import Note, operation
from slide_deploy.validators._mil.program import Unsupported

__all__ = ["non_maximum_suppression"]

_IOS17 = 7


@operation("non_maximum_suppression")
def non_maximum_suppression(
    boxes: Array,
    scores: Array,
    iou_threshold: float,
    max_boxes: int,
    opset: int,
    note: Note,
    score_threshold: float | None = None,
    per_class_suppression: bool = False,
) -> tuple[Array, ...]:
    """The kept boxes, scores and indices, best first; before CoreML7 also their number.

    The score of a box is the largest of its classes. Unused outputs are zeros with the index -1, as
    in Apple's tests.
    """
    if (score_threshold is None) != (opset >= _IOS17):
        raise ValueError("score_threshold belongs to opsets before CoreML7, and is needed there")
    if opset >= _IOS17:
        boxes, scores = boxes.swapaxes(1, 2), scores.swapaxes(1, 2)
    count = len(boxes)
    kept_boxes = np.zeros((count, max_boxes, 4), boxes.dtype)
    kept_scores = np.zeros((count, max_boxes, scores.shape[2]), scores.dtype)
    kept = np.full((count, max_boxes), -1, np.int32)
    numbers = np.zeros(count, np.int32)
    for i in range(count):
        lowest = -np.inf if score_threshold is None else score_threshold
        chosen = _chosen(boxes[i], scores[i], iou_threshold, lowest, per_class_suppression)
        chosen = chosen[:max_boxes]
        numbers[i] = n = len(chosen)
        kept[i, :n] = chosen
        kept_boxes[i, :n], kept_scores[i, :n] = boxes[i, chosen], scores[i, chosen]
    if (numbers < max_boxes).any():
        note("unused outputs are zeros with the index -1")
    if opset >= _IOS17:
        return kept_boxes.swapaxes(1, 2), kept_scores.swapaxes(1, 2), kept
    return kept_boxes, kept_scores, kept, numbers


def _chosen(
    boxes: Array, scores: Array, iou_threshold: float, lowest: float, per_class: bool
) -> list[int]:
    """Indices of the kept boxes, by descending score."""
    best = scores.max(1)
    rivals = best[best >= lowest]
    if np.unique(rivals).size != rivals.size:
        raise Unsupported("two boxes have one score, and their order is not documented")
    classes = scores.argmax(1) if per_class else np.zeros(len(boxes), np.intp)
    chosen: list[int] = []
    for candidate in np.argsort(-best):
        if best[candidate] < lowest:
            break
        better = [other for other in chosen if classes[other] == classes[candidate]]
        if all(_overlap(boxes[candidate], boxes[b]) <= iou_threshold for b in better):
            chosen.append(int(candidate))
    return chosen


def _overlap(a: Array, b: Array) -> float:
    """Intersection over union of two boxes given by centre and size; 0 for empty ones."""
    low = np.maximum(a[:2] - a[2:] / 2, b[:2] - b[2:] / 2)
    high = np.minimum(a[:2] + a[2:] / 2, b[:2] + b[2:] / 2)
    common = float(np.prod(np.maximum(high - low, 0)))
    union = float(np.prod(a[2:]) + np.prod(b[2:])) - common
    return common / union if union > 0 else 0.0
