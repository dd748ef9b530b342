"""Sixteen models of a billion parameters on one GPU with room for four, against bare generate.

    python benchmarks/gpu_residency.py --out benchmarks/results/gpu_residency.json
    python benchmarks/gpu_residency.py --tiny --out benchmarks/results/gpu_residency_tiny_cpu.json

Ten random graphs of 16 agents, each of a model of its own, over random questions. The models are
randomly initialised (bfloat16), written to a temporary folder (35 GB) and loaded from there; so
what they answer is noise, of `--max-tokens` tokens.

- ours: all graphs together, everything included: loads, evictions, planning, prompts, the store.
- bare: the same requests, model by model, each model on the device before its time begins:
  `generate` of transformers on batches sorted by length, under the same token budget. What loading
  each of them once takes, which nobody can spare, is given beside it.

`of_bare` is tokens a second (read and written) of ours over bare's without any load. The timeline
of our run is drawn beside the JSON.

`--tiny` runs the same code on a CPU with models of some hundred thousand parameters: that it works,
not how fast a GPU is.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _models import questions, random_llamas
from _table import arguments, report

import swarm
from swarm.agents.engines import create_engine
from swarm.agents.messages import Response
from swarm.graphs.decode import decode
from swarm.plots.style import save
from swarm.plots.timeline import plot_timeline
from swarm.store.loads import loads

MODELS, GRAPHS, ROOM = 16, 10, 4
LARGE = {"width": 2048, "layers": 16, "heads": 32, "vocabulary": 8192}
TINY = {"width": 64, "layers": 2, "heads": 4, "vocabulary": 256}
BATCH_TOKENS = {"cuda": 65_536, "cpu": 8_192}


class Bare(NamedTuple):
    """What one model took without us."""

    tokens: int
    seconds: float
    load_seconds: float


def ours(
    places: Sequence[Path], asked: Sequence[str], device: str, options: Any
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Figures of our run, and the prompts that each expert was asked."""
    pool = swarm.Pool(
        swarm.Expert(
            name=place.name,
            model=str(place),
            prompt="compact",
            sampling=swarm.Sampling(max_tokens=options.max_tokens),
        )
        for place in places
    )
    rng = np.random.default_rng(options.seed)
    graphs = [
        decode(rng.random((MODELS, MODELS)), list(pool), p=0.8, rng=rng) for _ in range(GRAPHS)
    ]
    records = [{"question": question, "answer": "none"} for question in asked]
    task = swarm.Task.from_records("random words", lambda example, text: 0.0, test=records)
    engine = create_engine("transformers", device=device, batch_tokens=BATCH_TOKENS[device])
    runtime = swarm.Runtime({"transformers": engine}, memory=ROOM)
    with tempfile.TemporaryDirectory() as folder, swarm.Store.open(f"{folder}/x.db") as store:
        started = time.perf_counter()
        found = swarm.evaluate(graphs, task, pool, split="test", store=store, runtime=runtime)
        seconds = time.perf_counter() - started
        runtime.close()
        assert found[0].run is not None
        batches, view = store.batches(found[0].run), store.run(found[0].run)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        save(plot_timeline(view, batches), options.out.with_suffix(".png"))
    prompts: dict[str, list[str]] = {name: [] for name in pool}
    for evaluation in found:
        assert not evaluation.errors, next(iter(evaluation.errors.values()))
        for agent in evaluation.graph.agents:
            for _, run in evaluation.runs:
                entry = run.log[agent.name]
                for prompt, outcome, known in zip(
                    entry.prompts, entry.outcomes, entry.cached, strict=True
                ):
                    assert isinstance(outcome, Response)
                    if not known:
                        prompts[agent.expert].append(prompt[-1].content)
    taken = loads(batches)
    tokens = sum(view.batch.prompt_tokens + view.batch.completion_tokens for view in batches)
    return {
        "what": "ours, everything included",
        "requests": taken.requests,
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_s": tokens / seconds,
        "batches": taken.batches,
        "loads": taken.loads,
        "gb": taken.load_bytes / 1e9,
        "load_seconds": taken.load_seconds,
        "prefetched": taken.prefetched,
        "evictions": taken.evictions,
    }, prompts


def bare(place: Path, prompts: Sequence[str], device: str, max_tokens: int) -> Bare:
    """The same requests of one model, by transformers alone."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    started = time.perf_counter()
    tokenizer: Any = AutoTokenizer.from_pretrained(place, padding_side="left")
    dtype = torch.float32 if device == "cpu" else "auto"
    model: Any = AutoModelForCausalLM.from_pretrained(place, dtype=dtype).to(device).eval()
    _wait(device)
    loaded = time.perf_counter()
    ids = [tokenizer(text)["input_ids"] for text in prompts]
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    tokens, at = 0, 0
    while at < len(order):
        width = len(ids[order[at]]) + max_tokens
        some = order[at : at + max(1, BATCH_TOKENS[device] // width)]
        at += len(some)
        batch = tokenizer.pad({"input_ids": [ids[i] for i in some]}, return_tensors="pt").to(device)
        with torch.inference_mode():
            out = model.generate(**batch, max_new_tokens=max_tokens, do_sample=False)
        new = out[:, batch["input_ids"].shape[1] :]
        ended = (new == model.generation_config.eos_token_id).int().cumsum(1) > 0
        tokens += int((~ended).sum()) + sum(len(ids[i]) for i in some)
    _wait(device)
    done = time.perf_counter()
    del model
    if device == "cuda":
        torch.cuda.empty_cache()
    return Bare(tokens, done - loaded, loaded - started)


def _wait(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    import torch

    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="the same on a CPU with tiny models")
    parser.add_argument("--questions", type=int, default=None, help="100, or 8 with --tiny")
    parser.add_argument("--words", type=int, default=64, help="of a question")
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not options.tiny and not torch.cuda.is_available():
        print(
            "this needs a CUDA device, and torch sees none: use a GPU, or --tiny", file=sys.stderr
        )
        sys.exit(2)
    device, shape = ("cpu", TINY) if options.tiny else ("cuda", LARGE)
    count = options.questions or (8 if options.tiny else 100)
    asked = questions(count, options.words, shape["vocabulary"], seed=options.seed)
    with tempfile.TemporaryDirectory() as folder:
        places = random_llamas(Path(folder), MODELS, **shape, seed=options.seed)
        bare(places[0], asked[:4], device, options.max_tokens)  # kernels, imports, for both
        row, prompts = ours(places, asked, device, options)
        alone = [
            bare(place, prompts[place.name], device, options.max_tokens)
            for place in places
            if prompts[place.name]
        ]
    tokens, seconds = sum(b.tokens for b in alone), sum(b.seconds for b in alone)
    once = sum(b.load_seconds for b in alone)
    rows = [
        row,
        {
            "what": "bare generate, models on the device",
            "requests": row["requests"],
            "tokens": tokens,
            "seconds": seconds,
            "tokens_per_s": tokens / seconds,
            "loads": 0,
        },
        {
            "what": "bare generate, each model loaded once",
            "requests": row["requests"],
            "tokens": tokens,
            "seconds": seconds + once,
            "tokens_per_s": tokens / (seconds + once),
            "loads": len(alone),
            "load_seconds": once,
        },
    ]
    name = "not measured on a GPU: tiny models on two shared CPU cores"
    if device == "cuda":
        name = torch.cuda.get_device_name()
    headline = {
        "of_bare": row["tokens_per_s"] / (tokens / seconds),
        "of_bare_with_loads": row["tokens_per_s"] / (tokens / (seconds + once)),
        "measured_on": name,
        "questions": count,
        "room": ROOM,
    }
    report(headline, rows, options)


if __name__ == "__main__":
    main()
