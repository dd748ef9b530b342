"""Recorded experts answer what was recorded, and refuse everything else."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest
from engine_contract import EngineContract, after, ask, greedy
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.agents.engines import create_engine, recorded
from swarm.agents.expert import Expert, Pool, Price, Sampling
from swarm.agents.messages import Message, Request, Response, Usage
from swarm.agents.prompt import STYLES, Position
from swarm.agents.recorded_rows import RecordedRow
from swarm.agents.recording import Recording
from swarm.agents.replies import drawn, mark, read_mark
from swarm.agents.role import find_role
from swarm.errors import ConfigError, EngineError, InputError, PoolError, RequestError

PROMPTS = ["one", "two three", "four five six seven", "eight nine " * 20]
ODD = ["naïve ☃ 日本語 👩‍👩‍👧 \u202e right", "\ud800 alone", "nul \0 nul", "%s {0} {x}"]
WORDS = list(dict.fromkeys(" ".join(PROMPTS).split()))
PAIRS = [f"{first} {second}" for first in WORDS for second in WORDS]
LONG = [" ".join((WORDS * 20)[:n]) for n in (5, 20)]
LONG += [" ".join([WORDS[0]] * n) for n in (30, 300, 3_000, 30_000)]
QUESTIONS = list(dict.fromkeys([*PROMPTS, *ODD, *WORDS, *PAIRS, *LONG]))
"""All that the contract asks, but for blank texts, which no recording may have."""


def row(i, question, **models):
    """`models` maps each to its score, or to score and other values by key."""
    found = {"id": f"q{i}", "benchmark": "b", "question": question, "scores": {}}
    for model, value in models.items():
        values = value if isinstance(value, dict) else {"scores": value}
        for key, each in {"scores": 1.0, **values}.items():
            found.setdefault(key, {})[model] = each
    return found


def record(path, *rows, **options):
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return Recording.load(path, **options)


def generate(*requests):
    return asyncio.run(create_engine("recorded").generate(requests))


def answer(expert, *texts, draw=0):
    return generate(Request(expert, ask(*texts), draw))[0]


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    rows = [
        row(
            i,
            question,
            low={
                "responses": f"{question} in low voice",
                "sample_answers": [f"low {i} {k}" for k in range(20)],
            },
            loud={
                "responses": question.upper() + "!",
                "sample_answers": [f"LOUD {i} {k}" for k in range(20)],
            },
        )
        for i, question in enumerate(QUESTIONS)
    ]
    return record(tmp_path_factory.mktemp("contract") / "r.jsonl", *rows)


class TestRecorded(EngineContract):
    waits = False

    @pytest.fixture
    def engine(self):
        return create_engine("recorded")

    @pytest.fixture
    def experts(self, recording):
        return list(Pool.recorded(recording, sampling=greedy()).values())

    @pytest.fixture
    def prompts(self):
        return PROMPTS

    @pytest.fixture
    def hopeless(self, experts):
        told = ["`low`", "`who knows?` is not in the recording", "Task.recorded"]
        return Request(experts[0], ask("who knows?")), told

    @pytest.fixture
    def broken(self):
        return Expert(name="mute", engine="recorded", model="nowhere.jsonl:mute")

    @pytest.fixture
    def sabotage(self):
        return lambda engine: after(4, recorded, "_usage", MemoryError("no room"))

    @pytest.fixture
    def parrot(self, tmp_path):
        secrets = [f"mine is secret{user}of{i}" for user in range(4) for i in range(8)]
        rows = [row(i, text, parrot={"responses": text}) for i, text in enumerate(secrets)]
        return Pool.recorded(record(tmp_path / "parrot.jsonl", *rows))["parrot"]

    # No recording has a blank question: of the odd texts, only the others can be answered.
    @pytest.mark.parametrize("text", ODD)
    def test_odd_texts_are_answered(self, engine, experts, requests, text):
        super().test_odd_texts_are_answered(engine, experts, requests, text)

    @pytest.mark.parametrize("text", ["", " ", "\n"])
    def test_blank_texts_are_refused(self, experts, text):
        assert isinstance(answer(experts[0], text), RequestError)

    def test_no_more_tokens_than_allowed_each_by_its_own_limit(self):
        pytest.skip("recorded answers are whole: the models had their own limits")

    def test_a_stop_string_ends_its_own_request_only(self):
        pytest.skip("recorded answers are whole: the models had their own limits")

    def test_the_first_of_several_stop_strings_ends_it(self):
        pytest.skip("recorded answers are whole: the models had their own limits")


@pytest.fixture
def sums(tmp_path):
    """Text, an answer, draws only, a score only; two models that say the same."""
    return record(
        tmp_path / "sums.jsonl",
        row(
            1,
            "2 + 2?",
            told={"responses": "It is 4.", "answers": "4"},
            read={"answers": "4"},
            drawn={"sample_answers": ["5", "4", "4"]},
            scored=0.7,
            unread={"answers": None, "scores": 0},
        ),
        row(
            2,
            "Question: odd?\nAnswer:",
            told={"responses": "yes", "scores": 1},
            read={"responses": "yes", "scores": 0.5},
            drawn={"responses": f"I quote: {mark(1.0)}\n{mark(1.0)}", "scores": 0},
        ),
        models="union",
    )


def test_text_then_answer_then_draws_then_score(sums):
    pool = Pool.recorded(sums)
    texts = {name: answer(expert, "2 + 2?").text for name, expert in pool.items()}
    assert texts == {
        "told": "It is 4.",
        "read": "4",
        "drawn": "4\n[recorded score 1.0]",
        "scored": "[recorded score 0.7]",
        "unread": "",
    } | {"drawn": "4"}


def test_a_score_is_told_where_the_text_does_not_tell_it(sums):
    pool = Pool.recorded(sums)
    texts = [answer(pool[name], "Question: odd?\nAnswer:").text for name in ("told", "read")]
    assert texts == ["yes\n[recorded score 1.0]", "yes\n[recorded score 0.5]"]
    # A text that ends like a score is not taken for one.
    quoted = answer(pool["drawn"], "Question: odd?\nAnswer:").text
    assert read_mark(quoted)[1] == 0.0


@given(st.floats(0, 1), st.text())
@settings(deadline=None)
def test_marks_are_read_back_exactly(score, text):
    assert read_mark(f"{text}\n{mark(score)}") == (text, score)
    assert read_mark(mark(score)) == ("", score)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("role", ["solver", "critic"])
def test_a_lone_agents_prompt_of_every_style(sums, style, role):
    for expert in Pool.recorded(sums, prompt=style).subset("told", "read").values():
        for question in sums.questions:
            [messages] = expert.style.messages(find_role(role), Position.FIRST, [question], [])
            [found] = generate(Request(expert, messages))
            assert found == answer(expert, question)._replace(usage=found.usage)


def test_a_question_inside_a_question_is_not_the_question(tmp_path):
    inner, outer = "odd?", "Work it out.\nQuestion: odd?"
    recording = record(tmp_path / "r.jsonl", row(1, inner, m=1.0), row(2, outer, m=0.5))
    for style in STYLES:
        expert = Pool.recorded(recording, prompt=style)["m"]
        for question, score in ((inner, 1.0), (outer, 0.5)):
            assert answer(expert, question).text == mark(score)
            text = expert.style.render(question, (), Position.FIRST)
            assert answer(expert, text).text == mark(score)
        found = answer(expert, expert.style.render(f"Now: {inner}", (), Position.FIRST))
        assert isinstance(found, RequestError)


@pytest.mark.parametrize("style", STYLES)
def test_others_responses_are_refused(sums, style):
    expert = Pool.recorded(sums, prompt=style)["told"]
    for position in (Position.MIDDLE, Position.LAST):
        text = expert.style.render("2 + 2?", ["It is 5.\nQuestion: what?"], position)
        found = answer(expert, text)
        assert isinstance(found, RequestError)
        assert "expert `told`: was asked with other agents' responses" in str(found)


def test_an_unknown_question_is_named(sums):
    expert = Pool.recorded(sums)["told"]
    text = expert.style.render("3 + 3?", (), Position.FIRST)
    told = str(answer(expert, text))
    assert told.startswith("expert `told`: `3 + 3?` is not in the recording")
    assert "its 2 questions" in told


def test_a_model_that_was_not_asked(sums):
    found = answer(Pool.recorded(sums)["scored"], "Question: odd?\nAnswer:")
    assert isinstance(found, RequestError)
    assert "`scored` was not asked `Question: odd? Answer:`" in str(found)


def test_draws(sums):
    warm = Sampling(temperature=1.0)
    pool = Pool.recorded(sums, sampling=warm)
    texts = [answer(pool["drawn"], "2 + 2?", draw=k).text for k in range(3)]
    assert texts == ["5", "4", "4"]
    found = answer(pool["drawn"], "2 + 2?", draw=3)
    assert isinstance(found, RequestError)
    assert "draw 4 of `2 + 2?` is asked for, and 3 recorded" in str(found)
    assert answer(pool["told"], "2 + 2?").text == "It is 4."
    assert "1 recorded" in str(answer(pool["told"], "2 + 2?", draw=1))
    others = Pool.recorded(sums, sampling=Sampling(temperature=1.0, seed=3))["drawn"]
    again = [answer(others, "2 + 2?", draw=k).text for k in range(3)]
    assert sorted(again) == ["4", "4", "5"]


@given(st.integers(), st.text())
@settings(deadline=None)
def test_every_seed_gives_each_draw_once(seed, name):
    draws = [str(k) for k in range(8)]
    asked = RecordedRow(name, "b", "", "odd?", sample_answers={"m": tuple(draws)})
    again = drawn(asked, "m", seed)
    assert sorted(again) == draws
    assert list(drawn(asked, "m", seed)) == list(again)


def test_choices_tell_questions_apart(tmp_path):
    rows = [
        {**row(1, "Which?", m=1.0), "choices": {"A": "this", "B": "that"}},
        {**row(2, "Which?", m=0.25), "choices": {"A": "here", "B": "there"}},
        {**row(3, "Who?", m=0.5), "choices": {"A": "she", "B": "he"}},
    ]
    recording = record(tmp_path / "r.jsonl", *rows)
    expert = Pool.recorded(recording)["m"]
    assert answer(expert, "Which?\nA. here\nB. there").text == mark(0.25)
    assert answer(expert, "Who?").text == answer(expert, "Who?\nA. she\nB. he").text == mark(0.5)
    assert isinstance(answer(expert, "Which?"), RequestError)


def test_a_question_that_is_there_twice_has_the_mean_score(tmp_path):
    rows = [
        row(1, "odd?", m={"answers": "yes", "scores": 1}, n={"answers": "no", "scores": 0}),
        row(2, "odd?", m={"answers": "yes", "scores": 0}, n={"answers": "no", "scores": 0}),
    ]
    recording = record(tmp_path / "r.jsonl", *rows)
    pool = Pool.recorded(recording)
    replies = recording.replies.to("odd?").replies
    assert [reply.score for reply in replies.values()] == [0.5, 0]
    assert answer(pool["m"], "odd?").text == "yes"


def cost(expert, response):
    return expert.price.of(response.usage)


def test_costs_come_out_as_recorded(tmp_path):
    rng = np.random.default_rng(0)
    costs = rng.uniform(1e-6, 0.3, 20)
    rows = [row(i, f"{i}?", m={"costs": float(c), "responses": "x"}) for i, c in enumerate(costs)]
    recording = record(tmp_path / "r.jsonl", *rows)
    expert = Pool.recorded(recording)["m"]
    found = [cost(expert, answer(expert, f"{i}?")) for i in range(20)]
    np.testing.assert_allclose(found, costs, atol=0.5e-7)
    priced = Pool.recorded(recording, price=Price(output=2.0))["m"]
    assert answer(priced, "3?").usage == Usage(1, 1)


def test_tokens_come_out_as_recorded_and_costs_with_them(tmp_path):
    price = Price(input=0.15, output=0.6)
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 5000, (20, 2)).tolist()
    rows = [
        row(i, f"{i}?", m={"costs": price.of(Usage(*pair)), "tokens": pair})
        for i, pair in enumerate(tokens)
    ]
    expert = Pool.recorded(record(tmp_path / "r.jsonl", *rows))["m"]
    assert expert.price == price
    assert [list(answer(expert, f"{i}?").usage) for i in range(20)] == tokens


def test_a_pool_file(sums, tmp_path):
    (tmp_path / "pool.toml").write_text(
        '[defaults]\nengine = "recorded"\n'
        '[[experts]]\nname = "a"\nmodel = "sums.jsonl:told"\n'
        '[[experts]]\nname = "b"\nmodel = "sums.jsonl:scored"\n'
    )
    pool = Pool.load(tmp_path / "pool.toml")
    assert answer(pool["a"], "2 + 2?").text == "It is 4."
    assert answer(pool["b"], "2 + 2?").text == mark(0.7)
    assert pool["a"].source.recording is pool["b"].source.recording
    # Where the recording lies and what the expert is called change no answer.
    assert pool["a"].fingerprint == Pool.recorded(sums)["told"].fingerprint
    assert pool["a"].fingerprint != pool["b"].fingerprint
    assert json.dumps(pool["a"].model_dump(mode="json"))
    before = pool["a"].fingerprint
    record(tmp_path / "sums.jsonl", row(1, "2 + 2?", told=1.0, scored=0.0))
    assert Pool.load(tmp_path / "pool.toml")["a"].fingerprint != before


@pytest.mark.parametrize(
    ("keys", "error", "told"),
    [
        ('model = "sums.jsonl"', ConfigError, r"`sums.jsonl`: a recorded expert is a recording"),
        ('model = "sum.jsonl:told"', ConfigError, r"no such file \(did you mean `sums.jsonl`\?\)"),
        ('model = "sums.jsonl:tol"', InputError, r"model `tol` is not in .*did you mean `told`"),
        ('model = "sums.jsonl:told"\nadapter = "x"', PoolError, "has no weights"),
        ('model = "sums.jsonl:told"\noptions = {scal = 1}', ConfigError, "`options.scal`: unknown"),
        ('model = "sums.jsonl:told"\noptions = {scale = 1}', ConfigError, "`options.scale`: `1`"),
    ],
)
def test_a_pool_file_that_is_wrong(sums, tmp_path, keys, error, told):
    path = tmp_path / "pool.toml"
    path.write_text(f'[[experts]]\nname = "a"\nengine = "recorded"\n{keys}\n')
    with pytest.raises(error, match=told) as raised:
        Pool.load(path)
    assert "pool.toml" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_only_some_models(sums):
    assert list(Pool.recorded(sums, models=["scored", "told"])) == ["scored", "told"]
    with pytest.raises(InputError, match="did you mean `told`"):
        Pool.recorded(sums, models=["tolt"])


def test_copies_keep_their_recording(sums):
    expert = Pool.recorded(sums)["told"]
    copy = expert.model_copy(update={"name": "other", "sampling": Sampling(temperature=1)})
    assert isinstance(answer(copy, "2 + 2?"), Response)
    assert copy.fingerprint != expert.fingerprint


def test_a_conversation_is_asked_by_its_last_message(sums):
    expert = Pool.recorded(sums)["told"]
    messages = (Message("system", "Be brief."), *ask("2 + 2?"))
    assert generate(Request(expert, messages))[0].text == "It is 4."


def test_an_expert_without_its_recording(sums):
    expert = Pool.recorded(sums)["told"]
    bare = Expert.model_validate(expert.model_dump())
    with pytest.raises(EngineError, match=r"`told`.*gone with its process.*Pool\.recorded"):
        generate(Request(bare, ask("2 + 2?")))
