"""slide-deploy verify."""

from __future__ import annotations

from slide_deploy.cli import options as cli
from slide_deploy.cli.model import load_images, load_model
from slide_deploy.cli.outcome import Reporting, command_line, make_policy, read_baseline
from slide_deploy.errors import UsageError

__all__ = ["verify"]


def verify(
    artifact: cli.Artifacts,
    against: cli.Against = None,
    factory: cli.Factory = None,
    inputs: cli.Inputs = None,
    weights: cli.WeightsOption = None,
    image_size: cli.ImageSize = None,
    features: cli.Features = False,
    precision: cli.ExpectedPrecision = None,
    atol: cli.Atol = None,
    rtol: cli.Rtol = None,
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
    """Prove artifacts on disk against their checkpoint, or against recorded golden vectors."""
    reporting = Reporting.of(report, as_json=as_json, quiet=quiet, verbose=verbose)
    before = read_baseline(baseline)
    policy = make_policy(atol, rtol, precision, thorough=thorough, trace=trace)
    notes: tuple[str, ...] = ()
    with reporting.progress() as progress:
        if against is None:
            given = (weights, image_size, features, images, trace, factory, inputs)
            if any(given) or seed is not None:
                raise UsageError(
                    "--model, --input, --weights, --image-size, --features, --images, --seed and "
                    "--trace need the checkpoint",
                    "add --against model.pth",
                )
            from slide_deploy.verification.recorded import verify_recorded

            found = verify_recorded(artifact, policy, progress, command_line())
        else:
            progress(f"loading {against.name}")
            loaded = load_model(against, weights, image_size, features, factory, inputs)
            notes = loaded.notes
            from slide_deploy import pipeline

            found = pipeline.verify(
                artifact,
                loaded,
                policy=policy,
                images=load_images(images, loaded),
                progress=progress,
                command=command_line(),
                seed=seed,
            )
    if before is not None:
        from slide_deploy.verification.baseline import regressions

        found = regressions(found, before)
    reporting.finish(found, notes, trace=trace)
