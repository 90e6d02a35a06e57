"""Compiles each lowering for Qualcomm's Hexagon, and compares what its simulator computes.

The digits Slide-Swin, and one Slide Attention of Slide-Swin-T's first stage (56×56, 96 channels,
3 heads), are quantized in each lowering and compiled for an SoC. The simulator has no clock of the
device: the "cycles" of its profiles are time on this machine, and differ from run to run. So the
table has what does not: operators, the size of the binary, and the signal-to-noise ratio against
float64 and against onnxruntime on the CPU.
Run as `python benchmarks/hexagon_lowerings.py`; `--document docs/npu.md` writes the table there.
"""

from __future__ import annotations

import argparse
import copy
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import slide_deploy
from slide_deploy import hexagon, registry
from slide_deploy.errors import ConversionError
from slide_deploy.models.slide_attention import AttentionConfig, SlideAttention
from slide_deploy.parity.metrics import snr_db
from slide_deploy.parity.probes import natural_image
from slide_deploy.protocols import Session

DIGITS = Path(__file__).parents[1] / "examples" / "digits" / "slide_swin_digits.pth"
SIDE, DIM, HEADS = 56, 96, 3
SOC = "SM8650"
SAMPLES, RUN = 32, 8
COLUMNS = (
    *("model", "lowering", "operators", "on the CPU", "binary", "compile time"),
    *("against float64", "against CPU"),
)
BEGIN, END = "<!-- lowerings -->", "<!-- end of lowerings -->"
QDQ = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Subject:
    """A model, its name in the table, and inputs of it."""

    name: str
    model: slide_deploy.Model
    samples: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", default="w8a16")
    parser.add_argument("--document", type=Path, help="a Markdown file to write the table to")
    given = parser.parse_args()
    rows = [row for subject in subjects() for row in rows_of(subject, given.precision)]
    if given.document:
        write(rows, given.document)


def subjects() -> Iterator[Subject]:
    rng = np.random.default_rng(0)
    digits = slide_deploy.load(DIGITS)
    data = slide_deploy.read_dataset("digits", digits.inputs[0])
    taken = np.stack([data.image(number) for number in range(SAMPLES)])
    yield Subject("Slide-Swin, digits", digits, taken)
    torch.manual_seed(0)
    attention = SlideAttention(AttentionConfig(DIM, HEADS)).eval()
    tokens = slide_deploy.TensorSpec("tokens", (1, SIDE, SIDE, DIM))
    model = slide_deploy.wrap(attention, (tokens,))
    channels_first = images(rng, (DIM, SIDE, SIDE))
    yield Subject(f"attention {SIDE}×{SIDE}×{DIM}", model, channels_first.transpose(0, 2, 3, 1))


def images(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    return np.stack([natural_image(shape, rng) for _ in range(SAMPLES)]).astype(np.float32)


def rows_of(subject: Subject, precision: str) -> Iterator[tuple[str, ...]]:
    """The cells of each lowering."""
    for lowering in slide_deploy.lowerings():
        with tempfile.TemporaryDirectory() as folder:
            found = measured(subject, lowering.name, precision, Path(folder))
        cells = (subject.name, lowering.name, *found)
        print(*cells, sep=" | ", flush=True)
        yield cells


def measured(subject: Subject, lowering: str, precision: str, folder: Path) -> tuple[str, ...]:
    calibration = folder / "samples.npy"
    np.save(calibration, subject.samples)
    options = slide_deploy.Options(precision, lowering=lowering, calibration=calibration)
    try:
        manifest = slide_deploy.export(subject.model, "qnn", folder / "out", options)
    except ConversionError as error:
        kinds = Counter(re.findall(r"\((\w+)\)", error.message))
        left = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        return ("–", left or error.message, "–", "–", "–", "–")
    path = folder / "out" / manifest.artifacts[0].path
    begin = time.monotonic()
    hexagon.compile_for(SOC, path / hexagon.MODEL, folder / f"{SOC}.onnx")
    seconds = time.monotonic() - begin
    runtime = registry.runtime("qnn")
    session = runtime.open(path)
    assert runtime.open_second is not None
    simulated, cpu = (outputs(subject, own) for own in (session, runtime.open_second(path)))
    counts = session.operators.items()
    operators = sum(count for name, count in counts if name.partition("::")[2] not in QDQ)
    size = (path / f"{SOC}.onnx").stat().st_size
    return (
        *(str(operators), "0", f"{size / 1e3:.0f} kB", f"{seconds:.1f} s"),
        *(f"{snr_db(simulated, other):.1f} dB" for other in (exact(subject), cpu)),
    )


def outputs(subject: Subject, session: Session) -> np.ndarray:
    """The first output of a session on the first samples."""
    name = subject.model.inputs[0].name
    found = (session.run({name: sample[None]}) for sample in subject.samples[:RUN])
    return np.concatenate([next(iter(own.values())) for own in found]).astype(np.float64)


def exact(subject: Subject) -> np.ndarray:
    """What the unfused model computes in float64."""
    module = copy.deepcopy(subject.model.module).double()
    with torch.no_grad():
        return np.asarray(module(torch.from_numpy(subject.samples[:RUN].astype(np.float64))))


def write(rows: Sequence[Sequence[str]], path: Path) -> None:
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    path.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
