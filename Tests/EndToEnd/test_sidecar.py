"""The sidecar: OpenSandbox's policy API, and a network that the enforcer shares with the sandbox."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import plan
from lab.capture import capture
from lab.flood_watch import Watch, flooding, starting
from lab.internet import Internet
from lab.processes import wait_until
from lab.sandgate import allowing
from lab.sidecar import INSIDE4, OUTSIDE4, SharedNetwork, Sidecar, sidecar
from lab.tool import binary, tool

ATTACKS = Path(__file__).parent / "attacks" / "shared_namespace.py"
TOKEN = "token-of-the-server"


@pytest.fixture
def shared(internet: Internet, tmp_path: Path) -> Iterator[Sidecar]:
    with sidecar(internet, tmp_path) as made:
        yield made


# Enforcement


@pytest.mark.attack(
    "N1 D1",
    "reaches denied names and their addresses from a network that it shares with the sidecar",
    stopped_by="kernel, dns",
)
@pytest.mark.parametrize("mode", ["", "dns", "dns+nft"])
def test_policy_is_enforced(internet: Internet, shared: Sidecar, mode: str) -> None:
    """In each of the original's modes, all there is."""
    assert shared.reaches(plan.DENIED), "without a sidecar everything is reached"
    internet.forget()
    shared.start(allowing(plan.ALLOWED), MODE=mode)
    assert shared.request("GET", "/policy").json["enforcementMode"] == "dns+nft"
    assert shared.reaches(plan.ALLOWED) and shared.reaches(plan.ALLOWED, "-6"), shared.log
    assert not shared.reaches(plan.DENIED)
    assert not shared.reaches(plan.DENIED, "--resolve", f"{plan.DENIED}:443:{plan.DENIED4}")
    assert not shared.reaches(plan.DENIED, "-6", "--resolve", f"{plan.DENIED}:443:[{plan.DENIED6}]")
    # The other name on the same address.
    assert not shared.reaches(plan.OTHER, "--resolve", f"{plan.OTHER}:443:{plan.SHARED4}")
    assert internet.web.hosts() == {plan.ALLOWED}
    denied = [record for record in shared.records() if record["event"] == "dns.denied"]
    assert denied and denied[0]["host"] == plan.DENIED and denied[0]["sandbox"] == "sandbox"


@pytest.mark.attack("T4", "has no policy at all, under a sidecar", stopped_by="kernel, dns")
def test_without_rules_everything_is_denied(internet: Internet, shared: Sidecar) -> None:
    shared.start(MODE="dns", SANDBOX_ID="sbx-7")
    assert not shared.reaches(plan.ALLOWED) and internet.web.requests() == []
    assert shared.request("GET", "/policy").json == {
        "status": "ok",
        "mode": "deny_all",
        "enforcementMode": "dns+nft",
        "policy": {"defaultAction": "deny", "egress": None},
    }
    wait_until(lambda: any(record["sandbox"] == "sbx-7" for record in shared.records()), "a record")


@pytest.mark.attack(
    "T4", "floods by hand-made packets, datagrams and connections while its sidecar starts", stopped_by="kernel, fence"
)
def test_flood_while_it_starts(internet: Internet, shared: Sidecar, watch: Watch) -> None:
    """From the first answer of /healthz on, nothing arrives."""
    with flooding(starting(internet, shared)):
        before = watch.count
        wait_until(lambda: watch.count > before, "what arrives without enforcement")
        for number in (signal.SIGKILL, signal.SIGTERM):
            shared.start(allowing(plan.ALLOWED))
            with watch.nothing("since it is well"):
                assert shared.reaches(plan.ALLOWED)
                shared.end(number)
                shared.start(allowing(plan.OTHER))
                assert shared.reaches(plan.OTHER)
                shared.end(number)


@pytest.mark.attack("D6", "speaks TLS with servers that the operator lists as resolvers", stopped_by="kernel")
@pytest.mark.parametrize(
    ("variables", "reached"),
    [
        ({}, {plan.ALLOWED, plan.DENIED}),
        ({"BLOCK_DOH_443": "true", "DOH_BLOCKLIST": f"{plan.DENIED4}, {plan.DENIED6}/128"}, {plan.ALLOWED}),
        # A list holds by itself, and the switch without a list closes the port.
        ({"DOH_BLOCKLIST": f"{plan.DENIED4}/32,{plan.DENIED6}"}, {plan.ALLOWED}),
        ({"BLOCK_DOH_443": "1"}, set()),
    ],
    ids=["nothing", "both", "list", "switch"],
)
def test_resolvers_over_https(
    internet: Internet, shared: Sidecar, variables: dict[str, str], reached: set[str]
) -> None:
    shared.start({"defaultAction": "allow"}, **variables)
    for name in (plan.ALLOWED, plan.DENIED):
        assert (shared.reaches(name), shared.reaches(name, "-6")) == (name in reached,) * 2, name
        # Other ports are none of it.
        cleartext = shared.run("curl", "-sS", "-m", "8", f"http://{name}/").stdout
        assert f"served {name}" in cleartext, name
    assert {request.host for request in internet.web.requests() if request.port == 443} == reached


@pytest.mark.attack(
    "D6", "sends to the port of DNS over TLS and over QUIC, at addresses that its policy allows", stopped_by="kernel"
)
@pytest.mark.parametrize("mode", ["", "dns", "dns+nft"])
def test_dns_over_tls(internet: Internet, shared: Sidecar, mode: str) -> None:
    """The original closes it in one of its modes, whatever else is allowed."""
    send = (
        "import contextlib, socket\n"
        f"for address in ('{plan.SINK4}', '{plan.SINK6}'):\n"
        "    for port in (853, 4444):\n"
        "        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):\n"
        "            family = socket.AF_INET6 if ':' in address else socket.AF_INET\n"
        "            with contextlib.suppress(OSError), socket.socket(family, kind) as client:\n"
        "                client.settimeout(5)\n"
        "                client.connect((address, port))\n"
        "                client.sendall(f'{kind.name} to {port}'.encode())\n"
        "                client.recv(100)\n"
    )
    everything = {(kind, port, version) for kind in ("SOCK_STREAM", "SOCK_DGRAM") for port in (853, 4444) for version in "46"}

    def arrived() -> set[tuple[str, int, str]]:
        shared.run("/usr/bin/python3", "-c", send, timeout=60)
        found = set()
        for arrival in internet.sinks.arrivals():
            kind, to, port = arrival.data.partition(" to ")
            if to:
                found.add((kind, int(port), "6" if ":" in arrival.peer else "4"))
        return found

    assert arrived() == everything, "without a sidecar"
    shared.start(allowing(plan.SINK4, plan.SINK6), MODE=mode)
    closed = {way for way in everything if way[1] == 853} if mode == "dns+nft" else set()
    assert arrived() == everything - closed, shared.log


def test_exempt_nameserver_is_none(internet: Internet, shared: Sidecar) -> None:
    """Whoever may ask a server by himself may tell it anything."""
    ask = ("dig", "+short", "+tries=1", "+timeout=3", f"@{plan.OTHER_DNS4}", plan.DENIED)
    assert plan.DENIED4 in shared.run(*ask).stdout, "it works without a sidecar"
    internet.forget()
    shared.start(allowing(plan.ALLOWED), NAMESERVER_EXEMPT=plan.OTHER_DNS4)
    assert "OPENSANDBOX_EGRESS_NAMESERVER_EXEMPT has no effect" in shared.log
    assert shared.run(*ask).stdout.strip() == "" and internet.other_dns.queries() == []


@pytest.mark.honest("a server in the sandbox that is reached from outside")
def test_served_ports_are_reached_from_outside(internet: Internet, shared: Sidecar) -> None:
    shared.start(allowing(plan.ALLOWED))
    server = subprocess.Popen(
        shared.command("/usr/bin/python3", "-m", "http.server", "44772"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        fetch = internet.namespace.command("curl", "-sS", "-m", "2", f"http://{INSIDE4}:44772/")
        wait_until(lambda: "Directory" in subprocess.run(fetch, capture_output=True, text=True).stdout, "the server")
    finally:
        server.kill()
        server.wait()


@pytest.mark.attack("T8 T4 N9", "uses pinned addresses after the sidecar was stopped or killed", stopped_by="kernel")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_rules_outlive_the_sidecar(internet: Internet, shared: Sidecar, tmp_path: Path, number: signal.Signals) -> None:
    """Whatever ends it, the sandbox reaches nothing; another one goes on with the policy that was kept."""
    kept = str(tmp_path / "policy.json")
    shared.start(allowing(plan.OTHER), POLICY_FILE=kept)
    assert shared.request("POST", "/policy", allowing(plan.ALLOWED)).status == 200
    assert shared.reaches(plan.ALLOWED)
    shared.end(number)
    internet.forget()
    pinned = ("--resolve", f"{plan.ALLOWED}:443:{plan.SHARED4}")
    with internet.capture(f"net {plan.V4}.0/24", unenforced=True) as capture:
        assert not shared.reaches(plan.ALLOWED, *pinned) and not shared.reaches(plan.ALLOWED)
    assert [line for line in capture.lines if INSIDE4 in line] == [] and internet.web.requests() == []
    shared.start(allowing(plan.OTHER), POLICY_FILE=kept)
    assert shared.reaches(plan.ALLOWED, *pinned) and not shared.reaches(plan.OTHER)
    chain = tool("audit", "--dir", shared.audit, "--verify")
    assert chain.returncode == 0, chain


@pytest.mark.parametrize("server", [plan.DNS6, f"[{plan.DNS6}]", f"[{plan.DNS6}]:53", f"{plan.DNS4}:53 ,, {plan.DNS6}"])
def test_servers_in_every_form_of_the_original(internet: Internet, shared: Sidecar, server: str) -> None:
    shared.start(allowing(plan.ALLOWED), DNS_UPSTREAM=server)
    assert shared.reaches(plan.ALLOWED) and plan.ALLOWED in internet.dns.names(), shared.log


@pytest.mark.parametrize("place", ["127.0.0.1:18080", "localhost:18080", "[::1]:18080"])
def test_api_on_the_loopback_alone(internet: Internet, shared: Sidecar, place: str) -> None:
    """For nobody but who enters the network, and is refused there without a token."""
    shared.launch(allowing(plan.ALLOWED), HTTP_ADDR=place)
    url = f"http://{place}/policy"
    wait_until(lambda: shared.ended() or shared.ask("GET", url) == "403", "the API", 20)
    assert not shared.ended() and not shared.is_healthy(), shared.log


def test_check(shared: Sidecar) -> None:
    """What an image without other programs asks for its health."""

    def check() -> subprocess.CompletedProcess[str]:
        environment = {"OPENSANDBOX_EGRESS_DNS_UPSTREAM": plan.DNS4}
        command = shared.namespace.command(binary(), "sidecar", "--check")
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20)

    before = check()
    assert before.returncode == 1 and "no sidecar at 127.0.0.1:18080" in before.stderr, before
    shared.start()
    assert check().returncode == 0
    assert shared.process is not None
    shared.process.send_signal(signal.SIGSTOP)
    frozen = check()
    shared.process.send_signal(signal.SIGCONT)
    assert frozen.returncode == 1 and "does not say that it is well" in frozen.stderr, frozen


@pytest.mark.machine("a node's network is not the machine's")
@pytest.mark.attack("T5", "has the sidecar started in a machine's own network", stopped_by="start")
def test_machine_is_refused(tmp_path: Path) -> None:
    environment = {"SANDGATE_AUDIT_DIR": str(tmp_path), "OPENSANDBOX_EGRESS_DNS_UPSTREAM": plan.DNS4}
    done = subprocess.run([binary(), "sidecar"], env=environment, capture_output=True, text=True, timeout=20)
    assert done.returncode != 0 and "this is a machine's network" in done.stderr, done


def test_machine_is_refused_unless_it_is_said_to_be_the_sandbox(shared: Sidecar) -> None:
    """A switch that is off is off."""
    shared.namespace.ip("link", "add", "bridge", "type", "bridge")
    shared.namespace.ip("link", "set", "bridge", "up")
    for value in ("", "false", "0"):
        assert "bridge is a bridge" in shared.refuses(SANDGATE_ACCEPT_HARDWARE=value)
    shared.start(SANDGATE_ACCEPT_HARDWARE="true")


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("RULES", '{"egress": [{"action": "allow", "target": "a b"}]}', "OPENSANDBOX_EGRESS_RULES:1:"),
        ("MODE", "none", "OPENSANDBOX_EGRESS_MODE: expected dns or dns+nft"),
        ("PROFILE", "fast-sandbox", "OPENSANDBOX_EGRESS_PROFILE: expected sidecar"),
        ("HTTP_ADDR", "nowhere", "OPENSANDBOX_EGRESS_HTTP_ADDR: expected HOST:PORT or :PORT"),
        ("HTTP_ADDR", "policy.example:18080", "OPENSANDBOX_EGRESS_HTTP_ADDR: expected HOST:PORT or :PORT"),
        ("MAX_RULES", "many", "OPENSANDBOX_EGRESS_MAX_RULES: expected a number"),
        ("MAX_RULES", "-1", "OPENSANDBOX_EGRESS_MAX_RULES: expected a number"),
        ("POLICY_FILE", "/opt/opensandbox/policy.json", "a place that the sandbox cannot write"),
        ("POLICY_FILE", "/etc/hostname/policy.json", "/etc/hostname/policy.json: Not a directory"),
        ("DNS_UPSTREAM", "127.0.0.11", "the sandbox could answer in its name"),
        ("DNS_UPSTREAM", "dns.example", "OPENSANDBOX_EGRESS_DNS_UPSTREAM dns.example: expected IP, IP:PORT or [IPv6]:PORT"),
        ("DNS_UPSTREAM", " , ", "OPENSANDBOX_EGRESS_DNS_UPSTREAM: expected addresses, comma-separated"),
        ("DNS_UPSTREAM_TIMEOUT", "0", "expected a number of 1...60 seconds"),
        ("DOH_BLOCKLIST", "dns.example", "expected addresses and prefixes, found dns.example"),
        # What restricts in newer versions of the original, and would not here.
        ("MITMPROXY_TRANSPARENT", "true", "OPENSANDBOX_EGRESS_MITMPROXY_TRANSPARENT: TLS is not intercepted here"),
        ("EXPERIMENTAL_REVISION_RUNTIME", "1", "OPENSANDBOX_EGRESS_EXPERIMENTAL_REVISION_RUNTIME: TLS is not intercepted"),
        ("UPSTREAM_PROXY", "http://proxy.test:3128", "OPENSANDBOX_EGRESS_UPSTREAM_PROXY: connections are not led through"),
        ("UPSTREAM_PROXY_AUTH", "Basic eDp5", "OPENSANDBOX_EGRESS_UPSTREAM_PROXY_AUTH: connections are not led through"),
        ("PUBLIC_POLICY", '{"internal_targets": []}', "OPENSANDBOX_EGRESS_PUBLIC_POLICY: there is one policy here"),
    ],
)
def test_mistakes_are_named(shared: Sidecar, variable: str, value: str, words: str) -> None:
    assert words in shared.refuses(**{variable: value})
    # Nothing was changed.
    assert "sandgate" not in shared.namespace.check("nft", "list", "ruleset")


# The API


def test_policy_api(shared: Sidecar) -> None:
    shared.start()

    def ask(method: str, body: object = None) -> tuple[int, object]:
        answer = shared.request(method, "/policy", body)
        is_json = answer.headers["content-type"] == "application/json"
        return answer.status, answer.json if is_json else answer.text

    enforcing = {"status": "ok", "mode": "enforcing", "enforcementMode": "dns+nft"}
    one = {"action": "allow", "target": "one.example"}
    two = {"action": "deny", "target": "*.two.example"}
    assert ask("POST", {"defaultAction": "deny", "egress": [one, two]}) == (200, enforcing)
    assert shared.policy() == {"defaultAction": "deny", "egress": [one, two]}
    # In front, and in place of rules with the same target; of those with the same target in a patch the first holds.
    three = {"action": "allow", "target": "three.example"}
    denied = {"action": "deny", "target": "one.example"}
    assert ask("PATCH", [three, denied, {"action": "allow", "target": "one.example"}]) == (200, enforcing)
    assert shared.policy()["egress"] == [three, denied, two]
    assert ask("DELETE", ["one.example", "absent.example"]) == (200, enforcing)
    assert shared.policy()["egress"] == [three, two]
    nothing = enforcing | {"reason": "no matching targets found"}
    assert ask("DELETE", ["absent.example"]) == (200, nothing)
    assert ask("DELETE", ["three.example", "*.two.example"])[1] == enforcing | {"mode": "deny_all"}
    assert ask("PUT", {"defaultAction": "allow"}) == (200, enforcing | {"mode": "allow_all"})
    reset = {"status": "ok", "mode": "deny_all", "reason": "policy reset to default deny-all"}
    assert ask("POST", " \n") == (200, reset)
    assert shared.policy() == {"defaultAction": "deny", "egress": None}
    assert ask("POST", "{}") == (200, enforcing | {"mode": "deny_all"})
    # Errors are plain text.
    assert ask("PATCH", "") == (400, "empty body\n") and ask("DELETE", "") == (400, "empty body\n")
    assert ask("PATCH", []) == (400, "invalid patch rules: empty array\n")
    assert ask("DELETE", []) == (400, "invalid delete targets: empty array\n")
    for method, body, words in (
        ("POST", "{", "invalid policy: "),
        ("POST", {"egress": [{"action": "allow", "target": ""}]}, "invalid policy: egress[0].target"),
        ("POST", {"egress": [{"action": "block", "target": "a.example"}]}, "invalid policy: egress[0].action"),
        ("PATCH", {"action": "allow"}, "invalid patch rules: "),
        ("DELETE", [{"target": "a"}], "invalid delete targets: "),
    ):
        status, text = ask(method, body)
        assert status == 400 and str(text).startswith(words) and str(text).endswith("\n"), (method, body, text)
    refused = shared.request("HEAD", "/nothing")
    assert refused.status == 404
    wrong = shared.request("OPTIONS", "/policy")
    assert wrong.status == 405 and wrong.headers["allow"] == "GET, POST, PUT, PATCH, DELETE"
    assert wrong.text == "method not allowed\n"
    assert shared.request("GET", "/healthz").text == "ok"
    assert shared.policy() == {"defaultAction": "deny", "egress": None}


def test_rules_are_limited(shared: Sidecar) -> None:
    shared.start(MAX_RULES="3")
    rules = [{"action": "allow", "target": f"n{number}.example"} for number in range(4)]
    answer = shared.request("POST", "/policy", {"egress": rules})
    assert (answer.status, answer.text) == (413, "egress rule total count 4 exceeds limit 3\n")
    assert shared.request("POST", "/policy", {"egress": rules[:3]}).status == 200
    assert shared.request("PATCH", "/policy", rules[3:]).status == 413
    assert len(shared.policy()["egress"]) == 3
    long = json.dumps({"egress": [{"action": "allow", "target": "a.example", "comment": "x" * (1 << 20)}]})
    assert shared.request("POST", "/policy", long).status == 413


def test_changes_reach_the_network(internet: Internet, shared: Sidecar, tmp_path: Path) -> None:
    shared.start(allowing(plan.ALLOWED))
    assert shared.reaches(plan.ALLOWED)
    shared.request("PATCH", "/policy", [{"action": "deny", "target": plan.ALLOWED}])
    assert not shared.reaches(plan.ALLOWED) and not shared.reaches(
        plan.ALLOWED, "--resolve", f"{plan.ALLOWED}:443:{plan.SHARED4}"
    )
    shared.request("DELETE", "/policy", [plan.ALLOWED])
    shared.request("PATCH", "/policy", [{"action": "allow", "target": plan.OTHER}])
    assert shared.reaches(plan.OTHER)
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "deny.always").write_text(f"{plan.OTHER}  # nobody\n")
    wait_until(lambda: not shared.reaches(plan.OTHER), "the operator's rule", 20)


@pytest.mark.attack(
    "T2", "asks the sidecar's policy API over loopback and its own address, to open itself", stopped_by="control API"
)
def test_who_may_use_the_api(shared: Sidecar) -> None:
    """Without a token nobody in the sandbox; with one, who has it, from where it is."""
    own = f"http://{INSIDE4}:18080/policy"
    loopback = ("http://127.0.0.1:18080/policy", "http://[::1]:18080/policy", "http://[::ffff:127.0.0.1]:18080/policy")
    shared.start()
    for url in (own, *loopback):
        assert shared.ask("GET", url) == "403" and shared.ask("POST", "-d", '{"defaultAction":"allow"}', url) == "403", url
    assert shared.policy()["defaultAction"] == "deny"
    assert shared.request("POST", "/policy", {"egress": []}).status == 200
    assert shared.run("curl", "-sS", "http://127.0.0.1:18080/healthz").stdout == "ok"


@pytest.mark.attack("T2", "asks the sidecar's policy API with wrong tokens", stopped_by="control API")
def test_token(shared: Sidecar) -> None:
    shared.start(TOKEN=TOKEN)
    for wrong in (None, "", TOKEN[:-1], TOKEN + "x", TOKEN.upper()):
        answer = shared.request("GET", "/policy", token=wrong)
        assert (answer.status, answer.text) == (401, "unauthorized\n"), wrong
    assert shared.request("POST", "/policy", {"defaultAction": "allow"}).status == 401
    assert shared.request("GET", "/policy", token=TOKEN).status == 200
    url, header = "http://127.0.0.1:18080/policy", ("-H", f"OPENSANDBOX-EGRESS-AUTH: {TOKEN}")
    assert shared.ask("GET", url) == "401"
    # OpenSandbox's SDK comes this way, through a proxy in the sandbox.
    assert shared.ask("PATCH", *header, "-d", '[{"action": "allow", "target": "a.example"}]', url) == "200"
    assert shared.request("GET", "/healthz").status == 200


def test_wrong_tokens_are_slow_and_told(shared: Sidecar) -> None:
    """Both with where they came from, as is every change."""
    shared.start(TOKEN=TOKEN)
    begun = time.monotonic()
    for _ in range(4):
        assert shared.request("GET", "/policy", token="wrong").status == 401
    assert time.monotonic() - begun >= 4 * 0.25
    told = [line for line in shared.log.splitlines() if "a request without the token was refused" in line]
    assert len(told) == 4 and all(OUTSIDE4 in line for line in told), told
    begun = time.monotonic()
    assert shared.request("PATCH", "/policy", [{"action": "allow", "target": "a.example"}], TOKEN).status == 200
    assert time.monotonic() - begun < 0.25
    (change,) = [line for line in shared.log.splitlines() if "a change is asked for" in line]
    assert OUTSIDE4 in change and "PATCH" in change, change
    header = ("-H", f"OPENSANDBOX-EGRESS-AUTH: {TOKEN}", "-d", "[]", "http://127.0.0.1:18080/policy")
    assert shared.ask("DELETE", *header) == "400"
    assert "127.0.0.1" in [line for line in shared.log.splitlines() if "a change is asked for" in line][-1]


@pytest.mark.attack("T2", "changes the policy with a token that may only read from inside", stopped_by="control API")
def test_read_only_from_inside(shared: Sidecar) -> None:
    shared.start(TOKEN=TOKEN, SANDGATE_READ_ONLY_FROM_INSIDE="true")
    url, header = "http://127.0.0.1:18080/policy", ("-H", f"OPENSANDBOX-EGRESS-AUTH: {TOKEN}")
    assert shared.ask("GET", *header, url) == "200"
    assert shared.ask("PATCH", *header, "-d", '[{"action": "allow", "target": "a.example"}]', url) == "403"
    assert shared.request("PATCH", "/policy", [{"action": "allow", "target": "a.example"}], TOKEN).status == 200


# Attacks that only a shared namespace makes possible


def attack(shared: SharedNetwork, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return shared.run("/usr/bin/python3", str(ATTACKS), *words, timeout=timeout)


@pytest.mark.attack(
    "T10",
    "writes frames behind every inet hook, with and without the queue, called what they are or ARP and the like, beside a sidecar",
    stopped_by="fence",
)
@pytest.mark.parametrize("bypass", ["queue", "bypass"])
@pytest.mark.parametrize("called", ["", "0806", "8035", "86dd", "8100", "0003"])
def test_packet_sockets(internet: Internet, shared: Sidecar, bypass: str, called: str) -> None:
    """T10: frames that go behind every inet chain; also IPv4 that the socket calls ARP, RARP, IPv6, a VLAN's or anything's."""
    neighbour = shared.namespace.neighbour(OUTSIDE4)
    words = ("packet", bypass, INSIDE4, plan.SINK4, "4444", neighbour, called)
    assert attack(shared, *words).returncode == 0
    assert "stolen by a frame" in internet.sinks.data(), "it works without a sidecar"
    shared.start(allowing(plan.ALLOWED))
    attack(shared, *words)
    assert internet.sinks.data() == ""
    assert shared.reaches(plan.ALLOWED) and shared.reaches(plan.ALLOWED, "-6")


@pytest.mark.attack("T10 B2", "writes frames of ARP with data behind the message, beside a sidecar", stopped_by="fence")
@pytest.mark.parametrize("bypass", ["queue", "bypass"])
def test_data_behind_address_resolution(internet: Internet, shared: Sidecar, tmp_path: Path, bypass: str) -> None:
    """T10: what the fence lets out is no longer than it has to be."""

    def heard(number: int) -> bytes:
        with capture(internet.namespace.command(), "any", tmp_path / f"{number}.pcap", "arp") as outside:
            attack(shared, "arp", bypass, INSIDE4, OUTSIDE4, "stolen behind ARP")
        return outside.payload

    assert b"stolen behind ARP" in heard(1), "it works without a sidecar"
    shared.start(allowing(plan.ALLOWED))
    assert b"stolen behind ARP" not in heard(2)
    # What the kernel asks goes on.
    shared.namespace.ip("neigh", "flush", "all")
    assert shared.reaches(plan.ALLOWED, "-4"), shared.log


@pytest.mark.attack(
    "T1", "sends with a thousand packet marks and priorities that somebody may trust", stopped_by="kernel"
)
def test_marks(internet: Internet, either: SharedNetwork) -> None:
    """T1: no mark opens anything."""
    assert attack(either, "marks", plan.SINK4, "4444").returncode == 0
    assert "stolen by a mark" in internet.sinks.data(), "it works without a sidecar"
    either.start(allowing(plan.ALLOWED))
    assert attack(either, "marks", plan.SINK4, "4444").returncode == 0
    assert internet.sinks.data() == ""


@pytest.mark.attack(
    "T1", "reads the enforcer's mark from outgoing packets with a filter on a packet socket", stopped_by="kernel"
)
def test_marks_are_not_seen(internet: Internet, either: SharedNetwork) -> None:
    """T1: with a filter on a packet socket the marks of what leaves can be read; those of ours are off by then."""
    for own_mark, expected in (("7", "seen"), ("0", "nothing")):
        if expected == "nothing":
            either.start(allowing(plan.ALLOWED))
        watcher = subprocess.Popen(
            either.command("/usr/bin/python3", str(ATTACKS), "spy", own_mark),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert watcher.stdout is not None and watcher.stdout.readline() == "watching\n"
        assert expected == "seen" or either.reaches(plan.ALLOWED)
        output, _ = watcher.communicate("now\n", timeout=20)
        assert output == f"{expected}\n"


@pytest.mark.attack(
    "T7",
    "sends from every port that the resolver asked from, through its connection tracking entries",
    stopped_by="kernel",
)
def test_stale_entries(internet: Internet, either: SharedNetwork) -> None:
    """T7: from the ports that the resolver asked from, while the kernel remembers those flows."""
    low, high = 40000, 40199
    either.namespace.sysctl("net.ipv4.ip_local_port_range", f"{low} {high}")
    label = "spray.example"
    assert attack(either, "spray", plan.DNS4, str(low), str(high), label).returncode == 0
    assert any(query.name.lower().endswith(label) for query in internet.dns.queries()), "it works without a sidecar"
    either.start(allowing(plan.ALLOWED, "*.wild.example"))
    names = " ".join(f"n{number}.wild.example" for number in range(150))
    either.run("/bin/sh", "-c", f"for name in {names}; do getent ahostsv4 $name; done", timeout=120)
    assert len([query for query in internet.dns.queries() if "wild" in query.name.lower()]) > 100
    attack(either, "spray", plan.DNS4, str(low), str(high), label)
    assert [query for query in internet.dns.queries() if query.name.lower().endswith(label)] == []
