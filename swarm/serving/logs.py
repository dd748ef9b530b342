"""What a server's log says last that a person would want to know."""

from __future__ import annotations

import re
from pathlib import Path

TAIL = 1 << 17
"""Bytes at a log's end that are looked at."""
LARGEST = 1 << 24
"""Bytes of a log that is begun anew when its server starts; the one before is kept."""

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# `(EngineCore pid=12) ERROR 11-25 21:53:08 [core.py:1449] ` and `INFO:     ` of vLLM.
_PREFIX = re.compile(
    r"^(\([^)]*\bpid=\d+\)\s*)*((DEBUG|INFO|WARNING|ERROR|CRITICAL)\b:?\s*)?"
    r"(\d\d-\d\d \d\d:\d\d:\d\d\s*)?(\[[\w./ -]+:\d+\]\s*)?"
)
_ERROR = re.compile(
    r"^([\w.]*(Error|Exception|Interrupt|Exit)\b|\S+: error: |error: |fatal: )", re.I
)
_ERROR_INSIDE = re.compile(r"\b(No module named|[Ee]rror|not found|[Cc]annot|Killed)\b")
_NO_CAUSE = re.compile(r"See root cause above|ChildProcessError|^SystemExit")


def lines(log: Path, start: int = 0) -> list[str]:
    """The last lines of a log from the byte `start` on, without escapes and vLLM's prefixes."""
    try:
        with log.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(start, end - TAIL))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    # A progress bar draws over itself: its last state counts.
    rows = [row.rstrip("\r").rpartition("\r")[2] for row in text.split("\n")]
    rows = [_PREFIX.sub("", _ESCAPES.sub("", row)) for row in rows]
    return [row for row in rows if row.strip(" ^~-=") and not row.startswith("Traceback")]


def doing(log: Path, start: int = 0) -> str:
    """What a server that starts is at: its last line."""
    said = [row for row in lines(log, start) if not row.startswith(" ")]
    return said[-1].strip() if said else ""


def cause(log: Path, start: int = 0) -> str:
    """Why a server ended: its last error, if it said one, else its last line."""
    said = lines(log, start)
    for pattern in (_ERROR, _ERROR_INSIDE):
        errors = [row for row in said if pattern.search(row) and not _NO_CAUSE.search(row)]
        if errors:
            return errors[-1].strip()
    return said[-1].strip() if said else ""


def begin(log: Path) -> int:
    """Makes room for one more start; returns where it begins, in bytes."""
    log.parent.mkdir(parents=True, exist_ok=True)
    size = log.stat().st_size if log.exists() else 0
    if size > LARGEST:
        log.replace(log.with_name(f"{log.name}.1"))
        size = 0
    return size
