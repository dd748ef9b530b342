"""Every router on recorded real models, beside best single, random, oracle and what was published.

    python benchmarks/routers.py --train ../shared/pools --out benchmarks/results/routers.json
    python benchmarks/routers.py --train DIR --test DIR --json

Folders are in the format of `../shared/pools`: <folder>/<benchmark>.<split>.jsonl.gz. Files are
found by folder and benchmark, whatever the split is called. With --test, routers are fitted on
--train and judged by --test; without, --train is parted in two, as often as there are seeds, and
unseen benchmarks are those left out of training in turn. A question that is in the test is never
trained on. What is not there is left out of the result.

- routerdc: seven 7B models. ID is the mean over benchmarks that are trained on, OOD over those that
  are not (splits called extra… are neither). All routers read the text alone.
- routerbench0: eleven models with true costs. AIQ is over a router's own points, pooled.
- mmlu_pro: recruiting up to five of sixteen open models a question; the profiles are `symmoe_val`.
- mot_cascade: a cascade on DATE; its threshold is chosen on training rows.

Vectors of questions are kept in a store (--store): only the first run embeds them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _table import arguments, report

from swarm.agents.recording import Recording
from swarm.analysis.routing import (
    Point,
    Routed,
    aiq,
    cost_range,
    hull,
    interval,
    outcomes_of,
    split,
    swept,
)
from swarm.optimizers.embedding import Encoder
from swarm.optimizers.outcomes import Outcomes
from swarm.optimizers.routers import find_router
from swarm.optimizers.routers.base import Embedded, Estimator, Router
from swarm.optimizers.routers.cascade import Cascade
from swarm.optimizers.routers.select_llm import SelectLLM, weighted_vote
from swarm.store import Store

MADE: dict[str, tuple[str, dict[str, Any]]] = {
    "best_single": ("best_single", {}),
    "random": ("random", {}),
    "blend": ("blend", {}),
    "task_guessed": ("domains", {"tag": "benchmark"}),
    "domains": ("domains", {}),
    "knn": ("knn", {}),
    "knn_160": ("knn", {"neighbours": 160}),
    "carrot": ("carrot", {}),
    "router_dc": ("router_dc", {}),
    "matrix_factorization": ("matrix_factorization", {}),
    "bandit": ("bandit", {}),
    "expertise_tree": ("expertise_tree", {}),
}
"""Row of the table → router and settings."""
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
PUBLISHED_AIQ = {"best_single": 0.8226, "knn": 0.8413, "carrot": 0.8499, "oracle": 0.9745}
"""`best_single`: the zero router, the hull over single models."""
BUDGET = 2.75
"""USD per 1 000 questions."""
CLOSED = ("gemini-1.5-flash-002", "gemini-1.5-pro-002")
ABOVE = "Meta-Llama-3_1-70B-Instruct"
"""Not among MMLU-Pro's sixteen: it is so far above the rest that a vote could only take from it."""
RECRUITED_FROM = 16
CASCADE = ["gpt-3.5-turbo/cot1", "gpt-3.5-turbo/pot1", "gpt-3.5-turbo/cot2", "gpt-3.5-turbo/pot2"]
SCALE = {"mt_bench": 10.0}


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--train", type=Path, required=True, metavar="DIR")
    parser.add_argument("--test", type=Path, metavar="DIR")
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    parser.add_argument("--store", type=Path, metavar="FILE", help="where vectors are kept")
    parser.add_argument("--only", nargs="*", default=list(MEASURED), choices=list(MEASURED))
    options = parser.parse_args()
    place = options.store or Path.home() / ".cache" / "agent-swarm" / "embeddings.db"
    place.parent.mkdir(parents=True, exist_ok=True)
    headline: dict[str, Any] = {"splits": "given" if options.test else "own"}
    rows: list[dict[str, Any]] = []
    with Store.open(place) as store:
        encoder = Encoder(store=store)
        for name in options.only:
            started = time.perf_counter()
            found, more = MEASURED[name](options, encoder)
            headline |= found
            rows += more
            seconds = time.perf_counter() - started
            print(f"{name}: {seconds:.0f} s", file=sys.stderr)
    headline["measured_on"] = "two shared CPU cores; not measured on a GPU"
    report(headline, rows, options)


def load(folder: Path, name: str, wanted: Any = None, **options: Any) -> Outcomes | None:
    """The files of a folder whose names `wanted` takes; None where there are none."""
    files = sorted((folder / name).glob("*.jsonl*")) if (folder / name).is_dir() else []
    files = [file for file in files if wanted is None or wanted(file.name.split(".")[1])]
    if not files:
        return None
    # Files are read apart: ids need not differ between splits.
    parts = [Recording.load(file, models="intersection", scale=SCALE, **options) for file in files]
    models = [m for m in parts[0].models if all(m in part.models for part in parts)]
    return joined([outcomes_of(part.subset(models=models), choices=False) for part in parts])


def joined(parts: Sequence[Outcomes]) -> Outcomes:
    answers: Any = None
    if all(part.answers is not None for part in parts):
        answers = tuple(row for part in parts for row in part.answers or ())
    return Outcomes(
        tuple(question for part in parts for question in part.questions),
        parts[0].experts,
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.costs for part in parts]),
        answers,
        tuple(meta for part in parts for meta in part.meta),
    )


def apart(train: Outcomes, test: Outcomes) -> Outcomes:
    """`train` without the questions of `test`."""
    asked = set(test.questions)
    return train.take([i for i, each in enumerate(train.questions) if each not in asked])


def both_of(train: Outcomes, test: Outcomes) -> tuple[Outcomes, Outcomes]:
    """Of the models that both have, in one order."""
    shared = [name for name in train.experts if name in test.experts]
    return train.of_experts(shared), test.of_experts(shared)


def make(row: str, seed: int, encoder: Encoder) -> Router:
    name, settings = MADE[row]
    router = find_router(name)(seed=seed, **settings)
    if isinstance(router, Embedded):
        router.encoder = encoder
    return router


def tags_of(outcomes: Outcomes) -> np.ndarray:
    return np.array([str(tag) for tag in outcomes.tags("benchmark")])


# --- routerdc -----------------------------------------------------------------------------------


def trained(name: str) -> bool:
    return not name.startswith("extra")


def routerdc(options: argparse.Namespace, encoder: Encoder) -> tuple[dict, list[dict]]:
    train = load(options.train, "routerdc", trained)
    if train is None:
        return {}, []
    encoder(train.questions)
    if options.test is None:
        extra = load(options.train, "routerdc", lambda name: not trained(name))
        splits = own_splits(train, extra, options.seeds)
    else:
        test = load(options.test, "routerdc", trained)
        if test is None:
            return {}, []
        train, test = both_of(train, test)
        known = set(tags_of(train))
        unseen = set(tags_of(test)) - known
        rest = apart(train, test)
        splits = [(seed, rest, test, known, unseen) for seed in range(options.seeds)]
    table: dict[str, dict[str, Any]] = {}
    scores: dict[str, dict[str, list[np.ndarray]]] = {}
    for seed, fitted, judged, known, unseen in splits:
        tags = tags_of(judged)
        encoder(judged.questions)
        chosen = {row: route(row, seed, fitted, judged, encoder, table) for row in MADE}
        best = judged.scores.argmax(axis=1)
        chosen["oracle"] = best
        for row, columns in chosen.items():
            got = judged.scores[np.arange(len(judged)), columns]
            for tag in np.unique(tags):
                side = "id" if tag in known else "ood" if tag in unseen else "other"
                # The same questions, when only the router's seed differs, are one group.
                group = f"{side}/{tag}" if options.test else f"{side}/{tag}/{seed}"
                scores.setdefault(row, {}).setdefault(group, []).append(got[tags == tag])
    rows = []
    rng = np.random.default_rng(0)
    for row, groups in scores.items():
        line: dict[str, Any] = {"on": "routerdc", "router": row}
        means = {name: np.mean(each, axis=0) for name, each in groups.items()}
        for side in ("id", "ood"):
            values = [100 * each for name, each in means.items() if name.startswith(side + "/")]
            if values:
                mean, low, high = interval(values, rng)
                line |= {side: mean, f"{side}_low": low, f"{side}_high": high}
        published = PUBLISHED.get(row)
        line |= {"published_id": published[0], "published_ood": published[1]} if published else {}
        for name in sorted({name.split("/")[1] for name in means}):
            same = [each.mean() for key, each in means.items() if key.split("/")[1] == name]
            line[name] = 100 * float(np.mean(same))
        rows.append(line | table.get(row, {}))
    text_only = [row for row in rows if row["router"] not in ("oracle", "random")]
    best_row = max(text_only, key=lambda row: row.get("id", 0.0) + row.get("ood", 0.0))
    ours = next(row for row in rows if row["router"] == "blend")
    headline = {
        "best_router": best_row["router"],
        "router": "blend",
        "id_mean": ours.get("id"),
        "ood_mean": ours.get("ood"),
        "route_ms": max(row.get("route_ms", 0.0) for row in rows),
    }
    dual = next(row for row in rows if row["router"] == "router_dc")
    headline |= {"router_dc_id": dual.get("id"), "router_dc_ood": dual.get("ood")}
    return headline, rows


def own_splits(
    train: Outcomes, extra: Outcomes | None, seeds: int
) -> Iterator[tuple[int, Outcomes, Outcomes, set[str], set[str]]]:
    """(seed, fitted on, judged by, its known and its unseen benchmarks)."""
    tags = tags_of(train)
    names = set(tags)
    for seed in range(seeds):
        fitted, judged = split(train, np.random.default_rng(seed))
        yield seed, train.take(fitted), train.take(judged), names, set()
        if seed:
            continue  # the first seed's split alone has each benchmark left out in turn
        for name in sorted(names):
            unseen = train.take(judged[tags[judged] == name])
            yield seed, train.take(fitted[tags[fitted] != name]), unseen, set(), {name}
        if extra is not None:
            yield seed, train.take(fitted), apart(extra, train), set(), set(tags_of(extra))


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
        router.route(batch[:10])
        started = time.process_time()
        router.route(batch)
        # A thousand questions: seconds in all are milliseconds each.
        table[row]["route_ms"] = time.process_time() - started
        table[row]["fit_s"] = seconds
    return router.route(judged.questions)


# --- routerbench0 -------------------------------------------------------------------------------


def routerbench(options: argparse.Namespace, encoder: Encoder) -> tuple[dict, list[dict]]:
    rows, headline = [], {}
    points: dict[str, list[list[Point]]] = {}
    reached: dict[str, list[float]] = {}
    for seed, fitted, judged in pairs(options, "routerbench0"):
        encoder(fitted.questions)
        encoder(judged.questions)
        low, high = cost_range(judged)
        singles = [
            Point(1000 * float(judged.costs[:, j].mean()), float(judged.scores[:, j].mean()))
            for j in range(len(judged.experts))
        ]
        found = {"best_single": singles, "oracle": list(oracle_points(judged))}
        for row in MADE:
            router = make(row, seed, encoder)
            if isinstance(router, Estimator) and row not in found:
                router.fit(fitted)
                found[row] = [point for point, _ in swept(router, judged)]
                reached.setdefault(row, []).append(at_budget(router, fitted, judged))
        for row, each in found.items():
            points.setdefault(row, []).append(each)
            table = [aiq(each, low, high), within(each, BUDGET), max(p.score for p in each)]
            rows.append({"row": row, "aiq": table[0], "budget": table[1], "top": table[2]})
    if not rows:
        return {}, []
    lines = []
    for row in points:
        same = [each for each in rows if each["row"] == row]
        line = {
            "on": "routerbench0",
            "router": row,
            "aiq": float(np.mean([each["aiq"] for each in same])),
            "published_aiq": PUBLISHED_AIQ.get(row),
            "acc_at_2_75": float(np.mean([each["budget"] for each in same])),
            "highest": float(np.mean([each["top"] for each in same])),
        }
        if row in reached:
            line["acc_at_2_75_dev"] = float(np.mean(reached[row]))
        lines.append({key: value for key, value in line.items() if value is not None})
    carrot = next(line for line in lines if line["router"] == "carrot")
    headline = {key: carrot[key] for key in ("aiq", "acc_at_2_75", "acc_at_2_75_dev")}
    return headline, lines


def pairs(options: argparse.Namespace, name: str) -> Iterable[tuple[int, Outcomes, Outcomes]]:
    """(seed, fitted on, judged by), for a folder whose benchmarks are pooled."""
    train = load(options.train, name)
    if train is None:
        return
    if options.test is not None:
        test = load(options.test, name)
        if test is None:
            return
        train, test = both_of(train, test)
        for seed in range(options.seeds):
            yield seed, apart(train, test), test
        return
    for seed in range(options.seeds):
        fitted, judged = split(train, np.random.default_rng(seed))
        yield seed, train.take(fitted), train.take(judged)


def oracle_points(outcomes: Outcomes) -> Iterator[Point]:
    for trade_off in [0.0, *np.geomspace(1e-3, 1e5, 60)]:
        # A cent of cost, at the least, tells experts apart that score the same.
        values = outcomes.scores - max(trade_off, 1e-6) * outcomes.costs
        routed = Routed.of(values.argmax(axis=1), outcomes)
        yield Point(routed.cost, routed.accuracy)


def within(points: Sequence[Point], budget: float) -> float:
    """The height of the hull at a cost."""
    corners = hull(points)
    return float(np.interp(budget, corners[:, 0], corners[:, 1]))


def at_budget(router: Estimator, fitted: Outcomes, judged: Outcomes) -> float:
    """The score at the trade-off whose cost, as the router expects it of the questions that it is
    judged by, is the most that is within the budget: nothing of their outcomes is looked at."""
    values, costs = router.estimates(judged.questions), router.cost_estimates(judged.questions)
    best, chosen = -1.0, None
    for point, routed in swept(router, judged, steps=200):
        expected = 1000 * float(costs[np.arange(len(costs)), routed.columns].mean())
        own = float(values[np.arange(len(values)), routed.columns].mean())
        if expected <= BUDGET and own > best:
            best, chosen = own, point
    return chosen.score if chosen is not None else float("nan")


# --- mmlu_pro -----------------------------------------------------------------------------------


def recruiting(options: argparse.Namespace, encoder: Encoder) -> tuple[dict, list[dict]]:
    profiles = load(options.train, "mmlu_pro", lambda name: name == "symmoe_val")
    test = load(options.test or options.train, "mmlu_pro", lambda name: name != "symmoe_val")
    if profiles is None or test is None:
        return {}, []
    profiles, test = both_of(profiles, test)
    able = [name for name in profiles.experts if name not in CLOSED]
    means = dict(zip(profiles.experts, profiles.means, strict=True))
    strongest = sorted(set(able) - {ABOVE}, key=lambda name: (-means[name], name))
    strongest = strongest[:RECRUITED_FROM]
    rows, headline = [], {}
    rng = np.random.default_rng(0)
    for label, names in (("16 open", strongest), ("all open", able)):
        known, asked = profiles.of_experts(names), test.of_experts(names)
        gold = [meta["gold"] for meta in asked.meta]
        answers = asked.answers
        assert answers is not None

        def judge(name: str, right: np.ndarray, calls: float, label: str = label) -> float:
            mean, low, high = interval([100 * right], rng)
            rows.append(
                {"on": f"mmlu_pro, {label}", "router": name, "calls": calls}
                | {"score": mean, "score_low": low, "score_high": high}
            )
            return mean

        best = int(np.argmax(known.means))
        judge("best_single", asked.scores[:, best], 1)
        judge("oracle", asked.scores.max(axis=1), len(names))
        everyone = np.tile(np.argsort(-known.means, kind="stable"), (len(asked), 1))
        majority = weighted_vote(answers, everyone, np.ones(everyone.shape))
        judge("majority", equal(majority, gold), len(names))
        for calls in (3, 5):
            plain = everyone[:, :calls]
            vote = weighted_vote(answers, plain, np.ones(plain.shape))
            judge(f"top {calls}, equal votes", equal(vote, gold), calls)
            router = SelectLLM(calls=calls, choices=10)
            router.encoder = encoder
            router.fit(known)
            vote = weighted_vote(answers, *router.select(asked.questions))
            score = judge("select_llm", equal(vote, gold), calls)
            if label == "16 open":
                headline[f"recruit_{calls}"] = score
    return headline, rows


def equal(answers: Sequence[str | None], gold: Sequence[Any]) -> np.ndarray:
    return np.array([a == g for a, g in zip(answers, gold, strict=True)], dtype=np.float64)


# --- mot_cascade --------------------------------------------------------------------------------


def cascading(options: argparse.Namespace, encoder: Encoder) -> tuple[dict, list[dict]]:
    rows, headline = [], {}
    rng = np.random.default_rng(0)
    for label, then in (("best GPT-4", None), ("GPT-4 CoT, greedy", "gpt-4/greedy_cot1")):
        got: list[np.ndarray] = []
        up: list[np.ndarray] = []
        alone: list[np.ndarray] = []
        for _, fitted, judged in pairs(options, "mot_cascade"):
            first = [name for name in CASCADE if name in fitted.experts]
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
        mean, low, high = interval(got, rng)
        share = float(np.mean([each.mean() for each in up]))
        line = {"on": "mot_cascade", "router": f"cascade to {label}", "score": mean}
        line |= {"score_low": low, "score_high": high, "escalated": share}
        rows.append(line)
        single = interval(alone, rng)
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


MEASURED = {
    "routerdc": routerdc,
    "routerbench0": routerbench,
    "mmlu_pro": recruiting,
    "mot_cascade": cascading,
}
"""Folder → what is measured on it."""

if __name__ == "__main__":
    main()
