"""What `swarm pool up`, `status` and `down` do, and how it looks."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarm.agents import standing
from swarm.agents.expert import Pool
from swarm.agents.standing import PoolStanding, ServerStanding
from swarm.app.documents import Document
from swarm.app.terminal import console, one_line
from swarm.errors import EngineError
from swarm.serving import control, logs
from swarm.serving.control import Requests, Starting
from swarm.serving.plan import plan as plan_of
from swarm.serving.plan import with_free_ports

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

PAUSE = 0.2
"""Seconds between two looks at servers that start."""
_COLOURS = {"healthy": "green", "failed": "red", "starting": "cyan", "restarting": "yellow"}


@dataclass(frozen=True)
class Looked:
    """How the servers of a pool file stand."""

    pool: Path
    state: PoolStanding | None
    """None: they are not up."""
    last: PoolStanding | None = None
    """What a supervisor that was killed had written."""
    requests: Mapping[str, Requests | None] = field(default_factory=dict)
    heading: str = ""

    @property
    def healthy(self) -> bool:
        return self.state is not None and self.state.healthy

    def document(self) -> Document:
        servers = self.state.servers if self.state else ()
        return {
            "pool": str(self.pool.resolve()),
            "up": self.state is not None,
            "healthy": self.healthy,
            "supervisor": self.state.pid if self.state else None,
            "servers": [self._server(server) for server in servers],
        }

    def _server(self, server: ServerStanding) -> dict[str, Any]:
        requests = self.requests.get(server.name)
        return {
            **server.model_dump(exclude={"serves"}),
            "url": f"http://127.0.0.1:{server.port}/v1",
            "requests": None if requests is None else requests._asdict(),
        }


@dataclass(frozen=True)
class Upped(Looked):
    """Servers that are up, and the supervisor if it has just been started."""

    starting: Starting | None = None

    @property
    def started(self) -> bool:
        return self.starting is not None

    def document(self) -> Document:
        return {**super().document(), "started": self.started}

    def leave(self) -> None:
        """Leaves them running."""
        if self.starting is not None:
            self.starting.detach()

    def stay(self, *, quiet: bool) -> None:
        """Until Ctrl-C, or until somebody else stops them."""
        assert self.starting is not None
        err = console(stderr=True)
        if not quiet:
            err.print("Ctrl-C stops them")
        before = self.state
        try:
            while not self.starting.gone:
                now = standing.current(standing.place(self.pool))
                if now is not None and not quiet:
                    _tell_changes(err, before, now)
                before = now or before
                time.sleep(PAUSE)
        except KeyboardInterrupt:
            if not quiet:
                err.print("stopping …")
            return


def look(pool: Path) -> Looked:
    """How the servers of a pool file stand; raises `InputError` for a file that is none."""
    Pool.load(pool)
    here = standing.place(pool)
    state = standing.current(here)
    if state is None:
        return Looked(pool, None, standing.last(here))
    return Looked(pool, state, requests=control.status(state))


@contextmanager
def bring_up(pool: Path, *, quiet: bool) -> Iterator[Upped]:
    """Servers that all are healthy: started, or found to be up. Unless they are left running by the
    caller, those that were started are stopped at the end.

    Raises:
        InputError: the file, or a folder or port that it names, is wrong. Nothing was started.
        EngineError: a server can't be started. All are stopped again.
    """
    Pool.load(pool)
    state = standing.current(standing.place(pool))
    if state is not None:
        yield Upped(pool, _settled(pool, state), heading="already up")
        return
    plan = with_free_ports(pool)
    begun = time.monotonic()
    with control.start(plan) as starting:
        with _progress(quiet=quiet) as progress:
            while (state := starting.look()) is None or not state.healthy:
                progress.show(state)
                time.sleep(PAUSE)
            progress.show(state)
        seconds = time.monotonic() - begun
        yield Upped(pool, state, heading=f"up after {seconds:.0f} s", starting=starting)


def _settled(pool: Path, state: PoolStanding) -> PoolStanding:
    """That of servers which somebody has started before, if it is fine."""
    failed = next((server for server in state.servers if server.phase == "failed"), None)
    again = f"`swarm pool down {pool}`, then `swarm pool up {pool}`"
    if failed is not None:
        raise EngineError(
            f"server `{failed.name}` has given up: {failed.note}; see `{failed.log}`: {again}"
        )
    planned = {
        launch.name: {name: served.digest.hex() for name, served in launch.served.items()}
        for launch in plan_of(pool).servers
    }
    if planned != {server.name: server.serves for server in state.servers}:
        raise EngineError(
            f"`{pool}`: its servers are up, but the file or weights that it names have changed "
            f"since: {again}"
        )
    return state


@dataclass(frozen=True)
class TakenDown:
    """What `down` has done."""

    pool: Path
    ended: control.Ended

    def document(self) -> Document:
        return {"pool": str(self.pool.resolve()), **self.ended._asdict()}

    @property
    def told(self) -> str:
        ended = self.ended
        if ended.was_up:
            names = ", ".join(ended.servers)
            how = " (the supervisor did not answer and was killed)" if ended.killed else ""
            return f"stopped {names}{how}"
        if ended.leftovers:
            return f"was not up; {ended.leftovers} processes that were left over were killed"
        return "was not up"


def take_down(pool: Path) -> TakenDown:
    """Stops the servers of a pool file, which may be broken or gone by now."""
    return TakenDown(pool, control.down(pool))


class _Lines:
    """Progress where there is no terminal: a line when something changes."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._before: PoolStanding | None = None
        self._err = console(stderr=True)

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def show(self, state: PoolStanding | None) -> None:
        if state is not None and not self._quiet:
            _tell_changes(self._err, self._before, state)
            self._before = state


class _Table:
    """Progress on a terminal: a table that is drawn anew, and goes away."""

    def __init__(self) -> None:
        from rich.live import Live

        self._live = Live(console=console(stderr=True), transient=True, auto_refresh=False)

    def __enter__(self) -> _Table:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, state: PoolStanding | None) -> None:
        if state is not None:
            self._live.update(_starting(state, time.time(), self._live.console.width), refresh=True)


def _progress(*, quiet: bool) -> _Lines | _Table:
    return _Table() if sys.stderr.isatty() and not quiet else _Lines(quiet=quiet)


def _starting(state: PoolStanding, now: float, width: int) -> RenderableType:
    """What each server is doing."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    longest = max(len(one_line(server.name, 30)) for server in state.servers)
    left = max(10, width - longest - len("  restarting  1234 s  "))
    for _ in range(4):
        table.add_column(no_wrap=True)
    for server in state.servers:
        started = server.started_at
        table.add_row(
            one_line(server.name, 30),
            _phase(server.phase),
            Text("" if started is None else f"{now - started:.0f} s"),
            Text(one_line(logs.doing(Path(server.log)), left), "dim"),
        )
    return table


def _tell_changes(err: Console, before: PoolStanding | None, now: PoolStanding) -> None:
    for server in now.servers:
        old = before.server(server.name) if before else None
        if old is not None and (old.phase, old.restarts) == (server.phase, server.restarts):
            continue
        why = f": {server.note}" if server.note and server.phase != "healthy" else ""
        err.print(one_line(f"{server.name}: {server.phase} (port {server.port}){why}"))


def _phase(phase: str) -> Text:
    from rich.text import Text

    return Text(phase, _COLOURS.get(phase, ""))


def show(out: Console, looked: Looked) -> None:
    """The table of `swarm pool status` and `up`."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    name = one_line(str(looked.pool))
    if looked.state is None:
        killed = " (their supervisor was killed)" if looked.last and not looked.last.failure else ""
        out.print(f"not up{killed}: `swarm pool up {name}`")
        if looked.last and looked.last.failure:
            out.print(Text(f"the last time: {one_line(looked.last.failure)}", "yellow"))
        return
    if looked.heading:
        out.print(f"{looked.state.name}: {looked.heading}")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("server", "state", "base", "adapters"):
        table.add_column(column, overflow="fold")
    for column in ("port", "pid", "restarts", "requests"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("healthy for", justify="right", no_wrap=True)
    for server in looked.state.servers:
        table.add_row(
            one_line(server.name),
            _phase(server.phase),
            one_line(_base(server.model)),
            one_line(_names(list(server.adapters))),
            str(server.port),
            str(server.pid or "-"),
            str(server.restarts),
            _requests(looked.requests.get(server.name)),
            _time_since(server.healthy_since),
        )
    out.print(table)
    for server in looked.state.servers:
        if server.note:
            last = "" if server.phase in ("failed", "restarting") else "the last time: "
            note = f"{server.name}: {last}{one_line(server.note, 300)}; see {server.log}"
            out.print(Text(note, "yellow"))


def _base(model: str) -> str:
    """Short: of a folder its own name."""
    return Path(model).name if Path(model).is_absolute() else model


def _names(names: list[str]) -> str:
    if len(names) <= 4:
        return ", ".join(names) or "-"
    return ", ".join(names[:3]) + f" and {len(names) - 3} more"


def _requests(requests: Requests | None) -> str:
    if requests is None:
        return "-"
    now = requests.running + requests.waiting
    return f"{requests.done:,}" + (f" (+{now})" if now else "")


def _time_since(moment: float | None) -> str:
    if moment is None:
        return "-"
    minutes, seconds = divmod(int(max(0.0, time.time() - moment)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} days"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
