"""Supervisors from outside: started and waited for, asked how their servers stand, ended."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from swarm.agents import standing
from swarm.agents.standing import PoolStanding, ServerStanding
from swarm.errors import EngineError
from swarm.serving.http import metrics
from swarm.serving.plan import HELD, Plan
from swarm.serving.processes import has_ended, kill_marked

PATIENCE = 90.0
"""Seconds that a supervisor has to stop its servers before it is killed, and they with it."""


class Starting:
    """A supervisor that has been started, and still belongs to this process."""

    def __init__(self, process: subprocess.Popen[bytes], plan: Plan) -> None:
        self.plan = plan
        self.detached = False
        self._process = process

    def look(self) -> PoolStanding | None:
        """How its servers stand; None: it has not said yet.

        Raises:
            EngineError: a server could not be started. All have been stopped again.
        """
        here = Path(self.plan.place)
        state = standing.last(here)
        if state is not None and state.pid != self._process.pid:
            state = None  # an earlier one's
        code = self._process.poll()
        if code is None:
            return state
        if code == HELD:
            raise EngineError(
                f"`{self.plan.pool}`: another `swarm pool up` has just started its servers: "
                f"see `swarm pool status {self.plan.pool}`"
            )
        state = standing.last(here)
        if state is not None and state.pid == self._process.pid and state.failure:
            raise EngineError(f"{state.failure}; all servers have been stopped again")
        said = here / "supervisor.log"
        raise EngineError(
            f"the supervisor of `{self.plan.pool}` has ended"
            + (f" (killed by signal {-code})" if code < 0 else "")
            + f": see `{said}`; its servers have been stopped"
        )

    @property
    def gone(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def detach(self) -> None:
        """From now on it lives until it is told to stop."""
        with suppress(BrokenPipeError):
            _input(self._process).write(b"detach\n")
            _input(self._process).flush()
        self.detached = True


def _input(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdin is not None
    return process.stdin


@contextmanager
def start(plan: Plan) -> Iterator[Starting]:
    """Starts a plan's servers. Unless it is detached within, they are stopped at the end.

    Raises:
        EngineError: its state can't be kept.
    """
    here = Path(plan.place)
    try:
        here.mkdir(parents=True, exist_ok=True, mode=0o700)
        (here / "lock").touch()
        with (here / "supervisor.log").open("wb") as log:
            process = subprocess.Popen(
                # -P: no module of the folder it is started in may take the place of one of ours.
                [sys.executable, "-P", "-m", "swarm.serving.supervisor"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        raise EngineError(
            f"`{here}` can't be written to ({error.strerror}): make room there, or name another "
            "folder by SWARM_STATE"
        ) from None
    starting = Starting(process, plan)
    try:
        with suppress(BrokenPipeError):
            _input(process).write(plan.model_dump_json().encode() + b"\n")
            _input(process).flush()
        yield starting
    finally:
        with suppress(BrokenPipeError):
            _input(process).close()
        if not starting.detached:
            _wait(process)


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Ended(NamedTuple):
    """What `down` has done."""

    was_up: bool
    servers: tuple[str, ...]
    """Those that were stopped."""
    killed: bool
    """Whether the supervisor had to be killed."""
    leftovers: int
    """Processes of a supervisor that had been killed before, which were still there."""


def down(pool: Path) -> Ended:
    """Stops the servers of a pool file, whatever state they are in. Again does no harm."""
    here = standing.place(pool)
    state = standing.last(here)
    pid = _holder(here)
    if pid is None:
        left = kill_marked(state.token, patience=5.0) if state is not None else 0
        with suppress(FileNotFoundError):
            (here / "state.json").unlink()
        return Ended(False, (), False, left)
    killed = False
    deadline = time.monotonic() + PATIENCE
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    while standing.is_held(here):
        if time.monotonic() > deadline:
            killed = True
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            deadline += 5.0
        time.sleep(0.05)
    while not has_ended(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    if state is None or state.pid != pid:
        state = standing.last(here)
    if state is not None:
        kill_marked(state.token, patience=5.0)
    with suppress(FileNotFoundError):
        (here / "state.json").unlink()
    return Ended(True, tuple(s.name for s in state.servers) if state else (), killed, 0)


def _holder(here: Path) -> int | None:
    """The supervisor's process, None if there is none any more. It says so itself, in the moment
    after it has taken the place: until then it is somebody's who has gone, and that number may be
    another program's by now."""
    while standing.is_held(here):
        with suppress(OSError, ValueError):
            pid = int((here / "lock").read_text())
            if b"swarm.serving.supervisor" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        time.sleep(0.02)
    return None


class Requests(NamedTuple):
    """What a server says of its requests since it was started; of vLLM's metrics."""

    done: int
    running: int
    waiting: int


def status(state: PoolStanding) -> dict[str, Requests | None]:
    """Server → its requests; None where it does not say."""
    return asyncio.run(_requests(state.servers))


async def _requests(servers: tuple[ServerStanding, ...]) -> dict[str, Requests | None]:
    found = await asyncio.gather(*(_requests_of(server) for server in servers))
    return {server.name: requests for server, requests in zip(servers, found, strict=True)}


async def _requests_of(server: ServerStanding) -> Requests | None:
    if server.phase != "healthy":
        return None
    sums = await metrics(server.port)
    if "vllm:request_success_total" not in sums and "vllm:num_requests_running" not in sums:
        return None
    return Requests(
        int(sums.get("vllm:request_success_total", 0)),
        int(sums.get("vllm:num_requests_running", 0)),
        int(sums.get("vllm:num_requests_waiting", 0)),
    )
