"""Wires nine tiny language models into a graph that answers what none of them can alone.

    make demo

Searches for a graph on relay's dev questions (role-step, a particle swarm), then compares it on the
test questions with what else could be done with the same models. Everything is run here and now on
real models (examples/zoo): no GPU, no key, nothing to download.
"""

from __future__ import annotations

import json
import platform
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import swarm
from swarm.graphs import chain, single
from swarm.runtime.evaluate import Evaluation, interval

ZOO = Path(__file__).parent / "zoo"
BUILD = Path(__file__).parent.parent / "build"
STORE = BUILD / "demo.db"
SEARCHES = 3
"""A swarm may get stuck: the best of some on dev is what is found."""
RANDOM_GRAPHS = 30


def row(name: str, scores: list[float], of: list[Evaluation], seconds: float) -> dict[str, Any]:
    """One line of the table; `of` are the evaluations whose calls it took."""
    low, high = interval(scores)
    summaries = [evaluation.summary() for evaluation in of]
    return {
        "system": name,
        "score": sum(scores) / len(scores),
        "low": low,
        "high": high,
        "calls": sum(s.calls for s in summaries),
        "asked": sum(s.asked for s in summaries),
        "tokens": sum(s.tokens for s in summaries),
        "seconds": seconds,
    }


def vote(task: swarm.Task, evaluations: list[Evaluation]) -> list[float]:
    """Scores of the answer that most experts give, ties to the first."""
    scores = []
    for i, example in enumerate(task.test):
        texts = [e.answers[i] or "" for e in evaluations]
        answers = [task.scorer.extract(example, text) for text in texts]
        [(winner, _)] = Counter(a for a in answers if a is not None).most_common(1) or [("", 0)]
        chosen = next((t for t, a in zip(texts, answers, strict=True) if a == winner), "")
        scores.append(task.score(example, chosen))
    return scores


def main() -> None:
    console = Console()
    if not console.is_terminal:  # a log has no width to keep to
        console = Console(width=120)
    BUILD.mkdir(exist_ok=True)
    for old in BUILD.glob(f"{STORE.name}*"):
        old.unlink()
    url = f"sqlite:///{STORE}"
    began = time.monotonic()

    pool = swarm.Pool.load(ZOO / "pool.toml")
    base = swarm.Pool.load(ZOO / "base.toml")
    task = swarm.Task.load(ZOO / "relay.toml")
    example = task.dev[0]
    console.print(f"[bold]{len(pool)} experts[/]: {', '.join(pool)}")
    console.print(f"[bold]A question of {task.name}[/]: {example.question}  →  {example.answer}\n")

    started = time.monotonic()
    searches = []
    for seed in range(SEARCHES):
        job = swarm.RoleStep(particles=10, iterations=8, patience=8, seed=seed)
        searches.append(job.fit(task, pool, store=url))
    with swarm.Store.open(url) as opened:
        scores = [(opened.run(each.run or 0).summary or {})["score"] for each in searches]
    found = searches[scores.index(max(scores))]
    search_seconds = time.monotonic() - started

    def score(graphs: list[swarm.AgentGraph], of: swarm.Pool, name: str) -> list[Evaluation]:
        return swarm.evaluate(graphs, task, of, split="test", store=url, name=name)

    singles = score([single(name) for name in pool], pool, "every expert alone")
    best_single = max(singles, key=lambda e: e.score)
    votes = vote(task, singles)
    [base_n] = score([chain(["base"] * len(pool))], base, "the base asked as often")
    graphs = swarm.random_graphs(pool, RANDOM_GRAPHS, seed=1)
    randoms = score(graphs, pool, f"{RANDOM_GRAPHS} random graphs")
    best_random = max(randoms, key=lambda e: e.score)
    mean_random = [sum(s) / len(s) for s in zip(*(e.scores for e in randoms), strict=True)]
    final = found.evaluate(task, "test", store=url, name="found by role-step")

    rows = [
        row(
            f"best single expert ({best_single.graph.end.name})",
            list(best_single.scores),
            [best_single],
            best_single.seconds,
        ),
        row("majority vote of all", votes, singles, singles[0].seconds),
        row(f"base asked {len(pool)} times", list(base_n.scores), [base_n], base_n.seconds),
        row(f"{RANDOM_GRAPHS} random graphs: mean", mean_random, randoms, randoms[0].seconds),
        row(
            f"{RANDOM_GRAPHS} random graphs: best on test",
            list(best_random.scores),
            randoms,
            randoms[0].seconds,
        ),
        row("found by role-step", list(final.scores), [final], final.seconds),
    ]

    console.print(found.graph.to_text())
    table = Table(title=f"{task.name}, {len(task.test)} test questions", title_style="bold")
    table.add_column("system")
    for heading in ("score", "95 % interval", "calls", "asked", "tokens", "seconds"):
        table.add_column(heading, justify="right")
    for line in rows:
        table.add_row(
            line["system"],
            f"{line['score']:.3f}",
            f"{line['low']:.3f} - {line['high']:.3f}",
            f"{line['calls']:,}",
            f"{line['asked']:,}",
            f"{line['tokens']:,}",
            f"{line['seconds']:.1f}",
            style="bold green" if line is rows[-1] else None,
        )
    console.print(table)
    console.print(
        "[dim]calls: answers of experts that the system needs; asked: those that were not known "
        f"from before.\nThe search took {search_seconds:.0f} s on the dev questions.[/]\n"
    )

    result = {
        "found": final.score,
        "best_single": best_single.score,
        "majority": sum(votes) / len(votes),
        "base_n": base_n.score,
        "random_mean": sum(mean_random) / len(mean_random),
        "random_best": best_random.score,
        "rows": rows,
        "search_seconds": search_seconds,
        "seconds": time.monotonic() - began,
        "graph": json.loads(found.graph.to_json()),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
    }
    (BUILD / "demo.json").write_text(json.dumps(result, indent=1) + "\n")
    found.graph.to_svg(BUILD / "demo.svg")

    console.print("Look further:")
    here = Path.cwd()
    store = f"--store {STORE.relative_to(here) if STORE.is_relative_to(here) else STORE}"
    for command, what in (
        (f"swarm runs {store}", "what was run"),
        (f"swarm show {found.run} {store}", "the search"),
        (f"swarm show {final.run} --trace 0 {store}", "one question's way through the graph"),
        (f"swarm replay {final.run} {store}", "the same again from the record, without models"),
    ):
        console.print(f"  .venv/bin/{command}  [dim]# {what}[/]", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    main()
