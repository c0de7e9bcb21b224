"""The table in the terminal and the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from .goals import GOALS, Goal
from .result import Measured, NotMeasured, Outcome, Skipped


def number(value: float) -> str:
    """Three digits that mean something, or the whole number where it has more."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def heading(machine: Mapping[str, object]) -> str:
    """The lines above the table."""
    peers = machine["peers"]
    assert isinstance(peers, Mapping)
    versions = ", ".join(f"{name} {version}" for name, version in peers.items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, Linux {machine['kernel']}, "
        f"load before {machine['load']}\n{versions}\n"
    )


def columns(*cells: str) -> str:
    """One line of the table."""
    widths = (20, 8, 9, 8, 16, 2, 12, 12, 0)
    first, *middle, last = (f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
    return "  ".join((f"{first.strip():<{widths[0]}}", *middle, last.strip()))


HEAD = columns("row", "ratio", "goal", "", "spread", "n", "ours", "theirs", "against")


def line(goal: Goal, outcome: Outcome) -> str:
    """A row of the table."""
    if isinstance(outcome, NotMeasured):
        return f"{goal.name:<20}  not measured: {outcome.reason}"
    if isinstance(outcome, Skipped):
        return f"{goal.name:<20}  skipped: {outcome.reason}"
    low, high = min(outcome.ratios), max(outcome.ratios)
    sign = "≥" if goal.better == "higher" else "≤"
    verdict = "met" if goal.is_met(outcome.ratio) else "MISSED"
    theirs = f"{number(outcome.theirs)} {goal.unit}"
    return columns(
        goal.name,
        number(outcome.ratio),
        f"{sign} {number(goal.bound)}",
        verdict,
        f"{number(low)}–{number(high)}",
        str(len(outcome.pairs)),
        number(outcome.ours),
        theirs,
        outcome.peer or goal.against,
    )


def write(
    path: Path,
    machine: Mapping[str, object],
    outcomes: Mapping[str, Outcome],
    binary: Mapping[str, float],
    *,
    quick: bool,
) -> None:
    """The file, as contracts have it."""
    rows = [(goal, outcomes.get(goal.name)) for goal in GOALS]
    missing = [row for _, row in rows if isinstance(row, NotMeasured)]
    skipped = [row for _, row in rows if isinstance(row, Skipped)]
    document = {
        "machine": machine,
        "quick": quick,
        "ratios": [outcome.as_json(goal) for goal, outcome in rows if isinstance(outcome, Measured)],
        "notMeasured": [{"name": row.name, "reason": row.reason} for row in missing],
        "skipped": [{"name": row.name, "reason": row.reason} for row in skipped],
        "binary": binary,
    }
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
