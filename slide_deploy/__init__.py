"""Export Slide-Transformers and prove each artifact against PyTorch.

The commands as functions: `load` a checkpoint, `fuse` its shift paths, `export` artifacts,
`verify` them. Heavy libraries load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slide_deploy.foreign import load_foreign, wrap
    from slide_deploy.loading import Model, load
    from slide_deploy.loading import save_fused as fuse
    from slide_deploy.pipeline import export, export_and_verify, verify
    from slide_deploy.types import Options, Precision, TensorSpec, Verdict

__all__ = [
    "Model",
    "Options",
    "Precision",
    "TensorSpec",
    "Verdict",
    "__version__",
    "export",
    "export_and_verify",
    "fuse",
    "load",
    "load_foreign",
    "verify",
    "wrap",
]

__version__ = "0.1.0"

_PLACES = {
    "Model": "loading.Model",
    "Options": "types.Options",
    "Precision": "types.Precision",
    "TensorSpec": "types.TensorSpec",
    "Verdict": "types.Verdict",
    "export": "pipeline.export",
    "export_and_verify": "pipeline.export_and_verify",
    "fuse": "loading.save_fused",
    "load": "loading.load",
    "verify": "pipeline.verify",
    "load_foreign": "foreign.load_foreign",
    "wrap": "foreign.wrap",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(".")
    return getattr(import_module(f"{__name__}.{module}"), attribute)
