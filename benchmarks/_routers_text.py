"""One expert a question, by its text alone: on benchmarks that were trained on, and on others."""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from _routers_pools import MADE, Found, apart, both, load, make, tags_of, with_encoder

from swarm.analysis.routing import interval, split
from swarm.optimizers.embedding import Encoder
from swarm.optimizers.outcomes import Outcomes
from swarm.optimizers.routers.carrot import Carrot

OURS = "blend"
"""The router whose figures are the headline's, chosen beforehand; see `routers.py`."""
PUBLISHED = {
    "best_single": (54.56, 43.95),
    "random": (47.67, 38.02),
    "oracle": (77.52, 70.34),
    "knn_160": (56.95, 43.79),
    "carrot": (56.34, 43.44),
    "task_guessed": (58.67, 44.96),
    "router_dc": (58.54, 45.85),
}
"""ID and OOD on RouterDC's whole test splits (`../shared/pools/README.md`): that of RouterDC is the
paper's, with an encoder that is fine-tuned; that of CARROT is ridge regression."""

Split = tuple[int, Outcomes, Outcomes, set[str], set[str]]
"""(seed, fitted on, judged by, its known and its unseen benchmarks)."""


Scores = dict[str, dict[str, list[np.ndarray]]]
"""Router → `side/benchmark` or `side/benchmark/seed` → scores of its questions, a seed each."""


def trained(name: str) -> bool:
    return not name.startswith("extra")


def routerdc(options: argparse.Namespace, encoder: Encoder) -> Found:
    scores, table = measured(options, encoder, "routerdc")
    if not scores:
        return {}, []
    rows = summed("routerdc", scores, table, PUBLISHED, each=True)
    found = {row["router"]: row for row in rows}
    text_only = [row for row in rows if row["router"] not in ("oracle", "random")]
    highest = max(text_only, key=lambda row: row.get("id", 0.0) + row.get("ood", 0.0))
    headline = {
        "best_router": OURS,
        "id_mean": found[OURS].get("id"),
        "ood_mean": found[OURS].get("ood"),
        "task_guessed_id": found["task_guessed"].get("id"),
        "task_guessed_ood": found["task_guessed"].get("ood"),
        "router_dc_id": found["router_dc"].get("id"),
        "router_dc_ood": found["router_dc"].get("ood"),
        "highest_here": highest["router"],
        "route_ms": max(row.get("route_ms", 0.0) for row in rows),
    }
    for side in ("id", "ood"):
        headline |= over(scores, OURS, "task_guessed", side)
    within, more = predictable(options, encoder, "routerdc")
    return headline | within, rows + more


def over(scores: Scores, row: str, other: str, side: str) -> dict[str, float]:
    """By how much one router beats another on the same questions."""
    gains = [
        100 * (np.mean(got, axis=0) - np.mean(scores[other][name], axis=0))
        for name, got in scores[row].items()
        if name.startswith(side + "/")
    ]
    if not gains:
        return {}
    name = f"over_{other}_{side}"
    mean, low, high = interval(gains, np.random.default_rng(0))
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


def llmrouter(options: argparse.Namespace, encoder: Encoder) -> Found:
    scores, table = measured(options, encoder, "llmrouter")
    if not scores:
        return {}, []
    rows = summed("llmrouter", scores, table, {}, each=False)
    found = {row["router"]: row for row in rows}
    return {
        f"llmrouter_{side}": found[OURS][side] for side in ("id", "ood") if side in found[OURS]
    }, rows


def measured(
    options: argparse.Namespace, encoder: Encoder, name: str
) -> tuple[Scores, dict[str, dict[str, Any]]]:
    table: dict[str, dict[str, Any]] = {}
    scores: Scores = {}
    for seed, fitted, judged, known, unseen in splits(options, name):
        tags = tags_of(judged)
        encoder(fitted.questions)
        encoder(judged.questions)
        chosen = {row: route(row, seed, fitted, judged, encoder, table) for row in MADE}
        chosen["oracle"] = judged.scores.argmax(axis=1)
        for row, columns in chosen.items():
            got = judged.scores[np.arange(len(judged)), columns]
            for tag in np.unique(tags):
                side = "id" if tag in known else "ood" if tag in unseen else "other"
                # The same questions, when only the router's seed differs, are one group.
                group = f"{side}/{tag}" if options.test else f"{side}/{tag}/{seed}"
                scores.setdefault(row, {}).setdefault(group, []).append(got[tags == tag])
    return scores, table


def splits(options: argparse.Namespace, name: str) -> Iterator[Split]:
    found = both(options, name, trained)
    if found is None:
        return
    train, test = found
    if test is None:
        extra = load(options.train, name, lambda split: not trained(split))
        yield from own_splits(train, extra, options.seeds)
        return
    known = set(tags_of(train))
    unseen = set(tags_of(test)) - known
    rest = apart(train, test)
    yield from ((seed, rest, test, known, unseen) for seed in range(options.seeds))


def own_splits(train: Outcomes, extra: Outcomes | None, seeds: int) -> Iterator[Split]:
    tags = tags_of(train)
    names = set(tags)
    for seed in range(seeds):
        fitted, judged = split(train, np.random.default_rng(seed))
        yield seed, train.take(fitted), train.take(judged), names, set()
    # Left out in turn; all of a benchmark that is not trained on is there to be judged by.
    for name in sorted(names):
        rest = train.take(np.flatnonzero(tags != name))
        unseen = train.take(np.flatnonzero(tags == name))
        yield 0, apart(rest, unseen), unseen, set(), {name}
    if extra is not None:
        yield 0, apart(train, extra), extra, set(), set(tags_of(extra))


def route(
    row: str,
    seed: int,
    fitted: Outcomes,
    judged: Outcomes,
    encoder: Encoder,
    table: dict[str, dict[str, Any]],
) -> np.ndarray:
    """The router's choices; how long it took goes to the table."""
    router = make(row, seed, encoder)
    started = time.process_time()
    router.fit(fitted)
    seconds = time.process_time() - started
    batch = (list(judged.questions) * (1 + 1000 // len(judged)))[:1000]
    if "route_ms" not in table.setdefault(row, {}):
        router.route(batch)  # what is embedded is not counted
        started = time.process_time()
        router.route(batch)
        # A thousand questions: seconds in all are milliseconds each.
        table[row]["route_ms"] = time.process_time() - started
        table[row]["fit_s"] = seconds
    return router.route(judged.questions)


def summed(
    on: str,
    scores: Scores,
    table: dict[str, dict[str, Any]],
    published: dict[str, tuple[float, float]],
    *,
    each: bool,
) -> list[dict[str, Any]]:
    """A row a router, with the mean of each benchmark where `each` is wanted."""
    rows = []
    rng = np.random.default_rng(0)
    for row, groups in scores.items():
        line: dict[str, Any] = {"on": on, "router": row}
        means = {name: np.mean(got, axis=0) for name, got in groups.items()}
        for side in ("id", "ood"):
            values = [100 * got for name, got in means.items() if name.startswith(side + "/")]
            if values:
                mean, low, high = interval(values, rng)
                line |= {side: mean, f"{side}_low": low, f"{side}_high": high}
        if row in published:
            line |= {"published_id": published[row][0], "published_ood": published[row][1]}
        for name in sorted({"/".join(name.split("/")[:2]) for name in means}) if each else ():
            same = [got.mean() for key, got in means.items() if key.startswith(name)]
            line[name.replace("/", " ")] = 100 * float(np.mean(same))
        rows.append(line | table.get(row, {}))
    return rows


# --- what a text says within a benchmark ---------------------------------------------------------


def predictable(options: argparse.Namespace, encoder: Encoder, name: str) -> Found:
    """How far a question's text says who is best at it, once its benchmark is known: CARROT, fitted
    on one benchmark, against that benchmark's best model, and both against the oracle."""
    gains: dict[str, list[np.ndarray]] = {}
    leads: dict[str, list[float]] = {}
    for seed, fitted, judged, known, _ in splits(options, name):
        fitted_tags, tags = tags_of(fitted), tags_of(judged)
        for tag in sorted(known & set(tags)):
            own = fitted.take(np.flatnonzero(fitted_tags == tag))
            asked = judged.take(np.flatnonzero(tags == tag))
            rows = np.arange(len(asked))
            router = with_encoder(Carrot(seed=seed), encoder).fit(own)
            best = asked.scores[:, own.best]
            group = tag if options.test else f"{tag}/{seed}"
            got = asked.scores[rows, router.route(asked.questions)] - best
            gains.setdefault(group, []).append(100 * got)
            leads.setdefault(group, []).append(100 * (asked.oracle - float(best.mean())))
    if not gains:
        return {}, []
    means = {group: np.mean(each, axis=0) for group, each in gains.items()}
    measure = functools.partial(interval, rng=np.random.default_rng(0))
    rows = []
    for tag in sorted({group.partition("/")[0] for group in means}):
        own = [group for group in means if group.partition("/")[0] == tag]
        mean, low, high = measure([means[group] for group in own])
        lead = float(np.mean([leads[group] for group in own]))
        rows.append(
            {"on": f"{name}, within a benchmark", "benchmark": tag, "gain": mean}
            | {"gain_low": low, "gain_high": high, "oracle_lead": lead}
        )
    mean, low, high = measure(list(means.values()))
    return {
        "within_gain": mean,
        "within_gain_low": low,
        "within_gain_high": high,
        "within_oracle_lead": float(np.mean([row["oracle_lead"] for row in rows])),
    }, rows
