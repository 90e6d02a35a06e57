"""Export Slide-Transformers and verify each artifact against PyTorch.

The commands are functions: `load` a checkpoint (or `wrap` a module), `fuse` its shift convolutions,
`export` artifacts, `verify` them against the model or, with `verify_golden`, against golden
vectors. The result is a `Report` with one `Check` per artifact. `run_artifact` runs an artifact on
given inputs, `evaluate` measures accuracy on labelled images (`read_dataset`), `benchmark` latency,
and `predict` classifies pictures; `PROFILES` are choices for kinds of devices.
The individual steps are also public (`fuse_module`, `lower`, `write_artifact`, `judge`), and so are
the modules errors, types, protocols, registry, capture, models, quantization, parity and coreml.
Heavy libraries are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slide_deploy.artifacts.manifest import toolchain
    from slide_deploy.artifacts.prepare import PreparedModel, preparer
    from slide_deploy.artifacts.write import write_artifact
    from slide_deploy.bench.latency import Benchmark, Timing
    from slide_deploy.bench.latency import bench as benchmark
    from slide_deploy.evaluation.accuracy import Accuracy, Evaluation
    from slide_deploy.evaluation.dataset import Dataset, read_dataset
    from slide_deploy.fusion.branches import fuse as fuse_module
    from slide_deploy.fusion.branches import fused_skeleton, replace_attention
    from slide_deploy.loading.custom import load_foreign, wrap
    from slide_deploy.loading.flops import count_flops
    from slide_deploy.loading.inspection import count_parameters
    from slide_deploy.loading.loader import Model, load
    from slide_deploy.loading.loader import save_fused as fuse
    from slide_deploy.loading.packaging import with_classifier, with_labels, with_preprocessing
    from slide_deploy.lowering.catalog import lowerings
    from slide_deploy.lowering.selection import lower_for as lower
    from slide_deploy.packaging.profiles import PROFILES, Profile
    from slide_deploy.parity.comparison import Tolerance
    from slide_deploy.pipeline.evaluate import evaluate
    from slide_deploy.pipeline.export import export, export_and_verify
    from slide_deploy.pipeline.predict import predict
    from slide_deploy.pipeline.reference import reference_of
    from slide_deploy.pipeline.verify import verify
    from slide_deploy.reference.run import run_module
    from slide_deploy.report.formats import write_report
    from slide_deploy.report.terminal import report_table
    from slide_deploy.report.timings import save_chart, timings_table
    from slide_deploy.types import Options, Precision, TensorSpec, Verdict
    from slide_deploy.utils.records import write_json
    from slide_deploy.verification.check import check_artifact
    from slide_deploy.verification.judge import (
        Judgement,
        Reference,
        VerificationPolicy,
        judge,
    )
    from slide_deploy.verification.not_a_number import nan_problems
    from slide_deploy.verification.record import Check, Report, read_report
    from slide_deploy.verification.recorded import verify_recorded as verify_golden
    from slide_deploy.verification.runner import RunResult, run_artifact

__all__ = [
    "PROFILES",
    "Accuracy",
    "Benchmark",
    "Check",
    "Dataset",
    "Evaluation",
    "Judgement",
    "Model",
    "Options",
    "Precision",
    "PreparedModel",
    "Profile",
    "Reference",
    "Report",
    "RunResult",
    "TensorSpec",
    "Timing",
    "Tolerance",
    "Verdict",
    "VerificationPolicy",
    "__version__",
    "benchmark",
    "check_artifact",
    "count_flops",
    "count_parameters",
    "evaluate",
    "export",
    "export_and_verify",
    "fuse",
    "fuse_module",
    "fused_skeleton",
    "judge",
    "load",
    "load_foreign",
    "lower",
    "lowerings",
    "nan_problems",
    "predict",
    "preparer",
    "read_dataset",
    "read_report",
    "reference_of",
    "replace_attention",
    "report_table",
    "run_artifact",
    "run_module",
    "save_chart",
    "timings_table",
    "toolchain",
    "verify",
    "verify_golden",
    "with_classifier",
    "with_labels",
    "with_preprocessing",
    "wrap",
    "write_artifact",
    "write_json",
    "write_report",
]

__version__ = "0.1.0"

# The module that defines each public name, as NAME or NAME=NAME_IN_MODULE.
_PLACES = {
    "artifacts.manifest": "toolchain",
    "artifacts.prepare": "PreparedModel preparer",
    "artifacts.write": "write_artifact",
    "bench.latency": "Benchmark Timing benchmark=bench",
    "evaluation.accuracy": "Accuracy Evaluation",
    "evaluation.dataset": "Dataset read_dataset",
    "fusion.branches": "fuse_module=fuse fused_skeleton replace_attention",
    "loading.custom": "load_foreign wrap",
    "loading.flops": "count_flops",
    "loading.inspection": "count_parameters",
    "loading.loader": "Model fuse=save_fused load",
    "loading.packaging": "with_classifier with_labels with_preprocessing",
    "lowering.catalog": "lowerings",
    "lowering.selection": "lower=lower_for",
    "packaging.profiles": "PROFILES Profile",
    "parity.comparison": "Tolerance",
    "pipeline.evaluate": "evaluate",
    "pipeline.export": "export export_and_verify",
    "pipeline.predict": "predict",
    "pipeline.reference": "reference_of",
    "pipeline.verify": "verify",
    "reference.run": "run_module",
    "report.formats": "write_report",
    "report.terminal": "report_table",
    "report.timings": "save_chart timings_table",
    "types": "Options Precision TensorSpec Verdict",
    "utils.records": "write_json",
    "verification.judge": "Judgement Reference VerificationPolicy judge",
    "verification.check": "check_artifact",
    "verification.not_a_number": "nan_problems",
    "verification.record": "Check Report read_report",
    "verification.recorded": "verify_golden=verify_recorded",
    "verification.runner": "RunResult run_artifact",
}
_NAMES = {
    name.partition("=")[0]: (module, name.rpartition("=")[2])
    for module, names in _PLACES.items()
    for name in names.split()
}


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _NAMES[name]
    return getattr(import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
