"""Cost against quality: eleven models with true costs, and a strong model beside a weak one."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import numpy as np
from _routers_pools import MADE, Found, grouped, make, pairs

from swarm.analysis.routing import (
    Point,
    Routed,
    aiq,
    cost_range,
    interval,
    limits,
    resampled,
    swept,
)
from swarm.optimizers.embedding import Encoder
from swarm.optimizers.outcomes import Outcomes
from swarm.optimizers.routers.base import Estimator

PUBLISHED_AIQ = {"best_single": 0.8226, "knn": 0.8413, "carrot": 0.8499, "oracle": 0.9745}
"""`best_single`: the zero router, the hull over single models; that of CARROT is ridge regression.
"""
BUDGET = 2.75
"""USD per 1 000 questions."""
STEPS = 200
"""Trade-offs of a curve."""


def routerbench(options: argparse.Namespace, encoder: Encoder) -> Found:
    values: dict[str, dict[str, list[float]]] = {}
    right: dict[str, list[np.ndarray]] = {}
    drawn: dict[str, list[np.ndarray]] = {}
    for seed, fitted, judged in pairs(options, "routerbench0"):
        encoder(fitted.questions)
        encoder(judged.questions)
        low, high = cost_range(judged)
        n = len(judged)
        singles = [
            Routed.of(np.full(n, column), judged) for column in range(judged.scores.shape[1])
        ]
        curves = {"best_single": singles, "oracle": list(oracle_choices(judged))}
        for row in MADE:
            router = make(row, seed, encoder)
            if not isinstance(router, Estimator) or row in curves:
                continue
            router.fit(fitted)
            curves[row] = [routed for _, routed in swept(router, judged, steps=STEPS)]
            chosen = at_budget(router, judged, curves[row])
            if chosen is not None:
                right.setdefault(row, []).append(chosen.scores)
                values.setdefault(row, {}).setdefault("usd", []).append(chosen.cost)
        counts = draws_of(options, seed, n)
        for row, curve in curves.items():
            each = [Point(routed.cost, routed.accuracy) for routed in curve]
            found = values.setdefault(row, {})
            found.setdefault("aiq", []).append(aiq(each, low, high))
            found.setdefault("within", []).append(within(each, BUDGET))
            found.setdefault("highest", []).append(max(point.score for point in each))
            drawn.setdefault(row, []).append(aiq_resampled(curve, judged, counts))
    if not values:
        return {}, []
    rng = np.random.default_rng(0)
    rows = []
    for row, found in values.items():
        line = {
            "on": "routerbench0",
            "router": row,
            "aiq": float(np.mean(found["aiq"])),
            **limited("aiq", drawn[row]),
            "acc_at_2_75": float(np.mean(found["within"])),
            "highest": float(np.mean(found["highest"])),
        }
        if row in PUBLISHED_AIQ:
            line["published_aiq"] = PUBLISHED_AIQ[row]
        if row in right:
            mean, least, most = interval(grouped(options, right[row]), rng)
            line |= {"acc_chosen": mean, "acc_chosen_low": least, "acc_chosen_high": most}
            line["usd_chosen"] = float(np.mean(found["usd"]))
        rows.append(line)
    carrot = next(row for row in rows if row["router"] == "carrot")
    wanted = ("aiq", "aiq_low", "aiq_high", "acc_at_2_75", "acc_chosen", "usd_chosen")
    return {key: carrot[key] for key in wanted if key in carrot}, rows


def oracle_choices(outcomes: Outcomes) -> Iterator[Routed]:
    for trade_off in [0.0, *np.geomspace(1e-3, 1e5, 60)]:
        # A cent of cost, at the least, tells experts apart that score the same.
        values = outcomes.scores - max(trade_off, 1e-6) * outcomes.costs
        yield Routed.of(values.argmax(axis=1), outcomes)


def draws_of(options: argparse.Namespace, seed: int, n: int) -> np.ndarray:
    """`resampled`; with --test the same for every seed, since all judge the same questions."""
    return resampled(n, np.random.default_rng(0 if options.test else seed))


def limited(name: str, drawn: Sequence[np.ndarray]) -> dict[str, float]:
    """The limits of a figure that came to `drawn`, (resamples,) a seed, in the mean over seeds."""
    low, high = limits(np.mean(drawn, axis=0))
    return {f"{name}_low": low, f"{name}_high": high}


def aiq_resampled(curve: Sequence[Routed], judged: Outcomes, counts: np.ndarray) -> np.ndarray:
    n = len(judged)
    scores = counts @ np.stack([routed.scores for routed in curve], axis=1) / n
    costs = 1000 * (counts @ np.stack([routed.costs for routed in curve], axis=1)) / n
    experts = 1000 * (counts @ judged.costs) / n
    return np.array(
        [
            aiq(list(zip(*each, strict=True)), low, high)
            for *each, low, high in zip(
                costs.tolist(),
                scores.tolist(),
                experts.min(axis=1),
                experts.max(axis=1),
                strict=True,
            )
        ]
    )


def within(points: Sequence[Point], budget: float) -> float:
    """The score of the dearest point within a budget: chosen by cost, never by score."""
    inside = [point for point in points if point.cost <= budget]
    return max(inside, key=lambda point: point.cost).score if inside else 0.0


def at_budget(router: Estimator, judged: Outcomes, curve: Sequence[Routed]) -> Routed | None:
    """The trade-off that is expected to score best among those expected to be within the budget:
    nothing of the outcomes of the questions that it is judged by is looked at."""
    values, costs = router.estimates(judged.questions), router.cost_estimates(judged.questions)
    rows = np.arange(len(judged))
    best, chosen = -np.inf, None
    for routed in curve:
        own = float(values[rows, routed.columns].mean())
        if 1000 * float(costs[rows, routed.columns].mean()) <= BUDGET and own > best:
            best, chosen = own, routed
    return chosen


# --- routellm ------------------------------------------------------------------------------------


def routellm(options: argparse.Namespace, encoder: Encoder) -> Found:
    """APGR: of the strong model's lead over the weak one, the share that is kept, in the mean over
    all shares of questions that the strong one is asked (RouteLLM, arXiv 2406.18665, section 3)."""
    found: dict[str, list[float]] = {}
    drawn: dict[str, list[np.ndarray]] = {}
    for seed, fitted, judged in pairs(options, "routellm"):
        encoder(fitted.questions)
        encoder(judged.questions)
        strong = fitted.best
        lead = {"oracle": judged.scores[:, strong] - judged.scores[:, 1 - strong]}
        for row in MADE:
            router = make(row, seed, encoder)
            if row != "best_single" and isinstance(router, Estimator):
                values = router.fit(fitted).estimates(judged.questions)
                lead[row] = values[:, strong] - values[:, 1 - strong]
        lead["random"] = np.random.default_rng(seed).random(len(judged))
        n = len(judged)
        counts = np.vstack([np.ones(n, dtype=int), draws_of(options, seed, n)])
        for row, each in lead.items():
            whole, *again = apgr(each, judged, strong, counts)
            found.setdefault(row, []).append(float(whole))
            drawn.setdefault(row, []).append(np.array(again))
    if not found:
        return {}, []
    rows = []
    for row, each in found.items():
        line = {"on": "routellm", "router": row, "apgr": float(np.mean(each))}
        rows.append(line | limited("apgr", drawn[row]))
    kept = next(row for row in rows if row["router"] == "matrix_factorization")
    return {key: kept[key] for key in ("apgr", "apgr_low", "apgr_high")}, rows


def apgr(lead: np.ndarray, judged: Outcomes, strong: int, counts: np.ndarray) -> np.ndarray:
    """(k,): questions, each as often as a row of `counts` (k, n) says, go to the strong model in
    the order of `lead`, (n,), the highest first."""
    order = np.argsort(-lead, kind="stable")
    gained = (judged.scores[:, strong] - judged.scores[:, 1 - strong])[order]
    counts = counts[:, order]
    # The curve from no question to all, and its mean by the trapezoid rule.
    sums = np.pad(np.cumsum(counts * gained, axis=1), ((0, 0), (1, 0)))
    heights = (sums[:, 1:] + sums[:, :-1]) / 2
    return np.sum(heights * counts, axis=1) / counts.sum(axis=1) / sums[:, -1]
