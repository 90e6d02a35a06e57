"""Export the trained digits models at every precision of every target, and measure what each costs.

Run as `python examples/digits/precision.py` (or `make demo-precision`, and `make demo-npu` with the
targets of NPUs); it writes artifacts and reports to `out/precision`, a table to standard output,
and a plot of size against accuracy. With `--document FILE` the table is written there as Markdown,
between two marks; `--section` names them. Where a compiler estimates what devices need, a second
table follows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from data import train_split
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import slide_deploy
from slide_deploy import registry
from slide_deploy.quantization.catalog import scheme_named

HERE = Path(__file__).parent
OUTPUT = Path("out/precision")
CALIBRATION = OUTPUT / "calibration.npy"
SAMPLES = 64
WHOLE = "slide_swin_digits"
COLUMNS = (
    *("model", "target", "precision", "size", "top-1", "agreement", "SNR", "latency"),
    *("against CPU", "in float", "runtime", "verdict"),
)
ESTIMATES = (
    *("model", "device", "cycles", "time", "clock", "SRAM", "other memory", "multiply-adds"),
    *("on NPU", "on CPU"),
)
BEGIN, END = "<!-- {} -->", "<!-- end of {} -->"


@dataclass(frozen=True)
class Row:
    """One artifact: its check, and its accuracy on the held-out digits."""

    model: str
    check: slide_deploy.Check
    accuracy: slide_deploy.Accuracy

    @property
    def cells(self) -> tuple[str, ...]:
        """The texts of COLUMNS."""
        check, own = self.check, self.accuracy
        snr = check.cost[0].snr_db if check.cost else check.snr_db
        latency = "–" if own.latency_ms is None else f"{own.latency_ms:.2f} ms"
        simulated = check.fidelity == "simulated" and check.second_opinion
        against = f"{simulated.snr_db:.0f} dB" if simulated else "–"
        return (
            *(self.model, check.target, check.precision, f"{own.size_bytes / 1e3:.0f} kB"),
            *(f"{own.top1:.2f} %", f"{own.agreement:.2f} %", f"{snr:.0f} dB", latency),
            *(against, str(len(check.other_precision)), str(check.fidelity), str(check.verdict)),
        )

    @property
    def estimates(self) -> Iterator[tuple[str, ...]]:
        """The texts of ESTIMATES, for each device."""
        for own in self.check.estimates:
            yield (
                *(self.model, own.device, f"{own.cycles:,}", f"{own.milliseconds:.2f} ms"),
                *(f"{own.clock_mhz:.0f} MHz", f"{own.sram_bytes / 1e3:.0f} kB"),
                *(f"{own.other_bytes / 1e3:.0f} kB", f"{own.mac_utilisation:.1f} %"),
                *(str(own.on_npu), ", ".join(own.on_cpu) or "none"),
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--document", type=Path, help="a Markdown file to write the table to")
    parser.add_argument("--section", default="figures", help="the name in the marks of the file")
    parser.add_argument("--models", nargs="+", help="names of the models, such as slide_swin")
    parser.add_argument("--device", help="devices for --option device, separated by commas")
    parser.add_argument("--targets", nargs="+", default=registry.float_targets())
    given = parser.parse_args()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    np.save(CALIBRATION, train_split()[0][:SAMPLES])
    own = {"device": given.device} if given.device else {}
    paths = [
        path
        for path in sorted(HERE.glob("*.pth"))
        if not given.models or path.stem.removesuffix("_digits") in given.models
    ]
    rows = [row for path in paths for row in _rows(path, given.targets, own)]
    tables = {"digits, at each precision": (COLUMNS, [row.cells for row in rows])}
    if estimates := [cells for row in rows for cells in row.estimates]:
        tables["the compiler's estimates"] = (ESTIMATES, estimates)
    for title, (columns, cells) in tables.items():
        _print(columns, cells, title)
    _plot(rows, OUTPUT / "precision.png")
    if given.document:
        _write([_markdown(*table) for table in tables.values()], given.document, given.section)
    print(f"Artifacts, reports and precision.png are in {OUTPUT}/")
    return 0 if all(row.check.verdict == "pass" for row in rows) else 1


def _rows(path: Path, targets: Sequence[str], own: Mapping[str, str]) -> Iterator[Row]:
    """Every precision of every target for Slide-Swin, the quantized ones for the other families."""
    model = slide_deploy.load(path)
    data = slide_deploy.read_dataset("digits", model.inputs[0])
    for target in targets:
        for precision in registry.exporter(target).precisions:
            if path.stem != WHOLE and not scheme_named(precision).quantized:
                continue
            folder = OUTPUT / f"{model.name}-{target}-{precision}"
            options = slide_deploy.Options(precision=precision, target_options=own)
            if scheme_named(precision).quantized:
                options = replace(options, calibration=CALIBRATION)
            report = slide_deploy.export_and_verify(model, target, folder, options)
            (check,) = report.checks
            found = slide_deploy.evaluate(folder / check.path, data, model=model)
            print(f"{model.name}: {target} at {precision} {check.verdict}", flush=True)
            yield Row(model.name.removesuffix("_digits"), check, found.artifacts[0])


def _print(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> None:
    table = Table(*columns, title=title, title_justify="left")
    for cells in rows:
        table.add_row(*cells)
    Console(width=160).print(table)


def _plot(rows: list[Row], path: Path) -> None:
    """Size against the accuracy that is lost, one mark per artifact."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    precisions = list(dict.fromkeys(row.check.precision for row in rows))
    for number, precision in enumerate(precisions):
        own = [row for row in rows if row.check.precision == precision]
        sizes = [row.accuracy.size_bytes / 1e3 for row in own]
        top1 = [row.accuracy.top1 for row in own]
        axes.scatter(sizes, top1, label=precision, marker="osD^v"[number % 5], alpha=0.8)
    axes.set_xlabel("size in kB")
    axes.set_ylabel("top-1 on 450 held-out digits, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend()
    figure.savefig(path, dpi=150)


def _write(tables: Sequence[str], path: Path, section: str) -> None:
    begin, end = BEGIN.format(section), END.format(section)
    before, _, rest = path.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    text = "\n\n".join(tables)
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    sys.exit(main())
