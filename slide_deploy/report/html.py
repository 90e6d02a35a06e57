"""One self-contained HTML page: no request leaves it, and everything that is shown is escaped."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from slide_deploy.parity.comparison import Comparison
from slide_deploy.report import text as words
from slide_deploy.report.chart import Series, dot_plot, marker
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
    page = environment.from_string(source).render(
        report=report,
        headline=words.headline(report),
        word=words.VERDICT_WORD,
        meaning=words.FIDELITY_MEANING,
        items=items,
        drawn=drawn,
        probe_chart=_probe_chart(drawn) if drawn else "",
        gated=_gate(drawn) is not None,
        others=any(words.gate_multiple(item.check) is None for item in drawn),
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


def _probe_chart(drawn: list[_Item]) -> Markup:
    rows = list(dict.fromkeys(c.probe for item in drawn for c in item.check.comparisons))
    series = [
        Series(item.name, tuple(_worst(item.check.comparisons, row) for row in rows), item.style)
        for item in drawn
    ]
    return Markup(dot_plot("Error against noise, per probe", rows, series, gate=_gate(drawn)))


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


def _worst(comparisons: tuple[Comparison, ...], probe: str) -> float | None:
    """The largest ratio over the outputs; what is not a number is worse than any."""
    found = [c.noise_ratio for c in comparisons if c.probe == probe]
    return max((math.inf if math.isnan(r) else r for r in found), default=None)


def _gate(items: list[_Item]) -> float | None:
    """The multiple that all were judged by, of those judged by one."""
    gates = {words.gate_multiple(item.check) for item in items} - {None}
    return gates.pop() if len(gates) == 1 else None
