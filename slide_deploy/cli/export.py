"""slide-deploy export."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import slide_deploy
from slide_deploy.cli import options as cli
from slide_deploy.cli.model import load_model
from slide_deploy.cli.outcome import Reporting, command_line, make_policy, read_baseline
from slide_deploy.cli.packaging import Classifier, KeepLogits, Labels, Package, Preprocess
from slide_deploy.cli.profiles import ForProfile, Targets, chosen_for
from slide_deploy.types import Options

__all__ = ["export"]


def export(
    model: cli.ModelFile,
    target: Targets = None,
    profile: ForProfile = None,
    output: cli.Output = None,
    factory: cli.Factory = None,
    inputs: cli.Inputs = None,
    weights: cli.WeightsOption = None,
    prefix: cli.Prefix = None,
    key: cli.Key = None,
    image_size: cli.ImageSize = None,
    features: cli.Features = False,
    precision: cli.PrecisionName = None,
    half: cli.Half = False,
    calibration: cli.Calibration = None,
    min_snr: cli.MinSnr = None,
    lowering: cli.LoweringName = "auto",
    preprocess: Preprocess = None,
    labels: Labels = None,
    classifier: Classifier = False,
    keep_logits: KeepLogits = False,
    batch: cli.Batch = 1,
    dynamic: cli.Dynamic = False,
    dynamic_size: cli.DynamicSize = False,
    opset: cli.Opset = None,
    deployment_target: cli.DeploymentTarget = None,
    target_options: cli.TargetOptions = None,
    atol: cli.Atol = None,
    rtol: cli.Rtol = None,
    max_drop: cli.MaxDrop = None,
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
    """Export a checkpoint, and verify each artifact on disk against the PyTorch model."""
    chosen = chosen_for(profile, target, precision, preprocess, batch, half=half, dynamic=dynamic)
    common = (chosen.precision, batch, chosen.dynamic, dynamic_size, lowering, calibration, min_snr)
    options = Options(*common, opset, deployment_target, cli.parse_target_options(target_options))
    package = Package(chosen.preprocess, labels, classifier, keep_logits)
    reporting = Reporting.of(report, as_json=as_json, quiet=quiet, verbose=verbose)
    before, (targets, notes) = read_baseline(baseline), _targets(chosen.targets, options)
    policy = make_policy(atol, rtol, None, max_drop, thorough=thorough, trace=trace)
    run = partial(
        slide_deploy.export_and_verify, policy=policy, baseline=before, command=command_line()
    )
    with reporting.progress() as progress:
        progress(f"loading {model.name}")
        of_model = (weights, image_size, features, factory, inputs, prefix, key)
        loaded = load_model(model, *of_model, package)
        folder = output or Path(f"{loaded.name}-{'features-deploy' if features else 'deploy'}")
        found = run(
            loaded, targets, folder, options, images=images or (), progress=progress, seed=seed
        )
    reporting.finish(found, (*loaded.notes, *chosen.notes, *notes), folder, trace=trace)


def _targets(names: list[str], options: Options) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Check the targets and options; returns the targets, and notes on options that some lack.

    Raises MissingLibrary if the only target cannot be written here, and UsageError for an option
    that no target has.
    """
    from slide_deploy import registry
    from slide_deploy.artifacts.options import option_notes, options_by_target

    targets = registry.resolve_targets(names)
    options_by_target(targets, options)
    if len(targets) == 1:
        exporter = registry.exporter(targets[0])
        registry.require(f"export to {exporter.title}", exporter.packages, exporter.extra)
    return targets, option_notes(targets, options)
