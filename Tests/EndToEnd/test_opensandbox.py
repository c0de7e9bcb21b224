"""OpenSandbox's own server and SDK, unmodified, with Sandgate's image in place of their egress image."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from lab import content, plan, streams
from lab.capture import capture
from lab.clock import Clock
from lab.engine import MACHINE, SANDGATE, Engine, engine_with_images
from lab.internet import Internet
from lab.lifecycle_server import AUTHORITY, Client, OpenSandbox, SDKError, Settings, opensandbox
from lab.processes import wait_until
from lab.sandgate import allowing
from lab.sidecar import inside

TRUST = {name: AUTHORITY for name in ("CURL_CA_BUNDLE", "SSL_CERT_FILE", "GIT_SSL_CAINFO", "PIP_CERT")}


@pytest.fixture(scope="module")
def docker(net: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with engine_with_images(net, tmp_path_factory.mktemp("engine"), plan.DNS4) as made:
        yield made


@pytest.fixture(scope="module")
def server(net: Internet, docker: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSandbox]:
    with opensandbox(net, docker, tmp_path_factory.mktemp("opensandbox")) as made:
        yield made


@pytest.fixture
def sdk(internet: Internet, server: OpenSandbox) -> Iterator[Client]:
    with server.client() as made:
        yield made


def run(sdk: Client, *command: str) -> subprocess.CompletedProcess[str]:
    return sdk.docker.run(sdk.sandbox, *command, timeout=60)


def reaches(sdk: Client, name: str, *options: str) -> bool:
    return f"served {name}" in run(sdk, "curl", "-sS", "-m", "5", *options, f"https://{name}/").stdout


def rule(action: str, target: str) -> dict[str, str]:
    return {"action": action, "target": target}


def test_life_of_a_sandbox(internet: Internet, sdk: Client) -> None:
    sdk.create(MACHINE, allowing(plan.ALLOWED), **TRUST)
    sidecar = sdk.sidecar
    assert sdk.docker.inspect(sdk.sandbox, "{{.HostConfig.NetworkMode}}") == f"container:{sidecar}"
    assert reaches(sdk, plan.ALLOWED), sdk.docker.logs(sidecar)
    assert not reaches(sdk, plan.DENIED)
    assert not reaches(sdk, plan.DENIED, "--resolve", f"{plan.DENIED}:443:{plan.DENIED4}")
    # The other name on the same address.
    assert not reaches(sdk, plan.OTHER) and not reaches(sdk, plan.OTHER, "--resolve", f"{plan.OTHER}:443:{plan.SHARED4}")
    assert internet.web.hosts() == {plan.ALLOWED}
    # The policy is read and changed while the sandbox lives.
    assert sdk.do("policy") == {"defaultAction": "deny", "egress": [rule("allow", plan.ALLOWED)]}
    sdk.do("patch", [rule("allow", plan.OTHER), rule("deny", plan.ALLOWED)])
    assert reaches(sdk, plan.OTHER) and not reaches(sdk, plan.ALLOWED)
    sdk.do("delete", [plan.OTHER, plan.ALLOWED])
    assert sdk.do("policy") == {"defaultAction": "deny", "egress": []} or sdk.do("policy") == {"defaultAction": "deny"}
    assert not reaches(sdk, plan.OTHER) and not reaches(sdk, plan.ALLOWED)
    sdk.do("patch", [rule("allow", plan.ALLOWED)])
    assert reaches(sdk, plan.ALLOWED)
    assert sdk.do("renew", 600)
    # Frozen, and then as before.
    internet.forget()
    sdk.do("pause")
    assert sdk.do("state") == "Paused" and sdk.docker.inspect(sidecar, "{{.State.Paused}}") == "true"
    sdk.do("resume")
    assert sdk.do("state") == "Running" and reaches(sdk, plan.ALLOWED) and not reaches(sdk, plan.DENIED)
    assert sdk.do("policy") == {"defaultAction": "deny", "egress": [rule("allow", plan.ALLOWED)]}
    sdk.do("kill")
    assert sdk.containers("opensandbox.io/id") == sdk.containers("opensandbox.io/egress-sidecar-for") == []
    assert internet.web.hosts() == {plan.ALLOWED}


def test_tools(internet: Internet, sdk: Client) -> None:
    sdk.create(MACHINE, allowing(plan.PYPI, plan.GIT), **TRUST)
    pip = ("python3", "-m", "pip", "install", "--no-cache-dir", "--no-deps", "--target", "/tmp/packages")
    wheel = f"{content.WHEEL_NAME}=={content.WHEEL_VERSION}"
    installed = run(sdk, *pip, "--index-url", f"https://{plan.PYPI}/simple", wheel)
    assert installed.returncode == 0, installed
    cloned = run(sdk, "git", "clone", f"https://{plan.GIT}/project.git", "/tmp/clone")
    assert cloned.returncode == 0 and run(sdk, "cat", f"/tmp/clone/{content.GIT_FILE}").stdout == content.GIT_TEXT, cloned
    refused = run(sdk, *pip, "--index-url", f"https://{plan.FILES}/simple", wheel)
    assert refused.returncode != 0 and internet.web.hosts() == {plan.PYPI, plan.GIT}
    sdk.do("kill")


def test_without_ipv6(internet: Internet, sdk: Client) -> None:
    """The server's default: it is switched off in the shared network, and the rest works."""
    sdk.create(MACHINE, allowing(plan.ALLOWED), **TRUST)
    assert run(sdk, "cat", "/proc/sys/net/ipv6/conf/all/disable_ipv6").stdout == "1\n"
    assert reaches(sdk, plan.ALLOWED) and not reaches(sdk, plan.ALLOWED, "-6")
    assert not reaches(sdk, plan.DENIED)
    assert internet.web.hosts() == {plan.ALLOWED}
    sdk.do("kill")


def settings(**values: str) -> dict[str, str]:
    """What a create request's environment says for the sidecar; the server hands it on."""
    return TRUST | {f"OPENSANDBOX_EGRESS_{name}": value for name, value in values.items()}


def test_settings_of_a_create_request(internet: Internet, sdk: Client, tmp_path: Path) -> None:
    told = f"http://{plan.SINK4}:80/told"
    attributes = "team=blue,zone=lab"
    values = {"DENY_WEBHOOK": told, "POLICY_FILE": "/tmp/policy.json", "METRICS_EXTRA_ATTRS": attributes}
    sdk.create(MACHINE, allowing(plan.ALLOWED), **settings(**values))
    assert reaches(sdk, plan.ALLOWED) and not reaches(sdk, plan.DENIED)
    arrived: list[str] = []

    def is_told() -> bool:
        arrived.append(internet.sinks.data())
        return f'"hostname":"{plan.DENIED}"' in "".join(arrived)

    wait_until(is_told, "word of the refused name")
    assert "POST /told HTTP/1.1" in "".join(arrived) and f'"sandboxId":"{sdk.id}"' in "".join(arrived)
    # The file is written with the change.
    sdk.do("patch", [rule("allow", plan.OTHER)])
    sdk.docker.docker("cp", f"{sdk.sidecar}:/tmp/policy.json", str(tmp_path / "policy.json"))
    targets = {entry["target"] for entry in json.loads((tmp_path / "policy.json").read_text())["egress"]}
    assert targets == {plan.ALLOWED, plan.OTHER}
    said = [line for line in sdk.docker.logs(sdk.sidecar).splitlines() if not line.startswith("{")]
    assert said and all("team: blue, zone: lab" in line for line in said if ": info: " in line), said
    sdk.do("kill")


def test_log_level_of_a_create_request(sdk: Client) -> None:
    """What is said at other levels is shown by :func:`test_settings_of_a_create_request`."""
    sdk.create(MACHINE, allowing(plan.ALLOWED), **settings(LOG_LEVEL="error"))
    sdk.do("patch", [rule("allow", plan.OTHER)])
    assert reaches(sdk, plan.OTHER)
    log = sdk.docker.logs(sdk.sidecar)
    # Records are no log: they are there all the same.
    assert log and all(line.startswith("{") for line in log.splitlines()), log
    sdk.do("kill")


@pytest.mark.parametrize("seconds", [1, 4])
def test_upstream_timeout_of_a_create_request(internet: Internet, sdk: Client, seconds: int) -> None:
    """How long one try may take. A server that says nothing is asked twice."""
    sdk.create(MACHINE, allowing(plan.ALLOWED), **settings(DNS_UPSTREAM_TIMEOUT=str(seconds)))
    script = (
        "import dns.message, dns.query, dns.rcode, sys, time\n"
        "begun = time.monotonic()\n"
        "answer = dns.query.udp(dns.message.make_query(sys.argv[2], 'A'), sys.argv[1], timeout=20)\n"
        "print(dns.rcode.to_text(answer.rcode()), time.monotonic() - begun)\n"
    )
    ask = ("/usr/bin/python3", "-c", script, plan.DNS4, plan.ALLOWED)
    os.kill(internet.dns.pid, signal.SIGSTOP)
    try:
        done = run(sdk, *ask)
    finally:
        os.kill(internet.dns.pid, signal.SIGCONT)
    rcode, _, passed = done.stdout.partition(" ")
    assert rcode == "SERVFAIL" and seconds * 0.9 <= float(passed) < 2 * seconds + 1.5, done
    assert run(sdk, *ask).stdout.startswith("NOERROR ")
    sdk.do("kill")


STREAM = ("/usr/bin/python3", "/attacks/stream.py", "plain", plan.SINK, str(streams.PLAIN_PORT))
SHARED = Path("/opt/opensandbox")
"""Where the server mounts a volume into both containers, first filled from the sidecar's image."""


@contextlib.contextmanager
def with_clock(net: Internet, docker: Engine, directory: Path) -> Iterator[OpenSandbox]:
    """A server whose sidecars go by a clock that can be set ahead."""
    (directory / "files").mkdir()
    with contextlib.closing(Clock(directory / "files")) as clock:
        variables = [f"ENV {name}={value}" for name, value in clock.environment(SHARED).items()]
    docker.build("sandgate:clock", f"FROM {SANDGATE}", f"COPY . {SHARED}", *variables, files=directory / "files")
    with opensandbox(net, docker, directory, Settings(port=8081, image="sandgate:clock")) as made:
        yield made


@pytest.mark.slow
@pytest.mark.attack(
    "N9 B4",
    "keeps connections, addresses and answers through a pause that outlasts them, in a sandbox of OpenSandbox's",
    stopped_by="relay, kernel, dns",
)
@pytest.mark.parametrize("is_real", [True, False], ids=["a-minute", "hours"])
@pytest.mark.usefixtures("stream_server")
def test_long_pause(internet: Internet, docker: Engine, server: OpenSandbox, tmp_path: Path, is_real: bool) -> None:
    """A minute really passes; in hours that pass by the sidecar's clock alone, more comes to its end."""
    seconds = 65 if is_real else 3 * 3600
    with contextlib.ExitStack() as stack:
        used = server if is_real else stack.enter_context(with_clock(internet, docker, tmp_path))
        sdk = stack.enter_context(used.client())
        sdk.create(MACHINE, allowing(plan.ALLOWED, plan.OTHER), **TRUST)
        found = sdk.do("endpoint", 18080)
        headers = dict(found["headers"])
        port = docker.docker("port", sdk.sidecar, "18080/tcp").splitlines()[0].rpartition(":")[2]
        with inside(docker.namespace.name):
            kept = http.client.HTTPConnection("127.0.0.1", int(port), timeout=30)
            kept.connect()
        stack.callback(kept.close)
        connected = kept.sock

        def ask(method: str, body: object = None) -> Any:
            kept.request(method, "/policy", None if body is None else json.dumps(body), headers)
            answer = json.loads(kept.getresponse().read())
            assert answer["status"] == "ok" and kept.sock is connected, answer
            return answer

        end = datetime.now(timezone.utc) + timedelta(seconds=seconds - 5)
        ask("PATCH", [{"action": "allow", "target": plan.SINK, "expiresAt": end.isoformat()}])
        sdk.do("delete", [plan.OTHER])
        stream = docker.begin(sdk.sandbox, *STREAM)
        stack.callback(stream.kill)
        assert stream.stdout is not None and stream.stdout.readline() == "live\n"
        assert reaches(sdk, plan.ALLOWED) and not reaches(sdk, plan.OTHER)
        clock = None
        if not is_real:
            pid = docker.inspect(sdk.sidecar, "{{.State.Pid}}")
            clock = stack.enter_context(contextlib.closing(Clock(Path(f"/proc/{pid}/root{SHARED}"))))
        sdk.do("pause")
        assert docker.inspect(sdk.sidecar, "{{.State.Paused}}") == "true"
        internet.forget()
        if clock is None:
            # It is time itself that has to pass.
            time.sleep(seconds)
        else:
            clock.jump(seconds)
        file, expression = internet.directory / "pause.pcap", f"dst host {plan.SINK4} and tcp[tcpflags] & tcp-push != 0"
        with capture(internet.namespace.command(), "any", file, expression) as outside:
            sdk.do("resume")
            # A connection that was kept is good for the first request, and what is allowed is there at once.
            assert ask("GET")["mode"] == "enforcing"
            assert stream.communicate(timeout=30)[0].startswith("ended")
            if not is_real:
                assert not reaches(sdk, plan.ALLOWED, "--resolve", f"{plan.ALLOWED}:443:{plan.SHARED4}")
            assert reaches(sdk, plan.ALLOWED), docker.logs(sdk.sidecar)
            assert plan.ALLOWED in internet.dns.names(), "an answer that was out of date"
            assert not reaches(sdk, plan.OTHER)
            again = run(sdk, *STREAM)
            assert again.returncode != 0 and "live" not in again.stdout, again
        assert not outside.lines, outside
        assert internet.web.hosts() == {plan.ALLOWED}
        sdk.do("patch", [rule("allow", plan.OTHER)])
        assert reaches(sdk, plan.OTHER)
        sdk.do("kill")


def test_sidecar_that_ends(internet: Internet, sdk: Client) -> None:
    """The server does not start it again: the sandbox reaches nothing until it is killed."""
    sdk.create(MACHINE, allowing(plan.ALLOWED), **TRUST)
    sandbox, sidecar = sdk.sandbox, sdk.sidecar
    assert reaches(sdk, plan.ALLOWED)
    internet.forget()
    sdk.docker.docker("kill", sidecar)
    sdk.docker.docker("wait", sidecar)
    assert not reaches(sdk, plan.ALLOWED) and not reaches(
        sdk, plan.ALLOWED, "--resolve", f"{plan.ALLOWED}:443:{plan.SHARED4}"
    )
    assert internet.web.requests() == [] and sandbox == sdk.sandbox
    sdk.do("kill")


def test_policies_that_make_no_sense(sdk: Client) -> None:
    """The sandbox does not begin, and nothing stays."""
    with pytest.raises(SDKError, match="Egress sidecar did not become ready"):
        sdk.create(MACHINE, {"defaultAction": "deny", "egress": [rule("allow", "a b")]}, **TRUST)
    listed = sdk.docker.docker("ps", "--all", "--quiet", "--filter", "label=opensandbox.io/egress-sidecar-for")
    assert listed == ""


def test_policy_api_through_the_sandbox(sdk: Client) -> None:
    """The SDK's way: the token is needed, and does."""
    sdk.create(MACHINE, allowing(plan.ALLOWED), **TRUST)
    found = sdk.do("endpoint", 18080)
    url = f"http://{found['endpoint']}/policy"
    ask = sdk.docker.namespace.command("curl", "-sS", "-m", "5", url)
    assert subprocess.run(ask, capture_output=True, text=True).stdout == "unauthorized\n"
    headers = [word for name, value in found["headers"].items() for word in ("-H", f"{name}: {value}")]
    answer = json.loads(subprocess.run([*ask, *headers], capture_output=True, text=True).stdout)
    assert (answer["status"], answer["mode"], answer["enforcementMode"]) == ("ok", "enforcing", "dns+nft")
    assert run(sdk, "curl", "-sS", "-m", "5", "http://127.0.0.1:18080/policy").stdout == "unauthorized\n"
    sdk.do("kill")
