"""Recordings: read strictly, cut, averaged, written back the same."""

from __future__ import annotations

import gzip
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.agents.recording import Recording
from swarm.errors import ConfigError, InputError, SwarmError

A = {
    "id": "q1",
    "benchmark": "sums",
    "split": "train",
    "question": "2 + 2?",
    "gold": "4",
    "domain": "arithmetic",
    "scores": {"small": 1, "big": 1.0},
    "answers": {"small": "4", "big": "4"},
    "responses": {"big": "It is 4."},
    "costs": {"big": 0.002},
    "costs_est": {"small": 0.0001, "big": 0.5},
    "tokens": {"big": [12, 5]},
    "cluster_id": 3,
}
B = {
    "id": "q2",
    "benchmark": "sums",
    "question": "3 + 3?",
    "choices": ["5", "6"],
    "gold": ["B", "6"],
    "scores": {"small": 0, "big": 0.5},
    "answers": {"small": None},
    "sample_answers": {"big": ["6", None, "6"]},
}
C = {"id": "q3", "benchmark": "words", "question": "Say b.", "scores": {"small": 1, "big": 0}}


def write(path, *rows):
    text = "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


@pytest.fixture
def recording(tmp_path):
    return Recording.load(write(tmp_path / "r.jsonl.gz", A, B, C))


def same(one, other):
    assert one.models == other.models
    assert one.rows == other.rows
    for name in ("scores", "soft_scores", "costs", "estimated", "tokens"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_columns(recording):
    assert recording.models == ("small", "big")
    assert recording.benchmarks == ("sums", "words")
    assert recording.questions == ("2 + 2?", "3 + 3?", "Say b.")
    assert recording.prompts[1] == "3 + 3?\nA. 5\nB. 6"
    np.testing.assert_array_equal(recording.scores, [[1, 1], [0, 0.5], [1, 0]])
    np.testing.assert_array_equal(recording.costs[0], [0.0001, 0.002])
    np.testing.assert_array_equal(recording.estimated[0], [True, False])
    assert np.isnan(recording.costs[1:]).all()
    assert not recording.estimated[1:].any()
    np.testing.assert_array_equal(recording.tokens[0, 1], [12, 5])
    assert np.isnan(recording.tokens[0, 0]).all()
    row = recording.rows[0]
    assert (row.id, row.split, row.domain, row.gold) == ("q1", "train", "arithmetic", "4")
    assert row.meta == {"cluster_id": 3}
    assert row.responses == {"big": "It is 4."}
    assert recording.rows[1].gold == ("B", "6")
    assert recording.rows[1].sample_answers == {"big": ("6", None, "6")}


def test_figures(recording):
    assert recording.means() == {"small": pytest.approx(2 / 3), "big": 0.5}
    assert recording.means(macro=True) == {"small": 0.75, "big": 0.375}
    assert recording.oracle() == pytest.approx((1 + 0.5 + 1) / 3)
    assert recording.random() == pytest.approx((1 + 0.25 + 0.5) / 3)
    assert recording.random(macro=True) == pytest.approx((0.625 + 0.5) / 2)
    assert recording.best_single() == ("small", pytest.approx(2 / 3))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_figures_keep_their_order(tmp_path_factory, data):
    n, m = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 4))
    score = st.floats(0, 1)
    rows = [
        {
            "id": i,
            "benchmark": data.draw(st.sampled_from("ab")),
            "question": f"q{i}",
            "scores": {f"m{k}": data.draw(score) for k in range(m)},
        }
        for i in range(n)
    ]
    path = tmp_path_factory.mktemp("r") / "r.jsonl"
    recording = Recording.load(write(path, *rows))
    for macro in (False, True):
        least = min(recording.means(macro=macro).values())
        best = recording.best_single(macro=macro)[1]
        drawn, oracle = recording.random(macro=macro), recording.oracle(macro=macro)
        assert least - 1e-9 <= drawn <= best + 1e-9 <= oracle + 2e-9
    recording.save(path)
    same(Recording.load(path), recording)


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_written_and_read_back(recording, tmp_path, name):
    recording.save(tmp_path / name)
    back = Recording.load(tmp_path / name)
    same(back, recording)
    assert back.digest == recording.digest != recording.subset(rows=[0, 1]).digest
    first = (tmp_path / name).read_bytes()
    back.save(tmp_path / name)
    assert (tmp_path / name).read_bytes() == first


def test_it_is_written_whole_or_not_at_all(recording, tmp_path):
    with pytest.raises(SwarmError, match="can't be written"):
        recording.save(tmp_path / "nowhere" / "x.jsonl")
    with pytest.raises(InputError, match=r"`.*x\.csv`: a recording is a \.jsonl"):
        recording.save(tmp_path / "x.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["r.jsonl.gz"]


def test_subset(recording):
    words = recording.subset(benchmarks=["words"])
    assert words.means() == {"small": 1, "big": 0}
    big = recording.subset(models=["big"], rows=[1, 0])
    assert [row.id for row in big.rows] == ["q2", "q1"]
    np.testing.assert_array_equal(big.scores, [[0.5], [1]])
    assert big.rows[0].answers == {}
    masked = recording.subset(rows=recording.scores[:, 0] > 0)
    assert [row.id for row in masked.rows] == ["q1", "q3"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"benchmarks": ["sum"]}, "benchmark `sum` is not in the recording (did you mean `sums`?)"),
        ({"models": ["bigg"]}, "model `bigg` is not in the recording (did you mean `big`?)"),
        ({"models": "big"}, "`models` is the text `big`: give a list"),
        ({"rows": []}, "no rows are left"),
        ({"rows": [3]}, "`rows` has numbers that are not from 0 to 2"),
        ({"rows": [1, 1]}, "`rows` has a number twice"),
        ({"rows": [True, False]}, "`rows` is a mask of shape (2,): it must be (3,)"),
        ({"rows": [0.5]}, "`rows` must be numbers"),
    ],
)
def test_a_subset_that_is_not_there(recording, arguments, told):
    with pytest.raises(InputError, match=re.escape(told)):
        recording.subset(**arguments)


def test_several_files(tmp_path):
    one = write(tmp_path / "1.jsonl", A, C)
    other = {"id": "q4", "benchmark": "words", "question": "Say c.", "scores": {"big": 1, "new": 0}}
    two = write(tmp_path / "2.jsonl.gz", other)
    with pytest.raises(ConfigError, match=r'1\.jsonl:1.*`new` is missing.*models="union"'):
        Recording.load([one, two])
    union = Recording.load(tmp_path, models="union")
    assert union.models == ("small", "big", "new")
    assert math.isnan(union.scores[2, 0])
    assert union.means() == {"small": 1, "big": pytest.approx(2 / 3), "new": 0}
    assert union.oracle() == 1
    assert union.random() == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert union.best_single() == ("big", pytest.approx(2 / 3))
    both = Recording.load([one, two], models="intersection")
    assert both.models == ("big",)
    assert both.rows[0].answers == {"big": "4"}
    named = Recording.load([one, two], models=["new", "big"])
    assert named.models == ("new", "big")
    with pytest.raises(ConfigError, match=r"`nw` is in none of the files \(did you mean `new`"):
        Recording.load([one, two], models=["nw"])
    last = {"id": "q5", "benchmark": "words", "question": "Say d.", "scores": {"odd": 1}}
    three = write(tmp_path / "3.jsonl", last)
    with pytest.raises(ConfigError, match="no model has a score for each of 4 questions"):
        Recording.load([one, two, three], models="intersection")
    with pytest.raises(InputError, match="no model was asked every question"):
        Recording.load([one, two, three], models="union").best_single()


def test_one_question_in_several_files_is_one_row(tmp_path):
    more = {key: A[key] for key in ("id", "benchmark", "question")}
    more |= {"scores": {"other": 0.0}, "answers": {"other": "5"}, "costs": {"other": 1.0}}
    paths = [write(tmp_path / "1.jsonl", A), write(tmp_path / "2.jsonl", more)]
    merged = Recording.load(paths)
    assert merged.models == ("small", "big", "other")
    assert len(merged) == 1
    assert merged.rows[0].answers == {"small": "4", "big": "4", "other": "5"}
    assert merged.costs[0].tolist() == [0.0001, 0.002, 1.0]
    assert merged.rows[0].gold == "4"
    with pytest.raises(ConfigError, match=r"`q1` is also at `.*1\.jsonl:1`, with a score of `big`"):
        Recording.load([paths[0], write(tmp_path / "3.jsonl", A)])
    with pytest.raises(ConfigError, match=r"`q1` is also at .*with another question"):
        Recording.load([paths[0], write(tmp_path / "3.jsonl", {**more, "question": "5 + 5?"})])


def test_scores_out_of_ten(tmp_path):
    path = write(tmp_path / "r.jsonl", {**C, "scores": {"a": 7.5, "b": 10}})
    with pytest.raises(ConfigError, match=r"key `scores.a`: `7.5` must be .* scale=\{\"words\": 8"):
        Recording.load(path)
    recording = Recording.load(path, scale={"words": 10})
    assert recording.scores.tolist() == [[0.75, 1.0]]


def test_what_was_asked_twice_is_known(tmp_path):
    rows = [A, {**A, "id": "q9"}, {**B, "question": A["question"]}, C]
    recording = Recording.load(write(tmp_path / "r.jsonl", *rows))
    assert recording.repeats == ((0, 1),)


def without(row, key):
    return {name: value for name, value in row.items() if name != key}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (without(A, "id"), "no key `id`: it must be a text"),
        (without(A, "question"), "no key `question`"),
        ({**without(A, "scores"), "score": {"a": 1}}, "no key `scores` (did you mean `score`?)"),
        ({**A, "question": " "}, "key `question`: `' '` must be a text that is not blank"),
        ({**A, "benchmark": 3}, "key `benchmark`: `3` must be a text"),
        ({**A, "split": 3}, "key `split`: `3` must be a text: write it in quotes"),
        ({**A, "scores": {}}, "key `scores`: `{}` must be an object of models and their scores"),
        ({**A, "scores": [1]}, "key `scores`: `[1]` must be an object"),
        ({**C, "scores": {"a": True}}, "key `scores.a`: `True` must be a number from 0 to 1"),
        ({**C, "scores": {"a": "1"}}, "key `scores.a`: `'1'` must be a number from 0 to 1"),
        ({**C, "scores": {"a": math.nan}}, "key `scores.a`: `nan` must be a number from 0 to 1"),
        ({**C, "scores": {"a": math.inf}}, "key `scores.a`: `inf` must be a number from 0 to 1"),
        ({**C, "scores": {"a": -1}}, "key `scores.a`: `-1` must be a number from 0 to 1"),
        ({**C, "scores": {"a": None}}, "key `scores.a`: `None` a model that was not asked is left"),
        ({**C, "scores": {"": 1}}, 'key `scores`: a model is called ""'),
        ({**A, "costs": {"bigg": 1}}, "`bigg` has no score (did you mean `big`?)"),
        ({**A, "costs": {"big": -1}}, "key `costs.big`: `-1` must be USD"),
        ({**A, "costs_est": {"big": math.inf}}, "key `costs_est.big`: `inf` must be USD"),
        ({**A, "soft_scores": {"big": 2}}, "key `soft_scores.big`: `2` must be a number from 0"),
        ({**A, "tokens": {"big": [1]}}, "key `tokens.big`: `[1]` must be two whole numbers"),
        ({**A, "answers": {"big": 4}}, "key `answers.big`: `4` must be a text, or null"),
        ({**A, "responses": {"big": None}}, "key `responses.big`: `None` must be a text"),
        ({**A, "sample_answers": {"big": "a"}}, "key `sample_answers.big`: `'a'` must be a list"),
        ({**A, "sample_answers": {"big": []}}, "key `sample_answers.big`: `[]` must be a list"),
        ({**A, "gold": {}}, "key `gold`: `{}` must be a text or number"),
        ({**A, "choices": [1, 2]}, "key `choices`: `[1, 2]` must be an object of letters"),
        ({**A, "domain": 1}, "key `domain`: `1` must be a text"),
        ("[1]\n", "a line must be a JSON object"),
        ("{\n", "not valid JSON"),
    ],
)
def test_a_malformed_row_is_named(tmp_path, row, told):
    path = write(tmp_path / "r.jsonl", {**C, "id": "first"}, row)
    with pytest.raises(ConfigError, match=re.escape(told)) as error:
        Recording.load(path, models="union")
    assert str(error.value).startswith(f"`{path}:2`: ")
    assert "\n" not in str(error.value)


def test_files_that_are_none(tmp_path):
    write(tmp_path / "r.jsonl", "\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.jsonl.gz").write_bytes(b"nothing")
    for path, told in [
        ("r.jsonl", "no rows"),
        ("s.jsonl", "no such file (did you mean `r.jsonl`?)"),
        ("empty", "the folder must hold"),
        ("x.jsonl.gz", "not a whole gzip file"),
        ("r.csv", "a recording is a .jsonl"),
    ]:
        with pytest.raises(ConfigError, match=re.escape(told)):
            Recording.load(tmp_path / path)
    with pytest.raises(InputError, match="no file is given"):
        Recording.load([])
