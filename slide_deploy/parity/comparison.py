"""Compares outputs of an artifact with the reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from slide_deploy.parity.expectation import Expectation, Noise
from slide_deploy.parity.gates import EACH_COMPARISON, Gate, GateKind, GateResult
from slide_deploy.parity.metrics import max_abs_error, rms_error, snr_db
from slide_deploy.utils.records import Count, Figure

__all__ = [
    "NOISE_MULTIPLE",
    "OVERFLOW",
    "POOLED_MULTIPLE",
    "SYSTEMATIC_MULTIPLE",
    "Comparison",
    "Tolerance",
    "compare",
    "constant_outputs",
    "disagreements",
    "gate_results",
    "pooled_ratios",
    "relative_errors",
]

# The error of a float32 artifact may be this multiple of PyTorch's own float32 error, for another
# order of summation.
NOISE_MULTIPLE = 10.0

# The pooled error may be this multiple of the noise. It detects errors that are too small for a
# single probe. The largest of 500 clean exports was 4.0, of a model with one loud channel; no
# mutant of `make mutation` needs a lower limit.
POOLED_MULTIPLE = 5.0

# Rounding errors on perturbed copies of an input are independent; the effect of a wrong weight is
# the same on each. The systematic error may be this multiple of the noise (docs/verdicts.md). Clean
# exports of 12 models with unusual weights stayed at about 0.6 of it.
SYSTEMATIC_MULTIPLE = 1.0

# The problem of every output that PyTorch cannot compute at the precision either.
OVERFLOW = "PyTorch itself overflows at this precision, so no limit can be derived"


@dataclass(frozen=True)
class Tolerance:
    """A user's own gate, |y − y64| ≤ atol + rtol·|y64|, instead of the calibrated one."""

    atol: float = 0.0
    rtol: float = 0.0

    def __str__(self) -> str:
        return f"atol {self.atol:g}, rtol {self.rtol:g} (given by the user)"

    @property
    def gate(self) -> Gate:
        """The tolerance as a gate."""
        return Gate(GateKind.TOLERANCE, 0.0, "", str(self))


@dataclass(frozen=True)
class Comparison:
    """One output on one probe. `max_abs_error` and `snr_db` compare with the float64 reference;
    `noise_ratio` is the error in multiples of the noise, around the model with its weights rounded
    where the precision rounds them. `problem` is empty on a pass; `measured` has the figure of each
    gate that judges a comparison alone, by its kind.

    For class scores (N, classes), `top1_agreed` of `top1_decided` rows have the reference's
    top class. Rows whose two best classes are closer than the noise are `near_ties`, which are
    not counted.
    """

    probe: str
    output: str
    max_abs_error: Figure
    noise_floor: Figure
    noise_ratio: Figure
    snr_db: Figure
    problem: str
    top1_decided: Count = 0
    top1_agreed: Count = 0
    near_ties: Count = 0
    measured: Mapping[str, Figure] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return not self.problem


def compare(
    expectation: Expectation,
    outputs: Mapping[str, np.ndarray],
    gates: Sequence[Gate],
    tolerance: Tolerance | None = None,
) -> tuple[Comparison, ...]:
    """Compare every expected output, with the gates of its precision scheme or a tolerance."""
    return tuple(
        _compare_one(expectation, name, outputs.get(name), gates, tolerance)
        for name in expectation.references
    )


def constant_outputs(
    expectations: tuple[Expectation, ...], outputs: Mapping[str, Mapping[str, np.ndarray]]
) -> Iterator[str]:
    """Names of outputs that are the same on every probe where the reference's change by more than
    rounding can hide."""
    first, *others = expectations
    for name, reference in first.meant.items():
        alike = [e for e in others if e.meant[name].shape == reference.shape]
        produced = outputs[first.probe].get(name)
        floor = max((e.noise[name].floor for e in (first, *alike)), default=0.0)
        moved = any(max_abs_error(e.meant[name], reference) > NOISE_MULTIPLE * floor for e in alike)
        made = [outputs[e.probe].get(name) for e in alike]
        if produced is not None and moved and all(_same(produced, value) for value in made):
            yield name


def pooled_ratios(
    expectations: tuple[Expectation, ...], outputs: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, float]:
    """The pooled error of each output as a multiple of the noise.

    Only outputs with the expected shape on every probe are included.
    """
    return _pooled(expectations, outputs, lambda e, name: e.noise[name].rms)


def relative_errors(
    expectations: tuple[Expectation, ...], outputs: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, float]:
    """The pooled error of each output, in percent of the output itself; as `pooled_ratios`."""
    shares = _pooled(expectations, outputs, lambda e, name: _rms(e.references[name]))
    return {name: 100 * share for name, share in shares.items()}


def _pooled(
    expectations: tuple[Expectation, ...],
    outputs: Mapping[str, Mapping[str, np.ndarray]],
    unit: Callable[[Expectation, str], float],
) -> dict[str, float]:
    ratios = {}
    for name in expectations[0].meant:
        pairs = [(outputs[e.probe].get(name), e.meant[name]) for e in expectations]
        if any(_shape_problem(produced, reference) for produced, reference in pairs):
            continue
        sizes = np.array([reference.size for _, reference in pairs], dtype=np.float64)
        errors = [rms_error(value, r) for value, r in pairs if value is not None]
        units = [unit(expectation, name) for expectation in expectations]
        power = float(sizes @ np.square(errors)) / float(sizes @ np.square(units))
        ratios[name] = float(np.sqrt(power))
    return ratios


def _rms(reference: np.ndarray) -> float:
    """At least the smallest float32, since an output may be zero."""
    return max(float(np.sqrt(np.square(reference).mean())), float(np.finfo(np.float32).tiny))


def disagreements(comparisons: Sequence[Comparison]) -> dict[str, float]:
    """Per output of class scores, the share of the decided rows, in percent, whose best class is
    not that of the reference."""
    decided: Counter[str] = Counter()
    agreed: Counter[str] = Counter()
    for comparison in comparisons:
        decided[comparison.output] += comparison.top1_decided
        agreed[comparison.output] += comparison.top1_agreed
    return {n: 100 * (1 - agreed[n] / count) for n, count in decided.items() if count}


def _same(first: np.ndarray, other: np.ndarray | None) -> bool:
    return other is not None and np.array_equal(first, other, equal_nan=True)


def gate_results(
    gates: Sequence[Gate],
    comparisons: Sequence[Comparison],
    over_probes: Mapping[GateKind, Mapping[str, float]],
) -> tuple[GateResult, ...]:
    """The worst figure for each gate; gates that do not apply have no result. `over_probes` has
    the figures of the gates on several probes, by output."""
    results = []
    for gate in gates:
        if gate.kind in EACH_COMPARISON:
            figures = [(c.measured[gate.kind], c.output, c.probe) for c in comparisons]
        else:
            figures = [(f, name, "") for name, f in over_probes.get(gate.kind, {}).items()]
        if figures:
            measured, output, probe = max(figures, key=lambda found: _severity(found[0]))
            results.append(
                GateResult(
                    gate.kind,
                    gate.limit,
                    measured,
                    gate.unit,
                    gate.basis,
                    measured <= gate.limit,
                    output,
                    probe,
                )
            )
    return tuple(results)


def _severity(figure: float) -> float:
    return float("inf") if np.isnan(figure) else figure


def _compare_one(
    expectation: Expectation,
    name: str,
    output: np.ndarray | None,
    gates: Sequence[Gate],
    tolerance: Tolerance | None,
) -> Comparison:
    reference, meant = expectation.references[name], expectation.meant[name]
    noise = expectation.noise[name]
    judging = [gate for gate in gates if gate.kind in EACH_COMPARISON]
    if tolerance is not None:
        judging = [tolerance.gate]
    problem, worst = _shape_problem(output, reference), float("inf")
    if output is None or problem:
        measured = dict.fromkeys((gate.kind.value for gate in judging), worst)
        return Comparison(
            expectation.probe, name, worst, noise.floor, worst, -worst, problem, measured=measured
        )
    error, snr = max_abs_error(output, reference), snr_db(output, reference)
    deviation = max_abs_error(output, meant)
    finite = bool(np.isfinite(output).all())
    figures = {
        GateKind.MAX_ERROR: _noise_multiple(deviation, noise),
        GateKind.SNR_LOSS: _snr_loss(snr, noise),
        GateKind.TOLERANCE: _excess(output, reference, tolerance) if finite else worst,
    }
    problem = OVERFLOW if _overflows(noise) else ""
    if not problem and not finite:
        problem = "the output has NaN or infinite values"
    for gate in judging:
        if not problem and not figures[gate.kind] <= gate.limit:
            problem = _gate_problem(gate, figures[gate.kind], deviation, snr, noise)
    decided, agreed, ties = _top1(output, reference, _spread(noise, gates))
    counted = any(gate.kind is GateKind.DISAGREEMENT for gate in gates)
    if not problem and agreed < decided and not counted:
        problem = f"top-1 differs on {decided - agreed} of {decided} rows beyond the noise"
    return Comparison(
        expectation.probe,
        name,
        error,
        noise.floor,
        deviation / noise.floor,
        snr,
        problem,
        decided,
        agreed,
        ties,
        {gate.kind.value: figures[gate.kind] for gate in judging},
    )


def _shape_problem(output: np.ndarray | None, reference: np.ndarray) -> str:
    if output is None:
        return "the output is missing"
    if not output.size:
        return "the output is empty"
    if output.shape != reference.shape:
        return f"the output's shape is {output.shape}, not {reference.shape}"
    if output.dtype != np.float32:
        return f"the output's dtype is {output.dtype}, not float32"
    return ""


def _noise_multiple(error: float, noise: Noise) -> float:
    return error / noise.floor if np.isfinite(noise.floor) else float("inf")


def _overflows(noise: Noise) -> bool:
    own = noise.scheme_snr_db
    return not np.isfinite(noise.floor) or (own is not None and not own > float("-inf"))


def _snr_loss(snr: float, noise: Noise) -> float:
    """The loss in dB compared with PyTorch's own rendering; infinite if there is none."""
    own = noise.scheme_snr_db
    if own is None or _overflows(noise):
        return float("inf")
    return 0.0 if snr == own else own - snr


def _excess(output: np.ndarray, reference: np.ndarray, tolerance: Tolerance | None) -> float:
    if tolerance is None:
        return 0.0
    allowed = tolerance.atol + tolerance.rtol * np.abs(reference)
    return float((np.abs(output - reference) - allowed).max())


def _gate_problem(gate: Gate, measured: float, error: float, snr: float, noise: Noise) -> str:
    if gate.kind is GateKind.TOLERANCE:
        return f"beyond {gate.basis} by {measured:.1e}"
    if gate.kind is GateKind.MAX_ERROR:
        return f"error {error:.1e} is {measured:.0f} times the rounding noise {noise.floor:.1e}"
    if noise.scheme_snr_db is None:
        return "there is no expectation at this precision to judge by"
    return (
        f"SNR {snr:.0f} dB, compared with {noise.scheme_snr_db:.0f} dB of PyTorch at this "
        f"precision (limit: {gate.limit:g} dB less)"
    )


def _spread(noise: Noise, gates: Sequence[Gate]) -> float:
    """The largest change of the difference of two scores by rounding."""
    rendered = any(gate.kind is GateKind.SNR_LOSS for gate in gates)
    return (noise.scheme_error if rendered else None) or noise.floor


def _top1(output: np.ndarray, reference: np.ndarray, noise: float) -> tuple[int, int, int]:
    if reference.ndim != 2 or reference.shape[1] < 2:
        return 0, 0, 0
    best = np.sort(reference, axis=1)[:, -2:]
    # Each score may change by the gate's multiple of the noise.
    clear = best[:, 1] - best[:, 0] > 2 * NOISE_MULTIPLE * noise
    agree = output.argmax(axis=1) == reference.argmax(axis=1)
    return int(clear.sum()), int((clear & agree).sum()), int((~clear).sum())
