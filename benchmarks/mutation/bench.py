"""A model under test: its reference, its clean artifacts, and the judging of any artifact."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import nn

import slide_deploy
from benchmarks.mutation.outcome import Figure
from slide_deploy import registry
from slide_deploy.artifacts.write import PreparedModel, preparer, write_artifact
from slide_deploy.capture import Capture
from slide_deploy.fusion.branches import fuse
from slide_deploy.loading.loader import Model
from slide_deploy.parity.block_trace import BlockReference, first_bad_block, trace_blocks
from slide_deploy.parity.expectation import Expectation
from slide_deploy.parity.metrics import max_abs_error, rms_error
from slide_deploy.pipeline import reference_of
from slide_deploy.protocols import Session
from slide_deploy.types import DynamicAxes, Options, Precision
from slide_deploy.verification.judge import Judgement, Reference, VerificationPolicy, judge
from slide_deploy.verification.runner import RunResult

__all__ = ["Bench", "Seen", "load_bench"]

# Artifacts of one fixed batch size and precision, as they are exported unasked.
EXTENT, PRECISION = DynamicAxes(batch=1), Precision.FLOAT32


@dataclass(frozen=True)
class Seen:
    """What verification says of one artifact: its first problem, empty on a pass, the figures
    behind it, and the block it names."""

    problem: str
    judgement: Judgement | None = None
    figures: tuple[Figure, ...] = ()
    named_block: str | None = None


@dataclass(frozen=True)
class Bench:
    """One model with a folder to work in."""

    name: str
    model: Model
    folder: Path

    @cached_property
    def fused(self) -> nn.Module:
        """The module that converters are given."""
        return self.model.module if self.model.fused else fuse(self.model.module)

    @cached_property
    def subject(self) -> Reference:
        """The reference, as verification takes it."""
        return reference_of(self.model, lambda step: None)

    @cached_property
    def expected(self) -> tuple[Expectation, ...]:
        """References and noise floors, computed once."""
        return self.subject.expect(EXTENT, PRECISION)

    @cached_property
    def blocks(self) -> dict[str, tuple[BlockReference, ...]]:
        """Blocks of the model by probe, filled as they are asked for."""
        return {}

    def clean(self, target: str) -> Path:
        """The clean artifact of a target, exported on first use."""
        path = self.folder / "clean" / registry.exporter(target).file_name(self.name)
        if not path.exists():
            self.convert(self._sound, target, path.parent)
        return path

    def exported(self, target: str) -> Path:
        """The artifact that `slide-deploy export` writes, in the forms that suit the target."""
        capture = self._deploy(target).capture
        return self.convert(capture, target, self.folder / "exported")

    @cached_property
    def _deploy(self) -> Callable[[str], PreparedModel]:
        return preparer(self.model, Options())

    @cached_property
    def _sound(self) -> Capture:
        return self.capture(self.fused)

    def capture(self, module: nn.Module) -> Capture:
        """A module as exporters take it; they share its torch.export."""
        return Capture(module, self.model.inputs, self.model.outputs, {})

    def convert(self, capture: Capture, target: str, folder: Path) -> Path:
        """Write one artifact with the real exporter; ConversionError where it refuses."""
        folder.mkdir(parents=True, exist_ok=True)
        exporter = registry.exporter(target)
        return folder / write_artifact(exporter, self.name, capture, folder, Options()).path

    def see(self, target: str, path: Path) -> Seen:
        """Open, run and judge an artifact by its numbers alone, with the code of `verify`.

        In this process, which is what makes hundreds of mutants affordable.
        """
        runtime = registry.runtime(target)
        try:
            session = runtime.open(path)
            reading = _reading(target, session, self.expected)
        except Exception as error:  # whatever a loader throws: `verify` calls it a failure too
            return Seen(f"{type(error).__name__}: {error}".splitlines()[0])
        judgement = judge(
            reading, self.expected, self.subject, EXTENT, PRECISION, VerificationPolicy()
        )
        named = self._named_block(session, judgement) if judgement.numbers_differ else None
        return Seen(next(iter(judgement.problems), ""), judgement, self._figures(reading), named)

    def run(self, target: str, path: Path, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """What an artifact makes of one input."""
        (output,) = registry.runtime(target).open(path).run(inputs).values()
        return output

    def _figures(self, reading: RunResult) -> tuple[Figure, ...]:
        made = [
            (e, name, reading.outputs[e.probe].get(name), reference)
            for e in self.expected
            for name, reference in e.references.items()
        ]
        return tuple(
            Figure(
                probe=e.probe,
                output=name,
                max_error=max_abs_error(value, reference),
                noise_floor=e.noise[name].floor,
                rms_error=rms_error(value, reference),
                noise_rms=e.noise[name].rms,
                size=reference.size,
            )
            for e, name, value, reference in made
            if value is not None and value.shape == reference.shape
        )

    def _named_block(self, session: Session, judgement: Judgement) -> str | None:
        probe = max(judgement.comparisons, key=lambda c: c.noise_ratio).probe
        inputs = next(dict(e.inputs) for e in self.expected if e.probe == probe)
        if probe not in self.blocks:
            assert self.subject.blocks is not None
            self.blocks[probe] = self.subject.blocks(inputs, PRECISION)
        return first_bad_block(trace_blocks(session.values(inputs), self.blocks[probe]))


def load_bench(checkpoint: Path, folder: Path, image_size: tuple[int, int] | None = None) -> Bench:
    """A bench for a checkpoint on disk."""
    model = slide_deploy.load(checkpoint, image_size=image_size)
    return Bench(model.name, model, folder)


def _reading(target: str, session: Session, expected: tuple[Expectation, ...]) -> RunResult:
    """What `read_artifact` brings back, without the fresh process."""
    runtime = registry.runtime(target)
    names = {name.partition("::")[0] for name in session.operators}
    return RunResult(
        outputs={e.probe: session.run(dict(e.inputs)) for e in expected},
        inputs=session.inputs,
        output_specs=session.outputs,
        operators=session.operators,
        custom_operators=tuple(sorted(names - runtime.standard_domains)),
        violations=session.violations,
        runtime=session.runtime,
        precision=session.precision,
        fidelity=runtime.fidelity(),
        weight_type=session.weight_type,
        compute_type=session.compute_type,
    )
