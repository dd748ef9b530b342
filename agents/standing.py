"""What the supervisor of a pool's servers says of them: written by one process, read by many."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

Phase = Literal["waiting", "starting", "healthy", "restarting", "failed", "stopping"]
"""`waiting` for another server on its device to be healthy; `failed`: will not be started again."""

FIRST_PORT, PORTS = 20_000, 12_000
"""Ports that are chosen: below those that Linux gives to outgoing connections."""


class ServerStanding(BaseModel):
    """How one server stands."""

    model_config = ConfigDict(frozen=True)

    name: str
    model: str
    """The base: a folder, or the name of a model on a hub."""
    adapters: dict[str, str]
    """Served name → folder."""
    serves: dict[str, str]
    """Served name → digest of what stands behind it, in hexadecimal."""
    port: int
    log: str
    phase: Phase = "waiting"
    pid: int | None = None
    started_at: float | None = None
    """Seconds since 1970, as all times here."""
    healthy_since: float | None = None
    restarts: int = 0
    note: str = ""
    """Why it is not healthy, or was not the last time."""


class PoolStanding(BaseModel):
    """How the servers of one pool file stand."""

    model_config = ConfigDict(frozen=True)

    pool: str
    """The pool file."""
    name: str
    pid: int
    """Of the supervisor."""
    token: str
    """What marks all processes that it has started."""
    started_at: float
    servers: tuple[ServerStanding, ...]
    failure: str | None = None
    """Why it has ended, if not because it was told to."""

    @property
    def healthy(self) -> bool:
        """Whether all servers are."""
        return all(server.phase == "healthy" for server in self.servers)

    def server(self, name: str) -> ServerStanding | None:
        return next((server for server in self.servers if server.name == name), None)


def place(pool: Path) -> Path:
    """The folder where all this is kept for a pool file on this machine.

    Not beside the file, which may be in a repository, read-only, or shared by machines. In
    `SWARM_STATE`, else in the user's state folder (XDG base directory specification).
    """
    path = pool.resolve()
    where = f"{socket.gethostname()}\0{path}".encode("utf-8", "surrogateescape")
    digest = hashlib.blake2b(where, digest_size=4).hexdigest()
    named = path.parent.name if path.stem == "pool" else path.stem
    return root() / f"{re.sub(r'[^A-Za-z0-9_-]', '_', named) or 'pool'}-{digest}"


def root() -> Path:
    """The folder of all places."""
    if given := os.environ.get("SWARM_STATE"):
        return Path(given).expanduser().absolute()
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local/state") / "swarm/pools"


def port_of(pool: Path, server: str) -> int:
    """The port of a server that was given none: the one it had last, else one made of its name."""
    here = place(pool)
    with suppress(OSError, ValueError, TypeError, KeyError):
        port = json.loads((here / "ports.json").read_text())[server]
        if isinstance(port, int):
            return port
    name = f"{here.name}\0{server}".encode("utf-8", "surrogateescape")
    number = int.from_bytes(hashlib.blake2b(name, digest_size=4).digest(), "little")
    return FIRST_PORT + number % PORTS


def remember_ports(pool: Path, ports: Mapping[str, int]) -> None:
    """What `port_of` says from now on."""
    place(pool).mkdir(parents=True, exist_ok=True, mode=0o700)
    _write(place(pool) / "ports.json", json.dumps(dict(ports)))


def write(standing: PoolStanding) -> None:
    """Replaces what is known, at once and whole."""
    _write(place(Path(standing.pool)) / "state.json", standing.model_dump_json(indent=1))


def _write(path: Path, text: str) -> None:
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def last(here: Path) -> PoolStanding | None:
    """What a supervisor has written in this place last, whether or not it is still there."""
    try:
        return PoolStanding.model_validate_json((here / "state.json").read_bytes())
    except (OSError, ValidationError):
        return None


def current(here: Path) -> PoolStanding | None:
    """What the supervisor of this place says, or None if there is none now."""
    return last(here) if is_held(here) else None


def is_held(here: Path) -> bool:
    """Whether a supervisor holds this place: it is let go of with its process."""
    try:
        with (here / "lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextmanager
def held(here: Path, patience: float = 2.0) -> Iterator[bool]:
    """Holds this place; False if it is another's. Those who only look may hold it for a moment."""
    import time

    with (here / "lock").open("a") as file:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    yield False
                    return
                time.sleep(0.02)
        yield True
