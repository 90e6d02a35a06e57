"""Truncated artifacts, and artifacts of another checkpoint.

They are verified in a fresh process, because a broken file may crash the runtime.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.mutation.bench import Bench
from benchmarks.mutation.outcome import Outcome, Route, Status
from slide_deploy import VerificationPolicy, check_artifact, fuse_module

__all__ = ["STALE", "TRUNCATED", "reseeded", "stale", "truncated"]

TRUNCATED, STALE = "truncated file", "stale artifact"

# Remaining bytes after an aborted download, a full disk, or a missing last block.
CUTS = ("half", "the first 90 %", "all but 512 bytes", "all but 4 bytes")


def truncated(bench: Bench, target: str) -> Iterator[Outcome]:
    """Artifacts whose largest file, which holds the weights, is truncated."""
    clean = bench.clean(target)
    for cut in CUTS:
        with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
            path = Path(folder, clean.name)
            duplicate = shutil.copytree if clean.is_dir() else shutil.copy
            duplicate(clean, path)
            parts = [part for part in path.rglob("*") if part.is_file()] or [path]
            weights = max(parts, key=lambda part: part.stat().st_size)
            content = weights.read_bytes()
            size = len(content)
            left = dict(zip(CUTS, (size // 2, size * 9 // 10, size - 512, size - 4), strict=True))
            weights.write_bytes(content[: left[cut]])
            yield _checked(bench, target, path, TRUNCATED, f"{cut} of {weights.suffix} left")


def stale(bench: Bench, others: dict[str, nn.Module], target: str) -> Iterator[Outcome]:
    """Artifacts of unfused modules of the same architecture with other weights, by description."""
    for detail, module in others.items():
        with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
            path = bench.convert(bench.capture(fuse_module(module)), target, Path(folder))
            yield _checked(bench, target, path, STALE, detail)


def reseeded(module: nn.Module, seed: int) -> nn.Module:
    """A copy whose tensors have their values in another order, like weights of another run."""
    torch.manual_seed(seed)
    other = copy.deepcopy(module)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if not name.endswith("dep_conv.weight"):
                flat = parameter.reshape(-1)
                parameter.copy_(flat[torch.randperm(len(flat))].reshape(parameter.shape))
    return other


def _checked(bench: Bench, target: str, path: Path, kind: str, detail: str) -> Outcome:
    check = check_artifact(path, bench.reference, None, VerificationPolicy(), lambda step: None)
    status = Status.DETECTED if check.problems else _undetected(bench, target, path)
    return Outcome(
        model=bench.name,
        kind=kind,
        site="",
        block="",
        detail=detail,
        target=target,
        route=Route.FILE if kind == TRUNCATED else Route.CONVERSION,
        status=status,
        problem=next(iter(check.problems), ""),
        pooled=check.pooled_noise_ratio,
    )


def _undetected(bench: Bench, target: str, path: Path) -> Status:
    """The status of a passing artifact: removing unused bytes has no effect."""
    artifacts = (path, bench.clean(target))
    for expected in bench.expected:
        made, sound = (bench.run(target, one, expected.inputs) for one in artifacts)
        if not np.array_equal(made, sound):
            return Status.MISSED
    return Status.INEFFECTIVE
