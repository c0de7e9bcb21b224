"""The command line: help, versions, and errors that say what is wrong and where, with nothing started."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
from pathlib import Path

import pytest

from lab import plan
from lab.internet import Internet
from lab.sandgate import Sandgate, allowing


def subcommands(sandgate: Sandgate, *words: str) -> list[list[str]]:
    """The commands below one, as its help lists them."""
    listed = sandgate.tool(*words, "--help").stdout.partition("SUBCOMMANDS:\n")[2]
    return [[*words, name] for name in re.findall(r"^  ([a-z]+) ", listed, re.MULTILINE)]


@pytest.mark.parametrize("command", [[], ["run"], ["policy"], ["audit"], ["doctor"]])
def test_help(sandgate: Sandgate, command: list[str]) -> None:
    done = sandgate.tool(*command, "--help")
    assert done.returncode == 0 and "USAGE" in done.stdout.upper(), done
    assert done.stderr == ""


def test_examples_can_be_pasted(sandgate: Sandgate) -> None:
    """Help is wrapped at 80 columns; an example in two lines is none."""
    commands: list[list[str]] = [[], *subcommands(sandgate), *subcommands(sandgate, "policy")]
    assert len(commands) > 20
    for command in commands:
        said = sandgate.tool(*command, "--help").stdout
        examples = said.partition("EXAMPLES:\n")[2].partition("\n\n")[0].splitlines()
        assert examples and all("sandgate" in line and line.startswith("  ") for line in examples), (command, examples)


def test_version(sandgate: Sandgate) -> None:
    done = sandgate.tool("--version")
    assert done.returncode == 0 and re.fullmatch(r"(sandgate )?\d+\.\d+\.\d+\S*\n", done.stdout), done


BAD_POLICIES = {
    "unknown key": ("egress:\n  - action: allow\n    target: a.example\n    prots: [443]\n", 4, 5),
    "unknown action": ("egress:\n  - action: permit\n    target: a.example\n", 2, 13),
    "malformed target": ("egress:\n  - action: allow\n    target: 'a..example'\n", 3, 13),
    "star alone": ("egress:\n  - action: allow\n    target: '*'\n", 3, 13),
    "host bits": ("egress:\n  - action: allow\n    target: 192.0.2.7/24\n", 3, 13),
    "duplicate key": ("defaultAction: deny\ndefaultAction: allow\n", 2, 1),
    "port out of range": ("egress:\n  - action: allow\n    target: a.example\n    ports: [65536]\n", 4, 13),
}


@pytest.mark.parametrize("name", BAD_POLICIES)
def test_bad_policy_starts_nothing(internet: Internet, sandgate: Sandgate, tmp_path: Path, name: str) -> None:
    text, line, column = BAD_POLICIES[name]
    mark = tmp_path / "started"
    run = sandgate.run(text, "touch", str(mark))
    assert run.returncode == 125, run
    assert re.search(rf"\.yaml:{line}:{column}\b", run.stderr), run
    assert not mark.exists()


def test_every_problem_is_listed(internet: Internet, sandgate: Sandgate) -> None:
    text = "egress:\n  - action: permit\n    target: 'a..example'\n  - action: allow\n    target: '*'\n"
    path = sandgate.policy_file(text)
    done = sandgate.tool("policy", "check", str(path))
    assert done.returncode == 1, done
    said = done.stdout + done.stderr
    for position in (f"{path}:2:", f"{path}:3:", f"{path}:5:"):
        assert position in said, done


@pytest.mark.parametrize(
    "options",
    [
        ["--policy", "/no/such/file.yaml"],
        ["--allow", "a..example"],
        ["--allow", "192.0.2.7/24"],
        ["--upstream-dns", "not-an-address"],
    ],
)
def test_bad_option_starts_nothing(internet: Internet, sandgate: Sandgate, tmp_path: Path, options: list[str]) -> None:
    mark = tmp_path / "started"
    done = sandgate.tool("run", *options, "--", "touch", str(mark))
    assert done.returncode == 125 and done.stderr, done
    assert not mark.exists()


@pytest.mark.parametrize("arguments", [["run"], ["run", "--no-such-option", "--", "true"], ["no-such-command"]])
def test_wrong_usage(sandgate: Sandgate, arguments: list[str]) -> None:
    done = sandgate.tool(*arguments)
    assert done.returncode not in (0, 1) and done.stderr, done


@pytest.mark.parametrize(
    ("arguments", "said", "usage"),
    [
        (["polcy"], "unknown command 'polcy': expected one of run, ", "sandgate <subcommand>"),
        (["polcy"], "; did you mean policy?", "sandgate <subcommand>"),
        (["policy", "sugest", "--audit", "x"], "; did you mean suggest?", "sandgate policy <subcommand>"),
        (["suggest", "--audit", "x"], "; did you mean sandgate policy suggest?", "sandgate <subcommand>"),
        (["policy", "audit"], "; did you mean sandgate audit?", "sandgate policy <subcommand>"),
        (["runn", "--allow", "a.example", "--", "true"], "; did you mean run?", "sandgate <subcommand>"),
        (["help", "polcy"], "; did you mean policy?", "sandgate <subcommand>"),
        (["help", "policy", "chek"], "; did you mean check?", "sandgate policy <subcommand>"),
        (["run", "--alow", "a.example", "--", "true"], "Did you mean '--allow'?", "sandgate run "),
    ],
)
def test_misspelt_words_are_answered_with_the_nearest(
    sandgate: Sandgate, arguments: list[str], said: str, usage: str
) -> None:
    done = sandgate.tool(*arguments)
    assert done.returncode == (125 if arguments[0] == "run" else 64) and not done.stdout, done
    error, usage_line, see = done.stderr.splitlines()
    assert error.startswith("Error: ") and said in error, done
    assert usage_line.startswith(f"Usage: {usage}") and "--help" in see, done


def test_help_names_every_command(sandgate: Sandgate) -> None:
    """Whatever the help lists is asked for as `help NAME` and as `NAME --help`, with the same answer."""
    for command in (*subcommands(sandgate), *subcommands(sandgate, "policy")):
        asked, option = sandgate.tool("help", *command), sandgate.tool(*command, "--help")
        assert asked.returncode == option.returncode == 0 and asked.stdout == option.stdout, (command, asked)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("https://a.example/x", '"https://a.example/x" is a URL: write only its host, "a.example"'),
        ("http://a.example:8080", "write only its host"),
        ("a.example:99999", "expected a port of 1...65535 or a range such as 8000-8100 after the colon, found 99999"),
    ],
)
def test_target_that_is_none_says_what_to_write(sandgate: Sandgate, target: str, said: str) -> None:
    done = sandgate.tool("run", "--allow", target, "--", "true")
    assert done.returncode == 125 and f"--allow {target}: " in done.stderr and said in done.stderr, done


def test_program_with_capabilities_of_its_own_is_explained(
    internet: Internet, sandgate: Sandgate, tmp_path: Path
) -> None:
    """As ping is one: the kernel says EPERM, which tells nobody anything."""
    program = tmp_path / "as-ping"
    shutil.copy("/usr/bin/true", program)
    assert internet.unenforced([str(program)]).returncode == 0
    # struct vfs_cap_data: revision 2, effective; CAP_NET_ADMIN is permitted.
    os.setxattr(program, "security.capability", struct.pack("<5I", 0x0200_0001, 1 << 12, 0, 0, 0))
    run = sandgate.run(allowing(), str(program))
    assert run.returncode == 126, run
    assert f"cannot run {program}: Operation not permitted: the file has capabilities" in run.stderr, run


@pytest.mark.attack("T5", "is started by root without CAP_NET_ADMIN", stopped_by="start")
def test_missing_capability_is_named(internet: Internet, sandgate: Sandgate, tmp_path: Path) -> None:
    mark = tmp_path / "started"
    command = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin", str(sandgate.binary), "run"]
    done = internet.unenforced([*command, "--upstream-dns", plan.DNS4, "--", "touch", str(mark)])
    assert done.returncode == 125 and "NET_ADMIN" in done.stderr.upper(), done
    assert not mark.exists()


def test_unwritable_audit_file_starts_nothing(internet: Internet, sandgate: Sandgate, tmp_path: Path) -> None:
    mark = tmp_path / "started"
    done = sandgate.tool("run", "--audit", "/no/such/directory/audit.jsonl", "--", "touch", str(mark))
    assert done.returncode == 125 and "/no/such/directory/audit.jsonl" in done.stderr, done
    assert not mark.exists()


GOOD = """\
networkPolicy:
  defaultAction: deny
  egress:
    - action: deny
      target: secret.allowed.example
    - action: allow
      target: "*.allowed.example"
      ports: [443, "8000-8100"]
    - action: allow
      target: 192.0.2.0/24
      protocol: udp
      ports: [53]
"""


def test_policy_check_accepts(sandgate: Sandgate) -> None:
    done = sandgate.tool("policy", "check", str(sandgate.policy_file(GOOD)))
    assert done.returncode == 0, done


def test_policy_check_warns_of_wide_wildcards(sandgate: Sandgate) -> None:
    path = sandgate.policy_file("egress:\n  - action: allow\n    target: '*.com'\n")
    done = sandgate.tool("policy", "check", str(path))
    assert done.returncode == 0 and "*.com" in done.stdout + done.stderr, done


@pytest.mark.parametrize(
    ("options", "verdict"),
    [
        (["--host", "www.allowed.example", "--port", "443"], "allow"),
        (["--host", "www.allowed.example", "--port", "8050"], "allow"),
        (["--host", "www.allowed.example", "--port", "22"], "deny"),
        (["--host", "allowed.example", "--port", "443"], "deny"),
        (["--host", "secret.allowed.example", "--port", "443"], "deny"),
        (["--host", "WWW.Allowed.Example.", "--port", "443"], "allow"),
        (["--ip", "192.0.2.9", "--port", "53", "--protocol", "udp"], "allow"),
        (["--ip", "192.0.2.9", "--port", "53", "--protocol", "tcp"], "deny"),
    ],
)
def test_policy_explain(sandgate: Sandgate, options: list[str], verdict: str) -> None:
    done = sandgate.tool("policy", "explain", str(sandgate.policy_file(GOOD)), *options)
    assert done.stdout.splitlines()[0] == verdict, done


def test_create_request_as_a_policy_file(internet: Internet, sandgate: Sandgate) -> None:
    request = json.dumps({"image": {"uri": "x"}, "timeout": 60, "networkPolicy": allowing(plan.ALLOWED)})
    run = sandgate.run(request, "curl", "-sS", f"https://{plan.ALLOWED}/")
    assert run.returncode == 0, run


def test_options_and_file_add_up(internet: Internet, sandgate: Sandgate) -> None:
    options = ["--allow", f"{plan.OTHER}:443", "--allow", f"[{plan.SINK6}]:4444"]
    command = ["curl", "-sS", f"https://{plan.OTHER}/"]
    run = sandgate.run(allowing(plan.ALLOWED), *command, options=options)
    assert run.returncode == 0, run
    run = sandgate.run(allowing(plan.ALLOWED), "curl", "-sS", f"http://{plan.OTHER}/", options=options)
    assert "served" not in run.stdout, run
