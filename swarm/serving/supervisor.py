"""The process that owns a pool's servers: it reads what to start, and lives as long as they shall.

It reads a plan from its standard input, one line of JSON: what it holds (environment variables) is
kept in no file. The input stays open until whoever started it says ``detach``; if it ends before
that, the servers are stopped. If the supervisor itself is killed, its watchdog stops them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
import uuid
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

from swarm.agents import standing
from swarm.agents.standing import PoolStanding
from swarm.serving.plan import HELD, Plan
from swarm.serving.processes import Watchdog
from swarm.serving.watched import WatchedServer


class Supervisor:
    """Runs the servers of a plan."""

    def __init__(self, plan: Plan, token: str, watchdog: Watchdog) -> None:
        self._plan = plan
        self._watchdog = watchdog
        self._stop = asyncio.Event()
        self._stopping = False
        self._failure: str | None = None
        self._token = token
        self._started_at = time.time()
        turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._servers = [
            WatchedServer(
                launch,
                plan.patience,
                token,
                [turns[device] for device in sorted(set(launch.devices))],
                self._changed,
            )
            for launch in plan.servers
        ]

    async def run(self) -> int:
        """Until it is told to stop, or a server can't be started in the first place; the exit
        code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGCHLD, self._child_ended)
        loop.add_reader(0, self._read)
        self._changed()
        tasks = [asyncio.create_task(server.run()) for server in self._servers]
        for task in tasks:
            task.add_done_callback(self._run_ended)
        try:
            await self._stop.wait()
        finally:
            self._stopping = True
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._write(stopping=True)
            await asyncio.gather(*(server.stop() for server in self._servers))
        return 0 if self._failure is None else 1

    def _changed(self) -> None:
        if self._stopping:
            return
        states = [server.standing for server in self._servers]
        if not self._servers[0].supervised:
            failed = next((state for state in states if state.phase == "failed"), None)
            if failed is not None:
                self._failure = f"server `{failed.name}`: {failed.note}; see `{failed.log}`"
                self._stop.set()
            elif all(state.phase == "healthy" for state in states):
                for server in self._servers:
                    server.supervised = True
        self._write()

    def _write(self, *, stopping: bool = False) -> None:
        states = [server.standing for server in self._servers]
        if stopping:
            states = [
                state if state.phase == "failed" else state.model_copy(update={"phase": "stopping"})
                for state in states
            ]
        now = PoolStanding(
            pool=self._plan.pool,
            name=self._plan.name,
            pid=os.getpid(),
            token=self._token,
            started_at=self._started_at,
            servers=tuple(states),
            failure=self._failure,
        )
        try:
            standing.write(now)
        except OSError as error:  # the servers matter more than what is said of them
            print(f"can't write the state: {error}", file=sys.stderr)  # noqa: T201

    def _run_ended(self, task: asyncio.Task[None]) -> None:
        """A defect must not leave a server without supervision."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = f"the supervisor failed: {type(error).__name__}: {error}"
            self._stop.set()

    def _child_ended(self) -> None:
        self._watchdog.reap()
        for server in self._servers:
            server.ended.set()

    def _read(self) -> None:
        data = os.read(0, 1024)
        if not data:
            self._stop.set()
        if not data or b"detach" in data:
            asyncio.get_running_loop().remove_reader(0)


def main() -> None:
    """The program: its input is the plan."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    plan = Plan.model_validate_json(_line())
    token = uuid.uuid4().hex
    watchdog = Watchdog(token)  # before the lock is held, which it would keep
    here = Path(plan.place)
    with standing.held(here) as mine:
        if not mine:
            watchdog.dismiss()
            sys.exit(HELD)
        (here / "lock").write_text(f"{os.getpid()}\n")
        code = asyncio.run(Supervisor(plan, token, watchdog).run())
        watchdog.dismiss()
        if code == 0:
            with suppress(FileNotFoundError):
                (here / "state.json").unlink()
    sys.exit(code)


def _line() -> bytes:
    """The first line of the input, and nothing that follows it."""
    read = bytearray()
    while not read.endswith(b"\n"):
        data = os.read(0, 1)
        if not data:
            sys.exit(0)  # whoever started this has gone already
        read += data
    return bytes(read)


if __name__ == "__main__":
    main()
