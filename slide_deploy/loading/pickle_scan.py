"""Finds the globals that a pickle would import, without unpickling it."""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

__all__ = ["unsafe_global"]

_MOST_OPERATIONS = 200_000

_PLAIN = (
    *("torch.", "collections.OrderedDict", "numpy.", "_codecs.encode"),
    *("yacs.config.CfgNode", "argparse.Namespace", "mmengine.logging.history_buffer."),
    *("pathlib.PosixPath", "pathlib._local.PosixPath"),
)


def unsafe_global(path: Path) -> str | None:
    """The first global in the file's pickle that is not plain data, if there is one.

    torch's safe unpickler does not name it if it stops at the pickle's protocol.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if name.endswith("data.pkl")]
                data = archive.read(names[0])
        else:
            data = path.read_bytes()
        recent: list[str] = []
        for opcode, argument, _ in islice(_opcodes(io.BytesIO(data)), _MOST_OPERATIONS):
            if opcode.name in ("GLOBAL", "INST"):
                name = str(argument).replace(" ", ".")
            elif opcode.name == "STACK_GLOBAL":
                name = ".".join(recent[-2:])
            else:
                if isinstance(argument, str):
                    recent.append(argument)
                continue
            if not name.startswith(_PLAIN):
                return name
    except Exception:  # a broken pickle, which the caller reports
        return None
    return None


def _opcodes(file: io.BytesIO) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]:
    """The operations of all pickles of a file: the format before zip has several in sequence."""
    while file.read(1):
        file.seek(-1, io.SEEK_CUR)
        yield from pickletools.genops(file)
