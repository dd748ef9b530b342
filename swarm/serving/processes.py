"""Processes that leave nothing behind: all that a server starts carries a mark, and dies with it.

A server's own processes (vLLM has several) may outlive it, change their group, or lose their
parent. The mark is an environment variable, which every child inherits: whoever carries it is found
in /proc (so this is for Linux).
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

MARK = "SWARM_SERVED_BY"
"""``token:name`` of the supervisor and the server."""
_PR_SET_PDEATHSIG = 1
_ROUNDS = 3


def marked(token: str, name: str | None = None) -> list[int]:
    """The processes of a supervisor (`name`: of one of its servers), this one apart."""
    mark = f"\0{MARK}={token}:".encode() + (b"" if name is None else name.encode() + b"\0")
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):  # it has ended, or is another user's
                if mark in b"\0" + (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def has_ended(pid: int) -> bool:
    """Whether a process is no more; what is left of it may wait for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def kill_marked(token: str, name: str | None = None, *, patience: float = 10.0) -> int:
    """Ends them all, those that they start meanwhile, too; returns how many there were."""
    killed: set[int] = set()
    quiet, deadline = 0, time.monotonic() + patience
    while quiet < _ROUNDS and time.monotonic() < deadline:
        found = marked(token, name)
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed.update(found)
        quiet = 0 if found else quiet + 1
        time.sleep(0.02)
    return len(killed)


def spawn(
    argv: Sequence[str], env: dict[str, str], cwd: str, log: Path, mark: str
) -> subprocess.Popen[bytes]:
    """Starts a program in a session of its own. It is killed when this thread's process ends.

    Raises `OSError` where it can't be started.
    """
    parent, libc = os.getpid(), ctypes.CDLL(None)

    def before() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has ended before this was said
            os._exit(1)

    with log.open("ab", buffering=0) as out:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            # Without the second, who sets its title as vLLM's processes do writes over its mark.
            env={**os.environ, **env, MARK: mark, "SPT_NOENV": "1"},
            start_new_session=True,
            preexec_fn=before,  # safe: the supervisor has one thread
        )


class Watchdog:
    """A process that waits for this one's end, however it comes, and kills all it has marked."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._alive, self._write = os.pipe()
        self.pid = self._fork()

    def _fork(self) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            signal.set_wakeup_fd(-1)
            # What it inherits (the lock's file among it) must not outlive the supervisor here.
            for entry in Path("/proc/self/fd").iterdir():
                if (file := int(entry.name)) > 2 and file != self._alive:
                    with suppress(OSError):  # that of the listing itself
                        os.close(file)
            while os.read(self._alive, 1):
                pass
            kill_marked(self._token)
        finally:
            os._exit(0)

    def reap(self) -> None:
        """Replaces it if it has ended."""
        with suppress(ChildProcessError):
            if os.waitpid(self.pid, os.WNOHANG)[0]:
                self.pid = self._fork()

    def dismiss(self) -> None:
        """Lets it end: there is nothing left to kill."""
        os.close(self._write)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
