"""Run one command and wait for it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import keyhole
from keyhole.core.errors import KeyholeError
from keyhole.faces.run.databases import DatabasePort
from keyhole.faces.run.environment import child_environment, given_values, has_java, launcher_environment
from keyhole.faces.run.inside import Inside
from keyhole.faces.run.plainly import WITHOUT, explain, run_plainly
from keyhole.faces.run.plan import OWN_FAILURE, RunPlan, SandboxReport
from keyhole.faces.run.port import SessionPort, session_port
from keyhole.faces.run.ssh import SOCKET, AgentSocket, agent_socket, write_configuration
from keyhole.faces.run.trust import TrustFiles, trust_files
from keyhole.process.hide import Cover, cover
from keyhole.process.pinned import current

if TYPE_CHECKING:
    from keyhole.faces.run.output import Output

_GRACE = 3.0  # seconds between SIGTERM and SIGKILL when our own caller gives up


def _to_stderr(message: str) -> None:
    sys.stderr.write(f"keyhole: {message}\n")
    sys.stderr.flush()


async def run_child(
    plan: RunPlan,
    *,
    on_sandbox: Callable[[SandboxReport], None] | None = None,
    on_message: Callable[[str], None] = _to_stderr,
) -> int:
    """Run the command of ``plan`` in the foreground of the terminal, until it has ended.

    Signals to this process are passed on (when called in the main thread). The command dies with us. Call
    ``keyhole.process.harden_process`` first. A cancelled call ends the command with SIGTERM, then SIGKILL.

    Args:
        plan: what to run.
        on_sandbox: told how the command is shut in, just before it starts.
        on_message: told why the command could not be run; one line without values.

    Returns:
        The command's code; 128 and the number of the signal that ended it; 125 when we failed, or the sandbox that
        was required is not to be had; 126 when the command cannot be executed; 127 when it is not found.
    """
    try:
        with trust_files(plan.ca_pem, plan.base_env, java=has_java(plan.base_env), others=plan.files) as files:
            if sys.platform == "linux":
                async with AsyncExitStack() as stack:
                    output = _output(plan, stack, session=True)
                    wanted = [SessionPort(plan.proxy_url, on_message)]
                    wanted += [DatabasePort(plan.proxy_url, on_message, database) for database in plan.databases]
                    wanted += _agentsecrets(plan, on_message, wanted[0])
                    ports = [await stack.enter_async_context(session_port(port)) for port in wanted]
                    trusted = await _logins(plan, files, wanted[0], on_message, stack)
                    return await _run_on_linux(
                        plan, trusted, ports, output, on_sandbox or (lambda _report: None), on_message
                    )
            with ExitStack() as streams:
                output = _output(plan, streams, session=False)
                return await run_plainly(plan, files, output, on_sandbox or (lambda _report: None), on_message)
    except (KeyholeError, OSError) as error:
        on_message(str(error))
        return OWN_FAILURE


def _output(plan: RunPlan, stack: AsyncExitStack | ExitStack, *, session: bool) -> Output | None:
    """What takes values out of what the command prints, where that is wanted."""
    if not (plan.scrub and plan.reveal):
        return None
    scrubber = given_values(plan)
    if scrubber.empty or sys.platform == "win32":
        return None
    from keyhole.faces.run.output import Output  # noqa: PLC0415  # POSIX only, and few runs need it

    return stack.enter_context(Output(scrubber, session=session))


async def _logins(
    plan: RunPlan, files: TrustFiles, first: SessionPort, on_message: Callable[[str], None], stack: AsyncExitStack
) -> TrustFiles:
    """What SSH needs, beside the other files, where the command may log in to a host."""
    if not plan.logins:
        return files
    folder = files.combined.parent
    write_configuration(folder, plan.logins)
    await stack.enter_async_context(agent_socket(AgentSocket(plan.proxy_url, on_message, first, folder / SOCKET)))
    return replace(files, ssh=folder)


def _agentsecrets(plan: RunPlan, on_message: Callable[[str], None], proxy: SessionPort) -> list[SessionPort]:
    """The port for the SDK of AgentSecrets, where it is wanted; also reached through the command's proxy port."""
    if plan.agentsecrets is None:
        return []
    from keyhole.faces.run.agentsecrets.port import AgentSecretsPort  # noqa: PLC0415  # agents without grants

    port = AgentSecretsPort(plan.proxy_url, on_message, plan.agentsecrets, plan.ca_pem)
    port.wanted = plan.agentsecrets.port
    proxy.beside = port
    return [port]


async def _run_on_linux(
    plan: RunPlan,
    files: TrustFiles,
    ports: Sequence[SessionPort],
    output: Output | None,
    on_sandbox: Callable[[SandboxReport], None],
    on_message: Callable[[str], None],
) -> int:
    refusals: list[str] = []
    unavailable: list[str] = []  # modes
    for mode, shut in _ways(plan):
        if mode in unavailable:
            continue
        hidden = cover(plan.hidden, plan.base_env, shut=shut, allowed=plan.sockets)
        async with AsyncExitStack() as stack:
            inside = Inside(plan, ports, on_message, files.combined.parent) if shut else None
            if inside is not None:
                await stack.enter_async_context(inside)
            attempt = _Attempt(
                plan, mode, files, ports, inside, output, hidden, on_sandbox, on_message, tuple(refusals)
            )
            code = await attempt.run()
        if code is not None:
            return code
        if attempt.refusal not in refusals:
            refusals.append(attempt.refusal)
        if not attempt.network_refused:
            unavailable.append(mode)
    what = "sandbox" if plan.sandbox == "require" else "network of its own"
    on_message(f"the {what} that was required is not to be had here: {'; '.join(refusals) or 'there is no sandbox'}")
    return OWN_FAILURE


def _ways(plan: RunPlan) -> Iterator[tuple[str, bool]]:
    """What is tried: a mode of the sandbox, and whether the network is shut."""
    from keyhole.process.sandbox import NONE, modes  # noqa: PLC0415  # Linux only

    for mode in modes(plan.sandbox):
        if plan.network != "host" and mode != NONE:
            yield mode, True
        if plan.network != "broker":
            yield mode, False


@dataclass
class _Attempt:
    """One launcher in one mode. ``run`` answers ``None`` when the system does not allow the mode."""

    plan: RunPlan
    mode: str
    files: TrustFiles
    ports: Sequence[SessionPort]
    inside: Inside | None
    output: Output | None
    hidden: Cover
    on_sandbox: Callable[[SandboxReport], None]
    on_message: Callable[[str], None]
    refusals: tuple[str, ...]
    refusal: str = ""
    network_refused: bool = False
    code: int | None = field(default=None, init=False)
    message: bytes = field(default=b"", init=False, repr=False)

    async def run(self) -> int | None:
        self.message = self._message()  # before anything is started, because it may be refused
        ours, theirs = socket.socketpair()
        handover, sent = socket.socketpair()
        with ours, handover:
            with theirs, sent, _held_back():
                given = (theirs.fileno(), sent.fileno()) if self.inside is not None else (theirs.fileno(),)
                launcher = _start_launcher(given, self.plan, self.output)
            for port in self.ports:
                port.root = launcher.pid
            reader, writer = await asyncio.open_connection(sock=ours)
            try:
                with _forwarding(lambda number: self._forward(launcher, number)):
                    await self._converse(reader, writer, handover)
            except asyncio.CancelledError:
                await _end(launcher)
                raise
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
            ended = launcher.wait()
        if self.code is None and not self.refusal:
            # The launcher itself was ended from outside.
            return 128 - ended if ended < 0 else OWN_FAILURE
        return self.code

    def _forward(self, launcher: subprocess.Popen[bytes], number: int) -> None:
        output = self.output
        if output is not None and number == signal.SIGCONT:
            output.resume()
        if output is not None and number == signal.SIGWINCH:
            output.resize()
            if output.apart:
                return  # the command has it from its terminal
        _queue(launcher, number)

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handover: socket.socket
    ) -> None:
        writer.write(self.message)
        while line := await reader.readline():
            said = json.loads(line)
            if "sandbox" in said and self.inside is not None:
                await self.inside.take(handover)
            if not self._hear(said):
                return
            if "sandbox" in said:
                writer.write(b'{"go": true}\n')

    def _message(self) -> bytes:
        sandboxed = self.mode != "none"
        plan = self.inside.plan if self.inside is not None else self.plan
        env = child_environment(plan, self.files, sandboxed=sandboxed, ports=[port.address for port in self.ports])
        content = {
            "parent": os.getpid(),
            "mode": self.mode,
            "vault": self.hidden.vault,
            "others": self.hidden.others,
            "private": self.hidden.private,
            "sockets": [_latin(os.fsencode(path)) for path in self.plan.sockets],
            "code": pinned.parts() if (pinned := current()) is not None else ((), ()),
            "network": self.inside.wanted if self.inside is not None else None,
            "resolver": self.inside.resolver if self.inside is not None else "",
            "cwd": _latin(os.fsencode(self.plan.cwd or Path.cwd())),
            "apart": self.output is not None and self.output.apart,
            "argv": [_latin(os.fsencode(word)) for word in self.plan.argv],
            "env": {_latin(name): _latin(value) for name, value in env.items()},
            "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
            "ignored": [number for number in (signal.SIGINT,) if signal.getsignal(number) == signal.SIG_IGN],
        }
        return json.dumps(content).encode() + b"\n"

    def _hear(self, said: dict[str, Any]) -> bool:
        """Act on one message of the launcher; whether to listen on."""
        match said:
            case {"sandbox": list(missing)}:
                report = self._report(tuple(missing))
                self.on_sandbox(report)
                if self.plan.sandbox == "require" and report.level != "full":
                    self.on_message(f"the sandbox that was required is incomplete: {'; '.join(report.missing)}")
                    self.code = OWN_FAILURE
                    return False
                if self.output is not None:
                    self.output.begin()
            case {"unavailable": str(why)}:
                self.refusal = why
                self.network_refused = "network" in said
                return False
            case {"stopped": int()}:
                if self.output is not None:
                    self.output.pause()
                os.kill(os.getpid(), signal.SIGSTOP)  # so that the shell sees the job stop
            case {"error": int(number), "step": str(step)}:
                self.on_message(explain(self.plan, step, number))
                self.code = OWN_FAILURE if step != "exec" else None
            case {"exit": int(code)}:
                self.code = code if self.code is None else self.code
        return True

    def _report(self, missing: tuple[str, ...]) -> SandboxReport:
        from keyhole.process.seccomp import known  # noqa: PLC0415  # Linux only

        if self.plan.sandbox == "off":
            return SandboxReport("none", WITHOUT)
        because = tuple(f"tried without success: {why}" for why in self.refusals)
        if self.mode == "none":
            return SandboxReport("none", (*WITHOUT, *because))
        missing = (*missing, *self.hidden.missing)
        if self.inside is not None and not known(os.uname().machine):
            missing += ("sockets that no network namespace holds, such as AF_VSOCK, are not known for this machine",)
        if self.inside is None and self.plan.network != "host":
            missing += ("the network is not shut in: it can connect past the broker, without any key",)
        network: Literal["broker", "open"] = "open" if self.inside is None else "broker"
        return SandboxReport("partial" if missing else "full", (*missing, *because) if missing else (), network)


def _start_launcher(descriptors: tuple[int, ...], plan: RunPlan, output: Output | None) -> subprocess.Popen[bytes]:
    from keyhole.faces.run.launcher import START  # noqa: PLC0415  # Linux only

    package = Path(keyhole.__file__).parent.parent
    return subprocess.Popen(  # noqa: S603  # our own interpreter
        [sys.executable, "-I", "-S", "-c", START, str(package), *map(str, descriptors)],
        env=launcher_environment(plan.base_env),
        pass_fds=descriptors,
        stdin=output.stdin if output is not None else None,
        stdout=output.stdout if output is not None else None,
        stderr=output.stderr if output is not None else None,
    )


def _queue(launcher: subprocess.Popen[bytes], number: int) -> None:
    from keyhole.process.linux import sigqueue  # noqa: PLC0415  # Linux only

    if launcher.returncode is None:
        with suppress(ProcessLookupError):
            sigqueue(launcher.pid, number)


async def _end(launcher: subprocess.Popen[bytes]) -> None:
    _queue(launcher, signal.SIGTERM)
    try:
        await asyncio.wait_for(asyncio.to_thread(launcher.wait, _GRACE), _GRACE + 1)
    except (subprocess.TimeoutExpired, TimeoutError):
        launcher.kill()  # the kernel takes the command along
        launcher.wait()


def _latin(data: bytes) -> str:
    return data.decode("latin-1")


@contextmanager
def _held_back() -> Iterator[None]:
    """Signals wait until the launcher, which inherits the mask, can tell what to do with them."""
    from keyhole.faces.run.launcher import FORWARDED  # noqa: PLC0415  # Linux only

    before = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _forwarding(send: Callable[[int], None]) -> Iterator[None]:
    """Pass on what this process gets; what it was told to ignore (``nohup``) stays ignored, by the command too."""
    from keyhole.faces.run.launcher import FORWARDED  # noqa: PLC0415  # Linux only

    loop = asyncio.get_running_loop()
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in FORWARDED}
    taken = [number for number, handler in before.items() if handler != signal.SIG_IGN]
    for number in taken:
        loop.add_signal_handler(number, send, number)
    try:
        yield
    finally:
        for number in taken:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])
