"""Export the trained digits model to every target, verify each, and measure its accuracy.

Run as `python examples/digits/demo.py` (or `make demo`); it writes to `out/digits`. With `--readme`
the table replaces the one at the top of README.md.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
from data import held_out_split
from rich.console import Console
from rich.table import Table

import slide_deploy

HERE = Path(__file__).parent
CHECKPOINT = HERE / "slide_swin_digits.pth"
OUTPUT = Path("out/digits")
README = HERE.parents[1] / "README.md"
COMMAND = "    $ slide-deploy export --target all examples/digits/slide_swin_digits.pth\n"


def main() -> int:
    model = slide_deploy.load(CHECKPOINT)
    images, labels = held_out_split()
    report = slide_deploy.export_and_verify(model, "all", OUTPUT, progress=print)
    print("classifying digits with PyTorch")
    outputs = slide_deploy.run_module(model.module, model.outputs, {"image": images})
    expected = outputs["logits"].argmax(1)
    rows = [("PyTorch, unfused", "reference", expected)]
    for check in report.checks:
        print(f"classifying digits with {check.target}")
        found = _classify(OUTPUT / check.path, images)
        rows.append((check.target, check.runtime, found))
    for name in ("report.md", "report.xml"):
        slide_deploy.write_report(report, OUTPUT / name)
    terminal = Console()
    console = terminal if terminal.is_terminal else Console(width=160)
    console.print(slide_deploy.report_table(report, width=console.width))
    if "--readme" in sys.argv:
        _write_readme(report)
    _print_accuracy(console, rows, labels)
    where = f"Artifacts, manifest.json and report.html, .json, .md and .xml are in {OUTPUT}/"
    console.print(where, highlight=False)
    agree = all(np.array_equal(found, expected) for _, _, found in rows)
    return 0 if report.verdict == "pass" and agree else 1


def _write_readme(report: slide_deploy.Report) -> None:
    """Replace the table at the top of README.md by that of this run."""
    console = Console(width=160, file=io.StringIO())
    console.print(slide_deploy.report_table(report))
    printed = console.file.getvalue().splitlines()
    table = printed[: next(n for n, line in enumerate(printed) if line.startswith("└")) + 1]
    before, command, after = README.read_text(encoding="utf-8").partition(COMMAND)
    rest = after.partition("\n\n")[2]
    block = "".join(f"    {line.rstrip()}\n" for line in table)
    README.write_text(f"{before}{command}{block}\n{rest}", encoding="utf-8")


def _classify(artifact: Path, images: np.ndarray) -> np.ndarray:
    """Top-1 class of every image, (N, 3, H, W) → (N,), by the artifact on disk."""
    feeds = {str(index): {"image": image[None]} for index, image in enumerate(images)}
    outputs = slide_deploy.run_artifact(artifact, feeds).outputs
    return np.array([int(outputs[name]["logits"].argmax()) for name in feeds])


def _print_accuracy(
    console: Console, rows: list[tuple[str, str, np.ndarray]], labels: np.ndarray
) -> None:
    table = Table(title=f"accuracy on {len(labels)} held-out digits", title_justify="left")
    for column in ("through", "runtime"):
        table.add_column(column)
    for column in ("accuracy", "top-1 agreement"):
        table.add_column(column, justify="right")
    expected = rows[0][2]
    for name, runtime, found in rows:
        agreement = float((found == expected).mean())
        table.add_row(name, runtime, f"{(found == labels).mean():.2%}", f"{agreement:.2%}")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
