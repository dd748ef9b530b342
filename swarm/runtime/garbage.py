"""While graphs run, the garbage collector leaves alone what was there before.

Every so many new objects it walks all there are, and LangGraph, SQLAlchemy and torch are hundreds
of thousands: a third of a second in which nothing is sent and no answer read, several times in an
evaluation of a thousand questions (`benchmarks/http_engine.py`).
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_inside = 0


@contextmanager
def sparing_the_old() -> Iterator[None]:
    """May be nested, and used on several threads: the last one to leave ends it."""
    global _inside
    with _lock:
        if _inside == 0:
            gc.freeze()
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                gc.unfreeze()
