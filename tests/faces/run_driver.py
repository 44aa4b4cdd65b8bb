"""A `keyhole run` without vault and broker, for tests that need it as a process or as another user."""

import asyncio
import json
import sys
from pathlib import Path

from keyhole.core.value import Secret
from keyhole.faces.run.child import run_child
from keyhole.faces.run.plan import RunPlan
from keyhole.process import harden_process
from keyhole.process.pinned import pin_code


def main() -> None:
    given = json.loads(sys.stdin.readline() if sys.argv[1] == "-" else sys.argv[1])
    harden_process()
    if given.get("pinned"):
        pin_code()
    told: dict = {"messages": []}
    plan = RunPlan(
        tuple(given["argv"]),
        given.get("proxy", "http://agent:tok@127.0.0.1:8210"),
        given["ca"].encode(),
        given.get("placeholders", {}),
        {name: Secret(value) for name, value in given.get("reveal", {}).items()},
        [Path(path) for path in given.get("hidden", [])],
        Path(given["cwd"]) if "cwd" in given else None,
        given["env"],
        given.get("sandbox", "auto"),
        scrub=given.get("scrub", False),
        network=given.get("network", "auto"),
        transparent=given.get("transparent", False),
        local=given.get("local", ()),
        sockets=[Path(path) for path in given.get("sockets", ())],
    )

    def report(sandbox) -> None:
        told["level"], told["missing"], told["network"] = sandbox.level, sandbox.missing, sandbox.network

    told["code"] = asyncio.run(run_child(plan, on_sandbox=report, on_message=told["messages"].append))
    if "told" in given:
        Path(given["told"]).write_text(json.dumps(told))
    sys.exit(told["code"])


if __name__ == "__main__":
    main()
