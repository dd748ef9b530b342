"""Loaders and scorers on real question sets, which are no part of this repository.

They are looked for in ``shared`` beside the repository, or where ``SWARM_SHARED`` says.
"""

import gzip
import json
import os
from pathlib import Path

import pytest

from swarm.errors import TaskError
from swarm.tasks import Example, Task, get_scorer

SHARED = Path(os.environ.get("SWARM_SHARED", Path(__file__).parents[3] / "shared"))
SETS = SHARED / "pools" / "tasks"

GSM8K = "zeroeval/gsm8k.train"
MMLU_PRO = "mmlu_pro/mmlu_pro.symmoe_val"

SUITED = {
    "hswarm_abkg": "choice",
    "hswarm_com2": "choice",
    "hswarm_gaia": "exact",
    "hswarm_gsm8k": "number",
    "hswarm_knowledge_crosswords": "choice",
    "hswarm_ltp": "f1",
    "hswarm_mmlu": "choice",
    "hswarm_mmlu_pro": "choice",
    "hswarm_nlgraph": "exact",
    "hswarm_normad": "choice",
    "hswarm_qasper": "f1",
    "symmoe_aime24": "number",
    "symmoe_medmcqa": "choice",
    "symmoe_mmlu_pro": "choice",
}

pytestmark = pytest.mark.skipif(not SETS.is_dir(), reason=f"no question sets in {SETS}")


def both_accepted(record):
    """One AIME problem has two accepted answers, written into one text."""
    answer = record["answer"].removesuffix(" (both were accepted)").split(" or ")
    return Example(record["question"], tuple(answer), record["id"])


def load(name: str) -> Task:
    record = both_accepted if name == "symmoe_aime24" else None
    return Task.from_records(name, SUITED[name], dev=SETS / f"{name}.jsonl.gz", record=record)


def wrong(example: Example) -> list[str]:
    """Answers that no gold answer allows."""
    if example.choices:
        return [letter for letter in example.choices if letter not in example.golds]
    return ["", "zzz", f"{example.golds[0]}9 zzz 98765.4321"]


def test_every_set_has_a_scorer():
    assert {path.name.removesuffix(".jsonl.gz") for path in SETS.glob("*.gz")} == set(SUITED)


@pytest.mark.parametrize("name", SUITED)
def test_gold_answers_score_1_and_wrong_ones_0(name):
    task = load(name)
    for example in task.dev:
        for gold in example.golds:
            assert task.score(example, gold) == 1.0, (example.id, gold)
        if task.scorer.name == "f1":
            assert task.score(example, "zzz") == 0.0, example.id
        else:
            assert [text for text in wrong(example) if task.score(example, text)] == [], example.id
            assert task.score(example, f"So the answer is {example.golds[0]}.") == 1.0, example.id


@pytest.mark.parametrize("name", [name for name, scorer in SUITED.items() if scorer == "choice"])
def test_the_text_of_a_choice_picks_it(name):
    task = load(name)
    for example in task.dev:
        texts = list(example.choices.values())
        for letter, text in example.choices.items():
            # Some sets hold a text twice, or a letter as a text: those pick by letter only.
            if texts.count(text) == 1 and text.upper() not in example.choices:
                picked = task.scorer.extract(example, f"{letter}. {text}")
                assert picked == letter, (example.id, text)
                assert task.score(example, text) == float(letter in example.golds), (
                    example.id,
                    text,
                )


def test_a_set_is_loaded_from_a_toml_file(tmp_path):
    path = tmp_path / "gsm8k.toml"
    path.write_text(
        f'name = "gsm8k"\nscorer = "number"\n[splits]\ndev = "{SETS / "hswarm_gsm8k.jsonl.gz"}"'
    )
    task = Task.load(path)
    assert task.dev[0].meta["domain"] == "gsm8k"
    assert task.fingerprint == Task.load(path).fingerprint == load("hswarm_gsm8k").fingerprint


def test_a_gold_answer_with_two_numbers_is_pointed_out():
    with pytest.raises(TaskError, match=r"`080 or 081 .both were accepted.` is not one number"):
        Task.from_records("aime", "number", dev=SETS / "symmoe_aime24.jsonl.gz")


def responses(name: str):
    """Every recorded response in full: example, text, the answer read from it, and its score."""
    with gzip.open(SHARED / "pools" / f"{name}.jsonl.gz", "rt") as file:
        for line in file:
            row = json.loads(line)
            example = Example(row["question"], row["gold"], row["id"], choices=row.get("choices"))
            for model, text in row.get("responses", {}).items():
                yield example, text, row["answers"][model], row["scores"][model]


def test_numbers_are_read_as_the_benchmark_reads_them():
    scorer = get_scorer("number")
    same = [scorer(example, text) == score for example, text, _, score in responses(GSM8K)]
    # The rest is mostly right answers that the benchmark misses: "6 + 8 + 16 = 30".
    assert sum(same) / len(same) > 0.995


def test_choices_are_read_as_the_benchmark_reads_them():
    scorer = get_scorer("choice")
    same = [
        scorer.extract(example, text) == answer
        for example, text, answer, _ in responses(MMLU_PRO)
        if answer is not None
    ]
    assert sum(same) / len(same) > 0.96
