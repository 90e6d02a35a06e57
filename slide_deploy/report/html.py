"""One self-contained HTML page: no request leaves it, and everything that is shown is escaped."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from slide_deploy.parity.comparison import Comparison
from slide_deploy.parity.gates import GateKind
from slide_deploy.report import text as words
from slide_deploy.report.chart import Scale, Series, dot_plot, marker
from slide_deploy.verification.record import Check, Report

__all__ = ["render"]

TEMPLATE = "page.html.j2"


def render(report: Report) -> str:
    """The page; it also tells a failure by words and shapes, not by colour alone."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters |= {
        "breakable": _breakable,
        "gate": words.gate_text,
        "gates": words.gates_text,
        "number": words.number,
        "operators": words.operators_text,
        "opinion": words.opinion_text,
        "ratio": words.ratio_text,
        "size": words.size_text,
        "top1": words.top1_text,
    }
    source = files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    items = _items(report)
    drawn = [item for item in items if item.check.comparisons]
    by_noise = [item for item in drawn if _limit(item, GateKind.SNR_LOSS) is None]
    by_snr = [item for item in drawn if item not in by_noise]
    page = environment.from_string(source).render(
        report=report,
        headline=words.headline(report),
        probes=words.probes_text(report),
        word=words.VERDICT_WORD,
        meaning=words.FIDELITY_MEANING,
        items=items,
        by_noise=by_noise,
        noise_chart=_noise_chart(by_noise) if by_noise else "",
        gated=_gate(by_noise) is not None,
        others=any(_limit(item, GateKind.MAX_ERROR) is None for item in by_noise),
        by_snr=by_snr,
        snr_chart=_snr_chart(by_snr) if by_snr else "",
        traces=[(item, _trace_chart(item)) for item in items if item.check.trace],
        key=lambda style: Markup(marker(style)),
    )
    return f"{page.rstrip()}\n"


@dataclass(frozen=True)
class _Item:
    """A check as the page shows it: under which name, in which colour and shape."""

    check: Check
    name: str
    style: int


def _items(report: Report) -> list[_Item]:
    """Named by target, and by file too where one target has several."""
    targets = [check.target for check in report.checks]
    return [
        _Item(check, target if targets.count(target) == 1 else f"{target}, {check.path}", style)
        for style, (target, check) in enumerate(zip(targets, report.checks, strict=True))
    ]


def _finalize(value: Any) -> Any:
    if isinstance(value, str) and not isinstance(value, Markup):
        return words.clean(value)
    return value


def _breakable(name: str) -> Markup:
    """A file name that breaks between its words; no entity that escaping makes has these signs."""
    return Markup(re.sub(r"([_.-])", r"\1<wbr>", str(escape(words.clean(name)))))


# 20 dB are a factor of ten in the root mean square error.
DECIBELS = Scale(
    "root mean square error ÷ that of PyTorch at the same precision",
    "0 dB",
    lambda gate: f"{20 * math.log10(gate):.3g} dB",
    lambda value: f"{20 * math.log10(value):.1f} dB" if 0 < value < math.inf else "not finite",
)


def _noise_chart(items: list[_Item]) -> Markup:
    rows = _probes(items)
    series = [_series(item, rows, lambda c: c.noise_ratio) for item in items]
    return Markup(dot_plot("Error against noise, per probe", rows, series, gate=_gate(items)))


def _snr_chart(items: list[_Item]) -> Markup:
    """Losses of signal-to-noise ratio as ratios of errors, which a log axis holds."""
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
    """The largest figure over the outputs, per probe; what is no number is worse than any."""

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


def _limit(item: _Item, kind: GateKind) -> float | None:
    """The limit of the gate of that kind; None where the check was not judged by one."""
    return next((result.limit for result in item.check.gates if result.kind is kind), None)


def _gate(items: list[_Item]) -> float | None:
    """The multiple of the noise that all were judged by, of those judged by one."""
    gates = {_limit(item, GateKind.MAX_ERROR) for item in items} - {None}
    return gates.pop() if len(gates) == 1 else None
