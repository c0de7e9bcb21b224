"""Runs OpenSandbox's SDK for a test, in a process of its own: a line of JSON in, a line of JSON out."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from typing import Any

from opensandbox import SandboxSync
from opensandbox.config.connection_sync import ConnectionConfigSync
from opensandbox.models.sandboxes import NetworkPolicy, NetworkRule


class Client:
    """One sandbox, and what a user of the SDK does with it."""

    def __init__(self, domain: str, key: str) -> None:
        self.configuration = ConnectionConfigSync(domain=domain, api_key=key, disable_metrics=True)
        self.sandbox: Any = None

    def create(self, image: str, policy: dict[str, Any] | None, env: dict[str, str]) -> str:
        self.sandbox = SandboxSync.create(
            image,
            timeout=timedelta(minutes=5),
            env=env,
            network_policy=None if policy is None else NetworkPolicy.model_validate(policy),
            connection_config=self.configuration,
        )
        return str(self.sandbox.id)

    def policy(self) -> Any:
        return self.sandbox.get_egress_policy().model_dump(by_alias=True, exclude_none=True)

    def patch(self, rules: list[dict[str, str]]) -> None:
        self.sandbox.patch_egress_rules([NetworkRule.model_validate(rule) for rule in rules])

    def delete(self, targets: list[str]) -> None:
        self.sandbox.delete_egress_rules(targets)

    def renew(self, seconds: int) -> str:
        self.sandbox.renew(timedelta(seconds=seconds))
        return str(self.sandbox.get_info().expires_at)

    def state(self) -> str:
        return str(self.sandbox.get_info().status.state)

    def endpoint(self, port: int) -> Any:
        found = self.sandbox.get_endpoint(port)
        return {"endpoint": found.endpoint, "headers": dict(found.headers or {})}

    def pause(self) -> None:
        self.sandbox.pause()

    def resume(self) -> None:
        self.sandbox = SandboxSync.resume(self.sandbox.id, connection_config=self.configuration)

    def kill(self) -> None:
        self.sandbox.kill()


def main() -> None:
    client = Client(*sys.argv[1:])
    for line in sys.stdin:
        name, values = json.loads(line)
        try:
            answer = {"result": getattr(client, name)(*values)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


main()
