"""`make mutation`: break artifacts, verify them, and report the detection rate."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from benchmarks.mutation.analysis import detection_rate, localised
from benchmarks.mutation.document import document
from benchmarks.mutation.plan import Plan
from benchmarks.mutation.scheduler import run
from benchmarks.mutation.tables import as_rich, headroom_rows, kind_rows, probe_rows, real_rows
from slide_deploy import write_json

ENOUGH = 0.99


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.mutation", description=__doc__)
    parser.add_argument("--sites", type=int, default=Plan.sites, help="sites per kind and model")
    parser.add_argument("--seeds", type=int, default=Plan.seeds, help="number of clean models")
    parser.add_argument(
        "--seed", type=int, default=Plan.seed, help="random seed of the sampled sites"
    )
    parser.add_argument("--jobs", type=int, default=Plan.jobs)
    parser.add_argument("--folder", type=Path, default=Path("build/mutation"))
    parser.add_argument("--results", type=Path, help="a JSON file for the raw results")
    parser.add_argument("--document", type=Path, help="a Markdown file to write the tables to")
    given = parser.parse_args()
    plan = Plan(given.sites, given.seeds, given.seed, given.jobs)
    given.folder.mkdir(parents=True, exist_ok=True)
    console, begin = Console(), time.monotonic()
    with Progress(console=console, transient=True) as bar:
        line = bar.add_task("")

        def show(step: str, done: int, total: int) -> None:
            bar.update(line, description=step, completed=done, total=total)
            if not console.is_terminal and done % max(1, total // 10) == 0:
                print(
                    f"{(time.monotonic() - begin) / 60:4.1f} min  {step} {done}/{total}", flush=True
                )

        results = run(plan, given.folder.resolve(), show)
    seconds = time.monotonic() - begin
    write_json(results, given.results or given.folder / "results.json")
    for rows in (kind_rows(results.outcomes), probe_rows(results)):
        console.print(as_rich(rows))
    for headroom in (headroom_rows(results.clean), real_rows(results.real)):
        console.print(as_rich(headroom))
    named, detected = localised(results.outcomes)
    alarms = sum(bool(one.problem) for one in (*results.clean, *results.real))
    agree = [check.exit_code == check.expected for check in results.cross_checks]
    console.print(
        f"detection rate {detection_rate(results.outcomes):.2%}, {alarms} false alarms in "
        f"{len(results.clean)} seeded and {len(results.real)} other clean exports, "
        f"block named in {named} of {detected}, "
        f"`verify` agrees on {sum(agree)} of {len(agree)}, {seconds / 60:.1f} minutes",
        highlight=False,
    )
    if given.document:
        command = f"python -m benchmarks.mutation {shlex.join(sys.argv[1:])}"
        given.document.parent.mkdir(parents=True, exist_ok=True)
        given.document.write_text(document(results, plan, command, seconds), encoding="utf-8")
    good = detection_rate(results.outcomes) >= ENOUGH and not alarms and all(agree)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
