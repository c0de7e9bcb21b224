"""A TLS server with many names, which notes those that its clients' hellos say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .internet import Internet
from .processes import Child


class HelloServer:
    """`command` in the lab's Internet, which is told its certificate, the key and the file of names behind its own words."""

    def __init__(self, internet: Internet, directory: Path, command: Sequence[str | Path]) -> None:
        self._log = directory / "names"
        files = (internet.certificates.certificate, internet.certificates.key, self._log)
        self._child = Child(internet.namespace.command(*command, *files), "serving")

    def stop(self) -> None:
        self._child.stop()

    def names(self) -> list[str]:
        """The names in the hellos so far; forgotten then."""
        found = self._log.read_text().split("\n")[:-1]
        self._log.write_text("")
        return found
