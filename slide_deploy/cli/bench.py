"""slide-deploy bench."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slide_deploy.cli import options as cli

__all__ = ["bench"]


def bench(
    artifact: Annotated[
        list[Path],
        typer.Argument(
            metavar="ARTIFACT...", help="Artifacts to time, or a folder that export wrote."
        ),
    ],
    threads: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Threads of each runtime; repeatable.", show_default="2"),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1, help="Batch size for artifacts exported with --dynamic.", show_default="1"
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds over all artifacts.")] = 10,
    calls: Annotated[int, typer.Option(min=1, help="Calls per artifact and round.")] = 5,
    warmup: Annotated[int, typer.Option(min=0, help="Untimed calls before the first round.")] = 5,
    chart: Annotated[
        Path | None, cli.report_option(help="Draw a bar chart (.png or .svg).")
    ] = None,
    json_file: Annotated[
        Path | None, cli.report_option("--json", help="Write the figures as JSON.")
    ] = None,
) -> None:
    """Measure the latency of artifacts in their runtimes, alternating between them."""
    from slide_deploy.bench.latency import bench as run
    from slide_deploy.report.progress import progress_reporter
    from slide_deploy.report.terminal import make_console
    from slide_deploy.report.timings import save_chart, timings_table
    from slide_deploy.utils.records import write_json

    with progress_reporter() as progress:
        found = run(
            artifact,
            threads=threads or 2,
            batch=batch,
            rounds=rounds,
            calls=calls,
            warmup=warmup,
            progress=progress,
        )
    console = make_console()
    console.print(timings_table(found, width=console.width))
    if chart:
        save_chart(found, chart)
    if json_file:
        write_json(found, json_file)
