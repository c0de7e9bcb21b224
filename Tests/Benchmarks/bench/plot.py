"""The table as a picture: how far from level with the peer each row is, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import escape

from .goals import GOALS, Goal
from .report import number
from .result import Measured, Outcome

LEFT, RIGHT, ROW, TOP, BOTTOM = 190, 250, 22, 58, 40
"""Pixels: room for names, room for numbers, a row's height, above and below the rows."""
MIDDLE = 460
"""Pixels for the ratios."""
LIMIT = 8.0
"""What is further from level than so many times stands at the edge."""
TICKS = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)
MET, MISSED, QUIET = "#2e7d32", "#c25e00", "#8a8f98"


def write(path: Path, heading: str, outcomes: Mapping[str, Outcome]) -> None:
    """Draws the rows that were measured beside a peer; what is compared with bounds and with itself is not."""
    rows = [
        (goal, outcome)
        for goal in GOALS
        if isinstance(outcome := outcomes.get(goal.name), Measured) and not goal.name.startswith(("node-", "connections-"))
    ]
    width, height = LEFT + MIDDLE + RIGHT, TOP + ROW * len(rows) + BOTTOM
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        ' font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        '<text x="12" y="20" font-weight="bold">Sandgate beside its peers</text>',
        *(
            f'<text x="12" y="{36 + 13 * place}" font-size="10" fill="{QUIET}">{escape(text)}</text>'
            for place, text in enumerate(heading.strip().splitlines())
        ),
    ]
    bottom = TOP + ROW * len(rows)
    for tick in TICKS:
        x = _x(tick)
        stroke = "#000000" if tick == 1 else "#dddddd"
        lines.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom}" stroke="{stroke}"/>')
        label = "level" if tick == 1 else f"{number(tick)} ×" if tick > 1 else f"1/{1 / tick:.0f}"
        lines.append(f'<text x="{x:.1f}" y="{bottom + 15}" text-anchor="middle" fill="{QUIET}">{label}</text>')
    lines.append(
        f'<text x="{LEFT + MIDDLE}" y="{bottom + 31}" text-anchor="end" font-size="10" fill="{QUIET}">'
        "right is better; line: spread of the rounds; tick: goal; green: met</text>"
    )
    for place, (goal, outcome) in enumerate(rows):
        lines += _row(goal, outcome, TOP + ROW * place + ROW / 2)
    path.write_text("\n".join([*lines, "</svg>"]) + "\n")


def _row(goal: Goal, outcome: Measured, y: float) -> list[str]:
    colour = MET if goal.is_met(outcome.ratio) else MISSED
    ends = sorted((_x(_gain(goal, min(outcome.ratios))), _x(_gain(goal, max(outcome.ratios)))))
    target, x = _x(_gain(goal, goal.bound)), _x(_gain(goal, outcome.ratio))
    theirs = f"{number(outcome.ours)} : {number(outcome.theirs)} {goal.unit}, {outcome.peer or goal.against}"
    return [
        f'<text x="{LEFT - 10}" y="{y + 4:.0f}" text-anchor="end">{escape(goal.name)}</text>',
        f'<line x1="{target:.1f}" y1="{y - 8:.0f}" x2="{target:.1f}" y2="{y + 8:.0f}" stroke="{QUIET}" stroke-width="2"/>',
        f'<line x1="{ends[0]:.1f}" y1="{y:.0f}" x2="{ends[1]:.1f}" y2="{y:.0f}" stroke="{colour}" stroke-width="2"/>',
        f'<circle cx="{x:.1f}" cy="{y:.0f}" r="4.5" fill="{colour}"/>',
        f'<text x="{LEFT + MIDDLE + 12}" y="{y + 4:.0f}" font-size="10">{escape(theirs)}</text>',
    ]


def _gain(goal: Goal, ratio: float) -> float:
    """How many times better than the peer's."""
    return ratio if goal.better == "higher" else 1 / ratio


def _x(gain: float) -> float:
    """Where a gain stands: on a logarithmic scale, as twice as good is as far from level as half as good."""
    bounded = min(max(gain, 1 / LIMIT), LIMIT)
    return LEFT + MIDDLE / 2 * (1 + math.log(bounded) / math.log(LIMIT))
