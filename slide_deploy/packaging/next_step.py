"""What a vendor's tools do next with an artifact that cannot be compiled here."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

import numpy as np

from slide_deploy.packaging.profiles import profile_named
from slide_deploy.protocols import Arrays
from slide_deploy.utils.records import OptionalSha256

__all__ = ["NextStep", "next_step", "samples_folder", "write_samples"]

# In the folder of the samples: a line for each run, with a file for each input.
LIST = "dataset.txt"


@dataclass(frozen=True)
class NextStep:
    """The commands that compile an artifact, to be run with the tools of a profile's vendor.
    `calibration` names the calibration set whose samples are in the folder `samples`."""

    profile: str
    not_compiled: str
    commands: tuple[str, ...]
    samples: str = ""
    calibration: str = ""
    calibration_sha256: OptionalSha256 = ""


def next_step(profile: str, target: str, path: str, samples: str = "") -> NextStep | None:
    """The next step for the artifact `path` of a target; None where the profile has none for it."""
    found = profile_named(profile) if profile else None
    if found is None or found.tools is None or target != found.target.value:
        return None
    stem = path.partition(".")[0].removesuffix("_openvino_model")
    names = {
        "path": path,
        "stem": stem,
        "xml": f"{path}/{stem}.xml",
        "samples": samples,
        "list": f"{samples}/{LIST}",
    }
    quoted = {name: shlex.quote(text) for name, text in names.items()}
    templates = found.tools.with_samples if samples else found.tools.commands
    commands = tuple(Template(text).substitute(quoted) for text in templates)
    return NextStep(found.name, found.not_run, commands, samples)


def samples_folder(model: str) -> str:
    """The name of the folder of the samples for vendors' tools."""
    return f"{model}_calibration"


def write_samples(runs: Sequence[Arrays], folder: Path) -> None:
    """Write the inputs of each run as .npy files, as Rockchip's and AMD's quantizers read them, and
    a list of them. Several inputs have a folder each."""
    lines = []
    for number, run in enumerate(runs):
        names = [f"{number:06}.npy" if len(run) == 1 else f"{own}/{number:06}.npy" for own in run]
        for name, array in zip(names, run.values(), strict=True):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            np.save(folder / name, array)
        lines.append(" ".join(names) + "\n")
    (folder / LIST).write_text("".join(lines), encoding="utf-8")
