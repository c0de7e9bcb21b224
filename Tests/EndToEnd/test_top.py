"""`sandgate top`: once for scripts, and as a screen that is used by a person, seen through a terminal of the test's own."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from lab import plan
from lab.daemon import Daemon, Sandbox
from lab.internet import Internet
from lab.processes import wait_until
from lab.sandgate import allowing
from lab.terminal import Emulator, Terminal
from lab.tool import binary, tool

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def count_of(text: str) -> float:
    """The number of bytes that a cell of a table speaks of."""
    return float(text.rstrip("KMG")) * UNITS[text.lstrip("0123456789.")]


@contextlib.contextmanager
def terminal(daemon: Daemon | Path, *arguments: str, columns: int = 80, rows: int = 24) -> Iterator[Terminal]:
    socket = daemon if isinstance(daemon, Path) else daemon.socket
    made = Terminal([binary(), "top", "--socket", socket, *arguments], columns=columns, rows=rows)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def box(internet: Internet, daemon: Daemon) -> Iterator[Sandbox]:
    """A sandbox with a download that goes on, at some MiB a second."""
    made = daemon.create(allowing(plan.FILES), id="box")
    url = f"https://{plan.FILES}/big.bin"
    client = made.start("curl", "-sS", "--limit-rate", "4M", "-o", "/dev/null", url)
    wait_until(lambda: made.ask("GET", "/connections").json["bytesDown"] > 0, "the download")
    yield made
    client.kill()
    client.communicate()


def refuse(sandbox: Sandbox, name: str = plan.DENIED) -> None:
    assert not sandbox.reaches(name)


# MARK: - Once


@pytest.mark.parametrize("arguments", [(), ("--once",), ("box",)])
def test_table(daemon: Daemon, box: Sandbox, arguments: tuple[str, ...]) -> None:
    """What is not a terminal gets one table."""
    refuse(box)
    refuse(box)
    shown = tool("top", "--socket", daemon.socket, *arguments)
    assert shown.returncode == 0 and shown.stderr == "", shown
    live, refused = (part.splitlines() for part in shown.stdout.split("\n\n"))
    assert live[0].split() == ["SANDBOX", "DESTINATION", "ADDRESS", "BY", "DOWN", "UP", "AGE", "RULE"]
    (row,) = live[1:]
    cells = re.split(r"  +", row)
    assert cells[:2] == ["box", f"{plan.FILES}:443"] and cells[3] == "tls-sni" and int(cells[4]) > 0, row
    assert cells[7] == f"egress[0] allow {plan.FILES}"
    assert refused[0].split() == ["SANDBOX", "REFUSED", "LAST", "TIMES", "BECAUSE"]
    (row,) = refused[1:]
    # Twice, for curl asks for both families each time.
    assert re.match(rf"box +{plan.DENIED} +\d\d:\d\d:\d\d +4 +dns, default$", row), row
    assert all(character == "\n" or " " <= character <= "~" for character in shown.stdout)


def test_document(daemon: Daemon, box: Sandbox) -> None:
    refuse(box)
    for arguments in ((), ("box",)):
        shown = tool("top", "--socket", daemon.socket, "--json", *arguments)
        document = json.loads(shown.stdout)
        (connection,) = document["connections"]["items"]
        assert connection["host"] == plan.FILES and document["connections"]["total"] == 1
        assert {record["host"] for record in document["refusals"]["items"]} == {plan.DENIED}


def test_only_one_sandbox(daemon: Daemon, box: Sandbox) -> None:
    other = daemon.create(allowing(plan.ALLOWED), id="other")
    refuse(other)
    shown = tool("top", "--socket", daemon.socket, "other")
    assert plan.FILES not in shown.stdout and plan.DENIED in shown.stdout, shown
    shown = tool("top", "--socket", daemon.socket, "box")
    assert plan.FILES in shown.stdout and plan.DENIED not in shown.stdout, shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("absent",), "there is no sandbox absent"),
        (("a/b",), "a/b is no name of a sandbox"),
        (("--interval", "0.01"), "--interval 0.01: expected 0.1 to 3600 seconds"),
        (("--interval", "soon"), "--interval"),
    ],
)
def test_mistakes(daemon: Daemon, arguments: tuple[str, ...], words: str) -> None:
    done = tool("top", "--socket", daemon.socket, *arguments)
    assert done.returncode != 0 and words in done.stderr and done.stdout == "", done


@pytest.mark.parametrize("arguments", [("--once",), ()])
def test_no_daemon(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = tool("top", "--socket", tmp_path / "api.sock", *arguments)
    assert done.returncode == 1 and f"no daemon at {tmp_path}/api.sock" in done.stderr, done
    with terminal(tmp_path / "api.sock", *arguments) as shown:
        assert shown.wait() == 1
        assert "no daemon at" in shown.screen.text.replace("\n", "") and shown.is_restored


def test_terminal_that_cannot_be_written_to_at_any_place(daemon: Daemon, box: Sandbox) -> None:
    made = Terminal([binary(), "top", "--socket", daemon.socket], columns=200, environment={"TERM": "dumb"})
    try:
        assert made.wait() == 0
        assert f"{plan.FILES}:443" in made.screen.text and made.screen.surprises == []
    finally:
        made.close()


# MARK: - A screen

ROW = rf"^ *(\S+) +(\S+) +(\S+) +(\S+) +(\S+) box +{re.escape(plan.FILES)}:443"


def test_download_and_denial_are_seen(daemon: Daemon, box: Sandbox) -> None:
    """The download with its name and bytes that become more, a denial beneath it when it happens, and no trace after q."""
    with terminal(daemon, "--interval", "0.5") as shown:
        first = shown.wait_for(ROW)
        assert shown.screen.is_alternate and not shown.screen.has_cursor
        # Its speed is known once there are two looks.
        rate = shown.wait_for(ROW.replace(r"(\S+)", r"([\d.]+[KMG])", 1))
        assert 1 << 20 <= count_of(rate[1]) <= 64 << 20, rate
        assert count_of(rate[3]) > count_of(first[3]) > 0
        assert plan.DENIED not in shown.screen.text
        refuse(box)
        refused = shown.wait_for(rf"^\d\d:\d\d:\d\d +2 box +{plan.DENIED} +dns, default$")
        assert shown.screen.text.index(refused[0]) > shown.screen.text.index(f"{plan.FILES}:443")
        assert all(len(line) <= 80 for line in shown.screen.lines)
        shown.type("x")
        refuse(box, plan.OTHER)
        shown.wait_for(plan.OTHER)
        shown.type("q")
        assert shown.wait() == 0
        assert shown.is_restored and shown.screen.surprises == []
        assert shown.screen.text.strip() == ""


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (200, 50), (40, 8), (20, 3), (10, 1)])
def test_every_size(daemon: Daemon, box: Sandbox, columns: int, rows: int) -> None:
    for number in range(30):
        refuse(box, f"{number}.{'long' * 12}.{plan.DENIED}")
    with terminal(daemon, "--interval", "0.2", columns=70, rows=20) as shown:
        shown.wait_for("DESTINATION")
        shown.resize(columns, rows)
        shown.wait_for(r"^\d\d:\d\d:\d\dZ")
        if columns > 140:
            shown.wait_for(rf"tls-sni +egress\[0\] allow {plan.FILES}$")
        if rows >= 8:
            shown.wait_for(plan.FILES[-12:] if columns < 80 else plan.FILES)
            shown.wait_for(r"\.denied\.example" if columns >= 80 else r"^\d\d:\d\d:\d\d +")
        shown.type("q")
        assert shown.wait() == 0 and shown.is_restored and shown.screen.surprises == []


def test_who_began_last_is_not_hidden_by_much_that_is_still(daemon: Daemon, box: Sandbox) -> None:
    """What moves stands above what is still, however long that has lived."""
    still = box.start("openssl", "s_client", "-quiet", "-connect", f"{plan.FILES}:443")
    wait_until(lambda: box.ask("GET", "/connections").json["total"] == 2, "the other connection")
    with terminal(daemon, "--interval", "0.3") as shown:
        shown.wait_for(r"2 connections, \S+[MK]/s down")
        rows = re.findall(r"^ *(\S+) +\S+ +\S+ +\S+ +\S+ box ", shown.screen.text, re.MULTILINE)
        assert len(rows) == 2 and count_of(rows[0]) > count_of(rows[1]) == 0, shown.screen.text
    still.kill()
    still.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGSEGV])
def test_signals_leave_the_terminal_as_it_was(daemon: Daemon, box: Sandbox, number: signal.Signals) -> None:
    with terminal(daemon) as shown:
        shown.wait_for(plan.FILES)
        assert not shown.is_restored
        if number == signal.SIGINT:
            shown.type("\x03")
        else:
            shown.process.send_signal(number)
        # Whoever started it sees by which signal it ended.
        assert shown.wait() == -number
        assert shown.is_restored


def test_suspended_and_continued(daemon: Daemon, box: Sandbox) -> None:
    """The shell gets its terminal back with ^Z, and the screen is there again with fg."""
    shell = ["/bin/bash", "--norc", "--noprofile", "--noediting", "-i"]
    made = Terminal(shell, environment={"PS1": "ready> ", "HISTFILE": "", "TERM": "xterm"})
    try:
        made.wait_for("ready>")
        made.type(f"'{binary()}' top --socket '{daemon.socket}' --interval 0.3\n")
        made.wait_for(plan.FILES)
        made.type("\x1a")
        made.wait_for("Stopped")
        assert not made.screen.is_alternate and made.screen.has_cursor
        made.type("clear; stty -a | grep -o ' icanon'; echo done-$((40+2))\n")
        # Its prompt too: what is typed before it is shown in front of it.
        made.wait_for(r"^done-42\s+ready>")
        assert " icanon" in made.screen.text
        made.type("fg\n")
        made.wait_for(r"DESTINATION")
        assert made.screen.is_alternate
        made.type("q")
        # What is typed before the shell asks for it is thrown away.
        made.wait_for(r"ready> fg[\s\S]*ready> ")
        assert not made.screen.is_alternate
        made.type("exit $?\n")
        assert made.wait() == 0
    finally:
        made.close()


def test_end_of_the_daemon(daemon: Daemon, box: Sandbox) -> None:
    """It is said, beside what was there last, and the next one is waited for."""
    with terminal(daemon, "--interval", "3") as shown:
        shown.wait_for(plan.FILES)
        daemon.end(signal.SIGKILL)
        shown.wait_for(r"^\d\d:\d\d:\d\dZ  the daemon has ended; waiting for the next one  q: quit$")
        assert plan.FILES in shown.screen.text
        daemon.start()
        shown.wait_for(r"^\d\d:\d\d:\d\dZ  0 connections  q: quit  new daemon \d\d:\d\d:\d\dZ$")
        assert plan.FILES not in shown.screen.text
        refuse(box)
        shown.wait_for(rf"box +{plan.DENIED} +dns, default$")
        daemon.end(signal.SIGKILL)
        shown.wait_for("the daemon has ended")
        shown.type("q")
        assert shown.wait() == 0 and shown.is_restored and shown.screen.surprises == []


def test_hot_restart(daemon: Daemon, box: Sandbox) -> None:
    """The download goes on, and is seen to."""
    with terminal(daemon, "--interval", "0.5") as shown:
        shown.wait_for(ROW)
        daemon.hand_over()
        shown.wait_for(r"new daemon \d\d:\d\d:\d\dZ$")
        before = shown.wait_for(ROW.replace(r"(\S+)", r"([\d.]+[KMG])", 1))
        assert count_of(before[1]) > 1 << 20
        shown.type("q")
        assert shown.wait() == 0 and shown.is_restored


def test_end_of_the_terminal(daemon: Daemon, box: Sandbox) -> None:
    """Whose window is closed does not go on without one."""
    with terminal(daemon) as shown:
        shown.wait_for(plan.FILES)
        shown.hang_up()
        assert shown.process.wait(10) == -signal.SIGHUP


# MARK: - Hostile names

HOSTILE = "\x1b[2J\x1b[1;1H\x1b]0;owned\x07a\u202eb\n\rowned.example"
"""Clears the screen, names the window, writes where something else stood."""


def test_names_from_a_sandbox_cannot_write_to_the_terminal(daemon: Daemon, box: Sandbox) -> None:
    query = f"""
import socket, struct
label = b"\\x1b[2J\\x1b[1;1Howned"
question = struct.pack("!HHHHHH", 7, 256, 1, 0, 0, 0) + bytes([len(label)]) + label + b"\\7example\\0" + struct.pack("!HH", 1, 1)
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.sendto(question, ("{plan.DNS4}", 53))
client.settimeout(5)
client.recv(4096)
"""
    with terminal(daemon, "--interval", "0.3") as shown:
        shown.wait_for(plan.FILES)
        assert box.run("/usr/bin/python3", "-c", query).returncode == 0
        # In presentation form (RFC 1035), with small letters.
        shown.wait_for(re.escape(r"\027[2j\027[1;1howned.example"))
        assert plan.FILES in shown.screen.text
        shown.type("q")
        assert shown.wait() == 0 and shown.screen.surprises == []


class Liar(BaseHTTPRequestHandler):
    """A daemon whose answers hold what no daemon of ours lets through to them."""

    protocol_version = "HTTP/1.1"
    record = {"seq": 1, "ts": "2026-11-23T00:41:07.000000Z", "event": "connection.denied", "sandbox": HOSTILE,
              "layer": HOSTILE, "verdict": "deny", "reason": HOSTILE, "host": HOSTILE, "ip": HOSTILE, "port": 443,
              "protocol": HOSTILE, "prev": None}  # fmt: skip
    connection_body = {"sandbox": HOSTILE, "id": HOSTILE, "state": "open", "via": HOSTILE, "protocol": HOSTILE, "host": HOSTILE,
                       "layer": HOSTILE, "ip": HOSTILE, "port": 443, "since": HOSTILE, "bytesUp": 1, "bytesDown": 2,
                       "rule": {"index": 0, "action": HOSTILE, "target": HOSTILE, "source": HOSTILE}}  # fmt: skip

    def do_GET(self) -> None:
        if self.path.startswith("/v1/audit/stream"):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"b\r\n: listening\r\n")
            self.server.is_over.wait()  # type: ignore[attr-defined]
            return
        body: Any = {"items": [self.record]}
        if self.path.startswith("/v1/connections"):
            body = {"time": HOSTILE, "items": [self.connection_body], "total": 1, "omitted": 0, "bytesUp": 1, "bytesDown": 2}
        text = json.dumps(body, separators=(",", ":")).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def address_string(self) -> str:
        return "somebody"


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def __init__(self, path: Path) -> None:
        self.is_over = threading.Event()
        super().__init__(str(path), Liar)


@pytest.fixture
def liar(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "api.sock"
    with Server(path) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield path
        server.is_over.set()
        server.shutdown()
        thread.join()


def test_nothing_that_a_daemon_says_writes_to_the_terminal(liar: Path) -> None:
    """First that it would: as it is, the text clears a terminal, names its window and looks like a line of its own."""
    raw = Emulator(80, 24)
    raw.feed(f"what stood there\r\n{HOSTILE}".encode())
    assert "what stood there" not in raw.text and raw.surprises and "owned.example" in raw.lines
    escaped = r"\u{1b}[2J\u{1b}[1;1H\u{1b}]0;owned\u{7}a\u{202e}b\u{a}\u{d}owned.example"
    with terminal(liar, "--interval", "0.2", columns=250) as shown:
        shown.wait_for(re.escape(escaped[-30:]))
        shown.look(0.5)
        shown.type("q")
        assert shown.wait() == 0
        assert shown.is_restored and shown.screen.surprises == []
    printed = tool("top", "--socket", liar, "--once")
    assert printed.returncode == 0 and escaped in printed.stdout, printed
    assert all(character == "\n" or " " <= character <= "~" for character in printed.stdout)


def test_daemon_that_hangs(daemon: Daemon, box: Sandbox) -> None:
    """Nobody is held by it: who interrupts leaves at once, and who waits is told."""
    with terminal(daemon, "--interval", "0.2") as shown:
        shown.wait_for(plan.FILES)
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGSTOP)
        try:
            shown.look(0.5)
            shown.type("\x03")
            assert shown.wait(5) == -signal.SIGINT and shown.is_restored
            waiting = subprocess.run(
                [binary(), "top", "--socket", daemon.socket, "--once"], capture_output=True, text=True, timeout=30
            )
        finally:
            daemon.process.send_signal(signal.SIGCONT)
    assert waiting.returncode == 1 and "has been silent for 10 s" in waiting.stderr, waiting
