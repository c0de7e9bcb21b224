"""A headless Chromium that a test drives as a person would: it loads pages, presses what it sees and reads what is there.

Spoken to by the DevTools protocol over a pipe, so that no port is opened and nothing needs to be installed beside it.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any


class Browser:
    """A browser with one page and a home of its own. Runs as nobody, in Chromium's own sandbox."""

    def __init__(self, width: int = 1280, height: int = 900, *, dark: bool = False) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="sandgate-browser-"))
        shutil.chown(self._home, "nobody", "nogroup")
        to_browser, self._output = os.pipe()
        self._input, from_browser = os.pipe()
        command = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "chromium", "--headless"]
        command += ["--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking"]
        command += [f"--user-data-dir={self._home}/profile", f"--window-size={width},{height}", "--hide-scrollbars"]
        # The pipe is at the descriptors 3 and 4.
        script = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        with (self._home / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", script, "bash", *command, "--remote-debugging-pipe", "about:blank"],
                env={**os.environ, "HOME": str(self._home)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(to_browser, from_browser),
                start_new_session=True,
            )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer = b""
        self._next = 1
        self._session: str | None = None
        self.problems: list[str] = []
        """What the browser complained of, and what scripts should not have done: errors, blocked content, dialogs."""
        try:
            target = self._ask("Target.createTarget", url="about:blank")["targetId"]
            self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self._ask(f"{domain}.enable")
            self.resize(width, height, dark=dark)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends it and everything it started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._output)
        os.close(self._input)
        for _ in range(50):
            shutil.rmtree(self._home, ignore_errors=True)
            if not self._home.exists():
                return
            time.sleep(0.1)

    # The protocol

    def _ask(self, method: str, **parameters: Any) -> Any:
        number, self._next = self._next, self._next + 1
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._output, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + 30
        while True:
            answer = self._receive(deadline - time.monotonic())
            if answer is None:
                raise TimeoutError(f"{method} was not answered: {(self._home / 'log').read_text(errors='replace')}")
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _receive(self, timeout: float) -> dict[str, Any] | None:
        """The next message; notes what is a problem."""
        deadline = time.monotonic() + timeout
        while b"\0" not in self._buffer:
            if not select.select([self._input], [], [], max(0, deadline - time.monotonic()))[0]:
                return None
            piece = os.read(self._input, 1 << 20)
            if not piece:
                raise RuntimeError(f"the browser has ended: {(self._home / 'log').read_text(errors='replace')}")
            self._buffer += piece
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        parameters = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.problems.append(json.dumps(parameters["exceptionDetails"])[:2000])
            case "Log.entryAdded":
                self.problems.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")
            case "Page.javascriptDialogOpening":
                self.problems.append(f"dialog: {parameters['message']}")
        return message

    # What a person does

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """Gives the window a size, and the system a taste."""
        self._ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url: str) -> None:
        """Loads a page."""
        answer = self._ask("Page.navigate", url=url)
        if "errorText" in answer:
            raise RuntimeError(f"{url}: {answer['errorText']}")
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited."""
        answer = self._ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, expression: str, timeout: float = 15) -> Any:
        """Waits until an expression is true."""
        deadline = time.monotonic() + timeout
        while not (value := self.evaluate(expression)):
            if time.monotonic() > deadline:
                shown = self.evaluate("document.body.innerText")
                raise TimeoutError(f"waited in vain for {expression}; the page:\n{shown}\n{self.problems}")
            time.sleep(0.05)
        return value

    def text(self, selector: str) -> str:
        """What is to be read in the first visible element that matches; empty without one."""
        visible = f"[...document.querySelectorAll({json.dumps(selector)})].find((one) => one.checkVisibility())"
        return str(self.evaluate(f"{visible}?.innerText ?? ''"))

    def wait_for_text(self, selector: str, text: str, timeout: float = 15) -> None:
        """Waits until some visible element that matches shows `text`."""
        every = f"[...document.querySelectorAll({json.dumps(selector)})].filter((one) => one.checkVisibility())"
        self.wait_for(f"{every}.some((one) => one.innerText.includes({json.dumps(text)}))", timeout)

    def click(self, selector: str, text: str = "") -> None:
        """Presses the first visible element that matches and shows `text`, with the mouse."""
        self.wait_for_text(selector, text)
        every = f"[...document.querySelectorAll({json.dumps(selector)})].filter((one) => one.checkVisibility())"
        x, y = self.evaluate(
            f"(() => {{ const one = {every}.find((one) => one.innerText.includes({json.dumps(text)}));"
            " one.scrollIntoView({block: 'center'}); const box = one.getBoundingClientRect();"
            " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        self.move(x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self._ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def move(self, x: float, y: float) -> None:
        """Moves the mouse."""
        self._ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, key: str) -> None:
        """Presses a key, such as Tab or Enter."""
        codes = {"Tab": 9, "Enter": 13}
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self._ask(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key], **text
            )

    def type(self, text: str) -> None:
        """Types into what has the focus."""
        self._ask("Input.insertText", text=text)

    def screenshot(self, path: Path) -> None:
        """Takes a picture of the window."""
        path.write_bytes(base64.b64decode(self._ask("Page.captureScreenshot", format="png")["data"]))


class Forwarder:
    """Leads a port of the loopback to a Unix socket, as `ssh -L` does."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                server.connect(str(self._path))
            except OSError:
                client.close()
                continue
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        try:
            while piece := source.recv(65536):
                sink.sendall(piece)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self) -> None:
        """Takes no more connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
