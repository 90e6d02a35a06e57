"""Tests whose numbers are not those of any correct interpreter, each with the evidence."""

from __future__ import annotations

__all__ = ["EXPLAINED"]

# A part of the test's id -> why.
EXPLAINED = {
    "TestCropResize::test_builder_to_backend_ios1": (
        "Apple states 7.899 for the point between the pixels 7 and 8 at 0.9, all others exactly;"
        " linear interpolation is 7.9"
    ),
    "test_ios17_invalid_indices": "expects an error and gets one, in other words than Core ML's",
}
