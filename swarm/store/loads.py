"""What loading models took in a run, by its batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

from swarm.store.records import BatchView


@dataclass(frozen=True)
class Loads:
    """Sums over the batches of a run."""

    batches: int
    requests: int
    seconds: float
    """Of all batches, loading not included."""
    loads: int
    load_bytes: int
    """Brought to devices; 0 where engines don't say."""
    load_seconds: float
    """Of all loads, evictions included."""
    prefetched: int
    """Loads of weights that were in host memory already."""
    evictions: int
    evict_seconds: float

    @property
    def share(self) -> float:
        """Of the time that engines were at work, what went into loading; 0 if there was none."""
        spent = self.seconds + self.load_seconds
        return self.load_seconds / spent if spent else 0.0

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "load_share": self.share}


def loads(found: Sequence[BatchView]) -> Loads:
    """What these batches took."""
    batches = [view.batch for view in found]
    return Loads(
        batches=len(batches),
        requests=sum(batch.requests for batch in batches),
        seconds=sum(batch.seconds for batch in batches),
        loads=sum(batch.loaded for batch in batches),
        load_bytes=sum(batch.load_bytes for batch in batches),
        load_seconds=sum(batch.load_seconds for batch in batches),
        prefetched=sum(batch.prefetched for batch in batches),
        evictions=sum(len(batch.evicted) for batch in batches),
        evict_seconds=sum(batch.evict_seconds for batch in batches),
    )


def short_names(bases: Iterable[str]) -> dict[str, str]:
    """Base → as little of its end as tells it from the others: of a folder the last parts."""
    different = list(dict.fromkeys(bases))
    parts = {base: PurePath(base.partition(":")[2] or base).parts or (base,) for base in different}
    deepest = max(map(len, parts.values()), default=1)
    for depth in range(1, deepest + 1):
        short = {base: "/".join(parts[base][-depth:]) for base in different}
        if len(set(short.values())) == len(different):
            return short
    return {base: base for base in different}
