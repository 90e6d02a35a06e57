"""Undocumented behaviour of MIL is refused, since a guess could accept a wrong file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from slide_deploy.validators._mil.ops import OPERATIONS, call

IMAGE = np.ones((1, 2, 4, 5), np.float32)
INTS = np.array([[5, 3], [4, 2]], np.int32)
ROWS = np.ones((3, 2), np.float32)


@pytest.mark.parametrize(
    ("name", "arguments", "match"),
    [
        (
            "resize_nearest_neighbor",
            {"x": IMAGE, "target_size_height": 8, "target_size_width": 7},
            "nearest",
        ),
        (
            "upsample_bilinear",
            {"x": IMAGE, "align_corners": True, "half_pixel_centers": True},
            "not documented",
        ),
        ("resize_bilinear", {"x": IMAGE, "sampling_mode": "CORNERS"}, "unknown sampling mode"),
        ("real_div", {"x": INTS, "y": 0 * INTS}, "division of integers by zero"),
        ("reduce_mean", {"x": INTS}, "reduction of int32"),
        ("add", {"x": INTS, "y": INTS.astype(np.float32)}, "int32 and float32"),
        ("add", {"x": ROWS, "y": ROWS.astype(np.float16)}, "types float32, float16"),
        ("select", {"cond": INTS, "a": INTS, "b": INTS}, "condition of type int32"),
        ("cast", {"x": np.float32(3e9), "dtype": "int32"}, "outside the range"),
        ("cast", {"x": np.float32(np.nan), "dtype": "int32"}, "outside the range"),
        ("gather", {"x": ROWS, "indices": 3}, "outside -3..2"),
        ("gather_nd", {"x": ROWS, "indices": np.array([[0, 2]])}, "outside -2..1"),
        ("scatter", {"data": ROWS, "indices": np.array([1]), "updates": ROWS[:1]}, "is missing"),
        (
            "avg_pool",
            {"x": IMAGE, "kernel_sizes": [2, 2], "strides": [2, 2], "ceil_mode": True}
            | {"pad_type": "valid"},
            "divisor",
        ),
        ("max_pool", {"x": IMAGE, "kernel_sizes": [9, 9], "pad_type": "valid"}, "does not fit"),
        (
            "conv",
            {"x": IMAGE, "weight": np.ones((1, 2, 3, 3), np.float32), "pad": [1, 1, 1, 1]},
            "with pad_type 'valid'",
        ),
        ("conv", {"x": IMAGE, "weight": np.ones((1, 3, 1, 1), np.float32)}, "for x"),
        (
            "conv_transpose",
            {"x": IMAGE, "weight": np.ones((2, 1, 2, 2), np.float32), "pad_type": "same"},
            "evenly",
        ),
        ("pad", {"x": ROWS, "pad": [2, 0], "mode": "reflect"}, "reflection"),
        ("pad", {"x": ROWS, "pad": [-1, 0]}, "pad"),
        ("reshape", {"x": ROWS, "shape": [0, 1, -1]}, "a 0 in shape"),
        ("slice_by_size", {"x": ROWS, "begin": [0, 1], "size": [2, 2]}, "2 elements from 1 of 2"),
        ("split", {"x": ROWS, "axis": 0, "num_splits": 2}, "3 into 2 equal parts"),
        ("tile", {"x": ROWS, "reps": [1, -1]}, "reps"),
        (
            "rnn",
            {"x": IMAGE[0], "initial_h": np.ones((1, 6), np.float32)}
            | {"weight_ih": np.ones((6, 5), np.float32), "weight_hh": np.eye(6, dtype=np.float32)},
            r"a state of shape \(1, 6\) for a batch of 4",
        ),
        ("topk", {"x": ROWS, "k": 4, "axis": 0}, "k = 4 of 3"),
        ("gelu", {"x": ROWS, "mode": "FAST"}, "unknown mode"),
        ("softmax", {"x": ROWS, "axis": np.float32(1)}, "'axis' is float32 of rank 0, not int"),
        ("softmax", {"x": ROWS, "axis": [1]}, "'axis' is int64 of rank 1, not int"),
    ],
)
def test_refused(name: str, arguments: dict[str, Any], match: str) -> None:
    named = {key: (np.asarray(value),) for key, value in arguments.items()}
    with pytest.raises(ValueError, match=match):
        call(OPERATIONS[name], named, 6)


def test_a_negative_index_is_out_of_range_from_coreml7_on() -> None:
    named = {"x": (ROWS,), "indices": (np.array([-1]),)}
    assert call(OPERATIONS["gather"], named, 6)[0].shape == (1, 2)
    with pytest.raises(ValueError, match=r"outside 0..2"):
        call(OPERATIONS["gather"], named, 7)
