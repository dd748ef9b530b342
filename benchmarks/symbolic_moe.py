"""Symbolic-MoE on the zoo's skills task: what recruiting is worth, and what it takes.

Quality, on the zoo's nine adapters: fitted on dev, scored on test, beside the best single expert,
a vote of the k best for every question, and a vote of those who were recruited.

Cost, on 16 full models with room for one (the nine adapters and seven means of pairs of them, each
merged into the base and written as a model of its own): loads beside the number of bases that were
recruited, and the wall time beside one bare load and batched generate for each expert over just the
prompts that it had.

    python benchmarks/symbolic_moe.py --out benchmarks/results/symbolic_moe.json
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from _table import arguments, report

import swarm
from swarm.agents.engines.transformers import TransformersEngine
from swarm.agents.expert import Expert, Pool
from swarm.agents.messages import Request, Response
from swarm.graphs.topologies import star
from swarm.optimizers.baselines.best_single import BestSingle
from swarm.optimizers.policy import PolicyOptimizer
from swarm.optimizers.voting import vote_counter
from swarm.runtime.system import System, Trace, evaluate

ZOO = Path(__file__).parent.parent / "examples" / "zoo"
MODELS = 16
MEASURED_ON = "two shared CPU cores; not measured on a GPU"


def quality(store: str, seeds: Sequence[int]) -> dict[str, Any]:
    """Test scores, on the zoo's adapters."""
    pool, task = Pool.load(ZOO / "pool.toml"), swarm.Task.load(ZOO / "skills.toml")

    def fitted(optimizer: PolicyOptimizer | BestSingle) -> System:
        return optimizer.fit(task, pool, store=store)

    def score(system: System) -> float:
        return system.evaluate(task, store=store).summary().score

    best = fitted(BestSingle())
    figures: dict[str, Any] = {"best_single": score(best)}
    alone = evaluate(
        [swarm.single(name, pool=pool).graph for name in pool], task, pool, split="dev", store=store
    )
    ranked = sorted(alone, key=lambda each: -each.score)
    k = 3
    top = [each.graph.end.expert for each in ranked[:k]]
    count = vote_counter("vote", pool, task.scorer, k)
    voting = Pool([*pool.values(), count], name=pool.name)
    figures["vote_k"] = score(System(star([*top, "vote"]), voting))

    settings: dict[str, dict[str, Any]] = {
        "symbolic_moe": {},
        "as_published": {"reference": True},
        "vote_of_the_recruited": {"final": "vote"},
        "skills_from_words": {"tag": None},
    }
    for name, how in settings.items():
        scores = [
            score(fitted(swarm.SymbolicMoE(**{"tag": "skill", "match": False, "seed": s, **how})))
            for s in seeds
        ]
        figures[name] = float(np.mean(scores))
        figures[f"{name}_by_seed"] = scores
    figures["k"] = k
    return figures


def write_models(folder: Path) -> Pool:
    """16 full models: nine adapters and seven means of two, merged into the base."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    pool = Pool.load(ZOO / "pool.toml")
    names = list(pool)
    rows: list[tuple[str, ...]] = [(name,) for name in names]
    rows += list(combinations(names, 2))[: MODELS - len(names)]
    experts = []
    for row in rows:
        model: Any = AutoModelForCausalLM.from_pretrained(str(ZOO / "base"))
        for i, name in enumerate(row):
            place = f"part{i}"
            if i == 0:
                model = PeftModel.from_pretrained(model, str(pool[name].adapter), place)
            else:
                model.load_adapter(str(pool[name].adapter), place)
        if len(row) > 1:
            parts = [f"part{i}" for i in range(len(row))]
            weights = [1 / len(row)] * len(row)
            model.add_weighted_adapter(parts, weights, "mean", combination_type="linear")
            model.set_adapter("mean")
        target = folder / "+".join(row)
        model.merge_and_unload(
            adapter_names=["mean"] if len(row) > 1 else ["part0"]
        ).save_pretrained(target)
        AutoTokenizer.from_pretrained(str(ZOO / "base")).save_pretrained(target)
        first = pool[row[0]]
        experts.append(
            Expert(
                name="+".join(row),
                model=str(target),
                prompt=first.prompt,
                sampling=first.sampling,
            )
        )
    return Pool(experts, name="full models")


class Counting(TransformersEngine):
    """Counts loads."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []

    async def load(self, base: str, experts: Sequence[Expert]) -> None:
        self.loads += [base] * (base not in self._bases)
        await super().load(base, experts)


def ours(system: System, questions: Sequence[str]) -> tuple[float, list[str], list[Trace]]:
    """Seconds, loads and traces of the system, with room for one model and nothing known."""
    engine = Counting()
    runtime = swarm.Runtime({"transformers": engine}, memory=1)
    cold = System(system.policy, system.pool, runtime=runtime)
    started = time.perf_counter()
    traces = cold.batch(questions)
    seconds = time.perf_counter() - started
    runtime.close()
    return seconds, engine.loads, traces


def bare(requests: dict[str, list[Request]]) -> float:
    """Seconds for one load and one batched generate an expert, over all that it is asked."""

    async def work() -> None:
        for each in requests.values():
            engine, expert = TransformersEngine(), each[0].expert
            await engine.load(expert.base, [expert])
            for batch in await engine.plan(each):
                answers = await engine.generate([each[i] for i in batch])
                assert all(isinstance(answer, Response) for answer in answers)
            await engine.unload(expert.base)

    started = time.perf_counter()
    asyncio.run(work())
    return time.perf_counter() - started


def cost(folder: Path, store: str, rounds: int) -> dict[str, Any]:
    """Loads and wall time with 16 models and room for one."""
    pool, task = write_models(folder), swarm.Task.load(ZOO / "skills.toml")
    system = swarm.SymbolicMoE(tag="skill", match=False).fit(task, pool, store=store)
    questions = [example.prompt for example in task.test]
    ratios, seconds = [], []
    for _ in range(rounds):
        taken, loads, traces = ours(system, questions)
        asked: dict[str, dict[bytes, Request]] = defaultdict(dict)
        recruited, aggregating = set(), set()
        for trace in traces:
            for call in trace.calls:
                expert = pool[call.agent.expert]
                request = Request(expert, call.prompt)
                asked[expert.base][request.key()] = request
                is_end = call.agent.name == trace.graph.end.name
                (aggregating if is_end else recruited).add(expert.base)
        least = bare({base: list(each.values()) for base, each in asked.items()})
        ratios.append(taken / least)
        seconds.append((taken, least))
    return {
        "loads": len(loads),
        "bases_recruited": len(recruited),
        "bases_aggregating": len(aggregating),
        "loads_beyond_one_each": len(loads) - len(recruited | aggregating),
        "wall_ratio": float(np.median(ratios)),
        "seconds_ours_and_bare": seconds,
        "test": system.evaluate(task, store=store).summary().score,
    }


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        store = f"sqlite:///{temporary}/store.db"
        scores = quality(store, range(options.seeds))
        costs = cost(Path(temporary), store, options.rounds)
    by_seed = {name: value for name, value in scores.items() if isinstance(value, list)}
    names = ("symbolic_moe", "best_single", "vote_k", "as_published")
    headline = {
        **{name: scores[name] for name in names},
        **{name: costs[name] for name in ("loads", "bases_recruited", "wall_ratio")},
        "measured_on": MEASURED_ON,
    }
    rows: list[dict[str, Any]] = [
        {"what": name, "value": value, "by_seed": str(by_seed.get(f"{name}_by_seed", ""))}
        for name, value in {**scores, **costs}.items()
        if not isinstance(value, list)
    ]
    seconds = costs["seconds_ours_and_bare"]
    rows.append({"what": "seconds, ours and bare", "value": str(seconds), "by_seed": ""})
    report(headline, rows, options)


if __name__ == "__main__":
    main()
