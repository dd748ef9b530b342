"""A cascade on DATE: GPT-3.5 answers several times, GPT-4 where its answers differ."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from _routers_pools import Found, grouped, pairs

from swarm.analysis.routing import interval
from swarm.optimizers.embedding import Encoder
from swarm.optimizers.outcomes import Outcomes
from swarm.optimizers.routers.cascade import Cascade

FIRST = ["gpt-3.5-turbo/cot1", "gpt-3.5-turbo/pot1", "gpt-3.5-turbo/cot2", "gpt-3.5-turbo/pot2"]


def cascading(options: argparse.Namespace, encoder: Encoder) -> Found:
    rows: list[dict[str, Any]] = []
    headline: dict[str, Any] = {}
    rng = np.random.default_rng(0)
    for label, then in (("best GPT-4", None), ("GPT-4 CoT, greedy", "gpt-4/greedy_cot1")):
        got: list[np.ndarray] = []
        up: list[np.ndarray] = []
        alone: list[np.ndarray] = []
        for _, fitted, judged in pairs(options, "mot_cascade"):
            first = [name for name in FIRST if name in fitted.experts]
            strong = [name for name in fitted.experts if name.startswith("gpt-4/")]
            names = [*first, *([then] if then else strong)]
            if not first or any(name not in fitted.experts for name in names) or not strong:
                continue
            router = Cascade(first=first).fit(fitted.of_experts(names))
            right, escalated = cascaded(router, judged)
            got.append(100 * right)
            up.append(100 * escalated)
            alone.append(100 * judged.scores[:, judged.experts.index(router.facts["then"])])
        if not got:
            continue
        mean, low, high = interval(grouped(options, got), rng)
        share = float(np.mean([each.mean() for each in up]))
        line = {"on": "mot_cascade", "router": f"cascade to {label}", "score": mean}
        line |= {"score_low": low, "score_high": high, "escalated": share}
        rows.append(line)
        single = interval(grouped(options, alone), rng)
        rows.append(
            {"on": "mot_cascade", "router": f"{label} alone", "score": single.mean}
            | {"score_low": single.low, "score_high": single.high, "escalated": 100.0}
        )
        if then is None:
            headline |= {"cascade": mean, "escalated": share}
        else:
            headline |= {"cascade_cot": mean, "cascade_cot_escalated": share}
    return headline, rows


def cascaded(router: Cascade, outcomes: Outcomes) -> tuple[np.ndarray, np.ndarray]:
    """(n,) scores, and (n,) whether a question went up."""
    then = outcomes.experts.index(router.facts["then"])
    right, escalated = np.zeros(len(outcomes)), np.zeros(len(outcomes))
    for row, meta in enumerate(outcomes.meta):
        drawn = [
            list(meta["sample_answers"].get(n, ()))[: router.draws] for n in router.facts["first"]
        ]
        up, winner = router.decide(drawn)
        escalated[row] = up
        right[row] = outcomes.scores[row, then] if up else winner == router.read(meta["gold"])
    return right, escalated
