"""Sandboxes that hold what no rule speaks of, and who answers."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import plan
from .daemon import Daemon, Sandbox
from .processes import wait_until
from .sandgate import allowing
from .tool import tool

ASKING = {"create": True, "ask": True}
LINE = r'    - \{action: allow, target: "([^"]+)", ports: \[([0-9, ]+)\](?:, protocol: tcp)?, comment: "(asked [^"]+)"\}'


def asking(daemon: Daemon, policy: object = None, seconds: int | None = None, **fields: Any) -> Sandbox:
    return daemon.create(policy or allowing(plan.ALLOWED), attachment={**ASKING, "ask": seconds or True}, **fields)


def questions(sandbox: Sandbox) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = sandbox.ask("GET", "/questions").json["items"]
    return found


def question(sandbox: Sandbox, host: str, ports: tuple[int, ...] = (80, 443)) -> dict[str, Any]:
    """The open question about a host, when it has been asked."""

    def matching() -> list[dict[str, Any]]:
        return [one for one in questions(sandbox) if one["host"] == host and one["ports"] == list(ports)]

    wait_until(lambda: bool(matching()), f"a question about {host}")
    return matching()[0]


def answer(sandbox: Sandbox, asked: dict[str, Any], word: str, **fields: object) -> dict[str, Any]:
    body: dict[str, object] = {"answer": word, "by": "alice"} | fields
    said = sandbox.ask("POST", f"/questions/{asked['question']}", body)
    assert said.status == 200, said
    found: dict[str, Any] = said.json
    return found


def curl(sandbox: Sandbox, name: str, *options: str) -> subprocess.Popen[str]:
    return sandbox.start("curl", "-sS", "-m", "25", *options, f"https://{name}/")


def said(process: subprocess.Popen[str]) -> str:
    return process.communicate(timeout=40)[0]


ANSWERING = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    open(sys.argv[1], "a").write(line)
    words = {words_of}
    word = words.get(asked["host"])
    if word:
        print(json.dumps({{"question": asked["question"], **word}}), flush=True)
"""


def asker(directory: Path, **words: dict[str, object]) -> tuple[str, Path]:
    """A program that answers so, by host; and where it writes down what it was asked."""
    program, log = directory / "asker.py", directory / "asked.jsonl"
    program.write_text(ANSWERING.format(words_of=repr({host.replace("_", "."): word for host, word in words.items()})))
    return f"exec /usr/bin/python3 {program} {log}", log


@dataclass(frozen=True)
class Answered:
    """A rule in a file of answers."""

    target: str
    ports: list[int]
    comment: str


def listed(file: Path) -> list[Answered]:
    """The rules in a file of answers, which is a valid policy, as answers write them."""
    done = tool("policy", "check", file)
    assert done.returncode == 0, done
    lines = [line for line in file.read_text().splitlines() if line.strip().startswith("- ")]
    found = [re.fullmatch(LINE, line) for line in lines]
    assert all(found), lines
    return [Answered(one[1], [int(port) for port in one[2].split(",")], one[3]) for one in found if one]
