"""How vLLM's processes start, where they say what they say, and that they end with this one."""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import logging
import os
import re
import shlex
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

LOG = "vllm.log"
BEGIN = """
import ctypes, os, sys
if sys.argv[-1] == "--multiprocessing-fork":
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
    if os.getppid() != int(sys.argv[1]):
        sys.exit()
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
"""How a core begins: it is to end when this process does, even by SIGKILL. It would wait for ever,
and hold the device's memory."""


@functools.cache
def device_memory() -> int:
    """Bytes of the device that vLLM runs on; asked without making this process one of its users."""
    settle()
    from vllm.platforms import current_platform

    return int(current_platform.get_device_total_memory())


def settle() -> None:
    """What vLLM is to find before it is imported."""
    # Read now and then for as long as vLLM runs.
    settings = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_HOST_IP": "127.0.0.1",  # else it asks which address leads to the internet
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a fork of a process with threads may hang
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    if not _is_wanted():
        # Of what is said before its log is set up, Python would else print the warnings.
        logging.getLogger("vllm").addHandler(logging.NullHandler())


def _is_wanted() -> bool:
    """Whether the user wants to see vLLM's log: they have set one of these."""
    chosen = {"VLLM_LOGGING_CONFIG_PATH", "VLLM_LOGGING_LEVEL", "VLLM_CONFIGURE_LOGGING"}
    return bool(os.environ.keys() & chosen)


@contextlib.contextmanager
def starting(folder: Path, *, offline: bool) -> Iterator[None]:
    """How a core starts inside: by itself, and quietly.

    It ends when this process does. Its log, and whatever else it prints, goes to a file in
    `folder`, where the reason is looked for when it dies. It does not run this process's main file
    again, as Python would have it do: nothing in there is needed, and what is done outside of a
    `__main__` guard would be done once more.
    """
    from multiprocessing import spawn

    settle()
    passing = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"} if offline else {}
    python: str | bytes = spawn.get_executable()
    script, log = folder / "python", folder / LOG
    said = ""
    if not _is_wanted():
        passing["VLLM_LOGGING_CONFIG_PATH"] = str(_log_config(folder))
        said = f" >>{shlex.quote(str(log))} 2>&1"
    begin = shlex.join([os.fsdecode(python), "-c", BEGIN, str(os.getpid())])
    script.write_text(f'#!/bin/sh\nexec {begin} "$@"{said}\n')
    script.chmod(0o700)
    if os.access(script, os.X_OK):  # not where nothing may be executed
        spawn.set_executable(str(script))
    main = sys.modules["__main__"]
    names = [name for name in ("__file__", "__spec__") if name in vars(main)]
    hidden: dict[str, Any] = {name: vars(main).pop(name) for name in names}
    main.__spec__ = None
    passing = {name: value for name, value in passing.items() if name not in os.environ}
    os.environ.update(passing)
    try:
        yield
    finally:
        for name in passing:
            os.environ.pop(name, None)
        vars(main).update(hidden)
        spawn.set_executable(python)  # type: ignore[arg-type]  # bytes, where typeshed says str


def _log_config(folder: Path) -> Path:
    handler = {"class": "logging.FileHandler", "filename": str(folder / LOG), "formatter": "line"}
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(levelname)s %(message)s"}},
        "handlers": {"file": handler},
        "loggers": {"vllm": {"handlers": ["file"], "level": "WARNING", "propagate": False}},
    }
    path = folder / "logging.json"
    path.write_text(json.dumps(config))
    return path


def root_cause(folder: Path) -> str | None:
    """The last error in the log that does not point to another, in one line; forgets the log."""
    try:
        log = (folder / LOG).read_text(errors="replace")
        (folder / LOG).write_text("")
    except OSError:
        return None
    told = re.findall(r"\b\w+(?:Error|Exception): .+", log)
    causes = [line for line in told if not re.search(r"root cause|background process", line)]
    return causes[-1] if causes else None


class Killable(Protocol):
    def kill(self) -> None: ...


_RUNNING: weakref.WeakSet[Killable] = weakref.WeakSet()


def end_with_this_process(core: Killable) -> None:
    """`core` is killed when this process ends, which would else wait for it for ever."""
    _register()
    _RUNNING.add(core)


@functools.cache
def _register() -> None:
    # What is registered last is called first: `multiprocessing` waits for its processes there.
    importlib.import_module("multiprocessing.util")
    atexit.register(_kill_all)


def _kill_all() -> None:
    for core in list(_RUNNING):
        core.kill()
