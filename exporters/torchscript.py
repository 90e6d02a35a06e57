"""TorchScript: traced, frozen, with its input and output specs as an extra file."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from slide_deploy.protocols import Exporter
from slide_deploy.types import Options, Precision

if TYPE_CHECKING:
    from slide_deploy.capture import Capture

__all__ = ["EXPORTER"]

# What torch puts before the number of a class whose name was taken.
MANGLE = b"___torch_mangle_"
MANGLED = re.compile(MANGLE + rb"\d+")

# Where an archive has the version of its operators: it is 3 to 5, or newer.
VERSIONS = ("version", ".data/version")

# Records that the writer of any archive adds.
WRITTEN_ANEW = (*VERSIONS, "byteorder", ".data/serialization_id")


def write(capture: Capture, path: Path, options: Options) -> None:
    """Write `path`. The file's `slide_deploy.json` holds specs and metadata."""
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
    # By way of memory: torch's own file writer ends the process where the disk is full.
    archive = io.BytesIO()
    torch.jit.save(frozen, archive, _extra_files={"slide_deploy.json": json.dumps(about)})
    archive.seek(0)
    path.write_bytes(_reproducible(archive).getbuffer())


def _reproducible(archive: io.BytesIO) -> io.BytesIO:
    """The archive without `.debug_pkl`, which holds paths and source code of this machine.

    Class names lose the counts of what this process has traced before.
    """
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


EXPORTER = Exporter(
    target="torchscript",
    title="TorchScript",
    file_name=lambda stem: f"{stem}.torchscript",
    write=write,
    packages=("torch",),
    extra="torchscript",
    aliases=("pt", "jit"),
)
