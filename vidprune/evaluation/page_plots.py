"""Plots as SVG inside the page: points with their intervals, one line per method, no script and no other file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vidprune.evaluation.page_markup import Html, tag

NUM_COLOURS = 8  # --series-0 ... in page.css
WIDTH, HEIGHT = 620, 380
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 14, 52  # room for what stands around the axes
_MARKERS = (  # paths around (0, 0)
    "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z",
    "M-4 -4h8v8h-8z",
    "M0 -5.5L5 4H-5z",
    "M0 -6L5 0L0 6L-5 0z",
    "M0 5.5L5 -4H-5z",
)


@dataclass(frozen=True)
class Point:
    """A figure with its interval, in the units of the axes, and the words that name it."""

    x: float
    y: float
    low: float
    high: float
    label: str


@dataclass(frozen=True)
class Series:
    """Points of one method, joined in their order; `number` gives colour and marker."""

    name: str
    number: int
    points: tuple[Point, ...]


def plot(title: str, x_title: str, y_title: str, series: Sequence[Series]) -> Html:
    """A figure of at least one point; every point says its words when pointed at."""
    points = [point for one in series for point in one.points]
    x_ticks = ticks(0.0, max(point.x for point in points))
    y_ticks = ticks(min(point.low for point in points), max(point.high for point in points))
    scale = _Scale(x_ticks[0], x_ticks[-1], y_ticks[0], y_ticks[-1])
    drawn = [
        *_axes(scale, x_ticks, y_ticks, x_title, y_title),
        *(_series(scale, one) for one in series),
    ]
    words = f"{title}: {len(points)} points; the table below gives the figures"
    svg = tag("svg", *drawn, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=words)
    return tag("figure", tag("figcaption", title), svg, _legend(series))


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round numbers, about `count`, evenly apart, from at most `low` to at least `high`."""
    span = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(factor * power for factor in (1, 2, 5, 10) if span / (factor * power) <= count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, max(last, first + 1) + 1)]


@dataclass(frozen=True)
class _Scale:
    """From figures to pixels."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        return round(LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        return round(HEIGHT - BOTTOM - (value - self.y_low) / (self.y_high - self.y_low) * (HEIGHT - TOP - BOTTOM), 1)


def _axes(
    scale: _Scale, x_ticks: Sequence[float], y_ticks: Sequence[float], x_title: str, y_title: str
) -> Iterable[Html]:
    left, right, bottom = LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM
    for value in x_ticks:
        yield tag("line", x1=scale.x(value), x2=scale.x(value), y1=TOP, y2=bottom, class_="grid")
        yield tag("text", f"{value:g}", x=scale.x(value), y=bottom + 18, text_anchor="middle")
    for value in y_ticks:
        yield tag("line", x1=left, x2=right, y1=scale.y(value), y2=scale.y(value), class_="grid")
        yield tag("text", f"{value:g}", x=left - 8, y=scale.y(value) + 4, text_anchor="end")
    middle = (TOP + bottom) / 2
    yield tag("text", x_title, x=(left + right) / 2, y=HEIGHT - 10, text_anchor="middle", class_="title")
    place = f"translate(16 {middle}) rotate(-90)"
    yield tag("text", y_title, transform=place, text_anchor="middle", class_="title")


def _series(scale: _Scale, series: Series) -> Html:
    points, number = series.points, series.number
    line = "M" + "L".join(f"{scale.x(point.x)} {scale.y(point.y)}" for point in points)
    parts = [tag("path", d=line, class_="line")] if len(points) > 1 else []
    parts += [tag("path", d=_error_bar(scale, point), class_="bar") for point in points]
    parts += [
        tag(
            "g",
            tag("title", point.label),
            _marker(number),
            transform=f"translate({scale.x(point.x)} {scale.y(point.y)})",
        )
        for point in points
    ]
    return tag("g", *parts, class_=f"series s{number % NUM_COLOURS}")


def _error_bar(scale: _Scale, point: Point) -> str:
    x, low, high = scale.x(point.x), scale.y(point.low), scale.y(point.high)
    return f"M{x} {low}V{high}M{x - 4} {low}h8M{x - 4} {high}h8"


def _marker(number: int) -> Html:
    return tag("path", d=_MARKERS[number % len(_MARKERS)], class_="marker")


def _legend(series: Sequence[Series]) -> Html:
    entries = [tag("li", _key(one.number), one.name) for one in series]
    return tag("ul", *entries, class_="legend")


def _key(number: int) -> Html:
    drawn = tag("g", _marker(number), class_=f"series s{number % NUM_COLOURS}")
    return tag("svg", drawn, viewBox="-8 -8 16 16", width=16, height=16, aria_hidden="true")
