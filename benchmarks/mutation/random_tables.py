"""Tables of the drawn models' clean exports and of the detection curve."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.mutation.analysis import detected_above, upper_bound
from benchmarks.mutation.curve import CHANGES, LAYERS
from benchmarks.mutation.outcome import CurvePoint, Headroom
from benchmarks.mutation.tables import TITLES, Rows

__all__ = ["alarm_rows", "alarm_sentence", "curve_rows", "false_alarm_rows"]

GATES = {
    "max_error": "one probe",
    "pooled_error": "pooled",
    "systematic_error": "systematic",
    "snr_loss": "SNR loss",
}


def alarm_sentence(clean: Sequence[Headroom]) -> str:
    """The number of false alarms, and the bound on their rate."""
    judged = [one for one in clean if not one.overflow]
    alarms = sum(one.false_alarm for one in judged)
    text = f"{alarms} in {len(judged)} clean artifacts"
    if judged:
        text += f" (at most {upper_bound(alarms, len(judged)):.2%} with 95 % confidence)"
    overflows = len(clean) - len(judged)
    return text + (f"; {overflows} more of models that overflow in PyTorch" if overflows else "")


def alarm_rows(clean: Sequence[Headroom], precision: str) -> Rows:
    """Weights → artifacts, false alarms, and the largest share of each gate's limit."""
    gates = [gate for gate in GATES if any(s.gate == gate for one in clean for s in one.gates)]
    kinds = sorted({one.weights for one in clean})
    cells = [_alarm_row(kind, [o for o in clean if o.weights == kind], gates) for kind in kinds]
    return Rows(
        f"clean {precision} exports of drawn models: worst figure / limit",
        ("weights", "models", "artifacts", "overflow", "false alarms", *(GATES[g] for g in gates)),
        [*cells, _alarm_row("all", clean, gates)],
    )


def _alarm_row(name: str, own: Sequence[Headroom], gates: Sequence[str]) -> list[str]:
    shares = [
        [s.share for one in own if not one.overflow for s in one.gates if s.gate == gate]
        for gate in gates
    ]
    return [
        name,
        str(len({one.model for one in own})),
        str(len(own)),
        str(sum(one.overflow for one in own)),
        str(sum(one.false_alarm for one in own)),
        *(f"{max(values):.2f}" if values else "–" for values in shares),
    ]


def false_alarm_rows(clean: Sequence[Headroom]) -> Rows:
    """Each false alarm with its problem."""
    cells = [
        [one.model, one.precision, TITLES[one.target], one.problem]
        for one in clean
        if one.false_alarm
    ]
    return Rows("false alarms", ("model", "precision", "runtime", "problem"), cells)


def curve_rows(points: Sequence[CurvePoint]) -> Rows:
    """Layer × change → detected / above the noise, of the sites that were tried."""
    cells = [_curve_row(name, [p for p in points if p.layer == name]) for name in LAYERS]
    cells.append(_curve_row("all", points))
    models = dict.fromkeys(point.model for point in points)
    cells += [_curve_row(name, [p for p in points if p.model == name]) for name in models]
    columns = ("layer", "sites", *(f"{100 * change:g} %" for change in CHANGES))
    return Rows("one weight changed: detected / above the noise", columns, cells)


def _curve_row(name: str, points: Sequence[CurvePoint]) -> list[str]:
    sites = {(point.model, point.site) for point in points}
    return [name, str(len(sites)), *(_cell(points, change) for change in CHANGES)]


def _cell(points: Sequence[CurvePoint], change: float) -> str:
    detected, above = detected_above(points, change)
    return f"{detected}/{above} ({detected / above:.0%})" if above else "–"
