"""Tables of a run's results, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from benchmarks.mutation.analysis import counted, detection_rate, fewest_probes, probe_uses
from benchmarks.mutation.outcome import Headroom, Outcome, Results, Status
from benchmarks.mutation.plan import TARGETS
from benchmarks.mutation.quantized import SOUND

__all__ = [
    "TITLES",
    "Rows",
    "as_markdown",
    "as_rich",
    "headroom_rows",
    "joined_rows",
    "kind_rows",
    "probe_rows",
    "quantized_rows",
    "real_rows",
    "undetected_rows",
]

TITLES = {
    "onnx": "ONNX",
    "openvino": "OpenVINO",
    "coreml": "Core ML",
    "torchscript": "TorchScript",
    "qnn": "Hexagon",
    "ethos-u": "Ethos-U",
}

SOUND_ROW = "sound artifacts that failed"


@dataclass(frozen=True)
class Rows:
    title: str
    columns: Sequence[str]
    cells: Sequence[Sequence[str]]


def kind_rows(outcomes: Sequence[Outcome]) -> Rows:
    """Kind × format → detected / equivalent / missed / no effect, and the detection rate."""
    kinds = list(dict.fromkeys(outcome.kind for outcome in outcomes))
    cells = [_kind_row(kind, [o for o in outcomes if o.kind == kind]) for kind in kinds]
    return Rows(
        "detected / equivalent / missed / no effect",
        ("mutation", *(TITLES[target] for target in TARGETS), "made in", "detection rate"),
        [*cells, _kind_row("all", outcomes)],
    )


def quantized_rows(outcomes: Sequence[Outcome]) -> Rows:
    """Kind × target and precision → detected / made with an effect; sound artifacts last."""
    broken = [outcome for outcome in outcomes if outcome.kind != SOUND]
    kinds = dict.fromkeys(outcome.kind for outcome in broken)
    columns = list(dict.fromkeys((outcome.target, outcome.detail) for outcome in outcomes))

    def cell(own: Sequence[Outcome], made: int) -> str:
        return f"{counted(own)[Status.DETECTED]}/{made}" if own else "–"

    def row(name: str, own: Sequence[Outcome]) -> list[str]:
        cells = [name]
        for column in columns:
            here = [outcome for outcome in own if (outcome.target, outcome.detail) == column]
            without = 0 if name == SOUND_ROW else counted(here)[Status.INEFFECTIVE]
            cells.append(cell(here, len(here) - without))
        return cells

    rows = [row(kind, [o for o in broken if o.kind == kind]) for kind in kinds]
    sound = row(SOUND_ROW, [o for o in outcomes if o.kind == SOUND])
    names = (f"{TITLES[target]} {precision}" for target, precision in columns)
    return Rows("detected / made", ("mutation", *names), [*rows, row("all", broken), sound])


def joined_rows(markdown: str, rows: Rows) -> Rows:
    """The columns of a table in Markdown, with those of `rows` in place of equal ones, or added."""
    lines = [line for line in markdown.splitlines() if line.startswith("| ")]
    old = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    if not old:
        return rows
    head, cells = old[0], {row[0]: row[1:] for row in old[2:]}
    kept = [place for place, name in enumerate(head[1:]) if name not in rows.columns]
    new = {row[0]: row[1:] for row in rows.cells}
    # The last two rows, of all and of sound artifacts, stay the last.
    names = list(dict.fromkeys((*[*cells][:-2], *[*new][:-2], *[*new][-2:])))
    made = []
    for name in names:
        earlier = cells.get(name, ["–"] * len(head[1:]))
        own = new.get(name, ["–"] * len(rows.columns[1:]))
        made.append([name, *(earlier[place] for place in kept), *own])
    return Rows(rows.title, (head[0], *(head[1:][p] for p in kept), *rows.columns[1:]), made)


def _kind_row(name: str, outcomes: Sequence[Outcome]) -> list[str]:
    by_target = [_cell([o for o in outcomes if o.target == target]) for target in TARGETS]
    routes = {str(outcome.route) for outcome in outcomes}
    return [
        name,
        *by_target,
        ", ".join(sorted(routes, reverse=True)),
        f"{detection_rate(outcomes):.1%}",
    ]


def _cell(outcomes: Sequence[Outcome]) -> str:
    count = counted(outcomes)
    shown = (Status.DETECTED, Status.EQUIVALENT, Status.MISSED, Status.INEFFECTIVE)
    text = "/".join(str(count[status]) for status in shown)
    return text + (f" ({count[Status.NOT_MADE]} not made)" if count[Status.NOT_MADE] else "")


def undetected_rows(outcomes: Sequence[Outcome]) -> Rows:
    """Mutants that passed in some format or were not made, with the size of their effect."""
    passed = [o for o in outcomes if o.status is not Status.DETECTED]
    groups: dict[tuple[str, ...], list[Outcome]] = {}
    for one in passed:
        key = (one.model, one.kind, f"{one.site} {one.detail}", str(one.status))
        groups.setdefault(key, []).append(one)
    cells = []
    for (model, kind, where, status), group in groups.items():
        effect = group[0].effect
        change = f"{effect.change / effect.noise:.2f}" if effect else "–"
        formats = ", ".join(TITLES[one.target] for one in group)
        cells.append([kind, model, where, formats, status, change])
    columns = ("mutation", "model", "site", "formats", "outcome", "change / noise")
    return Rows("not detected", columns, sorted(cells))


def headroom_rows(clean: Sequence[Headroom]) -> Rows:
    """Clean exports per runtime: error as a multiple of the noise, and number of failures."""
    cells = []
    for target in TARGETS:
        own = [one for one in clean if one.target == target]
        ratios = [[getattr(one, part) for one in own] for part in ("worst", "pooled", "systematic")]
        failed = sum(one.false_alarm for one in own)
        spreads = [figure for values in ratios for figure in _spread(values)]
        cells.append([TITLES[target], str(len(own)), str(failed), *spreads])
    figures = ("median", "p99", "max")
    return Rows(
        "clean exports of drawn models: error / noise",
        (
            *("runtime", "exports", "false alarms"),
            *(f"worst probe, {f}" for f in figures),
            *(f"all probes, {f}" for f in figures),
            *(f"systematic, {f}" for f in figures),
        ),
        cells,
    )


def _spread(values: Sequence[float]) -> list[str]:
    return [f"{value:.2f}" for value in np.percentile(values, (50, 99, 100))] if values else []


def real_rows(real: Sequence[Headroom]) -> Rows:
    """Model × runtime → error / noise: of the worst probe, pooled, and systematic."""
    models = list(dict.fromkeys(one.model for one in real))
    cells = []
    for model in models:
        own = {one.target: one for one in real if one.model == model}
        cells.append([model, *(_used(own.get(target)) for target in TARGETS)])
    return Rows("error / noise", ("model", *(TITLES[target] for target in TARGETS)), cells)


def _used(one: Headroom | None) -> str:
    if one is None:
        return "–"
    ratios = " · ".join(f"{ratio:.1f}" for ratio in (one.worst, one.pooled, one.systematic))
    return ratios + (" FAILS" if one.problem else "")


def probe_rows(results: Results) -> Rows:
    """The mutants that each probe detects, in the order of `fewest_probes`."""
    uses = {use.probe: use for use in probe_uses(results.outcomes)}
    order = fewest_probes(results.outcomes)
    cells = [
        [probe, str(uses[probe].alone), str(uses[probe].only), str(together)]
        for probe, together in order
    ]
    columns = ("probe", "detects alone", "detected by no other", "with those above")
    return Rows("mutants detected", columns, cells)


def as_rich(rows: Rows) -> Table:
    """A table for the terminal."""
    table = Table(title=rows.title, title_justify="left")
    for index, column in enumerate(rows.columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=not index)
    for cells in rows.cells:
        table.add_row(*cells)
    return table


def as_markdown(rows: Rows) -> str:
    """A table for docs/mutation.md."""
    lines: Iterable[Sequence[str]] = (
        rows.columns,
        ["---", *("--:" for _ in rows.columns[1:])],
        *([cell.replace("|", r"\|") for cell in cells] for cells in rows.cells),
    )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"
