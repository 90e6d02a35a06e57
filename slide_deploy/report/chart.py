"""Error charts as inline SVG, with a row per probe or block, a logarithmic axis and the gate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from slide_deploy.report.text import clean, ratio_text

__all__ = ["MARKERS", "NOISE", "Scale", "Series", "dot_plot", "marker"]

# Each series has a shape besides its colour, for readers who cannot distinguish the colours.
MARKERS = (
    "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
    "M-4-4h8v8h-8z",
    "M0-5.2L5 3.8H-5z",
    "M0-5.6L5.6 0L0 5.6L-5.6 0z",
    "M0 5.2L5-3.8H-5z",
    "M-1.7-5h3.4v3.3H5v3.4H1.7V5h-3.4V1.7H-5v-3.4h3.3z",
)

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

WIDTH, ROW, TOP, BOTTOM, RIGHT = 840, 26, 30, 40, 24
LANE = 4.0  # vertical distance of series in a row, whose values are often almost equal
CHARACTER = 6.9  # width of a character of the labels
FLOOR = 1e-3  # smaller values are drawn here


@dataclass(frozen=True)
class Scale:
    """What the axis shows: its title, the name of the line at 1, how a gate and a value read, and
    its ticks between two values, each with its label."""

    axis: str
    unit: str
    show: Callable[[float], str]
    tell: Callable[[float], str]
    ticks: Callable[[float, float], list[tuple[float, str]]]


def _noise_text(value: float) -> str:
    return f"{ratio_text(value) if math.isfinite(value) else 'not finite'} × noise"


def _ticks(low: float, high: float) -> list[tuple[float, str]]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps: tuple[int, ...] = (1, 2, 5) if high / low < 1e3 else (1,)
    every = 1 if len(decades) <= 12 else 2
    found = [float(f"{s * 10.0**d:.3g}") for d in decades if d % every == 0 for s in steps]
    return [(tick, _tick_text(tick)) for tick in found if low <= tick <= high]


def _tick_text(tick: float) -> str:
    """Powers of ten beyond what reads at a glance are written as such."""
    if 1e-3 <= tick <= 1e3:
        return f"{tick:g}"
    return "10" + str(round(math.log10(tick))).translate(_SUPERSCRIPT)


NOISE = Scale(
    "error ÷ the model’s own noise", "noise", lambda gate: f"{gate:g}×", _noise_text, _ticks
)


@dataclass(frozen=True)
class Series:
    """One value per row, or None; `style` selects colour and shape."""

    name: str
    values: tuple[float | None, ...]
    style: int


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    left: float

    def x(self, value: float) -> float:
        """The position of a value; zero is at the left edge, infinity and NaN at the right edge."""
        if not math.isfinite(value):
            return WIDTH - RIGHT / 2
        held = min(max(value, self.low), self.high)
        share = math.log(held / self.low) / math.log(self.high / self.low)
        return round(self.left + share * (WIDTH - RIGHT - self.left), 1)


def dot_plot(
    title: str,
    rows: Sequence[str],
    series: Sequence[Series],
    *,
    gate: float | None,
    scale: Scale = NOISE,
    joined: bool = False,
    marked: Iterable[str] = (),
) -> str:
    """An SVG element. `gate` is in the unit of the values; `joined` connects the rows by a curve;
    `marked` rows are highlighted."""
    axis = _axis(series, gate, max(map(len, rows), default=0))
    height = TOP + ROW * len(rows) + BOTTOM
    svg = ET.Element(
        "svg", {"viewBox": f"0 0 {WIDTH} {height}", "role": "img", "aria-label": clean(title)}
    )
    bottom = TOP + ROW * len(rows)
    if gate is not None:
        edge = axis.x(gate)
        _add(svg, "rect", "beyond", x=edge, y=TOP, width=WIDTH - edge, height=bottom - TOP)
    for tick, label in scale.ticks(axis.low, axis.high):
        _vertical(svg, "grid", axis.x(tick), bottom)
        _text(svg, "tick", axis.x(tick), bottom + 18, label, "middle")
    middle = (axis.left + WIDTH - RIGHT) / 2
    _text(svg, "tick", middle, bottom + 36, scale.axis, "middle")
    _rows(svg, rows, axis, set(marked))
    if axis.low <= 1 <= axis.high:
        _vertical(svg, "unit", axis.x(1), bottom)
        _text(svg, "unit-label", axis.x(1), TOP - 10, scale.unit, "middle")
    if gate is not None:
        _vertical(svg, "gate", axis.x(gate), bottom)
        _text(svg, "gate-label", axis.x(gate), TOP - 10, f"gate {scale.show(gate)}", "middle")
    for index, one in enumerate(series):
        shift = 0.0 if joined else (index - (len(series) - 1) / 2) * LANE
        _draw(svg, one, rows, axis, shift, joined, scale)
    return ET.tostring(svg, encoding="unicode")


def marker(style: int) -> str:
    """The marker of a style, for a legend."""
    svg = ET.Element("svg", {"viewBox": "-7 -7 14 14", "class": "key", "aria-hidden": "true"})
    _shape(svg, style, 0, 0)
    return ET.tostring(svg, encoding="unicode")


def _rows(svg: ET.Element, rows: Sequence[str], axis: _Axis, marked: set[str]) -> None:
    for index, row in enumerate(rows):
        y = _y(index)
        if row in marked:
            _add(svg, "rect", "marked", x=0, y=y - ROW / 2, width=WIDTH, height=ROW)
        kind = "label marked-label" if row in marked else "label"
        _text(svg, kind, axis.left - 14, y + 4, row, "end")
        _add(svg, "line", "rule", x1=axis.left, y1=y, x2=WIDTH - RIGHT, y2=y)


def _draw(
    svg: ET.Element,
    one: Series,
    rows: Sequence[str],
    axis: _Axis,
    shift: float,
    joined: bool,
    scale: Scale,
) -> None:
    group = ET.SubElement(svg, "g", {"class": f"s{one.style % len(MARKERS)}"})
    points = [
        (axis.x(value), _y(index) + shift, row, value)
        for index, (row, value) in enumerate(zip(rows, one.values, strict=True))
        if value is not None
    ]
    if joined:
        path = " ".join(f"{x:g},{y:g}" for x, y, _, _ in points)
        _add(group, "polyline", "curve", points=path)
    for x, y, row, value in points:
        dot = _shape(group, one.style, x, y)
        title = ET.SubElement(dot, "title")
        title.text = clean(f"{one.name}, {row}: {scale.tell(value)}")


def _shape(parent: ET.Element, style: int, x: float, y: float) -> ET.Element:
    kind = style % len(MARKERS)
    return _add(
        parent, "path", f"dot s{kind}", d=MARKERS[kind], transform=f"translate({x:g} {y:g})"
    )


def _y(index: int) -> float:
    return TOP + ROW * (index + 0.5)


def _axis(series: Sequence[Series], gate: float | None, longest: int) -> _Axis:
    values = [v for one in series for v in one.values if v is not None and math.isfinite(v)]
    # The gate and the noise are always visible, for comparison.
    shown = [max(v, FLOOR) for v in values] + [1.0] + ([gate] if gate else [])
    left = min(14 + CHARACTER * longest + 14, WIDTH * 0.5)
    return _Axis(min(shown) / 1.7, max(shown) * 1.7, round(left))


def _vertical(svg: ET.Element, kind: str, x: float, bottom: float) -> None:
    _add(svg, "line", kind, x1=x, y1=TOP, x2=x, y2=bottom)


def _text(parent: ET.Element, kind: str, x: float, y: float, text: str, anchor: str) -> None:
    element = ET.SubElement(
        parent, "text", {"class": kind, "x": f"{x:g}", "y": f"{y:g}", "text-anchor": anchor}
    )
    element.text = clean(text)


def _add(parent: ET.Element, tag: str, kind: str, **attributes: float | str) -> ET.Element:
    plain = {k: v if isinstance(v, str) else f"{v:g}" for k, v in attributes.items()}
    return ET.SubElement(parent, tag, {"class": kind, **plain})
