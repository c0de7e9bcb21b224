"""The page for operators, in a browser: what a sandbox was refused appears on it, and two clicks allow it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import plan
from lab.asking import listed
from lab.browser import Browser, Forwarder
from lab.daemon import Daemon, Sandbox, running
from lab.internet import Internet
from lab.processes import check, wait_until
from lab.sandgate import allowing
from lab.tool import tool

TOKEN = "full-token-of-sixteen"
HOSTILE = '<img src=x onerror="alert(document.domain)"><script>alert(2)</script>'


@pytest.fixture
def daemon(internet: Internet, tmp_path: Path) -> Iterator[Daemon]:
    """A daemon that serves over TCP too."""
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{TOKEN}\nread-token-of-sixteen read-only\n")
    with running(internet, tmp_path, "--listen", "127.0.0.1:64481", "--token-file", str(tokens)) as made:
        yield made


@pytest.fixture
def place(daemon: Daemon) -> Iterator[str]:
    """Where a browser finds the Unix socket's page."""
    forwarder = Forwarder(daemon.socket)
    yield f"http://localhost:{forwarder.port}/"
    forwarder.close()


@pytest.fixture
def browser() -> Iterator[Browser]:
    made = Browser()
    try:
        yield made
        assert made.problems == []
    finally:
        made.close()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Where a picture of the page goes: $SANDGATE_PICTURES, for people who want to look at it."""
    directory = Path(os.environ.get("SANDGATE_PICTURES", tmp_path))
    directory.mkdir(exist_ok=True)
    return directory


def test_empty_node(daemon: Daemon, place: str, browser: Browser, picture: Path) -> None:
    browser.open(place)
    browser.wait_for_text("#no-sandboxes", "There is none")
    browser.wait_for_text("#no-denials", "Nothing was refused")
    browser.wait_for_text("#connection", "live")
    browser.screenshot(picture / "empty.png")


def test_denial_is_allowed_in_two_clicks(internet: Internet, daemon: Daemon, place: str, browser: Browser) -> None:
    sandbox = daemon.create(allowing(plan.OTHER), id="box")
    browser.open(place)
    browser.wait_for_text("#sandboxes", "box")
    browser.wait_for_text("#connection", "live")
    browser.evaluate("window.wasNotReloaded = true")
    assert not sandbox.reaches(plan.ALLOWED)
    browser.wait_for_text(".denial .destination", plan.ALLOWED)
    assert internet.web.requests() == []
    browser.click(".denial .allow")
    browser.wait_for_text(".denial .rule", f'target: "{plan.ALLOWED}", ports: [443], protocol: tcp')
    assert not sandbox.reaches(plan.ALLOWED)
    browser.click(".denial .confirm")
    browser.wait_for_text(".denial .done", "revision 2 is in force")
    assert sandbox.reaches(plan.ALLOWED)
    assert internet.web.hosts() == {plan.ALLOWED}
    assert not sandbox.reaches(plan.ALLOWED, "--http1.1", "--connect-to", f"::{plan.SHARED4}:8443")
    policy = sandbox.ask("GET", "/policy").json["policy"]["egress"]
    assert [rule["target"] for rule in policy] == [plan.OTHER, plan.ALLOWED]
    assert browser.evaluate("window.wasNotReloaded")


def asked(sandbox: Sandbox, *names: str) -> list[subprocess.Popen[str]]:
    """Has somebody asked about names, in this order; who waits for the answers."""
    waiting = []
    before = len(sandbox.ask("GET", "/questions").json["items"])
    for count, name in enumerate(names, before + 1):
        waiting.append(sandbox.start("curl", "-sS", "-m", "25", f"https://{name}/"))
        wait_until(lambda: len(sandbox.ask("GET", "/questions").json["items"]) == count, f"the question about {name}")
    return waiting


ASKING = {"create": True, "ask": 25}
"""A sandbox that somebody is asked about."""


def test_question_is_answered_on_the_page(
    internet: Internet, daemon: Daemon, place: str, browser: Browser, picture: Path
) -> None:
    sandbox = daemon.create(allowing(), id="box", attachment=ASKING, metadata={"owner": "tests"})
    browser.open(place)
    browser.wait_for_text("#connection", "live")
    assert browser.text("#questions") == ""
    browser.evaluate("window.wasNotReloaded = true")
    denied, once, timed, kept = asked(sandbox, plan.DENIED, plan.OTHER, plan.ALLOWED, "www.wild.example")
    browser.wait_for("document.querySelectorAll('.question').length === 4", 5)
    browser.wait_for_text(".question .destination", f"{plan.DENIED}:80,443")
    browser.wait_for_text(".question .context", "owner: tests")
    browser.wait_for_text(".question .left", "denied in")
    browser.wait_for("document.title.startsWith('(4) ')")
    browser.screenshot(picture / "questions.png")
    # No file is there for it.
    assert "Always" not in browser.text(".question .answers")
    assert internet.web.requests() == []

    def press(name: str, answer: str, outcome: str) -> None:
        """Presses when the list has stood still for long enough."""
        row = f"[...document.querySelectorAll('.question')].find((row) => row.innerText.includes('{name}'))"
        browser.evaluate(f"{row}.dataset.name = '{name}'")
        browser.wait_for("!document.querySelector('.settling')")
        browser.click(f"[data-name='{name}'] button", answer)
        browser.wait_for_text(f"[data-name='{name}'] .outcome", outcome)

    press(plan.DENIED, "Deny", "Denied")
    press(plan.OTHER, "Once", "Allowed: once")
    press(plan.ALLOWED, "10 minutes", "Allowed: 10 minutes")
    # The keyboard does what the mouse does.
    browser.wait_for("!document.querySelector('.settling')")
    browser.evaluate("[...document.querySelectorAll('.question button[data-answer=allow]:not([data-ttl])')].pop().focus()")
    browser.press("Enter")
    browser.wait_for_text(".question .outcome", "Allowed: this sandbox")
    assert "served" not in denied.communicate(timeout=30)[0]
    for name, waiting in ((plan.OTHER, once), (plan.ALLOWED, timed), ("www.wild.example", kept)):
        assert f"served {name}" in waiting.communicate(timeout=30)[0]
    rules = sandbox.ask("GET", "/policy").json["policy"]["egress"]
    assert [(rule["target"], "expiresAt" in rule) for rule in rules] == [(plan.ALLOWED, True), ("www.wild.example", False)]
    # What is over stays where it is for as long as somebody points at the list.
    assert browser.evaluate("document.querySelectorAll('.question').length") == 4
    browser.evaluate("document.activeElement.blur()")
    browser.move(5, 5)
    browser.wait_for("document.querySelector('#questions').hidden")
    assert browser.evaluate("window.wasNotReloaded")


def test_answer_for_always_on_the_page(internet: Internet, tmp_path: Path, browser: Browser) -> None:
    """Where the daemon keeps such answers, and shown then among the rules of who asks."""
    file = tmp_path / "answers.yaml"
    (tmp_path / "config.yaml").write_text(f"answers: {file}\n")
    with running(internet, tmp_path, "--config", str(tmp_path / "config.yaml")) as daemon:
        sandbox = daemon.create(allowing(), id="box", attachment=ASKING)
        forwarder = Forwarder(daemon.socket)
        try:
            browser.open(f"http://localhost:{forwarder.port}/#/sandboxes/box")
            browser.wait_for_text("#connection", "live")
            (waiting,) = asked(sandbox, plan.DENIED)
            browser.wait_for_text(".question .destination", f"{plan.DENIED}:80,443")
            browser.wait_for("!document.querySelector('.settling')")
            browser.click(".question button", "Always")
            browser.wait_for_text(".question .outcome", "Allowed: always")
            assert f"served {plan.DENIED}" in waiting.communicate(timeout=30)[0]
            browser.wait_for_text("#policy", "answers 0")
            assert [rule.target for rule in listed(file)] == [plan.DENIED]
        finally:
            forwarder.close()


def test_question_ends_without_the_page(daemon: Daemon, place: str, browser: Browser) -> None:
    """Answered elsewhere, and by nobody."""
    sandbox = daemon.create(allowing(), id="box", attachment=ASKING)
    quick = daemon.create(allowing(), id="quick", attachment={"create": True, "ask": 4})
    browser.open(place)
    browser.wait_for_text("#connection", "live")
    waiting = asked(sandbox, plan.ALLOWED) + asked(quick, plan.OTHER)
    browser.wait_for("document.querySelectorAll('.question').length === 2", 5)
    x, y = browser.evaluate("(({x, y}) => [x + 5, y + 5])(document.querySelector('.question').getBoundingClientRect())")
    browser.move(x, y)
    assert tool("answer", "--socket", daemon.socket, "box", "1", "once").returncode == 0
    browser.wait_for("document.querySelectorAll('.question .outcome:not([hidden])').length === 2")
    browser.wait_for_text(".question .outcome", "answered elsewhere, or nobody answered in time")
    assert browser.text(".question .answers") == ""
    browser.move(5, 5)
    browser.wait_for("document.querySelector('#questions').hidden")
    for process in waiting:
        process.communicate(timeout=30)


@pytest.mark.attack(
    "T2", "asks at the moment at which a click is on its way to another question", stopped_by="control API"
)
def test_click_that_comes_too_soon(daemon: Daemon, place: str, browser: Browser) -> None:
    """A question that has just appeared takes no answer, and those above it stay where they are."""
    sandbox = daemon.create(allowing(), id="box", attachment=ASKING)
    browser.open(place)
    browser.wait_for_text("#connection", "live")
    # Presses every button of a question as soon as it is there, which no hand can.
    browser.evaluate(
        "new MutationObserver((changes) => { for (const change of changes) for (const row of change.addedNodes) {"
        " row.querySelectorAll('button').forEach((button) => button.click()); window.pressed = true; } })"
        ".observe(document.querySelector('#asked'), {childList: true})"
    )
    waiting = asked(sandbox, plan.ALLOWED)
    browser.wait_for("window.pressed === true")
    top = browser.evaluate("document.querySelector('.question').getBoundingClientRect().y")
    waiting += asked(sandbox, plan.OTHER)
    browser.wait_for("document.querySelectorAll('.question').length === 2")
    assert browser.evaluate("document.querySelector('.question').getBoundingClientRect().y") == top
    items = sandbox.ask("GET", "/questions").json["items"]
    assert [item["host"] for item in items] == [plan.ALLOWED, plan.OTHER]
    assert daemon.records(sandbox="box", event="question.answered") == []
    for process in waiting:
        process.kill()
        process.communicate()


def test_rule_stands_where_it_has_to(internet: Internet, daemon: Daemon, place: str, browser: Browser) -> None:
    """What a rule refuses is allowed right before it; the other rules keep their places and their ports."""
    rules = [
        {"action": "allow", "target": plan.ALLOWED, "ports": [8443]},
        {"action": "deny", "target": "*.example", "comment": "nothing else there"},
    ]
    sandbox = daemon.create({"egress": rules}, id="box")
    sandbox.fetch(plan.ALLOWED, "--http1.1")
    browser.open(f"{place}#/sandboxes/box")
    browser.click(".denial .allow")
    browser.wait_for_text(".denial .remedy", "before egress[1] deny *.example")
    # The keyboard does what the mouse does: the focus is on Confirm.
    browser.press("Enter")
    browser.wait_for_text(".denial .done", "revision 2 is in force")
    browser.wait_for_text("#policy", "nothing else there")
    browser.wait_for("document.querySelectorAll('#policy tbody tr').length === 4")
    assert sandbox.reaches(plan.ALLOWED)
    policy = sandbox.ask("GET", "/policy").json["policy"]["egress"]
    assert [(rule["target"], rule.get("ports")) for rule in policy] == [
        (plan.ALLOWED, [8443]),
        (plan.ALLOWED, [443]),
        ("*.example", None),
    ]


def test_policy_that_changed_meanwhile(daemon: Daemon, place: str, browser: Browser) -> None:
    sandbox = daemon.create(allowing(), id="box")
    sandbox.fetch(plan.ALLOWED)
    browser.open(place)
    browser.click(".denial .allow")
    browser.wait_for_text(".denial .confirm", "Confirm")
    assert sandbox.ask("PATCH", "/policy", [{"action": "deny", "target": plan.ALLOWED}]).status == 200
    browser.click(".denial .confirm")
    browser.wait_for_text(".denial .problem", "changed meanwhile")
    assert len(sandbox.ask("GET", "/policy").json["policy"]["egress"]) == 1
    browser.problems = [problem for problem in browser.problems if "412" not in problem]


def test_words_where_no_rule_should_help(daemon: Daemon, place: str, browser: Browser) -> None:
    name = next(iter(name for name in plan.GUARDED if "metadata" in name))
    sandbox = daemon.create(allowing(name), id="box")
    sandbox.fetch(name)
    sandbox.run("curl", "-sS", "-m", "3", "http://169.254.169.254/")
    browser.open(place)
    browser.wait_for_text(".denial .advice", "Private, link-local and metadata addresses open only to an address rule")
    browser.wait_for_text(".denial .destination", "169.254.169.254")
    guarded = "[...document.querySelectorAll('.denial')].filter((row) => row.innerText.includes('guarded'))"
    assert browser.evaluate(f"{guarded}.every((row) => row.querySelector('.allow').hidden)")
    # The kernel refused the address without a name before it was judged: the node has the last word.
    question = {"sandbox": "box", "ip": "169.254.169.254", "port": 80, "layer": "ip"}
    answer = daemon.request("POST", "/v1/policies/suggest", question).json
    assert answer["outcome"] == "advice" and "rule" not in answer


@pytest.mark.attack(
    "T2", "puts markup into names and metadata that the operator's page shows", stopped_by="control API"
)
def test_what_sandboxes_choose_is_text(internet: Internet, daemon: Daemon, place: str, browser: Browser) -> None:
    sandbox = daemon.create(allowing(plan.ALLOWED), id="box", metadata={"<b>key": HOSTILE, "turned": "a\u202eb"})
    name = "<img src=x onerror=alert(3)>.example"
    sandbox.run("dig", "+tries=1", "+timeout=2", name.replace(" ", r"\032"), "A")
    browser.open(place)
    browser.wait_for_text("#sandboxes .metadata", f"<b>key: {HOSTILE}")
    browser.wait_for_text("#sandboxes .metadata", r"turned: a\u{202e}b")
    browser.wait_for_text(".denial", "not a host name")
    assert "onerror=alert(3)" in browser.text(".denial .destination")
    browser.click("#sandboxes a", "box")
    browser.wait_for_text("#facts", f"<b>key: {HOSTILE}")
    assert browser.evaluate("document.querySelectorAll('img, b, script:not([src])').length") == 0
    # And a name in the address bar is one, too.
    browser.open(f"{place}#/sandboxes/{HOSTILE.replace(' ', '%20')}")
    browser.wait_for_text("#detail-title", HOSTILE)
    browser.wait_for_text("#detail-problem", "expected the id of a sandbox")
    assert browser.evaluate("document.querySelectorAll('img, b, script:not([src])').length") == 0
    browser.problems = [problem for problem in browser.problems if "400" not in problem]


def test_sandbox_is_paused_resumed_and_released(
    daemon: Daemon, place: str, browser: Browser, picture: Path
) -> None:
    rules = [
        {"action": "allow", "target": plan.ALLOWED, "ports": [443, "8000-8100"], "comment": "the API"},
        {"action": "deny", "target": "*.wild.example"},
        {"action": "allow", "target": "198.51.100.0/24", "protocol": "udp", "ports": [4444]},
    ]
    sandbox = daemon.create({"egress": rules}, id="box", timeout=3600, metadata={"owner": "tests", "job": "4711"})
    sandbox.fetch(plan.DENIED)
    sandbox.fetch("x.wild.example")
    browser.open(place)
    browser.click("#sandboxes a", "box")
    browser.wait_for_text("#detail-state", "Running")
    browser.wait_for_text("#policy", "443, 8000-8100")
    browser.wait_for_text("#facts", "owner: tests")
    browser.wait_for_text(".denial .why", "egress[1] deny *.wild.example")
    browser.screenshot(picture / "detail.png")
    browser.click("#pause")
    browser.wait_for_text("#detail-state", "Paused")
    assert sandbox.state == "Paused"
    browser.click("#resume")
    browser.wait_for_text("#detail-state", "Running")
    check("nsenter", f"--net={sandbox.namespace}", "nft", "add table ip nat")
    browser.wait_for_text("#detail-state", "Failed")
    browser.click("#retry")
    browser.wait_for_text("#detail-state", "Running")
    browser.click("#release")
    browser.click("#release-cancel")
    assert sandbox.state == "Running"
    browser.click("#release")
    browser.click("#release-confirm")
    browser.wait_for_text("#no-sandboxes", "There is none")
    assert sandbox.ask("GET").status == 404


def test_many(daemon: Daemon, place: str, browser: Browser, picture: Path) -> None:
    """Several sandboxes, repeated denials, and a list that stays where it is while somebody points at it."""
    first = daemon.create(allowing(plan.ALLOWED), id="agent-7", metadata={"owner": "ml-platform", "task": "swe-1234"})
    second = daemon.create(allowing(plan.ALLOWED), id="sbx-build", timeout=900)
    paused = daemon.create({"mode": "report", "egress": []}, id="trial")
    paused.fetch(plan.OTHER)
    daemon.create({"defaultAction": "allow"}, id="open")
    paused.ask("POST", "/pause")
    for _ in range(3):
        first.fetch(plan.DENIED)
    second.fetch("registry.example")
    second.run("curl", "-sS", "-m", "3", f"http://{plan.SINK4}:8443/")
    second.run("ping", "-c", "1", "-W", "1", plan.SINK4)
    first.fetch(next(iter(plan.GUARDED)))
    browser.open(place)
    browser.wait_for_text("#sandbox-count", "4")
    browser.wait_for_text(".denial .times", "\u00d7")
    browser.wait_for_text(".denial .why", "Would be refused")
    browser.screenshot(picture / "many.png")
    browser.resize(1280, 900, dark=True)
    browser.screenshot(picture / "many-dark.png")
    browser.resize(400, 860)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 400
    browser.screenshot(picture / "many-narrow.png")
    browser.evaluate("document.querySelector('#denials').scrollIntoView()")
    browser.screenshot(picture / "many-narrow-denials.png")
    browser.resize(1280, 900)
    browser.evaluate("scrollTo(0, 0)")
    browser.click("#filter")
    browser.type("swe-1234")
    browser.wait_for_text("#sandbox-count", "1 of 4")
    # Pointed at, the list shows nothing new; it says how much there is.
    top = browser.text(".denial .destination")
    x, y = browser.evaluate("(({x, y}) => [x + 5, y + 5])(document.querySelector('.denial').getBoundingClientRect())")
    browser.move(x, y)
    first.fetch("new.example")
    browser.wait_for_text("#held", "new")
    assert browser.text(".denial .destination") == top
    browser.move(5, 5)
    browser.wait_for("document.querySelector('.denial .destination').innerText.includes('new.example')")
    browser.click(".denial .allow")
    browser.wait_for_text(".denial .command", f"sandgate allow --socket '{daemon.socket}' agent-7 'new.example:443'")
    browser.screenshot(picture / "remedy.png")


def test_page_of_a_node_that_restarts(daemon: Daemon, place: str, browser: Browser) -> None:
    sandbox = daemon.create(allowing(plan.ALLOWED), id="box")
    browser.open(place)
    browser.wait_for_text("#connection", "live")
    daemon.end()
    browser.wait_for_text("#connection", "no connection")
    daemon.start()
    browser.wait_for_text("#connection", "live", 30)
    sandbox.fetch(plan.DENIED)
    browser.wait_for_text(".denial .destination", plan.DENIED)
    browser.problems = [problem for problem in browser.problems if "Failed to load resource" not in problem]


def test_token_is_asked_for(daemon: Daemon, browser: Browser, picture: Path) -> None:
    sandbox = daemon.create(allowing(), id="box")
    sandbox.fetch(plan.DENIED)
    browser.open("http://127.0.0.1:64481/")
    browser.wait_for("document.querySelector('#token-dialog').open")
    browser.screenshot(picture / "token.png")
    browser.type("wrong-token-of-sixteen")
    browser.press("Enter")
    browser.wait_for_text("#token-problem", "does not know")
    assert browser.text("#sandboxes tbody") == ""
    browser.type("read-token-of-sixteen")
    browser.press("Enter")
    browser.wait_for_text("#sandboxes", "box")
    browser.click(".denial .allow")
    browser.click(".denial .confirm")
    browser.wait_for_text(".denial .problem", "this token is read-only")
    assert sandbox.ask("GET", "/policy").json["policy"]["egress"] == []
    expected = ("401", "403")
    browser.problems = [problem for problem in browser.problems if not any(status in problem for status in expected)]


@pytest.mark.attack("T2", "has a page of another site ask the operator's browser", stopped_by="control API")
def test_page_of_another_site(daemon: Daemon, place: str, browser: Browser) -> None:
    """A page elsewhere in the same browser gets nothing and changes nothing."""
    sandbox = daemon.create(allowing(), id="box")
    for base in (place, "http://127.0.0.1:64481/"):
        # The same machine by another name is another site; data: has none at all.
        for elsewhere in ("http://127.0.0.1:64481/", place, "data:text/html,<p>elsewhere"):
            if elsewhere == base:
                continue
            browser.open(elsewhere)
            path = json.dumps(f"{base}v1/sandboxes/box/pause")
            sent = f"fetch({path}, {{method: 'POST', mode: 'no-cors'}}).then(() => 'sent', () => 'kept')"
            browser.evaluate(sent)
            assert browser.evaluate(f"fetch({json.dumps(base + 'v1/sandboxes')}).then(() => 'read', () => 'kept')") == "kept"
            assert sandbox.state == "Running"
    browser.problems = []


@pytest.mark.attack("T2", "has a browser ask the API with another host, origin or site", stopped_by="control API")
def test_requests_that_browsers_send_for_others(daemon: Daemon) -> None:
    sandbox = daemon.create(allowing(), id="box")

    def status(method: str, path: str, **headers: str) -> int:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return daemon.request(method, path, headers=fields).status

    assert status("GET", "/v1/sandboxes", Host="localhost:8080") == 200
    assert status("GET", "/v1/sandboxes", Host="evil.example:8080") == 421
    assert status("GET", "/", Host="evil.example:8080") == 421
    assert status("GET", "/v1/sandboxes", Origin="http://evil.example") == 403
    assert status("GET", "/v1/sandboxes", Sec_Fetch_Site="cross-site") == 403
    assert status("POST", "/v1/sandboxes/box/pause", Origin="null") == 403
    assert status("POST", "/v1/sandboxes/box/pause", Host="evil.example", Origin="http://evil.example") == 421
    assert sandbox.state == "Running"
    assert status("GET", "/", Sec_Fetch_Site="cross-site") == 200
    assert status("POST", "/v1/sandboxes/box/pause", Host="localhost:1", Origin="http://localhost:1") == 200
    tcp = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"Authorization: Bearer {TOKEN}"]
    there = "http://127.0.0.1:64481/v1/sandboxes"
    # With the token, the node may be called by any name; a page of another site is still refused.
    assert check(*tcp, "-H", "Host: node7.internal.example", there) == "200"
    assert check(*tcp, "-H", "Origin: http://evil.example", there) == "403"


def test_page_is_protected(daemon: Daemon) -> None:
    types = {"/": "text/html", "/page.css": "text/css", "/page.js": "text/javascript"}
    for path, media_type in types.items():
        answer = daemon.request("GET", path)
        assert answer.status == 200 and answer.headers["content-type"] == f"{media_type}; charset=utf-8"
        policy = {part.strip() for part in answer.headers["content-security-policy"].split(";")}
        assert policy >= {"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'"}
        assert policy >= {"frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"}
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert check("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", f"http://127.0.0.1:64481{path}") == "200"


# What the page uses


def test_allow_command(internet: Internet, daemon: Daemon) -> None:
    sandbox = daemon.create(allowing(plan.OTHER), id="box")

    def allow(*words: str) -> subprocess.CompletedProcess[str]:
        return tool("allow", "--socket", daemon.socket, *words)

    assert not sandbox.reaches(plan.ALLOWED)
    done = allow("box", plan.ALLOWED)
    assert (done.returncode, done.stderr) == (0, "") and "in force, revision 2" in done.stdout, done
    assert sandbox.reaches(plan.ALLOWED) and internet.web.hosts() == {plan.ALLOWED}
    again = allow("box", f"{plan.ALLOWED}:443")
    assert again.returncode == 0 and "allowed already" in again.stdout, again
    assert sandbox.ask("GET", "/policy").json["revision"] == 2
    address = allow("box", f"{plan.SINK4}:8443", "--json")
    assert json.loads(address.stdout)["policy"]["egress"][-1]["target"] == plan.SINK4, address
    for words, message in (
        (["box", "169.254.169.254:80"], "guarded"),
        (["absent", plan.ALLOWED], "there is no sandbox absent"),
    ):
        refused = allow(*words)
        assert refused.returncode == 1, refused
        assert message in refused.stderr or "metadata" in refused.stderr, refused
    for words in (["box", "*.example"], ["box", "198.51.100.0/24"], ["box", f"{plan.ALLOWED}:1-9"], ["b/x", plan.ALLOWED]):
        assert allow(*words).returncode == 64, words
    assert sandbox.ask("GET", "/policy").json["revision"] == 3


def test_newest_records_first(daemon: Daemon) -> None:
    sandbox = daemon.create(allowing(), id="box")
    for number in range(5):
        sandbox.run("getent", "hosts", f"name{number}.example")
    seen: list[int] = []
    cursor = ""
    while True:
        page = daemon.request("GET", f"/v1/audit?order=newest&verdict=refused&limit=3{cursor}").json
        seen += [record["seq"] for record in page["items"]]
        if "nextCursor" not in page:
            break
        cursor = f"&cursor={page['nextCursor']}"
    assert seen == [record["seq"] for record in daemon.records(verdict="refused")][::-1] and len(seen) >= 5
    assert daemon.request("GET", "/v1/audit?order=oldest").status == 200
    assert daemon.request("GET", "/v1/audit?order=other").status == 400


def test_position_needs_a_revision(daemon: Daemon) -> None:
    sandbox = daemon.create(allowing(plan.ALLOWED), id="box")
    rule = [{"action": "allow", "target": plan.OTHER}]
    assert sandbox.ask("PATCH", "/policy?before=0", rule).status == 400
    assert sandbox.ask("PATCH", "/policy?before=2", rule, If_Match='"1"').status == 400
    assert sandbox.ask("PATCH", "/policy?before=x", rule, If_Match='"1"').status == 400
    assert sandbox.ask("PATCH", "/policy?befor=1", rule, If_Match='"1"').status == 400
    assert sandbox.ask("PATCH", "/policy?before=1", rule, If_Match='"7"').status == 412
    answer = sandbox.ask("PATCH", "/policy?before=1", rule, If_Match='"1"')
    assert [one["target"] for one in answer.json["policy"]["egress"]] == [plan.ALLOWED, plan.OTHER]
    assert sandbox.ask("GET", "/activity").json == {"connections": 0, "pins": 0}
