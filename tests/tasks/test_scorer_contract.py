"""What every scorer promises, for any text."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import TaskError
from swarm.tasks import SCORERS, Example, Scorer, get_scorer
from swarm.tasks.scorers import Function

CHOICES = {"A": "Longevity", "B": "a loss of hair", "C": "3.5", "D": "None of these", "I": "I"}


def _half(example: Example, text: str) -> float:
    return 1.0 if text == example.answer else 0.5


EXAMPLES: list[tuple[Scorer, Example]] = [
    (get_scorer("exact"), Example("q", ("Paris", "the City of Light"), "1")),
    (get_scorer("exact"), Example("q", "-3.5", "1")),
    (get_scorer("f1"), Example("q", ("a loss of hair", "The"), "1")),
    (get_scorer("number"), Example("q", ("$1,234.50", "45%"), "1")),
    (get_scorer({"name": "number", "tolerance": 0.1}), Example("q", "3/4", "1")),
    (get_scorer("choice"), Example("q", "B", "1", choices=CHOICES)),
    (get_scorer("choice"), Example("q", ("D", "I"), "1", choices=CHOICES)),
    (get_scorer("choice"), Example("q", "2", "1", choices={"1": "one", "2": "two"})),
    (get_scorer(_half), Example("q", "yes", "1")),
]

UNCHECKED = [
    (get_scorer("choice"), Example("q", "A", "1")),
    (get_scorer("choice"), Example("q", "A", "1", choices={"A": "", "B": "b", "S": "s"})),
    (get_scorer("number"), Example("q", "Paris", "1")),
]
"""Examples that `check` refuses, or that are odd: still no text may raise."""

pieces = [
    *("The answer is ", "answer:", "####", "\\boxed{", "}", "<answer>", "</answer>", "</think>"),
    *("(", ")", "**", "\n", ". ", ", ", " and ", "A", "B", "b", "I", "Option C", "is correct"),
    *(
        "-",
        "$",
        "1,234.5",
        "3/0",
        "\\frac{1}{2}",
        "½",
        "²",
        "٣",
        "％",
        "1e999",
        "9" * 400,
        "^",
        "=",
    ),
    *("a loss of hair", "Paris", "−", "ı", "ſ", "\ud800", "\u200b"),
]
texts = st.text() | st.lists(st.sampled_from(pieces) | st.text(max_size=3)).map("".join)


@pytest.mark.parametrize(("scorer", "example"), EXAMPLES)
class TestContract:
    @given(text=texts)
    def test_any_text_gets_a_score_in_range(self, scorer, example, text):
        score = scorer(example, text)
        assert type(score) is float
        assert 0.0 <= score <= 1.0
        assert scorer(example, text) == score

    @given(text=texts)
    def test_any_text_gives_an_answer_or_none(self, scorer, example, text):
        answer = scorer.extract(example, text)
        assert answer is None or (isinstance(answer, str) and answer)

    def test_every_gold_answer_scores_1(self, scorer, example):
        scorer.check(example)
        assert [scorer(example, gold) for gold in example.golds] == [1.0] * len(example.golds)

    def test_no_answer_is_not_right(self, scorer, example):
        assert scorer(example, "") < 1.0
        assert scorer(example, " \n") < 1.0

    def test_thinking_is_no_answer(self, scorer, example):
        if not isinstance(scorer, Function):
            assert scorer(example, f"{example.golds[0]}</think>") == 0.0
            assert scorer(example, f"zzz</think>\n\n{example.golds[0]}") == 1.0

    def test_identity_tells_scorers_apart(self, scorer, example):
        assert scorer.identity == scorer.identity
        others = {str(other.identity) for other, _ in EXAMPLES if other != scorer}
        assert scorer.identity not in others


@pytest.mark.parametrize(("scorer", "example"), UNCHECKED)
@given(text=texts)
def test_no_text_raises_for_odd_examples(scorer, example, text):
    assert 0.0 <= scorer(example, text) <= 1.0
    assert scorer(example, "") == 0.0


def test_every_scorer_is_under_the_contract():
    assert {scorer.name for scorer, _ in EXAMPLES} == {*SCORERS, "function"}
    assert all(name == scorer.name for name, scorer in SCORERS.items())


golds = st.text(min_size=1).filter(lambda gold: gold.strip() and "</think>" not in gold)


@pytest.mark.parametrize("name", ["exact", "f1"])
@given(gold=golds)
def test_any_gold_text_scores_1_against_itself(name, gold):
    scorer = get_scorer(name)
    assert scorer(Example("q", ("other", gold), "1"), gold) == 1.0


@given(gold=golds, other=golds)
def test_f1_is_symmetric_and_bounded_by_exact(gold, other):
    f1 = get_scorer("f1")
    score = f1(Example("q", gold, "1"), other)
    assert score == f1(Example("q", other, "1"), gold)


@given(number=st.integers(-(10**15), 10**15), other=st.integers(-(10**15), 10**15))
def test_whole_numbers_are_equal_however_they_are_written(number, other):
    scorer = get_scorer("number")
    example = Example("q", str(number), "1")
    scorer.check(example)
    written = [
        f"{number:,}",
        f"{number}.0",
        f"so it is {number}.",
        f"#### {number}",
        f"{number} kg",
    ]
    assert [scorer(example, text) for text in written] == [1.0] * len(written)
    assert scorer(example, f"The answer is {other}") == float(number == other)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_float_scores_1_against_itself(number):
    assert get_scorer("number")(Example("q", repr(number), "1"), f"= {number!r}") == 1.0


@given(
    texts=st.lists(st.text("bcdfgh", min_size=3), min_size=2, max_size=10, unique=True),
    data=st.data(),
)
def test_a_choice_is_found_by_letter_and_by_text(texts, data):
    letters = "ABCDEFGHIJ"[: len(texts)]
    choices = dict(zip(letters, texts, strict=True))
    gold, picked = data.draw(st.sampled_from(letters)), data.draw(st.sampled_from(letters))
    example = Example("q", gold, "1", choices=choices)
    for text in (
        picked,
        f"({picked})",
        f"{picked}. {choices[picked]}",
        f"The answer is ({picked}).",
        f"**Answer: {picked}**",
        f"$\\boxed{{\\text{{{picked}}}}}$",
        choices[picked],
        f"The answer is {choices[picked]}.",
    ):
        assert get_scorer("choice")(example, text) == float(picked == gold), text


@pytest.mark.parametrize("result", [math.nan, math.inf, -0.1, 1.1, None, "1", [1], 1j])
def test_a_function_must_return_a_number_from_0_to_1(result):
    scorer = get_scorer(lambda example, text: result)
    with pytest.raises(TaskError, match="for example `e7`; it must return a number from 0 to 1"):
        scorer(Example("q", "a", "e7"), "text")


def test_a_function_that_fails_is_named_with_the_example():
    def broken(example, text):
        raise KeyError("steps")

    with pytest.raises(TaskError, match="broken` failed on example `e7`: KeyError: 'steps'"):
        get_scorer(broken)(Example("q", "a", "e7"), "text")


def test_a_function_may_return_a_bool():
    assert (
        get_scorer(lambda example, text: text == example.answer)(Example("q", "a", "1"), "a") == 1
    )
