"""A joint job that nobody ran: its state and evaluations, as a job leaves them in a store.

The swarms are real; what they climb is made up: graphs are good that are deep and end in the last
expert, weights are good that mix the first expert in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from swarm.graphs.decode import decode_swarm
from swarm.graphs.graph import AgentGraph, name_agents
from swarm.optimizers.pso import ParticleSwarm, pack
from swarm.optimizers.weight_step import draw_assignments, jfk_scores, weight_swarm
from swarm.store import EvaluationRecord, QuestionRecord, Store

EXPERTS = ("plus", "minus", "times", "divide", "compare", "recall")
QUESTIONS = 40
TASK = bytes(32)


def evaluation(
    graph: AgentGraph, scores: Sequence[float], split: str = "dev", **info: Any
) -> EvaluationRecord:
    """Without calls: only its scores are there."""
    n = len(scores)
    return EvaluationRecord(
        graph=graph,
        split=split,
        task=TASK,
        score=float(np.mean(scores)),
        positions=range(n),
        questions=[QuestionRecord(f"{split}-{i}", f"question {i}", [str(i)]) for i in range(n)],
        scores=list(scores),
        keys=[[None] * n for _ in graph.agents],
        cached=[[False] * n for _ in graph.agents],
        info=info,
    )


def right(share: float, n: int = QUESTIONS) -> list[float]:
    """So large a share of n questions answered well, the first ones."""
    return [1.0] * round(share * n) + [0.0] * (n - round(share * n))


def fitness(graph: AgentGraph) -> float:
    depth = (graph.depth - 1) / (len(graph.agents) - 1)
    ends = graph.agents.index(graph.end) / (len(graph.agents) - 1)
    in_order = np.mean([graph.position(u) < graph.position(v) for u, v in graph.edges])
    return float(0.1 + 0.25 * depth + 0.15 * ends + 0.3 * in_order)


def record_job(
    store: Store,
    *,
    experts: Sequence[str] = EXPERTS,
    iterations: int = 10,
    particles: int = 8,
    casts: int = 6,
    joint: bool = True,
    task: str = "relay",
    seed: int = 0,
) -> int:
    """A finished job; returns the run's id."""
    rng = np.random.default_rng(seed)
    n, agents = len(experts), name_agents(list(experts))
    role_swarm = ParticleSwarm(
        rng.random((particles, n, n)) * (1 - np.eye(n)), rng, iterations=iterations
    )
    weights = weight_swarm(n, rng, iterations=iterations)
    optimizer = "hetero_swarm" if joint else "role_step"
    settings = {
        "optimizer": optimizer,
        "task": task,
        "pool": "skills",
        "split": "dev",
        "limit": None,
        "experts": {
            name: {"prompt": "chat", "fingerprint": f"{i:02x}" * 32}
            for i, name in enumerate(experts)
        },
        "instructions": {},
    }
    run = store.start_run("job", f"{optimizer} on {task}", settings)
    best: dict[str, Any] = {"score": -1.0}
    jfk = np.zeros(n)
    history: list[dict[str, Any]] = []
    spared = dict.fromkeys(("memo", "bounds", "known", "shared"), 0)
    asked = calls = 0
    scored: set[AgentGraph] = set()
    names, rows = list(experts), np.eye(n)

    def keep(graph: AgentGraph, score: float, step: str, **where: int) -> None:
        store.add_evaluation(run, evaluation(graph, right(score), iteration=k, **where))
        if score > best["score"]:
            mixed = {
                name: {"of": of, "coefficients": row.tolist()}
                for name, of, row in zip(names, experts, rows, strict=True)
                if name in graph.experts
            }
            text = graph.to_json()
            best.update(graph=text, score=score, iteration=k, step=step, experts=mixed)

    for k in range(1, iterations + 1):
        positions = role_swarm.ask()
        graphs = [
            graph.with_experts(dict(zip(experts, names, strict=True)))
            for graph in decode_swarm(positions, agents, p=0.0, rng=rng)
        ]
        scores = [round(fitness(graph) * QUESTIONS) / QUESTIONS for graph in graphs]
        whole = [bool(k < 3 or score > np.median(scores)) for score in scores]
        lead = int(np.argmax(scores))
        for i, (graph, score) in enumerate(zip(graphs, scores, strict=True)):
            calls += n * QUESTIONS
            if graph in scored:
                spared["memo"] += n * QUESTIONS
                continue
            scored.add(graph)
            if whole[i]:
                keep(graph, score, "role", particle=i)
            for cause, share in (("bounds", 0.04 * k), ("known", 0.2), ("shared", 0.1)):
                spared[cause] += round(share * n * QUESTIONS)
        role_swarm.tell(scores, at=positions)
        role = {
            "scores": scores,
            "whole": whole,
            "positions": pack(positions),
            "graph": graphs[lead].to_json(),
            "score": scores[lead],
        }
        weight = None
        if joint and k % 4 != 3:  # now and then it drops out
            assignments = draw_assignments(casts, n, n, rng)
            good = 0.2 * rows[:, 0] + np.linspace(0.0, 0.1, n)
            base = fitness(graphs[lead]) - 0.1
            each = [
                round(float(np.clip(base + good[cast].mean(), 0, 1)) * QUESTIONS) / QUESTIONS
                for cast in assignments
            ]
            jfk = jfk_scores(assignments, each, jfk)
            weights.tell(jfk)
            for m, (cast, score) in enumerate(zip(assignments, each, strict=True)):
                graph = graphs[lead].with_experts([names[e] for e in cast])
                keep(graph, score, "weight", cast=m)
            calls += casts * n * QUESTIONS
            spared["known"] += casts * n * QUESTIONS // 4
            weight = {
                "graph": graphs[lead].to_json(),
                "assignments": assignments.tolist(),
                "scores": each,
                "jfk": jfk.tolist(),
                "coefficients": rows.tolist(),
            }
            names, rows = [f"{name}@{k}" for name in experts], weights.ask()
        asked = calls - sum(spared.values())
        entry = {"role": role, "weight": weight, "best_score": best["score"], "asked": asked}
        history.append({**entry, "calls": calls, "spared": dict(spared)})
    state = {
        "search": role_swarm.state(),
        "weights": weights.state() if joint else None,
        "jfk": jfk.tolist() if joint else None,
        "failures": 0,
        "best": best,
        "history": history,
    }
    store.save_state(run, state)
    store.finish_run(run, "done", {"score": best["score"], "asked": asked})
    return run
