"""The record that every renderer draws: one check per artifact, and the verdict over all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from slide_deploy.artifacts.manifest import SourceRecord
from slide_deploy.parity.block_trace import BlockError
from slide_deploy.parity.comparison import Comparison
from slide_deploy.parity.gates import GateResult
from slide_deploy.types import Fidelity, LayerLowering, Verdict
from slide_deploy.utils.records import Count, Figure, OptionalSha256, read_json, write_json

__all__ = ["FILE_NAME", "Check", "Opinion", "Report", "overall", "read_report"]

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
class Check:
    """One artifact's outcome. The figures are those of its worst comparison.

    `precision` names the scheme; `problems` is empty on a pass. `gates` are the results that the
    verdict stands on, `gate` the limits in words. `fidelity`, `runtime`, `device`, `weight_type`,
    `compute_type` and `ran_precision` say what ran; `other_precision` are the operations that
    computed in another type. `probes` are the inputs and why each is there.
    `pooled_noise_ratio` is error / noise over all probes, `repeated_noise_ratio` that of the
    systematic error (both root mean square). `trace` is the error over the blocks, where it was
    asked for or the check failed; `first_bad_block` is the first block whose error exceeds the
    noise. `notes` say what was not judged, and why. `details` is the traceback or standard error
    of a converter or runner that failed.
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
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """All checks of one run, what they were compared with, and the command to run them again.

    `seed` is what the fresh probes were drawn from; None where all probes were known before.
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

    def save(self, folder: Path) -> None:
        write_json(self, folder / FILE_NAME)


def read_report(path: Path) -> Report:
    """Read a report.json; ArtifactError where the file is another thing."""
    return read_json(Report, path, SCHEMA_VERSION)


def overall(checks: tuple[Check, ...]) -> Verdict:
    """Fail if any failed; else not_run if any did not run, or there is none; else pass."""
    verdicts = {check.verdict for check in checks}
    if Verdict.FAIL in verdicts:
        return Verdict.FAIL
    return Verdict.PASS if verdicts == {Verdict.PASS} else Verdict.NOT_RUN
