"""The record of what happened: its form, its hash chain, the command that reads it, and the table for people."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from lab import plan
from lab.internet import Internet
from lab.sandgate import Finished, Sandgate, allowing, shell

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")

MIXED = shell(
    f"curl -sS https://{plan.ALLOWED}/; curl -sS https://{plan.DENIED}/; "
    f"curl -sS --max-time 5 --insecure https://{plan.DENIED4}/; "
    f"curl -sS --max-time 5 --connect-to ::{plan.SHARED4}: https://{plan.OTHER}/; "
    f"curl -sS --max-time 5 --connect-to ::{plan.SHARED4}: http://{plan.OTHER}/; true"
)
"""One thing allowed, and one denied at each of dns, ip, tls-sni and http-host."""


@pytest.fixture
def mixed(internet: Internet, sandgate: Sandgate) -> Finished:
    """A run with something of everything."""
    run = sandgate.run(allowing(plan.ALLOWED), *MIXED)
    assert run.returncode == 0 and f"served {plan.ALLOWED}" in run.stdout, run
    return run


def _file(sandgate: Sandgate) -> Path:
    return next(sandgate.directory.glob("audit-*.jsonl"))


def test_every_layer_is_recorded(mixed: Finished) -> None:
    assert mixed.audit.denied("dns", host=plan.DENIED), mixed
    assert mixed.audit.denied("ip", ip=plan.DENIED4, port=443, protocol="tcp"), mixed
    assert mixed.audit.denied("tls-sni", host=plan.OTHER, ip=plan.SHARED4, port=443), mixed
    assert mixed.audit.denied("http-host", host=plan.OTHER, ip=plan.SHARED4, port=80), mixed
    assert mixed.audit.allowed("dns", host=plan.ALLOWED), mixed
    closed = mixed.audit.where(event="connection.closed", host=plan.ALLOWED)
    assert closed and closed[0]["bytesUp"] > 0 and closed[0]["bytesDown"] > 0 and closed[0]["durationMs"] >= 0, mixed


def test_records_have_the_promised_form(mixed: Finished) -> None:
    assert [record["seq"] for record in mixed.audit.all] == list(
        range(mixed.audit.all[0]["seq"], mixed.audit.all[0]["seq"] + len(mixed.audit.all))
    )
    assert mixed.audit.all[0]["event"] == "sandbox.attached", mixed
    assert mixed.audit.all[-1]["event"] == "sandbox.detached", mixed
    for record in mixed.audit.all:
        assert TIMESTAMP.fullmatch(record["ts"]), record
        assert record["sandbox"] and record["event"], record
    for record in mixed.audit.where(verdict="deny"):
        assert {"layer", "verdict", "reason", "rule"} <= record.keys(), record
        of_layer = {"host"} if record["layer"] == "dns" else {"ip", "port", "protocol"}
        assert of_layer <= record.keys(), record
    allowed = mixed.audit.allowed("tls-sni", host=plan.ALLOWED)[0]
    assert allowed["reason"] == "rule" and allowed["rule"] == {"index": 0, "action": "allow", "target": plan.ALLOWED}


def test_records_are_chained(mixed: Finished, sandgate: Sandgate) -> None:
    previous = None
    for line in _file(sandgate).read_bytes().splitlines():
        assert json.loads(line)["prev"] == previous
        previous = hashlib.sha256(line).hexdigest()


def test_verify_notices_a_changed_line(mixed: Finished, sandgate: Sandgate) -> None:
    path = _file(sandgate)
    done = sandgate.tool("audit", "--file", str(path), "--verify")
    assert done.returncode == 0, done

    text = path.read_text()
    path.write_text(text.replace(plan.DENIED, "benign.example", 1))
    done = sandgate.tool("audit", "--file", str(path), "--verify")
    assert done.returncode == 1, done

    lines = text.splitlines(keepends=True)
    path.write_text("".join(lines[:1] + lines[2:]))
    done = sandgate.tool("audit", "--file", str(path), "--verify")
    assert done.returncode == 1, done


def test_audit_command_selects(mixed: Finished, sandgate: Sandgate) -> None:
    path = str(_file(sandgate))

    def selected(*options: str) -> list[dict[str, object]]:
        done = sandgate.tool("audit", "--file", path, "--json", *options)
        assert done.returncode == 0, done
        return [json.loads(line) for line in done.stdout.splitlines()]

    assert selected() == mixed.audit.all
    assert selected("--verdict", "deny") == mixed.audit.where(verdict="deny")
    hosts = {record["host"] for record in selected("--host", "denied.*")}
    assert hosts == {plan.DENIED}
    assert selected("--since", "10m") == mixed.audit.all
    people = sandgate.tool("audit", "--file", path, "--verdict", "deny")
    assert people.returncode == 0 and plan.DENIED in people.stdout, people


def test_table_lists_what_was_denied(mixed: Finished) -> None:
    for subject in (plan.DENIED, plan.OTHER, plan.DENIED4):
        assert subject in mixed.stderr, mixed
    assert re.search(rf'target: "?{re.escape(plan.DENIED)}"?', mixed.stderr), "the line that would allow it"
    assert f"target: {plan.ALLOWED}" not in mixed.stderr


def test_quiet_run_says_nothing(internet: Internet, sandgate: Sandgate) -> None:
    run = sandgate.run(allowing(plan.ALLOWED), "getent", "hosts", plan.DENIED, options=["--quiet"])
    assert run.stderr == "", run
    assert run.audit.denied("dns", host=plan.DENIED), run


def test_existing_file_is_continued(internet: Internet, sandgate: Sandgate, tmp_path: Path) -> None:
    path = tmp_path / "continued.jsonl"
    for _ in range(2):
        command = [str(sandgate.binary), "run", "--allow", plan.ALLOWED, "--upstream-dns", plan.DNS4]
        done = sandgate.tool(*command[1:], "--audit", str(path), "--", "getent", "hosts", plan.ALLOWED)
        assert done.returncode == 0, done
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["event"] for record in records].count("sandbox.attached") == 2
    assert sandgate.tool("audit", "--file", str(path), "--verify").returncode == 0


@pytest.mark.attack("T13", "asks for names with control characters, to forge records", stopped_by="dns")
def test_strange_names_are_recorded_harmlessly(internet: Internet, sandgate: Sandgate) -> None:
    """What the sandbox chose is written so that no terminal and no line-reader is fooled by it."""
    script = (
        "import socket\n"
        "sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); sock.settimeout(3)\n"
        "label = b'\\x1b[31m\\n{\"fake\":1}'\n"
        "head = bytes.fromhex('000101000001000000000000')\n"
        "query = head + bytes([len(label)]) + label + b'\\x07example\\0\\0\\1\\0\\1'\n"
        f"sock.sendto(query, ('{plan.DNS4}', 53))\n"
        "try: sock.recv(512)\n"
        "except OSError: pass\n"
    )
    run = sandgate.run(allowing(plan.ALLOWED), "/usr/bin/python3", "-c", script)
    text = next(sandgate.directory.glob("audit-*.jsonl")).read_bytes()
    assert b"\x1b" not in text and b"\x1b" not in run.stderr.encode(), run
    assert r" \027[31m" in run.stderr, run
    assert run.audit.denied("dns", reason="malformed-name"), run
    assert internet.dns.queries() == []
