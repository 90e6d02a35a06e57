"""Export Slide-Transformers and prove each artifact against PyTorch.

The commands as functions: `load` a checkpoint, `fuse` its shift paths, `export` artifacts,
`verify` them. Heavy libraries load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slide_deploy.loading.custom import load_foreign, wrap
    from slide_deploy.loading.loader import Model, load
    from slide_deploy.loading.loader import save_fused as fuse
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
    "Model": "loading.loader",
    "Options": "types",
    "Precision": "types",
    "TensorSpec": "types",
    "Verdict": "types",
    "export": "pipeline",
    "export_and_verify": "pipeline",
    "load": "loading.loader",
    "verify": "pipeline",
    "load_foreign": "loading.custom",
    "wrap": "loading.custom",
}
_RENAMED = {"fuse": "loading.loader.save_fused"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place = _RENAMED.get(name, f"{_PLACES.get(name)}.{name}")
    module, _, attribute = place.rpartition(".")
    return getattr(import_module(f"{__name__}.{module}"), attribute)
