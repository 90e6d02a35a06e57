"""`make mutation`: break artifacts, verify them, and report the detection rate."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from benchmarks.mutation.analysis import detection_rate, localised
from benchmarks.mutation.chart import draw_curve
from benchmarks.mutation.document import document, with_quantized
from benchmarks.mutation.outcome import Outcome, Results, Status
from benchmarks.mutation.plan import QUANTIZED, Plan
from benchmarks.mutation.quantized import SOUND
from benchmarks.mutation.random_tables import (
    alarm_rows,
    alarm_sentence,
    curve_rows,
    false_alarm_rows,
)
from benchmarks.mutation.scheduler import run, run_quantized
from benchmarks.mutation.tables import (
    as_rich,
    headroom_rows,
    kind_rows,
    probe_rows,
    quantized_rows,
    real_rows,
)
from slide_deploy import registry, write_json

ENOUGH = 0.99
CHART = "mutation-curve.svg"
OPTIONS = {
    "sites": "sites per kind and model",
    "draws": "clean models drawn for float32",
    "half_draws": "clean models drawn for float16",
    "unusual": "drawn models with unusual weights whose artifacts are broken",
    "half_sites": "sites per kind and float16 model",
    "curve_sites": "sites of the detection curve per kind of layer and model",
    "quantized_sites": "sites per kind, trained model and quantized precision",
    "seed": "random seed of the sampled sites",
    "jobs": "processes",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.mutation", description=__doc__)
    defaults = {field.name: field.default for field in fields(Plan)}
    for name, text in OPTIONS.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=int, default=defaults[name], help=text)
    parser.add_argument("--folder", type=Path, default=Path("build/mutation"))
    parser.add_argument("--results", type=Path, help="a JSON file for the raw results")
    parser.add_argument("--document", type=Path, help="a Markdown file to write the tables to")
    parser.add_argument(
        "--only-quantized", action="store_true", help="run and document the quantized rows alone"
    )
    parser.add_argument(
        "--targets",
        nargs="+",
        help="targets of the quantized artifacts; in the document, the columns of others stay",
    )
    given = parser.parse_args()
    asked = (pair for pair in QUANTIZED if pair[0] in (given.targets or pair))
    plan = Plan(
        **{name: getattr(given, name) for name in OPTIONS}, quantized=tuple(_installed(asked))
    )
    given.folder.mkdir(parents=True, exist_ok=True)
    console, begin = Console(), time.monotonic()
    if given.only_quantized:
        return _only_quantized(plan, given, console)
    with Progress(console=console, transient=True) as bar:
        results = run(plan, given.folder.resolve(), _shown(bar, console, begin))
    seconds = time.monotonic() - begin
    write_json(results, given.results or given.folder / "results.json")
    _print(console, results, seconds)
    if given.document:
        command = f"python -m benchmarks.mutation {shlex.join(sys.argv[1:])}"
        given.document.parent.mkdir(parents=True, exist_ok=True)
        earlier = given.document.read_text("utf-8") if given.document.exists() else ""
        text = document(results, plan, command, seconds, earlier)
        given.document.write_text(text, encoding="utf-8")
        draw_curve(results.curve, given.document.parent / "charts" / CHART)
    alarms = any(one.false_alarm for one in (*results.clean, *results.real))
    alarms = alarms or _refused(results.quantized)
    agree = all(check.agrees for check in results.cross_checks)
    return 0 if detection_rate(results.outcomes) >= ENOUGH and not alarms and agree else 1


def _installed(pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Those whose target runs in this environment; prints the others."""
    for target, precision in pairs:
        if missing := registry.missing_packages(registry.runtime(target).packages):
            print(f"{target} {precision} is left out: {', '.join(missing)} is not installed")
        else:
            yield target, precision


def _only_quantized(plan: Plan, given: argparse.Namespace, console: Console) -> int:
    begin = time.monotonic()
    with Progress(console=console, transient=True) as bar:
        folder = given.folder.resolve()
        outcomes = run_quantized(plan, folder, _shown(bar, console, begin))
    console.print(as_rich(quantized_rows(outcomes)))
    for outcome in outcomes:
        if (outcome.status is Status.MISSED) != (outcome.kind == SOUND and bool(outcome.problem)):
            console.print(outcome)
    if given.document:
        text = given.document.read_text(encoding="utf-8")
        given.document.write_text(with_quantized(text, outcomes), encoding="utf-8")
    broken = [outcome for outcome in outcomes if outcome.kind != SOUND]
    return 0 if detection_rate(broken) >= ENOUGH and not _refused(outcomes) else 1


def _refused(outcomes: Iterable[Outcome]) -> bool:
    """Whether a sound artifact failed."""
    return any(one.kind == SOUND and one.problem for one in outcomes)


def _shown(bar: Progress, console: Console, begin: float) -> Callable[[str, int, int], None]:
    line = bar.add_task("")

    def show(step: str, done: int, total: int) -> None:
        bar.update(line, description=step, completed=done, total=total)
        if not console.is_terminal and done % max(1, total // 10) == 0:
            print(f"{(time.monotonic() - begin) / 60:4.1f} min  {step} {done}/{total}", flush=True)

    return show


def _print(console: Console, results: Results, seconds: float) -> None:
    tables = {
        "": kind_rows(results.outcomes),
        "models with unusual weights": kind_rows(results.unusual),
        "float16": kind_rows(results.half),
        "quantized": quantized_rows(results.quantized),
    }
    for heading, rows in tables.items():
        console.print(heading, as_rich(rows))
    console.print(as_rich(curve_rows(results.curve)))
    for precision in ("float32", "float16"):
        own = results.clean_at(precision)
        console.print(as_rich(alarm_rows(own, precision)))
        console.print(f"{precision}: false alarms {alarm_sentence(own)}", highlight=False)
    console.print(as_rich(false_alarm_rows((*results.clean, *results.real))))
    headroom = headroom_rows(results.clean_at("float32"))
    for rows in (headroom, real_rows(results.real), probe_rows(results)):
        console.print(as_rich(rows))
    named, detected = localised(results.outcomes)
    agree = [check.agrees for check in results.cross_checks]
    console.print(
        f"detection rate {detection_rate(results.outcomes):.2%}, unusual weights "
        f"{detection_rate(results.unusual):.2%}, float16 {detection_rate(results.half):.2%}, "
        f"quantized {detection_rate(results.quantized):.2%}, "
        f"block named in {named} of {detected}, "
        f"`verify` agrees on {sum(agree)} of {len(agree)}, {seconds / 60:.1f} minutes",
        highlight=False,
    )


if __name__ == "__main__":
    sys.exit(main())
