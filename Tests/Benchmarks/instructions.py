"""Counts the instructions of what each query and connection costs in user space, with callgrind, and holds them to those
on record: seconds on a shared machine say nothing from one day to the next, instructions do.

    instructions.py PROGRAM [--record] [NAME…]

PROGRAM is sandgate-benchmark. More than 5 % over the record fails; with --record, what is counted becomes the record.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

RECORD = Path(__file__).with_name("instructions.json")
COUNTS = {
    "dns-cached": 2_000,
    "dns-uncached": 2_000,
    "dns-denied": 2_000,
    "tls-connection": 2_000,
    "http-connection": 2_000,
    "decision": 20_000,
    "compilation": 10_000,
}
"""How often each thing is done more in the second run than in the first: what comes before is in both, and cancels out."""

ALLOWANCE = 0.05


def instructions(program: str, name: str, count: int) -> int:
    """The instructions of a whole run."""
    with tempfile.NamedTemporaryFile() as file:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={file.name}", program, name, str(count)]
        # Tables of names are laid out the same every time.
        environment = {**os.environ, "SWIFT_DETERMINISTIC_HASHING": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        found = re.search(r"^(?:summary|totals): (\d+)", Path(file.name).read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"callgrind counted nothing of {name}")
    return int(found[1])


def counted(program: str, name: str) -> int:
    """The instructions of doing it once."""
    count = COUNTS[name]
    return round((instructions(program, name, 2 * count) - instructions(program, name, count)) / count)


def main() -> int:
    """0 if nothing takes more than is on record, and a little."""
    parser = argparse.ArgumentParser(prog="deploy/test instructions", description=__doc__.splitlines()[0])
    parser.add_argument("program", metavar="PROGRAM")
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"of these only: {', '.join(COUNTS)}")
    parser.add_argument("--record", action="store_true", help="write down what is counted")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(COUNTS):
        parser.error(f"unknown name {min(unknown)}: expected {', '.join(COUNTS)}")
    with tempfile.TemporaryDirectory() as directory:
        # Valgrind of Debian 12 does not know the newer debugging information, and gives up.
        program = f"{directory}/program"
        subprocess.run(["strip", "--strip-debug", "-o", program, arguments.program], check=True)
        return 1 if compare(program, arguments.names or list(COUNTS), recording=arguments.record) else 0


def compare(program: str, names: list[str], *, recording: bool) -> bool:
    """Prints what is counted beside the record; whether something takes more."""
    record: dict[str, int] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    failed = False
    for name in names:
        found = counted(program, name)
        known = record.get(name)
        change = "new" if known is None else f"{(found / known - 1) * 100:+.1f} % of {known:,}"
        is_worse = known is None or found > known * (1 + ALLOWANCE)
        if recording:
            record[name] = found
        elif is_worse:
            failed = True
        elif known is not None and found < known * (1 - ALLOWANCE):
            change += "; less: deploy/test instructions --record writes that down"
        mark = "FAILED " if is_worse and not recording else ""
        print(f"{name:<16} {found:>9,} instructions  {mark}({change})", flush=True)
    if recording:
        RECORD.write_text(json.dumps(record, indent=2) + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
