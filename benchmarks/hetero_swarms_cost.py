"""What the joint job costs, run as published and as here: same trajectory, fewer calls.

    python benchmarks/hetero_swarms_cost.py --out benchmarks/results/hetero_swarms_cost.json

The zoo's nine experts on relay's 200 dev questions, 10 particles, M = 10, as published (`explore`
and `keep` 0, `role_experts` current). Ours runs first. The reference asks for every call of every
evaluation, one graph after the other. An answer that ours was given to the very same request
(weights, prompt, sampling) is not computed again for it, or it would take hours; it is counted.
Its wall time is that of the published code's way to ask, which loads base and adapter anew at every
node of every graph and generates in batches of ten, measured on a sample of its nodes and scaled.

How both grow is measured on perfect agents (`_perfect.py`), in calls: with iterations, experts and
questions.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from _perfect import ZOO
from _perfect import pool as perfect_pool
from _table import arguments, report

import swarm
from swarm.agents.engines import Engine
from swarm.agents.engines.transformers import TransformersEngine
from swarm.agents.messages import Request, Response
from swarm.errors import EngineError
from swarm.optimizers.hetero_swarm import HeterogeneousSwarm
from swarm.runtime.progress import Silent

BATCH = 10
"""Of the published code."""


class Remembering(TransformersEngine):
    """Keeps what it was asked in columns of one node each, and answers nothing twice."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.seconds = 0.0
        """Of computing answers."""
        self.answers: dict[bytes, Response | EngineError] = {}
        self.nodes: list[list[Request]] = []

    async def plan(self, requests: Sequence[Request]) -> Sequence[Sequence[int]]:
        new = [i for i, request in enumerate(requests) if request.key() not in self.answers]
        plan = await super().plan([requests[i] for i in new]) if new else []
        known = sorted(set(range(len(requests))) - set(new))
        return [[new[i] for i in batch] for batch in plan] + ([known] if known else [])

    async def generate(self, requests: Sequence[Request]) -> Sequence[Response | EngineError]:
        self.calls += len(requests)
        self.nodes.append(list(requests))
        keys = [request.key() for request in requests]
        new = list(dict.fromkeys(i for i, key in enumerate(keys) if key not in self.answers))
        if new:
            started = time.perf_counter()
            answered = await super().generate([requests[i] for i in new])
            self.seconds += time.perf_counter() - started
            self.answers.update((keys[i], answer) for i, answer in zip(new, answered, strict=True))
        return [self.answers[key] for key in keys]


def as_published(requests: Sequence[Request]) -> None:
    """One node of one graph, as the published code asks it."""
    import torch
    from peft import PeftModel, set_peft_model_state_dict
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from swarm.agents.merge import check_compatible, merge

    expert = requests[0].expert
    tokenizer = AutoTokenizer.from_pretrained(expert.model)
    model: Any = AutoModelForCausalLM.from_pretrained(expert.model)
    folder = expert.adapter or expert.mixture.folders[0]  # type: ignore[union-attr]
    model = PeftModel.from_pretrained(model, folder)
    if expert.mixture is not None:  # there it would lie on disk, merged: this is no slower
        sources = check_compatible(expert.mixture.folders)
        set_peft_model_state_dict(model, dict(merge(sources, expert.mixture.coefficients)))
    model.eval()
    for start in range(0, len(requests), BATCH):
        prompts = [request.messages[-1].content for request in requests[start : start + BATCH]]
        encoded = tokenizer(prompts, return_tensors="pt", padding=True)
        with torch.inference_mode():
            model.generate(
                input_ids=encoded["input_ids"],
                attention_mask=encoded["attention_mask"],
                max_new_tokens=expert.sampling.max_tokens,
                do_sample=False,
            )


def trajectory(url: str) -> Any:
    """Positions, bests, and every score that counts."""
    with swarm.Store.open(url) as store:
        state = store.state(store.runs()[0].id)
    assert state is not None
    kept = ("search", "weights", "jfk", "best")
    steps = [(e["role"]["positions"], e["weight"], e["best_score"]) for e in state["history"]]
    return [state[name] for name in kept], steps, state["history"][-1]


def search(
    task: swarm.Task, pool: swarm.Pool, engine: Engine | None, limit: int | None, **settings: Any
) -> tuple[Any, float]:
    """The trajectory of a job, and the seconds it took."""
    runtime = swarm.Runtime({"transformers": engine} if engine else None)
    job = HeterogeneousSwarm(
        seed=0, explore=0.0, keep=0.0, role_experts="current", patience=100, **settings
    )
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/swarm.db"
        started = time.perf_counter()
        progress = Silent() if engine is None else None
        job.fit(task, pool, limit=limit, store=url, runtime=runtime, progress=progress)
        return trajectory(url), time.perf_counter() - started


def grow(options: Any) -> list[dict[str, Any]]:
    """Calls of ours and of the reference, on perfect agents."""
    task, whole = swarm.Task.load(ZOO / "relay.toml"), perfect_pool()
    normal = {"iterations": 5, "experts": 9, "questions": 100}
    rows = []
    for what, values in {
        "iterations": (2, 5, 10),
        "experts": (4, 6, 9),
        "questions": (50, 100, 200),
    }.items():
        for value in values:
            size = {**normal, what: value}
            pool = whole.subset(*list(whole)[:: 9 // size["experts"]][: size["experts"]])
            (*_, last), seconds = search(
                task,
                pool,
                None,
                size["questions"],
                particles=options.particles,
                assignments=options.particles,
                iterations=size["iterations"],
            )
            ratio = last["calls"] / last["asked"]
            spared = {name: n / last["calls"] for name, n in last["spared"].items()}
            rows.append({"agents": "perfect", **size, **_row(last, ratio, spared)})
            print(f"{size}: {ratio:.2f}, {seconds:.1f} s", file=sys.stderr)
    return rows


def _row(last: Any, ratio: float, spared: dict[str, float]) -> dict[str, Any]:
    return {
        "reference_calls": last["calls"],
        "our_calls": last["asked"],
        "calls_ratio": ratio,
        **{f"spared_{name}": share for name, share in spared.items()},
    }


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--particles", type=int, default=10, help="and casts a weight-step")
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--nodes", type=int, default=6, help="sample for the published way to ask")
    parser.add_argument("--only-growth", action="store_true", help="perfect agents alone")
    options = parser.parse_args()
    rows = grow(options)
    if options.only_growth:
        report({}, rows, options)
        return
    pool, task = swarm.Pool.load(ZOO / "pool.toml"), swarm.Task.load(ZOO / "relay.toml")
    size = {
        "particles": options.particles,
        "assignments": options.particles,
        "iterations": options.iterations,
    }
    engine = Remembering()
    (*ours, last), wall = search(task, pool, engine, options.questions, **size)
    asked = engine.calls
    engine.calls, engine.nodes = 0, []
    (*reference, _), _ = search(task, pool, engine, options.questions, reference=True, **size)
    sample = random.Random(0).sample(engine.nodes, options.nodes)
    as_published(sample[0][:BATCH])  # warm-up
    started = time.perf_counter()
    for node in sample:
        as_published(node)
    each = (time.perf_counter() - started) / sum(map(len, sample))
    ratio = engine.calls / asked
    spared = {name: n / last["calls"] for name, n in last["spared"].items()}
    rows.append(
        {
            "agents": "zoo",
            "iterations": options.iterations,
            "experts": len(pool),
            "questions": options.questions,
            **_row(last, ratio, spared),
            "our_seconds": wall,
            "reference_seconds": each * engine.calls,
        }
    )
    report(
        {
            "calls_ratio": ratio,
            "wall_ratio": each * engine.calls / wall,
            "same_trajectory": ours == reference,
            "reference_batches_timed": f"{len(sample)} of {len(engine.nodes)}",
        },
        rows,
        options,
    )


if __name__ == "__main__":
    main()
