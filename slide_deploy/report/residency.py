"""The table of `slide-deploy coreml residency`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from slide_deploy.report.text import clean

if TYPE_CHECKING:
    from slide_deploy.coreml import FunctionResidency, PackageResidency

__all__ = ["residency_table"]

PREDICTION = (
    "This is a prediction from the file alone: Core ML decides on the device, by hardware, system "
    "and cost. Xcode's performance report and MLComputePlan show its decision."
)
COLOURS = {"Neural Engine": "green", "CPU or GPU": "red", "not known": "yellow"}


def residency_table(package: PackageResidency, verbose: bool = False) -> RenderableType:
    """For each function, the place of each kind of operation, the reasons, the sources, and the
    places in each block of the model.

    `verbose` lists the segments too, as without a record of blocks.
    """
    parts = (part for found in package.functions for part in _function(found, verbose))
    return Group(*parts, Text(), Text(PREDICTION, style="bold"))


def _blocks(found: FunctionResidency) -> RenderableType:
    table = Table(title=Text("by block of the model"), title_justify="left")
    for column in ("block", *COLOURS):
        table.add_column(column, justify="left" if column == "block" else "right")
    for own in found.blocks:
        counts = (own.neural_engine, own.elsewhere, own.unknown)
        table.add_row(Text(clean(own.block or "(none)")), *(str(n or "") for n in counts))
    return table


def _function(found: FunctionResidency, verbose: bool) -> Iterator[RenderableType]:
    sources = {own.source: None for own in found.placements if own.source}
    numbers = {source: number for number, source in enumerate(sources, 1)}
    table = Table(title=Text(f"function {clean(found.function)}"), title_justify="left")
    for column in ("operation", "count", "may run on", "because of", "source"):
        table.add_column(column, justify="right" if column == "count" else "left")
    for own in found.placements:
        number = Text(f"[{numbers[own.source]}]" if own.source else "")
        place = Text(own.place, style=COLOURS[own.place])
        table.add_row(Text(clean(own.operation)), str(own.count), place, own.reason, number)
    yield table
    places = {own.place: found.count(own.place) for own in found.placements}
    total = sum(places.values())
    counts = ", ".join(f"{place} {count}" for place, count in places.items())
    yield Text(f"{total} operations: {counts}; {found.switches} changes of the processor at least")
    for source, count in numbers.items():
        yield Text(f"[{count}] {source.who}: {source.says} ({source.url})")
    if found.blocks:
        yield _blocks(found)
    if verbose or not found.blocks:
        for segment in found.segments:
            ends = f"{clean(segment.first)} to {clean(segment.last)}"
            yield Text(f"{segment.place}, {segment.operations} operations: {ends}")
    yield from (Text(f"note: {clean(note)}", style="yellow") for note in found.notes)
