"""Holds a live daemon to its own description of its API: schemathesis sends what openapi.yaml allows and what it does not,
and every answer is to be one that the document describes. Called by `deploy/test api`; needs root and $SANDGATE.

    run.py SCHEMATHESIS [ARG…]      the program, and further arguments of `schemathesis run`

All of it happens in network, mount and process namespaces of its own: a request may name any process and any path, and
those of the machine are not to be put under a policy.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ADDRESS = ("127.0.0.1", 7480)
ENDLESS = "/v1/audit/stream"
"""Answers for as long as it is asked; Tests/EndToEnd/test_serve.py reads it."""


class Client:
    """Asks the daemon as an ordinary client does."""

    def __init__(self, token: str) -> None:
        self._headers = {"Authorization": f"Bearer {token}"}

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """The status and the body of an answer."""
        connection = http.client.HTTPConnection(*ADDRESS, timeout=30)
        try:
            headers = self._headers | ({} if body is None else {"Content-Type": "application/json"})
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            text = response.read()
            is_json = (response.getheader("Content-Type") or "").startswith("application/json")
            return response.status, json.loads(text) if is_json else text.decode()
        finally:
            connection.close()

    def sandboxes(self) -> list[str]:
        """The ids of all sandboxes, whatever their state."""
        _, page = self.ask("GET", "/v1/sandboxes?state=all&limit=10000")
        return [item["id"] for item in page["items"]]


def outside() -> int:
    """Makes the namespaces and does the rest inside."""
    apart = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return subprocess.run([*apart, sys.executable, __file__, "--inside", *sys.argv[1:]]).returncode


def inside(program: str, arguments: list[str]) -> int:
    """Runs the daemon and schemathesis against it."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory(prefix="sandgate-api-") as name:
        directory = Path(name)
        token = secrets.token_hex(16)
        (directory / "tokens").write_text(f"{token}\n")
        daemon = start(directory)
        try:
            client = Client(token)
            wait(daemon, client)
            for sandbox in ("one", "two"):
                client.ask("POST", "/v1/sandboxes", {"id": sandbox, "attachment": {"create": True}})
            status = schemathesis(program, token, arguments)
            complaints = finish(directory, daemon, client)
        finally:
            daemon.kill()
            daemon.wait()
            for mounted in (directory / "runtime" / "netns").glob("*"):
                subprocess.run(["umount", mounted], capture_output=True)
        for complaint in complaints:
            print(f"API test: {complaint}", file=sys.stderr)
        return status or bool(complaints)


def start(directory: Path) -> subprocess.Popen[bytes]:
    """Starts a daemon whose directories are all below `directory`."""
    command: list[str | Path] = [os.environ["SANDGATE"], "serve", "--socket", directory / "api" / "api.sock", "--upstream-dns", ADDRESS[0]]
    command += ["--listen", f"{ADDRESS[0]}:{ADDRESS[1]}", "--token-file", directory / "tokens"]
    for option in ("state", "runtime", "audit"):
        command += [f"--{option}-dir", directory / option]
    with (directory / "log").open("wb") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def wait(daemon: subprocess.Popen[bytes], client: Client) -> None:
    """Waits until it serves."""
    deadline = time.monotonic() + 30
    while True:
        try:
            if client.ask("GET", "/readyz")[0] == 200:
                return
        except OSError:
            pass
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("API test: the daemon does not serve")
        time.sleep(0.05)


def schemathesis(program: str, token: str, arguments: list[str]) -> int:
    """Runs it; its exit status is 0 when every answer was one that the document describes."""
    url = f"http://{ADDRESS[0]}:{ADDRESS[1]}"
    command = [program, "--config-file", str(Path(__file__).with_name("schemathesis.toml")), "run", f"{url}/openapi.yaml"]
    command += ["--header", f"Authorization: Bearer {token}", "--exclude-path", ENDLESS, *arguments]
    return subprocess.run(command, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}).returncode


def finish(directory: Path, daemon: subprocess.Popen[bytes], client: Client) -> list[str]:
    """Releases what was made. Returns what is wrong after all that was sent."""
    complaints: list[str] = []
    if daemon.poll() is not None:
        log = (directory / "log").read_text()
        return [f"the daemon ended with status {daemon.returncode}: {log}"]
    for sandbox in client.sandboxes():
        status, answer = client.ask("DELETE", f"/v1/sandboxes/{sandbox}")
        if status != 204:
            complaints.append(f"{sandbox} cannot be released: {answer}")
    left = [path.name for path in (directory / "runtime" / "netns").iterdir() if not path.name.startswith(".")]
    left += [path.name for path in (directory / "state" / "sandboxes").iterdir() if not path.name.startswith(".")]
    if left:
        complaints.append(f"left behind: {left}")
    daemon.terminate()
    if daemon.wait(20) != 0:
        complaints.append(f"the daemon ended with status {daemon.returncode}")
    verified = subprocess.run(
        [os.environ["SANDGATE"], "audit", "--dir", directory / "audit", "--verify"], capture_output=True, text=True
    )
    if verified.returncode != 0:
        complaints.append(f"the audit trail: {verified.stdout}{verified.stderr}")
    return complaints


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        sys.exit(inside(sys.argv[2], sys.argv[3:]))
    sys.exit(outside())
