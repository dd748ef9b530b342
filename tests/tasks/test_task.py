"""A task: its splits, its checks, its TOML file and its fingerprint."""

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import ConfigError, TaskError
from swarm.tasks import Example, Task, get_scorer

TOML = """
name = "relay"
scorer = "number"
[splits]
dev = "relay.dev.jsonl"
test = "relay.test.jsonl"
"""


def examples(start: int, stop: int, **more) -> list[Example]:
    return [Example(f"What is {k} + {k}?", str(2 * k), str(k), **more) for k in range(start, stop)]


@pytest.fixture
def task() -> Task:
    return Task.from_records("sums", "number", dev=examples(0, 5), test=examples(5, 8))


@pytest.fixture
def folder(tmp_path):
    for name, span in {"dev": (0, 5), "test": (5, 8)}.items():
        rows = [{"question": e.question, "answer": e.answer} for e in examples(*span)]
        (tmp_path / f"relay.{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "relay.toml").write_text(TOML)
    return tmp_path


def refused(error=TaskError, **options) -> str:
    with pytest.raises(error) as caught:
        Task.from_records("sums", options.pop("scorer", "number"), **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_splits_are_attributes(task):
    assert task.dev == task.split("dev") == task.splits["dev"] == tuple(examples(0, 5))
    assert [example.id for example in task.test] == ["5", "6", "7"]
    assert task.score(task.dev[2], "The answer is 4.") == 1.0
    assert task.score(task.dev[2], "5") == 0.0


def test_a_split_that_is_not_there(task):
    with pytest.raises(TaskError, match=r"no split `tset` \(did you mean `test`\?\)"):
        task.split("tset")
    with pytest.raises(TaskError, match="`sums` has no split `train`; it has `dev`, `test`"):
        _ = task.train


def test_limit_keeps_the_first(task):
    small = task.limit(dev=2)
    assert small.dev == task.dev[:2]
    assert small.test == task.test
    assert task.limit(dev=100, test=50).splits == task.splits
    assert len(task.dev) == 5
    with pytest.raises(TaskError, match=r"`limit\(dev=0\)`: a split must keep at least 1"):
        task.limit(dev=0)
    with pytest.raises(TaskError, match="no split `train`"):
        task.limit(train=1)


def test_a_choice_question_is_asked_with_its_choices():
    example = Example("Which?", "A", "1", choices={"A": "this", "B": "that"})
    assert example.prompt == "Which?\nA. this\nB. that"
    assert Example("Which?", "this", "1").prompt == "Which?"


def test_examples_hash_and_pickle():
    example = Example("Which?", "A", "1", choices={"A": "this"}, meta={"steps": [1]})
    assert {example: 1}[pickle.loads(pickle.dumps(example))] == 1


def test_empty_splits_are_refused():
    assert refused(dev=[]) == "task `sums`: split `dev` is empty; remove it or fill it"
    assert refused() == "task `sums` has no split; give one of `train`, `dev`, `test`"
    with pytest.raises(TaskError, match=r"split `tset` unknown \(did you mean `test`\?\)"):
        Task("sums", {"tset": tuple(examples(0, 1))}, get_scorer("number"))


def test_splits_may_not_share_questions():
    assert refused(dev=examples(0, 5), test=examples(3, 9)) == (
        "task `sums`: splits `dev` and `test` share 2 questions, such as `What is 3 + 3?` "
        "(ids `3` and `3`); remove them from one, or a score on `test` means nothing"
    )
    assert "splits `train` and `dev` share 1 question, " in refused(
        train=examples(0, 2), dev=examples(1, 3)
    )


def test_a_question_with_other_choices_is_another_question():
    def which(answer, *texts):
        return [{"question": "Which is true?", "answer": answer, "choices": texts}]

    Task.from_records("t", "choice", dev=which("A", "x", "y"), test=which("A", "x", "z"))
    assert "share 1 question" in refused(
        scorer="choice", dev=which("A", "x", "y"), test=which("B", "y", "x")
    )


def test_ids_are_unique_in_a_split():
    assert refused(dev=[*examples(0, 2), Example("Another?", "1", "1")]) == (
        "task `sums`, split `dev`, example `1`: the id is there twice; "
        "ids must be unique in a split"
    )
    Task.from_records("sums", "number", dev=[Example("a", "1", "1")], test=[Example("b", "1", "1")])


@pytest.mark.parametrize("answer", ["", "  ", (), ("1", "")])
def test_every_example_has_a_gold_answer(answer):
    assert "example `7`: gold answer missing" in refused(dev=[Example("q", answer, "7")])


def test_the_scorer_must_suit_the_examples():
    assert refused(dev=[Example("q", "Paris", "7")]).startswith(
        "task `sums`, split `dev`, example `7`: the gold answer `Paris` is not one number"
    )
    assert "example `7`: no choices, as the scorer `choice` needs them" in refused(
        scorer="choice", dev=[Example("q", "A", "7")]
    )
    assert "the gold answer `C` is none of the choices A, B" in refused(
        scorer="choice", dev=[Example("q", "C", "7", choices={"A": "x", "B": "y"})]
    )


def test_a_toml_file_is_loaded(folder, monkeypatch):
    task = Task.load(folder / "relay.toml")
    assert task.name == "relay"
    assert [example.answer for example in task.dev] == ["0", "2", "4", "6", "8"]
    assert task.test[0] == Example("What is 5 + 5?", "10", "1")
    assert task.scorer == get_scorer("number")
    monkeypatch.chdir(folder)
    assert Task.load("relay.toml").fingerprint == task.fingerprint


def test_a_toml_file_may_say_more(folder):
    (folder / "mine.py").write_text(
        "from swarm.tasks import Example\n"
        "def example(record):\n"
        "    return Example(record['question'] + '!', record['answer'], record['question'])\n"
        "def half(example, text):\n"
        "    return 0.5\n"
    )
    (folder / "relay.toml").write_text(
        TOML.replace('"number"', '"mine.py:half"').replace(
            "[splits]", 'record = "mine.py:example"\n[splits]'
        )
    )
    task = Task.load(folder / "relay.toml")
    assert task.dev[0].question == "What is 0 + 0?!"
    assert task.score(task.dev[0], "") == 0.5
    (folder / "relay.toml").write_text(
        TOML.replace('"number"', '{ name = "number", tolerance = 0.1 }')
        + '[fields]\nquestion = "answer"\nanswer = "answer"\n'
    )
    task = Task.load(folder / "relay.toml")
    assert task.dev[1].question == "2"
    assert task.score(task.dev[1], "2.1") == 1.0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dev =", "dve =", "key `splits.dve`: unknown (did you mean `dev`?)"),
        ("scorer =", "scorre =", "key `scorre`: unknown (did you mean `scorer`?) (and 1 more"),
        ('"number"', '"nunber"', "key `scorer`: scorer `nunber` unknown (did you mean `number`?)"),
        ('"number"', '{ name = "number", tol = 1 }', "key `scorer`: scorer `number` has no option"),
        ('"number"', "3", "key `scorer`: `3` must be a valid string"),
        ('"number"', '"mine.py:half"', "key `scorer`: `"),
        ("[splits]", 'record = "mine:x"\n[splits]', "key `record`: `mine` can't be imported: Mod"),
        ("[splits]", '[fields]\nanwser = "a"\n[splits]', "key `fields.anwser`: unknown (did you"),
        ("[splits]", "[splits", "line 4, column 8: not valid TOML: "),
        ('dev = "relay.dev.jsonl"\ntest = "relay.test.jsonl"', "", "key `splits`: empty: give one"),
        ('name = "relay"', "", "key `name`: missing: add `name = …`"),
    ],
)
def test_problems_of_the_toml_file_name_file_and_key(folder, old, new, message):
    assert old in TOML
    path = folder / "relay.toml"
    path.write_text(TOML.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        Task.load(path)
    assert str(caught.value).startswith(f"`{path}`: {message}")
    assert "\n" not in str(caught.value)


def test_problems_of_the_records_name_their_file(folder):
    path = folder / "relay.toml"
    path.write_text(TOML.replace("relay.dev", "relay.dve"))
    with pytest.raises(TaskError, match=r"relay.dve.jsonl`: no such file \(did you mean `relay.d"):
        Task.load(path)
    path.write_text(TOML.replace("relay.test", "relay.dev"))
    with pytest.raises(TaskError, match="`dev` and `test` share 5 questions"):
        Task.load(path)
    with pytest.raises(ConfigError, match=r"no such file \(did you mean `relay.toml`\?\)"):
        Task.load(folder / "rely.toml")


def test_the_fingerprint_is_the_content_s(task):
    assert len(task.fingerprint) == 32
    again = Task.from_records("other name", "number", test=examples(5, 8), dev=examples(0, 5))
    assert again.fingerprint == task.fingerprint
    changed = [
        task.limit(dev=4),
        Task.from_records("sums", "exact", dev=examples(0, 5), test=examples(5, 8)),
        Task.from_records(
            "sums", {"name": "number", "tolerance": 0.1}, dev=examples(0, 5), test=examples(5, 8)
        ),
        Task.from_records("sums", "number", train=examples(0, 5), test=examples(5, 8)),
        Task.from_records("sums", "number", dev=examples(0, 5)[::-1], test=examples(5, 8)),
        Task.from_records("sums", "number", dev=examples(0, 5, meta={"a": 1}), test=examples(5, 8)),
        Task.from_records(
            "sums", "number", dev=examples(0, 5, choices={"A": "x"}), test=examples(5, 8)
        ),
    ]
    fingerprints = {task.fingerprint, *(other.fingerprint for other in changed)}
    assert len(fingerprints) == 1 + len(changed)


def test_meta_that_can_not_be_recorded_is_named():
    task = Task.from_records("sums", "number", dev=examples(0, 1, meta={"image": object()}))
    with pytest.raises(TaskError, match="split `dev`, example `0`: `meta` must hold JSON values"):
        _ = task.fingerprint


@given(st.lists(st.text().filter(str.strip), min_size=2, unique=True))
def test_any_question_can_be_fingerprinted(questions):
    def task(texts):
        return Task.from_records(
            "t", "exact", dev=[Example(text, "a", str(k)) for k, text in enumerate(texts)]
        )

    assert task(questions).fingerprint == task(questions).fingerprint
    assert task(questions).fingerprint != task(questions[1:]).fingerprint
