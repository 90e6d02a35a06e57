"""Core ML ML program, through torch.export (tracing breaks with numpy ≥ 2.4)."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from slide_deploy.errors import ConversionError, UnknownName
from slide_deploy.protocols import Exporter
from slide_deploy.types import Options, Precision

if TYPE_CHECKING:
    from slide_deploy.capture import Capture

__all__ = ["EXPORTER"]

# The first with per-operator float16 input and output types, and what Xcode offers today.
DEFAULT_TARGET = "iOS16"

# Of a free height or width, in pixels: Core ML wants a bound.
LARGEST_SIZE = 4096

# Of inputs; there is float16 as well, which no input of ours is.
DTYPES = ("float32", "int32")


def write(capture: Capture, path: Path, options: Options) -> None:
    """Write the package `path`.

    `options.deployment_target` is a name of `coremltools.target`, such as iOS17 or macOS14.
    float16 rounds weights and arithmetic; inputs and outputs stay float32.
    """
    import coremltools as ct
    import numpy as np

    targets = {
        name.lower(): value for name, value in vars(ct.target).items() if name[:1] in "imtwv"
    }
    asked = options.deployment_target or DEFAULT_TARGET
    if asked.lower() not in targets:
        raise UnknownName("deployment target", asked, targets)
    if odd := [spec for spec in capture.inputs if spec.dtype not in DTYPES]:
        raise ConversionError(
            f"input {odd[0].name} is {odd[0].dtype}, which Core ML takes no input of",
            f"give it as int32, e.g. --input {odd[0].name}:SHAPE:int32",
        )
    half = options.precision == Precision.FLOAT16
    batch = ct.RangeDim(lower_bound=1, upper_bound=64, default=1)
    free = {
        name: ct.RangeDim(2 * steps.step, LARGEST_SIZE, default=steps.example)
        for name, steps in capture.sizes.items()
    }
    package = ct.convert(
        capture.program.run_decompositions({}),
        source="pytorch",
        convert_to="mlprogram",
        inputs=[
            ct.TensorType(
                name=spec.name,
                shape=[
                    free.get(size, batch) if isinstance(size, str) else size for size in spec.shape
                ],
                dtype=np.dtype(spec.dtype).type,
            )
            for spec in capture.inputs
        ],
        outputs=[ct.TensorType(name=spec.name, dtype=np.float32) for spec in capture.outputs],
        minimum_deployment_target=targets[asked.lower()],
        compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
        skip_model_load=True,
    )
    package.short_description = capture.metadata.get("description", "")
    package.author = "slide-deploy"
    package.version = capture.metadata.get("slide_deploy", "")
    package.user_defined_metadata.update(capture.metadata)
    for spec in capture.inputs:
        package.input_description[spec.name] = capture.metadata.get("input", spec.name)
    package.save(str(path))
    _make_reproducible(path, package.get_spec().SerializeToString(deterministic=True))


def _make_reproducible(path: Path, program: bytes) -> None:
    """Write again what coremltools writes at random; drop its map from operators to torch's."""
    (path / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)
    manifest = path / "Manifest.json"
    content = json.loads(manifest.read_text())
    items, root = content["itemInfoEntries"], content["rootModelIdentifier"]
    names = {key: str(uuid.uuid5(uuid.NAMESPACE_URL, items[key]["path"])) for key in items}
    content["itemInfoEntries"] = {names[key]: item for key, item in items.items()}
    content["rootModelIdentifier"] = names[root]
    manifest.write_text(json.dumps(content, indent=4, sort_keys=True))
    (path / "Data" / items[root]["path"]).write_bytes(program)
    for part in path.rglob("*"):  # some are the owner's alone, whatever the umask
        part.chmod((path if part.is_dir() else manifest).stat().st_mode)


EXPORTER = Exporter(
    target="coreml",
    title="Core ML",
    file_name=lambda stem: f"{stem}.mlpackage",
    write=write,
    packages=("torch", "coremltools"),
    extra="coreml",
    aliases=("ios", "mlpackage"),
)
