"""A file to which another program appends lines while the tests read it."""

from __future__ import annotations

from pathlib import Path

from .processes import wait_until


class GrowingFile:
    """The lines of a server's log, read once each."""

    def __init__(self, path: Path, what: str) -> None:
        self._path = path
        self._what = what
        self._read = 0
        path.touch()

    def lines_until(self, marker: str) -> str:
        """Waits for the line that has `marker` in it, and gives the whole lines that came since the last call.

        A reader can meet the beginning of a line that is just being written; its rest belongs to the next call.
        """
        wait_until(lambda: "\n" in self._path.read_text().partition(marker)[2], self._what)
        text = self._path.read_text()
        begin, self._read = self._read, text.rindex("\n") + 1
        return text[begin : self._read]
