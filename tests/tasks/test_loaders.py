"""Records from files and data sets: what is read, and what is said about what can't be."""

import gzip
import json
import sys
import types
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import ConfigError, MissingPackageError, TaskError
from swarm.tasks import Example, Fields, Task, read_csv, read_hf, read_jsonl

RECORD = {"question": "What is 1 + 1?", "answer": "2"}


def load(dev, **options) -> tuple[Example, ...]:
    return Task.from_records("t", options.pop("scorer", "exact"), dev=dev, **options).dev


def refused(dev, **options) -> str:
    with pytest.raises((TaskError, ConfigError)) as caught:
        load(dev, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", ["dev.jsonl", "dev.jsonl.gz", "dev.csv", "dev.csv.gz"])
def test_a_file_is_read_by_its_name(tmp_path, name):
    text = 'question,answer,domain\n"Capital\nof France, please?",Paris,geo\nÄ?,ä,\n'
    if "jsonl" in name:
        rows = [
            {"question": "Capital\nof France, please?", "answer": "Paris", "domain": "geo"},
            {"question": "Ä?", "answer": "ä", "domain": ""},
        ]
        text = "\ufeff" + "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n"
    (tmp_path / name).write_bytes(
        gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()
    )
    expected = (
        Example("Capital\nof France, please?", "Paris", "1", meta={"domain": "geo"}),
        Example("Ä?", "ä", "2", meta={"domain": ""}),
    )
    assert load(name, folder=tmp_path) == expected
    assert load(tmp_path / name) == expected


def test_readers_are_lazy_and_say_where(tmp_path):
    path = tmp_path / "dev.jsonl"
    path.write_text('{"a": 1}\n\n{"a": 2}\nnot json\n')
    records = read_jsonl(path)
    assert next(records) == (f"`{path}:1`", {"a": 1})
    assert next(records) == (f"`{path}:3`", {"a": 2})
    (tmp_path / "dev.csv").write_text('a,b\n"1\n1",2\n3,4\n')
    assert [where for where, _ in read_csv(tmp_path / "dev.csv")] == [
        f"`{tmp_path / 'dev.csv'}:3`",
        f"`{tmp_path / 'dev.csv'}:4`",
    ]


@given(
    st.lists(
        st.fixed_dictionaries(
            {"question": st.text(), "answer": st.text(), "id": st.integers(), "more": st.text()}
        ).filter(lambda record: record["question"].strip() and record["answer"].strip()),
        min_size=1,
        unique_by=lambda record: record["id"],
    )
)
def test_jsonl_gives_what_the_records_give(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("records") / "dev.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    assert load(path) == load(records)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"question": "q", "answer": "a"}\n{"question": ', "dev.jsonl:2`: not valid JSON: Exp"),
        ('{"question": "q" "answer": "a"}', "delimiter (column 18)"),
        (
            '{"question": "q", "answer": ' + "9" * 5000 + "}",
            "dev.jsonl:1`: not valid JSON: Exceeds",
        ),
        ("[" * 100_000, "dev.jsonl:1`: not valid JSON: "),
        ('["q", "a"]', 'dev.jsonl:1`: a line must be a JSON object, not `["q", "a"]`'),
        ('{"question": "q"}', "dev.jsonl:1`: no key `answer` (keys there: question); say which"),
        (
            '{"question": "q", "anwser": "a"}',
            "no key `answer` (did you mean `anwser`?); say which it is in `fields.answer`",
        ),
        ("{}", "no key `question` (keys there: none)"),
        ('\n{"question": "q", "answer": null}', "dev.jsonl:2`: key `answer`: gold answer missing"),
        ('{"question": "q", "answer": " "}', "dev.jsonl:1`: key `answer`: gold answer missing"),
        ('{"question": "q", "answer": []}', "gold answer missing"),
        ('{"question": "q", "answer": ["a", ""]}', "gold answer missing"),
        ('{"question": "q", "answer": {"text": "a"}}', "not `{'text': 'a'}`"),
        ('{"question": "", "answer": "a"}', "key `question`: the question must be a text"),
        ('{"question": ["q"], "answer": "a"}', "key `question`: the question must be a text"),
        (
            '{"question": "q", "answer": "a", "choices": "a,b"}',
            "must be a list of at most 26 texts",
        ),
        ('{"question": "q", "answer": "a", "choices": {"A": ["x"]}}', "not `{'A': ['x']}`"),
        (
            '{"question": "q", "answer": 2, "choices": ["x", "y"]}',
            "`2` must be a position in the list of choices, 0 to 1",
        ),
        ("", "task `t`: split `dev` is empty"),
        ("\n\n", "task `t`: split `dev` is empty"),
    ],
)
def test_jsonl_problems_name_file_and_line(tmp_path, content, message):
    (tmp_path / "dev.jsonl").write_text(content)
    assert message in refused("dev.jsonl", folder=tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("question,answer\nq,a\nq\n", "dev.csv:3`: a row must have 2 columns"),
        ("question,answer\nq,a,b\n", "dev.csv:2`: a row must have 2 columns"),
        ('question,answer\nq,"a" b\n', "dev.csv:2`: not valid CSV: "),
        ("question,anwser\nq,a\n", "dev.csv:2`: no key `answer` (did you mean `anwser`?)"),
        ("question,answer\nq,\n", "dev.csv:2`: key `answer`: gold answer missing"),
        ("question,answer\n", "split `dev` is empty"),
    ],
)
def test_csv_problems_name_file_and_line(tmp_path, content, message):
    (tmp_path / "dev.csv").write_text(content)
    assert message in refused("dev.csv", folder=tmp_path)


def test_files_that_can_not_be_read(tmp_path):
    (tmp_path / "dev.jsonl").write_bytes(b'{"question": "\xff", "answer": "a"}')
    assert "not UTF-8" in refused("dev.jsonl", folder=tmp_path)
    (tmp_path / "dev.jsonl.gz").write_bytes(gzip.compress(json.dumps(RECORD).encode())[:-9])
    assert "not a whole gzip file" in refused("dev.jsonl.gz", folder=tmp_path)
    (tmp_path / "dev.jsonl.gz").write_text(json.dumps(RECORD))
    assert "not a whole gzip file" in refused("dev.jsonl.gz", folder=tmp_path)
    (tmp_path / "folder.csv").mkdir()
    assert "can't be read: Is a directory" in refused("folder.csv", folder=tmp_path)
    assert "no such file (did you mean `dev.jsonl`?)" in refused("dv.jsonl", folder=tmp_path)
    assert refused("dev.csv", folder=tmp_path / "nowhere").endswith("no such file")
    assert "`dev.xlsx`: records are read from .jsonl and .csv files" in refused("dev.xlsx")


@pytest.mark.parametrize(
    ("record", "example"),
    [
        ({"question": "q", "answer": 3}, Example("q", "3", "1")),
        ({"question": "q", "answer": 0.5, "id": 7}, Example("q", "0.5", "7")),
        ({"question": "q", "answer": ["a", "b"]}, Example("q", ("a", "b"), "1")),
        ({"question": "q", "answer": ["a"]}, Example("q", "a", "1")),
        ({"question": "q", "answer": "a", "choices": None}, Example("q", "a", "1")),
        ({"question": "q", "answer": "a", "choices": []}, Example("q", "a", "1")),
        (
            {"question": "q", "answer": "B", "choices": ["x", "y"]},
            Example("q", "B", "1", choices={"A": "x", "B": "y"}),
        ),
        (
            {"question": "q", "answer": 1, "choices": ["x", 5]},
            Example("q", "B", "1", choices={"A": "x", "B": "5"}),
        ),
        (
            {"question": "q", "answer": 1, "choices": {"1": "x", "2": "y"}},
            Example("q", "1", "1", choices={"1": "x", "2": "y"}),
        ),
        (
            {"question": "q", "answer": "2", "choices": {"text": ["x", "y"], "label": ["1", "2"]}},
            Example("q", "2", "1", choices={"1": "x", "2": "y"}),
        ),
        (
            {"question": "q", "answer": "a", "domain": "d", "steps": 3},
            Example("q", "a", "1", meta={"domain": "d", "steps": 3}),
        ),
    ],
)
def test_records_become_examples(record, example):
    assert load([record]) == (example,)


def test_fields_say_which_key_is_what():
    record = {"input": "q", "target": 1, "key": "k", "a": "x", "b": "y", "source": "s"}
    fields = {"question": "input", "answer": "target", "id": "key", "choices": ["a", "b"]}
    expected = (Example("q", "B", "k", choices={"A": "x", "B": "y"}, meta={"source": "s"}),)
    assert load([record], fields=fields) == expected
    assert load([record], fields=Fields(**fields)) == expected
    assert "no key `c`" in refused([record], fields={**fields, "choices": ["a", "c"]})
    assert refused([record], fields={"awnser": "target"}) == (
        "`fields`: key `awnser`: unknown (did you mean `answer`?)"
    )


def test_a_function_may_make_the_examples():
    def example(record):
        return Example(record["q"].upper(), record["a"], record["q"])

    assert load([{"q": "q", "a": "a"}], record=example) == (Example("Q", "a", "q"),)
    assert "split `dev`, record 2: `test_a_function_may_make_the_examples.<locals>.example` " in (
        refused([{"q": "q", "a": "a"}, {"q": "r"}], record=example)
    )
    assert "must return an `Example`, not `'q'`" in refused([RECORD], record=lambda record: "q")
    assert load([Example("q", "a", "1")], record=example) == (Example("q", "a", "1"),)


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for `datasets` that remembers what it was asked for."""
    asked = []

    def load_dataset(name, config, split):
        asked.append((name, config, split))
        if name == "nobody/nothing":
            raise FileNotFoundError("Couldn't find\nnobody/nothing")
        return [RECORD, {"question": "q"}] if name == "half" else [RECORD]

    module = types.ModuleType("datasets")
    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    return asked


def test_data_sets_of_hugging_face(hub):
    assert load("hf:openai/gsm8k") == (Example("What is 1 + 1?", "2", "1"),)


def test_the_split_of_a_data_set_is_named_or_follows_ours(hub):
    for split, source in [
        ("train", "hf:gsm8k"),
        ("dev", "hf:openai/gsm8k"),
        ("test", "hf:openai/gsm8k:main"),
        ("dev", "hf:gsm8k:main@train[:10]"),
    ]:
        list(read_hf(source, split))
    assert hub == [
        ("gsm8k", None, "train"),
        ("openai/gsm8k", None, "validation"),
        ("openai/gsm8k", "main", "test"),
        ("gsm8k", "main", "train[:10]"),
    ]


def test_problems_with_data_sets(hub, monkeypatch):
    assert refused("hf:nobody/nothing") == (
        "`hf:nobody/nothing`: `validation` can't be loaded: Couldn't find nobody/nothing"
    )
    assert "`hf:half` row 2: no key `answer`" in refused("hf:half")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingPackageError, match=r"`hf:gsm8k` needs .*'agent-swarm\[data\]'"):
        load("hf:gsm8k")


def test_paths_may_be_absolute(tmp_path):
    (tmp_path / "dev.jsonl").write_text(json.dumps(RECORD))
    assert load(str(tmp_path / "dev.jsonl"), folder=Path("elsewhere"))
