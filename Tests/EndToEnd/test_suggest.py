"""`sandgate policy suggest`: from what a run or the daemon recorded to the smallest policy, held to be just that."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lab import content, plan
from lab.daemon import Daemon
from lab.internet import Internet
from lab.sandgate import Sandgate, allowing, shell
from lab.suggestions import lines_of, named_arguments, rule
from lab.tool import tool

PIP = (
    "/usr/bin/python3 -m pip -q --retries 0 --timeout 5 install --no-cache-dir --no-deps --target {directory}/packages "
    f"--upgrade --index-url https://{plan.PYPI}/simple {content.WHEEL_NAME}"
)
WORK = f"""\
set -e
curl -sS --fail https://{plan.ALLOWED}/
curl -sS --fail http://{plan.OTHER}/
rm -rf {{directory}}/clone
git clone -q https://{plan.GIT}/project.git {{directory}}/clone
{PIP}
/usr/bin/python3 -c "import socket; print(socket.create_connection(('{plan.DATABASE}', {plan.MYSQL_PORT}), 10).recv(9))"
"""
"""What a build does: pages, a repository, a package, a database that speaks first. Whatever fails ends it."""

EXPECTED = {plan.ALLOWED: 443, plan.OTHER: 80, plan.GIT: 443, plan.PYPI: 443, plan.DATABASE: plan.MYSQL_PORT}


def suggest(*arguments: str | Path, stdin: str = "") -> str:
    """What is suggested, which is always a policy that `policy check` accepts without a warning."""
    done = tool("policy", "suggest", *arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    checked = tool("policy", "check", "-", stdin=done.stdout)
    assert checked.returncode == 0 and checked.stderr == "", checked.stderr
    return done.stdout


def record(**fields: Any) -> str:
    """A line of an audit file."""
    default = {
        "seq": 1,
        "ts": "2026-11-26T12:00:00.000000Z",
        "sandbox": "sbx-1",
        "event": "connection.allowed",
        "layer": "tls-sni",
        "verdict": "allow",
        "report": True,
        "reason": "default",
        "host": "api.example.com",
        "ip": "203.0.113.5",
        "port": 443,
        "protocol": "tcp",
        "rule": None,
        "prev": None,
    }
    return json.dumps(default | fields)


# From a run


def test_policy_of_a_run_is_enough_and_not_more(internet: Internet, sandgate: Sandgate, tmp_path: Path) -> None:
    """Learned, enforced, and broken by the lack of any one line."""
    work = shell(WORK.format(directory=tmp_path))
    learned = sandgate.run(None, *work, options=["--learn"])
    assert learned.returncode == 0, learned
    policy = suggest(*named_arguments(learned.stderr))
    assert sorted(lines_of(policy)) == sorted(rule(name, port) for name, port in EXPECTED.items()), policy
    comment = re.compile(r"# (once|\d+ times) by sh in run-\d+, first 2")
    assert all(comment.search(before) for before in policy.split("\n    - ")[:-1]), policy
    assert "review:" not in policy, policy

    internet.forget()
    enforced = sandgate.run(policy, *work)
    assert enforced.returncode == 0, enforced
    assert internet.web.hosts() >= {plan.ALLOWED, plan.OTHER}
    assert not enforced.audit.where(event="connection.denied"), enforced
    for line in lines_of(policy):
        lacking = sandgate.run(policy.replace(line + "\n", ""), *work)
        assert lacking.returncode != 0, f"works without {line}: {lacking}"


PRESETS = sorted((Path(__file__).resolve().parents[2] / "policies").glob("*.yaml"))


@pytest.mark.parametrize("original", PRESETS, ids=[path.stem for path in PRESETS])
def test_suggestion_is_the_original(tmp_path: Path, original: Path) -> None:
    """What uses each rule of a policy that a person wrote leads back to that policy: nothing more, nothing less."""
    written = original.read_text()
    rules = re.findall(r"^ +- {action: allow, target: (\S+), ports: \[(\d+)\], protocol: tcp}", written, re.MULTILINE)
    assert len(rules) == written.count("action: "), "a rule that this test does not read"
    # Of a set-up phase, which no record tells of, the rules.
    plain, audit, suggested = (tmp_path / name for name in ("original.yaml", "audit.jsonl", "suggested.yaml"))
    lines = (f"- {{action: allow, target: {name}, ports: [{port}], protocol: tcp}}\n" for name, port in rules)
    plain.write_text("egress:\n" + "".join(lines))
    labels = {True: ("one", "two", "three"), False: ("",)}
    used = [(name.strip('"').replace("*", label), int(port)) for name, port in rules for label in labels["*" in name]]
    uses = (record(seq=number, host=name, port=port) + "\n" for number, (name, port) in enumerate(used, 1))
    audit.write_text("".join(uses))
    options = ["--collapse"] if any("*" in name for name, _ in rules) else []
    done = tool("policy", "suggest", "--audit", audit, *options, "-o", suggested)
    assert done.returncode == 0, done
    difference = tool("policy", "diff", plain, suggested)
    # Below a host where anybody has files no wildcard is made: of that one, the three names are left.
    narrowed = "- tcp 443 cdn-lfs*.huggingface.co\n" if original.stem == "hugging-face" else ""
    assert (difference.returncode, difference.stdout) == (0, narrowed), difference


def test_refusals_lead_to_a_policy(internet: Internet, sandgate: Sandgate, tmp_path: Path) -> None:
    """Under deny-all, without learning: what the run names at its end is all that has to be typed."""
    install = shell(PIP.format(directory=tmp_path))
    refused = sandgate.run(None, *install)
    assert refused.returncode != 0, refused
    policy = suggest(*named_arguments(refused.stderr))
    assert lines_of(policy) == [rule(plan.PYPI, 443)]
    assert "port assumed: only the name was asked for" in policy
    assert sandgate.run(policy, *install).returncode == 0


def test_run_writes_the_policy_itself(internet: Internet, sandgate: Sandgate, tmp_path: Path) -> None:
    target = tmp_path / "policy.yaml"
    script = f"curl -sS --fail https://{plan.ALLOWED}/; echo 'networkPolicy: {{defaultAction: allow}}' >{target}"
    options = ["--learn", "--suggest", str(target)]
    run = sandgate.run(allowing(plan.OTHER), *shell(script), options=options)
    assert "Read-only file system" in run.stderr, run
    policy = target.read_text()
    assert lines_of(policy)[1:] == [rule(plan.ALLOWED, 443)] and plan.OTHER in lines_of(policy)[0], policy
    assert f"{target}: 2 rules, 1 of them new" in run.stderr, run

    again = sandgate.run(None, "true", options=options)
    assert again.returncode == 125 and "is there already" in again.stderr
    assert target.read_text() == policy
    assert sandgate.run(policy, "curl", "-sS", "--fail", f"https://{plan.ALLOWED}/").returncode == 0


def test_the_command_that_a_run_names_can_be_copied(internet: Internet, sandgate: Sandgate, tmp_path: Path) -> None:
    """As a shell reads it, in the run's directory; whatever is there already stays."""
    directory = tmp_path / "a place"
    directory.mkdir()
    environment = internet.environment({"PATH": f"{sandgate.binary.parent}:{os.environ['PATH']}"})

    def typed(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=directory, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    commands = []
    for name in ("policy.yaml", "policy-2.yaml"):
        line, _ = sandgate.command(None, ["curl", "-sS", f"https://{plan.DENIED}/"])
        found = re.search(r"^  (sandgate policy suggest .*)$", typed(*line).stderr, re.MULTILINE)
        assert found
        commands.append(found[1])
        done = typed("/bin/sh", "-c", commands[-1])
        assert (done.returncode, done.stderr) == (0, f"sandgate: {name}: 1 rule\n"), done
        assert lines_of((directory / name).read_text()) == [rule(plan.DENIED)]
        # What others have no use for is not in it.
        assert str(tmp_path) not in (directory / name).read_text()
    (directory / "policy.yaml").write_text("mine")
    again = typed("/bin/sh", "-c", commands[0])
    assert again.returncode == 1
    assert again.stderr == "sandgate: policy.yaml is there already: name a new file, or say --force\n"
    assert (directory / "policy.yaml").read_text() == "mine"
    assert typed("/bin/sh", "-c", f"{commands[0]} --force").returncode == 0
    assert lines_of((directory / "policy.yaml").read_text()) == [rule(plan.DENIED)]
    assert sorted(path.name for path in directory.iterdir()) == ["policy-2.yaml", "policy.yaml"]


def test_a_run_says_what_was_refused_and_what_was_not(internet: Internet, sandgate: Sandgate, tmp_path: Path) -> None:
    """A name is counted once, whoever asks for both kinds of addresses; and what passed was not refused."""
    fetch = ["curl", "-sS", f"https://{plan.ALLOWED}/"]
    refused = sandgate.run(None, *fetch)
    assert len(refused.audit.denied("dns")) == 2, refused
    assert "sandgate: 1 name refused\n" in refused.stderr and "\nTo allow these, add" in refused.stderr
    dialled = sandgate.run(None, *shell("for n in 1 2 3; do bash -c '</dev/tcp/203.0.113.77/80'; done; true"))
    assert "sandgate: 3 connections refused\n" in dialled.stderr, dialled
    learned = sandgate.run(None, *fetch, options=["--learn"])
    assert learned.returncode == 0 and not learned.audit.where(verdict="deny"), learned
    assert "sandgate: 1 name and 1 connection would be refused if the policy were enforced\n" in learned.stderr, learned
    assert "\nTo allow these when the policy is enforced, add" in learned.stderr, learned
    written = sandgate.run(None, *fetch, options=["--learn", "--suggest", str(tmp_path / "policy.yaml")])
    assert "would be refused if the policy were enforced" in written.stderr, written
    # The file holds the rules; nothing was refused that a line would have to allow.
    assert "To allow" not in written.stderr and "policy.yaml: 1 rule" in written.stderr, written


def test_run_that_does_not_begin_leaves_no_policy(sandgate: Sandgate, tmp_path: Path) -> None:
    target = tmp_path / "policy.yaml"
    run = sandgate.run(None, str(tmp_path / "no-such-program"), options=["--suggest", str(target)])
    assert run.returncode != 0 and "is not written" in run.stderr, run
    assert not target.exists()


def test_what_a_program_says_injects_nothing(internet: Internet, sandgate: Sandgate) -> None:
    """Names with line breaks and YAML in them, in queries, in Host and in server names, from inside a run."""
    script = f"""\
import socket, struct
def label(text): return bytes([len(text)]) + text
for name in (b'a\\n    - {{action', b'# x', b'"}}, {{', b'*', b'\\r\\n', b'\\x1b[2J'):
    query = struct.pack('>6H', 7, 256, 1, 0, 0, 0) + label(name) + label(b'example') + b'\\0' + struct.pack('>2H', 1, 1)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.settimeout(10)
    udp.sendto(query, ('{plan.DNS4}', 53))
    udp.recv(512)
for host in (b'a"b', b'*', b'# x', b'x: y', b'- {{action: allow}}'):
    tcp = socket.create_connection(('{plan.ALLOWED}', 80), 10)
    tcp.sendall(b'GET / HTTP/1.1\\r\\nHost: ' + host + b'\\r\\n\\r\\n')
    tcp.recv(512)
"""
    run = sandgate.run(None, "/usr/bin/python3", "-c", script, options=["--learn"])
    assert run.returncode == 0, run
    policy = suggest(*named_arguments(run.stderr))
    assert set(lines_of(policy)) <= {rule(plan.ALLOWED, 80)}, policy


# From the daemon


def test_audit_directory_of_the_daemon(internet: Internet, daemon: Daemon) -> None:
    one = daemon.create(allowing(mode="report"), id="one")
    two = daemon.create(allowing(plan.OTHER), id="two")
    assert one.reaches(plan.ALLOWED) and two.reaches(plan.OTHER) and not two.reaches(plan.DENIED)
    daemon.end()
    assert lines_of(suggest("--audit", daemon.audit, "--sandbox", "one")) == [rule(plan.ALLOWED, 443)]
    of_all = suggest("--audit", daemon.audit)
    names = [plan.ALLOWED, plan.DENIED, plan.OTHER]
    assert lines_of(of_all) == [rule(name, 443) for name in names], of_all
    assert "in one, first" in of_all and "in two, first" in of_all
    assert lines_of(suggest("--audit", daemon.audit, "--since", "2100-01-01T00:00:00Z")) == []


# Files


HOSTILE = [
    'evil.example\n    - {action: allow, target: "*.evil.example"}',
    "\r\nnetworkPolicy: {defaultAction: allow}",
    "a\u2028b.example",
    "a\u0085b.example",
    "*",
    "*.com",
    "# comment",
    '"}, {action: allow, target: "evil.example',
    "&anchor",
    "*anchor",
    "!!binary",
    "\x1b[2J\x1b[1;1H",
    "\u202egro.elpmaxe",
    "b\u00fccher.example",
    "127.1",
    "a" * 5000,
]


def test_hostile_record(tmp_path: Path) -> None:
    audit = tmp_path / "audit\n    - {action: allow}.jsonl"
    lines = [record()]
    for text in HOSTILE:
        lines += [record(host=text), record(sandbox=text), record(host=None, ip=text)]
        lines += [record(host=text, reason="no-sni"), record(host=text, event="dns.denied", verdict="deny", port=None)]
        lines += [record(event="sandbox.attached", sandbox=f"s{len(lines)}", detail=f"command: {text}")]
        lines += [record(sandbox=f"s{len(lines) - 1}")]
        denial = {"index": 0, "action": "deny", "target": text, "source": text}
        lines += [record(host="denied.example", reason="rule", rule=denial)]
    lines += [record(count=2**64 - 1), record(event="connection.closed", bytesUp=2**64 - 1, bytesDown=2**64 - 1)]
    audit.write_text("\n".join(lines) + "\n")
    policy = suggest("--audit", audit)
    assert lines_of(policy) == [rule("api.example.com", 443)], policy
    path = tmp_path / "policy.yaml"
    path.write_text(policy)
    for host in ("evil.example", "x.evil.example", "denied.example", "example.com"):
        assert tool("policy", "explain", path, "--host", host).stdout.startswith("deny\n")


def test_line_that_is_no_record_is_named_and_one_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    audit.write_text(f"{record()}\nnot a record\n{record()}\n")
    done = tool("policy", "suggest", "--audit", audit)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"sandgate: {audit}:2: not an audit record\n"

    audit.write_text(f"{record()}\n{record(host='half.example')[:80]}")
    assert lines_of(suggest("--audit", audit)) == [rule("api.example.com", 443)]
    # What a crash cut off, and what the next run says behind it.
    lost = record(event="audit.lost", host=None, count=1)
    audit.write_text(f"{record()}\n{record()[:80]}\n{lost}\n{record(host='next.example')}\n")
    assert lines_of(suggest("--audit", audit)) == [rule("api.example.com", 443), rule("next.example", 443)]

    missing = tool("policy", "suggest", "--audit", tmp_path / "nothing.jsonl")
    assert missing.returncode == 1 and "nothing.jsonl" in missing.stderr


def test_several_files_standard_input_and_json(tmp_path: Path) -> None:
    one = tmp_path / "one.jsonl"
    one.write_text(record() + "\n")
    other = record(host="bucket.s3.amazonaws.com", sandbox="sbx-2") + "\n"
    text = suggest("--audit", one, "-", stdin=other)
    assert lines_of(text) == [rule("bucket.s3.amazonaws.com", 443), rule("api.example.com", 443)]
    assert "# review: an object store" in text
    made = json.loads(tool("policy", "suggest", "--audit", one, "--audit", "-", "--json", stdin=other).stdout)
    targets = [rule["target"] for rule in made["networkPolicy"]["egress"]]
    assert targets == ["bucket.s3.amazonaws.com", "api.example.com"]
    assert made["added"][0]["review"] and not made["added"][1]["review"]
    assert made["connections"] == 2


def test_policy_is_completed_in_place(tmp_path: Path) -> None:
    audit, policy = tmp_path / "audit.jsonl", tmp_path / "policy.yaml"
    names = ("a.example", "b.example", "c.example", "bad.example")
    audit.write_text("".join(record(host=name) + "\n" for name in names))
    rules = "[{action: deny, target: bad.example}, {action: allow, target: a.example, ports: [443]}]"
    policy.write_text(f"egress: {rules}\n")
    other = tmp_path / "other.yaml"
    other.write_text("mine")
    refused = tool("policy", "suggest", "--audit", audit, "--policy", policy, "-o", other)
    assert (refused.returncode, other.read_text()) == (1, "mine"), refused
    done = tool("policy", "suggest", "--audit", audit, "--policy", policy, "-o", policy)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "# kept from policy.yaml\n" in policy.read_text() and str(tmp_path) not in policy.read_text()
    assert done.stderr == f"sandgate: {policy}: 4 rules, 2 of them new; 1 asked for and not allowed, see its end\n"
    assert [line.split('"')[1] for line in lines_of(policy.read_text())] == [
        "bad.example",
        "a.example",
        "b.example",
        "c.example",
    ]
    assert "bad.example on port 443 (once): denied by egress[0] deny bad.example" in policy.read_text()
    first = policy.read_text()
    tool("policy", "suggest", "--audit", audit, "--policy", policy, "-o", policy)
    assert lines_of(policy.read_text()) == lines_of(first)
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".new")] == []


@pytest.mark.parametrize("options", [("--policy", "{link}", "-o", "{link}"), ("-o", "{link}", "--force")])
def test_file_that_is_written_anew_keeps_what_it_is(tmp_path: Path, options: tuple[str, ...]) -> None:
    """A link stays one, and nobody else may read or write it than before."""
    audit, policy, link = tmp_path / "audit.jsonl", tmp_path / "policy.yaml", tmp_path / "link.yaml"
    audit.write_text(record(host="a.example") + "\n")
    policy.write_text("egress: []\n")
    policy.chmod(0o640)
    link.symlink_to("policy.yaml")
    done = tool("policy", "suggest", "--audit", audit, *(option.format(link=link) for option in options))
    assert done.returncode == 0, done.stderr
    assert link.is_symlink() and policy.stat().st_mode & 0o777 == 0o640
    assert "a.example" in policy.read_text()


def test_device_is_not_replaced(tmp_path: Path) -> None:
    audit, pipe = tmp_path / "audit.jsonl", tmp_path / "pipe"
    audit.write_text(record(host="a.example") + "\n")
    os.mkfifo(pipe)
    done = tool("policy", "suggest", "--audit", audit, "-o", pipe, "--force")
    assert done.returncode == 1 and "not a file" in done.stderr, done
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "--audit"),
        ("--audit x --since yesterday", "--since yesterday: expected"),
        ("--audit x --threshold -1", "threshold"),
        ("--audit x --force", "name it with --output"),
    ],
)
def test_says_what_is_wrong_with_its_options(arguments: str, message: str) -> None:
    done = tool("policy", "suggest", *arguments.split())
    assert done.returncode == 64 and message in done.stderr, done
