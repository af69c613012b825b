"""One dial per method, a whole number from 0 (prunes nothing) up: bisection sets all of them to the same cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from vidprune.proposals.base import Proposal
from vidprune.pruners import METHODS
from vidprune.pruners.base import HostInfo, Pruner
from vidprune.pruners.calibration import Calibration
from vidprune.pruners.diffrate import DiffRate
from vidprune.pruners.papr import PaPr
from vidprune.pruners.tome import ToMe

Chain = Sequence[Pruner]
STEPS = 1000  # of a share: finer than one token in the grids swept here


@dataclass(frozen=True)
class Setting:
    """What the methods run on.

    Attributes:
        proposal: given to every method that asks one.
        calibration: given to every method that takes one.
    """

    host: HostInfo
    proposal: Proposal
    calibration: Calibration | None = None


@dataclass(frozen=True)
class Dial:
    """A method whose strength is one whole number; its cost falls as the number grows.

    Attributes:
        make: the configs at a strength, in the order in which they act.
        num_steps: the strongest setting.
    """

    make: Callable[[int], Chain]
    num_steps: int


def solve(cost: Callable[[int], float], target: float, num_steps: int) -> int:
    """The strength in 0 ... num_steps whose cost is nearest to `target`, for a cost that falls with strength."""
    low, high = 0, num_steps
    while low < high:
        middle = (low + high) // 2
        if cost(middle) <= target:
            high = middle
        else:
            low = middle + 1
    return min((low, max(low - 1, 0)), key=lambda strength: abs(cost(strength) - target))


def spread(total: int, depth: int) -> tuple[int, ...]:
    """`total` tokens over `depth` blocks, as evenly as whole numbers go."""
    return tuple(total * (block + 1) // depth - total * block // depth for block in range(depth))


def all_dials(setting: Setting) -> Iterator[tuple[str, list[Dial]]]:
    """Every registered method and two combinations, each with its dials, the method's defaults first.

    A method without dials is one whose strength no single number here sets.
    """
    for name in METHODS.names():
        yield name, _dials_of(METHODS.get(name), setting)
    yield "papr, mass", [_shares(lambda share: [PaPr(mass=share, proposal=setting.proposal)])]
    yield "papr+tome", [Dial(lambda s: _papr_then_tome(s, setting), STEPS - 1)]


def describe(chain: Chain) -> str:
    """The fields that were set, as in keep_ratio=0.48; defaults, proposals and calibrations are not named."""
    parts = []
    for method in chain:
        for field in dataclasses.fields(method):
            value = getattr(method, field.name)
            if not isinstance(value, Proposal | Calibration) and value != field.default:
                parts.append(f"{field.name}={list(value) if isinstance(value, tuple) else value}")
    return ", ".join(parts)


def _dials_of(config: type[Pruner], setting: Setting) -> list[Dial]:
    """The dials of a method, told from the fields of its config."""
    fields = _fields(config)
    given = {name: getattr(setting, name) for name in ("proposal", "calibration") if name in fields}
    num_tokens, depth = setting.host.grid.num_tokens, setting.host.depth
    if config is DiffRate:
        return [_shares(lambda share: [_geometric_diffrate(share, setting.host)])]
    if "keep_ratio" in fields:
        # Where a method acts by default bounds its cost, on hosts of few blocks from both sides.
        others: list[dict[str, object]] = [{}]
        if "blocks" in fields:
            others += [{"blocks": tuple(range(first, depth))} for first in range(depth)]
        if "schedule" in fields:
            others += [{"schedule": (0.0,) + (1.0,) * (depth - 1)}]
        return [_shares(lambda share, extra=extra: [config(keep_ratio=share, **extra, **given)]) for extra in others]
    if "r" in fields:
        return [Dial(lambda s: [config(r=spread(s, depth), **given)], num_tokens * depth)]
    for name in ("num_propagated", "num_pruned"):
        if name in fields:
            return [Dial(lambda s, name=name: [config(**{name: s}, **given)], num_tokens)]
    if "threshold" in fields:  # in units of the normalised input, which spans less than 5
        return [Dial(lambda s: [config(threshold=5 * s / STEPS, **given)], STEPS)]
    return []


def _fields(config: type[Pruner]) -> set[str]:
    return {field.name for field in dataclasses.fields(config)}


def _shares(make: Callable[[float], Chain]) -> Dial:
    """A dial over shares, from 1 down to one thousandth."""
    return Dial(lambda s: make(round(1 - s / STEPS, 3)), STEPS - 1)


def _geometric_diffrate(share: float, host: HostInfo) -> DiffRate:
    """Counts that leave the same share of the tokens in each block; half of the others are pruned, half are merged.

    DiffRate learns its counts; nobody has for these hosts, so this is its mechanism on a plain schedule.
    """
    kept, prune_kept, merge_kept = host.grid.num_tokens, [], []
    for _ in range(host.depth):
        left = max(1, round(kept * share))
        prune_kept.append(host.num_prefix + (kept + left + 1) // 2)
        merge_kept.append(host.num_prefix + left)
        kept = left
    return DiffRate(prune_kept=prune_kept, merge_kept=merge_kept)


def _papr_then_tome(strength: int, setting: Setting) -> Chain:
    """PaPr before the blocks; in the later half, ToMe merges a third of what is left."""
    keep_ratio = round(1 - strength / STEPS, 3)
    depth, early = setting.host.depth, setting.host.depth // 2
    merged = int(setting.host.grid.num_tokens * keep_ratio / 3) if strength else 0
    schedule = (0,) * early + spread(merged, depth - early)
    return [PaPr(keep_ratio=keep_ratio, proposal=setting.proposal), ToMe(r=schedule)]
