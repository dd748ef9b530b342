"""Of responses that are cut the ends are left, the oldest first, and what is written is read."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.agents.prompt import CHAT, COMPACT, Position
from swarm.agents.role import Role
from swarm.agents.shortening import MARK, WORD, Cut, apply, cut, most, read, write

words = st.text("abc12.é日", min_size=1, max_size=50)
texts = st.one_of(st.text(max_size=30), st.lists(words, max_size=12).map(" ".join))


@st.composite
def columns(draw):
    """Responses, the order in which they were given, and how much is to be cut."""
    responses = draw(st.lists(texts, max_size=5))
    order = draw(st.permutations(range(len(responses))))
    return responses, order, draw(st.integers(0, 300))


@given(columns())
def test_the_oldest_goes_first_and_down_to_nothing(column):
    responses, order, amount = column
    cuts = {each.response - 1: each for each in cut(responses, order, amount)}
    can_be_cut = [k for k in order if len(responses[k]) > len(MARK)]
    assert list(cuts) == sorted(cuts)
    touched = [k for k in can_be_cut if k in cuts]
    assert touched == can_be_cut[: len(cuts)], "none is passed over"
    assert all(cuts[k].kept == 0 for k in touched[:-1]), "and only the last is cut in part"
    gone = sum(each.of - each.kept for each in cuts.values())
    assert gone >= min(amount, most(responses))


@given(columns())
def test_what_is_left_is_an_end_that_begins_with_a_word(column):
    responses, order, amount = column
    cuts = cut(responses, order, amount)
    left = apply(responses, cuts)
    changed = {each.response - 1: each for each in cuts}
    for k, (text, short) in enumerate(zip(responses, left, strict=True)):
        if k not in changed:
            assert short == text
            continue
        _, kept, of = changed[k]
        assert of == len(text)
        end = text[of - kept :]
        assert short in {MARK + end, f"{MARK} {end}"}
        if end and not text[: of - kept][-1].isspace():
            assert not re.search(r"\s", text[of - kept : of - kept + WORD]), "a very long word"
            assert short == MARK + end
        elif end:
            assert short == f"{MARK} {end}"
            assert not end[0].isspace()


@given(columns(), st.integers(0, 300))
def test_more_is_never_less(column, other):
    responses, order, amount = column

    def kept(amount):
        left = {each.response: each.kept for each in cut(responses, order, amount)}
        return [left.get(k + 1, len(text)) for k, text in enumerate(responses)]

    less, more = sorted((amount, other))
    assert all(a >= b for a, b in zip(kept(less), kept(more), strict=True))


def test_a_number_is_never_cut_in_two():
    text = "the sum is 1234 and so the answer is 5678"
    for amount in range(1, len(text)):
        [left] = apply([text], cut([text], [0], amount))
        assert {"1234", "5678"} >= set(re.findall(r"\d+", left))


numbers = st.integers(0, 10**9)
cuts = st.lists(
    st.builds(Cut, st.integers(1, 10**6), numbers, numbers), min_size=1, max_size=4
).map(tuple)


@given(cuts)
def test_what_is_written_is_read(cuts):
    assert read(write(cuts)) == cuts


@pytest.mark.parametrize("text", ["", "1", "1: 2", "0: 1 of 2", "1: 2 of 3,", "x", "1: -2 of 3"])
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="is not a cut"):
        read(text)


def test_a_record_that_does_not_fit_does_no_harm():
    assert apply(["long enough"], (Cut(2, 0, 5), Cut(1, 99, 100))) == ["long enough"]


@pytest.mark.parametrize("style", [CHAT, COMPACT])
def test_prompts_with_and_without_cuts(style):
    role = Role(name="solver", instructions="Solve it.")
    previous = [["first said this", "short"], ["second\nsaid that", "%s {k}"]]
    questions = ["q1", "q2"]
    arguments = (role, Position.LAST, questions, previous)
    whole = style.messages(*arguments)
    cut = style.messages(*arguments, {0: (Cut(1, 0, 15), Cut(2, 4, 16))})
    assert cut[1] == whole[1]
    assert cut[0][:-1] == whole[0][:-1]
    assert f"1: {MARK}\n" in cut[0][-1].content
    assert f"2: {MARK} that\n" in cut[0][-1].content
    assert "first" not in cut[0][-1].content
    assert "q1" in cut[0][-1].content
    assert previous == [["first said this", "short"], ["second\nsaid that", "%s {k}"]]
