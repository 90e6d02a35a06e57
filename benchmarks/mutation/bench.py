"""A model under test: its reference, its clean artifacts, and their verification."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import nn

import slide_deploy
from benchmarks.mutation.outcome import Figure
from slide_deploy import (
    Judgement,
    Model,
    Options,
    Precision,
    PreparedModel,
    Reference,
    RunResult,
    VerificationPolicy,
    judge,
    nan_problems,
    preparer,
    reference_of,
    registry,
    write_artifact,
)
from slide_deploy.capture import Capture
from slide_deploy.errors import DifferentProgram
from slide_deploy.parity.block_trace import BlockReference, first_bad_block, trace_blocks
from slide_deploy.parity.expectation import Expectation, with_operator_errors
from slide_deploy.parity.metrics import max_abs_error, rms_error
from slide_deploy.parity.quantization import is_folded, rounding_problem
from slide_deploy.protocols import Session
from slide_deploy.quantization.catalog import scheme_named
from slide_deploy.quantization.program import has_program
from slide_deploy.quantization.scheme import Scheme

__all__ = ["Bench", "Observation", "load_bench"]

DEFAULTS = Options()

# The seed of the fresh probes, which `verify` draws anew each time: a run can be repeated.
FRESH_SEED = 20


@dataclass(frozen=True)
class Observation:
    """The result of verifying one artifact; `problem` is the first one, empty on a pass."""

    problem: str
    judgement: Judgement | None = None
    figures: tuple[Figure, ...] = ()
    named_block: str | None = None


@dataclass(frozen=True)
class Bench:
    """One model with a working folder; its artifacts are written with `options`."""

    name: str
    model: Model
    folder: Path
    options: Options = DEFAULTS

    @property
    def scheme(self) -> Scheme:
        """The precision scheme of the artifacts."""
        return scheme_named(self.options.precision)

    @cached_property
    def fused(self) -> nn.Module:
        """The module that is passed to converters."""
        return self.model.merged

    @cached_property
    def reference(self) -> Reference:
        """The reference of verification."""
        return reference_of(self.model, seed=FRESH_SEED)

    @cached_property
    def expected(self) -> tuple[Expectation, ...]:
        """Reference outputs and noise floors, on the recorded probes and on fresh ones."""
        asked = self.options.dynamic_axes, self.scheme.name
        return (*self.reference.expect(*asked), *self.reference.fresh(*asked))

    @cached_property
    def _nan(self) -> Expectation | None:
        return self.reference.nan(self.options.dynamic_axes)

    def block_of(self, site: str) -> str:
        """The block that contains a module; empty if there is none."""
        return next((n for n in self._block_names if f"{site}.".startswith(f"{n}.")), "")

    @cached_property
    def _block_names(self) -> list[str]:
        return self.model.block_names(self.model.module)

    @cached_property
    def blocks(self) -> dict[str, tuple[BlockReference, ...]]:
        """Cache of the model's blocks by probe."""
        return {}

    def clean(self, target: str) -> Path:
        """The clean artifact of a target, exported on first use."""
        path = self.folder / "clean" / registry.exporter(target).file_name(self.name)
        if not path.exists():
            self.convert(self._sound, target, path.parent)
        return path

    def exported(self, target: str) -> Path:
        """The artifact that `slide-deploy export` writes, with the target's default lowerings,
        exported on first use."""
        path = self.folder / "exported" / registry.exporter(target).file_name(self.name)
        if not path.exists():
            self.convert(self._deploy(target).capture, target, path.parent)
        return path

    @cached_property
    def _deploy(self) -> Callable[[str], PreparedModel]:
        return preparer(self.model, self.options)

    @cached_property
    def _sound(self) -> Capture:
        return self.capture(self.fused)

    def capture(self, module: nn.Module) -> Capture:
        """The argument of exporters; they share its torch.export."""
        return Capture(module, self.model.inputs, self.model.outputs, {})

    def convert(self, capture: Capture, target: str, folder: Path) -> Path:
        """Write one artifact with the real exporter, which may raise ConversionError."""
        folder.mkdir(parents=True, exist_ok=True)
        return folder / write_artifact(target, self.name, capture, folder, self.options).path

    @cached_property
    def single(self) -> Bench:
        """The same model with float32 artifacts."""
        options = replace(self.options, precision=Precision.FLOAT32)
        return replace(self, folder=self.folder / "float32", options=options)

    def verify(
        self,
        target: str,
        path: Path,
        locate: bool = True,
        *,
        exported: bool = False,
        program: bool = True,
    ) -> Observation:
        """Run and judge an artifact with the code of `verify`, but in this process, for speed.

        Without `locate`, the broken block is not determined. A float16 artifact is compared with
        the clean one, or with the `exported` one; without `program`, its outputs alone are judged.
        """
        runtime = registry.runtime(target)
        expected = with_operator_errors(self.expected, runtime.operator_errors)
        try:
            session = runtime.open(path)
            nan = self._nan if runtime.loses_nan is not None else None
            run_result = _run_result(target, session, (*expected, nan) if nan else expected)
        except Exception as error:  # `verify` too counts any exception of a loader as a failure
            return Observation(f"{type(error).__name__}: {error}".splitlines()[0])
        judgement = judge(
            run_result,
            expected,
            self.reference,
            self.options.dynamic_axes,
            self.scheme.name,
            VerificationPolicy(),
        )
        located = locate and judgement.numbers_differ
        named = self._named_block(session, judgement) if located else None
        lost, _ = nan_problems(nan, run_result, runtime.loses_nan)
        problem = next(iter((*judgement.problems, *lost)), "")
        if not problem and program and has_program(self.scheme, runtime):
            problem = self._program_problem(target, path, exported=exported)
        return Observation(problem, judgement, _figures(run_result, expected), named)

    def _program_problem(self, target: str, path: Path, *, exported: bool) -> str:
        """As `verification.program` finds it."""
        widen = registry.runtime(target).widen
        assert widen is not None
        benches = (self.single, self)
        single, half = (b.exported(target) if exported else b.clean(target) for b in benches)
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            restored = Path(scratch, path.name)
            try:
                tensors = list(widen(path, single, restored))
            except DifferentProgram:  # a note, to `verify`
                return ""
            again = list(widen(half, single, Path(scratch, f"again-{path.name}")))
            for tensor, other in zip(tensors, again, strict=True):
                if (found := rounding_problem(tensor)) and not is_folded(tensor, other):
                    return found
            return self.single.verify(target, restored, locate=False).problem

    def run(self, target: str, path: Path, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """The output of an artifact for one input."""
        (output,) = registry.runtime(target).open(path).run(inputs).values()
        return output

    def _named_block(self, session: Session, judgement: Judgement) -> str | None:
        probe = max(judgement.comparisons, key=lambda c: c.noise_ratio).probe
        inputs = next(dict(e.inputs) for e in self.expected if e.probe == probe)
        if probe not in self.blocks:
            assert self.reference.blocks is not None
            self.blocks[probe] = self.reference.blocks(inputs, self.scheme.name)
        return first_bad_block(trace_blocks(session.values(inputs), self.blocks[probe]))


def load_bench(
    checkpoint: Path,
    folder: Path,
    image_size: tuple[int, int] | None = None,
    options: Options = DEFAULTS,
) -> Bench:
    """Load the model of a checkpoint."""
    model = slide_deploy.load(checkpoint, image_size=image_size)
    return Bench(model.name, model, folder, options)


def _figures(run_result: RunResult, expected: tuple[Expectation, ...]) -> tuple[Figure, ...]:
    made = [
        (e, name, run_result.outputs[e.probe].get(name), reference)
        for e in expected
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


def _run_result(target: str, session: Session, expected: tuple[Expectation, ...]) -> RunResult:
    """The result of `read_artifact`, computed in this process."""
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
