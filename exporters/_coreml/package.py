"""Saves Core ML packages so that the same model gives the same bytes."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from slide_deploy.exporters._coreml.description import describe

__all__ = ["save_package"]


def save_package(
    package: Any,
    path: Path,
    metadata: Mapping[str, str],
    options: Mapping[str, object],
    change: Callable[[Any], None] = lambda spec: None,
) -> None:
    """Write a `coremltools.models.MLModel` to `path`, described by `metadata` and `options`, as
    `describe` takes them; `change` changes its specification before."""
    package.save(str(path))
    spec = package.get_spec()
    change(spec)
    describe(spec, metadata, options)
    _make_reproducible(path, spec.SerializeToString(deterministic=True))


def _make_reproducible(path: Path, program: bytes) -> None:
    """Replace random identifiers of coremltools, and drop its map from operators to torch's."""
    (path / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)
    manifest = path / "Manifest.json"
    content = json.loads(manifest.read_text())
    items, root = content["itemInfoEntries"], content["rootModelIdentifier"]
    names = {key: str(uuid.uuid5(uuid.NAMESPACE_URL, items[key]["path"])) for key in items}
    content["itemInfoEntries"] = {names[key]: item for key, item in items.items()}
    content["rootModelIdentifier"] = names[root]
    manifest.write_text(json.dumps(content, indent=4, sort_keys=True))
    (path / "Data" / items[root]["path"]).write_bytes(program)
    for part in path.rglob("*"):  # some are readable by the owner only, whatever the umask
        part.chmod((path if part.is_dir() else manifest).stat().st_mode)
