"""One dial per method, a whole number from 0 (prunes nothing) up: bisection sets all of them to the same cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from vidprune.errors import VidpruneError
from vidprune.proposals.base import Proposal
from vidprune.pruners import METHODS
from vidprune.pruners.base import HostInfo, Pruner
from vidprune.pruners.papr import PaPr
from vidprune.pruners.tome import ToMe

Chain = Sequence[Pruner]
STEPS = 1000  # of a keep ratio: finer than one token in the grids swept here
MISS = 0.05  # share of dense by which a method may miss a target before it counts as out of its reach


@dataclass(frozen=True)
class Dial:
    """A method whose strength is one whole number; its cost falls as the number grows.

    Attributes:
        make: the configs at a strength, in the order in which they act.
        num_steps: the strongest setting.
    """

    name: str
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
    return min({low, max(low - 1, 0)}, key=lambda strength: abs(cost(strength) - target))


def spread(total: int, depth: int) -> tuple[int, ...]:
    """`total` tokens over `depth` blocks, as evenly as whole numbers go."""
    return tuple(total * (block + 1) // depth - total * block // depth for block in range(depth))


def all_dials(host: HostInfo, proposal: Proposal) -> Iterator[Dial]:
    """A dial for every registered method that one number can set, and for the chain of PaPr and ToMe.

    A method that this module does not know gets one if its config has a `keep_ratio`.
    """
    for name in METHODS.names():
        if name in SPECIAL:
            yield SPECIAL[name](name, host, proposal)
        elif "keep_ratio" in (field.name for field in dataclasses.fields(METHODS.get(name))):
            yield _keep_ratio(name, host, proposal)
    yield Dial("papr+tome", lambda s: _papr_then_tome(s, host, proposal), STEPS - 1)


def unknown_methods() -> list[str]:
    """Registered methods that have no dial here."""
    known = {name for name in METHODS.names() if name in SPECIAL}
    fields = {name: {f.name for f in dataclasses.fields(METHODS.get(name))} for name in METHODS.names()}
    return [name for name in METHODS.names() if name not in known and "keep_ratio" not in fields[name]]


def describe(chain: Chain) -> str:
    """The fields that were set, as in keep_ratio=0.48; those left at their defaults and proposals are not named."""
    parts = []
    for method in chain:
        for field in dataclasses.fields(method):
            value = getattr(method, field.name)
            if value != field.default and not isinstance(value, Proposal):
                parts.append(f"{field.name}={list(value) if isinstance(value, tuple) else value}")
    return ", ".join(parts)


def _keep_ratio(name: str, host: HostInfo, proposal: Proposal) -> Dial:
    return Dial(name, lambda s: [METHODS.get(name)(keep_ratio=1 - s / STEPS)], STEPS - 1)


def _papr(name: str, host: HostInfo, proposal: Proposal) -> Dial:
    return Dial(name, lambda s: [PaPr(keep_ratio=1 - s / STEPS, proposal=proposal)], STEPS - 1)


def _merged(name: str, host: HostInfo, proposal: Proposal) -> Dial:
    """Tokens merged in all blocks together, spread evenly."""
    return Dial(name, lambda s: [METHODS.get(name)(r=spread(s, host.depth))], host.grid.num_tokens)


def _propagated(name: str, host: HostInfo, proposal: Proposal) -> Dial:
    return Dial(name, lambda s: [METHODS.get(name)(num_propagated=s)], host.grid.num_tokens)


def _papr_then_tome(strength: int, host: HostInfo, proposal: Proposal) -> Chain:
    """PaPr before the blocks; in the later half, ToMe merges a third of what is left."""
    keep_ratio = 1 - strength / STEPS
    early = host.depth // 2
    merged = int(host.grid.num_tokens * keep_ratio / 3) if strength else 0
    schedule = (0,) * early + spread(merged, host.depth - early)
    return [PaPr(keep_ratio=keep_ratio, proposal=proposal), ToMe(r=schedule)]


SPECIAL: dict[str, Callable[[str, HostInfo, Proposal], Dial]] = {
    "papr": _papr,
    "tome": _merged,
    "tofu": _merged,
    "gtp": _propagated,
}


def refusal(make: Callable[[], object]) -> str | None:
    """What a method says when it cannot run on this host, None if it can."""
    try:
        make()
    except VidpruneError as error:
        return str(error)
    return None
