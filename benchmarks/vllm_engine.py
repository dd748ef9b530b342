"""Tokens a second of the vllm engine in this process, against the transformers engine.

    .venv-vllm/bin/python benchmarks/vllm_engine.py --out benchmarks/results/vllm_engine.json

Both are asked the same 2 000 requests: first prompts of relay's questions, drawn over the zoo's
nine adapters of one base, in the batches that each of them plans, models loaded before. In turn, in
one process: a round is one pass of each, and the figure is of the best round of each. Greedy, so
the answers must be the same; `same_answers` says how many are.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path

from _table import arguments, report

import swarm
from swarm.agents.engines import Engine, create_engine
from swarm.agents.messages import Message, Request, Response
from swarm.errors import EngineError

ZOO = Path(__file__).parent.parent / "examples" / "zoo"
OPTIONS = {"max_model_len": 256, "kv_cache": 1, "max_loras": 9, "dtype": "float32"}

Answers = list[Response | EngineError]


def draw(pool: swarm.Pool, n: int) -> list[Request]:
    task = swarm.Task.load(ZOO / "relay.toml")
    asked = [(e.question, name) for split in (task.dev, task.test) for e in split for name in pool]
    chosen = random.Random(0).sample(asked, n)
    return [
        Request(pool[name], (Message("user", f"Question: {question}\nAnswer:"),))
        for question, name in chosen
    ]


async def answer(engine: Engine, requests: Sequence[Request]) -> tuple[float, Answers, int]:
    """Seconds, the answers, and how many batches they took."""
    started = time.perf_counter()
    answers: dict[int, Response | EngineError] = {}
    batches = await engine.plan(requests)
    for batch in batches:
        answers |= zip(batch, await engine.generate([requests[i] for i in batch]), strict=True)
    seconds = time.perf_counter() - started
    return seconds, [answers[i] for i in range(len(requests))], len(batches)


async def run(n: int, rounds: int) -> tuple[dict[str, float], list[dict[str, object]]]:
    plain = swarm.Pool.load(ZOO / "pool.toml")
    pools = {
        name: swarm.Pool(
            expert.model_copy(update={"engine": name, "options": OPTIONS if name == "vllm" else {}})
            for expert in plain.values()
        )
        for name in ("transformers", "vllm")
    }
    engines = {name: create_engine(name) for name in pools}
    requests = {name: draw(pool, n) for name, pool in pools.items()}
    loading, best, texts, batches = {}, {}, {}, {}
    tokens = 0
    for name, engine in engines.items():
        experts = list(pools[name].values())
        started = time.perf_counter()
        await engine.load(experts[0].base, experts)
        loading[name] = time.perf_counter() - started
        await answer(engine, requests[name][:200])  # warm-up: adapters, caches
    for _ in range(rounds):
        for name, engine in engines.items():
            seconds, answers, batches[name] = await answer(engine, requests[name])
            best[name] = min(seconds, best.get(name, seconds))
            responses = [each for each in answers if isinstance(each, Response)]
            assert len(responses) == n
            texts[name] = [each.text for each in responses]
            tokens = sum(each.usage.total for each in responses)
    for engine in engines.values():
        await engine.close()
    same = sum(map(str.__eq__, *texts.values())) / n
    return (
        {
            "of_transformers": best["transformers"] / best["vllm"],
            "same_answers": same,
            "requests": n,
        },
        [
            {
                "engine": name,
                "seconds": best[name],
                "tokens_per_second": tokens / best[name],
                "load_seconds": loading[name],
                "batches": batches[name],
            }
            for name in engines
        ],
    )


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    headline, rows = asyncio.run(run(options.requests, options.rounds))
    report(headline | {"note": "two shared CPU cores; not measured on a GPU"}, rows, options)


if __name__ == "__main__":
    main()
