"""Tables of `slide-deploy coreml`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from slide_deploy.report.text import clean, size_text

if TYPE_CHECKING:
    from slide_deploy.coreml import (
        FunctionCheck,
        FunctionSummary,
        PackageCheck,
        PackageSummary,
        Variant,
    )

__all__ = ["check_table", "outputs_table", "spread_table", "summary_table"]

_MOST = 5


def summary_table(package: PackageSummary) -> RenderableType:
    """Facts about a package, then the values and operations of each function."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold")
    facts.add_column()
    facts.add_row("package", Text(f"{clean(package.path)} ({size_text(package.size_bytes)})"))
    facts.add_row("runs from", package.deployment_target)
    facts.add_row("specification", f"version {package.specification_version}")
    if package.description:
        facts.add_row("description", Text(clean(package.description)))
    for name, value in sorted(package.metadata.items()):
        facts.add_row(Text(clean(name.removeprefix("com.github.apple."))), Text(clean(value)))
    return Group(facts, *(part for function in package.functions for part in _function(function)))


def _function(function: FunctionSummary) -> tuple[RenderableType, ...]:
    mark = ", the default" if function.default else ""
    table = _table(f"function {function.name} ({function.opset}{mark})", "value", "role", "type")
    table.add_column("shape")
    for value in function.values:
        shape = "×".join(value.shape) or "scalar"
        table.add_row(*map(Text, (clean(value.name), value.role, value.type, shape)))
    counts = ", ".join(f"{kind} {count}" for kind, count in function.operations.items())
    total = sum(function.operations.values())
    kinds = len(function.operations)
    return Text(), table, Text(f"{total} operations ({kinds} kinds): {clean(counts)}")


def check_table(package: PackageCheck, verbose: bool = False) -> RenderableType:
    """For each function the systems that run it, the precision by operation, and what is wrong.

    `verbose` lists every operation of another precision instead of the first few.
    """
    return Group(*(part for found in package.functions for part in _check(found, verbose)))


def _check(found: FunctionCheck, verbose: bool) -> list[RenderableType]:
    where = f"function {clean(found.function)}"
    systems = _table(where, "systems", "run it", "do not have")
    for target in found.targets:
        runs = Text("yes", style="green") if target.runs else Text("no", style="red")
        systems.add_row(", ".join(target.systems), runs, Text(clean(_counts(target.missing))))
    types = sorted({dtype for counts in found.precision.values() for dtype in counts})
    precision = _table("results by element type", "operation")
    for dtype in types:
        precision.add_column(dtype, justify="right")
    for kind, counts in found.precision.items():
        precision.add_row(Text(clean(kind)), *(str(counts.get(dtype, "")) for dtype in types))
    lines = [Text(f"violation: {clean(line)}", style="red") for line in found.violations]
    if found.unsupported:
        here = f"cannot be computed by slide-deploy: {clean(_counts(found.unsupported))}"
        lines.append(Text(here, style="yellow"))
    most = len(found.exceptions) if verbose else _MOST
    lines += [Text(f"precision: {clean(line)}") for line in found.exceptions[:most]]
    if len(found.exceptions) > most:
        lines.append(Text(f"precision: … and {len(found.exceptions) - most} more (--verbose)"))
    if not found.violations:
        lines.append(Text(f"{where} breaks no limit that is known here", style="green"))
    return [systems, precision, *lines]


def outputs_table(outputs: Mapping[str, np.ndarray], notes: Sequence[str]) -> RenderableType:
    """Type, shape and range of each output, the likeliest classes, and what results rest on."""
    table = _table("", "output", "type", "shape", "smallest", "mean", "largest")
    for name, array in outputs.items():
        shape = "×".join(map(str, array.shape)) or "scalar"
        kind = "classes" if array.dtype.kind == "V" else array.dtype.name
        table.add_row(Text(clean(name)), kind, shape, *_range(array))
    lines = [Text(f"note: {clean(note)}", style="yellow") for note in dict.fromkeys(notes)]
    return Group(table, *(line for o in outputs.items() for line in _classes(*o)), *lines)


def spread_table(
    outputs: Mapping[str, np.ndarray], variants: Mapping[Variant, Mapping[str, np.ndarray]]
) -> RenderableType:
    """How far other arithmetic takes each output, as the largest difference."""
    table = _table("float16 arithmetic other than described", "variant", "known from")
    numeric = [name for name, array in outputs.items() if array.dtype.kind in "fiu"]
    for name in numeric:
        table.add_column(Text(clean(name)), justify="right")
    for variant, found in variants.items():
        with np.errstate(invalid="ignore"):
            moved = [_difference(outputs[name], found[name]) for name in numeric]
        table.add_row(variant.name, variant.source, *moved)
    return table


def _difference(described: np.ndarray, found: np.ndarray) -> str:
    """The largest difference, and its share of the largest value."""
    if described.shape != found.shape or not described.size:
        return "–"
    wide = described.astype(np.float64)
    largest = np.abs(found - wide).max()
    share = largest / np.abs(wide).max() if wide.any() else 0.0
    return f"{largest:.1e} ({share:.2%})" if largest else "0"


def _range(array: np.ndarray) -> tuple[str | Text, ...]:
    if array.dtype.kind in "USV" or not array.size:
        return (Text(clean(str(array))), "", "") if array.ndim == 0 else ("", "", "")
    wide = array.astype(np.float64)
    return tuple(f"{value:.5g}" for value in (wide.min(), wide.mean(), wide.max()))


def _classes(name: str, array: np.ndarray) -> list[Text]:
    if array.dtype.kind != "V":
        return []
    best = sorted(array.tolist(), key=lambda pair: -pair[1])[:_MOST]
    return [Text(clean(f"{name}: {key} {value:.4f}")) for key, value in best]


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(what if n == 1 else f"{what} (×{n})" for what, n in counts.items())


def _table(title: str, *columns: str) -> Table:
    table = Table(title=Text(title), title_justify="left")
    for column in columns:
        table.add_column(column)
    return table
