"""A file system of known size: what `sandgate run` takes to begin depends on how many directories it has to look through
for sockets, and a machine on which things are built has thousands of them lying about."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

PLACES = ("/tmp", "/var/tmp", "/home", "/mnt", "/opt", "/root", "/srv")
"""Where it always looks, but /var, which is the system's own."""

PROGRAM = "/opt/sandgate"
"""Where the program is found there."""


class QuietFiles:
    """A process that starts commands where these places are empty, but for so many directories below /tmp."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def milliseconds(self, *commands: Sequence[str]) -> float:
        """What the commands take, one after the other, from exec to exit."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(commands) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{commands!r} failed where the file system is quiet")
        return float(line)


@contextlib.contextmanager
def quiet_files(program: Path, directories: int) -> Iterator[QuietFiles]:
    """With a copy of `program`, and so many directories below /tmp, for as long as a `with` lasts."""
    own = [sys.executable, __file__, str(program), str(directories)]
    command = ["unshare", "--mount", "--propagation", "private", *own]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield QuietFiles(process)
        assert process.stdin is not None
        process.stdin.close()


def _serve(program: Path, directories: int) -> None:
    """Of the process itself: in its own mount namespace, which goes with it."""
    with program.open("rb") as original:
        for place in PLACES:
            subprocess.run(["mount", "-t", "tmpfs", "quiet", place], check=True)
        with open(PROGRAM, "wb") as copy:
            shutil.copyfileobj(original, copy, 1 << 20)
    os.chmod(PROGRAM, 0o755)
    # A tree that is neither flat nor deep.
    for number in range(directories):
        Path(f"/tmp/{number % 50}/{number}").mkdir(parents=True)
    here = Path("/root/here")
    here.mkdir()
    for line in sys.stdin:
        start = time.perf_counter()
        for command in json.loads(line):
            quiet = subprocess.DEVNULL
            subprocess.run(command, check=True, stdin=quiet, stdout=quiet, cwd=here)
        print((time.perf_counter() - start) * 1e3, flush=True)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), int(sys.argv[2]))
