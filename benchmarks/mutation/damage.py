"""Mistakes with whole files: cut short, or those of another checkpoint.

Judgement as `slide-deploy verify` does it, in a fresh process: a broken file may take the
runtime down with it.
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
from slide_deploy.fusion.branches import fuse
from slide_deploy.verification.check import check_artifact
from slide_deploy.verification.judge import VerificationPolicy

__all__ = ["STALE", "TRUNCATED", "reseeded", "stale", "truncated"]

TRUNCATED, STALE = "truncated file", "stale artifact"

# Bytes that are left: half a download, a full disk at the end, a last block never written.
CUTS = ("half", "the first 90 %", "all but 512 bytes", "all but 4 bytes")


def truncated(bench: Bench, target: str) -> Iterator[Outcome]:
    """The artifact's largest file, which holds the weights, cut in several places."""
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
    """Artifacts of other weights (training form) of the same architecture, by description."""
    for detail, module in others.items():
        with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
            path = bench.convert(bench.capture(fuse(module)), target, Path(folder))
            yield _checked(bench, target, path, STALE, detail)


def reseeded(module: nn.Module, seed: int) -> nn.Module:
    """The same architecture, as another run might end: each tensor's values in another order."""
    torch.manual_seed(seed)
    other = copy.deepcopy(module)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if not name.endswith("dep_conv.weight"):
                flat = parameter.reshape(-1)
                parameter.copy_(flat[torch.randperm(len(flat))].reshape(parameter.shape))
    return other


def _checked(bench: Bench, target: str, path: Path, kind: str, detail: str) -> Outcome:
    check = check_artifact(path, bench.subject, None, VerificationPolicy(), lambda step: None)
    status = Status.DETECTED if check.problems else _unnoticed(bench, target, path)
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


def _unnoticed(bench: Bench, target: str, path: Path) -> Status:
    """Bytes that nothing is computed from may go without a loss."""
    artifacts = (path, bench.clean(target))
    for expected in bench.expected:
        made, sound = (bench.run(target, one, expected.inputs) for one in artifacts)
        if not np.array_equal(made, sound):
            return Status.MISSED
    return Status.MENDED
