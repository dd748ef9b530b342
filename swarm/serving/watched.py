"""One server under supervision: started, looked at, started again when it dies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from swarm.agents.standing import Phase, ServerStanding
from swarm.serving import logs
from swarm.serving.http import get, served_names
from swarm.serving.plan import Launch, Patience
from swarm.serving.processes import kill_marked, spawn


class _EndedError(Exception):
    """A server that is to be started again, or not; says why."""


class WatchedServer:
    """Runs one server for as long as `run` runs.

    Args:
        launch: how it is started.
        patience: when it is started again.
        token: of the supervisor.
        turns: one lock a device that it needs while it starts.
        changed: called whenever its standing is another.
    """

    def __init__(
        self,
        launch: Launch,
        patience: Patience,
        token: str,
        turns: list[asyncio.Lock],
        changed: Callable[[], None],
    ) -> None:
        self.launch = launch
        self.standing = ServerStanding(
            name=launch.name,
            model=launch.model,
            adapters=launch.adapters,
            serves={name: served.digest.hex() for name, served in launch.served.items()},
            port=launch.port,
            log=launch.log,
        )
        self.supervised = False
        """Whether it is started again when it dies: not before all have been healthy once."""
        self.ended = asyncio.Event()
        """Set when a child of this process has ended."""
        self._patience = patience
        self._token = token
        self._turns = turns
        self._changed = changed
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self._failed_starts = 0
        self._deaths: deque[float] = deque()

    async def run(self) -> None:
        """Until it has failed for good; or for ever."""
        while True:
            try:
                await self._start()
                await self._watch()
            except _EndedError as ended:
                note = str(ended)
            kill_marked(self._token, self.launch.name)
            self._process = None
            if not self.supervised:
                return self._say("failed", note)
            if why := self._why_no_more(note):
                return self._say("failed", why)
            self._say("restarting", note, restarts=self.standing.restarts + 1)
            await asyncio.sleep(self._pause())

    async def stop(self) -> None:
        """Asks it to end, and makes it end if it does not."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + self._patience.grace
            while process.poll() is None and (left := deadline - time.monotonic()) > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.ended.wait(), left)
                self.ended.clear()
        kill_marked(self._token, self.launch.name)
        if process is not None:
            process.wait()

    def _say(self, phase: Phase, note: str | None = None, **update: object) -> None:
        pid = self._process.pid if self._process is not None else None
        values = {"phase": phase, "pid": pid, "healthy_since": None, **update}
        if note is not None:
            values["note"] = note
        self.standing = self.standing.model_copy(update=values)
        self._changed()

    def _why_no_more(self, note: str) -> str | None:
        patience, now = self._patience, time.monotonic()
        self._deaths.append(now)
        while now - self._deaths[0] > patience.window:
            self._deaths.popleft()
        if self._failed_starts >= patience.starts:
            return f"{self._failed_starts} starts in a row have failed: {note}"
        if len(self._deaths) >= patience.deaths:
            return f"{len(self._deaths)} deaths within {patience.window:g} s: {note}"
        # Else it would answer under the name of other weights.
        for name, served in self.launch.served.items():
            if served.digest.hex() != self.standing.serves[name]:
                return f"its weights `{served.adapter or served.model}` have changed meanwhile"
        return None

    def _pause(self) -> float:
        """Seconds until the next start: none after it was well."""
        if not self._failed_starts:
            return 0.0
        return min(
            self._patience.longest, self._patience.backoff * 2.0 ** (self._failed_starts - 1)
        )

    async def _start(self) -> None:
        """Returns when it is healthy."""
        if any(turn.locked() for turn in self._turns):
            self._say("waiting")
        for turn in self._turns:
            await turn.acquire()
        try:
            log = Path(self.launch.log)
            self._failed_starts += 1  # until it is healthy
            self._log_start = logs.begin(log)
            try:
                self._process = spawn(
                    self.launch.argv,
                    self.launch.env,
                    self.launch.cwd,
                    log,
                    f"{self._token}:{self.launch.name}",
                )
            except OSError as error:
                program = self.launch.argv[0]
                raise _EndedError(
                    f"`{program}` can't be started: {error.strerror or error}"
                ) from None
            self._say(
                "starting" if not self.standing.restarts else "restarting", started_at=time.time()
            )
            deadline = time.monotonic() + self.launch.start_timeout
            wait = 0.1
            while not await self._is_well(2.0):
                if time.monotonic() > deadline:
                    self._kill()
                    at = logs.doing(log, self._log_start)
                    raise _EndedError(
                        f"not healthy within `start_timeout` {self.launch.start_timeout:g} s"
                        + (f"; its last line: {at}" if at else "")
                    )
                await self._wait(wait)
                wait = min(1.0, wait * 1.3)
            await self._check_names()
        finally:
            for turn in self._turns:
                turn.release()
        self._failed_starts = 0
        self._say("healthy", healthy_since=time.time())

    async def _watch(self) -> None:
        """Until it dies, or has not been well for too long."""
        well = time.monotonic()
        while True:
            await self._wait(self._patience.probe)
            if await self._is_well(min(5.0, self.launch.health_timeout)):
                well = time.monotonic()
            elif time.monotonic() - well > self.launch.health_timeout:
                self._kill()
                raise _EndedError(f"no healthy answer for {self.launch.health_timeout:g} s")

    async def _wait(self, seconds: float) -> None:
        """Raises `_EndedError` as soon as its process has."""
        self._check_process()
        self.ended.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self.ended.wait(), seconds)
        self._check_process()

    def _check_process(self) -> None:
        assert self._process is not None
        code = self._process.poll()
        if code is None:
            return
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        said = logs.cause(Path(self.launch.log), self._log_start) if code >= 0 else ""
        if "No module named 'vllm" in said:
            said += f" (install vLLM for `{self.launch.argv[0]}`, or give `python`)"
        raise _EndedError(f"{how}: {said}" if said else how)

    def _kill(self) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()

    async def _is_well(self, seconds: float) -> bool:
        answer = await get(self.launch.port, self.launch.health, seconds)
        return answer is not None and answer.status == 200

    async def _check_names(self) -> None:
        """Whether it is this server that answers, and knows all its adapters."""
        if not self.launch.lists_models:
            return
        key = {**os.environ, **self.launch.env}.get("VLLM_API_KEY")
        names = await served_names(self.launch.port, key)
        missing = [name for name in self.launch.served if name not in (names or ())]
        if missing:
            self._check_process()
            self._kill()
            serves = ", ".join(f"`{name}`" for name in names or ()) or "nothing"
            raise _EndedError(
                f"port {self.launch.port} serves {serves}, but not `{missing[0]}`: "
                "is it another program's?"
            )
