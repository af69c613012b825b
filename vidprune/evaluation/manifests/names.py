"""Class names to class numbers, however the names are spelled, under both published sets of Kinetics-400 names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

# Original name -> the name in later copies (mmaction2's label_map_k710.txt, which starts with Kinetics-400 in order).
# The number of the class is the same under both names.
RENAMED_KINETICS400 = {
    "balloon blowing": "inflating balloons",
    "changing wheel": "changing wheel (not on bike)",
    "cooking sausages": "cooking sausages (not on barbeque)",
    "drinking": "sipping cup",
    "dying hair": "dyeing hair",
    "garbage collecting": "person collecting garbage",
    "hugging": "hugging (not baby)",
    "making bed": "making the bed",
    "opening bottle": "opening bottle (not wine)",
    "picking fruit": "picking apples",
    "skiing (not slalom or crosscountry)": "skiing mono",
    "sniffing": "smelling feet",
    "tying tie": "tying necktie",
}


def plain(name: str) -> str:
    """Lower case, with one space for every run of other characters: folders are named "air_drumming", lists differ."""
    return re.sub(r"[\W_]+", " ", name.casefold()).strip()


class ClassLookup:
    """Class numbers by name: exact first, then without regard to case and punctuation, then by Kinetics' other name."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._exact = {name: index for index, name in enumerate(names)}
        self._plain = self._unambiguous()
        self._problems: dict[str, str] = {}

    def index(self, name: str) -> int | None:
        """The number of the class, or None if there is no such name."""
        exact = self._exact.get(name.strip())
        return exact if exact is not None else self._plain.get(plain(name))

    def problem(self, name: str) -> str:
        """Why `index` gave None, with the nearest names."""
        if name not in self._problems:
            near = difflib.get_close_matches(plain(name), self._plain, n=1, cutoff=0.6)
            hint = f"; the nearest is {self.names[self._plain[near[0]]]!r}" if near else ""
            self._problems[name] = f"unknown class {name!r} among {len(self.names)} class names{hint}"
        return self._problems[name]

    def _unambiguous(self) -> dict[str, int]:
        found: dict[str, set[int]] = {}
        for name, index in self._exact.items():
            found.setdefault(plain(name), set()).add(index)
        for original, renamed in RENAMED_KINETICS400.items():
            for one, other in ((original, renamed), (renamed, original)):
                if one in self._exact and plain(other) not in found:
                    found[plain(other)] = {self._exact[one]}
        return {name: min(indices) for name, indices in found.items() if len(indices) == 1}
