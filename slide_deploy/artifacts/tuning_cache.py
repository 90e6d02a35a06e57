"""The tuning cache: the fastest lowerings that `tune` measured, in the user's cache folder.

An entry is valid for one runtime version, processor, device, batch, precision and set of shapes. A
damaged file is ignored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import platformdirs
from torch import nn

from slide_deploy import registry
from slide_deploy.artifacts.manifest import toolchain
from slide_deploy.lowering.replacement import attentions
from slide_deploy.lowering.selection import shape_key
from slide_deploy.types import Options, TensorSpec
from slide_deploy.utils.machine import processor_name
from slide_deploy.utils.staging import staged

__all__ = ["load_tuning", "save_tuning"]

SCHEMA_VERSION = 1


def save_tuning(
    module: nn.Module,
    inputs: tuple[TensorSpec, ...],
    target: str,
    options: Options,
    lowerings: Mapping[str, str],
) -> Path:
    """Save the fastest lowering of each attention of a fused module; returns the file."""
    key = _key(module, inputs, target, options)
    path = _cache_file(target, key)
    content = {
        "schema_version": SCHEMA_VERSION,
        "date": date.today().isoformat(),
        "key": key,
        "forms": dict(lowerings),
    }
    with staged(path) as scratch:
        scratch.write_text(json.dumps(content, indent=2), encoding="utf-8")
    return path


def load_tuning(
    module: nn.Module,
    inputs: tuple[TensorSpec, ...],
    target: str,
    options: Options,
) -> dict[str, str]:
    """The fastest lowerings measured by `tune` for these shapes; empty without an entry."""
    if not any(_folder().glob(f"{target}-*.json")):  # a key needs a run of the model
        return {}
    key = _key(module, inputs, target, options)
    try:
        content = json.loads(_cache_file(target, key).read_text("utf-8"))
        if (content["schema_version"], content["key"]) != (SCHEMA_VERSION, key):
            return {}
        return {str(key): str(name) for key, name in content["forms"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _key(
    module: nn.Module, inputs: tuple[TensorSpec, ...], target: str, options: Options
) -> dict[str, Any]:
    versions, exporter = toolchain(), registry.exporter(target)
    wanted = (*exporter.packages, *registry.runtime(target).packages)
    device = [own for own in exporter.options if own.names_device]
    return {
        "target": target,
        "versions": {name: versions.get(name, "") for name in sorted(set(wanted))},
        "processor": processor_name(),
        "batch": options.batch,
        "precision": str(options.precision),
        "device": [options.of_targets.get(own.name, own.default) for own in device],
        "shapes": sorted(
            shape_key(attention.config, size)
            for attention, size in attentions(module, inputs).values()
        ),
    }


def _folder() -> Path:
    return Path(platformdirs.user_cache_dir("slide-deploy"), "tuning")


def _cache_file(target: str, key: Mapping[str, Any]) -> Path:
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    return _folder() / f"{target}-{name}.json"
