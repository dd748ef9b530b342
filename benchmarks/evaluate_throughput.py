"""Tokens a second of evaluating random graphs, against a bare batched generate and a naive loop.

    python benchmarks/evaluate_throughput.py --out benchmarks/results/evaluate_throughput.json

Ten random graphs of the zoo's nine experts on relay's 200 test questions, nothing known before.
`bare` asks the same unique prompts with transformers and peft alone: sorted by length, adapter by
adapter, in batches under a token budget, all known in advance, as no graph would allow.
`reference` does as the published implementation of Heterogeneous Swarms does: at every node of
every graph it loads base and adapter anew and generates in batches of ten; it is run on a sample of
nodes and scaled to all. All three in one process, after a warm-up, models in the file cache.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from _table import arguments, report

import swarm
from swarm.agents.messages import Response
from swarm.runtime.cache import MemoryCache
from swarm.runtime.evaluate import Evaluation, Evaluator

ZOO = Path(__file__).parent.parent / "examples" / "zoo"
BUDGET = 32_768
"""Tokens a batch, answers included."""

Asked = dict[tuple[str, str], str]
"""(expert, prompt) → answer, for all calls."""


def ours(task: swarm.Task, pool: swarm.Pool, graphs: list[swarm.AgentGraph]) -> list[Evaluation]:
    runtime = swarm.Runtime()

    async def run() -> list[Evaluation]:
        scheduler = runtime.scheduler(MemoryCache())
        return await Evaluator(task, "test", pool, scheduler)(graphs)

    return asyncio.run(run())


def calls(evaluations: list[Evaluation]) -> tuple[Asked, list[list[tuple[str, str]]], int]:
    """The unique calls, the calls of every node, and the tokens of the unique ones."""
    asked: Asked = {}
    nodes: list[list[tuple[str, str]]] = []
    tokens = 0
    for evaluation in evaluations:
        for agent in evaluation.graph.agents:
            for _, run in evaluation.runs:
                entry = run.log[agent.name]
                node = []
                for prompt, outcome in zip(entry.prompts, entry.outcomes, strict=True):
                    assert isinstance(outcome, Response)
                    call = (agent.expert, prompt[-1].content)
                    node.append(call)
                    if call not in asked:
                        asked[call] = outcome.text
                        tokens += outcome.usage.total
                nodes.append(node)
    return asked, nodes, tokens


def load(pool: swarm.Pool, names: list[str]) -> tuple[Any, Any]:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(pool[names[0]].model)
    for name in names:
        where, called = pool[name].adapter, f"lora_{name}"
        if isinstance(model, PeftModel):
            model.load_adapter(where, adapter_name=called)
        else:
            model = PeftModel.from_pretrained(model, where, adapter_name=called)
    return model.eval(), AutoTokenizer.from_pretrained(pool[names[0]].model)


def generate(model: Any, tokenizer: Any, prompts: list[str], limit: int) -> list[str]:
    import torch

    encoded = tokenizer(prompts, return_tensors="pt", padding=True)
    with torch.inference_mode():
        out = model.generate(
            input_ids=encoded["input_ids"],
            attention_mask=encoded["attention_mask"],
            max_new_tokens=limit,
            do_sample=False,
        )
    texts: list[str] = tokenizer.batch_decode(
        out[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True
    )
    return texts


def bare(pool: swarm.Pool, asked: Asked, loaded: tuple[Any, Any]) -> Asked:
    model, tokenizer = loaded
    limit = next(iter(pool.values())).sampling.max_tokens
    by_expert: dict[str, list[str]] = defaultdict(list)
    for expert, prompt in asked:
        by_expert[expert].append(prompt)
    answers: Asked = {}
    for expert, prompts in by_expert.items():
        model.set_adapter(f"lora_{expert}")
        prompts.sort(key=lambda text: -len(text.split()))
        while prompts:
            size = max(1, BUDGET // (len(prompts[0].split()) + 1 + limit))
            batch, prompts = prompts[:size], prompts[size:]
            texts = generate(model, tokenizer, batch, limit)
            answers |= {(expert, p): t for p, t in zip(batch, texts, strict=True)}
    return answers


def reference(pool: swarm.Pool, node: list[tuple[str, str]]) -> None:
    expert = node[0][0]
    model, tokenizer = load(pool, [expert])
    for start in range(0, len(node), 10):
        batch = [prompt for _, prompt in node[start : start + 10]]
        generate(model, tokenizer, batch, pool[expert].sampling.max_tokens)


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--graphs", type=int, default=10)
    parser.add_argument("--nodes", type=int, default=6, help="sample for the reference")
    options = parser.parse_args()
    pool, task = swarm.Pool.load(ZOO / "pool.toml"), swarm.Task.load(ZOO / "relay.toml")
    graphs = swarm.random_graphs(pool, options.graphs, seed=0)

    ours(task, pool, graphs[:1])  # warm-up: imports, file cache
    started = time.perf_counter()
    evaluations = ours(task, pool, graphs)
    ours_seconds = time.perf_counter() - started
    asked, nodes, tokens = calls(evaluations)

    loaded = load(pool, list(pool))
    started = time.perf_counter()
    answers = bare(pool, asked, loaded)
    bare_seconds = time.perf_counter() - started
    same = sum(answers[call].strip() == text for call, text in asked.items()) / len(asked)

    sample = nodes[:: max(1, len(nodes) // options.nodes)][: options.nodes]
    started = time.perf_counter()
    for node in sample:
        reference(pool, node)
    reference_seconds = (time.perf_counter() - started) * len(nodes) / len(sample)

    report(
        {
            "of_bare": bare_seconds / ours_seconds,
            "over_reference": reference_seconds / ours_seconds,
            "same_answers": same,
            "graphs": len(graphs),
            "unique_calls": len(asked),
        },
        [
            {"what": what, "seconds": seconds, "tokens_per_second": tokens / seconds, "calls": n}
            for what, seconds, n in (
                ("ours, models loaded in it", ours_seconds, len(asked)),
                ("bare generate, models loaded before", bare_seconds, len(asked)),
                (
                    f"reference, {len(sample)} of {len(nodes)} nodes, scaled",
                    reference_seconds,
                    sum(map(len, nodes)),
                ),
            )
        ],
        options,
    )


if __name__ == "__main__":
    main()
