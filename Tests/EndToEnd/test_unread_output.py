"""Nobody reads standard error: the sandbox's network goes on, and the run ends."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Iterator

import pytest

from lab import plan
from lab.internet import Internet
from lab.sandgate import Sandgate, allowing

FILLED = "filled by somebody else\n"


@contextlib.contextmanager
def full_pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe that has no room left."""
    reader, writer = os.pipe()
    # Opened anew, so that it does not block here and still does for whoever is given the other descriptor.
    filler = os.open(f"/proc/self/fd/{writer}", os.O_WRONLY | os.O_NONBLOCK)
    try:
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(filler, FILLED.encode())
        yield reader, writer
    finally:
        for descriptor in (reader, writer, filler):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def python(script: str) -> list[str]:
    return ["/usr/bin/python3", "-c", script]


def start(internet: Internet, sandgate: Sandgate, command: list[str], stderr: int) -> subprocess.Popen[str]:
    line, _ = sandgate.command(allowing(plan.ALLOWED), command)
    users = sandgate.user.environment() if sandgate.user else {}
    return subprocess.Popen(
        line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, text=True, env=internet.environment(users)
    )


@pytest.mark.attack("B3 T13", "has refusals reported that nobody reads, to stop the supervisor", stopped_by="limits")
def test_lookup_succeeds_while_nobody_reads(internet: Internet, sandgate: Sandgate) -> None:
    script = (
        "import socket, time\n"
        f"for number in range(40):\n"
        "    try: socket.getaddrinfo(f'n{number}." + plan.DENIED + "', 443)\n"
        "    except socket.gaierror: pass\n"
        "begin = time.monotonic()\n"
        f"socket.create_connection(('{plan.ALLOWED}', 443), 5)\n"
        "print(time.monotonic() - begin)\n"
    )
    with full_pipe() as (_, writer):
        process = start(internet, sandgate, python(script), writer)
        stdout, _ = process.communicate(timeout=30)
    assert process.returncode == 0 and float(stdout) < 2, stdout


def test_run_ends_though_nobody_reads(internet: Internet, sandgate: Sandgate) -> None:
    with full_pipe() as (_, writer):
        process = start(internet, sandgate, ["getent", "hosts", plan.DENIED], writer)
        begin = time.monotonic()
        assert process.wait(30) == 2
        assert time.monotonic() - begin < 10


MANY = 200
"""As many distinct refusals as are told while a run lasts."""


def test_what_finds_no_room_is_counted_and_the_table_is_printed(internet: Internet, sandgate: Sandgate) -> None:
    label = "x" * 60
    script = (
        "import socket\n"
        f"for number in range({MANY}):\n"
        f"    try: socket.getaddrinfo(f'n{{number}}.{label}.{label}.{label}.{plan.DENIED}', 443, socket.AF_INET)\n"
        "    except socket.gaierror: pass\n"
        "print('done', flush=True)\n"
    )
    with full_pipe() as (reader, writer):
        process = start(internet, sandgate, python(script), writer)
        os.close(writer)
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        said = ""
        while f"{MANY} names refused" not in said:
            more = os.read(reader, 65536)
            assert more, said[-2000:]
            said += more.decode()
        assert process.wait(30) == 0
    shown = [int(number) for number in re.findall(r"^sandgate: denied n(\d+)\.", said, re.MULTILINE)]
    (count,) = re.findall(r"^sandgate: (\d+) lines not shown", said, re.MULTILINE)
    assert shown == list(range(len(shown))), "in order, without gaps"
    assert len(shown) + int(count) == MANY and int(count) > 0
    assert said.index("lines not shown") < said.index(f"{MANY} names refused")


def test_lines_survive_a_standard_error_that_the_command_made_non_blocking(
    internet: Internet, sandgate: Sandgate
) -> None:
    """As node does: the open file is the command's, too."""
    script = (
        "import os, socket\n"
        "os.set_blocking(2, False)\n"
        "try:\n"
        "    while True: os.write(2, b'the command\\n')\n"
        "except BlockingIOError: pass\n"
        f"try: socket.getaddrinfo('{plan.DENIED}', 443)\n"
        "except socket.gaierror: pass\n"
        "print('done', flush=True)\n"
    )
    process = start(internet, sandgate, python(script), subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "done\n"
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert f"sandgate: denied {plan.DENIED}" in said and " refused" in said, said[-2000:]
