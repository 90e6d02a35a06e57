"""Sampling of images, selection of boxes, and space moved to the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coremltools.converters.mil import Builder as mb

from slide_deploy.errors import ArtifactError

Run = Callable[..., list[np.ndarray]]
RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 5, 7)).astype(np.float32)


@pytest.mark.parametrize(
    ("padding_mode", "align_corners"),
    [
        ("constant", True),
        ("constant", False),
        ("border", True),
        ("border", False),
        # PyTorch reflects at the pixels' centres or at their edges, as `align_corners` says.
        ("reflection", True),
        ("symmetric", False),
    ],
)
def test_resample(run: Run, padding_mode: str, align_corners: bool) -> None:
    grid = RNG.uniform(-1.8, 1.8, (2, 4, 6, 2)).astype(np.float32)
    (found,) = run(
        lambda x, g: mb.resample(
            x=x,
            coordinates=g,
            sampling_mode="bilinear",
            padding_mode=padding_mode,
            padding_value=np.float32(0),
            coordinates_mode="normalized_minus_one_to_one",
            align_corners=align_corners,
        ),
        [X, grid],
    )
    mode = {"constant": "zeros", "border": "border"}.get(padding_mode, "reflection")
    expected = F.grid_sample(
        *map(torch.from_numpy, (X, grid)), padding_mode=mode, align_corners=align_corners
    )
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("mode", "scale"), [("unnormalized", (6, 4)), ("normalized_zero_to_one", (1, 1))]
)
def test_coordinates_of_other_modes(run: Run, mode: str, scale: tuple[int, int]) -> None:
    unit = RNG.uniform(0, 1, (2, 4, 6, 2)).astype(np.float32)
    (found,) = run(
        lambda x, g: mb.resample(
            x=x,
            coordinates=g,
            sampling_mode="bilinear",
            padding_mode="border",
            padding_value=np.float32(0),
            coordinates_mode=mode,
            align_corners=True,
        ),
        [X, unit * np.array(scale, np.float32)],
    )
    expected = F.grid_sample(
        torch.from_numpy(X), torch.from_numpy(2 * unit - 1), align_corners=True
    )
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


def nearest(run: Run, padding_mode: str, across: float, down: float) -> np.ndarray:
    (found,) = run(
        lambda x, g: mb.resample(
            x=x,
            coordinates=g,
            sampling_mode="nearest",
            padding_mode=padding_mode,
            padding_value=np.float32(0),
            coordinates_mode="unnormalized",
            align_corners=True,
        ),
        [X, np.tile(np.array([across, down], np.float32), (2, 1, 1, 1))],
    )
    return found[..., 0, 0]


def test_the_nearest_pixel_and_of_two_the_greater(run: Run) -> None:
    np.testing.assert_array_equal(nearest(run, "border", 1.4, 2.6), X[:, :, 3, 1])
    np.testing.assert_array_equal(nearest(run, "border", 1.5, 2.5), X[:, :, 3, 2])
    np.testing.assert_array_equal(nearest(run, "border", -1.5, 2.6), X[:, :, 3, 0])
    with pytest.raises(ArtifactError, match="between two pixels at a negative position"):
        nearest(run, "reflection", -1.5, 2.6)


@pytest.mark.parametrize("count", [1, 2])
def test_affine(run: Run, count: int) -> None:
    matrix = RNG.uniform(-1, 1, (count, 6)).astype(np.float32)
    (found,) = run(
        lambda x, m: mb.affine(
            x=x,
            transform_matrix=m,
            output_height=4,
            output_width=6,
            sampling_mode="bilinear",
            padding_mode="constant",
            padding_value=np.float32(0),
            coordinates_mode="normalized_minus_one_to_one",
            align_corners=True,
        ),
        [X, matrix],
    )
    theta = torch.from_numpy(matrix.reshape(-1, 2, 3)).expand(2, 2, 3)
    grid = F.affine_grid(theta, [2, 3, 4, 6], align_corners=True)
    expected = F.grid_sample(torch.from_numpy(X), grid, align_corners=True)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


def cropped(image: np.ndarray, box: np.ndarray, pad_value: float = 0) -> np.ndarray:
    """One box (top, left, bottom, right in pixels) to 3 x 4, point by point."""
    result = np.empty((len(image), 3, 4), np.float32)
    top, left, bottom, right = (float(value) for value in box)
    for i in range(3):
        for j in range(4):
            y, x = top + i * (bottom - top) / 2, left + j * (right - left) / 3
            if not (0 <= y <= image.shape[1] - 1 and 0 <= x <= image.shape[2] - 1):
                result[:, i, j] = pad_value
                continue
            a, b = min(int(y), image.shape[1] - 2), min(int(x), image.shape[2] - 2)
            v, h = y - a, x - b
            rows = image[:, a] * (1 - v) + image[:, a + 1] * v
            result[:, i, j] = rows[:, b] * (1 - h) + rows[:, b + 1] * h
    return result


BOXES = np.array([[0.5, 1, 3.5, 6], [1, 0, 4, 2.5]], np.float32)
SIZE = {"target_height": 3, "target_width": 4, "sampling_mode": "STRICT_ALIGN_CORNERS"}


def test_crop_resize_of_every_image(run: Run) -> None:
    roi = BOXES.reshape(2, 1, 4, 1, 1)
    (found,) = run(lambda x, r: mb.crop_resize(x=x, roi=r, **SIZE), [X, roi])
    expected = [[cropped(image, box) for image in X] for box in BOXES]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_crop_resize_by_image_number_centre_and_unit_coordinates(run: Run) -> None:
    centre = (BOXES[:, :2] + BOXES[:, 2:]) / 2
    boxes = np.concatenate([centre, BOXES[:, 2:] - BOXES[:, :2]], 1) / np.array([4, 6, 4, 6])
    roi = np.concatenate([[[0], [0]], boxes[:, [1, 0, 3, 2]]], 1).astype(np.float32)
    (found,) = run(
        lambda x, r: mb.crop_resize(
            x=x,
            roi=r,
            normalized_coordinates=True,
            box_coordinate_mode="CENTER_SIZE_WIDTH_FIRST",
            **SIZE,
        ),
        [X[:1], roi.reshape(2, 1, 5, 1, 1)],
    )
    expected = [[cropped(X[0], box)] for box in BOXES]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_crop_resize_since_coreml7_pads(run: Run) -> None:
    boxes = np.array([[-1, 1, 3, 8], [1, 0, 4, 2.5]], np.float32)
    (found,) = run(
        lambda x, b: mb.crop_resize(
            x=x, boxes=b, box_indices=np.array([1, 1], np.int32), pad_value=np.float32(9), **SIZE
        ),
        [X, boxes],
        7,
    )
    np.testing.assert_allclose(
        found, [cropped(X[1], box, 9) for box in boxes], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("mode", ["DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS"])
def test_crop_resize_by_modes_without_a_formula_is_refused(run: Run, mode: str) -> None:
    with pytest.raises(ArtifactError, match=f"sampling_mode '{mode}'"):
        run(
            lambda x, r: mb.crop_resize(x=x, roi=r, **{**SIZE, "sampling_mode": mode}),
            [X, BOXES.reshape(2, 1, 4, 1, 1)],
        )


BOX_LIST = np.array(
    [[1, 1, 2, 2], [1.1, 1, 2, 2], [5, 5, 2, 2], [5, 5.1, 2, 2], [9, 9, 1, 1]], np.float32
)
SCORES = np.array([[0.5, 0.1], [0.2, 0.9], [0.8, 0], [0.7, 0.3], [0.05, 0.01]], np.float32)


@pytest.mark.parametrize(("per_class", "kept"), [(False, [1, 2]), (True, [1, 2, 0])])
def test_suppression_before_coreml7(run: Run, per_class: bool, kept: list[int]) -> None:
    boxes, scores, indices, numbers = run(
        lambda b, s: mb.non_maximum_suppression(
            boxes=b,
            scores=s,
            iou_threshold=np.float32(0.5),
            score_threshold=np.float32(0.1),
            max_boxes=4,
            per_class_suppression=per_class,
        ),
        [BOX_LIST[None], SCORES[None]],
    )
    free = 4 - len(kept)
    assert indices.tolist() == [kept + [-1] * free]
    assert numbers.tolist() == [len(kept)]
    np.testing.assert_array_equal(boxes[0], [*BOX_LIST[kept], *[[0] * 4] * free])
    np.testing.assert_array_equal(scores[0], [*SCORES[kept], *[[0] * 2] * free])


def test_suppression_since_coreml7_has_boxes_last(run: Run) -> None:
    boxes, scores, indices = run(
        lambda b, s: mb.non_maximum_suppression(
            boxes=b, scores=s, iou_threshold=np.float32(0.5), max_boxes=2
        ),
        [BOX_LIST.T[None].copy(), SCORES.T[None].copy()],
        7,
    )
    assert indices.tolist() == [[1, 2]]
    np.testing.assert_array_equal(boxes[0], BOX_LIST[[1, 2]].T)
    np.testing.assert_array_equal(scores[0], SCORES[[1, 2]].T)


def test_equal_scores_are_refused(run: Run) -> None:
    with pytest.raises(ArtifactError, match="two boxes have one score"):
        run(
            lambda b, s: mb.non_maximum_suppression(
                boxes=b,
                scores=s,
                iou_threshold=np.float32(0.5),
                score_threshold=np.float32(0.1),
                max_boxes=2,
            ),
            [BOX_LIST[None], np.ones((1, 5, 1), np.float32)],
        )


def test_space_to_batch_and_back(run: Run) -> None:
    x = RNG.standard_normal((2, 3, 4, 7)).astype(np.float32)

    def build(x: Any) -> Any:
        batch = mb.space_to_batch(x=x, block_shape=[2, 3], paddings=[[1, 1], [0, 2]])
        return batch, mb.batch_to_space(x=batch, block_shape=[2, 3], crops=[[1, 1], [0, 2]])

    batch, back = run(build, [x])
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (0, 2)])
    # Image 2 * (3 p + q) + n holds every place (p, q) in a block of image n.
    expected = [padded[n, :, p::2, q::3] for p in range(2) for q in range(3) for n in range(2)]
    np.testing.assert_array_equal(batch, expected)
    np.testing.assert_array_equal(back, x)
