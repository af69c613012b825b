"""A small SVG of accuracy against cost, one line per method with 95 % intervals, drawn without a plotting library."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 900, 560
LEFT, RIGHT, TOP, BOTTOM = 60, 190, 40, 50
PALETTE = ("#1b6ca8", "#c8553d", "#2a9d5c", "#8e5ea2", "#b8860b", "#0f8b8d", "#d1495b", "#5c6f2e")
DASHES = ("", "7 3", "2 3")
GREY = "#777777"
Scale = Callable[[float], float]


@dataclass(frozen=True)
class Point:
    """Cost as a share of dense, accuracy and its interval, all in percent."""

    cost: float
    top1: float
    low: float
    high: float


def pareto_svg(title: str, dense: Point, curves: Mapping[str, Sequence[Point]]) -> str:
    """One picture: `curves` by method, from dearest to cheapest point; "random", what all must beat, in broad grey."""
    points = [point for curve in curves.values() for point in curve]
    bottom = 10 * int(min(p.low for p in [dense, *points]) // 10)

    def x(cost: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (105 - cost) / (105 - 25)

    def y(top1: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (100 - top1) / (100 - bottom)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12" role="img"><title>{escape(title)}</title><rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="15">{escape(title)}</text>',
    ]
    for top1 in range(bottom, 101, 10):
        parts.append(f'<path d="M{LEFT} {y(top1):.1f}H{WIDTH - RIGHT}" stroke="#dddddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(top1) + 4:.1f}" text-anchor="end">{top1}</text>')
    for cost in range(30, 101, 10):
        parts.append(f'<text x="{x(cost):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{cost}</text>')
    parts.append(f'<text x="{x(65):.1f}" y="{HEIGHT - 10}" text-anchor="middle">GMACs, percent of dense</text>')
    parts.append(
        f'<text transform="translate(16 {y((100 + bottom) / 2):.0f}) rotate(-90)" text-anchor="middle">'
        "top-1, percent</text>"
    )
    parts.append(f'<path d="M{LEFT} {y(dense.top1):.1f}H{WIDTH - RIGHT}" stroke="black" stroke-dasharray="1 3"/>')
    parts.append(_marks("dense", [dense], "black", "", 0, x, y))
    names = sorted(curves, key=lambda name: -curves[name][-1].top1)
    heights = _apart([y(curves[name][-1].top1) for name in names], 13)
    for i, name in enumerate(names):
        colour = GREY if name == "random" else PALETTE[i % len(PALETTE)]
        dash = "" if name == "random" else DASHES[i // len(PALETTE) % len(DASHES)]
        parts.append(_marks(name, curves[name], colour, dash, (i - len(names) / 2) * 1.5, x, y))
        end = x(curves[name][-1].cost) + (i - len(names) / 2) * 1.5
        parts.append(
            f'<path d="M{end + 4:.1f} {y(curves[name][-1].top1):.1f}L{WIDTH - RIGHT + 8} {heights[i]:.1f}" '
            f'stroke="{colour}" stroke-width="0.5"/><text x="{WIDTH - RIGHT + 12}" y="{heights[i] + 4:.1f}" '
            f'fill="{colour}">{escape(name)} {curves[name][-1].top1:.1f}</text>'
        )
    return "\n".join([*parts, "</svg>\n"])


def _marks(name: str, curve: Sequence[Point], colour: str, dash: str, shift: float, x: Scale, y: Scale) -> str:
    """One method: its line, and a dot with its interval at each point, `shift` pixels aside so that bars stay apart."""
    at = [(x(p.cost) + shift, y(p.top1), y(p.low), y(p.high)) for p in curve]
    line = "L".join(f"{px:.1f} {py:.1f}" for px, py, _, _ in at)
    bars = "".join(f"M{px:.1f} {low:.1f}V{high:.1f}" for px, _, low, high in at)
    dots = "".join(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour}"/>' for px, py, _, _ in at)
    width = 4 if name == "random" else 1.5
    return (
        f'<g stroke="{colour}" fill="none"><title>{escape(name)}</title>'
        f'<path d="M{line}" stroke-width="{width}" stroke-dasharray="{dash}"/>'
        f'<path d="{bars}" stroke-width="1"/></g>{dots}'
    )


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending label heights, each at least `gap` below the one before; moved up where they leave the picture."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + gap) if placed else height)
    limit = HEIGHT - BOTTOM
    for i in reversed(range(len(placed))):
        placed[i] = min(placed[i], limit)
        limit = placed[i] - gap
    return placed
