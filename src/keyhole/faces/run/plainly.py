"""Running a command without namespaces: in a profile of ``sandbox-exec`` on macOS, elsewhere without a sandbox."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from keyhole.faces.run.environment import child_environment
from keyhole.faces.run.inside import carrier
from keyhole.faces.run.plan import NOT_EXECUTABLE, NOT_FOUND, OWN_FAILURE, RunPlan, SandboxReport
from keyhole.faces.run.port import serving
from keyhole.faces.run.trust import TrustFiles
from keyhole.process import seatbelt

if TYPE_CHECKING:
    from keyhole.faces.run.output import Output

WITHOUT = (
    "the command can read whatever its user can: the vault's files, the keychain, agent sockets",
    "it can see and signal this user's processes, and may leave some behind",
    "it can connect past the broker, without any key",
)


async def run_plainly(
    plan: RunPlan,
    files: TrustFiles,
    output: Output | None,
    on_sandbox: Callable[[SandboxReport], None],
    on_message: Callable[[str], None],
) -> int:
    """Run the command as our direct child; the terminal's signals reach it by themselves.

    The arguments and the code are those of ``run_child``.
    """
    confined = sys.platform == "darwin" and plan.sandbox != "off" and os.access(seatbelt.PROGRAM, os.X_OK)
    if plan.sandbox == "require" or (plan.network == "broker" and not confined):
        on_message("the sandbox that was required needs Linux")
        return OWN_FAILURE
    if plan.databases:
        on_message("sessions with databases need a port of the command's own, which needs Linux")
    if plan.agentsecrets is not None and plan.agentsecrets.port:
        on_message("the port for AgentSecrets is the command's own, which needs Linux")
    if plan.transparent:
        on_message("--transparent needs Linux")
    async with AsyncExitStack() as stack:
        before: tuple[str, ...] = ()
        report = SandboxReport("none", WITHOUT)
        if confined:
            plan, before = await _confined(plan, stack)
            report = SandboxReport("partial", seatbelt.MISSING, "open" if plan.network == "host" else "broker")
        env = child_environment(plan, files, sandboxed=confined)
        if confined and not _is_there(plan):  # else the program in between would say so, with a code of its own
            on_message(explain(plan, "exec", errno.ENOENT))
            return NOT_FOUND
        on_sandbox(report)
        return await _run(plan, before, env, output, on_message)


async def _confined(plan: RunPlan, stack: AsyncExitStack) -> tuple[RunPlan, tuple[str, ...]]:
    """The plan, and what goes before its command. A profile knows no hosts, so the broker becomes a port of ours."""
    ports: list[int] | None = None
    if plan.network != "host":
        parts = urlsplit(plan.proxy_url)
        server = await stack.enter_async_context(serving(carrier(parts.hostname or "", parts.port or 80)))
        near = server.sockets[0].getsockname()[1]
        plan = replace(plan, proxy_url=f"http://{parts.netloc.rpartition('@')[0]}@127.0.0.1:{near}")
        ports = [near, *plan.local]
    hidden = [str(path) for path in plan.hidden]
    text = seatbelt.profile(hidden, plan.base_env, ports, [str(path) for path in plan.sockets])
    return plan, (seatbelt.PROGRAM, "-p", text)


def _is_there(plan: RunPlan) -> bool:
    name = plan.argv[0]
    if "/" in name:
        return (plan.cwd or Path.cwd()).joinpath(name).exists()
    return shutil.which(name, path=plan.base_env.get("PATH", os.defpath)) is not None


async def _run(
    plan: RunPlan,
    before: tuple[str, ...],
    env: dict[bytes, bytes],
    output: Output | None,
    on_message: Callable[[str], None],
) -> int:
    named = {os.fsdecode(name): os.fsdecode(value) for name, value in env.items()}
    streams: dict[str, Any] = {}
    if output is not None:
        streams = {"stdout": output.stdout, "stderr": output.stderr}
    try:
        child = await asyncio.create_subprocess_exec(*before, *plan.argv, env=named, cwd=plan.cwd, **streams)
    except FileNotFoundError:
        on_message(explain(plan, "exec", errno.ENOENT))
        return NOT_FOUND
    except OSError as error:
        on_message(f"{plan.argv[0]}: {error.strerror}")
        return NOT_EXECUTABLE
    loop = asyncio.get_running_loop()
    passed = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)]
    for number in passed:
        with suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, child.send_signal, number)
    with suppress(NotImplementedError, RuntimeError, ValueError):
        loop.add_signal_handler(signal.SIGINT, lambda: None)  # the terminal sent it to the command as well
    code = await child.wait()
    return code if code >= 0 else 128 - code


def explain(plan: RunPlan, step: str, number: int) -> str:
    """Why a command could not be run, in words for the user.

    Args:
        plan: of it.
        step: that failed: ``chdir``, ``lock`` or ``exec``.
        number: its ``errno``.
    """
    reason = os.strerror(number)
    if step == "chdir":
        return f"the working directory is not there in the sandbox ({reason}): the vault's own folders are hidden"
    if step == "lock":
        return f"the sandbox could not be locked ({reason}): run without it, or ask for help with this message"
    if number == errno.ENOENT and "/" not in plan.argv[0]:
        return f"{plan.argv[0]}: {reason}: there is no such program in PATH; a shell's own word needs: sh -c '…'"
    return f"{plan.argv[0]}: {reason}"
