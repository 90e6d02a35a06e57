"""Renders a self-contained HTML page: it makes no requests, and all content is escaped."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from slide_deploy.parity.comparison import Comparison
from slide_deploy.parity.gates import GateKind
from slide_deploy.report import text
from slide_deploy.report.chart import Scale, Series, dot_plot, marker
from slide_deploy.report.receiver import Handout
from slide_deploy.report.replay import REPLAY_COLUMNS, replay_lines, replay_rows
from slide_deploy.verification.record import Check, Report

__all__ = ["render"]

TEMPLATE = "page.html.j2"


def render(report: Report, handouts: Sequence[Handout] = ()) -> str:
    """The page. Failures are marked by words and shapes, not by colour alone. `handouts` are what
    receivers of the artifacts must know."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters |= {
        "accuracy": text.accuracy_text,
        "breakable": _breakable,
        "comparison": text.comparison_text,
        "cost": text.cost_text,
        "estimates": text.estimate_lines,
        "gate": text.gate_text,
        "gates": text.gates_text,
        "number": text.number,
        "operators": text.operators_text,
        "opinion": text.opinion_text,
        "search": text.search_text,
        "size": text.size_text,
        "top1": text.top1_text,
    }
    source = files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    items = _items(report)
    # The error of a quantized artifact is its cost, not a multiple of rounding noise.
    drawn = [item for item in items if item.check.comparisons and not item.check.cost]
    by_noise = [item for item in drawn if _limit(item, GateKind.SNR_LOSS) is None]
    by_snr = [item for item in drawn if item not in by_noise]
    page = environment.from_string(source).render(
        report=report,
        headline=text.headline(report),
        date=text.date_text(report),
        word=text.VERDICT_WORD,
        meaning=text.FIDELITY_MEANING,
        probes=text.probes_text(report),
        items=items,
        handouts=handouts,
        replayed=replay_rows(report.replay) if report.replay else (),
        replay_columns=REPLAY_COLUMNS,
        replay_lines=replay_lines(report.replay) if report.replay else (),
        by_noise=by_noise,
        noise_chart=_noise_chart(by_noise) if by_noise else "",
        gated=_gate(by_noise) is not None,
        others=any(_limit(item, GateKind.MAX_ERROR) is None for item in by_noise),
        by_snr=by_snr,
        snr_chart=_snr_chart(by_snr) if by_snr else "",
        traces=[(item, _trace_chart(item)) for item in items if item.check.trace],
        searches=[
            (item, _search_chart(item))
            for item in items
            if item.check.search and len(item.check.search.trials) > 1
        ],
        key=lambda style: Markup(marker(style)),
    )
    return f"{page.rstrip()}\n"


@dataclass(frozen=True)
class _Item:
    """A check with its name, and the style of its colour and shape."""

    check: Check
    name: str
    style: int


def _items(report: Report) -> list[_Item]:
    """Items named by target, and by file if there are several of one target."""
    targets = [check.target for check in report.checks]
    return [
        _Item(check, target if targets.count(target) == 1 else f"{target}, {check.path}", style)
        for style, (target, check) in enumerate(zip(targets, report.checks, strict=True))
    ]


def _finalize(value: Any) -> Any:
    if isinstance(value, str) and not isinstance(value, Markup):
        return text.clean(value)
    return value


def _breakable(name: str) -> Markup:
    """A name that breaks between its words: after punctuation, and before a capital letter."""
    parts = re.split(r"(?<=[_.:-])(?=[^_.:-])|(?<=[a-z])(?=[A-Z])", text.clean(name))
    return Markup("<wbr>").join(parts)


def _decibels(ratio: float) -> float:
    """20 dB are a factor of ten in the root mean square error."""
    return 20 * math.log10(ratio)


def _decibel_ticks(low: float, high: float) -> list[tuple[float, str]]:
    first, last = _decibels(low), _decibels(high)
    step = next(s for s in (2, 5, 10, 20, 50, 100, 200, 500, 1000) if (last - first) / s <= 10)
    steps = range(math.ceil(first / step), math.floor(last / step) + 1)
    return [(_ratio(number * step), f"{number * step}".replace("-", "−")) for number in steps]


DECIBELS = Scale(
    "loss of signal-to-noise ratio against PyTorch at the same precision, in dB",
    "0 dB",
    lambda gate: f"{_decibels(gate):.3g} dB",
    lambda value: f"{_decibels(value):.1f} dB" if 0 < value < math.inf else "not finite",
    _decibel_ticks,
)


GAINS = replace(DECIBELS, axis="gain in signal-to-noise ratio if the part stays in float, in dB")


def _noise_chart(items: list[_Item]) -> Markup:
    rows = _probes(items)
    series = [_series(item, rows, lambda c: c.noise_ratio) for item in items]
    return Markup(dot_plot("Error against noise, per probe", rows, series, gate=_gate(items)))


def _snr_chart(items: list[_Item]) -> Markup:
    """Losses of signal-to-noise ratio, drawn as ratios of errors on a logarithmic axis."""
    rows = _probes(items)
    series = [
        _series(item, rows, lambda c: _ratio(c.measured.get(GateKind.SNR_LOSS, math.nan)))
        for item in items
    ]
    limits = {_limit(item, GateKind.SNR_LOSS) for item in items}
    gate = _ratio(min(limit for limit in limits if limit is not None))
    title = "Loss of signal-to-noise ratio, per probe"
    return Markup(dot_plot(title, rows, series, gate=gate, scale=DECIBELS))


def _ratio(decibels: float) -> float:
    return math.inf if not decibels < 6000 else float(10 ** (decibels / 20))


def _probes(items: list[_Item]) -> list[str]:
    return list(dict.fromkeys(c.probe for item in items for c in item.check.comparisons))


def _series(item: _Item, rows: list[str], figure: Callable[[Comparison], float]) -> Series:
    """The largest value over the outputs, per probe; NaN counts as infinity."""

    def worst(probe: str) -> float | None:
        found = [figure(c) for c in item.check.comparisons if c.probe == probe]
        return max((math.inf if math.isnan(f) else f for f in found), default=None)

    return Series(item.name, tuple(worst(row) for row in rows), item.style)


def _trace_chart(item: _Item) -> Markup:
    trace, bad = item.check.trace, item.check.first_bad_block
    chart = dot_plot(
        f"Error over the blocks of {item.check.path}",
        [block.block for block in trace],
        [Series(item.name, tuple(block.noise_ratio for block in trace), item.style)],
        gate=_gate([item]),
        joined=True,
        marked=[bad] if bad is not None else [],
    )
    return Markup(chart)


def _search_chart(item: _Item) -> Markup:
    """What each part and kind gains, the most first, drawn as a ratio of errors on a logarithmic
    axis; empty where other settings were enough."""
    assert item.check.search is not None
    if not item.check.search.gains:
        return Markup()
    gains = dict(sorted(item.check.search.gains.items(), key=lambda gain: -gain[1]))
    chart = dot_plot(
        f"Gain of each part and kind of product of {item.check.path} if it alone stays in float",
        list(gains),
        [Series(item.name, tuple(_ratio(gain) for gain in gains.values()), item.style)],
        gate=None,
        scale=GAINS,
    )
    return Markup(chart)


def _limit(item: _Item, kind: GateKind) -> float | None:
    """The limit of the gate of this kind, or None if the check has no such gate."""
    return next((result.limit for result in item.check.gates if result.kind is kind), None)


def _gate(items: list[_Item]) -> float | None:
    """The multiple of the noise that all were judged by, of those judged by one."""
    gates = {_limit(item, GateKind.MAX_ERROR) for item in items} - {None}
    return gates.pop() if len(gates) == 1 else None
