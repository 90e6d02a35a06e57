"""Make a package of the digits model for each profile of pictures, and classify PNG files with it.

Run as `python examples/digits/ship.py` (or `make demo-ship`); it writes to `out/ship`. The held-out
digits are written as 8-bit PNG files, one folder per digit, and each package classifies them as an
application would: it takes pixels and normalises them itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from data import MEAN, STD, held_out_split
from PIL import Image
from rich.console import Console
from rich.table import Table

import slide_deploy

HERE = Path(__file__).parent
CHECKPOINT = HERE / "slide_swin_digits.pth"
PREPROCESSING = HERE / "preprocessing.json"  # the digits are not normalised as ImageNet
OUTPUT = Path("out/ship")
COLUMNS = (
    *("profile", "file", "input", "precision", "size", "from PNG files", "agreement"),
    *("verdict", "runtime", "not run"),
)


@dataclass(frozen=True)
class Row:
    """The package of one profile: its check, and how many digits it and PyTorch agree on."""

    profile: slide_deploy.Profile
    check: slide_deploy.Check
    taken: slide_deploy.TensorSpec
    right: int
    agreed: int
    total: int

    @property
    def cells(self) -> tuple[str, ...]:
        """The texts of COLUMNS."""
        check, shape = self.check, "×".join(map(str, self.taken.shape))
        return (
            *(self.profile.name, check.path, f"{self.taken.dtype} {shape}", check.precision),
            *(f"{check.size_bytes / 1e3:.0f} kB", f"{self.right / self.total:.2%}"),
            *(f"{self.agreed} of {self.total}", str(check.verdict), str(check.fidelity)),
            self.profile.not_run or "–",
        )

    @property
    def succeeded(self) -> bool:
        return self.check.verdict == "pass" and self.agreed == self.total


def main() -> int:
    model = slide_deploy.load(CHECKPOINT)
    packaged = slide_deploy.with_preprocessing(model, PREPROCESSING)
    packaged = slide_deploy.with_labels(packaged, HERE / "labels.txt")
    folders = write_pictures(OUTPUT / "pictures")
    rows = []
    table = Table(*COLUMNS, title="a package for each profile", title_justify="left")
    for profile in slide_deploy.PROFILES:
        if profile.preprocess.value == "none":
            no_package = "takes a normalised tensor, not pictures"
            print(f"{profile.name}: {no_package}", flush=True)
            table.add_row(profile.name, *["–"] * (len(COLUMNS) - 2), no_package)
            continue
        print(
            *profile.lines(without=["preprocess"]), sep="\n", flush=True
        )  # PREPROCESSING is given
        rows.append(ship(profile, packaged, model, folders))
        table.add_row(*rows[-1].cells)
    terminal = Console()
    console = terminal if terminal.is_terminal else Console(width=200)
    console.print(table)
    print(f"Packages, each with a page for its receiver, are in {OUTPUT}/")
    return 0 if all(row.succeeded for row in rows) else 1


def ship(
    profile: slide_deploy.Profile,
    packaged: slide_deploy.Model,
    model: slide_deploy.Model,
    folders: list[Path],
) -> Row:
    """Export for the profile, and classify the pictures with what was written; folder N has those
    of digit N. `model` finds the classes to agree with."""
    options = slide_deploy.Options(
        precision=profile.precision.value, dynamic=profile.batch.value == "any"
    )
    folder = OUTPUT / profile.name
    if profile.target.value == "coreml":  # with names of classes, as Vision takes them
        packaged = slide_deploy.with_classifier(packaged)
    report = slide_deploy.export_and_verify(packaged, profile.target.value, folder, options)
    (check,) = report.checks
    artifact = folder / check.path
    found = slide_deploy.predict(artifact, folders, model=model, top=1).predictions
    return Row(
        profile=profile,
        check=check,
        taken=slide_deploy.run_artifact(artifact, {}).inputs[0],
        right=sum(
            bool(own.guesses) and str(own.guesses[0].number) == Path(own.image).parent.name
            for own in found
        ),
        agreed=sum(own.agrees is True for own in found),
        total=len(found),
    )


def write_pictures(folder: Path) -> list[Path]:
    """Write the held-out digits as PNG files; the folders of each digit."""
    made = list(_pictures())
    folders = [folder / str(digit) for digit in sorted({digit for digit, _ in made})]
    for own in folders:
        own.mkdir(parents=True, exist_ok=True)
    for number, (digit, pixels) in enumerate(made):
        Image.fromarray(pixels).save(folder / str(digit) / f"{number:03}.png")
    return folders


def _pictures() -> Iterator[tuple[int, np.ndarray]]:
    """Each held-out digit with its pixels, uint8 (32, 32) in grey."""
    for image, label in zip(*held_out_split(), strict=True):
        yield int(label), np.rint((image[0] * STD + MEAN) * 255).astype(np.uint8)


if __name__ == "__main__":
    sys.exit(main())
