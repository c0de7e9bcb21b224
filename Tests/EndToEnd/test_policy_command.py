"""`sandgate policy check` and `policy explain`, as a person or script would use them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lab.tool import tool

POLICY = """\
defaultAction: deny
egress:
  - {action: deny, target: private.github.com}
  - {action: allow, target: "*.github.com", ports: [443, "8000-8100"], protocol: tcp}
  - {action: allow, target: 198.51.100.0/24, protocol: any, ports: [53]}
  - {action: allow, target: 10.1.0.0/16}
  - {action: allow, target: old.example, expiresAt: 2020-01-01T00:00:00Z}
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A valid policy file."""
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


@pytest.mark.parametrize(
    ("destination", "verdict", "rule", "reason"),
    [
        ("--host api.github.com", "allow", "egress[1] allow *.github.com", "rule"),
        ("--host API.GitHub.com.", "allow", "egress[1] allow *.github.com", "rule"),
        ("--host api.github.com --port 8080", "allow", "egress[1] allow *.github.com", "rule"),
        ("--host api.github.com --port 80", "deny", "none", "default"),
        ("--host api.github.com --protocol udp", "deny", "none", "default"),
        ("--host github.com", "deny", "none", "default"),
        ("--host private.github.com", "deny", "egress[0] deny private.github.com", "rule"),
        ("--host evil.example", "deny", "none", "default"),
        ("--host evil.example --ip 198.51.100.7 --port 53", "allow", "egress[2] allow 198.51.100.0/24", "rule"),
        ("--ip 198.51.100.7 --port 53 --protocol udp", "allow", "egress[2] allow 198.51.100.0/24", "rule"),
        ("--host 198.51.100.7 --port 53", "allow", "egress[2] allow 198.51.100.0/24", "rule"),
        ("--ip 198.51.100.7", "deny", "none", "default"),
        ("--ip 10.1.2.3", "allow", "egress[3] allow 10.1.0.0/16", "rule"),
        ("--ip 10.2.2.3", "deny", "none", "guard-range"),
        ("--host api.github.com --ip 169.254.169.254", "deny", "none", "guard-range"),
        ("--ip ::ffff:169.254.169.254", "deny", "none", "guard-range"),
        ("--host evil..github.com", "deny", "none", "malformed-name"),
        ("--host 0x7f.1", "deny", "none", "malformed-name"),
        ("--host bücher.github.com", "deny", "none", "malformed-name"),
    ],
)
def test_explain(policy: Path, destination: str, verdict: str, rule: str, reason: str) -> None:
    done = tool("policy", "explain", policy, *destination.split())
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == verdict
    assert lines[1] == f"rule: {rule}"
    assert lines[2].startswith(f"reason: {reason} (")
    assert done.stdout.isascii()
    as_json = json.loads(tool("policy", "explain", policy, *destination.split(), "--json").stdout)
    assert (as_json["verdict"], as_json["reason"]) == (verdict, reason)
    if rule == "none":
        assert "rule" not in as_json
    else:
        assert "egress[{index}] {action} {target}".format(**as_json["rule"]) == rule


@pytest.mark.parametrize("command", ["check", "lint", "fmt", "explain"])
def test_problems_are_lines_for_a_terminal(tmp_path: Path, command: str) -> None:
    """A document from elsewhere may hold anything: it clears no screen, and makes up no problem of its own."""
    document = {"egress": [{"action": "\x1b[2J\x1b]0;title\x07", "target": "a.example"}], "a\npolicy.json:1:1: b\x9b\u202e": 1}
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(document))
    done = tool("policy", command, path, *(["--host", "a.example"] if command == "explain" else []))
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert said.replace("\n", "").isprintable(), said
    assert not [line for line in said.splitlines() if line.startswith("policy.json:")], said
    assert "\\u{1B}[2J" in said, said


def test_explain_names_the_rule_that_has_expired(policy: Path) -> None:
    done = tool("policy", "explain", policy, "--host", "old.example")
    lines = done.stdout.splitlines()
    assert lines[0] == "deny"
    assert lines[2].startswith("reason: expired-rule")
    assert "note: renew its expiresAt" in done.stdout


def test_explain_says_what_becomes_of_the_query(policy: Path) -> None:
    def dns(host: str) -> str:
        explained = json.loads(tool("policy", "explain", policy, "--host", host, "--json").stdout)
        return str(explained["dns"])

    assert dns("api.github.com") == "allow"
    assert dns("github.com") == "noData"
    assert dns("evil.example") == "deny"


def test_explain_says_what_it_did_not_judge(policy: Path) -> None:
    assert "give --ip" in tool("policy", "explain", policy, "--host", "evil.example").stdout
    assert "give --ip" not in tool("policy", "explain", policy, "--host", "evil.example", "--ip", "192.0.2.1").stdout


def test_explain_in_report_mode_says_what_would_be(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text('{"mode": "report"}')
    done = tool("policy", "explain", path, "--host", "evil.example")
    assert done.stdout.splitlines()[0] == "allow"
    assert "enforced, it would be denied" in done.stdout
    assert json.loads(tool("policy", "explain", path, "--host", "evil.example", "--json").stdout)["report"] is True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "--host NAME or --ip ADDRESS"),
        ("--ip 1.2.3", "--ip 1.2.3: expected"),
        ("--host x.example --port 0", "--port 0"),
        ("--host x.example --port 70000", "70000"),
        ("--host x.example --protocol icmp", "icmp"),
        ("--host 192.0.2.1 --ip 192.0.2.2", "another one than --ip"),
    ],
)
def test_explain_says_what_is_wrong_with_its_options(policy: Path, arguments: str, message: str) -> None:
    done = tool("policy", "explain", policy, *arguments.split())
    assert done.returncode == 64
    assert message in done.stderr
    assert done.stdout == ""


def test_explain_refuses_an_invalid_policy(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("egress: [{action: permit, target: a.example}]\n")
    done = tool("policy", "explain", path, "--host", "a.example")
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"{path}:1:" in done.stderr


def test_check_accepts_what_is_valid(policy: Path) -> None:
    done = tool("policy", "check", policy)
    assert (done.returncode, done.stdout) == (0, f"{policy}: valid: 5 rules, default deny\n")
    assert tool("policy", "check", "--quiet", policy).stdout == ""


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"networkPolicy": {"egress": [{"action": "allow", "target": "a.example"}]}}',
        "networkPolicy:\n  default_action: allow\n  mode: report\n",
        '{"image": {"uri": "x"}, "timeout": 60, "networkPolicy": {"defaultAction": "deny"}}',
    ],
)
def test_check_reads_every_shape(text: str) -> None:
    done = tool("policy", "check", "-", stdin=text)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("<stdin>: valid: ")


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("egress:\n  - action: allow\n    tarlet: a.example\n", 3, 5, "tarlet"),
        ("egress:\n  - action: permit\n    target: a.example\n", 2, 13, "permit"),
        ("egress:\n  - action: allow\n    target: 10.0.0.1/8\n", 3, 13, "10.0.0.0/8"),
        ("egress:\n  - action: allow\n    target: '*'\n", 3, 13, "defaultAction"),
        ("egress:\n  - action: allow\n    target: bücher.example\n", 3, 13, "xn--bcher-kva.example"),
        ("egress:\n  - {action: allow, target: a.example, ports: [0]}\n", 2, 48, "found 0"),
        ("egress: [{action: allow, target: a.example\n", 2, 1, "not YAML"),
    ],
)
def test_check_points_at_the_problem(tmp_path: Path, text: str, line: int, column: int, message: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    done = tool("policy", "check", path)
    assert done.returncode == 1
    assert done.stdout == ""
    told = [text for text in done.stderr.splitlines() if text.startswith(f"{path}:{line}:{column}: ")]
    assert any(message in text for text in told), done.stderr
    problems = json.loads(tool("policy", "check", "--json", path).stdout)[0]["problems"]
    assert (line, column) in [(problem["line"], problem["column"]) for problem in problems]


def test_check_tells_every_problem_of_every_file(tmp_path: Path, policy: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('{"egress": [{"action": "x", "target": "a..b"}, {"action": "allow"}], "more": 1}')
    done = tool("policy", "check", broken, policy, tmp_path / "missing.yaml")
    assert done.returncode == 1
    assert len(re.findall(rf"^{re.escape(str(broken))}:", done.stderr, re.MULTILINE)) >= 4, done.stderr
    assert "missing.yaml: No such file or directory" in done.stderr
    assert done.stdout == f"{policy}: valid: 5 rules, default deny\n"
    outcomes = json.loads(tool("policy", "check", "--json", broken, policy).stdout)
    assert [outcome["valid"] for outcome in outcomes] == [False, True]


def test_check_warns_of_a_wildcard_below_a_public_suffix() -> None:
    done = tool("policy", "check", "-", stdin='{"egress": [{"action": "allow", "target": "*.com"}]}')
    assert done.returncode == 0
    assert "warning" in done.stderr
    assert "*.com" in done.stderr


@pytest.mark.parametrize("command", [["policy"], *(["policy", it] for it in ("check", "explain", "lint", "fmt", "diff"))])
def test_help_has_examples(command: list[str]) -> None:
    done = tool(*command, "--help")
    assert done.returncode == 0
    assert "EXAMPLES:" in done.stdout


def test_version_is_one_line() -> None:
    done = tool("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"sandgate \d+\.\d+\.\d+\n", done.stdout)


def test_diff(tmp_path: Path) -> None:
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text("egress:\n- {action: allow, target: a.example}\n- {action: allow, target: 198.51.100.0/24}\n")
    new.write_text("egress:\n- {action: allow, target: 198.51.100.0/24}\n- {action: allow, target: b.example, ports: [443]}\n")
    compared = tool("policy", "diff", old, new)
    assert (compared.returncode, compared.stdout) == (0, "+ tcp 443 b.example\n- tcp any port a.example\n"), compared
    printed = json.loads(tool("policy", "diff", old, new, "--json").stdout)
    assert printed == {"opened": ["tcp 443 b.example"], "closed": ["tcp any port a.example"]}
    assert tool("policy", "diff", old, old).stdout == ""
    new.write_text("egress: 7\n")
    assert tool("policy", "diff", old, new).returncode == 1


@pytest.mark.parametrize(
    "depth, problem", [(20, "1:4: expected a key that is a name"), (200, "1:34: nested deeper than 32 levels")]
)
def test_keys_that_are_collections(tmp_path: Path, depth: int, problem: str) -> None:
    """Nested, they are refused before they are compared, which took minutes."""
    path = tmp_path / "policy.yaml"
    key = "{" * depth + "a: b" + "}: c" * (depth - 1) + "}"
    path.write_text(f"- {key}\n" * (4_000_000 // len(key)))
    checked = tool("policy", "check", path)
    assert (checked.returncode, checked.stderr) == (1, f"{path}:{problem}\n"), checked.stderr[:500]
