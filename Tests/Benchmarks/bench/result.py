"""From pairs of samples to a row of the table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from .goals import Goal


@dataclass(frozen=True)
class Measured:
    """The samples of one row: each pair was taken one right after the other, so that what else the machine does weighs
    on both alike."""

    name: str
    pairs: Sequence[tuple[float, float]]
    """Ours and theirs."""

    peer: str = ""
    """Who was the better, where there is more than one."""

    @property
    def ratios(self) -> list[float]:
        return [ours / theirs for ours, theirs in self.pairs]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def ours(self) -> float:
        return statistics.median(ours for ours, _ in self.pairs)

    @property
    def theirs(self) -> float:
        return statistics.median(theirs for _, theirs in self.pairs)

    def as_json(self, goal: Goal) -> dict[str, object]:
        """The row as it stands in the file."""
        spread = [round(bound, 6) for bound in (min(self.ratios), max(self.ratios))]
        return {
            "name": self.name,
            "ratio": round(self.ratio, 6),
            "goal": goal.bound,
            "better": goal.better,
            "met": goal.is_met(self.ratio),
            "spread": spread,
            "samples": len(self.pairs),
            "against": self.peer or goal.against,
            "ours": self.ours,
            "theirs": self.theirs,
            "unit": goal.unit,
        }


@dataclass(frozen=True)
class NotMeasured:
    """A row that could not be filled, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Skipped:
    """A row that this machine, or a quick run, has no room for, and why. That is no failure."""

    name: str
    reason: str


Outcome = Measured | NotMeasured | Skipped

Sample = TypeVar("Sample")
Way = TypeVar("Way", bound=Hashable)


def alternate(count: int, measures: Mapping[Way, Callable[[], Sample]]) -> list[dict[Way, Sample]]:
    """Takes `count` rounds of one sample each: A B A B … Every other round goes backwards, so that nobody always
    comes first."""
    rounds: list[dict[Way, Sample]] = []
    for index in range(count):
        order = list(measures)[:: 1 if index % 2 == 0 else -1]
        rounds.append({name: measures[name]() for name in order})
    return rounds


def against_better(name: str, rounds: Sequence[Mapping[str, float]], peers: Sequence[str], *, lower: bool) -> Measured:
    """The row against whichever of `peers` does better by its median. The rounds hold ours under "sandgate"."""
    medians = {peer: statistics.median(taken[peer] for taken in rounds) for peer in peers}
    best = min(medians, key=lambda peer: medians[peer] if lower else -medians[peer])
    return Measured(name, [(taken["sandgate"], taken[best]) for taken in rounds], best)
