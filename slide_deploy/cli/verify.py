"""slide-deploy verify."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import slide_deploy
from slide_deploy.cli import options as cli
from slide_deploy.cli.model import load_model
from slide_deploy.cli.outcome import Reporting, command_line, make_policy, read_baseline
from slide_deploy.cli.packaging import AS_IT_IS, Classifier, KeepLogits, Labels, Package, Preprocess
from slide_deploy.errors import UsageError

if TYPE_CHECKING:
    from slide_deploy.verification.record import Report

__all__ = ["verify"]


def verify(
    artifact: cli.Artifacts,
    against: cli.Against = None,
    golden: cli.Golden = None,
    manifest_sha256: cli.ManifestSha256 = None,
    factory: cli.Factory = None,
    inputs: cli.Inputs = None,
    weights: cli.WeightsOption = None,
    prefix: cli.Prefix = None,
    key: cli.Key = None,
    image_size: cli.ImageSize = None,
    features: cli.Features = False,
    preprocess: Preprocess = None,
    labels: Labels = None,
    classifier: Classifier = False,
    keep_logits: KeepLogits = False,
    precision: cli.ExpectedPrecision = None,
    calibration: cli.Calibration = None,
    atol: cli.Atol = None,
    rtol: cli.Rtol = None,
    max_drop: cli.MaxDrop = None,
    full_npu: cli.RequireFullNpu = False,
    thorough: cli.Thorough = False,
    trace: cli.Trace = False,
    images: cli.Images = None,
    seed: cli.Seed = None,
    baseline: cli.Baseline = None,
    report: cli.Reports = None,
    as_json: cli.AsJson = False,
    quiet: cli.Quiet = False,
    verbose: cli.Verbose = False,
) -> None:
    """Verify artifacts on disk against their checkpoint or their golden vectors."""
    reporting = Reporting.of(report, as_json=as_json, quiet=quiet, verbose=verbose)
    before = read_baseline(baseline)
    policy = make_policy(atol, rtol, precision, max_drop, full_npu, thorough=thorough, trace=trace)
    package = Package(preprocess, labels, classifier, keep_logits)
    of_model = (factory, inputs, weights, prefix, key, image_size, features, images)
    asked = any((*of_model, calibration, trace)) or seed is not None or package != AS_IT_IS
    _check_given(against, golden, manifest_sha256, of_model=asked)
    notes: tuple[str, ...] = ()
    with reporting.progress() as progress:
        if against is None:
            found = slide_deploy.verify_golden(
                *(artifact, policy, progress, command_line()),
                golden=golden,
                manifest_sha256=manifest_sha256 or "",
            )
        else:
            progress(f"loading {against.name}")
            about = (weights, image_size, features, factory, inputs, prefix, key, package)
            loaded = load_model(against, *about)
            notes = loaded.notes
            run = partial(slide_deploy.verify, policy=policy, seed=seed, calibration=calibration)
            found = run(
                artifact, loaded, images=images or (), progress=progress, command=command_line()
            )
    reporting.finish(_compared(found, before), notes, trace=trace)


def _compared(found: Report, before: Report | None) -> Report:
    """The report with the artifacts that are worse than in the baseline."""
    from slide_deploy.verification.baseline import regressions

    return found if before is None else regressions(found, before)


def _check_given(
    against: Path | None, golden: Path | None, manifest_sha256: str | None, *, of_model: bool
) -> None:
    """UsageError unless the verdict has one thing to rest on, with options that belong to it;
    `of_model` tells whether there are options that need the checkpoint."""
    if against is None and of_model:
        raise UsageError(
            "--model, --input, --weights, --prefix, --key, --image-size, --features, --images, "
            "--calibration, --preprocess, --labels, --classifier and --trace need the checkpoint",
            "add --against model.pth",
        )
    given = {"--against": against, "--golden": golden, "--manifest-sha256": manifest_sha256}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise UsageError(f"{' and '.join(names)} exclude each other", "give one of them")
    if golden is not None and not golden.is_file():
        raise UsageError(f"--golden {golden} is not a file", "give the .npz of an export")
    if manifest_sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", manifest_sha256):
        raise UsageError(
            f"--manifest-sha256 expects 64 hexadecimal digits; got {manifest_sha256[:80]!r}",
            "sha256sum manifest.json prints them",
        )
