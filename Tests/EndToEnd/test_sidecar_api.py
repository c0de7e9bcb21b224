"""The sidecar's policy API, held to what OpenSandbox's egress container documents (its egress-api.yaml) and does.

Most of it is a table: what is asked, in front of which policy, and what is answered. Where the answer is not the original's,
the row says what that one does instead, and why; MovingFromOpenSandbox.md tells users. Asked from outside, as OpenSandbox's
server does, over sockets of our own, so that nothing of a client's library is in between.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lab import plan
from lab.daemon import Answer
from lab.internet import Internet
from lab.sandgate import allowing
from lab.sidecar import INSIDE4, Sidecar, sidecar
from lab.sidecar_connection import Connection

PLAIN, JSON = "text/plain; charset=utf-8", "application/json"
TOKEN = "token-of-the-server"
MEBIBYTE = 1 << 20


def rule(action: str, target: str, **more: object) -> dict[str, object]:
    return {"action": action, "target": target, **more}


ONE, TWO = rule("allow", "one.example"), rule("deny", "*.two.example")
GIVEN: dict[str, object] = {"egress": [ONE, TWO], "defaultAction": "deny"}
NOTHING: dict[str, object] = {"egress": None, "defaultAction": "deny"}
"""What a reset leaves."""


def ok(mode: str = "enforcing", **more: object) -> str:
    """A successful answer, byte by byte: members in the original's order, and a line's end."""
    members: dict[str, object] = {"status": "ok", "mode": mode, "enforcementMode": "dns+nft", **more}
    return json.dumps(members, separators=(",", ":")) + "\n"


def shown(policy: dict[str, object], mode: str = "enforcing") -> str:
    return ok(mode, policy=policy)


RESET = '{"status":"ok","mode":"deny_all","reason":"policy reset to default deny-all"}\n'
NO_MATCH = ok(reason="no matching targets found")


def head(method: str, path: str, length: int | None, headers: dict[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {INSIDE4}:18080"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode()


def ask(api: Sidecar, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> Answer:
    """One request over a connection of its own."""
    data = None if body is None else body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else (
        json.dumps(body).encode()
    )
    with Connection(api) as connection:
        connection.send(head(method, path, None if data is None else len(data), headers or {}) + (data or b""))
        return connection.answer(method)


@pytest.fixture(scope="module")
def network(net: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    with sidecar(net, tmp_path_factory.mktemp("sidecar")) as made:
        yield made


class Served:
    """A sidecar that is started anew when it is to have other settings than before."""

    def __init__(self, network: Sidecar) -> None:
        self._network = network
        self._settings: tuple[str, dict[str, str]] | None = None

    def with_settings(self, policy: object = None, **variables: str) -> Sidecar:
        settings = (json.dumps(policy), variables)
        if settings != self._settings or self._network.ended():
            if not self._network.ended():
                self._network.end(signal.SIGTERM)
            self._network.start(policy, **variables)
            self._settings = settings
        return self._network


@pytest.fixture(scope="module")
def served(network: Sidecar) -> Served:
    return Served(network)


@pytest.fixture
def api(served: Served) -> Sidecar:
    """The API with default settings and :data:`GIVEN` in force."""
    made = served.with_settings()
    assert ask(made, "PUT", "/policy", GIVEN).status == 200
    return made


# The table


@dataclass(frozen=True)
class Case:
    """One request, and all that is to be seen of its answer."""

    name: str
    method: str
    body: object
    status: int
    answer: str
    """The body, or its beginning when it ends with an ellipsis."""

    after: dict[str, object] | None = None
    """The policy that is in force then; `None` when it is :data:`GIVEN` still."""

    original: str = ""
    """What the original does, and why this does not; empty where it does the same."""

    path: str = "/policy"
    headers: dict[str, str] = field(default_factory=dict)
    allow: str | None = None

    @property
    def type(self) -> str:
        return JSON if self.answer.startswith("{") else PLAIN


def replacing(name: str, body: object, mode: str, after: dict[str, object], original: str = "", **more: Any) -> Case:
    return Case(name, "POST", body, 200, ok(mode), after, original, **more)


def refused(name: str, method: str, body: object, answer: str, original: str = "", status: int = 400) -> Case:
    return Case(name, method, body, status, answer, None, original)


def policy(*rules: dict[str, object], default: str = "deny") -> dict[str, object]:
    return {"egress": list(rules), "defaultAction": default}


METHODS = "GET, POST, PUT, PATCH, DELETE"
BAD, BAD_PATCH, BAD_DELETE = "invalid policy: …", "invalid patch rules: …", "invalid delete targets: …"
MISSING = "404 page not found\n"
LOOSE = "takes it: what is not understood is not to open or close anything unseen"

READING = [
    Case("read", "GET", None, 200, shown(GIVEN)),
    Case("read with a query", "GET", None, 200, shown(GIVEN), path="/policy?verbose=1"),
    Case("read with an empty query", "GET", None, 200, shown(GIVEN), path="/policy?"),
    Case("read with a body", "GET", "{}", 200, shown(GIVEN)),
    Case("head", "HEAD", None, 200, "", original="405: HEAD goes with GET in RFC 9110"),
    Case("well", "GET", None, 200, "ok", path="/healthz"),
    Case("well with a query", "GET", None, 200, "ok", path="/healthz?now"),
    *(Case(f"well by {method}", method, None, 200, "ok", path="/healthz") for method in ("POST", "PUT", "DELETE", "OPTIONS")),
    *(
        Case(f"{method} is no method", method, None, 405, "method not allowed\n", allow=METHODS)
        for method in ("OPTIONS", "TRACE", "SEARCH", "LOCK")
    ),
    Case("OPTIONS with a body", "OPTIONS", "{}", 405, "method not allowed\n", allow=METHODS),
    *(
        Case(f"nothing at {path}", "GET", None, 404, MISSING, path=path)
        for path in ("/", "/policy/", "/policy/x", "/Policy", "/POLICY", "/policyx", "/healthz/", "/metrics", "/v1/policy", "/policy;x")
    ),
    Case("nothing at two slashes", "GET", None, 404, MISSING, path="//policy", original="301 to /policy"),
    Case("nothing at a dot", "GET", None, 404, MISSING, path="/./policy", original="301 to /policy"),
    *(
        Case(f"nothing at {path}", "GET", None, 404, MISSING, path=path, original="a part of its API that is not here")
        for path in ("/capabilities", "/extensions")
    ),
    Case("nothing beside the vault", "GET", None, 404, MISSING, path="/credential-vaults"),
    Case("a change to nothing", "POST", {"defaultAction": "allow"}, 404, MISSING, path="/policy/"),
]

VAULT = "/credential-vault"
NEW_VAULT: dict[str, object] = {"credentials": [], "bindings": []}
NO_VAULT = "credential vault not found\n"

VAULTS = [
    # As the original answers while it does not intercept TLS.
    *(
        Case(f"no vault at {path}", "GET", None, 404, NO_VAULT, path=f"{VAULT}{path}")
        for path in ("", "?x", "/credentials", "/credentials/", "/credentials/one", "/bindings", "/bindings/one")
    ),
    *(
        Case("no vault without a token", method, body, 412, "credential vault requires egress API auth token\n", path=VAULT)
        for method, body in (("POST", NEW_VAULT), ("PATCH", {}), ("DELETE", None))
    ),
    Case("PUT is no method of a vault", "PUT", NEW_VAULT, 405, "method not allowed\n", path=VAULT, allow="GET, POST, PATCH, DELETE"),
    Case("a list is read", "POST", NEW_VAULT, 405, "method not allowed\n", path=f"{VAULT}/credentials", allow="GET"),
    Case("what is active is nobody's", "GET", None, 403, "forbidden\n", path=f"{VAULT}/_active"),
    Case("what is active is read", "POST", None, 405, "method not allowed\n", path=f"{VAULT}/_active", allow="GET"),
    *(Case(f"nothing below the vault at {path}", "GET", None, 404, "not found\n", path=f"{VAULT}{path}") for path in ("/", "/x", "/credentialsx")),
]

MANY = [rule("allow", f"n{number}.example") for number in range(300)]

REPLACING = [
    replacing("rules", policy(ONE, TWO, rule("allow", "three.example")), "enforcing", policy(ONE, TWO, rule("allow", "three.example"))),
    Case("PUT is POST", "PUT", policy(TWO), 200, ok(), policy(TWO)),
    replacing("three hundred, in their order", policy(*MANY), "enforcing", policy(*MANY)),
    replacing("duplicates stay", policy(ONE, TWO, ONE), "enforcing", policy(ONE, TWO, ONE)),
    replacing("contradictions stay", policy(ONE, rule("deny", "one.example")), "enforcing", policy(ONE, rule("deny", "one.example"))),
    replacing("no rules, denied", policy(), "deny_all", policy()),
    replacing("no rules, allowed", policy(default="allow"), "allow_all", policy(default="allow")),
    replacing("rules, allowed", policy(TWO, default="allow"), "enforcing", policy(TWO, default="allow")),
    replacing("rules alone", {"egress": [ONE]}, "enforcing", policy(ONE)),
    replacing("no default", {"egress": [ONE], "defaultAction": ""}, "enforcing", policy(ONE)),
    replacing("a null default", {"egress": [ONE], "defaultAction": None}, "enforcing", policy(ONE)),
    replacing("upper case", {"egress": [rule("ALLOW", "one.example")], "defaultAction": "Deny"}, "enforcing", policy(ONE)),
    replacing("null rules", {"defaultAction": "allow", "egress": None}, "allow_all", policy(default="allow"), "shows null rules"),
    replacing("a default alone", {"defaultAction": "allow"}, "allow_all", policy(default="allow"), "shows null rules"),
    replacing("white space around", " \r\n\t" + json.dumps(policy(ONE)) + "\n\n", "enforcing", policy(ONE)),
    replacing("escapes", '{"egress":[{"action":"\\u0061llow","target":"one\\u002eexample"}]}', "enforcing", policy(ONE)),
    *(
        replacing(f"as {kind}", policy(ONE), "enforcing", policy(ONE), headers={"Content-Type": kind})
        for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded", "application/yaml", "nonsense")
    ),
    replacing("a query", policy(ONE), "enforcing", policy(ONE), path="/policy?dry-run=true"),
    *(
        replacing(f"target {target}", policy(rule("allow", target)), "enforcing", policy(rule("allow", target)))
        for target in ("a.example", "*.a.example", "192.0.2.7", "192.0.2.0/24", "2001:db8::7", "2001:db8::/32", "xn--bcher-kva.example")
    ),
    replacing(
        "ports of an address",
        policy(rule("allow", "192.0.2.7", ports=[443, 8443])),
        "enforcing",
        policy(rule("allow", "192.0.2.7", ports=[443, 8443])),
    ),
    replacing(
        "ports of a name",
        policy(rule("allow", "a.example", ports=[443])),
        "enforcing",
        policy(rule("allow", "a.example", ports=[443])),
        "400: names have ports here",
    ),
    replacing(
        "the same port twice",
        policy(rule("allow", "192.0.2.7", ports=[443, 443])),
        "enforcing",
        policy(rule("allow", "192.0.2.7", ports=[443, 443])),
        "400, where it knows ports: it means the same",
    ),
    replacing("letters are folded", policy(rule("allow", "One.Example")), "enforcing", policy(ONE), "shows them as they were sent"),
    replacing("a dot at the end", policy(rule("allow", "one.example.")), "enforcing", policy(ONE), "keeps it, and it matches nothing"),
    replacing("report mode", {"mode": "report"}, "allow_all", {"egress": [], "defaultAction": "deny", "mode": "report"}, "no such member"),
    replacing(
        "a create request",
        {"image": "x", "networkPolicy": policy(ONE)},
        "enforcing",
        policy(ONE),
        "reads no policy in it, and denies everything",
    ),
    # Resets.
    *(Case(f"{method} of {name}", method, body, 200, RESET, NOTHING)
      for method in ("POST", "PUT") for name, body in (("no body", None), ("an empty body", ""), ("white space", " \r\n\t "))),
    *(replacing(f"of {body!r}", body, "deny_all", NOTHING) for body in ("null", "{}", " null\n", "\n{}\n", "{ }")),
    # What is wrong.
    *(refused(f"not a policy: {body[:12]}", "POST", body, BAD)
      for body in ("{", "}", "[]", "[{}]", "1", '"deny"', "true", "{} {}", "{},", "nul", '{"egress":[}', "{'egress':[]}", "egress: []")),
    refused("not a list of rules", "POST", {"egress": {}}, BAD),
    refused("no rule", "POST", {"egress": ["one.example"]}, BAD),
    refused("a rule of null", "POST", {"egress": [None]}, BAD),
    refused("a target that is a number", "POST", policy(ONE, {"action": "allow", "target": 7}), BAD),
    refused("a target that is a list", "POST", policy({"action": "allow", "target": ["a.example"]}), BAD),
    refused("an unknown action", "POST", policy(ONE, rule("block", "a.example")), BAD),
    refused("an empty target", "POST", policy(rule("allow", "")), BAD),
    refused("a null target", "POST", policy({"action": "allow", "target": None}), BAD),
    refused("no target", "POST", policy({"action": "allow"}), BAD),
    refused("a default that is a list", "POST", {"defaultAction": ["allow"]}, BAD),
    refused("port 0", "POST", policy(rule("allow", "192.0.2.7", ports=[0])), BAD),
    refused("port 65536", "POST", policy(rule("allow", "192.0.2.7", ports=[65536])), BAD),
    refused("no ports", "POST", policy(rule("allow", "192.0.2.7", ports=[])), BAD, "means every port"),
    refused("a port that is text", "POST", policy(rule("allow", "192.0.2.7", ports=["https"])), BAD),
    refused("an unknown member", "POST", GIVEN | {"extra": 1}, BAD, LOOSE),
    refused("an unknown member of a rule", "POST", policy(rule("allow", "a.example", prots=[443])), BAD, LOOSE),
    refused("a member in other letters", "POST", {"DefaultAction": "allow"}, BAD, LOOSE),
    refused("an unknown default", "POST", {"defaultAction": "maybe"}, BAD, LOOSE),
    refused("no action", "POST", policy({"target": "a.example"}), BAD, "denies"),
    refused("an empty action", "POST", policy(rule("", "a.example")), BAD, "denies"),
    refused("a space in a target", "POST", policy(rule("allow", "a b")), BAD, LOOSE),
    refused("a space around a target", "POST", policy(rule("allow", " a.example")), BAD, "takes it away"),
    refused("a URL", "POST", policy(rule("allow", "https://a.example/")), BAD, LOOSE),
    refused("everything", "POST", policy(rule("allow", "*")), BAD, LOOSE),
    refused("a wildcard elsewhere", "POST", policy(rule("allow", "a.*.example")), BAD, LOOSE),
    refused("a prefix with more bits", "POST", policy(rule("allow", "192.0.2.7/24")), BAD, "takes the prefix that it lies in"),
    refused(
        "ports alone",
        "POST",
        policy({"action": "allow", "ports": [443]}),
        "invalid policy: egress[0].target: missing: every address is 0.0.0.0/0 and ::/0, in a rule each\n",
        "means every address, where it knows ports",
    ),
    refused("a port twice over", "POST", '{"egress":[],"egress":[]}', BAD, "takes the last"),
    refused("no UTF-8", "POST", b'{"egress":[{"action":"allow","target":"\xff.example"}]}', BAD, LOOSE),
    refused("more than 1 MiB", "POST", "{" + " " * MEBIBYTE + "}", "failed to read body: …", "cuts it, and reads the beginning", 413),
    refused("more than 1 MiB of nothing", "PUT", " " * (MEBIBYTE + 1), "failed to read body: …", "cuts it: a reset", 413),
    replacing("1 MiB", json.dumps(policy(ONE)).ljust(MEBIBYTE), "enforcing", policy(ONE)),
]

THREE, NOT_ONE = rule("allow", "three.example"), rule("deny", "one.example")
WEB, NOT_WEB = (rule(action, "192.0.2.7", ports=[443]) for action in ("allow", "deny"))
SSH = rule("allow", "192.0.2.7", ports=[22])


def patching(name: str, body: object, *after: dict[str, object], original: str = "") -> Case:
    return Case(name, "PATCH", body, 200, ok(), policy(*after), original)


PATCHING = [
    patching("a new rule goes in front", [THREE], THREE, ONE, TWO),
    patching("in their order", [THREE, rule("deny", "four.example")], THREE, rule("deny", "four.example"), ONE, TWO),
    patching("in place of that for the same target", [NOT_ONE], NOT_ONE, TWO),
    patching("the first of the same target holds", [NOT_ONE, ONE, THREE], NOT_ONE, THREE, TWO),
    patching("the same again", [ONE], ONE, TWO),
    patching("in other letters", [rule("deny", "ONE.example")], NOT_ONE, TWO, original="shows them as they were sent"),
    patching("a wildcard is another target", [rule("allow", "two.example")], rule("allow", "two.example"), ONE, TWO),
    patching("a wildcard", [rule("allow", "*.two.example")], rule("allow", "*.two.example"), ONE),
    patching("other ports of a target stand beside each other", [WEB, SSH], WEB, SSH, ONE, TWO),
    refused("no body", "PATCH", None, "empty body\n"),
    refused("an empty body", "PATCH", "", "empty body\n"),
    refused("white space", "PATCH", " \r\n\t", "empty body\n"),
    refused("no rules", "PATCH", [], "invalid patch rules: empty array\n"),
    refused("null", "PATCH", "null", "invalid patch rules: empty array\n"),
    refused("a policy", "PATCH", policy(THREE), BAD_PATCH),
    refused("a rule", "PATCH", THREE, BAD_PATCH),
    refused("a text", "PATCH", '"three.example"', BAD_PATCH),
    refused("no JSON", "PATCH", "[{]", BAD_PATCH),
    refused("targets", "PATCH", ["three.example"], BAD_PATCH),
    refused("nothing of it when one is wrong", "PATCH", [THREE, rule("block", "a.example")], BAD_PATCH, '"invalid merged policy: …"'),
    refused("an empty target", "PATCH", [rule("allow", "")], BAD_PATCH, '"invalid merged policy: …"'),
    refused("a rule of null", "PATCH", [None], BAD_PATCH, '"invalid merged policy: …"'),
    refused("an unknown member", "PATCH", [rule("allow", "a.example", x=1)], BAD_PATCH, LOOSE),
    refused("more than 1 MiB", "PATCH", "[" + " " * MEBIBYTE + "]", "failed to read body: …", "cuts it, and refuses it as no JSON", 413),
]


def deleting(name: str, body: object, *after: dict[str, object], mode: str = "enforcing", original: str = "") -> Case:
    return Case(name, "DELETE", body, 200, ok(mode), policy(*after), original)


def ignored(name: str, body: object, original: str = "") -> Case:
    return Case(name, "DELETE", body, 200, NO_MATCH, None, original)


DELETING = [
    deleting("one", ["one.example"], TWO),
    deleting("in other letters", ["ONE.Example"], TWO),
    deleting("with a dot at the end", ["one.example."], TWO, original="finds nothing"),
    deleting("one that is there and one that is not", ["absent.example", "one.example"], TWO),
    deleting("one that is there and one that is no target", ["", "a b", "one.example"], TWO),
    deleting("twice", ["one.example", "one.example"], TWO),
    deleting("a wildcard is a target, not a pattern", ["*.two.example"], ONE),
    deleting("the last", ["one.example", "*.two.example"], mode="deny_all"),
    ignored("one that is not there", ["absent.example"]),
    ignored("a name below a wildcard", ["a.two.example"]),
    ignored("a wildcard above a name", ["*.example"]),
    ignored("no target", [""]),
    ignored("no target at all", ["a b", "https://one.example/", "*"]),
    refused("no body", "DELETE", None, "empty body\n"),
    refused("an empty body", "DELETE", "", "empty body\n"),
    refused("white space", "DELETE", "\n", "empty body\n"),
    refused("no targets", "DELETE", [], "invalid delete targets: empty array\n"),
    refused("null", "DELETE", "null", "invalid delete targets: empty array\n"),
    refused("a text", "DELETE", '"one.example"', BAD_DELETE),
    refused("an object", "DELETE", {"targets": ["one.example"]}, BAD_DELETE),
    refused("rules", "DELETE", [ONE], BAD_DELETE),
    refused("numbers", "DELETE", ["one.example", 7], BAD_DELETE),
    refused("a null target", "DELETE", [None], BAD_DELETE, "finds nothing"),
    refused("no JSON", "DELETE", "not-json", BAD_DELETE),
    refused("more than 1 MiB", "DELETE", "[" + " " * MEBIBYTE + "]", "failed to read body: …", "cuts it, and refuses it as no JSON", 413),
]

CASES = [*READING, *VAULTS, *REPLACING, *PATCHING, *DELETING]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.method} {case.name}")
def test_answers(api: Sidecar, case: Case) -> None:
    answer = ask(api, case.method, case.path, case.body, case.headers)
    assert (answer.status, answer.headers.get("allow")) == (case.status, case.allow), answer
    if case.answer.endswith("…"):
        assert answer.text.startswith(case.answer[:-1]) and answer.text.endswith("\n") and answer.text.count("\n") == 1
        assert len(answer.text) > len(case.answer), "a reason"
    else:
        assert answer.text == case.answer
    assert case.method == "HEAD" or answer.headers["content-type"] == case.type
    assert (answer.headers.get("x-content-type-options") == "nosniff") == (case.method != "HEAD" and case.type == PLAIN)
    assert api.policy() == (GIVEN if case.after is None else case.after)


def test_no_case_is_there_twice() -> None:
    names = [(case.method, case.name) for case in CASES]
    assert len(names) == len(set(names)) and len(CASES) > 150


# Sequences


def test_rules_that_were_never_set(served: Served) -> None:
    """Nothing is configured: what is read, patched and deleted then."""
    api = served.with_settings(SANDBOX_ID="another")
    assert ask(api, "GET", "/policy").text == shown(NOTHING, "deny_all")
    assert ask(api, "DELETE", "/policy", ["one.example"]).text == ok("deny_all", reason="no matching targets found")
    assert ask(api, "GET", "/policy").text == shown(NOTHING, "deny_all")
    assert ask(api, "PATCH", "/policy", [ONE]).text == ok()
    assert ask(api, "GET", "/policy").text == shown(policy(ONE))


def test_patches_keep_the_default(api: Sidecar) -> None:
    assert ask(api, "POST", "/policy", policy(default="allow")).text == ok("allow_all")
    assert ask(api, "PATCH", "/policy", [TWO]).text == ok()
    assert api.policy() == policy(TWO, default="allow")
    assert ask(api, "DELETE", "/policy", ["*.two.example"]).text == ok("allow_all")
    assert api.policy() == policy(default="allow")
    assert ask(api, "POST", "/policy", "").text == RESET
    assert ask(api, "PATCH", "/policy", [TWO]).text == ok()
    assert api.policy() == policy(TWO)


def test_ports_of_a_target(api: Sidecar) -> None:
    """Rules for other ports of a target are other rules to a patch, and are deleted together."""
    later, every = rule("allow", "192.0.2.7", ports=[8443]), rule("deny", "192.0.2.7")
    for patch, after in (
        ([WEB], [WEB]),
        ([SSH], [SSH, WEB]),
        ([later, NOT_WEB], [later, NOT_WEB, SSH]),
        ([every], [every, later, NOT_WEB, SSH]),
    ):
        assert ask(api, "PATCH", "/policy", patch).text == ok()
        assert api.policy() == policy(*after, ONE, TWO)
    both = [rule("allow", "198.51.100.7", ports=ports) for ports in ([80, 443], [443, 80])]
    assert ask(api, "PATCH", "/policy", both).text == ok()
    assert api.policy()["egress"][0] == both[0] and api.policy()["egress"][1] == every
    assert ask(api, "DELETE", "/policy", ["192.0.2.7", "198.51.100.7"]).text == ok()
    assert api.policy() == GIVEN


# Bounds on rules


def test_number_of_rules(served: Served) -> None:
    """The policy to begin with may have more; what takes rules away is never refused for how many are left."""
    rules = [rule("allow", f"n{number}.example") for number in range(6)]
    api = served.with_settings(policy(*rules[:5]), MAX_RULES="3")

    def change(method: str, body: object) -> tuple[int, str]:
        answer = ask(api, method, "/policy", body)
        return answer.status, answer.text

    def exceeding(count: int) -> tuple[int, str]:
        return 413, f"egress rule total count {count} exceeds limit 3\n"

    assert change("PATCH", rules[5:]) == exceeding(6) and len(api.policy()["egress"]) == 5
    assert change("DELETE", ["n0.example"]) == (200, ok()) and len(api.policy()["egress"]) == 4
    assert change("POST", policy(*rules[:4])) == exceeding(4) == change("PUT", policy(*rules[:4]))
    assert change("DELETE", ["n1.example", "n2.example"]) == (200, ok()) and api.policy() == policy(*rules[3:5])
    assert change("PATCH", rules[5:]) == (200, ok()) and api.policy() == policy(rules[5], *rules[3:5])
    # What takes the place of a rule is not one more.
    assert change("PATCH", [rule("deny", "n4.example")]) == (200, ok())
    assert change("PATCH", [rules[0], rules[0]]) == exceeding(4)
    assert change("POST", policy(*rules[:3])) == (200, ok())
    # Wrong and too many: the mistake is told.
    assert change("POST", policy(*rules, rule("block", "a.example")))[0] == 400


@pytest.mark.parametrize(("limit", "count", "status"), [("", 4096, 200), ("", 4097, 413), ("0", 4097, 200)])
def test_number_of_rules_by_default(served: Served, limit: str, count: int, status: int) -> None:
    api = served.with_settings(**({"MAX_RULES": limit} if limit else {}))
    answer = ask(api, "POST", "/policy", policy(*(rule("allow", f"n{number}.example") for number in range(count))))
    expected = ok() if status == 200 else "egress rule total count 4097 exceeds limit 4096\n"
    assert (answer.status, answer.text) == (status, expected)
    assert ask(api, "POST", "/policy", "").text == RESET


# Who asks

HEADER = "OPENSANDBOX-EGRESS-AUTH"
UNAUTHORIZED = (401, "unauthorized\n")


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({}, False),
        ({HEADER: ""}, False),
        ({HEADER: TOKEN[:-1]}, False),
        ({HEADER: TOKEN + "x"}, False),
        ({HEADER: TOKEN.upper()}, False),
        ({HEADER: "x" * len(TOKEN)}, False),
        ({HEADER: f'"{TOKEN}"'}, False),
        ({HEADER: f"Bearer {TOKEN}"}, False),
        ({"Authorization": f"Bearer {TOKEN}"}, False),
        ({"Cookie": f"{HEADER}={TOKEN}"}, False),
        ({HEADER: "wrong", HEADER.lower(): TOKEN}, False),
        ({HEADER: TOKEN}, True),
        ({HEADER.lower(): TOKEN}, True),
        ({HEADER: f"  {TOKEN}\t"}, True),
    ],
    ids=str,
)
def test_token(served: Served, headers: dict[str, str], passes: bool) -> None:
    api = served.with_settings(GIVEN, TOKEN=TOKEN)
    body: object
    path = f"/policy?{HEADER}={TOKEN}"
    for method, body, done in (
        ("GET", None, (200, shown(GIVEN))),
        ("POST", "{", (400, "")),
        ("PATCH", [], (400, "invalid patch rules: empty array\n")),
        ("DELETE", "", (400, "empty body\n")),
        ("OPTIONS", None, (405, "method not allowed\n")),
    ):
        answer = ask(api, method, path, body, headers)
        if method == "POST" and passes:
            assert answer.status == 400 and answer.text.startswith("invalid policy: ")
            continue
        assert (answer.status, answer.text) == (done if passes else UNAUTHORIZED), (method, answer)
        assert passes or answer.headers["content-type"] == PLAIN


def test_vault_with_a_token(served: Served) -> None:
    """The original's words where it does not intercept TLS, and why it will not be otherwise."""
    api = served.with_settings(GIVEN, TOKEN=TOKEN)
    missing = "credential vault requires transparent mitmproxy: TLS is not intercepted here\n"
    for method, body, answer in (("GET", None, (404, NO_VAULT)), *((m, NEW_VAULT, (412, missing)) for m in ("POST", "PATCH", "DELETE"))):
        refused, done = ask(api, method, VAULT, body), ask(api, method, VAULT, body, {HEADER: TOKEN})
        assert (refused.status, refused.text) == UNAUTHORIZED
        assert (done.status, done.text, done.headers["content-type"]) == (*answer, PLAIN)
    assert ask(api, "GET", f"{VAULT}/bindings").status == 401
    active = ask(api, "GET", f"{VAULT}/_active")
    assert (active.status, active.text) == (403, "forbidden\n")


def test_what_asks_for_no_token(served: Served) -> None:
    api = served.with_settings(GIVEN, TOKEN=TOKEN)
    assert ask(api, "GET", "/healthz").text == "ok"
    assert ask(api, "GET", "/nothing").status == 404
    # A token that nobody asks for is in nobody's way.
    api = served.with_settings(GIVEN)
    assert ask(api, "GET", "/policy", headers={HEADER: "anything"}).text == shown(GIVEN)


# HTTP


def test_connections_are_kept(api: Sidecar) -> None:
    """One answers request after request, refused ones too, and requests that were sent before the answers came."""
    wrong = json.dumps(policy(rule("block", "a.example"))).encode()
    with Connection(api) as connection:
        for _ in range(3):
            connection.send(head("GET", "/policy", None, {}))
            assert connection.answer().text == shown(GIVEN)
            connection.send(head("POST", "/policy", len(wrong), {}) + wrong)
            assert connection.answer().status == 400
            connection.send(head("OPTIONS", "/policy", len(wrong), {}) + wrong)
            assert connection.answer().status == 405
            connection.send(head("PATCH", "/nothing", len(wrong), {}) + wrong)
            assert connection.answer().status == 404
            connection.send(head("HEAD", "/policy", None, {}))
            assert connection.answer("HEAD").text == ""
        one, other = (json.dumps([rule("allow", f"{name}.example")]).encode() for name in ("x", "y"))
        connection.send(
            head("PATCH", "/policy", len(one), {}) + one + head("PATCH", "/policy", len(other), {}) + other
            + head("GET", "/policy", None, {"Connection": "close"})
        )
        assert connection.answer().text == connection.answer().text == ok()
        assert connection.answer().text == shown(policy(rule("allow", "y.example"), rule("allow", "x.example"), ONE, TWO))
        assert connection.has_ended()


@pytest.mark.slow
def test_connections_that_ask_for_nothing(api: Sidecar) -> None:
    """They are closed after a minute; one that asks now and then is kept for as long as it does."""
    request = head("GET", "/policy", None, {})
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        silent, half, answered, asking = (stack.enter_context(Connection(api)) for _ in range(4))
        half.send(request[:-2])
        answered.send(request)
        assert answered.answer().status == 200
        waiting = {connection.socket: connection for connection in (silent, half, answered)}
        while waiting:
            asking.send(request)
            assert asking.answer().status == 200
            assert time.monotonic() - begun < 80, "still kept"
            for ready in select.select(list(waiting), [], [], 5)[0]:
                assert waiting.pop(ready).has_ended() and time.monotonic() - begun > 55


def test_refusal_of_a_body_that_was_not_read(served: Served) -> None:
    """The connection goes on, or ends; what is left of the body is not taken for a request."""
    api = served.with_settings(GIVEN, TOKEN=TOKEN)
    body = (head("PUT", "/policy", 2, {HEADER: TOKEN}) + b"{}").ljust(20_000)
    with Connection(api) as connection:
        connection.send(head("POST", "/policy", len(body), {}) + body)
        assert connection.answer().status == 401
        try:
            connection.send(head("GET", "/policy", None, {HEADER: TOKEN}))
            assert connection.answer().text == shown(GIVEN)
        except (ConnectionError, http.client.BadStatusLine):
            assert connection.has_ended()
    assert ask(api, "GET", "/policy", headers={HEADER: TOKEN}).text == shown(GIVEN)


def test_old_clients(api: Sidecar) -> None:
    """They are told how long an answer is. The original closes after it; this one when nothing has come for a minute."""
    with Connection(api) as connection:
        connection.send(b"GET /policy HTTP/1.0\r\n\r\n")
        answer = connection.answer()
        assert answer.text == shown(GIVEN) and answer.headers["content-length"] == str(len(answer.text))


@pytest.mark.parametrize("expectation", ["100-continue", "100-Continue"])
def test_expectation(served: Served, expectation: str) -> None:
    """What says Expect waits for the word to go on, which comes when the body is wanted and not before a refusal."""
    api = served.with_settings(GIVEN, TOKEN=TOKEN)
    body = json.dumps(policy(TWO)).encode()
    headers = {"Expect": expectation, HEADER: TOKEN}
    with Connection(api) as connection:
        for _ in range(2):
            connection.send(head("PUT", "/policy", len(body), headers))
            assert connection.line() == b"HTTP/1.1 100 Continue\r\n" and connection.line() == b"\r\n"
            connection.send(body)
            assert connection.answer().text == ok()
    for token, path, length, status in (
        ("wrong", "/policy", len(body), 401),
        (TOKEN, "/nothing", len(body), 404),
        (TOKEN, "/policy", MEBIBYTE + 1, 413),
    ):
        with Connection(api) as connection:
            connection.send(head("PUT", path, length, headers | {HEADER: token}))
            assert connection.line().startswith(f"HTTP/1.1 {status} ".encode())
    assert ask(api, "PUT", "/policy", GIVEN, {HEADER: TOKEN}).text == ok()


def chunked(*parts: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(f"{len(part):x}".encode() + b"\r\n" + part + b"\r\n" for part in parts) + end


CHUNKED = {"Transfer-Encoding": "chunked"}


def test_chunked_bodies(api: Sidecar) -> None:
    whole = json.dumps(policy(TWO)).encode()
    for body in (
        chunked(whole),
        chunked(*(whole[index : index + 1] for index in range(len(whole)))),
        chunked(whole, end=b"0\r\nTrailer: x\r\n\r\n"),
        f"{len(whole):x};name=value\r\n".encode() + whole + b"\r\n0\r\n\r\n",
    ):
        with Connection(api) as connection:
            connection.send(head("PUT", "/policy", None, CHUNKED) + body + head("GET", "/policy", None, {}))
            assert connection.answer().text == ok() and connection.answer().text == shown(policy(TWO))
        assert ask(api, "PUT", "/policy", GIVEN).status == 200
    with Connection(api) as connection:
        connection.send(head("POST", "/policy", None, CHUNKED) + chunked() + head("GET", "/policy", None, {}))
        assert connection.answer().text == RESET and connection.answer().text == shown(NOTHING, "deny_all")


def test_too_much_in_chunks(api: Sidecar) -> None:
    """The answer may come before all is sent, and the connection end then."""
    with Connection(api) as connection:
        sender = threading.Thread(target=_send_all, args=(connection, head("PUT", "/policy", None, CHUNKED)))
        sender.start()
        assert connection.answer().status == 413
        connection.socket.shutdown(socket.SHUT_RDWR)
        sender.join(30)
    assert api.policy() == GIVEN


def _send_all(connection: Connection, start: bytes) -> None:
    try:
        connection.send(start + chunked(*[b" " * 65536] * 40))
    except OSError:
        pass


MALFORMED = {
    "no version": b"GET /policy\r\n\r\n",
    "no request": b"\r\n\r\nnonsense\r\n\r\n",
    "two lengths": b"PUT /policy HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
    "a length that is none": b"PUT /policy HTTP/1.1\r\nHost: a\r\nContent-Length: two\r\n\r\n{}",
    "a negative length": b"PUT /policy HTTP/1.1\r\nHost: a\r\nContent-Length: -2\r\n\r\n{}",
    "a length and chunks": b"PUT /policy HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a chunk of no length": b"PUT /policy HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "a body that ends early": b"PUT /policy HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n{}",
    "a field without a name": b"GET /policy HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x00\x05hello",
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_requests(api: Sidecar, data: bytes) -> None:
    """Nothing is changed, whatever is answered, and others are served."""
    with Connection(api) as connection:
        connection.send(data)
        connection.socket.shutdown(socket.SHUT_WR)
        said = b""
        try:
            while piece := connection.socket.recv(65536):
                said += piece
        except ConnectionResetError:
            pass
        assert said == b"" or said.startswith(b"HTTP/1.1 4"), said
    assert ask(api, "GET", "/policy").text == shown(GIVEN)


# At the same time


def all_at_once(*tasks: Callable[[], None]) -> None:
    """Runs them in threads of their own; what fails in one fails here."""
    failures: list[BaseException] = []

    def run(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads) and not failures, failures


def test_no_change_is_lost(api: Sidecar) -> None:
    """Many who patch, delete and read at once: each change is there in the end, and no state between was half of one."""
    writers, changes = 8, 25
    assert ask(api, "PUT", "/policy", policy(*(rule("deny", f"old-{w}-{n}.example") for w in range(writers) for n in range(changes)))).status == 200
    ended = threading.Event()

    def write(writer: int) -> None:
        with Connection(api) as connection:
            for number in range(changes):
                for method, body in (
                    ("PATCH", [rule("allow", f"{name}-{writer}-{number}.example") for name in "ab"]),
                    ("DELETE", [f"old-{writer}-{number}.example"]),
                ):
                    data = json.dumps(body).encode()
                    connection.send(head(method, "/policy", len(data), {}) + data)
                    answer = connection.answer()
                    assert (answer.status, answer.text) == (200, ok())

    def read() -> None:
        with Connection(api) as connection:
            while not ended.is_set():
                connection.send(head("GET", "/policy", None, {}))
                targets = [entry["target"] for entry in json.loads(connection.answer().text)["policy"]["egress"]]
                assert len(targets) == len(set(targets))
                # Both of a patch, or neither.
                assert {t[1:] for t in targets if t[0] == "a"} == {t[1:] for t in targets if t[0] == "b"}

    def write_all() -> None:
        try:
            all_at_once(*(lambda writer=writer: write(writer) for writer in range(writers)))
        finally:
            ended.set()

    all_at_once(write_all, read, read)
    targets = [entry["target"] for entry in api.policy()["egress"]]
    assert sorted(targets) == sorted(f"{name}-{w}-{n}.example" for name in "ab" for w in range(writers) for n in range(changes))
    for writer in range(writers):
        own = [int(t.split("-")[2].split(".")[0]) for t in targets if t.startswith(f"a-{writer}-")]
        assert own == sorted(own, reverse=True), "a later patch stands before an earlier one"


# The policy file


def test_policy_file(served: Served, network: Sidecar, tmp_path: Path) -> None:
    """What was changed last is in force after a restart, whatever ended the one before; nothing but a change writes."""
    kept = tmp_path / "policy.json"
    start = dict(POLICY_FILE=str(kept))
    api = served.with_settings(policy(THREE), **start)
    assert api.policy() == policy(THREE) and not kept.exists()

    def restart(number: signal.Signals) -> Any:
        api.end(number)
        return served.with_settings(policy(THREE), **start).policy()

    for number, method, body, after in (
        (signal.SIGKILL, "PATCH", [ONE], policy(ONE, THREE)),
        (signal.SIGTERM, "DELETE", ["three.example"], policy(ONE)),
        (signal.SIGKILL, "PUT", policy(TWO, WEB, default="allow"), policy(TWO, WEB, default="allow")),
        (signal.SIGTERM, "POST", policy(default="allow"), policy(default="allow")),
        # A reset is kept too: RULES do not come back.
        (signal.SIGKILL, "POST", "", policy()),
    ):
        assert ask(api, method, "/policy", body).status == 200
        assert json.loads(kept.read_text()) == after and kept.stat().st_mode & 0o777 == 0o600
        assert restart(number) == after
    before = kept.read_text()
    for method, body in (("POST", "{"), ("PATCH", []), ("DELETE", ["absent.example"]), ("GET", None)):
        ask(api, method, "/policy", body)
    assert kept.read_text() == before and [path.name for path in tmp_path.iterdir()] == ["policy.json"]


def test_policy_file_that_cannot_be_written(internet: Internet, served: Served, tmp_path: Path) -> None:
    """The change is refused as a whole: neither what is shown nor what is enforced changes."""
    directory = tmp_path / "kept"
    directory.mkdir()
    kept = directory / "policy.json"
    api = served.with_settings(allowing(plan.ALLOWED), POLICY_FILE=str(kept))
    assert api.reaches(plan.ALLOWED) and not api.reaches(plan.OTHER)
    before = api.policy()
    # What a file that is mounted by itself is like: nothing can take its place.
    kept.mkdir()
    for method, body in (("POST", allowing(plan.OTHER)), ("PATCH", [rule("allow", plan.OTHER)]), ("DELETE", [plan.ALLOWED]), ("PUT", "")):
        answer = ask(api, method, "/policy", body)
        assert answer.status == 500 and answer.text.startswith("failed to persist policy: "), answer
        assert answer.headers["content-type"] == PLAIN and api.policy() == before
    assert api.reaches(plan.ALLOWED) and not api.reaches(plan.OTHER)
    assert [path.name for path in directory.iterdir()] == ["policy.json"]
    kept.rmdir()
    assert ask(api, "POST", "/policy", allowing(plan.OTHER)).text == ok()
    assert api.reaches(plan.OTHER) and not api.reaches(plan.ALLOWED)


UNREADABLE = {
    "half of it": ('{"defaultAction":"allow","egress":[', "policy.json:1:"),
    "an unknown member": ('{"defaultAction":"allow","extra":1}', "policy.json:1:"),
    "a list": ("[]", "policy.json:1:"),
}


@pytest.mark.parametrize(("text", "words"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_policy_file_that_cannot_be_read(network: Sidecar, tmp_path: Path, text: str, words: str) -> None:
    """The original goes on with RULES, which may be long out of date."""
    kept = tmp_path / "policy.json"
    kept.write_text(text)
    if not network.ended():
        network.end(signal.SIGTERM)
    assert words in network.refuses(allowing(plan.ALLOWED), POLICY_FILE=str(kept))
    assert kept.read_text() == text


def test_empty_policy_file(served: Served, tmp_path: Path) -> None:
    """Denies everything, where the original goes on with RULES."""
    kept = tmp_path / "policy.json"
    kept.touch()
    api = served.with_settings(policy(THREE), POLICY_FILE=str(kept))
    assert api.policy() == policy() and ask(api, "PATCH", "/policy", [ONE]).text == ok()
    assert json.loads(kept.read_text()) == policy(ONE)
