"""The page of limits names every setting that there is, with its default."""

from __future__ import annotations

import re

import pytest

from lab.sandgate import REPOSITORY
from lab.tool import tool

PAGE = REPOSITORY / "Sources" / "sandgate" / "sandgate.docc" / "Limits.md"


def test_page_names_every_limit() -> None:
    """A setting that is a number is a limit."""
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", PAGE.read_text(), re.MULTILINE)
    printed = tool("serve", "--print-config")
    assert printed.returncode == 0, printed
    settings = re.findall(r"^(\w+): (\d+)\b", printed.stdout, re.MULTILINE)
    assert len(settings) > 30 and sorted(rows) == sorted(settings)


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("maximumPin=5", "no such limit"),
        ("maximumPins", "expected maximumPins=NUMBER"),
        ("maximumPins=many", "expected maximumPins=NUMBER"),
        ("maximumPins=0", "expected a number of 1...1000000"),
    ],
)
def test_limit_that_is_none(limit: str, words: str) -> None:
    run = tool("run", "--limit", limit, "--", "true")
    assert run.returncode == 125 and words in run.stderr, run
