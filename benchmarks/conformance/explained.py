"""Tests whose numbers are not those of any correct interpreter, each with the evidence."""

from __future__ import annotations

__all__ = ["explanation"]

# A part of the test's id, and of the message it fails with -> why.
_EXPLAINED = {
    ("TestCropResize::test_builder_to_backend_ios1", "Mismatched elements: 1 / 12"): (
        "Apple states 7.899 for the point between the pixels 7 and 8 at 0.9, all others exactly;"
        " linear interpolation is 7.9"
    ),
    ("invalid_indices", "where False = any("): (
        "expects an error and gets one, in other words than Core ML's"
    ),
}


def explanation(test: str, message: str) -> str:
    """Why the test fails that ends with this message; empty where that is not known."""
    for (name, text), why in _EXPLAINED.items():
        if name in test and text in message:
            return why
    return ""
