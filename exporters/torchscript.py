"""TorchScript: traced and frozen, with input and output specs in an extra file."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from slide_deploy.protocols import Example, Exporter
from slide_deploy.types import Options, Precision

if TYPE_CHECKING:
    from slide_deploy.capture import Capture

__all__ = ["EXPORTER"]

# torch inserts this and a number into the name of a class if the name exists already.
MANGLE = b"___torch_mangle_"
MANGLED = re.compile(MANGLE + rb"\d+")

# The record with the version of the operators.
VERSIONS = ("version", ".data/version")

# Records that the archive writer adds itself.
WRITTEN_ANEW = (*VERSIONS, "byteorder", ".data/serialization_id")


def write(capture: Capture, path: Path, options: Options) -> None:
    """Write `path`. Its extra file `slide_deploy.json` contains specs and metadata."""
    import torch

    if options.precision == Precision.FLOAT16:
        capture = capture.in_half()
    with torch.no_grad():
        frozen = torch.jit.freeze(capture.traced)
    about = {
        "inputs": [dataclasses.asdict(spec) for spec in capture.inputs],
        "outputs": [dataclasses.asdict(spec) for spec in capture.outputs],
        "metadata": dict(capture.metadata),
    }
    # Written to memory first, because torch's own file writer ends the process on a full disk.
    archive = io.BytesIO()
    torch.jit.save(frozen, archive, _extra_files={"slide_deploy.json": json.dumps(about)})
    archive.seek(0)
    path.write_bytes(_reproducible(archive).getbuffer())


def _reproducible(archive: io.BytesIO) -> io.BytesIO:
    """The archive without `.debug_pkl`, which contains paths and source code of this machine, and
    without the numbers in class names, which depend on earlier traces in this process."""
    import torch

    numbers: dict[bytes, bytes] = {}

    def renumber(text: bytes) -> bytes:
        return MANGLED.sub(lambda m: numbers.setdefault(m[0], MANGLE + b"%d" % len(numbers)), text)

    reader = torch._C.PyTorchFileReader(archive)
    clean = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(clean)
    records = reader.get_all_records()
    (version,) = set(VERSIONS).intersection(records)
    writer.set_min_version(int(reader.get_record(version)))
    for name in records:
        if name in WRITTEN_ANEW or name.endswith(".debug_pkl"):
            continue
        content = reader.get_record(name)
        if name == "data.pkl" or name.startswith("code/"):
            name, content = renumber(name.encode()).decode(), renumber(content)
        writer.write_record(name, content, len(content))
    writer.write_end_of_file()
    return clean


PYTHON = """\
about = {"slide_deploy.json": ""}
model = torch.jit.load($path, _extra_files=about)
$results = model(*map(torch.from_numpy, inputs.values()))"""

EXAMPLES = (
    Example(
        "Python",
        PYTHON,
        imports=("import torch",),
        labels='json.loads(json.loads(about["slide_deploy.json"])["metadata"]["labels"])',
    ),
)


EXPORTER = Exporter(
    target="torchscript",
    title="TorchScript",
    file_name=lambda stem: f"{stem}.torchscript",
    write=write,
    packages=("torch",),
    extra="torchscript",
    aliases=("pt", "jit"),
    examples=EXAMPLES,
    lacks=dict.fromkeys(
        (Precision.W8, Precision.W8A16, Precision.W8A8),
        "PyTorch's quantized operators for TorchScript are deprecated; use onnx",
    ),
)
