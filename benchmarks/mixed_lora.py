"""Batches of many LoRA adapters in the transformers engine: slices of sorted rows, or as peft does.

    python benchmarks/mixed_lora.py --out benchmarks/results/mixed_lora.json

The zoo's nine experts, relay's dev questions with up to four previous responses, one batch. Both in
turn in one process, the median of three; `one_adapter` asks one expert all of it, which is as fast
as a batch can be.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
from _perfect import ZOO
from _table import arguments, report

import swarm
from swarm.agents.engines import transformers
from swarm.agents.messages import Message, Request


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    pool = swarm.Pool.load(ZOO / "pool.toml")
    questions = swarm.Task.load(ZOO / "relay.toml").split("dev")[: options.rows]
    rng = np.random.default_rng(0)
    told = "a minus 05 05 = 00 , a 00 b 11"
    experts = [list(pool.values())[i] for i in rng.integers(len(pool), size=len(questions))]
    requests = []
    for expert, example in zip(experts, questions, strict=True):
        lines = [f"{i}: {told}" for i in range(1, 1 + rng.integers(5))]
        text = "\n".join([*lines, f"Question: {example.prompt}", "Answer:"])
        requests.append(Request(expert, (Message("user", text),)))
    alone = [request._replace(expert=experts[0]) for request in requests]

    sliced, usual = _base(pool, slices=True), _base(pool, slices=False)
    ways: dict[str, Callable[[], object]] = {
        "slices": lambda: _write(sliced, requests),
        "peft": lambda: _write(usual, requests),
        "one_adapter": lambda: _write(sliced, alone),
    }
    assert ways["slices"]() == ways["peft"]()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, write in ways.items():
            started = time.perf_counter()
            write()
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    report(
        {
            "mixed_lora_speedup": medians["peft"] / medians["slices"],
            "of_one_adapter": medians["one_adapter"] / medians["slices"],
            "rows": len(requests),
            "measured_on": "two shared CPU cores; not measured on a GPU",
        },
        [{"way": name, "seconds": value} for name, value in medians.items()],
        options,
    )


def _base(pool: swarm.Pool, *, slices: bool) -> transformers._Base:
    usual = transformers.take_slices
    if not slices:
        transformers.take_slices = lambda model: None  # type: ignore[assignment]
    try:
        base = transformers._Base(next(iter(pool.values())), "cpu", None, len(pool))
        base.load_adapters({expert.overlay: expert for expert in pool.values()})
    finally:
        transformers.take_slices = usual
    return base


def _write(base: transformers._Base, requests: list[Request]) -> list[list[int]]:
    return base.generate(requests, base.encode([request.messages for request in requests]))


if __name__ == "__main__":
    main()
