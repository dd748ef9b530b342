"""A recorded expert alone scores on a recorded task what it was recorded to score."""

from __future__ import annotations

import gzip
import json
import os
import random
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import swarm
from swarm.agents.replies import mark
from swarm.errors import InputError, TaskError
from swarm.graphs import single
from swarm.optimizers.baselines.majority_vote import MajorityVote
from swarm.tasks import get_scorer

POOLS = Path(os.environ.get("SWARM_SHARED", Path(__file__).parents[3] / "shared")) / "pools"
shared = pytest.mark.skipif(not POOLS.is_dir(), reason=f"no recorded pools in {POOLS}")


def record(path, *rows, **options):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return swarm.Recording.load(path, **options)


def row(i, question="", **keys):
    return {"id": f"q{i}", "benchmark": "b", "question": question or f"question {i}?", **keys}


@pytest.fixture
def letters(tmp_path):
    return record(
        tmp_path / "letters.jsonl",
        row(
            1,
            gold="B",
            choices=["this", "that"],
            domain="pointing",
            split="val",
            scores={"a": 1, "b": 1, "c": 0},
            answers={"a": "B", "b": "B", "c": "A"},
            responses={"a": "I say that."},
        ),
        row(
            2,
            gold="yes",
            scores={"a": 0, "b": 1, "c": 1},
            answers={"a": "no", "b": "yes", "c": "yes"},
        ),
        row(3, scores={"a": 0.25, "b": 0, "c": 1}),
    )


def measured(recording, models=None, task=None):
    """Model → the score of its expert alone."""
    pool = swarm.Pool.recorded(recording)
    task = task or swarm.Task.recorded(recording)
    names = list(models or pool)
    found = swarm.evaluate([single(name) for name in names], task, pool, split="dev")
    assert not any(each.errors for each in found)
    return {name: each.score for name, each in zip(names, found, strict=True)}


def test_examples(letters):
    task = swarm.Task.recorded(letters)
    assert task.name == "b"
    first, _, third = task.dev
    assert (first.id, first.answer, first.choices) == ("q1", "B", {"A": "this", "B": "that"})
    assert first.meta == {"benchmark": "b", "domain": "pointing", "source_split": "val"}
    assert third.answer == mark(1.0)
    for example in task.dev:
        assert task.score(example, example.answer) == 1.0
    assert task.fingerprint == swarm.Task.recorded(letters).fingerprint
    assert task.fingerprint != swarm.Task.recorded(letters.subset(models=["a", "b"])).fingerprint


def test_alone_they_score_what_was_recorded(letters):
    assert measured(letters) == letters.means()


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_alone_they_score_what_was_recorded_whatever_was(tmp_path_factory, data):
    text = st.sampled_from(["yes", "no", "", mark(1.0), f"x\n{mark(0.5)}"])
    score = st.sampled_from([0, 1, 0.5, 1 / 3, 1])
    models, rows = ["a", "b", "c"], []
    for i in range(data.draw(st.integers(1, 5))):
        found = row(i, data.draw(st.sampled_from(["same?", "other?", f"own {i}?"])))
        found["scores"] = {name: data.draw(score) for name in models}
        for key in ("responses", "answers"):
            found[key] = {n: data.draw(text) for n in models if data.draw(st.booleans())}
        if data.draw(st.booleans()):
            found["gold"] = "yes"
        rows.append(found)
    recording = record(tmp_path_factory.mktemp("r") / "r.jsonl", *rows)
    assert measured(recording) == pytest.approx(recording.means(), abs=1e-12)


def test_what_nobody_said_is_scored_by_the_gold_answer(letters):
    task = swarm.Task.recorded(letters)
    first, second, third = task.dev
    assert task.score(first, "The answer is (B).") == 1
    assert task.score(first, "The answer is (A).") == 0
    assert task.score(second, "Yes!") == 1
    assert task.score(third, "anything") == task.score(third, "") == 0
    assert task.score(third, f"anything\n{mark(0.3)}") == 0.3
    assert task.score(third, "[recorded score 7]") == 0
    assert task.score(third, "[recorded score ...]") == 0
    strict = swarm.Task.recorded(letters, scorer=get_scorer(lambda example, text: 0.125))
    assert strict.score(second, "Maybe.") == 0.125
    assert strict.score(second, "yes") == 1


def test_a_vote_takes_the_answers_that_were_recorded(letters):
    task = swarm.Task.recorded(letters.subset(rows=[0, 1]))
    assert task.scorer.extract(task.dev[0], "I say that.") == "B"
    pool = swarm.Pool.recorded(letters)
    assert MajorityVote().fit(task, pool).evaluate(task, "dev").score == 1
    assert task.scorer.extract(swarm.Task.recorded(letters).dev[2], mark(1.0)) is None


def test_splits(letters, tmp_path):
    dev, test = letters.subset(rows=[0]), letters.subset(rows=[1, 2])
    task = swarm.Task.recorded({"dev": dev, "test": test}, name="mine")
    assert (task.name, len(task.dev), len(task.test)) == ("mine", 1, 2)
    best = swarm.single("b", pool=swarm.Pool.recorded(letters)).evaluate(task, "test")
    assert best.score == 0.5
    with pytest.raises(TaskError, match="splits `dev` and `test` share 1 question"):
        swarm.Task.recorded({"dev": dev, "test": letters})
    with pytest.raises(TaskError, match="split `val` unknown"):
        swarm.Task.recorded(letters, split="val")
    with pytest.raises(TaskError, match="split `dev` must be a `Recording`, not `str`"):
        swarm.Task.recorded({"dev": "letters.jsonl"})


def test_recorded_experts_search_for_graphs_and_are_remembered(letters, tmp_path):
    task, pool = swarm.Task.recorded(letters), swarm.Pool.recorded(letters)
    store = tmp_path / "s.db"
    first = swarm.single("a", pool=pool).evaluate(task, "dev", store=store)
    again = swarm.single("a", pool=pool).evaluate(task, "dev", store=store)
    assert first.score == again.score == letters.means()["a"]
    assert (first.summary().asked, again.summary().asked) == (3, 0)


def test_what_can_not_be_written_to_a_folder_says_so(letters, tmp_path):
    system = swarm.single("a", pool=swarm.Pool.recorded(letters))
    with pytest.raises(InputError, match=r"`a` is a recording in memory: save it"):
        system.export(tmp_path / "found")
    assert not (tmp_path / "found").exists()


SIZES = {
    # As their README says.
    "routerdc/mmlu.train": 1983,
    "routerdc/gsm8k.train": 1000,
    "routerdc/gsm8k.test": 529,
    "routerdc/cmmlu.train": 1999,
    "routerdc/arc_challenge.train": 820,
    "routerdc/arc_challenge.test": 352,
    "routerdc/humaneval.train": 114,
    "routerbench0/mbpp.train": 292,
    "routerbench0/arc_challenge.train": 1019,
    "routerbench0/winogrande.train": 887,
    "routellm/gsm8k.test": 529,
    "llmrouter/mix14.train": 5525,
    "zeroeval/gsm8k.train": 529,
    "zeroeval/math_l5.train": 251,
    "mmlu_pro/mmlu_pro.train": 3491,
    "mmlu_pro/mmlu_pro.symmoe_val": 304,
    "mot_cascade/bbh_date.dev": 185,
}


@shared
@pytest.mark.parametrize("name", SIZES)
def test_figures_of_real_recordings_are_those_of_the_lines(name):
    recording = swarm.Recording.load(POOLS / f"{name}.jsonl.gz")
    with gzip.open(POOLS / f"{name}.jsonl.gz", "rt") as file:
        lines = [json.loads(line) for line in file]
    tables = [line["scores"] for line in lines]
    assert len(recording) == len(lines) == SIZES[name]
    assert recording.questions == tuple(line["question"] for line in lines)
    expected = {model: fmean(table[model] for table in tables) for model in tables[0]}
    assert recording.means() == pytest.approx(expected, abs=1e-9)
    assert recording.best_single()[1] == pytest.approx(max(expected.values()), abs=1e-9)
    assert recording.oracle() == pytest.approx(fmean(max(t.values()) for t in tables), abs=1e-9)
    assert recording.random() == pytest.approx(fmean(fmean(t.values()) for t in tables), abs=1e-9)
    for i in (0, len(lines) // 2, -1):
        for k, model in enumerate(recording.models):
            cost = lines[i].get("costs", {}).get(model, lines[i].get("costs_est", {}).get(model))
            expected = np.nan if cost is None else cost
            np.testing.assert_equal(recording.costs[i, k], expected)
            assert recording.estimated[i, k] == (model in lines[i].get("costs_est", {}))


@shared
@pytest.mark.parametrize(
    "name",
    [
        "routerdc/humaneval.train",
        "routerbench0/mbpp.train",
        "routellm/mt_bench.test",
        "zeroeval/math_l5.train",
        "mot_cascade/bbh_date.dev",
        "mmlu_pro/mmlu_pro.symmoe_val",
    ],
)
def test_real_models_alone_score_what_was_recorded(name):
    recording = swarm.Recording.load(POOLS / f"{name}.jsonl.gz", scale={"mt_bench": 10})
    names = random.Random(0).sample(recording.models, 2)
    means = recording.means()
    expected = {model: means[model] for model in names}
    assert measured(recording, names) == pytest.approx(expected, abs=1e-12)


@shared
def test_real_costs_come_out_as_recorded():
    recording = swarm.Recording.load(POOLS / "routerbench0/mbpp.train.jsonl.gz")
    task, pool = swarm.Task.recorded(recording), swarm.Pool.recorded(recording)
    name = "gpt-4-1106-preview"
    found = swarm.single(name, pool=pool).evaluate(task, "dev")
    total = recording.costs[:, recording.model(name)].sum()
    assert found.summary().cost == pytest.approx(total, rel=1e-5)


@shared
def test_a_question_that_is_asked_twice_in_real_data():
    recording = swarm.Recording.load(POOLS / "mmlu_pro/mmlu_pro.train.jsonl.gz")
    rows = sorted(i for rows in recording.repeats for i in rows)
    assert len(rows) == 102
    few = recording.subset(rows=rows)
    assert measured(few, few.models[:2]) == pytest.approx(
        {model: few.means()[model] for model in few.models[:2]}, abs=1e-12
    )
