"""Where a Core ML package runs, and in which precision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slide_deploy.coreml.summary import type_name
from slide_deploy.errors import UnknownName
from slide_deploy.validators._mil import (
    SYSTEMS,
    Program,
    first_opset,
    is_implemented,
    read_package,
    requirements,
    violations,
    walk,
)

__all__ = ["FunctionCheck", "PackageCheck", "TargetCheck", "check"]


@dataclass(frozen=True)
class TargetCheck:
    """Systems that share one set of operations.

    `runs` is whether they take the package as it is; `missing` counts what they do not have.
    """

    systems: tuple[str, ...]
    runs: bool
    missing: Mapping[str, int]


@dataclass(frozen=True)
class FunctionCheck:
    """One function: limits of Core ML that it breaks, the systems that run it, its precision.

    `unsupported` counts operations that slide-deploy cannot compute; `precision` counts, by
    operation, the element types of results; `exceptions` names operations whose floating-point
    type is not that of most.
    """

    function: str
    violations: tuple[str, ...]
    unsupported: Mapping[str, int]
    targets: tuple[TargetCheck, ...]
    precision: Mapping[str, Mapping[str, int]]
    exceptions: tuple[str, ...]


@dataclass(frozen=True)
class PackageCheck:
    """The checks of all functions of a package."""

    path: str
    functions: tuple[FunctionCheck, ...]

    @property
    def passed(self) -> bool:
        """Whether no function breaks a limit."""
        return not any(function.violations for function in self.functions)


def check(path: Path, target: str | None = None) -> PackageCheck:
    """Check each function of a package.

    target: a system, such as iOS17 or macOS14, that must run the package; one that does not is a
        violation.

    Raises:
        ArtifactError: the package is damaged, or holds something else than an ML program.
        UnknownName: no such system.
    """
    systems = {system.lower(): system for group in SYSTEMS.values() for system in group}
    if target is not None and target.lower() not in systems:
        raise UnknownName("deployment target", target, systems.values())
    wanted = None if target is None else systems[target.lower()]
    names = read_package(path).functions
    return PackageCheck(
        path.name, tuple(_checked(read_package(path, name), wanted) for name in names)
    )


def _checked(program: Program, wanted: str | None) -> FunctionCheck:
    needed = Counter(requirements(program))
    oldest = first_opset(program)
    targets = tuple(
        TargetCheck(
            systems,
            oldest <= opset,
            {what: count for (what, first), count in needed.items() if first > opset},
        )
        for opset, systems in SYSTEMS.items()
    )
    found = violations(program)
    if wanted and any(wanted in target.systems and not target.runs for target in targets):
        first = next((name for name in SYSTEMS.get(oldest, ()) if name[:2] == wanted[:2]), "newer")
        found.append(f"{wanted} does not load the package; it needs {first}")
    computed = [op for op in walk(program.operations) if op.type != "const"]
    return FunctionCheck(
        function=program.function,
        violations=tuple(found),
        unsupported=Counter(op.type for op in computed if not is_implemented(op.type)),
        targets=targets,
        precision=_precision(program),
        exceptions=_exceptions(program),
    )


def _results(program: Program) -> list[tuple[str, str, str]]:
    """Operation, value and element type of each result."""
    return [
        (operation.type, value.name, type_name(value.type.dtype))
        for operation in walk(program.operations)
        if operation.type != "const"
        for value in operation.outputs
    ]


def _precision(program: Program) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for kind, _, dtype in _results(program):
        of_kind = counts.setdefault(kind, {})
        of_kind[dtype] = of_kind.get(dtype, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -sum(item[1].values())))


def _exceptions(program: Program) -> tuple[str, ...]:
    floats = [row for row in _results(program) if row[2].startswith("float")]
    [(usual, _)] = Counter(dtype for *_, dtype in floats).most_common(1) or [("", 0)]
    return tuple(f"{kind} {name} is {dtype}" for kind, name, dtype in floats if dtype != usual)
