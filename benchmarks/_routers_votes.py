"""Several experts a question and a vote: recruiting on MMLU-Pro, and voting on ZeroEval."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from _routers_pools import (
    Found,
    apart,
    both_of,
    grouped,
    joined,
    load,
    pairs,
    with_encoder,
)

from swarm.analysis.routing import Routed, interval, split, voted
from swarm.optimizers.embedding import Encoder
from swarm.optimizers.outcomes import Floats, Outcomes
from swarm.optimizers.recruit import Recruiter, RecruitSettings, Source
from swarm.optimizers.recruiting import profiles
from swarm.optimizers.routers.base import Columns
from swarm.optimizers.routers.domains import Domains
from swarm.optimizers.routers.jury import Jury
from swarm.optimizers.routers.select_llm import SelectLLM
from swarm.optimizers.routers.smoothie import Smoothie
from swarm.optimizers.skills import words_of

CLOSED = ("gemini-1.5-flash-002", "gemini-1.5-pro-002")
ABOVE = "Meta-Llama-3_1-70B-Instruct"
"""Not among MMLU-Pro's sixteen: it is so far above the rest that a vote could only take from it."""
RECRUITED_FROM = 16
PUBLISHED = {
    "best_single, profiles": (1, 55.45),
    "majority": (16, 59.81),
    "top, equal votes, profiles": (3, 57.99),
    "top, weighted votes, profiles": (5, 61.39),
    "oracle": (16, 89.04),
}
"""Row → calls and score of `../shared/pools/README.md`, on questions that are not here."""

Selected = tuple[Columns, Floats]
"""(n, k) columns of who is asked, and (n, k) weights of their votes; 0 for nobody."""


@dataclass
class Scoreboard:
    """Scores of ways to choose and vote, question by question, a seed each."""

    options: argparse.Namespace
    on: str
    by: str | None = None
    """Key of meta whose values count alike in `score_balanced`."""
    right: dict[tuple[str, int], list[np.ndarray]] = field(default_factory=dict)
    balanced: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    asked: dict[tuple[str, int], list[float]] = field(default_factory=dict)

    def add(self, row: str, calls: int, right: Floats, judged: Outcomes) -> None:
        self.right.setdefault((row, calls), []).append(100 * right)
        if self.by is not None:
            tags = np.array(judged.tags(self.by), dtype=str)
            mean = np.mean([100 * right[tags == tag].mean() for tag in np.unique(tags)])
            self.balanced.setdefault((row, calls), []).append(float(mean))

    def vote(self, row: str, calls: int, selected: Selected, judged: Outcomes) -> None:
        self.add(row, calls, voted(judged, *selected), judged)
        self.asked.setdefault((row, calls), []).append(until_decided(judged, *selected))

    def score(self, row: str, calls: int) -> float:
        return float(np.mean([each.mean() for each in self.right[row, calls]]))

    def rows(self, published: dict[str, tuple[int, float]]) -> list[dict[str, Any]]:
        rng = np.random.default_rng(0)
        rows = []
        for (row, calls), each in self.right.items():
            mean, low, high = interval(grouped(self.options, each), rng)
            line = {"on": self.on, "router": row, "calls": calls, "score": mean}
            line |= {"score_low": low, "score_high": high}
            if (row, calls) in self.balanced:
                line["score_balanced"] = float(np.mean(self.balanced[row, calls]))
            if (row, calls) in self.asked:
                line["calls_until_decided"] = float(np.mean(self.asked[row, calls]))
            if published.get(row, (None,))[0] == calls:
                line["published"] = published[row][1]
            rows.append(line)
        return rows


def until_decided(judged: Outcomes, chosen: Columns, weights: Floats) -> float:
    """Calls a question, in the mean, where experts are asked one after another and no more once
    those that are left can't change the answer."""
    assert judged.answers is not None
    calls = 0
    for row, (columns, each) in enumerate(zip(chosen, weights, strict=True)):
        count: dict[str, float] = {}
        left = np.abs(each).sum()
        for column, weight in zip(columns, each, strict=True):
            first, second, *_ = *sorted(count.values(), reverse=True), 0.0, 0.0
            if weight == 0 or first - second > left:
                break
            calls += 1
            left -= abs(weight)
            if (answer := judged.answers[row][int(column)]) is not None:
                count[answer] = count.get(answer, 0.0) + float(weight)
    return calls / len(judged)


def top(known: Outcomes, judged: Outcomes, calls: int, *, weigh: bool, choices: int) -> Selected:
    """The best ones, for every question; weighed by log(p (c - 1) / (1 - p))."""
    order = np.argsort(-known.means, kind="stable")[:calls]
    sure = np.clip(known.means[order], 0.01, 0.99)
    weights = np.log(sure * (choices - 1) / (1 - sure)) if weigh else np.ones(len(order))
    return np.tile(order, (len(judged), 1)), np.tile(weights, (len(judged), 1))


# --- mmlu_pro ------------------------------------------------------------------------------------


def recruiting(options: argparse.Namespace, encoder: Encoder) -> Found:
    parts = list(parted(options))
    rows: list[dict[str, Any]] = []
    headline: dict[str, Any] = {}
    for label in ("16 open", "all open") if parts else ():
        board = Scoreboard(options, f"mmlu_pro, {label}", by="domain")
        for seed, profile, more, judged in parts:
            names = able(profile, RECRUITED_FROM if label == "16 open" else None)
            known, asked = profile.of_experts(names), judged.of_experts(names)
            everything = known if more is None else joined([known, more.of_experts(names)])
            recruit(board, known, everything, asked, encoder, seed)
            if label == "16 open":
                skilled(board, known, asked, encoder, seed)
        rows += board.rows(PUBLISHED if label == "16 open" else {})
        if label == "16 open":
            headline = {
                "recruit_5": board.score("jury", 5),
                "recruit_3": board.score("jury", 3),
                "recruit_5_profiles": board.score("jury, profiles", 5),
                "weighted_top_5_profiles": board.score("top, weighted votes, profiles", 5),
                "majority_16": board.score("majority", 16),
            }
    return headline, rows


def parted(options: argparse.Namespace) -> Any:
    """(seed, profile split, other rows to learn from or None, judged by)."""
    profile = load(options.train, "mmlu_pro", lambda name: name == "symmoe_val")
    train = load(options.train, "mmlu_pro", lambda name: name != "symmoe_val")
    test = train
    if options.test is not None:
        test = load(options.test, "mmlu_pro", lambda name: name != "symmoe_val")
    if profile is None or test is None:
        return
    profile, test = both_of(profile, test)
    for seed in range(options.seeds):
        if options.test is None:
            fitted, judged = split(test, np.random.default_rng(seed), tag="domain")
            yield seed, apart(profile, test.take(judged)), test.take(fitted), test.take(judged)
        else:
            more = None if train is None else apart(train.of_experts(test.experts), test)
            yield seed, apart(profile, test), more, test


def able(profile: Outcomes, count: int | None) -> list[str]:
    """The strongest open models, best first, by their profiles."""
    means = dict(zip(profile.experts, profile.means, strict=True))
    out = (*CLOSED, ABOVE) if count else CLOSED
    names = [name for name in profile.experts if name not in out]
    return sorted(names, key=lambda name: (-means[name], name))[:count]


def recruit(
    board: Scoreboard,
    known: Outcomes,
    everything: Outcomes,
    judged: Outcomes,
    encoder: Encoder,
    seed: int,
) -> None:
    """`known` are profiles alone, `everything` all rows that may be learned from."""
    count = len(judged.experts)
    board.add("best_single, profiles", 1, judged.scores[:, known.best], judged)
    board.add("best_single", 1, judged.scores[:, everything.best], judged)
    board.add("oracle", count, judged.scores.max(axis=1), judged)
    board.vote("majority", count, top(known, judged, count, weigh=False, choices=10), judged)
    for source, suffix in ((known, ", profiles"), (everything, "")):
        select = with_encoder(SelectLLM(choices=10, seed=seed), encoder).fit(source)
        jury = with_encoder(Jury(seed=seed), encoder).fit(source)
        for calls in (3, 5):
            for weigh, name in ((False, "top, equal votes"), (True, "top, weighted votes")):
                selected = top(source, judged, calls, weigh=weigh, choices=10)
                board.vote(name + suffix, calls, selected, judged)
            for name, router in (("select_llm", select), ("jury", jury)):
                router.calls = calls
                board.vote(name + suffix, calls, router.select(judged.questions), judged)
        jury.calls = count
        board.vote(f"jury{suffix}", count, jury.select(judged.questions), judged)


def skilled(
    board: Scoreboard, known: Outcomes, judged: Outcomes, encoder: Encoder, seed: int
) -> None:
    """Symbolic-MoE's recruiting with a vote at the end, by skills of several kinds."""
    domains = with_encoder(Domains(tag="domain", seed=seed), encoder).fit(known)
    names = domains.facts["domains"]
    guessed = [[names[i]] for i in domains.guesses(judged.questions)[0]]
    kinds: dict[str, tuple[list[list[str]], list[list[str]], bool]] = {
        "domain given": (tagged(known), tagged(judged), False),
        "domain guessed": (tagged(known), guessed, False),
        "words matched": (words(known), words(judged), True),
    }
    for kind, (skills, wanted, match) in kinds.items():
        for how, replacement in (("as published", True), ("ours", False)):
            for calls in (3, 5):
                settings = RecruitSettings(k=calls, replacement=replacement, seed=seed)
                selected = recruited(known, skills, judged, wanted, settings, encoder, match)
                board.vote(f"symbolic_moe {how}, {kind}, profiles", calls, selected, judged)


def tagged(outcomes: Outcomes) -> list[list[str]]:
    return [[str(domain)] for domain in outcomes.tags("domain")]


def words(outcomes: Outcomes) -> list[list[str]]:
    return [words_of(question) for question in outcomes.questions]


def recruited(
    known: Outcomes,
    skills: Sequence[Sequence[str]],
    judged: Outcomes,
    wanted: Sequence[Sequence[str]],
    settings: RecruitSettings,
    encoder: Callable[[Sequence[str]], Any],
    match: bool,
) -> Selected:
    names = sorted({name for each in skills for name in each})
    index = {name: i for i, name in enumerate(names)}
    profile = profiles(known.scores, [[index[n] for n in each] for each in skills], len(names))
    recruiter = Recruiter(
        known.experts,
        names,
        profile,
        profile,
        source=Source(tag="domain"),
        settings=settings,
        vectors=encoder(names) if match else None,
        encode=encoder,
    )
    drawn = recruiter.recruited(judged.questions, recruiter.known_skills(wanted))
    chosen = np.zeros((len(judged), settings.k), dtype=np.intp)
    weights = np.zeros((len(judged), settings.k))
    for row, each in enumerate(drawn):
        chosen[row, : len(each)], weights[row, : len(each)] = each, 1.0
    return chosen, weights


# --- zeroeval ------------------------------------------------------------------------------------


def zeroeval(options: argparse.Namespace, encoder: Encoder) -> Found:
    board = Scoreboard(options, "zeroeval", by="benchmark")
    for seed, known, judged in pairs(options, "zeroeval"):
        encoder(known.questions)
        encoder(judged.questions)
        count = len(judged.experts)
        board.add("best_single", 1, judged.scores[:, known.best], judged)
        drawn = np.random.default_rng(seed).integers(count, size=len(judged))
        board.add("random", 1, Routed.of(drawn, judged).scores, judged)
        board.add("oracle", count, judged.scores.max(axis=1), judged)
        for name, neighbours in (("smoothie, local", 40), ("smoothie, global", None)):
            router = with_encoder(Smoothie(neighbours=neighbours, seed=seed), encoder).fit(known)
            values = router.estimates(judged.questions)
            board.add(name, 1, Routed.of(router.choose(values), judged).scores, judged)
            best = np.argsort(-values, axis=1, kind="stable")[:, :5]
            board.vote(f"{name}, vote", 5, (best, np.ones(best.shape)), judged)
        board.vote("majority", count, top(known, judged, count, weigh=False, choices=50), judged)
        select = with_encoder(SelectLLM(choices=50, seed=seed), encoder).fit(known)
        jury = with_encoder(Jury(seed=seed), encoder).fit(known)
        for calls in (3, 5):
            selected = top(known, judged, calls, weigh=True, choices=50)
            board.vote("top, weighted votes", calls, selected, judged)
            for name, each in (("select_llm", select), ("jury", jury)):
                each.calls = calls
                board.vote(name, calls, each.select(judged.questions), judged)
    if not board.right:
        return {}, []
    return {"smoothie": board.score("smoothie, global", 1)}, board.rows({})
