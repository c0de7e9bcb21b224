"""An ordinary user of the machine, who need not be in its password file."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

ID = 61_234
"""Not used by anybody, we trust, on a machine that runs tests."""

_SETPRIV = shutil.which("setpriv") or "/usr/bin/setpriv"


class User:
    """Who runs a program without root. Made by :func:`ordinary_user`."""

    def __init__(self, directory: Path) -> None:
        self.id = ID
        self._directory = directory
        self.home = directory / "home"
        self.home.mkdir()
        self.give(directory)
        self.give(self.home)

    def command(self, *command: str) -> list[str]:
        """The command that runs `command` as this user, in the same process."""
        return [_SETPRIV, "--reuid", str(ID), "--regid", str(ID), "--clear-groups", *command]

    def binary(self, original: Path) -> Path:
        """A copy of a program that this user may execute, wherever the original lies."""
        copy = self._directory / original.name
        if not copy.exists():
            shutil.copy(original, copy)
            copy.chmod(0o755)
        return copy

    def give(self, path: Path) -> Path:
        """Makes a file or directory this user's, and the way to it passable."""
        os.chown(path, ID, ID)
        self.open_way(path)
        return path

    def directory(self, name: str) -> Path:
        """A new directory of this user's; it goes with the user."""
        return self.give(Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._directory)))

    def open_way(self, path: Path) -> None:
        """Makes the way to a file passable."""
        for parent in path.parents:
            mode = parent.stat().st_mode
            if not mode & 0o001:
                parent.chmod(mode | 0o011)

    def environment(self) -> dict[str, str]:
        """What is different in this user's environment."""
        return {"HOME": str(self.home), "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}


@contextlib.contextmanager
def ordinary_user() -> Iterator[User]:
    """The user, with a home directory that goes at the end."""
    with tempfile.TemporaryDirectory(prefix="sandgate-user-") as directory:
        yield User(Path(directory))
