"""slide-deploy tune."""

from __future__ import annotations

from slide_deploy.cli import options as cli
from slide_deploy.cli.model import load_model
from slide_deploy.types import Options

__all__ = ["tune"]


def tune(
    model: cli.ModelFile,
    target: cli.Targets,
    weights: cli.WeightsOption = None,
    prefix: cli.Prefix = None,
    key: cli.Key = None,
    image_size: cli.ImageSize = None,
    batch: cli.Batch = 1,
    threads: cli.Threads = 2,
    target_options: cli.TargetOptions = None,
) -> None:
    """Measure the lowerings of the attention on this machine, or compare what a compiler estimates
    for a device; later exports use the fastest."""
    from slide_deploy import registry
    from slide_deploy.report.progress import progress_reporter
    from slide_deploy.report.terminal import make_console

    targets = registry.resolve_targets(target)
    own = cli.parse_target_options(target_options)
    with progress_reporter() as progress:
        progress(f"loading {model.name}")
        loaded = load_model(model, weights, image_size, prefix=prefix, key=key)
        from slide_deploy.bench.tuning import tune as run
        from slide_deploy.report.tunings import tuning_table

        found = [
            run(
                loaded,
                name,
                Options(registry.default_precision([name]), batch=batch, target_options=own),
                threads=threads,
                progress=progress,
            )
            for name in targets
        ]
    console = make_console()
    for tuning in found:
        console.print(tuning_table(tuning))
