"""`sandgate policy lint`, `explain --verbose` and `diff` with the operator's rules, as a reviewer or CI would use them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab.sandgate import REPOSITORY
from lab.tool import tool

POLICY = """\
# kept by the platform team
networkPolicy:
  defaultAction: deny
  egress:
    - {action: allow, target: "*.example.com", ports: [443]}
    - {action: deny, target: private.example.com, ports: [443]}   # meant to hold
    - {action: allow, target: 203.0.113.0/24}
    - {action: allow, target: 203.0.113.0/24}
    - {action: allow, target: old.example, expiresAt: 2020-01-01T00:00:00Z}
    - {action: allow, target: "*.github.io"}
    - {action: allow, target: 0.0.0.0/0}
    - {action: allow, target: 169.254.169.254}
    - {action: allow, target: many.example, ports: ["1000-9000"]}
    - {action: allow, target: quic.example, protocol: udp}
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A policy with much to find."""
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def test_lint_says_what_where_and_what_to_do(policy: Path) -> None:
    done = tool("policy", "lint", policy)
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert [line.rsplit("[", 1)[1].rstrip("]") for line in lines] == [
        "shadowed-rule",
        "duplicate-rule",
        "expired-rule",
        "public-suffix",
        "whole-internet",
        "opens-guard-range",
        "wide-ports",
        "no-effect",
    ]
    assert lines[0] == (
        f"{policy}:6:7: error: networkPolicy.egress[1]: deny private.example.com never decides a "
        "connection: egress[0] (allow *.example.com, line 5) stands before it and covers it; only datagrams are left to it; "
        "move it before that rule if it is meant to hold, or say protocol: udp [shadowed-rule]"
    )


def test_lint_as_json_and_by_severity(policy: Path, tmp_path: Path) -> None:
    found = json.loads(tool("policy", "lint", "--json", policy).stdout)
    assert {key: found[0][key] for key in ("line", "column", "rule", "code", "severity")} == {
        "line": 6,
        "column": 7,
        "rule": 1,
        "code": "shadowed-rule",
        "severity": "error",
    }
    clean = tmp_path / "clean.yaml"
    clean.write_text("egress:\n- {action: allow, target: a.example, ports: [443]}\n")
    done = tool("policy", "lint", clean, "--fail-on", "note")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    clean.write_text("defaultAction: allow\n")
    assert tool("policy", "lint", clean).returncode == 1
    assert tool("policy", "lint", clean, "--fail-on", "error").returncode == 0
    clean.write_text("egress: 7\n")
    done = tool("policy", "lint", clean, "--fail-on", "error")
    assert (done.returncode, done.stdout.rsplit("[", 1)[1]) == (1, "invalid-policy]\n")
    assert tool("policy", "lint", clean, "--fail-on", "everything").returncode == 64


def test_lint_finds_what_several_rules_cover_together(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    rules = (
        "{action: allow, target: 203.0.113.0/25}",
        "{action: allow, target: a.example, ports: [80]}",
        "{action: allow, target: 203.0.113.128/25}",
        "{action: allow, target: a.example, ports: [443]}",
        "{action: allow, target: 203.0.113.0/24}",
        "{action: allow, target: a.example, ports: [80, 443]}",
    )

    def lint(*rules: str) -> list[dict[str, Any]]:
        policy.write_text("egress:\n" + "".join(f"- {rule}\n" for rule in rules))
        found: list[dict[str, Any]] = json.loads(tool("policy", "lint", "--json", policy).stdout)
        return found

    found = lint(*rules)
    assert [(one["rule"], one["severity"], one["code"], one["coveredBy"]) for one in found] == [
        (4, "warning", "shadowed-rule", ["egress[0]", "egress[2]"]),
        (5, "warning", "shadowed-rule", ["egress[1]", "egress[3]"]),
    ]
    text = tool("policy", "lint", policy).stdout.splitlines()[0]
    assert text == (
        f"{policy}:6:3: warning: egress[4]: allow 203.0.113.0/24 never decides: egress[0] (allow 203.0.113.0/25, line 2) "
        "and egress[2] (allow 203.0.113.128/25, line 4) stand before it and together cover it; remove it [shadowed-rule]"
    )
    # Without what it tells of, the same is reachable; without one of those that cover it, it is not told.
    whole, less = tmp_path / "whole.yaml", tmp_path / "less.yaml"
    whole.write_text(policy.read_text())
    assert lint(*rules[:4]) == []
    less.write_text(policy.read_text())
    assert tool("policy", "diff", "--exit-code", whole, less).returncode == 0
    for missing in range(4):
        assert len(lint(*rules[:missing], *rules[missing + 1 :])) == 1


def test_lint_names_rules_that_an_audit_has_no_use_for(tmp_path: Path) -> None:
    policy, audit = tmp_path / "policy.yaml", tmp_path / "audit.jsonl"
    policy.write_text(
        "egress:\n- {action: allow, target: used.example}\n- {action: allow, target: unused.example}\n"
        "- {action: allow, target: asked.example}\n"
    )
    place = {"host": "used.example", "ip": "203.0.113.5", "port": 443, "protocol": "tcp"}
    records: list[dict[str, object]] = [
        {"event": "connection.allowed", "layer": "tls-sni", **place},
        {"event": "dns.allowed", "layer": "dns", "host": "asked.example"},
    ]
    for number, record in enumerate(records, 1):
        record |= {"seq": number, "ts": "2026-11-23T00:41:07.123456Z", "sandbox": "s", "verdict": "allow"}
        record |= {"reason": "rule", "policyRevision": 1, "prev": None}
    audit.write_text("".join(json.dumps(record) + "\n" for record in records))
    done = tool("policy", "lint", policy, "--audit", audit, "--fail-on", "note")
    assert done.returncode == 1, done
    assert [line.split(": ")[3] for line in done.stdout.splitlines()] == [
        "allow unused.example matched nothing that the audit recorded; remove it, unless something needs it that did "
        "not run [unmatched-rule]"
    ]
    assert tool("policy", "lint", policy, "--audit", audit).returncode == 0


def test_explain_verbose_says_it_of_every_rule(policy: Path, tmp_path: Path) -> None:
    asked = ("policy", "explain", policy, "--host", "private.example.com", "--ip", "203.0.113.7", "--verbose")
    lines = tool(*asked).stdout.splitlines()
    assert lines[0] == "allow"
    trace = lines[lines.index("trace:") + 1 :]
    assert trace[:4] == [
        "  guard ranges: the address lies in none",
        "  egress[0] allow *.example.com: decides",
        "  egress[1] deny private.example.com: would match, but what stands before it decides",
        "  egress[2] allow 203.0.113.0/24: would match, but what stands before it decides",
    ]
    assert trace[-1] == "  defaultAction deny: not reached"
    told = json.loads(tool(*asked, "--json").stdout)
    assert [step["outcome"] for step in told["trace"]][:3] == ["decides", "matches", "matches"]
    always = tmp_path / "deny.always"
    always.write_text("private.example.com\n")
    done = tool(*asked, "--deny-always", always)
    assert done.stdout.splitlines()[:2] == ["deny", "rule: deny.always[0] deny private.example.com"]
    lines = tool("policy", "explain", policy, "--ip", "10.0.0.1", "--verbose").stdout.splitlines()
    assert "  guard ranges: the address lies in 10.0.0.0/8, which no rule inside it opens" in lines


def test_diff_under_the_operators_rules(tmp_path: Path) -> None:
    old, new, deny = tmp_path / "old.yaml", tmp_path / "new.yaml", tmp_path / "deny.always"
    old.write_text("{}\n")
    new.write_text("egress: [{action: allow, target: a.example}, {action: allow, target: b.example}]\n")
    deny.write_text("a.example # never\n")
    done = tool("policy", "diff", old, new, "--deny-always", deny, "--exit-code")
    assert (done.returncode, done.stdout) == (2, "+ tcp any port b.example\n"), done
    none = tmp_path / "none"
    none.write_text("")
    done = tool("policy", "diff", new, new, "--deny-always", none, "--new-deny-always", deny)
    assert (done.returncode, done.stdout) == (0, "- tcp any port a.example\n"), done
    assert tool("policy", "diff", new, new, "--exit-code").returncode == 0


UNTIDY = """\
# Why we have this: see the ticket.\t
networkPolicy:
  default_action: DENY   # nothing else
  egress:
    # the API
    - {ports: [443,"8000-8100"],target: "*.Example.COM.",action: Allow, comment: "it's # ours"}  # ask Ada
    - action: allow   
      # kept
      target: API.Example.org
      ttl: 10m
    - { target: 2001:DB8::/32, action: deny }
expect:
  deny: [a.example]
"""
TIDY = """\
# Why we have this: see the ticket.
networkPolicy:
  defaultAction: deny   # nothing else
  egress:
    # the API
    - {action: allow, target: "*.example.com", ports: [443, "8000-8100"], comment: "it's # ours"}  # ask Ada
    - action: allow
      # kept
      target: api.example.org
      ttl: 10m
    - {action: deny, target: 2001:db8::/32}
expect:
  deny: [a.example]
"""


def test_fmt_keeps_comments_and_meaning(tmp_path: Path) -> None:
    real, link = tmp_path / "real.yaml", tmp_path / "policy.yaml"
    real.write_text(UNTIDY)
    real.chmod(0o640)
    link.symlink_to("real.yaml")
    done = tool("policy", "fmt", "--check", link)
    assert (done.returncode, real.read_text()) == (1, UNTIDY), done
    assert done.stdout.splitlines()[0] == str(link)
    assert "  3 -   default_action: DENY   # nothing else" in done.stdout
    assert "  3 +   defaultAction: deny   # nothing else" in done.stdout
    assert tool("policy", "fmt", "--stdout", "-", stdin=UNTIDY).stdout == TIDY
    done = tool("policy", "fmt", link)
    assert (done.returncode, done.stdout) == (0, f"{link}\n"), done
    assert (real.read_text(), link.is_symlink(), real.stat().st_mode & 0o7777) == (TIDY, True, 0o640)
    assert sorted(it.name for it in tmp_path.iterdir()) == ["policy.yaml", "real.yaml"]
    before = real.stat()
    done = tool("policy", "fmt", link)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (real.stat().st_ino, real.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert tool("policy", "fmt", "--check", link).returncode == 0


def test_fmt_lays_json_out_and_keeps_what_stands_around(tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    path.write_text('{"image":"x","networkPolicy":{"egress":[{"target":"A.example","ports":[443],"action":"allow"}]},"n":1.50}')
    assert tool("policy", "fmt", path).returncode == 0
    assert path.read_text() == (
        '{\n  "image": "x",\n  "networkPolicy": {\n    "egress": [\n'
        '      {"action": "allow", "target": "a.example", "ports": [443]}\n    ]\n  },\n  "n": 1.50\n}\n'
    )


def test_fmt_leaves_text_over_several_lines_alone(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("egress:\n- action: allow\n  target: A.example\n  comment: |\n    two  \n    lines\n")
    done = tool("policy", "fmt", path)
    assert done.returncode == 0
    assert done.stderr == (
        f"sandgate: {path}: left as they are: blanks at the end of lines, of which some belong to a text (line 5)\n"
    )
    assert path.read_text() == "egress:\n- action: allow\n  target: a.example\n  comment: |\n    two  \n    lines\n"


def test_fmt_says_what_it_leaves(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    rules = "egress:\n- target: {}\n  action: allow\n"
    path.write_text(rules.format("A.example"))
    told = (
        f"sandgate: {path}: left as it is: the order of keys in rules that do not stand in braces on one line (line 2)\n"
    )
    # What can be changed is, and the rest is told, then and later.
    for option, status in (("--check", 1), ("", 0), ("--check", 0)):
        done = tool("policy", "fmt", *option.split(), path)
        assert (done.returncode, done.stderr) == (status, told), done
    assert path.read_text() == rules.format("a.example")
    # A line that is one for YAML alone: what would be changed stands elsewhere, so nothing is.
    rule = "- {target: A.example, action: allow"
    text = f"# a\u2028\negress:\n{rule}}}\n{rule}, ports: [1]}}\n"
    path.write_text(text)
    for option in ("--check", "", "--stdout"):
        done = tool("policy", "fmt", *option.split(), path)
        assert done.returncode == 1
        assert done.stderr == f"sandgate: {path}: left as it is: formatted, it would mean something else\n"
        assert done.stdout == (text if option == "--stdout" else "")
    assert path.read_text() == text


def test_fmt_as_json(tmp_path: Path) -> None:
    untidy, tidy, bad = (tmp_path / f"{name}.yaml" for name in ("untidy", "tidy", "bad"))
    untidy.write_text("egress:\n- target: A.example\n  action: allow\n")
    tidy.write_text("{}\n")
    bad.write_text("egress: 7\n")
    done = tool("policy", "fmt", "--check", "--json", untidy, tidy, bad)
    assert (done.returncode, done.stderr) == (1, ""), done
    left = [{"kind": "order", "lines": [2]}]
    changes = [{"line": 2, "sign": "-", "text": "- target: A.example"}, {"line": 2, "sign": "+", "text": "- target: a.example"}]
    problem = f"{bad}:1:9: egress: expected a list of rules, found 7"
    assert json.loads(done.stdout) == [
        {"file": str(untidy), "differs": True, "changes": changes, "left": left, "problems": []},
        {"file": str(tidy), "differs": False, "changes": [], "left": [], "problems": []},
        {"file": str(bad), "differs": False, "changes": [], "left": [], "problems": [problem]},
    ]
    done = tool("policy", "fmt", "--json", untidy)
    assert done.returncode == 0 and json.loads(done.stdout)[0]["differs"] and "a.example" in untidy.read_text()
    assert json.loads(tool("policy", "fmt", "--json", untidy).stdout)[0]["differs"] is False
    assert "only one of them" in tool("policy", "fmt", "--json", "--stdout", untidy).stderr


def test_fmt_writes_nothing_that_is_not_valid(tmp_path: Path) -> None:
    bad, good = tmp_path / "bad.yaml", tmp_path / "good.yaml"
    bad.write_text("egress: 7   \n")
    good.write_text("{}   \n")
    done = tool("policy", "fmt", bad, good)
    assert (done.returncode, bad.read_text(), good.read_text()) == (1, "egress: 7   \n", "{}\n"), done
    assert f"{bad}:1:9: egress: expected a list of rules" in done.stderr


def test_fmt_leaves_the_presets_as_they_are() -> None:
    presets = sorted((REPOSITORY / "policies").glob("*.yaml"))
    done = tool("policy", "fmt", "--check", *presets)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done
