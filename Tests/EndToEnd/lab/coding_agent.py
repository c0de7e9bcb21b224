"""A coding agent at its first work: mini-swe-agent, and a stand-in for the language model that it asks."""

from __future__ import annotations

import contextlib
import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from . import content, plan
from .first_work import FirstWork
from .internet import Internet
from .python_environment import python_environment
from .webserver import model_socket

AGENT = "mini-swe-agent==2.4.6"
REQUIREMENTS = (
    *("litellm==1.110.2", "openai==3.57.0", "jinja2", "platformdirs", "prompt_toolkit", "pydantic", "python-dotenv"),
    *("pyyaml", "requests", "rich", "tenacity", "textual", "typer"),
)
"""What the agent imports; what it asks for besides is for benchmarks of agents, and is half a gigabyte."""

END = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
"""The command by which this agent is told that its task is done."""

PRICES = "raw.githubusercontent.com"
"""Where the agent's library looks for prices as it starts; it goes on without."""


class _Model(BaseHTTPRequestHandler):
    """Tells an agent to clone the lab's repository, and then that its task is done (OpenAI's chat completions)."""

    server: _Server

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = sum(message["role"] == "assistant" for message in question["messages"])
        command = self.server.commands[min(said, len(self.server.commands) - 1)]
        call = {"name": "bash", "arguments": json.dumps({"command": command})}
        message = {
            "role": "assistant",
            "content": "Next step.",
            "tool_calls": [{"id": f"call-{said}", "type": "function", "function": call}],
        }
        answer = {
            "id": f"answer-{said}",
            "object": "chat.completion",
            "created": 0,
            "model": question["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        """A unix socket's clients have no address."""
        return "web server"

    def log_message(self, format: str, *values: object) -> None:
        """Says nothing."""


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path: Path, commands: list[str]) -> None:
        super().__init__(str(path), _Model)
        self.commands = commands


@contextlib.contextmanager
def coding_agent(internet: Internet, directory: Path) -> Iterator[FirstWork]:
    """The agent, whose model tells it to clone and read a repository."""
    environment = python_environment("coding-agent", REQUIREMENTS, alone=(AGENT,))
    clone = directory / "clone"
    path = model_socket(internet.directory)
    with _Server(path, [f"git clone -q https://{plan.GIT}/project.git {clone}", END]) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield FirstWork(
                f"rm -rf {clone}; {environment}/bin/mini --yolo --exit-immediately --model openai/lab "
                f"--task 'Get the project.' --output {directory}/trajectory.json </dev/null; cat {clone}/{content.GIT_FILE}",
                {
                    "MSWEA_GLOBAL_CONFIG_DIR": str(directory / "agent"),
                    "MSWEA_CONFIGURED": "true",
                    "MSWEA_COST_TRACKING": "ignore_errors",
                    "OPENAI_API_BASE": f"https://{plan.MODEL}/v1",
                    "OPENAI_API_KEY": "lab",
                    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                },
                (plan.MODEL, plan.GIT),
                content.GIT_TEXT,
                once={"MSWEA_MODEL_RETRY_STOP_AFTER_ATTEMPT": "1"},
            )
        finally:
            server.shutdown()
            thread.join()
            path.unlink()
