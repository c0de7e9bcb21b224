"""What every attachment is tried with before it is reported ready: where a probe passes, or is not told of, it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import plan
from lab.daemon import Daemon, attachment, running
from lab.internet import Internet
from lab.namespaces import Namespace
from lab.sandgate import allowing

REFUSED_ALREADY = "ip daddr 192.0.2.1 tcp dport 9 reject with tcp reset; ip daddr 192.0.2.1 udp dport 9 drop;"

WRONG = {
    "queries go elsewhere": (
        "table ip before { chain c { type nat hook output priority -120; udp dport 53 redirect to :5353; }; }",
        "self-test: a DNS query to 192.0.2.53:53 was not redirected to the resolver",
    ),
    "queries over TCP and IPv6 go elsewhere": (
        "table ip6 before { chain c { type nat hook output priority -120; tcp dport 53 redirect to :5353; }; }",
        "self-test: a DNS query to [2001:db8::53]:53 was not redirected to the resolver",
    ),
    "queries to the network's own resolver go elsewhere": (
        "table ip before { chain c { type nat hook output priority -120; "
        "ip daddr 127.0.0.1 udp dport 53 redirect to :5353; }; }",
        "self-test: a DNS query to 127.0.0.1:53 was not redirected to the resolver",
    ),
    "a cloud's metadata is swallowed": (
        "table ip before { chain c { type filter hook output priority -1; ip daddr 169.254.169.254 drop; }; }",
        "self-test: tcp to 169.254.169.254:80 was not refused",
    ),
    "what is refused is swallowed": (
        "table ip before { chain c { type filter hook output priority -1; ip daddr 192.0.2.1 tcp dport 9 drop; }; }",
        "self-test: tcp to 192.0.2.1:9 was not refused",
    ),
    "what is refused is not told": (
        f"table ip before {{ chain c {{ type filter hook output priority -1; {REFUSED_ALREADY} }}; }}",
        "self-test: the kernel did not report that it refused",
    ),
}
"""Rules of a network from before, and what is said of them. Each stands for a set of ours that does not do its work."""


@pytest.mark.attack(
    "T4 T6", "is in a network whose own rules from before keep those of its guard from their work", stopped_by="start"
)
@pytest.mark.parametrize(("rules", "words"), WRONG.values(), ids=WRONG)
def test_probe_that_passes(internet: Internet, daemon: Daemon, box: Namespace, rules: str, words: str) -> None:
    _is_refused(internet, daemon, box, rules, words)


@pytest.mark.attack(
    "T2 T6", "is in a network whose own rules keep those of its guard from closing the daemon's API", stopped_by="start"
)
@pytest.mark.parametrize(
    ("listen", "words"), [(plan.NODE4, f"tcp to {plan.NODE4}:64480 was not refused"), ("0.0.0.0", ":64480 was not refused")]
)
def test_port_of_the_api(
    internet: Internet, tmp_path: Path, box: Namespace, listen: str, words: str
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("full-token-of-sixteen\n")
    rules = "table ip before { chain c { type filter hook output priority -1; tcp dport 64480 drop; }; }"
    with running(internet, tmp_path, "--listen", f"{listen}:64480", "--token-file", str(tokens)) as made:
        _is_refused(internet, made, box, rules, words)


def _is_refused(internet: Internet, daemon: Daemon, box: Namespace, rules: str, words: str) -> None:
    box.check("nft", rules)
    before = box.check("nft", "list", "ruleset")
    body = {"id": "box", "attachment": attachment(box), "networkPolicy": allowing(plan.ALLOWED)}
    answer = daemon.request("POST", "/v1/sandboxes", body)
    assert answer.status == 503 and words in answer.json["message"], answer
    # It is closed, and nobody takes it for guarded, until it is let go; then all is as it was.
    assert daemon.request("GET", "/v1/sandboxes/box").json["status"]["state"] == "Failed"
    internet.forget()
    fetch = ("curl", "-sS", "-m", "2", "--resolve", f"{plan.ALLOWED}:80:{plan.SHARED4}", f"http://{plan.ALLOWED}/")
    with pytest.raises(RuntimeError):
        box.check(*fetch)
    assert internet.web.requests() == []
    assert daemon.request("DELETE", "/v1/sandboxes/box").status == 204
    assert box.check("nft", "list", "ruleset") == before
    box.check("nft", "flush ruleset")
    sandbox = daemon.create(allowing(plan.ALLOWED), id="box", attachment=attachment(box))
    assert sandbox.ask("GET").json["selfTest"] == "passed"
    assert sandbox.reaches(plan.ALLOWED) and not sandbox.reaches(plan.DENIED)
