"""The report: one check per artifact, and the overall verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from slide_deploy.artifacts.manifest import SourceRecord
from slide_deploy.parity.block_trace import BlockError
from slide_deploy.parity.comparison import Comparison
from slide_deploy.parity.cost import PrecisionCost
from slide_deploy.parity.gates import GateResult
from slide_deploy.protocols import Estimate
from slide_deploy.quantization.search import Search
from slide_deploy.types import Fidelity, LayerLowering, Verdict
from slide_deploy.utils.records import Count, Figure, OptionalSha256, read_json, write_json
from slide_deploy.verification.replay import Replay

__all__ = [
    "FILE_NAME",
    "Check",
    "LabelledAccuracy",
    "Opinion",
    "Report",
    "now",
    "overall",
    "read_report",
]

FILE_NAME = "report.json"
SCHEMA_VERSION: Final = 1


@dataclass(frozen=True)
class Opinion:
    """A second, independent implementation that ran the same artifact."""

    runtime: str
    verdict: Verdict
    max_abs_error: Figure | None = None
    noise_ratio: Figure | None = None
    snr_db: Figure | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelledAccuracy:
    """The top-1 accuracy of an artifact, and of its checkpoint, in percent of labelled images."""

    data: str
    images: Count
    top1: Figure
    reference_top1: Figure


@dataclass(frozen=True)
class Check:
    """The outcome of one artifact. Errors are those of its worst comparison.

    `target`, `path` (its name), `sha256`, `size_bytes` and `precision` (the scheme) are those of
    the artifact; `lowering` is that of each attention. `problems` is empty on a pass. `gates` are
    the results on which the `verdict` is based, `gate` describes the limits. `fidelity`, `runtime`,
    `device`, `weight_type`, `compute_type` and `ran_precision` describe the run; `other_precision`
    are the operations that computed in another type. `operators` counts those of the file by kind;
    `custom_operators` are in no standard. `probes` are the inputs and their purposes, `comparisons`
    one for each probe and output. `max_abs_error`, `noise_floor`, `noise_ratio` (error over noise)
    and `snr_db` are figures of the worst one. `pooled_noise_ratio` and `repeated_noise_ratio` are
    the pooled and the systematic error divided by the noise. `second_opinion` is what a second
    implementation found. `trace` is the error at each block, if it was requested or the check
    failed; `first_bad_block` is the first block whose error exceeds the noise. `details` is the
    traceback or standard error of a converter or runner that failed. `notes` say what was not
    judged, and why. `seconds` is how long the verification took. `cost` is what a quantized
    precision costs at each output on the calibration set, `held_out` what it costs on the images
    of `--images`. `search` tells which parts stay in float, where they were searched for.
    `accuracy` is measured on the images of `--data`. `estimates` are a compiler's for each device.
    """

    target: str
    path: str
    precision: str
    verdict: Verdict
    problems: tuple[str, ...]
    gate: str = ""
    sha256: OptionalSha256 = ""
    size_bytes: Count = 0
    fidelity: Fidelity | None = None
    runtime: str = ""
    ran_precision: str = ""
    max_abs_error: Figure | None = None
    noise_floor: Figure | None = None
    noise_ratio: Figure | None = None
    snr_db: Figure | None = None
    lowering: tuple[LayerLowering, ...] = ()
    operators: Mapping[str, Count] | None = None
    custom_operators: tuple[str, ...] = ()
    probes: Mapping[str, str] | None = None
    comparisons: tuple[Comparison, ...] = ()
    pooled_noise_ratio: Figure | None = None
    repeated_noise_ratio: Figure | None = None
    second_opinion: Opinion | None = None
    trace: tuple[BlockError, ...] = ()
    first_bad_block: str | None = None
    gates: tuple[GateResult, ...] = ()
    weight_type: str = ""
    compute_type: str = ""
    device: str = ""
    other_precision: tuple[str, ...] = ()
    details: str = ""
    seconds: Figure | None = None
    notes: tuple[str, ...] = ()
    cost: tuple[PrecisionCost, ...] = ()
    search: Search | None = None
    held_out: tuple[PrecisionCost, ...] = ()
    accuracy: LabelledAccuracy | None = None
    estimates: tuple[Estimate, ...] = ()


@dataclass(frozen=True)
class Report:
    """All checks of one run, what they were compared with, and the command to run them again.

    `verdict` is that of all `checks`. `source` is the checkpoint, `model` the name of the model and
    `reference` says what artifacts were compared with. `command` repeats the run; `toolchain` holds
    versions by package. `seed` is that of the fresh probes; None if all probes were known before.
    `notes` say what was not verified, or rests on less than usual. `date` is when the run ended, in
    ISO 8601 with the time zone; empty in older reports. `replay` compares with the earlier export
    whose artifacts were made again. `schema_version` is that of the file.
    """

    verdict: Verdict
    source: SourceRecord
    model: str
    reference: str
    checks: tuple[Check, ...]
    command: str
    toolchain: Mapping[str, str]
    seed: Count | None = None
    schema_version: Literal[1] = SCHEMA_VERSION
    notes: tuple[str, ...] = ()
    date: str = ""
    replay: Replay | None = None

    def save(self, folder: Path) -> None:
        write_json(self, folder / FILE_NAME)


def read_report(path: Path) -> Report:
    """Read a report.json; ArtifactError if the content is not valid."""
    return read_json(Report, path, SCHEMA_VERSION)


def now() -> str:
    """The date of a report that is made now."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def overall(checks: tuple[Check, ...]) -> Verdict:
    """`FAIL` if a check failed; else `NOT_RUN` if one did not run or there is none; else `PASS`."""
    verdicts = {check.verdict for check in checks}
    if Verdict.FAIL in verdicts:
        return Verdict.FAIL
    return Verdict.PASS if verdicts == {Verdict.PASS} else Verdict.NOT_RUN
