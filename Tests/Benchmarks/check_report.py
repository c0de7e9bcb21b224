"""Checks that a file deploy/benchmark wrote has the rows it should have, in the form that contracts promise: what the
ratios are is no test's business.

check_report.py FILE NAME…
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from bench.goals import NAMES

FIELDS: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "ratio": (int, float),
    "goal": (int, float),
    "better": str,
    "met": bool,
    "spread": list,
    "samples": int,
}


def check(report: dict[str, Any], names: list[str]) -> None:
    """Raises at the first thing that is not as it should be."""
    assert report["machine"]["cores"] > 0 and report["machine"]["kernel"], report["machine"]
    rows = {row["name"]: row for row in report["ratios"]}
    assert sorted(rows) == sorted(names), f"rows {sorted(rows)}, not measured: {report['notMeasured']}"
    for name, row in rows.items():
        assert name in NAMES
        for field, kind in FIELDS.items():
            assert isinstance(row[field], kind), f"{name}: {field} is {row[field]!r}"
        low, high = row["spread"]
        assert 0 < low <= row["ratio"] <= high, f"{name}: ratio {row['ratio']} outside of its spread {row['spread']}"
        assert row["samples"] > 0 and row["better"] in ("higher", "lower"), row
        assert row["met"] == (row["ratio"] >= row["goal"] if row["better"] == "higher" else row["ratio"] <= row["goal"])


if __name__ == "__main__":
    check(json.loads(Path(sys.argv[1]).read_text()), sys.argv[2:])
    print(f"{len(sys.argv) - 2} rows as they should be")
