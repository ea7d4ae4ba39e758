"""Pictures of measurements: lines on logarithmic axes, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 640, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 44, 52
_STEPS = (1, 2, 5)
_SIGNS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True, slots=True)
class Line:
    """What was measured of one thing: (x, y), x ascending, all above 0."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str


@dataclass(frozen=True, slots=True)
class Picture:
    """`x` and `y` say what the axes are of."""

    title: str
    x: str
    y: str
    lines: Sequence[Line]


@dataclass(frozen=True, slots=True)
class _Axis:
    """From value to place: `low` .. `high` lie at `first` .. `last`."""

    low: float
    high: float
    first: float
    last: float

    def at(self, value: float) -> float:
        share = (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return self.first + share * (self.last - self.first)

    def ticks(self) -> list[float]:
        """1, 2 and 5 of each decade; where that would be many, its 1 alone."""
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        every = [step * 10.0**decade for decade in decades for step in _STEPS]
        inside = [tick for tick in every if self.low <= tick <= self.high]
        return inside if len(inside) <= 9 else [tick for tick in inside if math.log10(tick) % 1 == 0]


def draw(picture: Picture) -> str:
    """The picture as an SVG file's text."""
    xs = [x for line in picture.lines for x, _ in line.points]
    ys = [y for line in picture.lines for _, y in line.points]
    across = _Axis(min(xs) / 1.15, max(xs) * 1.15, _LEFT, _WIDTH - _RIGHT)
    up = _Axis(_below(min(ys)), _above(max(ys)), _HEIGHT - _BOTTOM, _TOP)
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif"'
        f' font-size="12" role="img" aria-label="{escape(picture.title)}">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        _text(_LEFT, 22, picture.title, 'font-weight="bold" font-size="14"'),
        *_grid(across, up),
        _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 14, picture.x, 'text-anchor="middle"'),
        _text(
            0,
            0,
            picture.y,
            f'text-anchor="middle" transform="translate(16 {middle:.0f}) rotate(-90)"',
        ),
    ]
    for line in picture.lines:
        parts += _line(line, across, up)
    parts += _legend(picture.lines)
    return "\n".join([*parts, "</svg>", ""])


def _below(value: float) -> float:
    return max(step * 10.0**decade for decade in _decades(value) for step in _STEPS if step * 10.0**decade <= value)


def _above(value: float) -> float:
    return min(step * 10.0**decade for decade in _decades(value) for step in _STEPS if step * 10.0**decade >= value)


def _decades(value: float) -> range:
    decade = math.floor(math.log10(value))
    return range(decade - 1, decade + 2)


def _grid(across: _Axis, up: _Axis) -> list[str]:
    parts = []
    for tick in across.ticks():
        x = across.at(tick)
        parts.append(f'<path d="M{x:.1f} {_TOP}V{_HEIGHT - _BOTTOM}" stroke="#e5e7eb"/>')
        parts.append(_text(x, _HEIGHT - _BOTTOM + 16, _short(tick), 'text-anchor="middle"'))
    for tick in up.ticks():
        y = up.at(tick)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#e5e7eb"/>')
        parts.append(_text(_LEFT - 8, y + 4, _short(tick), 'text-anchor="end"'))
    frame = f"M{_LEFT} {_TOP}V{_HEIGHT - _BOTTOM}H{_WIDTH - _RIGHT}"
    return [*parts, f'<path d="{frame}" fill="none" stroke="#374151"/>']


def _line(line: Line, across: _Axis, up: _Axis) -> list[str]:
    places = [(across.at(x), up.at(y)) for x, y in line.points]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{line.colour}"/>' for x, y in places]
    return [f'<path d="M{path}" fill="none" stroke="{line.colour}" stroke-width="2"/>', *dots]


def _legend(lines: Sequence[Line]) -> list[str]:
    parts = []
    for number, line in enumerate(lines):
        x, y = _LEFT + 12, _TOP + 16 + 18 * number
        parts.append(f'<path d="M{x} {y - 4}h22" stroke="{line.colour}" stroke-width="2"/>')
        # A halo of its own: not every program that shows SVG knows paint-order.
        parts.append(_text(x + 30, y, line.name, 'stroke="#ffffff" stroke-width="3"'))
        parts.append(_text(x + 30, y, line.name, ""))
    return parts


def _text(x: float, y: float, words: str, more: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="#111827" {more}>{escape(words)}</text>'


def _short(value: float) -> str:
    """2000 as '2k'."""
    for size, sign in _SIGNS:
        if value >= size:
            return f"{value / size:g}{sign}"
    return f"{value:g}"
