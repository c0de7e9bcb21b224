"""How much the tests of failing calls and of pressure try, and the chance in what they do."""

from __future__ import annotations

import os

LONG = "SANDGATE_LONG" in os.environ
"""Whether everything is tried, however long it takes, rather than what fits into a run of all tests."""

SEED = int(os.environ.get("SANDGATE_SEED", "1"))
"""What chance depends on: another number, another selection."""


def rounds(short: int, long: int) -> int:
    """How often something is done."""
    return long if LONG else short
