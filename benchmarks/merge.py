"""The memory it takes to merge ten experts of 1 GB, and that the weight-step's state takes.

    python benchmarks/merge.py --out benchmarks/results/merge.json

Ten models of random float16 tensors are written to a temporary folder and merged in a process of
their own, whose peak of resident memory is what is reported: the interpreter, torch and the pages
mapped from the files included. Needs 13 GB of disk, which it gives back.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from _table import arguments, report

from swarm.agents.merge import check_compatible, export, merge
from swarm.optimizers.weight_step import weight_swarm

ROWS, COLUMNS = 4096, 8192
"""Of a tensor: 67 MB in float16."""
TENSOR_BYTES = 2 * ROWS * COLUMNS


def write_expert(folder: Path, tensors: int, seed: int) -> None:
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "random"}')
    numbers = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(seed)).half()
    # Fast to make, and yet no two tensors are alike.
    state = {f"layers.{i}.weight": numbers.roll(i, 0) for i in range(tensors)}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def merge_in_memory(folders: list[Path], row: list[float], out: Path) -> None:
    merged = dict(merge(check_compatible(folders), row))
    assert len(merged) > 0


def merge_to_disk(folders: list[Path], row: list[float], out: Path) -> None:
    export(check_compatible(folders), row, out)


def measured(work: Callable[..., None], *args: Any) -> tuple[float, float]:
    """Seconds, and the peak of this process's resident memory in bytes."""
    started = time.perf_counter()
    work(*args)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return seconds, peak * (1 if sys.platform == "darwin" else 1024)


def in_new_process(work: Callable[..., Any], *args: Any) -> Any:
    # Spawned, not forked: what this process holds would count as the other's.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *args).result()


def state_bytes(experts: int) -> int:
    """JSON of the weight-step's swarm in the middle of a search."""
    rng = np.random.default_rng(0)
    swarm = weight_swarm(experts, rng)
    for _ in range(10):
        swarm.tell(rng.random(experts).tolist())
    return len(json.dumps(swarm.state()).encode())


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--experts", type=int, default=10)
    parser.add_argument("--tensors", type=int, default=16, help="of 67 MB each, an expert")
    options = parser.parse_args()
    size = options.tensors * TENSOR_BYTES
    row = np.random.default_rng(0).dirichlet(np.ones(options.experts)).tolist()
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        needed, free = (options.experts + 2) * size, shutil.disk_usage(folder).free
        if free < needed:
            parser.error(f"{folder} has {free / 1e9:.1f} GB free, this needs {needed / 1e9:.1f} GB")
        folders = [folder / f"expert{k}" for k in range(options.experts)]
        for seed, expert in enumerate(folders):
            in_new_process(write_expert, expert, options.tensors, seed)
        results = {
            name: in_new_process(measured, work, folders, row, folder / "merged")
            for name, work in (("memory", merge_in_memory), ("disk", merge_to_disk))
        }
    state = state_bytes(options.experts)
    report(
        {
            "peak_gb": results["memory"][1] / 1e9,
            "target_peak_gb": 2.5,
            "state_kb": state / 1e3,
            "target_state_kb": 100,
        },
        [
            {
                "merged to": name,
                "experts": options.experts,
                "gb_an_expert": size / 1e9,
                "peak_gb": peak / 1e9,
                "seconds": seconds,
            }
            for name, (seconds, peak) in results.items()
        ],
        options,
    )


if __name__ == "__main__":
    main()
