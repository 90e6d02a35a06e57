"""slide-deploy export."""

from __future__ import annotations

from functools import partial

import typer

from slide_deploy.cli import options as cli
from slide_deploy.cli.accuracy import Data, MaxDrop, MinSnr, Smooth
from slide_deploy.cli.configured import ConfigFile
from slide_deploy.cli.model import load_model
from slide_deploy.cli.outcome import Reporting, make_policy, read_baseline
from slide_deploy.cli.packaging import Classifier, KeepLogits, Labels, Package, Preprocess
from slide_deploy.cli.plan import (
    FromManifest,
    plan_again,
    plan_of,
    refuse_beside_manifest,
    run_plan,
)
from slide_deploy.cli.profiles import ForProfile, Targets, chosen_for
from slide_deploy.types import Options

__all__ = ["export"]


def export(
    context: typer.Context,
    model: cli.OptionalModelFile = None,
    manifest: FromManifest = None,
    config: ConfigFile = None,
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
    min_snr: MinSnr = None,
    smooth: Smooth = None,
    data: Data = None,
    max_drop: MaxDrop = None,
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
    soc: cli.Soc = None,
    target_options: cli.TargetOptions = None,
    atol: cli.Atol = None,
    rtol: cli.Rtol = None,
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
    """Export a checkpoint, and verify each artifact on disk against the PyTorch model."""
    reporting = Reporting.of(report, as_json=as_json, quiet=quiet, verbose=verbose)
    on_samples, on_data = (max_drop, None) if data is None else (None, max_drop)
    policy = make_policy(atol, rtol, None, on_samples, full_npu, thorough=thorough, trace=trace)
    run = partial(run_plan, reporting, policy, images, read_baseline(baseline), seed)
    if manifest is not None:
        refuse_beside_manifest(context)
        run(partial(plan_again, manifest, model, output, factory, calibration))
    else:
        given = (target, precision, preprocess, batch, opset)
        chosen = chosen_for(profile, *given, half=half, dynamic=dynamic)
        common = (chosen.precision, batch, chosen.dynamic, dynamic_size, lowering, calibration)
        own = (chosen.opset, deployment_target, cli.parse_target_options(target_options, soc=soc))
        of_file = (model, weights, image_size, features, factory, inputs, prefix, key)
        package = Package(chosen.preprocess, labels, classifier, keep_logits)
        options = Options(*common, min_snr, smooth, data, on_data, *own)
        read = partial(load_model, *of_file, package)
        run(partial(plan_of, model, output, chosen, options, read, context.obj))
