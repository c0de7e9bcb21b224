"""`sandgate policy import` and `policy export`, as a person or script would use them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.tool import tool

SETTINGS = """\
{
  "network": {
    "allowedDomains": ["registry.example.com:443", "localhost:3000", "*.example.org"],
    "deniedDomains": ["uploads.example.org"]
  }
}
"""

POLICY = """\
egress:
  - {action: deny, target: bad.example.com}
  - {action: allow, target: "*.example.com"}
  - {action: allow, target: 198.51.100.0/24, ports: [443], protocol: tcp}
"""


def verdict(policy: Path, *destination: str) -> str:
    done = tool("policy", "explain", policy, *destination)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[0]


def test_import_is_a_valid_policy_with_notes_in_place(tmp_path: Path) -> None:
    settings = tmp_path / "settings.json"
    settings.write_text(SETTINGS)
    done = tool("policy", "import", "sandbox-runtime", settings)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    place = next(number for number, line in enumerate(lines) if "left out" in line)
    assert lines[place].startswith("    # network.allowedDomains[1], line 3: left out: ")
    policy = tmp_path / "policy.yaml"
    policy.write_text(done.stdout)
    assert tool("policy", "check", policy).returncode == 0
    assert verdict(policy, "--host", "registry.example.com") == "allow"
    assert verdict(policy, "--host", "registry.example.com", "--port", "80") == "deny"
    assert verdict(policy, "--host", "a.b.example.org") == "allow"
    assert verdict(policy, "--host", "example.org") == "deny"
    assert verdict(policy, "--host", "uploads.example.org") == "deny"


def test_import_strict_and_json(tmp_path: Path) -> None:
    settings = tmp_path / "settings.json"
    settings.write_text(SETTINGS)
    strict = tool("policy", "import", "sandbox-runtime", settings, "--strict")
    assert (strict.returncode, strict.stdout) == (1, "")
    assert f"{settings}:3:52: network.allowedDomains[1]: left out: " in strict.stderr
    settings.write_text(SETTINGS.replace('"localhost:3000", ', ""))
    assert tool("policy", "import", "sandbox-runtime", settings, "--strict").returncode == 0
    as_json = json.loads(tool("policy", "import", "sandbox-runtime", "-", "--json", stdin=SETTINGS).stdout)
    assert as_json["networkPolicy"]["defaultAction"] == "deny"
    assert [rule["target"] for rule in as_json["networkPolicy"]["egress"]] == [
        "uploads.example.org",
        "registry.example.com",
        "*.example.org",
    ]
    note = as_json["notes"][0]
    assert (note["effect"], note["line"], note["path"]) == ("left out", 3, "network.allowedDomains[1]")


@pytest.mark.parametrize(
    ("arguments", "document", "complaint"),
    [
        (
            ["smokescreen"],
            "version: v1\nservices:\n  - {name: a, action: sometimes}\n",
            "<stdin>:3:23: services[0].action: expected enforce, report or open, found sometimes",
        ),
        (["cilium"], "a: &x [1]\nb: *x\n", "<stdin>:2:4: anchors and aliases are not accepted"),
        (["e2b"], "[" * 100, "<stdin>:1:33: nested deeper than 32 levels"),
        (["nothing"], "", "expected one of e2b, modal, sandbox-runtime, smokescreen, cilium, docker, harden-runner"),
        (["cilium", "--service", "a"], "", "--service is for smokescreen"),
    ],
)
def test_import_refuses_as_a_whole(arguments: list[str], document: str, complaint: str) -> None:
    done = tool("policy", "import", arguments[0], "-", *arguments[1:], stdin=document)
    assert done.returncode != 0
    assert done.stdout == ""
    assert complaint in done.stderr


def test_import_chooses_a_service_and_a_job(tmp_path: Path) -> None:
    acl = tmp_path / "acl.yaml"
    acl.write_text(
        "version: v1\n"
        "services:\n"
        "  - {name: one, action: enforce, allowed_domains: [one.example]}\n"
        "  - {name: two, action: enforce, allowed_domains: [two.example]}\n"
    )
    assert tool("policy", "import", "smokescreen", acl).returncode == 1
    done = tool("policy", "import", "smokescreen", acl, "--service", "two", "--strict")
    assert done.returncode == 0
    assert "two.example" in done.stdout and "one.example" not in done.stdout
    text = tool("policy", "import", "harden-runner", "-", stdin="api.example.com\nmirror.example.com:80\n")
    assert '{action: allow, target: "mirror.example.com", ports: [80], protocol: tcp}' in text.stdout


def test_export_opensandbox_reads_back(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    done = tool("policy", "export", "opensandbox", policy)
    assert done.returncode == 0
    assert "egress[2]: left out: ports 443" in done.stderr
    assert [rule["target"] for rule in json.loads(done.stdout)["networkPolicy"]["egress"]] == [
        "bad.example.com",
        "*.example.com",
    ]
    exported = tmp_path / "network-policy.json"
    exported.write_text(done.stdout)
    assert tool("policy", "check", exported).returncode == 0
    # Nothing becomes reachable by it.
    assert not [line for line in tool("policy", "diff", policy, exported).stdout.splitlines() if line.startswith("+")]
    strict = tool("policy", "export", "opensandbox", policy, "--strict")
    assert (strict.returncode, strict.stdout) == (1, "")
    wide = json.loads(tool("policy", "export", "opensandbox", policy, "--ignore-ports", "--json").stdout)
    assert wide["notes"][0]["effect"] == "widened"
    assert json.loads(wide["document"])["networkPolicy"]["egress"][2] == {"action": "allow", "target": "198.51.100.0/24"}


def test_export_kubernetes(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY.replace("  - {action: deny, target: bad.example.com}\n", ""))
    done = tool("policy", "export", "kubernetes", policy)
    assert done.returncode == 0
    assert "egress[0]: left out: *.example.com: there are no names there" in done.stderr
    assert "            cidr: 198.51.100.0/24\n      ports:\n        - {protocol: TCP, port: 443}\n" in done.stdout
    assert tool("policy", "export", "kubernetes", policy, "--ignore-ports").returncode != 0


def test_help_names_every_format() -> None:
    for command, formats in {
        "import": ["e2b", "modal", "sandbox-runtime", "smokescreen", "cilium", "docker", "harden-runner"],
        "export": ["opensandbox", "kubernetes"],
    }.items():
        text = tool("policy", command, "--help").stdout
        assert all(f"{name}: " in text for name in formats)
        assert "EXAMPLES" in text
