"""Tests whose numbers are not those of any correct interpreter, each with the evidence."""

from __future__ import annotations

__all__ = ["explanation"]

_ROUNDED_FIRST = (
    "inputs and weights are rounded to float16, and the numbers of those that are not are expected;"
    " exact arithmetic is off by up to 3e-3"
)

# Parts of the test's id, a part of the message that it fails with -> why.
_EXPLAINED = {
    (
        ("TestCropResize::test_builder_to_backend_ios1",),
        "Mismatched elements: 1 / 12",
    ): (
        "Apple states 7.899 for the point between the pixels 7 and 8 at 0.9, all others exactly;"
        " linear interpolation is 7.9"
    ),
    (("invalid_indices",), "where False = any("): (
        "expects an error and gets one, in other words than Core ML's"
    ),
    (
        ("TestRNN::test_builder_to_backend_smoke", "precision='fp32'", "numpy.float16"),
        "rtol=1e-05, atol=0.0001",
    ): _ROUNDED_FIRST,
    (
        ("TestRNN::test_builder_to_backend_smoke", "precision='fp16'"),
        "off by 2e-03",
    ): _ROUNDED_FIRST,
    (
        ("TestRNN::test_builder_to_backend_smoke", "precision='fp16'"),
        "off by 3e-03",
    ): _ROUNDED_FIRST,
    (("TestLSTMWithPackedSequence",), "a state of shape (10, 6) for a batch of 3"): (
        "coremltools' converter makes a state of as many rows as the first sequence has steps"
    ),
}


def explanation(test: str, message: str) -> str:
    """Why the test fails that ends with this message; empty where that is not known."""
    for (parts, text), why in _EXPLAINED.items():
        if all(part in test for part in parts) and text in message:
            return why
    return ""
