"""`sandgate audit` on files that this test writes itself: the format and the chain have a second implementation here."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lab.tool import binary, tool


class Log:
    """A chained audit file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._covered: bytes | None = None
        self._sequence = 0

    def add(self, event: str = "connection.denied", ago: float = 3600, **members: Any) -> bytes:
        """Appends a record; returns its line."""
        self._sequence += 1
        time = datetime.now(UTC) - timedelta(seconds=ago)
        record = {"seq": self._sequence, "ts": time.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "event": event} | members
        record["prev"] = None if self._covered is None else hashlib.sha256(self._covered).hexdigest()
        line = json.dumps(record, separators=(",", ":")).encode()
        self._write(line + b"\n")
        self._covered = line
        return line

    def tear(self, torn: bytes) -> None:
        """Appends a line that a crash cut off, as the next writer ends it."""
        self._write(torn + b"\n")
        self._covered = torn if self._covered is None else self._covered + b"\n" + torn

    def rotate(self) -> Path:
        """Names the file after its first record, as the daemon does, and goes on in a new one; returns the old one."""
        with self.path.open("rb") as file:
            first = json.loads(file.readline())["seq"]
        rotated = self.path.with_name(f"audit-{first:020}.jsonl")
        self.path.rename(rotated)
        self.path.touch()
        return rotated

    def _write(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(data)

    @property
    def head(self) -> str:
        assert self._covered is not None
        return hashlib.sha256(self._covered).hexdigest()


def denied(host: str, **more: Any) -> dict[str, Any]:
    """The members of a denial."""
    members = {"sandbox": "a", "layer": "tls-sni", "verdict": "deny", "reason": "default", "host": host}
    return members | {"ip": "203.0.113.5", "port": 443, "protocol": "tcp", "rule": None} | more


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """A log of four records of two sandboxes."""
    log = Log(tmp_path / "audit.jsonl")
    log.add(**denied("old.example"))
    log.add(ago=300, **denied("evil.example", sandbox="b"))
    log.add("connection.allowed", ago=200, **denied("good.example", verdict="allow", reason="rule"))
    log.add("connection.allowed", ago=100, **denied("maybe.example", verdict="allow", report=True))
    return log


def hosts(output: str) -> list[str]:
    return [json.loads(line)["host"] for line in output.splitlines()]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([], ["old.example", "evil.example", "good.example", "maybe.example"]),
        (["--verdict", "deny"], ["old.example", "evil.example"]),
        (["--verdict", "allow"], ["good.example", "maybe.example"]),
        (["--verdict", "report"], ["maybe.example"]),
        (["--sandbox", "b"], ["evil.example"]),
        (["--since", "10m"], ["evil.example", "good.example", "maybe.example"]),
        (["--since", "2026-01-01T00:00:00Z", "--host", "OLD.*"], ["old.example"]),
        (["--host", "*o*.example", "--verdict", "allow"], ["good.example"]),
        (["--host", "203.0.113.?", "--sandbox", "b"], ["evil.example"]),
        (["--host", "example"], []),
    ],
)
def test_filters(log: Log, filters: list[str], expected: list[str]) -> None:
    done = tool("audit", "--file", log.path, "--json", *filters)
    assert done.returncode == 0, done.stderr
    assert hosts(done.stdout) == expected
    assert done.stderr == ""


def test_json_prints_the_lines_as_they_are(log: Log) -> None:
    done = tool("audit", "--file", log.path, "--json")
    assert done.stdout.encode() == log.path.read_bytes()


def test_lines_for_people_are_short_and_printable(log: Log) -> None:
    log.add(**denied("\x1b[2Jx\u202e"))
    done = tool("audit", "--file", log.path, "--since", "6m", "--sandbox", "b")
    assert done.stdout.rstrip().endswith(" b denied  evil.example:443 [203.0.113.5] (tls-sni, default)")
    done = tool("audit", "--file", log.path)
    assert all(character == "\n" or " " <= character <= "~" for character in done.stdout)
    assert "\\u{1b}[2Jx\\u{202e}:443" in done.stdout
    assert "would deny maybe.example" in done.stdout


def test_reads_standard_input(log: Log) -> None:
    done = tool("audit", "--file", "-", "--json", "--sandbox", "b", stdin=log.path.read_text())
    assert hosts(done.stdout) == ["evil.example"]


def test_merges_the_files_of_a_directory_by_time(log: Log, tmp_path: Path) -> None:
    other = Log(tmp_path / "other.jsonl")
    other.add(ago=1000, **denied("between.example"))
    (tmp_path / "notes.txt").write_text("not a log\n")
    done = tool("audit", "--dir", tmp_path, "--json")
    assert hosts(done.stdout)[:3] == ["old.example", "between.example", "evil.example"]
    done = tool("audit", "--dir", tmp_path, "--verify")
    assert done.returncode == 0
    assert done.stdout.count("chain intact") == 2


def test_reads_the_files_of_a_daemon_as_one(log: Log, tmp_path: Path) -> None:
    first = log.rotate()
    log.add(ago=60, **denied("second.example"))
    log.add(ago=50, **denied("evil.example"))
    log.rotate()
    log.add(ago=10, **denied("third.example"))
    done = tool("audit", "--dir", tmp_path, "--json")
    assert hosts(done.stdout) == [
        "old.example", "evil.example", "good.example", "maybe.example", "second.example", "evil.example", "third.example",
    ]
    done = tool("audit", "--dir", tmp_path, "--json", "--since", "70s", "--verdict", "deny")
    assert hosts(done.stdout) == ["second.example", "evil.example", "third.example"]
    other = Log(tmp_path / "other.jsonl")
    other.add(ago=55, **denied("between.example"))
    done = tool("audit", "--dir", tmp_path, "--json", "--since", "70s")
    assert hosts(done.stdout) == ["second.example", "between.example", "evil.example", "third.example"]
    done = tool("audit", "--dir", tmp_path, "--verify")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"{log.path} and 2 older files: chain intact, 7 records, head {log.head}\n"
        f"{other.path}: chain intact, 1 records, head {other.head}\n"
    )
    behind = hashlib.sha256(first.read_bytes().splitlines()[-1]).hexdigest()
    first.unlink()
    done = tool("audit", "--dir", tmp_path, "--verify")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == (
        f"{log.path} and 1 older file: chain intact, 3 records from 5 on, the first behind {behind}, head {log.head}"
    )
    done = tool("audit", "--dir", tmp_path, "--verify", "--json")
    assert json.loads(done.stdout.splitlines()[0]) == {
        "file": str(log.path), "files": 2, "intact": True, "records": 3, "lost": 0, "tornLines": 0,
        "begins": {"seq": 5, "prev": behind}, "head": log.head,
    }


def test_verify_names_the_file_of_a_daemon_that_breaks_the_chain(log: Log, tmp_path: Path) -> None:
    first = log.rotate()
    log.add(**denied("second.example"))
    second = log.rotate()
    log.add(**denied("third.example"))
    intact = first.read_bytes()
    first.write_bytes(intact.replace(b"maybe.example", b"never.example"))
    done = tool("audit", "--dir", tmp_path, "--verify")
    assert done.returncode == 1
    assert done.stderr == f"sandgate: {second}: line 1: what stands before it was changed, removed or inserted\n"
    first.write_bytes(intact)
    second.unlink()
    done = tool("audit", "--dir", tmp_path, "--verify", "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert (report["file"], report["line"]) == (str(log.path), 1)
    assert report["problem"] == "line 1: record 6 stands where record 5 belongs"
    done = tool("audit", "--file", log.path, "--verify")
    assert done.returncode == 1
    assert f"{log.path}: if it is one of a daemon's files, verify them as one: --dir" in done.stderr


def test_follow_goes_on_when_a_daemon_rotates(log: Log, tmp_path: Path) -> None:
    command = [str(binary()), "audit", "--dir", str(tmp_path), "--follow", "--json", "--host", "*.new"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for turn in range(5):
                log.add(**denied(f"{turn}.new"))
                assert json.loads(process.stdout.readline())["host"] == f"{turn}.new"
                log.add(**denied(f"{turn}-last.new"))
                log.rotate()
                assert json.loads(process.stdout.readline())["host"] == f"{turn}-last.new"
        finally:
            process.terminate()


def test_passes_over_lines_that_are_no_records(log: Log) -> None:
    log.tear(b'{"seq":5,"ts":"20')
    log.add("audit.lost", count=1)
    log.add(**denied("after.example"))
    done = tool("audit", "--file", log.path, "--verdict", "deny", "--json")
    assert hosts(done.stdout) == ["old.example", "evil.example", "after.example"]
    assert done.stderr == f"sandgate: {log.path}:5: not an audit record\n"
    assert done.returncode == 0


def test_verify_accepts_what_is_intact(log: Log) -> None:
    done = tool("audit", "--file", log.path, "--verify")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{log.path}: chain intact, 4 records, head {log.head}\n"
    log.tear(b'{"seq":5')
    log.add("audit.lost", count=3)
    done = tool("audit", "--file", log.path, "--verify")
    assert done.stdout == (
        f"{log.path}: chain intact, 5 records, 3 lost, 1 lines cut off by a crash, head {log.head}\n"
    )
    done = tool("audit", "--file", log.path, "--verify", "--json")
    assert json.loads(done.stdout) == {
        "file": str(log.path), "intact": True, "records": 5, "lost": 3, "tornLines": 1, "head": log.head,
    }


def changed(lines: Iterable[bytes]) -> list[tuple[str, list[bytes], int]]:
    """Ways to tamper with four lines: what was done, the lines after it, the line that breaks the chain."""
    a, b, c, d = lines
    return [
        ("changed", [a.replace(b"old.", b"odd."), b, c, d], 2),
        ("changed later", [a, b, c.replace(b"good", b"evil"), d], 4),
        ("removed", [a, c, d], 2),
        ("first removed", [b, c, d], 1),
        ("reordered", [a, c, b, d], 2),
        ("repeated", [a, a, b, c, d], 2),
        ("inserted", [a, b"{}", b, c, d], 2),
        ("garbage at the end", [a, b, c, d, b"x"], 5),
    ]


@pytest.mark.parametrize("case", range(8))
def test_verify_names_the_line_that_breaks_the_chain(log: Log, case: int) -> None:
    what, lines, broken = changed(log.path.read_bytes().splitlines())[case]
    log.path.write_bytes(b"\n".join(lines) + b"\n")
    done = tool("audit", "--file", log.path, "--verify")
    assert done.returncode == 1, what
    assert done.stderr.startswith(f"sandgate: {log.path}: line {broken}: "), what
    done = tool("audit", "--file", log.path, "--verify", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["line"] == broken
    assert json.loads(done.stdout)["intact"] is False


def test_verify_says_when_the_last_line_is_not_complete(log: Log) -> None:
    log.path.write_bytes(log.path.read_bytes()[:-10])
    done = tool("audit", "--file", log.path, "--verify")
    assert done.returncode == 0
    assert "chain intact, 3 records" in done.stdout
    assert "the last line is not complete" in done.stderr


def test_follow_shows_new_records_rotation_and_new_files(log: Log, tmp_path: Path) -> None:
    command = [str(binary()), "audit", "--dir", str(tmp_path), "--follow", "--json", "--host", "*.new"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            log.add(**denied("other.example"))
            log.add(**denied("one.new"))
            assert json.loads(process.stdout.readline())["host"] == "one.new"
            second = Log(tmp_path / "second.jsonl")
            second.add(**denied("two.new"))
            assert json.loads(process.stdout.readline())["host"] == "two.new"
            log.path.rename(tmp_path / "audit.jsonl.1")
            Log(tmp_path / "audit.jsonl").add(**denied("three.new"))
            assert json.loads(process.stdout.readline())["host"] == "three.new"
        finally:
            process.terminate()


def test_ends_when_its_reader_does(log: Log) -> None:
    for _ in range(5_000):
        log.add(**denied("x.example"))
    with subprocess.Popen(
        [str(binary()), "audit", "--file", str(log.path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(10) < 0
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 64, "say what to read: --file FILE or --dir DIR"),
        (["--file", "a", "--dir", "b"], 64, "say what to read"),
        (["--file", "a", "--since", "soon"], 64, "--since soon: expected 90s, 10m, 2h, 7d or a time"),
        (["--file", "a", "--verdict", "maybe"], 64, "maybe"),
        (["--file", "a", "--verify", "--follow"], 64, "--verify checks whole files"),
        (["--file", "/nowhere/audit.jsonl"], 2, "cannot open audit file /nowhere/audit.jsonl: No such file or directory"),
        (["--file", "/nowhere/audit.jsonl", "--verify"], 2, "cannot open audit file"),
        (["--dir", "/nowhere"], 2, "cannot read directory /nowhere: No such file or directory"),
    ],
)
def test_says_what_is_wrong(arguments: list[str], status: int, message: str) -> None:
    done = tool("audit", *arguments)
    assert done.returncode == status
    assert message in done.stderr
    assert done.stdout == ""


def test_help_has_examples() -> None:
    done = tool("audit", "--help")
    assert done.returncode == 0
    assert "EXAMPLES:" in done.stdout and "--verify" in done.stdout
