"""What lives in a daemon's sandboxes, as its API lists it: each way out, with the bytes that passed and the rule that opened it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from lab import plan
from lab.asker import Asker
from lab.daemon import Daemon, Sandbox, running
from lab.internet import Internet
from lab.processes import check, wait_until
from lab.sandgate import allowing

PROXY = f"http://{plan.EXPLICIT_PROXY}"
SOCKS = f"socks5h://{plan.EXPLICIT_PROXY}"
BIG = f"{plan.FILES}/big.bin"
PORT = 4444

Listing = dict[str, Any]
Found = Callable[[Listing], object]


def listing(sandbox: Sandbox, query: str = "") -> Listing:
    answer = sandbox.ask("GET", f"/connections{query}")
    assert answer.status == 200, answer
    found: Listing = answer.json
    assert found["total"] == len(found["items"]) + found["omitted"], found
    return found


def waited_for(sandbox: Sandbox, condition: Found, what: str, query: str = "") -> Listing:
    """The first listing that is as it should be."""
    seen: list[Listing] = []

    def is_so() -> bool:
        seen.append(listing(sandbox, query))
        return bool(condition(seen[-1]))

    try:
        wait_until(is_so, what)
    except TimeoutError as error:
        raise AssertionError(f"{error}: {seen[-1]}") from error
    return seen[-1]


def download(sandbox: Sandbox, url: str, *options: str) -> subprocess.Popen[str]:
    """A download that goes on for longer than any test."""
    return sandbox.start("curl", "-sS", "-k", "--limit-rate", "1M", "-o", "/dev/null", *options, url)


SENDER = """
import socket, sys
address, port, count, kind = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
client.connect((address, port))
client.sendall(bytes(count))
sys.stdin.read()
"""


def sender(sandbox: Sandbox, address: str, port: int, count: int, kind: str = "tcp") -> subprocess.Popen[str]:
    """Connects, sends so many bytes, and stays."""
    return sandbox.start("/usr/bin/python3", "-c", SENDER, address, str(port), str(count), kind)


def stop(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


@pytest.mark.parametrize(
    ("url", "options", "via", "layer"),
    [
        (f"https://{BIG}", (), "redirected", "tls-sni"),
        (f"http://{BIG}", (), "redirected", "http-host"),
        (f"https://{BIG}", ("--proxy", PROXY), "connect", "tls-sni"),
        (f"https://{BIG}", ("--proxy", SOCKS), "socks", "tls-sni"),
        (f"http://{BIG}", ("--proxy", PROXY), "proxy", "http-host"),
    ],
    ids=["tls", "http", "connect", "socks", "http by the proxy"],
)
def test_download_is_listed(
    internet: Internet, daemon: Daemon, url: str, options: tuple[str, ...], via: str, layer: str
) -> None:
    """With the name it asked for, where it goes, the rule that opens it, and bytes that become more."""
    sandbox = daemon.create(allowing(plan.ALLOWED, plan.FILES), id="box")
    assert listing(sandbox)["items"] == []
    client = download(sandbox, url, *options)
    first = waited_for(sandbox, lambda found: any(one["bytesDown"] for one in found["items"]), "bytes of the download")
    (one,) = first["items"]
    assert (one["sandbox"], one["id"], one["state"], one["via"], one["layer"]) == ("box", "tcp-1", "open", via, layer), one
    assert one["ip"] in (plan.CONTENT4, plan.CONTENT6) and one["port"] == (443 if url.startswith("https") else 80)
    assert one["host"] == plan.FILES
    assert one["rule"] == {"index": 1, "action": "allow", "target": plan.FILES} and one["reason"] == "rule"
    assert first["time"] > one["since"] and one["bytesUp"] > 0
    assert (first["bytesUp"], first["bytesDown"]) == (one["bytesUp"], one["bytesDown"])
    # It is listed with its own bytes: what it has when it ends is what its record says.
    later = waited_for(
        sandbox, lambda found: found["items"][0]["bytesDown"] > one["bytesDown"] + (1 << 20), "a mebibyte more"
    )
    assert later["items"][0]["id"] == one["id"]
    stop(client)
    ended = waited_for(sandbox, lambda found: found["items"] == [], "the end of the download")
    closings: list[dict[str, Any]] = []

    def is_recorded() -> bool:
        closings[:] = [record for record in daemon.records(sandbox="box") if record["event"] == "connection.closed"]
        return bool(closings)

    wait_until(is_recorded, "the record of the end")
    (closed,) = closings
    assert (ended["bytesUp"], ended["bytesDown"]) == (closed["bytesUp"], closed["bytesDown"])
    assert closed["bytesDown"] >= later["items"][0]["bytesDown"]


def test_bytes_are_those_that_passed(internet: Internet, daemon: Daemon) -> None:
    """Those that the kernel moves by itself too: as many as were sent, neither estimated nor rounded."""
    count = 5_000_001
    rule = {"target": plan.SINK4, "ports": [PORT]}
    sandbox = daemon.create(allowing(rule))
    upload = sender(sandbox, plan.SINK4, PORT, count)
    found = waited_for(sandbox, lambda found: found["bytesUp"] >= count, "the upload")
    (one,) = found["items"]
    assert (one["bytesUp"], one["layer"], one.get("host")) == (count, "ip", None), one
    assert (one["ip"], one["port"], one["rule"]["target"]) == (plan.SINK4, PORT, plan.SINK4)
    stop(upload)


def test_datagram_flow_is_listed(internet: Internet, daemon: Daemon) -> None:
    sandbox = daemon.create(allowing({"target": plan.SINK, "ports": [PORT], "protocol": "udp"}))
    sandbox.run("getent", "ahosts", plan.SINK)
    client = sender(sandbox, plan.SINK4, PORT, 12, "udp")
    found = waited_for(sandbox, lambda found: found["bytesUp"] > 0, "the datagram")
    (one,) = found["items"]
    assert (one["id"], one["protocol"], one["state"], one["layer"]) == ("udp-1", "udp", "open", "ip"), one
    assert (one["host"], one["ip"], one["port"], one["bytesUp"]) == (plan.SINK, plan.SINK4, PORT, 12), one
    assert one["rule"]["target"] == plan.SINK
    stop(client)
    sandbox.ask("PUT", "/policy", allowing(plan.ALLOWED))
    assert listing(sandbox)["items"] == []


def test_what_is_not_judged_yet_has_no_verdict(internet: Internet, daemon: Daemon) -> None:
    """A client that says nothing: where it goes is known, not what it wants."""
    sandbox = daemon.create(allowing(plan.FILES))
    sandbox.run("getent", "ahosts", plan.FILES)
    client = sender(sandbox, plan.CONTENT4, 443, 0)
    (one,) = waited_for(sandbox, lambda found: found["total"] == 1, "the connection")["items"]
    assert (one["state"], one["via"], one["ip"], one["port"]) == ("opening", "redirected", plan.CONTENT4, 443), one
    assert not {"layer", "rule", "reason"} & set(one), one
    # The name is that of the address: the connection has shown none.
    assert one["host"] == plan.FILES and (one["bytesUp"], one["bytesDown"]) == (0, 0)
    stop(client)


def test_rule_is_one_of_the_policy_in_force(internet: Internet, daemon: Daemon) -> None:
    sandbox = daemon.create(allowing(plan.FILES))
    client = download(sandbox, f"https://{BIG}")
    waited_for(sandbox, lambda found: found["bytesDown"] > 0, "the download")
    assert sandbox.ask("PUT", "/policy", allowing(plan.ALLOWED, "*.example")).status == 200
    (one,) = listing(sandbox)["items"]
    assert one["rule"] == {"index": 1, "action": "allow", "target": "*.example"}
    assert sandbox.ask("PUT", "/policy", allowing(plan.ALLOWED)).status == 200
    assert listing(sandbox)["items"] == []
    stop(client)


def test_what_only_report_mode_lets_through(internet: Internet, daemon: Daemon) -> None:
    sandbox = daemon.create(allowing(plan.ALLOWED, mode="report"))
    client = download(sandbox, f"https://{BIG}")
    (one,) = waited_for(sandbox, lambda found: found["bytesDown"] > 0, "the download")["items"]
    assert (one["host"], one["report"], one["reason"]) == (plan.FILES, True, "default") and "rule" not in one, one
    stop(client)


MANY = 2_500
HOLDER = """
import socket, sys
held = [socket.create_connection(("127.0.0.1", 64128)) for _ in range(int(sys.argv[1]))]
print("held", flush=True)
sys.stdin.read()
"""


def test_bounds(internet: Internet, daemon: Daemon) -> None:
    """More connections than are looked at in one turn of the loop, and more than are listed: each is counted once."""
    sandbox, other = daemon.create(allowing(plan.FILES)), daemon.create(allowing(plan.FILES))
    client = download(other, f"https://{BIG}")
    holder = sandbox.start("/usr/bin/python3", "-c", HOLDER, str(MANY))
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    found = waited_for(sandbox, lambda found: found["total"] == MANY, "all of them", "?limit=1000")
    assert len(found["items"]) == 1_000 and len({one["id"] for one in found["items"]}) == 1_000
    assert len(listing(sandbox)["items"]) == 100
    newest = [int(one["id"].removeprefix("tcp-")) for one in listing(sandbox, "?order=newest&limit=3")["items"]]
    oldest = [int(one["id"].removeprefix("tcp-")) for one in listing(sandbox, "?order=oldest&limit=3")["items"]]
    assert (newest, oldest) == ([MANY, MANY - 1, MANY - 2], [1, 2, 3])
    waited_for(other, lambda found: found["bytesDown"] > 0, "the download")
    answer = daemon.request("GET", "/v1/connections?limit=1")
    assert answer.status == 200
    everything = answer.json
    assert (everything["total"], everything["omitted"]) == (MANY + 1, MANY)
    assert [(one["sandbox"], one["host"]) for one in everything["items"]] == [(other.id, plan.FILES)]
    stop(client)
    stop(holder)
    waited_for(sandbox, lambda found: found["total"] == 0, "their end")


TURN = 2_000
"""How much is looked at in a turn: connections, datagram flows, and one for each sandbox."""


def test_sandbox_that_begins_where_a_turn_ends(internet: Internet, tmp_path: Path) -> None:
    """Is looked at once, though only its beginning was in that turn."""
    configuration = tmp_path / "configuration.yaml"
    configuration.write_text("loops: 1\n")
    with running(internet, tmp_path, "--config", str(configuration)) as daemon:
        # Whichever comes first, it leaves room for one in its turn.
        rule = {"target": plan.SINK4, "ports": [PORT], "protocol": "udp"}
        pair = [daemon.create(allowing(rule)) for _ in range(2)]
        clients = [sender(sandbox, plan.SINK4, PORT, 1, "udp") for sandbox in pair]
        clients += [sandbox.start("/usr/bin/python3", "-c", HOLDER, str(TURN - 3)) for sandbox in pair]
        for sandbox in pair:
            waited_for(sandbox, lambda found: (found["total"], found["bytesUp"]) == (TURN - 2, 1), "all of them")
        answer = daemon.request("GET", "/v1/connections").json
        assert (answer["total"], answer["bytesUp"]) == (2 * (TURN - 2), 2), answer["total"]
        for client in clients:
            stop(client)


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/v1/connections?limit=0", 400, "expected a number of 1...1000"),
        ("/v1/connections?limit=1001", 400, "expected a number of 1...1000"),
        ("/v1/connections?order=fastest", 400, "expected bytes, newest, oldest"),
        ("/v1/connections?sandbox=box", 400, "unknown: expected limit, order"),
        ("/v1/sandboxes/absent/connections", 404, "there is no sandbox absent"),
        ("/v1/sandboxes/a%2Fb/connections", 400, "expected the id of a sandbox"),
    ],
)
def test_what_cannot_be_listed(internet: Internet, daemon: Daemon, path: str, status: int, words: str) -> None:
    answer = daemon.request("GET", path)
    assert answer.status == status and words in answer.text, answer


def test_reading_takes_a_token_for_reading(internet: Internet, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("full-token-of-sixteen\nread-token-of-sixteen read-only\n")
    address = "127.0.0.1:64480"
    with running(internet, tmp_path, "--listen", address, "--token-file", str(tokens)) as daemon:
        daemon.create(allowing(plan.ALLOWED), id="box")
        for path in ("/v1/connections", "/v1/sandboxes/box/connections"):
            command = ["curl", "-sS", "-w", "\n%{http_code}", f"http://{address}{path}"]
            assert check(*command).endswith("\n401")
            text, status = check(*command, "-H", "Authorization: Bearer read-token-of-sixteen").rsplit("\n", 1)
            assert status == "200" and json.loads(text)["items"] == []


@pytest.fixture
def asker(daemon: Daemon) -> Iterator[tuple[Sandbox, Asker]]:
    sandbox = daemon.create(allowing(plan.ALLOWED))
    made = Asker(sandbox.start(*Asker.command(plan.ALLOWED)))
    yield sandbox, made
    made.end()


def test_connection_that_goes_on_in_the_next_process(
    internet: Internet, daemon: Daemon, asker: tuple[Sandbox, Asker]
) -> None:
    sandbox, client = asker
    before = client.ask()
    (one,) = listing(sandbox)["items"]
    daemon.hand_over()
    assert client.ask() == before
    (other,) = listing(sandbox)["items"]
    same = ("via", "layer", "host", "ip", "port", "rule", "state")
    assert {key: one[key] for key in same} == {key: other[key] for key in same}
    assert other["bytesDown"] > one["bytesDown"]
    # Told by two clocks, each time it is asked for.
    moved = datetime.fromisoformat(other["since"]) - datetime.fromisoformat(one["since"])
    assert abs(moved.total_seconds()) < 0.1
