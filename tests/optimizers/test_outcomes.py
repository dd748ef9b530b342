"""The table of what experts made of questions."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import swarm
from swarm.agents.expert import Expert, Pool, Price
from swarm.errors import InputError
from swarm.graphs import chain, single
from swarm.optimizers.outcomes import Outcomes

SCORES = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]])
TABLE = Outcomes(
    ["p", "q"],
    ["x", "y", "z"],
    SCORES,
    np.ones((2, 3)),
    [["a", "b", None], ["c", "d", "e"]],
    [{"skill": "maths"}, {}],
)


def test_figures():
    assert TABLE.means.tolist() == [0.5, 0.5, 0.5]
    assert TABLE.best == 0
    assert TABLE.oracle == 1
    assert TABLE.tags("skill") == ["maths", None]
    assert len(TABLE) == 2


def test_parts():
    rows = TABLE.take(np.array([1, 1, 0]))
    assert rows.questions == ("q", "q", "p")
    assert rows.scores.tolist() == SCORES[[1, 1, 0]].tolist()
    assert rows.answers[2] == ("a", "b", None)
    columns = TABLE.of_experts(["z", "x"])
    assert columns.scores.tolist() == SCORES[:, [2, 0]].tolist()
    assert columns.answers == ((None, "a"), ("e", "c"))
    with pytest.raises(InputError, match="no outcomes of `w`"):
        TABLE.of_experts(["w"])


def test_it_is_a_copy_that_nobody_changes():
    scores = SCORES.copy()
    table = Outcomes(["p", "q"], ["x", "y", "z"], scores, np.zeros((2, 3)))
    scores[:] = 0
    assert table.best == 0
    assert table.means[0] == 0.5
    with pytest.raises(ValueError, match="read-only"):
        table.scores[0, 0] = 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"scores": SCORES.T}, "must be"),
        ({"scores": SCORES * 2}, r"not in \[0, 1\]"),
        ({"scores": SCORES * np.nan}, r"not in \[0, 1\]"),
        ({"costs": -np.ones((2, 3))}, "not at least 0"),
        ({"costs": np.full((2, 3), np.inf)}, "not at least 0"),
        ({"experts": ["x", "x", "y"]}, "an expert twice"),
        ({"questions": [], "scores": np.zeros((0, 3))}, "at least one question"),
        ({"answers": [["a"], ["b"]]}, "2 rows of 3"),
        ({"meta": [{}]}, "`meta` has 1"),
    ],
)
def test_what_does_not_fit_is_refused(changes, told):
    good = {
        "questions": ["p", "q"],
        "experts": ["x", "y", "z"],
        "scores": SCORES,
        "costs": np.zeros((2, 3)),
    }
    with pytest.raises(InputError, match=told):
        Outcomes(**{**good, **changes})


def test_from_evaluations():
    def say(messages):
        if "2" in messages[-1].content:
            raise ValueError("no")
        return "one two"

    pool = Pool(
        [
            Expert.scripted("a", say, price=Price(output=1_000_000)),
            Expert.scripted("b", lambda messages: "x"),
        ]
    )
    dev = [
        {"question": "q1", "answer": "one two", "kind": "k"},
        {"question": "q2", "answer": "x", "kind": "l"},
    ]
    task = swarm.Task.from_records("t", "exact", dev=dev)
    found = swarm.evaluate([single("b"), single("a")], task, pool, split="dev")
    table = Outcomes.of(task.dev, found)
    assert table.experts == ("b", "a")
    assert table.scores.tolist() == [[0, 1], [1, 0]]
    assert table.costs.tolist() == [[0, 2], [0, 0]]  # USD, a word a token; who fails costs nothing
    assert table.answers == (("x", "one two"), ("x", None))
    several = swarm.evaluate([chain(["a", "b"])], task, pool, split="dev")
    with pytest.raises(InputError, match="of single experts"):
        Outcomes.of(task.dev, several)


def test_from_a_recording():
    recording = SimpleNamespace(questions=["p", "q"], models=["x", "y", "z"], scores=SCORES)
    table = Outcomes.recorded(SimpleNamespace(**vars(recording), costs=None))
    assert table.costs.tolist() == np.zeros((2, 3)).tolist()
    table = Outcomes.recorded(SimpleNamespace(**vars(recording), costs=SCORES), meta=[{}, {"a": 1}])
    assert table.costs.tolist() == SCORES.tolist()
    assert table.tags("a") == [None, "1"]
