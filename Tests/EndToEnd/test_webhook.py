"""Refusals told to a server: in order, signed, once it can be reached, and never at the cost of what is served."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import plan
from lab.certificates import make_certificates
from lab.daemon import Sandbox, running
from lab.internet import Internet
from lab.processes import wait_until
from lab.receiver import Receiver, receiving
from lab.sandgate import allowing
from lab.tool import tool

SECRET = b"a secret of the lab's own"

# Asks for names below one that is denied, as fast as it can: arguments are how many, and where the resolver is.
FLOOD = """
import socket, struct, sys
ask = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
ask.connect((sys.argv[2], 53))
ask.settimeout(5)
for number in range(int(sys.argv[1])):
    name = b"".join(bytes([len(label)]) + label for label in (b"n%d" % number, b"denied", b"test")) + b"\\0"
    ask.send(struct.pack(">6H", number & 0xFFFF, 0x100, 1, 0, 0, 0) + name + struct.pack(">2H", 1, 1))
    ask.recv(512)
"""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "webhook.secret"
    path.write_bytes(SECRET + b"\n")
    return path


def refuse(sandbox: Sandbox, *names: str) -> None:
    """Has the sandbox ask for names that it may not ask for."""
    for name in names:
        assert sandbox.run("getent", "ahostsv4", name).returncode != 0


def told(receiver: Receiver) -> list[str]:
    """The hosts of the records that were taken, each once, in their order."""
    return list(dict.fromkeys(record["host"] for record in receiver.records))


def test_denials_are_told(internet: Internet, tmp_path: Path, receiver: Receiver, secret: Path) -> None:
    options = ("--denial-webhook", receiver.url, "--denial-webhook-secret-file", str(secret))
    with running(internet, tmp_path, *options) as daemon:
        sandbox = daemon.create(allowing(plan.ALLOWED), id="box")
        assert sandbox.reaches(plan.ALLOWED)
        assert not sandbox.reaches(plan.DENIED, "--resolve", f"{plan.DENIED}:443:{plan.SHARED4}")
        refuse(sandbox, "one.test", "two.test")
        receiver.wait_for("two.test")

        def denied() -> list[dict[str, object]]:
            return [record for record in daemon.records() if record["event"].endswith(".denied")]

        wait_until(lambda: receiver.records == denied(), "every refusal, as it is in the trail")
    for delivery in receiver.deliveries:
        assert delivery.is_signed_with(SECRET) and not delivery.is_signed_with(b"another secret of them")
        assert delivery.path == "/denials?tenant=1" and delivery.headers["content-type"] == "application/json"
        assert delivery.json["node"] == socket.gethostname() and delivery.json["lost"] == 0
    assert {record["event"] for record in receiver.records} == {"dns.denied", "connection.denied"}


def test_unsigned_without_a_secret(internet: Internet, tmp_path: Path, receiver: Receiver) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"denialWebhook: {json.dumps(receiver.url)}\n")
    with running(internet, tmp_path, "--config", str(config)) as daemon:
        refuse(daemon.create(), "one.test")
        receiver.wait_for("one.test")
    assert "x-sandgate-signature" not in receiver.deliveries[0].headers


def test_records_gather(internet: Internet, tmp_path: Path, receiver: Receiver) -> None:
    """One request tells all of what is refused within a second; nothing is sent while nothing is refused."""
    with running(internet, tmp_path, "--denial-webhook", receiver.url) as daemon:
        sandbox = daemon.create()
        sandbox.run("/usr/bin/python3", "-c", FLOOD, "300", plan.DNS4)
        wait_until(lambda: daemon.metrics()["sandgate_webhook_delivered_total"] >= 300, "the records")
        assert len(receiver.deliveries) <= 2
        sandbox.run("/usr/bin/python3", "-c", FLOOD, "1200", plan.DNS4)
        wait_until(lambda: daemon.metrics()["sandgate_webhook_delivered_total"] >= 1500, "the records")
    assert max(len(delivery.json["records"]) for delivery in receiver.deliveries) == 500


def test_server_that_comes_later(internet: Internet, tmp_path: Path) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    with running(internet, tmp_path, "--denial-webhook", f"http://127.0.0.1:{port}/") as daemon:
        sandbox = daemon.create(allowing(plan.ALLOWED))
        refuse(sandbox, "one.test")
        wait_until(lambda: daemon.metrics()["sandgate_webhook_failures_total"] >= 2, "two tries")
        refuse(sandbox, "two.test")
        assert sandbox.reaches(plan.ALLOWED)
        assert daemon.metrics()["sandgate_webhook_queue_records"] >= 2
        with receiving(port) as receiver:
            receiver.wait_for("two.test", 20)
            assert told(receiver) == ["one.test", "two.test"]
            wait_until(lambda: daemon.metrics()["sandgate_webhook_queue_records"] == 0, "the queue")
        # An outage is said once, and its end.
        assert daemon.log.count("Connection refused") == 1, daemon.log
        assert "takes records again" in daemon.log


def test_server_that_fails(internet: Internet, tmp_path: Path, receiver: Receiver, secret: Path) -> None:
    """What is sent again is the same, and nothing overtakes it."""
    receiver.answers = [500, 503, 404]
    options = ("--denial-webhook", receiver.url, "--denial-webhook-secret-file", str(secret))
    with running(internet, tmp_path, *options) as daemon:
        sandbox = daemon.create()
        refuse(sandbox, "one.test")
        wait_until(lambda: receiver.deliveries, "the first try")
        refuse(sandbox, "two.test")
        receiver.wait_for("two.test", 20)
        assert daemon.metrics()["sandgate_webhook_failures_total"] == 3
    assert [delivery.status for delivery in receiver.deliveries[:4]] == [500, 503, 404, 204]
    first = receiver.deliveries[0]
    assert all(delivery.body == first.body for delivery in receiver.deliveries[:4])
    assert all(delivery.is_signed_with(SECRET) for delivery in receiver.deliveries)
    assert told(receiver) == ["one.test", "two.test"]


def test_redirects_are_not_followed(internet: Internet, tmp_path: Path, receiver: Receiver) -> None:
    with receiving() as other, running(internet, tmp_path, "--denial-webhook", receiver.url) as daemon:
        receiver.answers = [other.url]
        refuse(daemon.create(), "one.test")
        receiver.wait_for("one.test")
        assert [delivery.status for delivery in receiver.deliveries] == [307, 204]
        assert other.begun == 0


def test_server_whose_certificate_nobody_knows(internet: Internet, tmp_path: Path) -> None:
    """The lab's authority is none of the node's."""
    certificates = make_certificates(tmp_path / "tls", ["localhost"])
    with receiving(certificates=certificates) as receiver:
        with running(internet, tmp_path, "--denial-webhook", receiver.url) as daemon:
            refuse(daemon.create(), "one.test")
            wait_until(lambda: daemon.metrics()["sandgate_webhook_failures_total"] >= 2, "two tries")
            assert "CERTIFICATE_VERIFY_FAILED" in daemon.log, daemon.log
        assert receiver.begun == 0


def test_batch_that_the_server_will_never_take(internet: Internet, tmp_path: Path, receiver: Receiver) -> None:
    receiver.answers = [400, 422, 413]
    with running(internet, tmp_path, "--denial-webhook", receiver.url) as daemon:
        sandbox = daemon.create()
        refuse(sandbox, "one.test")
        wait_until(lambda: len(receiver.deliveries) == 3, "three tries")
        refuse(sandbox, "two.test")
        receiver.wait_for("two.test")
        lost = len(receiver.deliveries[0].json["records"])
        assert receiver.deliveries[3].json["lost"] == lost
        assert daemon.metrics()["sandgate_webhook_lost_total"] == lost
        assert "one.test" not in told(receiver)


def test_slow_server_holds_up_nobody(internet: Internet, tmp_path: Path, receiver: Receiver) -> None:
    receiver.is_open.clear()
    with running(internet, tmp_path, "--denial-webhook", receiver.url) as daemon:
        sandbox = daemon.create(allowing(plan.ALLOWED))
        refuse(sandbox, "one.test")
        wait_until(lambda: receiver.begun == 1, "the request")
        refuse(sandbox, "two.test")
        assert sandbox.reaches(plan.ALLOWED)
        # The journal goes on as well.
        assert [record for record in daemon.records(host="two.test")]
        assert receiver.deliveries == []
        receiver.is_open.set()
        receiver.wait_for("two.test")
        assert told(receiver) == ["one.test", "two.test"]
        assert daemon.metrics()["sandgate_webhook_failures_total"] == 0


def test_what_does_not_fit_is_counted(internet: Internet, tmp_path: Path, receiver: Receiver) -> None:
    receiver.is_open.clear()
    with running(internet, tmp_path, "--denial-webhook", receiver.url) as daemon:
        sandbox = daemon.create()
        done = sandbox.run("/usr/bin/python3", "-c", FLOOD, "11000", plan.DNS4)
        assert done.returncode == 0, done
        wait_until(lambda: daemon.metrics()["sandgate_webhook_lost_total"] >= 1000, "the loss")
        assert daemon.metrics()["sandgate_webhook_queue_records"] == 10_000
        assert daemon.metrics()["sandgate_audit_lost_total"] == 0
        receiver.is_open.set()
        wait_until(lambda: daemon.metrics()["sandgate_webhook_queue_records"] == 0, "the queue", 30)
        denied = 'sandgate_events_total{event="dns.denied",layer="dns",verdict="deny",reason="default"}'
        samples = daemon.metrics()
        told_lost = sum(delivery.json["lost"] for delivery in receiver.taken)
        assert told_lost == samples["sandgate_webhook_lost_total"]
        assert len(receiver.records) + told_lost == samples[denied]
    numbers = [record["seq"] for record in receiver.records]
    assert numbers == sorted(set(numbers))


def test_stop_tells_what_is_left(internet: Internet, tmp_path: Path, receiver: Receiver) -> None:
    with running(internet, tmp_path, "--denial-webhook", receiver.url) as daemon:
        refuse(daemon.create(), "one.test")
        assert daemon.end(signal.SIGTERM) == 0
        assert "one.test" in told(receiver)


def test_restart_under_way_misses_nothing(internet: Internet, tmp_path: Path, receiver: Receiver) -> None:
    """Names are asked for all the while: every refusal is told, by this process or the next, or said not to be."""
    with running(internet, tmp_path, "--denial-webhook", receiver.url) as daemon:
        sandbox = daemon.create()
        flood = sandbox.start("/usr/bin/python3", "-c", FLOOD, "1000000", plan.DNS4)
        try:
            wait_until(lambda: len(receiver.records) > 0, "the first of them")
            kept = daemon.end_keeping()
            log = daemon.log
            daemon.start(kept)
            count = len(receiver.records)
            wait_until(lambda: len(receiver.records) > count, "the first of the next process")
        finally:
            flood.kill()
            flood.wait()
        wait_until(lambda: daemon.metrics()["sandgate_webhook_queue_records"] == 0, "the queue", 60)
        lost = int(daemon.metrics()["sandgate_webhook_lost_total"])
    lost += sum(int(number) for number in re.findall(r"webhook: (\d+) records were not told", log))
    trail = (json.loads(line) for path in daemon.audit.glob("*.jsonl") for line in path.read_text().splitlines())
    refused = {record["seq"] for record in trail if record["event"] == "dns.denied"}
    missed = refused - {record["seq"] for record in receiver.records}
    assert refused and len(missed) <= lost, (len(refused), len(missed), lost)


def test_stop_does_not_wait_for_a_server_that_is_gone(internet: Internet, tmp_path: Path, receiver: Receiver) -> None:
    receiver.is_open.clear()
    with running(internet, tmp_path, "--denial-webhook", receiver.url) as daemon:
        refuse(daemon.create(), "one.test")
        wait_until(lambda: receiver.begun == 1, "the request")
        start = time.monotonic()
        assert daemon.end(signal.SIGTERM) == 0
        assert time.monotonic() - start < 5
        assert "records were not told" in daemon.log


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--denial-webhook", "ftp://siem.example/"], "expected a URL of http or https"),
        (["--denial-webhook", "siem.example"], "expected a URL of http or https"),
        (["--denial-webhook", "http://user:word@siem.example/"], "a user or a password"),
        (["--denial-webhook-secret-file", "/etc/hostname"], "needs --denial-webhook"),
        (
            ["--denial-webhook", "http://siem.example/", "--denial-webhook-secret-file", "/absent"],
            "cannot read /absent: No such file",
        ),
        (
            ["--denial-webhook", "http://siem.example/", "--denial-webhook-secret-file", "/dev/null"],
            "/dev/null: a secret has at least 16 bytes",
        ),
    ],
    ids=lambda value: str(value),
)
def test_configuration_that_cannot_be(tmp_path: Path, options: list[str], problem: str) -> None:
    places: list[str | Path] = ["--socket", tmp_path / "api.sock", "--state-dir", tmp_path / "s", "--runtime-dir", tmp_path / "r"]
    done = tool("serve", *places, "--audit-dir", tmp_path / "a", *options)
    assert done.returncode == 1 and problem in done.stderr, done
    assert "user:word" not in done.stderr
