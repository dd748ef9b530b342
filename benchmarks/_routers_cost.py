"""Cost against quality: eleven models with true costs, and a strong model beside a weak one."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import numpy as np
from _routers_pools import MADE, Found, grouped, make, pairs

from swarm.analysis.routing import Point, Routed, aiq, cost_range, interval, singles_of, swept
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
    for seed, fitted, judged in pairs(options, "routerbench0"):
        encoder(fitted.questions)
        encoder(judged.questions)
        low, high = cost_range(judged)
        singles = list(singles_of(judged).values())
        points = {"best_single": singles, "oracle": list(oracle_points(judged))}
        for row in MADE:
            router = make(row, seed, encoder)
            if not isinstance(router, Estimator) or row in points:
                continue
            router.fit(fitted)
            curve = list(swept(router, judged, steps=STEPS))
            points[row] = [point for point, _ in curve]
            chosen = at_budget(router, judged, [routed for _, routed in curve])
            if chosen is not None:
                right.setdefault(row, []).append(chosen.scores)
                values.setdefault(row, {}).setdefault("usd", []).append(chosen.cost)
        for row, each in points.items():
            found = values.setdefault(row, {})
            found.setdefault("aiq", []).append(aiq(each, low, high))
            found.setdefault("within", []).append(within(each, BUDGET))
            found.setdefault("highest", []).append(max(point.score for point in each))
    if not values:
        return {}, []
    rng = np.random.default_rng(0)
    rows = []
    for row, found in values.items():
        line = {
            "on": "routerbench0",
            "router": row,
            "aiq": float(np.mean(found["aiq"])),
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
    wanted = ("aiq", "acc_at_2_75", "acc_chosen", "usd_chosen")
    return {key: carrot[key] for key in wanted if key in carrot}, rows


def oracle_points(outcomes: Outcomes) -> Iterator[Point]:
    for trade_off in [0.0, *np.geomspace(1e-3, 1e5, 60)]:
        # A cent of cost, at the least, tells experts apart that score the same.
        values = outcomes.scores - max(trade_off, 1e-6) * outcomes.costs
        routed = Routed.of(values.argmax(axis=1), outcomes)
        yield Point(routed.cost, routed.accuracy)


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
        for row, each in lead.items():
            found.setdefault(row, []).append(apgr(each, judged, strong))
    if not found:
        return {}, []
    rows = []
    for row, each in found.items():
        line = {"on": "routellm", "router": row, "apgr": float(np.mean(each))}
        if len(each) > 1 and not options.test:
            line["apgr_deviation"] = float(np.std(each, ddof=1))
        rows.append(line)
    return {"apgr": float(np.mean(found["matrix_factorization"]))}, rows


def apgr(lead: np.ndarray, judged: Outcomes, strong: int) -> float:
    """Questions go to the strong model in the order of `lead`, (n,), the highest first."""
    order = np.argsort(-lead, kind="stable")
    gained = (judged.scores[:, strong] - judged.scores[:, 1 - strong])[order]
    # Up to k questions to the strong one, k = 0 … n; the curve's mean by the trapezoid rule.
    sums = np.concatenate([[0.0], np.cumsum(gained)])
    return float(np.trapezoid(sums) / len(gained) / sums[-1])
