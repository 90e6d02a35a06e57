"""Options of `export` for the accuracy that quantized artifacts must have."""

from __future__ import annotations

from typing import Annotated

from slide_deploy.cli.options import numerics

__all__ = ["LABELLED", "Data", "MaxDrop", "MinSnr", "Smooth"]

LABELLED = (
    "a folder of images per class, a CSV file of path,label, an .npz file of images and labels, or "
    "the word digits (of examples/digits)"
)

MinSnr = Annotated[
    float | None,
    numerics(
        "--min-snr",
        metavar="DB",
        help="Signal-to-noise ratio in dB to reach on the calibration set, such as 40. Other "
        "settings are tried, and as many parts of the model as this requires stay in float.",
        show_default="every part is quantized",
    ),
]
Smooth = Annotated[
    float | None,
    numerics(
        "--smooth",
        metavar="ALPHA",
        help="Strength of SmoothQuant, above 0 and below 1: how much of the range of activations "
        "goes to the weights. 0 leaves it out.",
        show_default="0, or what --min-snr and --max-drop find",
    ),
]
Data = Annotated[
    str | None,
    numerics(
        "--data",
        metavar="FOLDER|FILE",
        help=f"Labelled images, on which the accuracy is measured: {LABELLED}.",
    ),
]
MaxDrop = Annotated[
    float | None,
    numerics(
        "--max-drop",
        metavar="POINTS",
        min=0,
        help="With --data, the points of top-1 accuracy that an artifact may lose, for which "
        "parts stay in float as for --min-snr. Without, the percentage of the calibration set on "
        "which the top-1 class may differ from the float64 model.",
        show_default="no limit with --data, else 10",
    ),
]
